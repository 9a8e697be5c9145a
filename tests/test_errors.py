"""Errors: what a user catches, what they say, and how they travel."""

import copy
import errno
import os
import pickle
import resource

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import capmarshal as cm
from capmarshal._kernel import errors as _errors
from capmarshal._protocol import faults as _faults

# Each error, and the builtin that is promised for it: who has never heard of capmarshal catches that.
PROMISED = {
    cm.ArgumentError: TypeError,
    cm.CallTimeout: TimeoutError,
    cm.Closed: ValueError,
    cm.DescriptorsLost: OSError,
    cm.Disconnected: ConnectionError,
    cm.InterfaceError: TypeError,
    cm.KernelError: OSError,
    cm.MessageTruncated: OSError,
    cm.NoParent: LookupError,
    cm.ProtocolError: ConnectionError,
    cm.RecordTooBig: OSError,
    cm.TooLarge: ValueError,
    cm.RemoteError: Exception,
    cm.StaleCapability: LookupError,
    cm.TableFull: OSError,
    cm.TooManyInFlight: OSError,
    cm.UnknownMethod: AttributeError,
}

EXAMPLES = [
    cm.ArgumentError("Digest.sha256, argument `file`"),
    cm.CallTimeout("no answer", ran="no"),
    cm.CallTimeout("no answer"),
    cm.Closed("closed"),
    cm.DescriptorsLost(errno.EMFILE, "lost", b"bytes"),
    cm.Disconnected("gone", ran="no"),
    cm.Disconnected("gone"),
    cm.InterfaceError("declared wrongly"),
    cm.KernelError(errno.EPERM, "refused"),
    cm.MessageTruncated(errno.EMSGSIZE, "cut", b"byt"),
    cm.NoParent("none"),
    cm.ProtocolError("nonsense"),
    cm.RecordTooBig(errno.EMSGSIZE, "too big"),
    cm.TooLarge("too large"),
    cm.RemoteError("KeyError", "'x'"),
    cm.StaleCapability("stale"),
    cm.TableFull(errno.EMFILE, "full"),
    cm.TooManyInFlight(errno.ETOOMANYREFS, "too many"),
    cm.UnknownMethod("no such method"),
]


def _public():
    return {
        value for name in cm.__all__ if isinstance(value := getattr(cm, name), type) and issubclass(value, Exception)
    }


def test_every_public_error_is_listed_here():
    """A new one gets its builtin, and an example."""
    assert _public() == {cm.Error, *PROMISED}
    assert {type(error) for error in EXAMPLES} == set(PROMISED)


@pytest.mark.parametrize("kind", PROMISED, ids=lambda kind: kind.__name__)
def test_every_error_is_a_capmarshal_error_and_the_promised_builtin(kind):
    """``except cm.Error`` catches them all, and so does ``except`` of what a user would think of."""
    assert issubclass(kind, cm.Error)
    assert issubclass(kind, PROMISED[kind])
    assert kind.__doc__


@pytest.mark.parametrize("error", EXAMPLES, ids=repr)
@pytest.mark.parametrize("copied", [*range(2, pickle.HIGHEST_PROTOCOL + 1), "copy"])
def test_every_error_pickles_with_its_attributes(error, copied):
    """A process pool hands it on: class, text, attributes and notes are what they were."""
    error.add_note("a note")
    again = copy.copy(error) if copied == "copy" else pickle.loads(pickle.dumps(error, copied))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)
    assert getattr(again, "errno", None) == getattr(error, "errno", None)


def test_what_ran_is_maybe_unless_it_is_known():
    """Only who knows that a call was not begun says so."""
    assert cm.Disconnected("gone").ran == cm.CallTimeout("late").ran == "maybe"
    assert cm.Disconnected("gone", ran="no").ran == cm.CallTimeout("late", ran="no").ran == "no"


def test_a_remote_error_shows_type_and_message():
    """And no lonely colon where there is no message."""
    assert str(cm.RemoteError("KeyError", "'x'")) == "KeyError: 'x'"
    assert str(cm.RemoteError("KeyError", "")) == "KeyError"


