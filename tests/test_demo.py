"""``capmarshal demo``, against the machine's own ``sha256sum``: what it prints."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import capmarshal as cm
from demo_process import DEMO, ENVIRONMENT, run

ODD_NAMES = [
    b"plain",
    b"two words",
    b" ",
    b"line\nend",
    b"\n",
    b"carriage\rreturn",
    b"back\\slash",
    b"\\n",
    b"all\\of\nthem\r",
    b"tab\tand\x01\x1b[31mred",
    b"not utf-8 \xff\xfe",
    b"\xff\n",
    "schön ☃".encode(),
    b"-dash",
    b"--",
    b"--help",
    b"a:b'c\"d",
    b"*",
]

needs_sha256sum = pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")


def assert_as_sha256sum(*arguments, interpreter=sys.executable, **options):
    """The same output, the same exit status, and the same complaints but for the name of the command."""
    demo = run("--", *arguments, interpreter=interpreter, **options)
    if isinstance(options.get("stdin"), io.BufferedReader):
        options["stdin"].seek(0)
    options = {"env": ENVIRONMENT, **options}
    expected = subprocess.run(["sha256sum", "--", *arguments], capture_output=True, timeout=60, **options)
    assert demo.stdout == expected.stdout
    assert demo.stderr == expected.stderr.replace(b"sha256sum: ", b"capmarshal: ")
    assert demo.returncode == expected.returncode
    return demo


@needs_sha256sum
@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_name_is_shown_as_sha256sum_shows_it(name, tmp_path):
    (tmp_path / os.fsdecode(name)).write_bytes(b"content of " + name)
    assert_as_sha256sum(b"./" + name, name, cwd=tmp_path)


@needs_sha256sum
def test_many_files_in_the_given_order(tmp_path):
    """Empty, large, given twice; odd names among plain ones."""
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(os.urandom(1 << 16) * 80)
    for name in ODD_NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    assert_as_sha256sum(*ODD_NAMES, "large", "empty", "large", *reversed(ODD_NAMES), cwd=tmp_path)


@needs_sha256sum
def test_what_cannot_be_read_is_reported_and_the_rest_is_still_done(tmp_path):
    (tmp_path / "good").write_bytes(b"good")
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    arguments = ["good", "missing", "directory", "mis sing", "a:b", b"\xff\n", "", "good/", "loop", "/proc/self/mem"]
    assert assert_as_sha256sum(*arguments, "good", cwd=tmp_path).returncode == 1


@needs_sha256sum
def test_a_file_of_proc():
    assert_as_sha256sum("/proc/version", "/proc/cmdline")


@needs_sha256sum
def test_an_unreadable_file_as_an_ordinary_user(tmp_path, ordinary_python):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "open").write_bytes(b"open")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    interpreter, options = ordinary_python
    options = {**options, "env": {**options["env"], "LC_ALL": "C.UTF-8"}, "cwd": tmp_path}
    assert (
        b"secret: Permission denied"
        in assert_as_sha256sum("open", "secret", "open", interpreter=interpreter, **options).stderr
    )


@needs_sha256sum
def test_standard_input(tmp_path):
    """From a file, where it stands; the second time there is nothing left."""
    (tmp_path / "data").write_bytes(b"from standard input")
    with (tmp_path / "data").open("rb") as file:
        assert_as_sha256sum("-", "data", "-", stdin=file, cwd=tmp_path)
    assert_as_sha256sum("-", input=b"from a pipe" * 100_000)


@needs_sha256sum
def test_standard_input_that_is_not_there():
    """Non-blocking with nothing to read, or closed."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with cm.Descriptor(reading) as pipe, cm.Descriptor(writing):
        assert b"unavailable" in assert_as_sha256sum("-", stdin=pipe).stderr
    closed = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *DEMO, "-"], capture_output=True, env=ENVIRONMENT)
    assert (closed.returncode, closed.stderr) == (1, b"capmarshal: -: Bad file descriptor\n")


@needs_sha256sum
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_files_that_are_inherited_descriptors(tmp_path):
    """<(command) and /dev/fd/7, in whichever directory they are; each as often as it is named."""
    (tmp_path / "data").write_bytes(b"by number")

    def printed(*command):
        script = 'exec 7< data; exec "$@" <(echo one; echo two) /dev/fd/7 /proc/self/fd/7 data <(echo three)'
        return subprocess.run(
            ["bash", "-c", script, "bash", *command], capture_output=True, cwd=tmp_path, env=ENVIRONMENT, timeout=60
        )

    expected, demo = printed("sha256sum", "--"), printed(*DEMO, "--")
    assert demo.stdout == expected.stdout
    assert (demo.stderr, demo.returncode) == (b"", 0)


@needs_sha256sum
@pytest.mark.parametrize("nobody", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize("options", [[], ["--verbose"]])
def test_complaints_that_nobody_can_hear_stop_nothing(nobody, options, tmp_path):
    """Standard error is closed, or full: the other files are still read, and the exit status says what it would."""
    (tmp_path / "data").touch()
    names = ["data", "missing", "also missing", "data"]

    def printed(*command):
        script = ["sh", "-c", f'exec "$@" {nobody}', "sh", *command]
        return subprocess.run(script, stdout=subprocess.PIPE, cwd=tmp_path, env=ENVIRONMENT, timeout=60)

    expected, demo = printed("sha256sum", *names), printed(*DEMO, *options, *names)
    assert (demo.returncode, demo.stdout) == (expected.returncode, expected.stdout)
    assert demo.returncode == 1


def test_the_console_script(tmp_path):
    script = Path(sys.executable).with_name("capmarshal")
    if not script.exists():
        pytest.skip("the console script is not installed beside this interpreter")
    (tmp_path / "data").touch()
    assert subprocess.check_output([script, "demo", "data"], cwd=tmp_path) == run("data", cwd=tmp_path).stdout


@pytest.mark.parametrize("arguments", [[], ["demo"], ["demo", "--nonsense", "x"], ["nonsense"]])
def test_a_usage_error_has_exit_status_2(arguments):
    command = [sys.executable, "-P", "-m", "capmarshal", *arguments]
    failed = subprocess.run(command, capture_output=True, timeout=60)
    assert (failed.returncode, failed.stdout) == (2, b"")
    assert failed.stderr.startswith(b"usage: ")


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    (tmp_path / "data").touch()
    reading, writing = os.pipe()
    os.close(reading)
    with cm.Descriptor(writing) as nobody:
        ended = subprocess.run([*DEMO, "data", "data"], stdout=nobody, stderr=subprocess.PIPE, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_a_full_disk_is_reported(tmp_path):
    (tmp_path / "data").touch()
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([*DEMO, "data"], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, b"capmarshal: write error: No space left on device\n")


def test_a_module_beside_the_files_is_not_run(tmp_path):
    """The children look for modules where the package is, not where the files are."""
    (tmp_path / "hashlib.py").write_text("raise SystemExit('run')")
    command = [sys.executable, "-P", *DEMO[1:], "hashlib.py"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
