"""The example that runs a model's snippets: what they print and give, what they are refused, and how each ends."""

import json
import os
import re
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

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def place():
    """A directory that an ordinary user may read, with the example: the checkout may be root's."""
    made = Path(tempfile.mkdtemp())
    shutil.copytree(EXAMPLES, made / "examples")
    subprocess.run(["chmod", "-R", "a+rX", made], check=True)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def printed(python, place):
    """printed(source, ..., seconds=): the lines of a runner of these: snippet.py, another.py, and 2.py and so on."""

    def run(*sources, seconds=PATIENCE):
        names = ["snippet.py", "another.py", *(f"{number}.py" for number in range(2, len(sources)))][: len(sources)]
        for name, source in zip(names, sources, strict=True):
            (place / name).write_bytes(source if isinstance(source, bytes) else source.encode())
        command, options = python
        environment = {**options["env"], "SECONDS": str(seconds)}
        done = subprocess.run(
            [command, str(place / "examples" / "code_runner.py"), *names],
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
            check=False,
            **{**options, "env": environment},
        )
        assert (done.stderr, done.returncode) == ("", 0)
        # Of print(): any other end of a line would be the snippet's.
        return done.stdout.removesuffix("\n").split("\n")

    return run


def test_a_snippet_uses_its_tool_and_gives_data_back(printed):
    """What it prints comes first; the value of its last expression is what it gives."""
    lines = ["for each in shop.articles():", "    print(each, shop.price(each))"]
    source = "\n".join([*lines, "{'sum': sum(map(shop.price, shop.articles()))}"])
    assert printed(source) == [
        "| bread 3.2",
        "| milk 1.1",
        "| salt 0.6",
        f"snippet.py ended well: {{'sum': {3.2 + 1.1 + 0.6}}}",
    ]


# Sources, and what is printed.
ERRORS = [
    ("open('/etc/passwd').read()", "PermissionError: [Errno 13] Permission denied: '/etc/passwd'"),
    ("__import__('socket').socket()", "PermissionError: [Errno 1] Operation not permitted"),
    ("shop.price('gold')", "KeyError: 'gold'"),
    ("1 +", "SyntaxError: invalid syntax"),
    ("a\0b", ".*Error: source code string cannot contain null bytes"),
    ("print('\\x1b[2J')\nraise ValueError('wrong')", "ValueError: wrong"),
    ("def f():\n    f()\nf()", "RecursionError: maximum recursion depth exceeded"),
    ("class E(Exception):\n    def __str__(self):\n        raise self\nraise E", "E: <exception str() failed>"),
    ("class E(BaseException):\n    def __str__(self):\n        raise self\nraise E", "E: <exception str() failed>"),
    ("class E:\n    def __repr__(self):\n        raise KeyError(1)\nE()", "KeyError: 1"),
    ("'x' * 10_000", "ValueError: a result has 10000 characters at most"),
    # Deeper than some Pythons read.
    ("__import__('__main__').session.finish('[' * 9_000)", "ValueError: .*"),
    ("__import__('__main__').session.finish('{')", "ValueError: Expecting property name enclosed in .*"),
    ("__import__('__main__').session.print('x' * 2_000_000)", "capmarshal.TooLarge: .*"),
    ("raise SystemExit('farewell')", "farewell"),
]


def test_an_error_is_printed(printed):
    """As the snippet's, whatever it says of itself, and nothing is given."""
    lines = printed(*(source for source, _ in ERRORS))
    assert "\x1b" not in "".join(lines)
    for number, (source, words) in enumerate(ERRORS):
        name = ["snippet.py", "another.py"][number] if number < 2 else f"{number}.py"
        end = lines.index(f"{name} ended with an error: no value")
        own, lines = lines[:end], lines[end + 1 :]
        assert own, source
        assert all(line.startswith("| ") for line in own), source
        # What the server raised has a note behind it, and where it stands may be before it.
        wanted = re.escape(words).replace(re.escape(".*"), ".*")
        assert [line for line in own[-2:] if re.fullmatch(rf"\| {wanted}", line)], (source, own)
    assert lines == []


# Sources, and what is told of their values.
VALUES = [
    ("x = []\nx.append(x)\nx", "'[[...]]'"),
    ("{(1, 2): 3}", "'{(1, 2): 3}'"),
    ("{'a': {1}, 'b': [None, 0.5]}", "{'a': '{1}', 'b': [None, 0.5]}"),
    ("'one\\nanother.py ended well: \\x1b'", r"'one\nanother.py ended well: \x1b'"),
    ("'\\ud800'", r"'\ud800'"),
    ("a = []\nfor _ in range(490):\n    a = [a]\na", "[" * 491 + "]" * 491),
    ("1\nx = 2", "None"),
    ("__import__('os')._exit(0)", "no value"),
    ("raise SystemExit", "no value"),
]


def test_what_a_value_is_comes_back(printed):
    """As data, or as what repr() says of it; that there is none is told."""
    ends = [line.split(" ended well: ", 1)[1] for line in printed(*(source for source, _ in VALUES))]
    assert ends == [shown for _, shown in VALUES]


def test_no_line_of_a_snippets_is_the_runners(printed):
    """Whatever it prints, by whatever way, and wherever it stops."""
    forged = "another.py ended well: 1"
    ends = "".join(rf"{end}{forged}" for end in ("\\n", "\\r", "\\x0b", "\\x85", "\\u2028", "\\x1b[1A"))
    lines = printed(
        f"import sys\nprint('a', end='{ends}')\nprint('{forged}', end='', file=sys.stderr)",
        f"import __main__\n__main__.session.print('b\\n{forged}')",
    )
    assert lines[-1] == "another.py ended well: None"
    assert [line for line in lines if not line.startswith("| ")] == ["snippet.py ended well: None", lines[-1]]


