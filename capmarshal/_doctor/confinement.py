"""What ``Confinement`` stands on; each is put on, in a process that ends with it."""

from __future__ import annotations

import os
import socket
import uuid
from typing import TYPE_CHECKING, Final

from capmarshal._child import landlock, privileges
from capmarshal._child.confinement import PARTS
from capmarshal._child.own_count import bound_threads, why_not
from capmarshal._doctor import system
from capmarshal._doctor.finding import Level
from capmarshal._doctor.probe import Lacking, Probe

if TYPE_CHECKING:
    import ctypes

_GROUP: Final = "confinement"
_THREADS: Final = 64


def _without(part: str) -> str:
    return (
        f"cm.Confinement needs it: NotConfined, or with missing=[{part!r}] it does without, and then, of a confined "
        f"process, {PARTS[part]}"
    )


def _bind() -> int:
    """Has Landlock bind this process to what Python needs; its version."""
    version = landlock.version()
    if not version:
        lsms = system.text("/sys/kernel/security/lsm")
        known = f"; of security modules there are: {lsms}" if lsms else ""
        raise Lacking(f"none, or a filter refuses it{known}")
    privileges.give_up()
    with landlock.ruleset(version, (), (), (), ()) as ruleset:
        ruleset.put_on()
    return version


def paths() -> str:
    """Landlock refuses to open what was not named."""
    version = _bind()
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except PermissionError:
        return f"version {version}"
    raise Lacking(f"version {version}, which refuses nothing")


def scopes() -> str:
    """Landlock refuses to send to who is outside, by an abstract name."""
    name = f"\0capmarshal/doctor/{uuid.uuid4().hex}"
    # Pairs, not by socket(2), which a filter may refuse already; two, for what is connected may go on sending.
    outside, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    inside, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with outside, far, inside, other:
        reached = _sends(inside, outside, name)
        if (version := _bind()) < landlock.SCOPES:
            raise Lacking(f"Landlock is of version {version}; it has them from {landlock.SCOPES} on")
        if not reached:
            return f"version {version}; not seen at work, for a filter refuses bind(2) or sendto(2) already"
        if _sends(inside, None, name):
            raise Lacking(f"version {version}, which refuses nothing")
    return f"version {version}"


def _sends(inside: socket.socket, outside: socket.socket | None, name: str) -> bool:
    """Whether a datagram is sent by name; to ``outside``, which gets that name first."""
    try:
        if outside is not None:
            outside.bind(name)
        inside.sendto(b".", name)
    except OSError:
        return False
    return True


def library() -> str:
    """Libseccomp, loaded, and what a filter is that it makes."""
    # Here and below, imported when used: not every Python has ctypes.
    from capmarshal._child import seccomp

    loaded = _loaded()
    size = len(seccomp.program(loaded, writes=False, truncates=False)) // 8
    return f"{seccomp.LIBRARY}, a filter of {size} steps"


def _loaded() -> ctypes.CDLL:
    """Libseccomp; raises Lacking where it is not there."""
    from capmarshal._child import seccomp

    try:
        return seccomp.library()
    except OSError as error:
        # Whatever keeps the loader from opening it, it says that it is not there: so does a full table.
        for number in os.pipe():
            os.close(number)
        raise Lacking(str(error), mend=_LIBRARY) from None


def filters() -> str:
    """A filter refuses a socket."""
    from capmarshal._child import seccomp

    if not seccomp.available():
        raise Lacking("this kernel has none, or a filter that is there refuses more")
    program = seccomp.program(_loaded(), writes=False, truncates=False)
    privileges.give_up()
    seccomp.install(program)
    try:
        socket.socket().close()
    except PermissionError:
        return "installed, and obeyed"
    raise Lacking("one is installed, and refuses nothing")


def threads() -> str:
    """Threads of a process, counted by themselves, in a user namespace of its own."""
    if os.geteuid() == 0:
        raise Lacking("root's are not counted", mend="confine as an ordinary user", level=Level.NOTE)
    if why := why_not():
        raise Lacking(why, mend=_namespaces())
    try:
        bound_threads(_THREADS)
    except OSError as error:
        raise Lacking(str(error), mend=_namespaces()) from None
    return "in a user namespace of its own"


def _namespaces() -> str:
    """What switches user namespaces on here."""
    for name, wrong, right in (
        ("user.max_user_namespaces", "0", "10000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        if system.sysctl(name) == wrong:
            return f"`sysctl -w {name}={right}`, as root"
    return "Linux 5.14 or later, /proc mounted, and a filter that allows unshare"


_LANDLOCK: Final = "Linux {} or later, with `landlock` among the modules of the boot parameter `lsm=`"
_LIBRARY: Final = "`apt install libseccomp2`, `dnf install libseccomp`, `apk add libseccomp`"

PROBES: Final = (
    Probe(
        _GROUP,
        "Landlock",
        paths,
        Level.LESS,
        _without("landlock"),
        _LANDLOCK.format("5.13"),
        call="landlock_create_ruleset, landlock_add_rule, landlock_restrict_self",
        for_good=True,
    ),
    Probe(
        _GROUP,
        "Landlock's scopes",
        scopes,
        Level.LESS,
        _without("scopes"),
        _LANDLOCK.format("6.12"),
        call="landlock_create_ruleset, landlock_add_rule, landlock_restrict_self",
        for_good=True,
    ),
    Probe(
        _GROUP,
        "libseccomp",
        library,
        Level.LESS,
        _without("seccomp"),
        _LIBRARY,
    ),
    Probe(
        _GROUP,
        "seccomp",
        filters,
        Level.LESS,
        _without("seccomp"),
        "a kernel with CONFIG_SECCOMP_FILTER",
        call="seccomp, prctl",
        for_good=True,
    ),
    Probe(
        _GROUP,
        "threads, counted apart",
        threads,
        Level.LESS,
        _without("threads") + "; without threads=, nothing",
        call="unshare",
        for_good=True,
    ),
)
