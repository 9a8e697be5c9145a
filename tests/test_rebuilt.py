"""What a hostile server may say of an error: one that is declared comes of it, or one of ours, at a bounded cost."""

import builtins
import pickle
import traceback

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import capmarshal as cm
from capmarshal._protocol import faults as _faults
from capmarshal._protocol import raised as _raised
from capmarshal._protocol.plain import unpacked


class NotFound(Exception):
    def __init__(self, name):
        super().__init__(f"no such item: {name}")
        self.name = name


class Guarded(Exception):
    """Lets nobody set what it does not know."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


class Odd(Exception):
    """Its own class has these names for something else."""

    @property
    def __dict__(self):
        raise RuntimeError("dict")

    @property
    def args(self):
        raise RuntimeError("args")


def _packed(value):
    return msgspec.Raw(msgspec.msgpack.encode(value))


def _raised_for(payload, *declared):
    """What a client raises for a FAIL with such a payload, printed as Python does."""
    error = _faults.to_exception(memoryview(payload), declared, "Digest.sha256")
    printed = "".join(traceback.format_exception(error))
    assert isinstance(repr(error), str)
    assert len(printed) < 1_000_000
    return error


def _declared(*sent):
    return msgspec.msgpack.encode([_faults.Code.DECLARED, "", [*sent]])


UNBEARABLE = {
    "decode": (UnicodeDecodeError, ["utf-8", b"abc", -(2**40), -(2**40) + 1, "r"]),
    "decode, beyond": (UnicodeDecodeError, ["utf-8", b"abc", 5, 7, "r"]),
    "decode, backwards": (UnicodeDecodeError, ["utf-8", b"abc", 2, 1, "r"]),
    "encode": (UnicodeEncodeError, ["utf-8", "abc", -(2**40), -(2**40) + 1, "r"]),
    "translate": (UnicodeTranslateError, ["abc", -(2**40), -(2**40) + 1, "r"]),
    "syntax": (SyntaxError, ["m", ["/etc/hostname", 1, 1, None, 1, 2 * 10**9]]),
    "syntax, wide": (SyntaxError, ["m", ["f", 1, 1, "text", 1, 2 * 10**9]]),
    "indentation": (IndentationError, ["m", ["/etc/hostname", 1, 1, None]]),
}


@pytest.mark.parametrize("how", UNBEARABLE)
def test_args_that_a_class_of_pythons_own_cannot_bear(how):
    """They crashed the interpreter, or made a traceback of any size, with a line of any file."""
    kind, args = UNBEARABLE[how]
    error = _raised_for(_declared([kind.__name__], "its text", args), kind)
    assert type(error) is kind
    assert error.args[0] == args[0]
    assert "/etc/hostname" not in "".join(traceback.format_exception_only(error))


BUILTIN = [
    kind for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
]  # fmt: skip


@pytest.mark.parametrize("kind", BUILTIN, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "args",
    [[], [1], ["x"], [2**63, "x"], ["x", -1, -1, "y"], ["x", b"y", -1, -1, "z"], [None] * 5, [[]], [{"a": []}]],
    ids=str,
)
def test_any_of_pythons_own_errors_bears_any_args(kind, args):
    """It is made, or a RemoteError stands for it; it can be printed, and pickled where Python can."""
    error = _raised_for(_declared([kind.__name__], "its text", args), kind)
    assert isinstance(error, (kind, cm.RemoteError))
    if isinstance(error, cm.RemoteError):
        pickle.loads(pickle.dumps(error))


TOO_MUCH = {
    "bytes": _declared(["KeyError"], "x" * 400_000),
    "one arg": _declared(["KeyError"], "x", ["x" * 100_000]),
    "args": _declared(["KeyError"], "x", [{}] * 200),
    "notes": _declared(["KeyError"], "x", [], {}, [""] * 200),
    "attributes": _declared(["KeyError"], "x", [], {f"a{number}": 1 for number in range(200)}),
    "members": _declared(["KeyError"], "x", [], {}, [], None, [[[], ""]] * 200),
    "tuples as keys": b"\x93\x01\xa0\x93\x91\xa8KeyError\xa1x\x91\x81\x92\x01\x02\x00",
    "deep": b"\x93\x01\xa0\x93\x91\xa8KeyError\xa1x\x91" + b"\x91" * 50_000 + b"\x00",
    "an extension": b"\x93\x01\xa0\x93\x91\xa8KeyError\xa1x\x91\xd4\x05\x00",
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_more_than_an_error_may_say_is_a_protocol_error(what):
    """Each of it costs memory and time at the client, whatever its deadline is."""
    assert type(_raised_for(TOO_MUCH[what], KeyError)) is cm.ProtocolError


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x" * (70 << 20)),
        KeyError(*range(1000)),
        KeyError({(1, 2): 3}),
        ExceptionGroup("many", [ExceptionGroup("more", [KeyError("k" * 9000)] * 90)] * 90),
    ],
    ids=["long", "many args", "tuples as keys", "many members"],
)
def test_what_is_too_much_to_say_arrives_as_its_class_and_text(error):
    """An honest server's error is cut, not lost."""
    fault = _faults.raised(error, [type(error)])
    came = _raised_for(_faults.encode(fault), type(error))
    assert isinstance(came, type(error)) or (isinstance(came, cm.RemoteError) and came.type == "ExceptionGroup")
    assert "x" * 1000 in str(came) or len(str(came)) < 20_000