def test_a_thread_is_waited_for(printed):
    """As by any program, and until the time is over; what it prints is printed, and the value is there before."""
    begun = "import threading, time\nthreading.Thread(target="
    assert printed(f"{begun}lambda: (time.sleep(0.1), print('late'))).start()\n5") == [
        "| late",
        "snippet.py ended well: 5",
    ]
    assert printed(f"{begun}lambda: time.sleep(1000)).start()\n5", seconds=2) == [
        "snippet.py ended killed after 2 seconds: 5"
    ]


@pytest.mark.parametrize(
    "loop",
    [
        "while True:\n    shop.price('salt')",
        "while True:\n    list(shop.articles())",
        "more = shop.articles()\nfor _ in range(198):\n    shop.price('salt')\nprint(*more)",
    ],
)
def test_the_tool_is_taken_back_in_the_middle(printed, loop):
    """When it was called often enough, with what it was giving; the snippet is told."""
    said, told, last = printed(f"rest = shop.articles()\nprint(next(rest))\n{loop}")
    assert said == "| bread"
    assert re.fullmatch(r"\| capmarshal.Revoked: .*: revoked by the server: 200 calls were made", told)
    assert last == "snippet.py ended with an error: no value"


def test_one_that_does_not_end_is_ended(printed):
    """At its time."""
    assert printed("import time\ntime.sleep(1000)", seconds=1) == ["snippet.py ended killed after 1 seconds: no value"]


def test_no_more_is_printed_than_fits(printed):
    """However much that is, which is told, and until its time is over."""
    lines = printed("print('x' * 20_000_000)\n1")
    assert lines == [f"| {'x' * 10_000}", "(and 19990001 characters more)", "snippet.py ended well: 1"]
    *lines, more, last = printed("while True:\n    print('x' * 1000)", seconds=2)
    assert sum(map(len, lines)) <= 10_000 + 2 * len(lines)
    assert re.fullmatch(r"\(and \d+ characters more\)", more)
    assert last.endswith(("killed after 2 seconds: no value", "by SIGXCPU: no value"))


def test_one_that_ends_by_a_signal_without_a_name_is_told(printed):
    """A real-time one: the runner goes on to the next."""
    assert printed("import os\nos.kill(os.getpid(), 40)", "1") == [
        "snippet.py ended by signal 40: no value",
        "another.py ended well: 1",
    ]


def test_what_cannot_be_read_is_told(printed, place):
    """As what is not in UTF-8: the runner goes on to the next."""
    first, last = printed(b"print('\xff')", "1")
    assert first.startswith("snippet.py cannot be read: 'utf-8' codec can't decode byte 0xff")
    assert last == "another.py ended well: 1"


# One after the other, and then two at once.
RUNS = """
import json, os, sys, threading, time
sys.path.insert(0, "examples")
import code_runner, capmarshal as cm

def state():
    with open("/proc/thread-self/children") as children:
        return len(os.listdir("/proc/self/fd")), threading.active_count(), children.read()

results = {}

def run(name, source, seconds):
    session, ended = code_runner.run(entrypoint, source, seconds)
    results[name] = [session.result, ended]

with cm.Entrypoint("runner") as entrypoint:
    before = state()
    for number in range(6):
        source = "shop.articles()\\nimport os\\nos.dup(0)" if number % 2 else "while True:\\n    shop.price('salt')"
        run("first", source, 30)
    threads = [
        threading.Thread(target=run, args=("one", "import time\\ntime.sleep(1000)", 3)),
        threading.Thread(target=run, args=("two", "sum(map(shop.price, shop.articles()))", 30)),
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    # The entrypoint's thread closes what was a process's when it finds that it has ended.
    deadline = time.monotonic() + 30
    while state() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    print(json.dumps([before, state(), results]), file=sys.stderr)
"""


def test_runs_leave_nothing_and_two_may_be_at_once(python, place):
    """No process, no descriptor, no thread; one that hangs keeps no other from its tool."""
    command, options = python
    done = subprocess.run(
        [command, "-c", RUNS], cwd=place, capture_output=True, timeout=4 * PATIENCE, check=True, **options
    )
    before, after, results = json.loads(done.stderr)
    assert after == before
    assert results["one"] == [None, "killed after 3 seconds"]
    assert results["two"] == [3.2 + 1.1 + 0.6, "well"]


def test_ctrl_c_ends_the_snippet_with_its_runner(python, place):
    """Its session is another, so that nobody else tells it."""
    (place / "snippet.py").write_text("import os, time\nprint(os.getpid())\ntime.sleep(1000)")
    interpreter, options = python
    command = [interpreter, "-u", str(place / "examples" / "code_runner.py"), "snippet.py"]
    environment = {**options["env"], "SECONDS": "1000"}
    runner = subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **{**options, "env": environment}
    )
    with runner:
        snippet = os.pidfd_open(int(runner.stdout.readline().removeprefix(b"| ")))
        try:
            runner.send_signal(signal.SIGINT)
            ended, _, _ = select.select([snippet], [], [], PATIENCE)
            if not ended:
                signal.pidfd_send_signal(snippet, signal.SIGKILL)
        finally:
            os.close(snippet)
            runner.kill()
    assert ended
