"""The examples do what they say."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import capmarshal as cm

EXAMPLES = Path(__file__).parent.parent / "examples"
CORE_INIT = EXAMPLES / "core_init.py"

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
