"""A fixture for pytest, for who names it: ``pytest_plugins = ["capmarshal.testing.plugin"]`` in conftest.py.

It is asked for as any fixture, or for all tests of a file: ``pytestmark = pytest.mark.usefixtures("no_leaks")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from capmarshal._testing import leaks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_FAILED = pytest.StashKey[bool]()


class _HasFailedAlready(Exception):
    """The test: its traceback keeps what it has open, and that it has failed is told."""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Keeps that a test has failed."""
    outcome = yield
    if outcome.get_result().failed:
        item.stash[_FAILED] = True


@pytest.fixture(name="no_leaks")
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves descriptors or child processes; see :func:`capmarshal.testing.no_leaks`.

    Of one that has failed otherwise it says nothing.
    """
    leaks.forget_last_error()
    # Where pytest keeps what is logged.
    logged = request.config.pluginmanager.has_plugin("logging-plugin")
    caplog: pytest.LogCaptureFixture | None = request.getfixturevalue("caplog") if logged else None
    try:
        with leaks.no_leaks():
            yield
            # What other fixtures gave the test, pytest keeps still; and what was logged, with errors and their frames.
            request.node.funcargs.clear()
            if caplog is not None:
                leaks.forget_errors(caplog.get_records("call"))
            if request.node.stash.get(_FAILED, False):
                raise _HasFailedAlready
    except _HasFailedAlready:
        return
    except leaks.Leaked as leaked:
        pytest.fail(str(leaked), pytrace=False)
