"""Describes the extension to cffi: the C headers are the interface, so the two cannot drift apart.

``setup.py`` runs this file from the top of the source tree.
"""

from pathlib import Path

from cffi import FFI

HERE = Path("csrc")
HEADERS = (
    "lx.h",
    "cm_close.h",
    "cm_make.h",
    "cm_fork.h",
    "cm_event.h",
    "cm_identity.h",
    "cm_layout.h",
    "cm_message.h",
    "cm_parts.h",
    "cm_poll.h",
    "cm_call.h",
    "cm_ring.h",
    "cm_turn.h",
)
# What C alone includes: cffi does not see it.
OWN_HEADERS = ("cm_clock.h", "cm_read.h", "cm_record.h", "cm_watch.h", "lx_syscall.h")
SOURCES = (
    "lx.c",
    "cm_close.c",
    "cm_make.c",
    "cm_fork.c",
    "cm_identity.c",
    "cm_message.c",
    "cm_parts.c",
    "cm_poll.c",
    "cm_call.c",
    "cm_ring.c",
    "cm_read.c",
    "cm_watch.c",
    "cm_turn.c",
)


def interface(header: str) -> str:
    """A header as cffi reads it: its declarations, and of its preprocessor lines only ``#define NAME NUMBER``."""
    kept = []
    for line in (HERE / header).read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not line.startswith("#"):
            kept.append(line)
        elif words[0] == "#define" and len(words) > 2:
            kept.append(f"#define {words[1]} {words[2]}")
    return "\n".join(kept)


ffibuilder = FFI()
ffibuilder.cdef((HERE / "system_types.cdef").read_text(encoding="utf-8"))
for name in HEADERS:
    ffibuilder.cdef(interface(name))
ffibuilder.set_source(
    "capmarshal._kernel._extension",
    "\n".join(f'#include "{name}"' for name in HEADERS),
    sources=[str(HERE / name) for name in SOURCES],
    depends=[str(HERE / name) for name in (*HEADERS, *OWN_HEADERS, "system_types.cdef")],
    include_dirs=[str(HERE)],
    extra_compile_args=["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter"],
    py_limited_api=True,
)
