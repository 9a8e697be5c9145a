"""A fixture for pytest, for who names it: ``pytest_plugins = ["capmarshal.testing.plugin"]`` in conftest.py.

It is asked for as any fixture, or for all tests of a file: ``pytestmark = pytest.mark.usefixtures("no_leaks")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capmarshal._testing import leaks

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(name="no_leaks")
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves descriptors or child processes; see :func:`capmarshal.testing.no_leaks`."""
    try:
        with leaks.no_leaks():
            yield
            # What other fixtures gave the test, pytest keeps still.
            request.node.funcargs.clear()
    except leaks.Leaked as leaked:
        pytest.fail(str(leaked), pytrace=False)
