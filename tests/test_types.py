"""What docs/types.md says arrives, arrives."""

import re
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
from capmarshal._descriptors.descriptor_list import DescriptorList
from capmarshal._typed.method import Method
from capmarshal._typed.table import Incoming, Outgoing
from patience import PATIENCE

PAGE = (Path(__file__).parents[1] / "docs" / "types.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (.+?) \|$", PAGE, re.MULTILINE)
# The definitions that the tables refer to, as a module has them.
NAMES = {"__name__": __name__}
exec("\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)), NAMES)


def _declared(annotation):
    class Post(cm.Interface):
        @cm.method
        def send(self, what: eval(annotation, NAMES)) -> eval(annotation, NAMES): ...

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
