"""The examples do what they say."""

import hashlib
import importlib.util
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import capmarshal as cm
from patience import PATIENCE

EXAMPLES = Path(__file__).parent.parent / "examples"
CORE_INIT = EXAMPLES / "core_init.py"
SUPPORT = Path(__file__).parent / "support"

# Both limits, then becomes the example.
WITH_64_DESCRIPTORS = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def run(*command, **options):
    return subprocess.run(
        [sys.executable, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, **options
    )


def load(path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where annotations are looked up
    spec.loader.exec_module(module)
    return module


def assert_core_init_succeeded(ended):
    assert (ended.returncode, ended.stderr) == (0, "")
    first, *rest = ended.stdout.splitlines()
    assert first.startswith("10000 transfers; balances ")
    assert first.endswith(" = 1000000 bytes")
    for name in ("core", "init", "child"):
        assert f"{name} holds core's entrypoint under 1 descriptor" in rest


def test_digest_prints_the_checksum_of_the_file_in_the_current_directory(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"data" * 100_000)
    ended = run(EXAMPLES / "digest.py", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == hashlib.sha256(b"data" * 100_000).hexdigest() + "\n"


def test_digest_fails_where_there_is_no_file(tmp_path):
    assert run(EXAMPLES / "digest.py", cwd=tmp_path).returncode == 1


def test_key_holder_revokes_who_misuses_its_grant_and_nobody_else():
    """The forger can neither do what it was not granted, nor sign in another's name, nor sign any more then."""
    ended = run(EXAMPLES / "key_holder.py")
    assert (ended.returncode, ended.stderr) == (0, "")
    signs, replaces, forges, again, other = ended.stdout.splitlines()
    assert (signs, other) == ("forger signs: True", "baker signs: True")
    assert replaces.startswith("forger replaces the key: UnknownMethod: ")
    assert forges == "forger signs as baker: PermissionError: forger signs as forger"
    assert again.startswith("forger signs again: Revoked: ")
    assert again.endswith(": it has signed in another's name")


# Runs a program as one that has no rich.
WITHOUT_RICH = """
import runpy, sys
sys.modules["rich"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def progress(bits):
    command = [sys.executable, "-P", "-c", WITHOUT_RICH, EXAMPLES / "progress.py", bits]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)


def test_progress_is_told_until_it_is_found():
    with progress("16") as told:
        out, errors = told.communicate(timeout=PATIENCE)
    *steps, last = out.splitlines()
    number = last.removeprefix("100 %  found: capmarshal ")
    assert hashlib.sha256(f"capmarshal {number}".encode()).digest()[:2] == b"\0\0"
    assert [step.rpartition("  ")[2] for step in steps] == [
        f"{tried} tried" for tried in range(10_000, int(number), 10_000)
    ]
    assert (told.returncode, errors) == (0, f"worker: ended, {10_000 * len(steps)} tried in vain\n")


@pytest.mark.skipif(importlib.util.find_spec("rich") is None, reason="rich draws it")
def test_progress_is_drawn():
    ended = run(EXAMPLES / "progress.py", "16")
    assert ended.returncode == 0
    assert "found: capmarshal " in ended.stdout
    assert "100%" in ended.stdout


def test_ctrl_c_ends_the_work_where_it_is_done():
    """Which nobody lives to see the end of, else."""
    with progress("200") as told:
        assert told.stdout.readline().endswith("  10000 tried\n")
        # As a terminal does it: the worker has it, too.
        os.killpg(told.pid, signal.SIGINT)
        _, errors = told.communicate(timeout=PATIENCE)
    assert told.returncode == 128 + signal.SIGINT
    assert re.fullmatch(r"worker: ended, \d+ tried in vain\n", errors)


def test_core_init_holds_each_door_once():
    """Genode's ca4f574f4c: core's socket was there 8 times in core and init, before ETOOMANYREFS."""
    assert_core_init_succeeded(run(CORE_INIT))


def test_core_init_as_an_ordinary_user_with_64_descriptors(ordinary_python):
    """Root is exempt from the limit of descriptors in flight (CAP_SYS_RESOURCE), and so proves nothing."""
    interpreter, options = ordinary_python
    # The checkout may be where only root may read.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        shutil.copy(CORE_INIT, directory)
        command = [interpreter, "-P", "-c", WITH_64_DESCRIPTORS, f"{directory}/core_init.py"]
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, cwd="/", **options
        )
    assert_core_init_succeeded(ended)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_uses_nothing_private(example):
    """It shows what people can do."""
    assert "capmarshal._" not in example.read_text()


def test_core_init_needs_its_claims_to_hold(tmp_path):
    """It fails when a descriptor of core's door is held twice, so its success means something."""
    source = CORE_INIT.read_text()
    count = "    inode = os.fstat(cm.capability(sessions[0]).fileno()).st_ino\n"
    assert source.count(count) == 1
    twice = "    os.dup(cm.capability(sessions[0]).fileno())\n"
    (tmp_path / "core_init.py").write_text(source.replace(count, count + twice))
    ended = run(tmp_path / "core_init.py")
    assert ended.returncode == 1
    assert "child holds core's entrypoint under 2 descriptors" in ended.stdout


@pytest.fixture(scope="module")
def example():
    return load(CORE_INIT)


@pytest.fixture
def sessions(example):
    """Two of core's, as a client holds them."""
    with cm.Entrypoint("core") as entrypoint:
        proxies = [entrypoint.manage(example.CoreRamSession(100)).cast(example.RamSession) for _ in range(2)]
        yield proxies
        # pytest holds the proxies until after the descriptors are counted.
        for proxy in proxies:
            cm.capability(proxy).close()


@pytest.mark.parametrize(("amount", "error"), [(101, "InsufficientQuota"), (-1, "ValueError")])
def test_a_refused_transfer_moves_nothing(example, sessions, amount, error):
    with pytest.raises(getattr(example, error, ValueError)):
        sessions[0].transfer_quota(sessions[1], amount)
    assert [session.quota() for session in sessions] == [100, 100]


def test_quota_goes_to_no_session_of_somebody_elses(example, sessions):
    with cm.Entrypoint("impostor") as impostor:
        foreign = impostor.manage(example.CoreRamSession(0)).cast(example.RamSession)
        with pytest.raises(example.NoSession):
            sessions[0].transfer_quota(foreign, 1)
        assert foreign.quota() == 0
    assert sessions[0].quota() == 100


LOADER = EXAMPLES / "loader.py"
EXCHANGE = EXAMPLES / "descriptor_exchange.py"


def as_ordinary(ordinary_python, program, *arguments, before=""):
    """Runs an example as an ordinary user, after ``before``, and what it prints."""
    interpreter, options = ordinary_python
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        shutil.copy(program, directory)
        shutil.copy(SUPPORT / "refusing.py", directory)
        start = "import os, sys\nsys.path.insert(0, os.path.dirname(sys.argv[1]))\n"
        start += f"{before}\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        command = [interpreter, "-P", "-c", start, f"{directory}/{program.name}", *arguments]
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, cwd="/", **options
        )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.fixture(scope="module")
def loader():
    return load(LOADER)


def expected(loader, job):
    array = np.empty(loader.SHAPE, loader.FORMAT)
    loader.decode(job, array)
    return array.tobytes()


def test_loader_says_what_became_of_its_jobs(ordinary_python):
    """As an ordinary user, from beginning to end."""
    said = as_ordinary(ordinary_python, LOADER)
    assert re.fullmatch(
        r"48 arrays \(64, 128, 128\) of float32, mean 0\.5\d\d, by [23] workers for 2 places\n"
        r"left in the middle: 0 workers are there, and the array is still \(64, 128, 128\)\n",
        said.replace("mean 0.499", "mean 0.500"),
    )


def test_loader_gives_what_each_job_is(loader):
    """Each once, in whatever order; a buffer that is used again does not change what is still looked at."""
    with loader.Loader(range(9), workers=3) as arrays:
        came = [array.tobytes() for array in arrays]
    assert sorted(came) == sorted(expected(loader, job) for job in range(9))


def test_loaders_workers_wait_for_the_loop(loader, until):
    """While the loop holds all that a worker has, no more is decoded than that."""
    with loader.Loader(range(9), workers=1) as arrays:
        iterator = iter(arrays)
        held = [next(iterator) for _ in range(loader.BUFFERS)]
        # It has asked for one job more, and waits for a buffer.
        until(lambda: len(arrays._jobs) == 9 - loader.BUFFERS - 1)
        assert arrays._ready.empty()
        assert [array.tobytes() for array in held] == [expected(loader, job) for job in range(loader.BUFFERS)]
        del held[0]
        assert next(iterator).tobytes() == expected(loader, loader.BUFFERS)


def test_loaders_jobs_outlive_its_workers(loader):
    """A worker that is killed, at whatever it was, is replaced; no job is lost, and none comes twice."""
    came = []
    with loader.Loader(range(8), workers=2) as arrays:
        for array in arrays:
            came.append(array.tobytes())
            if len(came) in (1, 3):
                arrays.children[len(came) // 2].kill()
        assert len(arrays.children) > 2
    assert sorted(came) == sorted(expected(loader, job) for job in range(8))


def test_loader_says_when_workers_do_nothing_but_die(loader, monkeypatch, tmp_path):
    """They are not started again and again."""
    (tmp_path / "dies.py").write_text("import sys; sys.exit(3)")
    monkeypatch.setattr(loader, "__file__", str(tmp_path / "dies.py"))
    with loader.Loader(range(3), workers=1) as arrays, pytest.raises(RuntimeError, match="11 workers died"):
        next(iter(arrays))


def test_loader_that_is_left_leaves_nobody(loader):
    """A break in the middle: the workers end, and what was ready is let go of (the fixtures count)."""
    with loader.Loader(range(100)) as arrays:
        for _ in arrays:
            break
    assert all(child.poll() is not None for child in arrays.children)


def test_workers_of_a_loader_that_is_killed_end(tmp_path):
    """They wait for a buffer or an answer, and either ends with their loader."""
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(EXAMPLES)!r})
import loader
with loader.Loader(range(100)) as arrays:
    held = next(iter(arrays))
    print(*(child.pid for child in arrays.children), flush=True)
    sys.stdin.read(1)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killed:
        workers = [os.pidfd_open(int(pid)) for pid in killed.stdout.readline().split()]
        killed.communicate("x", timeout=PATIENCE)
    for worker in workers:
        assert select.select([worker], [], [], PATIENCE)[0]
        os.close(worker)


def test_descriptor_exchange_works_where_pidfd_getfd_is_refused(ordinary_python):
    """As an ordinary user, with a filter that refuses it as container runtimes do."""
    said = as_ordinary(ordinary_python, EXCHANGE, before="import refusing; refusing.refuse(['pidfd_getfd'])")
    assert said == "the memory has: what a GPU would have computed\nthe exporter has ended\n"


def test_descriptor_exchange_is_a_service_by_itself(tmp_path):
    """Each of the three in a terminal of its own; Ctrl-C ends the exchange, and takes its socket away."""
    path = tmp_path / "exchange"
    with subprocess.Popen(
        [sys.executable, "-P", EXCHANGE, "serve", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as exchange:
        assert exchange.stdout.readline() == f"listening at {path}\n"
        missing = run(EXCHANGE, "import", path)
        assert "KeyError: 'memory'" in missing.stderr
        with subprocess.Popen(
            [sys.executable, EXCHANGE, "export", path], stdout=subprocess.PIPE, text=True
        ) as exporter:
            assert exporter.stdout.readline() == "exported\n"
            assert run(EXCHANGE, "import", path).stdout.endswith("the exporter has ended\n")
        exchange.send_signal(signal.SIGINT)
        assert exchange.communicate(timeout=PATIENCE) == ("", "")
    assert (exchange.returncode, path.exists()) == (0, False)
    assert "python descriptor_exchange.py" in run(EXCHANGE, "what").stderr


@pytest.mark.usefixtures("quiet_log")
def test_a_shelf_holds_so_many_and_closes_what_it_replaces():
    """And gives copies: what is on it stays."""
    exchange = load(EXCHANGE)
    shelf = exchange.ShelfServer()
    with cm.Entrypoint("exchange") as entrypoint, open(os.devnull) as null:
        proxy = entrypoint.manage(shelf).cast(exchange.Shelf)
        for _ in range(2):
            for place in range(exchange.MOST):
                proxy.put(str(place), null)
        with pytest.raises(cm.RemoteError, match="64 descriptors on your shelf"):
            proxy.put("one more", null)
        with proxy.get("0") as one, proxy.get("0") as other:
            assert one.fileno() != other.fileno()
        with pytest.raises(KeyError):
            proxy.get("none")
        proxy.clear()
        cm.capability(proxy).close()
