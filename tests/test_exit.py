"""An interpreter that ends with entrypoints alive ends at once, with its exit code, and says no more than is due."""

from __future__ import annotations

import subprocess
import sys

import pytest

PATIENCE = 30

HEAD = """
import io, os, sys, threading
import capmarshal as cm

class Work(cm.Interface):
    @cm.method
    def double(self, value: int) -> int: ...
    @cm.method
    def block(self) -> int: ...
    @cm.method
    def leave(self) -> int: ...
    @cm.method
    def echo(self, file: cm.Descriptor) -> cm.Descriptor: ...

class Worker(Work):
    def double(self, value): return 2 * value
    def block(self):
        began.set()
        threading.Event().wait(600)
    def leave(self): sys.exit(3)
    def echo(self, file): return file

began = threading.Event()
"""


def run(script, *options):
    """Exit code and standard error of a Python process of its own."""
    finished = subprocess.run(
        [sys.executable, "-I", *options, "-c", HEAD + script],
        timeout=PATIENCE,
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.returncode, finished.stderr


STRICT = ("-X", "dev", "-W", "error")

SILENT = {
    "closed": """
with cm.Entrypoint("x") as entrypoint:
    proxy = entrypoint.manage(Worker()).cast(Work)
    assert proxy.double(1) == 2
""",
    "closed, and its capability held": """
with cm.Entrypoint("x") as entrypoint:
    capability = entrypoint.manage(Worker())
    proxy = capability.cast(Work)
    assert proxy.double(1) == 2
    with open("/dev/null", "rb") as file:
        proxy.echo(file).close()
""",
    "served by a thread": """
entrypoint = cm.Entrypoint("x").__enter__()
proxy = entrypoint.manage(Worker()).cast(Work)
assert proxy.double(1) == 2
""",
    "in a method": """
entrypoint = cm.Entrypoint("x").__enter__()
proxy = entrypoint.manage(Worker()).cast(Work)
threading.Thread(target=proxy.block, daemon=True).start()
began.wait(30)
""",
    "in a call": """
entrypoint = cm.Entrypoint("x")
proxy = entrypoint.manage(Worker()).cast(Work)
calling = threading.Thread(target=lambda: (began.set(), proxy.double(1)), daemon=True)
calling.start()
began.wait(30)
entrypoint.__enter__()
""",
    "within the with block": """
with cm.Entrypoint("x") as entrypoint:
    proxy = entrypoint.manage(Worker()).cast(Work)
    assert proxy.double(1) == 2
    sys.exit(0)
""",
    "after a fork": """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
with cm.Entrypoint("x") as entrypoint:
    proxy = entrypoint.manage(Worker()).cast(Work)
    assert proxy.double(1) == 2
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
    else:
        assert proxy.double(1) == 2
""",
}


def test_nothing_is_still_starting_when_an_entrypoint_was_left():
    """At once after it was entered: CPython 3.11.2 crashed at exit, of a daemon thread that had not quite begun."""
    command = [sys.executable, "-I", *STRICT, "-c", 'import capmarshal as cm\nwith cm.Entrypoint("x"): pass']
    for _ in range(15):
        both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
        assert [(*each.communicate(timeout=PATIENCE), each.returncode) for each in both] == [(None, b"", 0)] * 2


@pytest.mark.parametrize("options", [(), STRICT], ids=["plain", "strict"])
@pytest.mark.parametrize("how", SILENT)
def test_an_interpreter_that_ends_is_silent(how, options):
    """Exit code 0 and not a word, in the middle of whatever."""
    assert run(SILENT[how], *options) == (0, "")


@pytest.mark.parametrize(
    "script",
    [
        'entrypoint = cm.Entrypoint("x")\n',
        'entrypoint = cm.Entrypoint("x")\nproxy = entrypoint.manage(Worker()).cast(Work)\n',
        'def forget():\n    cm.Entrypoint("x")\nforget()\n',
    ],
    ids=["alive", "alive and managed", "forgotten"],
)
def test_an_entrypoint_that_nobody_closed_is_named(script):
    """The one honest warning, and nothing about the interpreter that is gone."""
    code, words = run(script)
    assert (code, words) == (0, "")
    for options in (("-X", "dev"), STRICT):
        code, words = run(script, *options)
        assert code == 0
        assert words.count("ResourceWarning: unclosed <Entrypoint 'x'>") == 1
        assert words.count("Error") == 0


def test_a_file_of_a_number_that_was_not_its_own_closes_nothing_at_exit(tmp_path):
    """The number is somebody else's then: of a file that is written when the interpreter ends, after all modules."""
    written = tmp_path / "written"
    code, words = run(f"""
import logging
logging.disable(logging.CRITICAL)
class Twice(cm.Interface):
    @cm.method
    def twice(self, file: io.BufferedReader) -> cm.Descriptor: ...
class Mistaken(Twice):
    def twice(self, file):
        numbers.append(file.fileno())
        return io.FileIO(numbers[0])
numbers = []
with cm.Entrypoint("x") as entrypoint, cm.timeout(30), open(os.devnull, "rb") as lent:
    try:
        entrypoint.manage(Mistaken()).cast(Twice).twice(lent)
    except cm.RemoteError as error:
        assert "both would close it" in str(error), error
opened = os.open({str(written)!r}, os.O_WRONLY | os.O_CREAT)
if opened != numbers[0]:
    os.dup2(opened, numbers[0])
    os.close(opened)
sys.written = open(numbers[0], "wb")
sys.written.write(b"data")
""")
    assert (code, words) == (0, "")
    assert written.read_bytes() == b"data"


def test_sys_exit_within_a_method_ends_neither_the_service_nor_the_process():
    """In a thread of its own: the caller gets an error, the next one is served, and the process goes on."""
    code, words = run("""
import logging
logging.disable(logging.CRITICAL)
with cm.Entrypoint("x") as entrypoint, cm.timeout(30):
    proxy = entrypoint.manage(Worker()).cast(Work)
    try:
        proxy.leave()
    except cm.RemoteError as error:
        assert error.type == "SystemExit", error
    assert proxy.double(1) == 2
""")
    assert (code, words) == (0, "")


def test_sys_exit_of_a_signal_handler_exits():
    """Served by serve_forever() of the main thread, though it comes within a method: the caller is told first."""
    code, words = run("""
import logging, signal
logging.disable(logging.CRITICAL)
left = []
def leave(*_):
    if not left:
        left.append(True)
        sys.exit(3)
signal.signal(signal.SIGTERM, leave)
entrypoint = cm.Entrypoint("x")
proxy = entrypoint.manage(Worker()).cast(Work)
told = []
def call():
    try:
        proxy.block()
    except cm.RemoteError as error:
        told.append(error.type)
calling = threading.Thread(target=call)
calling.start()
def end():
    began.wait(30)
    # Again if it came just before the system call that waits.
    while not told and not calling.join(0.05) and calling.is_alive():
        os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end).start()
try:
    entrypoint.serve_forever()
finally:
    calling.join(30)
    entrypoint.close()
    assert told == ["SystemExit"], told
""")
    assert (code, words) == (3, "")
