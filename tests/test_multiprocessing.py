"""Processes that multiprocessing creates: what they inherit, and that nothing is pickled for anybody else."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import by_hand
import capmarshal as cm
import pool_program
from capmarshal._capabilities.capability import open_door_of
from capmarshal._descriptors import new_process
from patience import PATIENCE

METHODS = ["fork", "spawn", "forkserver"]
# Not this process: a forkserver would be its child for ever, and its resource tracker as well.
PROGRAM = """\
import multiprocessing, os, sys
import capmarshal as cm

def count(things):
    sys.exit(len({os.fstat(thing.fileno()).st_ino for thing in things}))

class Work(cm.Interface):
    @cm.method
    def double(self, value: int) -> int: ...

class Worker(Work):
    def double(self, value: int) -> int:
        return value * 2

def exits_with(function, *arguments):
    process = multiprocessing.Process(target=function, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
"""

# What has a capability as an attribute.
OWN = """\
class Own(multiprocessing.Process):
    def run(self):
        with cm.timeout(30):
            sys.exit(self.work.double(4))

"""


def printed(path, source, *arguments, python=sys.executable, **options):
    """What a program prints that stands in a file, as multiprocessing wants it; it ends well and says nothing else."""
    program = path / "program.py"
    program.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [python, "-P", program, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False, **options
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


# What is inherited.


@pytest.mark.parametrize("method", METHODS)
def test_what_a_process_can_inherit(method, tmp_path):
    """As an argument of Process, and of either pool: what it is, and what it has, is the same there."""
    source = Path(pool_program.__file__).read_text(encoding="utf-8")
    assert printed(tmp_path, source, method) == "all done"


@pytest.mark.parametrize("method", METHODS)
def test_as_an_ordinary_user(method, ordinary_python):
    """Who is nobody in particular."""
    python, options = ordinary_python
    copied = Path(f"/tmp/capmarshal-test-{os.getpid()}")
    copied.mkdir()
    try:
        copied.chmod(0o755)
        source = Path(pool_program.__file__).read_text(encoding="utf-8")
        assert printed(copied, source, method, python=python, cwd="/", **options) == "all done"
    finally:
        shutil.rmtree(copied)


def test_what_a_process_has_as_attributes(tmp_path):
    """A class derived from Process is pickled with what it has."""
    source = PROGRAM.replace("class Work(", OWN + "class Work(", 1)
    source += """
    with cm.Entrypoint("own") as entrypoint:
        process = Own()
        process.work = entrypoint.manage(Worker()).cast(Work)
        process.start()
        process.join(60)
        print(process.exitcode)
"""
    assert printed(tmp_path, source, "spawn") == "8"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_one_door_is_one_descriptor(method, tmp_path):
    """However many capabilities of it a process inherits, and there is no limit to these."""
    source = (
        PROGRAM
        + """
    with cm.Entrypoint("many") as entrypoint:
        workers = [Worker() for _ in range(300)]
        print(exits_with(count, [entrypoint.manage(worker) for worker in workers]))
"""
    )
    assert printed(tmp_path, source, method) == "1"


@pytest.mark.parametrize(("method", "count"), [("spawn", 255), ("forkserver", 249)])
def test_many_descriptors(method, count, tmp_path):
    """As many as the method hands down; a forkserver's limit is said, and nothing is started."""
    source = (
        PROGRAM
        + f"""
    made = [cm.Descriptor(os.memfd_create(f"file {{number}}")) for number in range({count})]
    print(exits_with(count, made))
    if sys.argv[1] == "forkserver":
        made.append(made[0].dup())
        try:
            exits_with(count, made)
        except ValueError as error:
            print(error)
    for each in made:
        each.close()
"""
    )
    said = printed(tmp_path, source, method).splitlines()
    limit = (
        "multiprocessing's forkserver hands no more than 249 descriptors down to a process: use the method spawn, or "
    )
    assert said == [str(count)] + [f"{limit}pass the others as arguments of a call"] * (method == "forkserver")


def test_what_is_closed_is_not_handed_down(tmp_path):
    """Said when the process is started, in its creator."""
    source = (
        PROGRAM
        + """
    with cm.Entrypoint("closed") as entrypoint:
        capability = entrypoint.manage(Worker())
        proxy = capability.cast(Work)
        capability.close()
        descriptor = cm.Descriptor.dup_of(0)
        descriptor.close()
        for thing in (capability, proxy, descriptor):
            try:
                exits_with(count, [thing])
            except cm.Closed:
                print("closed")
"""
    )
    assert printed(tmp_path, source, "spawn").split() == ["closed"] * 3


def test_a_standard_stream_stays_what_it_is(tmp_path):
    """One that a Descriptor owns has the same number in the process that is created, where both are needed."""
    source = PROGRAM.replace(
        "def exits_with", "def close(thing):\n    thing.close()\n    os.fstat(2)\n\ndef exits_with", 1
    )
    source += """
    owner = cm.Descriptor(2)
    print(exits_with(close, owner))
    owner.detach()
"""
    assert printed(tmp_path, source, "spawn") == "0"


# What is not pickled.


@pytest.fixture
def things(capability, memfd):
    """One of each."""
    with cm.Dataspace.from_buffer(b"data") as dataspace:
        yield [capability, capability.cast(by_hand.Work), memfd, dataspace]


@pytest.mark.parametrize(
    "do",
    [pickle.dumps, copy.copy, copy.deepcopy, multiprocessing.reduction.ForkingPickler.dumps],
    ids=["pickle", "copy", "deepcopy", "queue"],
)
def test_nothing_is_pickled_at_any_other_time(do, things):
    """As a queue would: the error says what works."""
    for thing in things:
        with pytest.raises(TypeError, match="is neither copied nor pickled") as caught:
            do([thing] if do is copy.deepcopy else thing)
        assert str(caught.value).endswith(
            "Another process gets it as an argument of a call, or when it is created: as an argument of "
            "multiprocessing.Process, or among the initargs of a pool"
        )


def test_what_is_derived_from_a_capability_is_refused(capability, monkeypatch):
    """It would arrive as something else."""

    class Mine(cm.Capability):
        pass

    monkeypatch.setattr(new_process, "being_created", lambda: object())
    mine = Mine(open_door_of(capability), b"b" * 16)
    with pytest.raises(TypeError, match="not what is derived from it"):
        pickle.dumps(mine)
