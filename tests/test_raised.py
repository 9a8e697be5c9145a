"""What a method raised: how it travels, and what the caller gets."""

import dataclasses
import errno
import os
import pathlib
import ssl
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import capmarshal as cm
from capmarshal._protocol import faults as _faults
from capmarshal._protocol import raised as _raised
from capmarshal._protocol import rebuilt as _rebuilt


def _packed(value):
    return msgspec.Raw(msgspec.msgpack.encode(value))


def _travel(error, declared=(), *, at_the_server=None, brought=b""):
    """What the client raises for what the server's method raised."""
    payload = _faults.encode(_faults.raised(error, declared if at_the_server is None else at_the_server, brought))
    return _faults.to_exception(memoryview(payload), declared, "Digest.sha256")


class Custom(Exception):
    """Its __init__ takes something else than its args are."""

    def __init__(self, first, *, second):
        super().__init__(f"{first} and {second}")
        self.first, self.second = first, second


class CustomNew(Exception):
    def __new__(cls, *, needed):
        return super().__new__(cls, needed)

    def __init__(self, *, needed):
        super().__init__(needed)


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no text either")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("name"),
        KeyError(b"bytes", 1, None, 2.5, [1, {"x": True}]),
        ValueError(),
        OSError(errno.ENOENT, "No such file or directory"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        cm.RemoteError("KeyError", "'x'"),
    ],
    ids=repr,
)
def test_a_declared_error_arrives_as_itself(error):
    """Class, args and text, and a note of where it was raised."""
    came = _travel(error, [LookupError, type(error)] if not isinstance(error, LookupError) else [type(error)])
    assert type(came) is type(error)
    assert came.args == error.args
    assert str(came) == str(error)
    assert came.__notes__ == ["raised by the server, in Digest.sha256"]


class Gone(KeyError):
    """What a derived interface declares."""


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ([ValueError, LookupError, KeyError], KeyError),
        ([LookupError, Gone], Gone),
        ([LookupError], LookupError),
        ([Exception], Exception),
    ],
    ids=["a base", "itself", "a distant base", "any"],
)
def test_a_subclass_arrives_as_the_closest_that_the_caller_declares(declared, kind):
    """A server of a derived interface raises what a caller of its base does not know."""
    came = _travel(Gone("name"), declared, at_the_server=[Gone])
    assert type(came) is kind
    assert came.args == ("name",)
    assert str(came) == "'name'" or "at the server, its text was: 'name'" in came.__notes__


def test_a_class_that_the_caller_does_not_declare_is_a_remote_error():
    """With name and text, as one that the server does not declare."""
    came = _travel(Gone("name"), [ValueError], at_the_server=[Gone])
    assert (type(came), came.type, came.message) == (cm.RemoteError, "Gone", "'name'")


def test_an_error_that_the_server_does_not_declare_is_none_of_the_callers():
    """It raised that by mistake: the caller does not take it for an answer, though it declares the name."""
    came = _travel(KeyError("name"), [KeyError], at_the_server=[ValueError])
    assert (type(came), came.type) == (cm.RemoteError, "KeyError")


def test_an_oserror_arrives_as_its_errno_says_and_without_the_path():
    """A declared OSError is rebuilt from errno and text: Python picks the subclass, and no path travels."""
    came = _travel(FileNotFoundError(errno.ENOENT, "No such file", "/secret/path"), [OSError])
    assert type(came) is FileNotFoundError
    assert came.filename is None
    assert "secret" not in str(came)


class NotFound(Exception):
    def __init__(self, name):
        super().__init__(f"no such item: {name}")
        self.name = name
        # Plain data travels; what is none of the caller's to have does not.
        self.tries, self.lock, self.path = [1, {"a": None}], threading.Lock(), pathlib.Path("/secret")


class Refused(OSError):
    """An OSError with an __init__ of its own."""

    def __init__(self, number, *, why):
        super().__init__(number, os.strerror(number))
        self.why = why


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int
    words: str = "none"

    def __str__(self):
        return f"{self.code}: {self.words}"


class Guarded(Exception):
    """Lets nobody set what it does not know."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


class ByWord(Exception):
    """Cannot be printed before its __init__ has run."""

    def __init__(self, *, word):
        super().__init__()
        self.word = word

    def __str__(self):
        return f"the word was {self.word}"


@pytest.mark.parametrize(
    "error",
    [
        Custom("one", second="two"), CustomNew(needed="this"), NotFound("spam"), Refused(errno.EACCES, why="so"),
        Frozen(7), Frozen(7, "some"), Guarded("x"), ByWord(word="please"), ssl.SSLError(1, "bad certificate"),
    ],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_a_declared_error_arrives_as_it_was_without_its_init(error):
    """Class, text, args and plain attributes; no __init__ runs a second time, whatever it makes of its args."""
    came = _travel(error, [type(error)])
    assert type(came) is type(error)
    assert str(came) == str(error)
    assert came.args == error.args
    plain = {name: value for name, value in vars(error).items() if name not in ("lock", "path")}
    assert {name: value for name, value in vars(came).items() if name != "__notes__"} == plain
    if isinstance(error, OSError):
        assert (came.errno, came.strerror) == (error.errno, error.strerror)


class Lost(cm.Disconnected):
    """An application's own."""


