"""What pyproject.toml cannot say: there are two extensions, built against the stable ABI, and for which Pythons."""

import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(
        "capmarshal does not run on a free-threaded CPython: who owns a descriptor is decided by single steps that the "
        "GIL keeps whole, and that build has no stable ABI.  Install it with an ordinary CPython of the same version."
    )

CSRC = Path("csrc")

setup(
    ext_modules=[
        Extension(
            "capmarshal._kernel._steps",
            sorted(map(str, [*CSRC.glob("py_*.c"), *CSRC.glob("cm_*.c"), CSRC / "lx.c"])),
            depends=sorted(map(str, CSRC.glob("*.h"))),
            include_dirs=["csrc"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter"],
            py_limited_api=True,
        )
    ],
    cffi_modules=["csrc/build_extension.py:ffibuilder"],
    # One wheel for CPython 3.11 and everything after it.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
