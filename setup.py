"""What pyproject.toml cannot say: there is a cffi extension, built against the stable ABI, and for which Pythons."""

import sys
import sysconfig

from setuptools import setup

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(
        "capmarshal does not run on a free-threaded CPython: who owns a descriptor is decided by single steps that the "
        "GIL keeps whole, and that build has no stable ABI.  Install it with an ordinary CPython of the same version."
    )

setup(
    cffi_modules=["csrc/build_extension.py:ffibuilder"],
    # One wheel for CPython 3.11 and everything after it.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