@pytest.mark.parametrize(
    "odd", [lambda error: setattr(error, "__notes__", 5), lambda error: None], ids=["notes", "plain"]
)
def test_an_odd_error_is_still_what_is_declared(odd):
    """Whatever its class calls __dict__ and args, at either end."""
    for error in (Odd("x"), KeyError("x")):
        if type(error) is KeyError:
            odd(error)
        came = _raised_for(_faults.encode(_faults.raised(error, [type(error)])), type(error))
        assert type(came) is type(error)


class Exiting(KeyError):
    def __str__(self):
        raise SystemExit(3)


def test_an_error_whose_text_ends_the_process_has_none():
    """Its class arrives."""
    came = _faults.to_exception(memoryview(_faults.encode(_faults.raised(Exiting("x"), [KeyError]))), [KeyError], "X.y")
    assert type(came) is KeyError
    assert "cannot be had: SystemExit" in "".join(came.__notes__)


def test_plain_data_comes_back_as_it_was():
    """Lists and dicts within each other, and scalars."""
    value = {"a": [1, -1, 2.5, None, True, "x", b"y", {"b": []}], "c": 2**64 - 1}
    assert unpacked(_packed(value)) == value


_DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_CLASSES = st.lists(
    st.sampled_from(["KeyError", "OSError", "NotFound", "Guarded", "ExceptionGroup", "SystemExit", "Other"]), max_size=3
)
_SENT = st.deferred(
    lambda: st.builds(
        _raised.Raised,
        _CLASSES,
        st.text(max_size=5),
        st.lists(_DATA.map(_packed), max_size=3),
        st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["args", "errno", "__dict__", "filename"]), _DATA.map(_packed)
        ),
        st.lists(st.text(max_size=3), max_size=2),
        st.none() | st.text(max_size=3),
        st.lists(_SENT, max_size=2),
    )
)


@given(_SENT)
def test_a_hostile_server_makes_nothing_but_what_is_declared(sent):
    """Whatever it says an error was."""
    declared = [KeyError, OSError, NotFound, Guarded, ExceptionGroup]
    code = _faults.Code.DECLARED
    error = _faults.to_exception(memoryview(_faults.encode(_faults.Fault(code, "", sent))), declared, "Digest.sha256")
    assert isinstance(error, (*declared, cm.RemoteError))
    assert isinstance(str(error), str)
    assert all(isinstance(member, (*declared, cm.RemoteError)) for member in getattr(error, "exceptions", ()))