@pytest.mark.parametrize(
    "error", [cm.Disconnected("gone", "no"), cm.CallTimeout("late", "no"), cm.Revoked("back"), Lost("x", "no")]
)
@pytest.mark.parametrize("declares", ["itself", "Error", "OSError", "a group"])
def test_a_method_that_raised_has_run(error, declares):
    """Whatever `ran` says is of a call of its own: who repeats the one that has ended by it runs it twice."""
    if declares == "a group":
        travelled = _travel(ExceptionGroup("two", [error]), (ExceptionGroup, type(error)))
        (travelled,) = travelled.exceptions
    else:
        declared = {"itself": type(error), "Error": cm.Error, "OSError": OSError}[declares]
        travelled = _travel(error, (declared,))
        assert type(travelled) is declared
    assert travelled.ran == "maybe"


def test_what_a_call_of_its_own_says_is_known_where_it_ends():
    """Through two servers: who has called the first may not repeat that, though the second is certainly gone."""

    class Inner(cm.Interface):
        @cm.method
        def do(self) -> None: ...

    class InnerServer(Inner):
        def do(self): ...

    class Outer(cm.Interface):
        @cm.method
        @cm.raises(cm.Disconnected)
        def do(self) -> None: ...

    class OuterServer(Outer):
        def do(self):
            with pytest.raises(cm.Disconnected) as caught:
                inner.do()
            assert caught.value.ran == "no"
            inner.do()

    with cm.Entrypoint("outer") as outer:
        with cm.Entrypoint("inner") as entrypoint:
            inner = entrypoint.manage(InnerServer()).cast(Inner)
        with pytest.raises(cm.Disconnected) as caught:
            outer.manage(OuterServer()).cast(Outer).do()
    assert caught.value.ran == "maybe"


def test_an_errors_own_word_that_is_called_so_arrives():
    """It says nothing of a call."""

    class Race(Exception): ...

    error = Race("x")
    error.ran = "no"
    assert _travel(error, (Race,)).ran == "no"


def test_what_an_error_is_called_in_python_is_nothing_that_a_server_can_choose():
    """Attributes never hide a method or a property of the class, nor begin with two underscores."""

    class Owner(Exception):
        limit = 3

        def retry(self):
            return "by the class"

        @property
        def code(self):
            return 1

    hidden = dict.fromkeys(["retry", "code", "limit", "args", "with_traceback", "__class__", "__x__"], "by a server")
    attributes = {name: _packed(value) for name, value in {**hidden, "harmless": 1}.items()}
    sent = _raised.Raised(["Owner"], "text", [_packed("text")], attributes)
    (owner := Owner).__qualname__ = "Owner"
    came = _rebuilt.rebuilt(sent, [owner])
    assert (came.retry(), came.code, came.limit, came.harmless, came.args) == ("by the class", 1, 3, 1, ("text",))
    assert vars(came) == {"harmless": 1}


def test_notes_arrive_before_the_note_of_where_it_was_raised():
    """Those that are text, and not without end."""
    error = KeyError("name")
    error.add_note("first")
    error.__notes__ += [7, "second", *["more"] * 1000]
    notes = _travel(error, [KeyError]).__notes__
    assert notes[:3] == ["first", "second", "more"]
    assert notes[-1] == "raised by the server, in Digest.sha256"
    assert len(notes) < 200


def test_a_text_that_the_callers_class_does_not_have_is_a_note():
    """What SSL says of errno 1 is no PermissionError; a UnicodeDecodeError's args are no text of a ValueError."""
    came = _travel(ssl.SSLError(1, "bad certificate"), [OSError])
    assert type(came) is OSError
    assert (came.errno, came.strerror) == (1, "bad certificate")
    came = _travel(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), [ValueError])
    assert type(came) is ValueError
    assert str(came) == "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
    came = _travel(KeyError("name"), [LookupError])
    assert came.__notes__[0] == "at the server, its text was: 'name'"


