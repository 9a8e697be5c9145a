"""The one thing that pyproject.toml cannot say: there is a cffi extension, built against the stable ABI."""

from setuptools import setup

setup(
    cffi_modules=["csrc/build_extension.py:ffibuilder"],
    # One wheel for CPython 3.11 and everything after it.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
