"""What docs/types.md says arrives, arrives."""

import dataclasses
import re
from typing import NotRequired, TypedDict

import msgspec
import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._typed.incoming import Incoming
from capmarshal._typed.method import Method
from capmarshal._typed.outgoing import Outgoing
from documents import fenced, read
from patience import PATIENCE

# What it says of arrays is for test_array_layout.py.
PAGE = read("docs/types.md").partition("\n## Arrays\n")[0]
ROWS = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (.+?) \|$", PAGE, re.MULTILINE)
# The definitions that the tables refer to, as a module has them.
NAMES = {"__name__": __name__}
exec("\n".join(fenced(PAGE)), NAMES)


def _post(annotation):
    class Post(cm.Interface):
        @cm.method
        def send(self, what: annotation) -> annotation: ...

    return Post


def _declared(annotation):
    Post = _post(eval(annotation, NAMES))  # noqa: N806 - it is a class

    class Mirror(Post):
        def send(self, what):
            return what

    return Post, Mirror


def _same(came, expected):
    """Equal, of the same type, and to be told apart by nothing that a repr shows: zone, fold, the sign of a zero."""
    if isinstance(expected, memoryview):
        return type(came) is memoryview and came.tobytes() == expected.tobytes() and came.format == expected.format
    return type(came) is type(expected) and came == expected and repr(came) == repr(expected)


def _arrives(method, value):
    outgoing = Outgoing()
    payload = memoryview(method.encode_arguments((value,), outgoing))
    (came,), _ = method.decode_arguments(payload, Incoming(outgoing.entries, DescriptorList()))
    return came


@pytest.mark.parametrize(("annotation", "passed", "arrives"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_each_row_of_the_page_is_true(annotation, passed, arrives):
    """What is passed arrives as the page says, or the call fails, naming the method, and with the page's words."""
    post, _ = _declared(annotation)
    method = Method(post, "send", post.send)
    value = eval(passed, NAMES)
    if arrives.startswith("refused: "):
        with pytest.raises(cm.ArgumentError, match=re.escape(arrives.removeprefix("refused: "))) as caught:
            _arrives(method, value)
        assert "what" in str(caught.value) or "argument" in str(caught.value)
    else:
        assert _same(_arrives(method, value), eval(arrives.strip("`"), NAMES))


def test_the_page_has_its_tables():
    """The pattern above finds every row."""
    assert len(ROWS) == len(re.findall(r"^\| `", PAGE, re.MULTILINE)) > 40


def test_it_is_the_same_in_another_process(fork):
    """There and back: what has arrived once does not change any more."""
    for annotation in ("Any", "datetime", "dict[str, int]"):
        rows = [row for row in ROWS if row[0] == annotation and not row[2].startswith("refused")]
        post, mirror = _declared(annotation)
        with by_hand.server_process(fork, mirror) as (_, capability), cm.timeout(PATIENCE):
            proxy = capability.cast(post)
            for _, passed, arrives in rows:
                assert _same(proxy.send(eval(passed, NAMES)), eval(arrives.strip("`"), NAMES))
            capability.close()


@dataclasses.dataclass
class OldRecord:
    name: str


@dataclasses.dataclass
class NewRecord:
    name: str
    size: int = 0


class OldStruct(msgspec.Struct, omit_defaults=True):
    name: str


class NewStruct(msgspec.Struct, omit_defaults=True):
    name: str
    size: int = 0


class OldDict(TypedDict):
    name: str


class NewDict(TypedDict):
    name: str
    size: NotRequired[int]


def _crosses(sent, said, due):
    """What is sent by a side that says one type, to one that is due another."""
    sender, receiver = (Method(post, "send", post.send) for post in (_post(said), _post(due)))
    outgoing = Outgoing()
    payload = memoryview(sender.encode_arguments((sent,), outgoing))
    (came,), _ = receiver.decode_arguments(payload, Incoming(outgoing.entries, DescriptorList()))
    return came


def test_how_far_records_grow():
    """As docs/types.md has it: old ones are taken, new ones refused by name, but for what is at its default."""
    assert _crosses(OldRecord("a"), OldRecord, NewRecord) == NewRecord("a")
    assert _crosses(OldStruct("a"), OldStruct, NewStruct) == NewStruct("a")
    assert _crosses({"name": "a"}, OldDict, NewDict) == {"name": "a"}
    for sent, said, due in (
        (NewRecord("a"), NewRecord, OldRecord),
        (NewStruct("a", 1), NewStruct, OldStruct),
        ({"name": "a", "size": 1}, NewDict, OldDict),
    ):
        with pytest.raises(cm.ArgumentError, match="unknown field `size`"):
            _crosses(sent, said, due)
    assert _crosses(NewStruct("a"), NewStruct, OldStruct) == OldStruct("a")
    assert _crosses({"name": "a"}, NewDict, OldDict) == {"name": "a"}