def test_a_path_arrives_if_the_call_brought_it():
    """The caller knows that one; any other name of a file is the server's own affair."""
    error = FileNotFoundError(errno.ENOENT, "No such file", "/known/path")
    came = _travel(error, [OSError], brought=msgspec.msgpack.encode(["x", {"path": "/known/path"}]))
    assert (type(came), came.filename, str(came)) == (FileNotFoundError, "/known/path", str(error))
    came = _travel(error, [OSError], brought=msgspec.msgpack.encode(["/known/path/below", "/known"]))
    assert (came.filename, str(came)) == (None, "[Errno 2] No such file")


def test_the_members_of_a_declared_group_arrive():
    """Each as what is declared, else as a RemoteError; groups in groups too."""
    inner = ExceptionGroup("inner", [KeyError("k")])
    group = ExceptionGroup("several", [ValueError("v"), inner, ZeroDivisionError("z")])
    came = _travel(group, [ExceptionGroup, ValueError, KeyError])
    assert (type(came), came.message) == (ExceptionGroup, "several")
    value, nested, other = came.exceptions
    assert (type(value), value.args) == (ValueError, ("v",))
    assert (type(nested), nested.message, type(nested.exceptions[0])) == (ExceptionGroup, "inner", KeyError)
    assert (type(other), other.type, other.message) == (cm.RemoteError, "ZeroDivisionError", "z")


def test_the_notes_of_a_groups_members_arrive():
    """Of those that arrive as themselves, and of those that do not."""
    members = [ValueError("v"), ZeroDivisionError("z")]
    for member in members:
        member.add_note(f"of {member}")
    declared, undeclared = _travel(ExceptionGroup("several", members), [ExceptionGroup, ValueError]).exceptions
    assert declared.__notes__ == ["of v"]
    assert (type(undeclared), undeclared.__notes__) == (cm.RemoteError, ["of z"])


def test_the_members_of_an_undeclared_group_are_notes():
    """One that says what they were."""
    came = _travel(ExceptionGroup("several", [ValueError("v"), ExceptionGroup("inner", [KeyError("k")])]))
    assert (came.type, came.message) == ("ExceptionGroup", "several (2 sub-exceptions)")
    assert came.__notes__[:3] == ["ValueError: v", "ExceptionGroup: inner (1 sub-exception)", "KeyError: 'k'"]


@pytest.mark.parametrize("argument", [object(), 1j, 2**64, "\udcff", lambda: None, [[object()]]], ids=repr)
def test_args_that_cannot_travel_become_the_text(argument):
    """The class arrives nevertheless."""
    error = ValueError("what it was", argument)
    came = _travel(error, [ValueError])
    assert type(came) is ValueError
    assert came.args == (str(error).encode("utf-8", "backslashreplace").decode(),)


@pytest.mark.parametrize("declared", [[], [Exception]], ids=["undeclared", "declared"])
@pytest.mark.parametrize(
    "error",
    [Speechless("said"), ValueError("\udcff in a name"), ValueError("x", Speechless()), ValueError("a" * 100_000)],
    ids=["no text", "surrogate", "repr of no text", "long"],
)
def test_an_error_without_a_decent_text_travels_too(error, declared):
    """Whatever str() of it does, the call is answered, and the server goes on."""
    came = _travel(error, declared)
    assert isinstance(came, Exception if declared else cm.RemoteError)
    assert str(came)


def test_a_text_of_a_megabyte_is_cut():
    """An undeclared error is told in a record, whatever text it has."""
    came = _travel(ValueError("\N{SNOWMAN}" * 1_000_000))
    assert 1_000 < len(came.message) < 20_000


def test_a_deeply_nested_arg_becomes_the_text():
    """It does not end the server either."""
    value = []
    for _ in range(100_000):
        value = [value]
    error = ValueError(value)
    assert type(_travel(error, [ValueError])) is ValueError


def test_an_undeclared_error_arrives_as_type_and_message():
    """The text of an OSError without its path."""
    came = _travel(ZeroDivisionError("by zero"), [KeyError])
    assert (type(came), came.type, came.message) == (cm.RemoteError, "ZeroDivisionError", "by zero")
    came = _travel(FileNotFoundError(errno.ENOENT, "No such file", "/secret/path", None, "/secret/other"))
    assert (came.type, came.message) == ("FileNotFoundError", "[Errno 2] No such file")


@given(
    st.binary(max_size=60) | st.lists(st.integers(-1, 12) | st.text(max_size=3) | st.none()).map(msgspec.msgpack.encode)
)
def test_any_payload_of_a_fail_makes_an_error(payload):
    """A hostile server can make its client raise an error of capmarshal's or a declared one, nothing else."""
    error = _faults.to_exception(memoryview(payload), [KeyError, CustomNew], "Digest.sha256")
    assert isinstance(error, (cm.Error, KeyError, CustomNew))
