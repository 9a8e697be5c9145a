"""The example that runs a model's snippets: what they print and give, what they are refused, and how each ends."""

import os
import select
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from confined import confines
from patience import PATIENCE

pytestmark = confines

RUNNER = Path(__file__).parents[1] / "examples" / "code_runner.py"


@pytest.fixture
def printed(ordinary_python):
    """printed(source, seconds): the lines of an ordinary user's runner."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)

    def run(source, seconds=PATIENCE):
        (place / "snippet.py").write_bytes(source if isinstance(source, bytes) else source.encode())
        python, options = ordinary_python
        environment = {**options["env"], "SECONDS": str(seconds)}
        done = subprocess.run(
            [python, str(RUNNER), "snippet.py"],
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
            check=False,
            **{**options, "env": environment},
        )
        assert (done.stderr, done.returncode) == ("", 0)
        return done.stdout.splitlines()

    yield run
    shutil.rmtree(place)


def test_a_snippet_uses_its_tool_and_gives_data_back(printed):
    """What it prints comes first; the value of its last expression is what it gives."""
    lines = ["for each in shop.articles():", "    print(each, shop.price(each))"]
    source = "\n".join([*lines, "{'sum': sum(map(shop.price, shop.articles()))}"])
    assert printed(source) == [
        "bread 3.2",
        "milk 1.1",
        "salt 0.6",
        f"snippet.py ended well: {{'sum': {3.2 + 1.1 + 0.6}}}",
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("open('/etc/passwd').read()", "PermissionError: [Errno 13] Permission denied: '/etc/passwd'"),
        ("__import__('socket').socket()", "PermissionError: [Errno 1] Operation not permitted"),
        ("shop.price('gold')", "KeyError: 'gold'"),
        ("1 +", "SyntaxError: invalid syntax (snippet, line 1)"),
        ("print('\\x1b[2J')\nraise ValueError('wrong')", "ValueError: wrong"),
    ],
)
def test_an_error_is_printed(printed, source, words):
    """As the snippet's, and nothing is given."""
    lines = printed(source)
    assert lines[-2:] == [words, "snippet.py ended with an error: None"]
    assert "\x1b" not in "".join(lines)


def test_one_that_does_not_end_is_ended(printed):
    """At its time."""
    assert printed("import time\ntime.sleep(1000)", seconds=1) == ["snippet.py ended killed after 1 seconds: None"]


def test_no_more_is_printed_than_fits(printed):
    """However much that is, until its time is over."""
    lines = printed("while True:\n    print('x' * 1000)", seconds=2)
    assert sum(map(len, lines[:-1])) <= 10_000
    assert lines[-1].endswith(("killed after 2 seconds: None", "by SIGXCPU: None"))


def test_one_that_ends_by_a_signal_without_a_name_is_told(printed):
    """A real-time one: the runner goes on to the next."""
    assert printed("import os\nos.kill(os.getpid(), 40)") == ["snippet.py ended by signal 40: None"]


def test_what_is_no_text_is_told(printed):
    """In UTF-8: the runner goes on to the next."""
    assert printed(b"print('\xff')") == ["snippet.py cannot be read: it is not UTF-8"]


def test_ctrl_c_ends_the_snippet_with_its_runner(ordinary_python):
    """Its session is another, so that nobody else tells it."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    (place / "snippet.py").write_text("import os, time\nprint(os.getpid())\ntime.sleep(1000)")
    python, options = ordinary_python
    command = [python, "-u", str(RUNNER), "snippet.py"]
    environment = {**options["env"], "SECONDS": "1000"}
    runner = subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **{**options, "env": environment}
    )
    with runner:
        snippet = os.pidfd_open(int(runner.stdout.readline()))
        try:
            runner.send_signal(signal.SIGINT)
            ended, _, _ = select.select([snippet], [], [], PATIENCE)
            if not ended:
                signal.pidfd_send_signal(snippet, signal.SIGKILL)
        finally:
            os.close(snippet)
            runner.kill()
    shutil.rmtree(place)
    assert ended
