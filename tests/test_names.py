"""What people see of the package's names: in completion, in tracebacks, in reprs and in pickles."""

import pickle
import subprocess
import sys
import typing

import pytest

import capmarshal as cm
from capmarshal import bridge
from patience import PATIENCE

PUBLIC = [name for name in cm.__all__ if name != "lx"]


class Thing(cm.Interface):
    @cm.method
    def use(self) -> int: ...


class ThingServer(Thing):
    def use(self) -> int:
        return 1


def _shown(thing, *bases):
    """What completion shows of it, and not of what it is derived from."""
    hidden = {name for base in bases for name in dir(base)}
    return {name for name in dir(thing) if not name.startswith("_")} - hidden


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_says_where_it_is_to_be_had(name):
    """As people import it: no traceback, repr or page of help tells of modules that are nobody's business."""
    assert getattr(cm, name).__module__ == "capmarshal"
    assert "capmarshal._" not in repr(getattr(cm, name))


def test_a_traceback_says_it_too():
    """In the words of the interpreter, at the end of a program that did not expect it."""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", "import capmarshal as cm; cm.parent()"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.stderr.splitlines()[-1].startswith("capmarshal.NoParent: ")


@pytest.mark.parametrize("name", bridge.__all__)
def test_what_is_public_of_bridges_says_so_too(name):
    assert getattr(bridge, name).__module__ == "capmarshal.bridge"
    assert "capmarshal._" not in repr(getattr(bridge, name))


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("Bridge", {"connect", "counts", "export", "listen", "revoke"}),
        ("Login", {"context", "credentials", "name", "password", "tls", "user"}),
        ("NatsEngine", {"call", "close", "connect", "connected", "send", "serve", "watch"}),
        ("Tls", {"ca", "certificate", "context", "key"}),
    ],
)
def test_what_completion_shows_of_bridges(name, offered):
    assert _shown(getattr(bridge, name)) == offered


ERRORS = [name for name in PUBLIC if isinstance(getattr(cm, name), type) and issubclass(getattr(cm, name), cm.Error)]


@pytest.mark.parametrize("name", ERRORS)
def test_errors_can_be_pickled(name):
    """For multiprocessing and concurrent.futures, which bring them from one process to another."""
    kind = getattr(cm, name)
    if issubclass(kind, cm.KernelError):
        error = kind(5, "what was done")
    elif kind is cm.RemoteError:
        error = kind("KeyError", "spam")
    else:
        error = kind("what happened")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.args) == (kind, str(error), error.args)


@pytest.mark.parametrize("name", [name for name in PUBLIC if isinstance(getattr(cm, name), type)])
def test_annotations_can_still_be_evaluated(name):
    """A class is asked for its module when its annotations are: what they name must be there, too."""
    typing.get_type_hints(getattr(cm, name))


# What an object of each class offers, and so its completion.
OFFERED = {
    "BufferPool": {"close", "closed", "take"},
    "Caller": {"gid", "label", "pid", "uid"},
    "Capability": {"cast", "close", "closed", "fileno", "gone", "label", "local", "name"},
    "Confinement": {"cpu", "descriptors", "memory", "missing", "read", "threads", "write"},
    "Dataspace": {
        "close",
        "closed",
        "create",
        "dup",
        "fileno",
        "format",
        "from_buffer",
        "receive",
        "seal",
        "sealed",
        "shape",
        "size",
        "view",
        "write",
    },
    "Descriptor": {"close", "closed", "detach", "dup", "dup_of", "fileno", "open", "socket"},
    "Entrypoint": {
        "close",
        "closed",
        "dissolve",
        "grant",
        "listen",
        "manage",
        "name",
        "on_signal",
        "revoke",
        "serve_forever",
    },
    "Forwarder": {"forward"},
    "Interface": set(),
    "Limits": {
        "begun_bytes",
        "begun_descriptors",
        "channels",
        "closing",
        "doors",
        "grants",
        "process_share",
        "unread_bytes",
        "unread_descriptors",
        "user_share",
    },
    "Message": {"close", "data", "descriptors", "receive", "send", "take"},
    "SharedBuffer": {"close", "closed", "dup", "fileno", "format", "shape", "size", "view"},
    "Signal": {"send"},
    "SignalReceiver": {"close", "closed", "fileno", "signal", "wait"},
    "UntypedCall": {"method", "payload", "table"},
    "UntypedResult": {"payload", "table"},
    "timeout": set(),
}


@pytest.mark.parametrize("name", sorted(OFFERED))
def test_completion_shows_the_interface_and_nothing_else(name):
    """What the package needs for itself begins with an underscore, or is a function of a module."""
    assert _shown(getattr(cm, name)) == OFFERED[name]


def test_every_class_is_asked():
    """Of errors, see below."""
    classes = {name for name in PUBLIC if isinstance(getattr(cm, name), type)}
    assert classes - {*ERRORS} == {*OFFERED}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_offer_what_their_builtin_does(name):
    """And no more than that in the class; what each has besides are attributes of the object."""
    kind = getattr(cm, name)
    assert _shown(kind, *(base for base in kind.__mro__[1:] if base.__module__ == "builtins")) == set()


def test_completion_on_a_proxy_and_on_a_managed_object_shows_their_methods():
    """And nothing that Interface or Capability brought along."""
    with cm.Entrypoint("names") as entrypoint:
        target = ThingServer()
        capability = entrypoint.manage(target)
        assert _shown(capability.cast(Thing)) == _shown(target) == {"use"}
        assert _shown(capability) == OFFERED["Capability"]
        assert _shown(entrypoint) == OFFERED["Entrypoint"] | {"label"}
