"""Errors: what a user catches, and what they say."""

import copy
import errno
import os
import pickle
import resource
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

import capmarshal as cm
from capmarshal import bridge
from capmarshal._kernel import errors as _errors

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
    cm.NotActivated: LookupError,
    cm.NotConfined: OSError,
    cm.ProtocolError: ConnectionError,
    cm.RecordTooBig: OSError,
    cm.Refused: PermissionError,
    cm.TooLarge: ValueError,
    cm.RemoteError: Exception,
    cm.Revoked: PermissionError,
    cm.StaleCapability: LookupError,
    cm.TableFull: OSError,
    cm.TooManyInFlight: OSError,
    cm.UnknownMethod: AttributeError,
    bridge.EngineClosed: ConnectionError,
    bridge.EngineError: ConnectionError,
    bridge.NameTaken: ConnectionError,
    bridge.NotAllowed: PermissionError,
    bridge.NotReached: ConnectionError,
}

EXAMPLES = [
    bridge.EngineError("not there"),
    bridge.EngineClosed("closed"),
    bridge.NameTaken("another one"),
    bridge.NotAllowed("not permitted"),
    bridge.NotReached("not there", ran="no"),
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
    cm.NotActivated("none"),
    cm.NotConfined(errno.ENOSYS, "missing", ("landlock",)),
    cm.ProtocolError("nonsense"),
    cm.RecordTooBig(errno.EMSGSIZE, "too big"),
    cm.Refused(errno.EACCES, "kept out"),
    cm.TooLarge("too large"),
    cm.RemoteError("KeyError", "'x'"),
    cm.Revoked("revoked"),
    cm.StaleCapability("stale"),
    cm.TableFull(errno.EMFILE, "full"),
    cm.TooManyInFlight(errno.ETOOMANYREFS, "too many"),
    cm.UnknownMethod("no such method"),
]


def _public():
    return {
        value
        for module in (cm, bridge)
        for name in module.__all__
        if isinstance(value := getattr(module, name), type) and issubclass(value, Exception)
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


def test_closed_is_what_a_user_of_sockets_expects_too():
    """An OSError of EBADF, whose text is what it says and no more; pickled too."""
    for error in (cm.Closed("it is closed"), pickle.loads(pickle.dumps(cm.Closed("it is closed")))):
        with pytest.raises(OSError, match=r"^it is closed$") as caught:
            raise error
        assert (caught.value.errno, caught.value.args) == (errno.EBADF, ("it is closed",))
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.close()
    right.close()
    with pytest.raises(OSError, match="closed") as caught:
        cm.Message(b"x").send(left)
    assert caught.value.errno == errno.EBADF


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


@pytest.mark.parametrize(
    ("hard", "where"), [(128, "up to 128 here"), (64, "and the hard one, before the program is started")]
)
def test_a_full_table_says_its_size_and_what_to_do(hard, where, fork):
    """EMFILE: the limit, its name, how it is raised, and how far."""

    def words():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        return str(_errors.error_for(errno.EMFILE, "doing"))

    assert fork(words).result() == (
        "[Errno 24] doing: descriptor table full (64 of 64, RLIMIT_NOFILE): close some, or raise that by ulimit -n, "
        f"{where}"
    )


def test_a_full_machine_says_which_knob():
    """ENFILE: not this process's limit."""
    words = "the machine's file table is full: close descriptors, or raise it (sysctl fs.file-max)"
    assert words in str(_errors.error_for(errno.ENFILE, "doing"))


def test_what_is_watched_says_whose_limit_and_what_to_do():
    """ENOSPC has nothing to do with space here: the user, the limit, and three ways out."""
    words = str(_errors.error_for(errno.ENOSPC, "doing", _errors.WATCHING))
    for told in f"user {os.getuid()} ", "sysctl fs.epoll.max_user_watches", "raise the limit", "another user":
        assert told in words
    assert "space" not in words
    assert os.strerror(errno.ENOSPC) in str(_errors.error_for(errno.ENOSPC, "doing"))


def test_too_many_in_flight_says_whose_limit_and_what_to_do():
    """ETOOMANYREFS: the user, the limit that the kernel compares with, and three ways out."""
    words = str(_errors.error_for(errno.ETOOMANYREFS, "doing"))
    assert f"user {os.getuid()} " in words
    assert f"RLIMIT_NOFILE of {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}" in words
    assert "receive" in words
    assert "raise the limit" in words
    assert "another user" in words