@pytest.mark.parametrize(
    ("number", "kind", "builtin"),
    [
        (errno.EMFILE, cm.TableFull, OSError),
        (errno.ENFILE, cm.TableFull, OSError),
        (errno.ETOOMANYREFS, cm.TooManyInFlight, OSError),
        (errno.EMSGSIZE, cm.RecordTooBig, OSError),
        (errno.EPIPE, cm.Disconnected, ConnectionError),
        (errno.ECONNRESET, cm.Disconnected, ConnectionError),
        (errno.ENOTCONN, cm.Disconnected, ConnectionError),
        (errno.ECONNREFUSED, cm.Disconnected, ConnectionError),
        (errno.ETIMEDOUT, cm.CallTimeout, TimeoutError),
        (errno.EAGAIN, cm.CallTimeout, TimeoutError),
        (errno.EPERM, cm.KernelError, OSError),
        (errno.EBADF, cm.KernelError, OSError),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else value.__name__,
)
def test_an_errno_becomes_the_error_for_it(number, kind, builtin):
    """One place decides; the text begins with what was being done."""
    with pytest.raises(builtin) as caught:
        _errors.check(-number, "knocking at a door")
    assert type(caught.value) is kind
    assert "knocking at a door: " in str(caught.value)
    if isinstance(caught.value, cm.KernelError):
        assert caught.value.errno == number


@given(st.integers(0, 2**31 - 1))
def test_a_result_that_is_no_error_is_handed_through(result):
    """check() raises for negative numbers only."""
    assert _errors.check(result, "doing") == result


def test_a_full_table_says_its_size_and_how_far_it_can_be_raised():
    """EMFILE: the limit, its name, and what it can be raised to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    words = str(_errors.error_for(errno.EMFILE, "doing"))
    assert f"{soft} of {soft}" in words
    assert "RLIMIT_NOFILE" in words
    assert (f"raised to {hard}" in words) == (soft != hard)


def test_a_full_machine_says_which_knob():
    """ENFILE: not this process's limit."""
    assert "fs.file-max" in str(_errors.error_for(errno.ENFILE, "doing"))


def test_too_many_in_flight_says_whose_limit_and_what_to_do():
    """ETOOMANYREFS: the user, the limit that the kernel compares with, and three ways out."""
    words = str(_errors.error_for(errno.ETOOMANYREFS, "doing"))
    assert f"user {os.getuid()} " in words
    assert f"RLIMIT_NOFILE of {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}" in words
    assert "receive" in words
    assert "raise the limit" in words
    assert "another user" in words


# ------------------------------------------------------------------------------------------ on their way in a FAIL


def _travel(error, declared=()):
    """What the client raises for what the server's method raised."""
    payload = _faults.encode(_faults.raised(error, declared))
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


def test_a_subclass_arrives_as_what_is_declared():
    """The client need not know the server's classes; the first declared class that fits is it."""
    came = _travel(KeyError("name"), [ValueError, LookupError, KeyError])
    assert type(came) is LookupError
    assert came.args == ("name",)


def test_an_oserror_arrives_as_its_errno_says_and_without_the_path():
    """A declared OSError is rebuilt from errno and text: Python picks the subclass, and no path travels."""
    came = _travel(FileNotFoundError(errno.ENOENT, "No such file", "/secret/path"), [OSError])
    assert type(came) is FileNotFoundError
    assert came.filename is None
    assert "secret" not in str(came)


@pytest.mark.parametrize(
    "error", [Custom("one", second="two"), CustomNew(needed="this")], ids=lambda e: type(e).__name__
)
def test_a_declared_error_with_an_init_of_its_own_arrives(error):
    """Where the class does not take its args, it is made without, and has them all the same; or is a RemoteError."""
    came = _travel(error, [type(error)])
    assert str(came) == str(error) if type(came) is type(error) else f"{type(error).__name__}: {error}"
    assert isinstance(came, (type(error), cm.RemoteError))


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


@pytest.mark.parametrize("code", list(_faults.Code))
def test_every_code_makes_an_error_that_says_so(code):
    """No code is forgotten, and each message arrives."""
    payload = _faults.encode(_faults.Fault(code, "the message", "Kind", 0, ["the message"]))
    error = _faults.to_exception(memoryview(payload), [ValueError], "Digest.sha256")
    assert "the message" in str(error)
    assert isinstance(error, ValueError if code is _faults.Code.DECLARED else cm.Error)
