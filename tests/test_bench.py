"""The benchmarks run, check their results and report what they say.  Nothing is asserted about a time."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pyperf
import pytest

CHECKOUT = Path(__file__).parent.parent
SVG = "{http://www.w3.org/2000/svg}"
NAMES = [
    "call",
    "descriptors",
    "capability",
    "polling",
    "awaited",
    "items",
    "peers",
    "bridge",
    "transfer",
    "arrays",
    "crowd",
    "memory",
    "imports",
    "inspect",
]

# Those that have most to do take half a minute of processor time, and two processors are shared with other tests.
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("cc") is None, reason="the benchmarks compile C"),
]


def bench(*arguments, cwd=CHECKOUT, code=0, timeout=240):
    """What ``python -m bench`` printed."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout
    )
    assert (done.returncode, "" if code == 0 else done.stderr) == (code, done.stderr)
    return done.stdout if code == 0 else done.stderr


class Done:
    """One benchmark with tiny counts: what it printed, wrote and drew."""

    def __init__(self, name, directory):
        self.file, self.pictures = directory / "figures.json", directory / "pictures"
        self.out = bench(name, "--quick", "--rounds", "2", "--json", self.file, "--svg", self.pictures)
        self.suite = pyperf.BenchmarkSuite.load(str(self.file))
        self.values = {each.get_name(): each.get_values() for each in self.suite.get_benchmarks()}

    def picture(self, name):
        """All the text in a chart."""
        root = ET.parse(self.pictures / name).getroot()
        assert f"{SVG}svg" == root.tag
        return {text.text for text in root.iter(f"{SVG}text")}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """done(name): a benchmark that has been run, once for all tests."""
    return functools.cache(lambda name: Done(name, tmp_path_factory.mktemp(name)))


@pytest.fixture
def one_core():
    """This thread, and the processes that it starts, may use only one core."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    yield min(usable)
    os.sched_setaffinity(0, usable)


def places():
    return ["one core", "two cores"][: len(os.sched_getaffinity(0))]


def test_without_a_name_it_lists_all_with_how_long_each_takes():
    lines = [line.split() for line in bench().splitlines() if line.startswith("  ")]

    assert [words[0] for words in lines] == NAMES
    assert all(words[1].isdigit() and words[2] in ("s", "min") for words in lines)


@pytest.mark.parametrize("arguments", [["nonsense"], ["call", "--rounds", "1"]])
def test_what_it_does_not_know_it_refuses(arguments):
    assert "usage: python -m bench" in bench(*arguments, code=2)


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_and_keeps_a_figure_of_each_round_for_pyperf(done, name):
    ran = done(name)

    assert f"== {name}" in ran.out
    assert ran.values
    for benchmark, values in ran.values.items():
        assert benchmark.startswith(f"{name}: ")
        assert len(values) == 2
        assert min(values) > 0


@pytest.mark.parametrize("name", NAMES)
def test_ratios_are_to_the_same_round(done, name):
    values = done(name).values
    ratios = {benchmark: own for benchmark, own in values.items() if " / " in benchmark}

    assert ratios
    for benchmark, own in ratios.items():
        where, _, what = benchmark.rpartition(": ")
        subject, base = (values[f"{where}: {contender}"] for contender in what.split(" / "))
        assert own == pytest.approx([a / b for a, b in zip(subject, base, strict=True)])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("polling", "imports", "memory", "inspect")])
def test_everything_is_measured_at_every_place(done, name):
    found = {place for place in ("one core", "two cores") for benchmark in done(name).values if place in benchmark}

    assert set(places()) == found


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts the instructions")
def test_instructions_are_counted_of_client_and_server_for_each_kind_of_work():
    """Of so few calls the figures themselves say nothing."""
    out = bench("call", "--count", "--quick")

    kinds = [block.splitlines() for block in out.split("\n\n")[2:]]
    capabilities = [f"a capability in, {which}" for which in ("held already", "new to it")]
    assert ["add(int, int)", "an open file in, 64 characters back", *capabilities] == [kind[0] for kind in kinds]
    for _, *lines in kinds:
        # Each, and the first one as a multiple of each other.
        assert len(lines) in (3, 5)
        for line in lines:
            assert all(float(figure.replace(",", "")) for figure in line.split()[-3:])


def test_what_is_not_counted_is_refused():
    assert "call and descriptors" in bench("imports", "--count", code=1)


def test_counting_without_valgrind_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")

    assert "apt install valgrind" in bench("call", "--count", code=1)


def test_the_conditions_are_stated_and_kept(done):
    ran = done("call")
    metadata = ran.suite.get_metadata()

    for known in ("capmarshal_version", "msgspec_version", "python_version", "cpu_model_name"):
        assert str(metadata[known]) in ran.out
    assert os.uname().release in metadata["platform"]
    assert os.uname().release in ran.out
    # The fixed parts of a CALL and a REPLY.
    assert metadata["call_bytes"] > 50
    assert metadata["reply_bytes"] > 16


def test_targets_are_shown_with_whether_they_are_reached(done):
    ran = done("call")
    targets = {
        each.get_name(): each.get_metadata()["target"]
        for each in ran.suite.get_benchmarks()
        if "target" in each.get_metadata()
    }

    for target in targets.values():
        assert f"target {target:g}: reached" in ran.out or f"target {target:g}: MISSED" in ran.out


@pytest.mark.parametrize(
    ("name", "row", "target"),
    [
        ("call", "one core: capmarshal, typed call / C, kept channel", 1.4),
        (
            "call",
            "an open file in, 64 characters back, one core: "
            "capmarshal, typed call / send_fds + msgspec by hand, a file object made of it",
            1.2,
        ),
        ("awaited", "asyncio, one call, one core: capmarshal, awaited / anyio streams + msgspec by hand", 0.5),
        ("awaited", "uvloop, 64 in flight, one core: capmarshal, awaited / anyio streams + msgspec by hand", 1.3),
        ("awaited", "trio, 64 in flight, one core: capmarshal, awaited / anyio streams + msgspec by hand", 1.3),
        ("descriptors", "memfds, 1 each way, one core: capmarshal / socket.send_fds, recv_fds", 1.3),
        ("descriptors", "memfds, 253 each way, one core: capmarshal / socket.send_fds, recv_fds", 1.5),
        ("descriptors", "regular files, 16 each way, one core: capmarshal / socket.send_fds, recv_fds", 1.4),
        ("descriptors", "regular files, 253 each way, one core: capmarshal / socket.send_fds, recv_fds", 1.7),
        ("capability", "one core: the receiver holds it / a call of data, add(int, int)", 2),
        ("capability", "one core: new to it / a call of data, add(int, int)", 3),
        ("transfer", "bytes, 1 MiB, one core: capmarshal, inline / multiprocessing.Connection", 1),
        ("arrays", "each of 64 KiB, one core: capmarshal, Dataspace / shared_memory, a new segment each", 1),
        ("arrays", "each of 64 KiB, one core: capmarshal, SharedBuffer / shared_memory, used again", 1.2),
        ("arrays", "each of 64 KiB, one core: capmarshal, SharedBuffer / multiprocessing.Queue", 0.3),
        ("items", "one core: capmarshal, a stream / a pipe + msgspec by hand", 1.5),
        ("items", "one core: capmarshal, awaited on asyncio / a pipe + msgspec by hand", 1.5),
        ("peers", "add(int, int), one core: capmarshal / multiprocessing.Connection", 0.5),
    ],
)
def test_what_is_wanted_of_a_row_stands_beside_it(done, name, row, target):
    found = {each.get_name(): each.get_metadata().get("target") for each in done(name).suite.get_benchmarks()}

    assert found[f"{name}: {row}"] == target


def test_figures_are_added_to_those_that_a_file_has(tmp_path):
    """So that several runs of each side are two files, for pyperf to compare."""
    for rounds in ("2", "3"):
        bench("capability", "--quick", "--rounds", rounds, "--json", tmp_path / "figures.json")

    suite = pyperf.BenchmarkSuite.load(str(tmp_path / "figures.json"))
    assert {5} == {len(each.get_values()) for each in suite.get_benchmarks()}


def test_pyperf_compares_two_files(done):
    file = done("call").file

    compared = subprocess.run(
        [sys.executable, "-P", "-m", "pyperf", "compare_to", file, file], capture_output=True, text=True, timeout=60
    )

    assert (compared.returncode, compared.stderr) == (0, "")
    assert "call: one core: capmarshal, typed call / C, kept channel" in compared.stdout


def test_the_installed_package_is_measured_not_the_checkout(tmp_path):
    """Also in the processes that it starts."""
    shutil.copytree(CHECKOUT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "capmarshal").mkdir()
    (tmp_path / "capmarshal" / "__init__.py").write_text("raise SystemExit('the checkout was imported')\n")

    assert "== call" in bench("call", "crowd", "--quick", cwd=tmp_path)


def test_two_cores_are_skipped_with_a_line_where_there_is_one(one_core, tmp_path):
    ran = Done("call", tmp_path)

    assert "two cores: skipped" in ran.out
    assert f"one core ({one_core})" in ran.out
    assert not [benchmark for benchmark in ran.values if "two cores" in benchmark]


def test_every_peer_is_measured_or_named_with_the_reason(done):
    ran = done("peers")
    measured, missing = ran.out.split("\nnot measured\n") if "\nnot measured\n" in ran.out else (ran.out, "")

    for peer in ("by hand", "Connection", "managers", "rpyc", "Pyro5", "pyzmq", "dbus-fast", "pycapnp", "grpcio"):
        assert (peer in measured) != (peer in missing)


def test_what_is_awaited_is_compared_with_each_peer_that_asyncio_awaits(done):
    ran = done("awaited")
    targets = {each.get_name(): each.get_metadata().get("target") for each in ran.suite.get_benchmarks()}

    for peer in ("grpcio", "pycapnp"):
        found = [target for name, target in targets.items() if f"capmarshal, awaited / {peer} " in name]
        assert ([0.5] * 2 * len(places()) == found) != (f"{peer}: {peer} is not installed" in ran.out)


def test_what_a_call_costs_a_server_is_stated_for_a_thread_and_each_loop(done):
    found = contenders(done("awaited"), "awaited: processor time of the server, one call, one core")

    assert {"a thread", "asyncio", "uvloop", "trio"} == found


def test_a_peer_that_is_not_installed_is_named():
    program = f"""\
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
from bench import peers
from bench.measuring import Report

peers.PEERS["Pyro5"] = peers.PEERS["Pyro5"]._replace(package="nobody-installed-it")
report = Report(quick=True)
peers.peers.measure(report)
print(*map(": ".join, report.missing.items()), sep="\\n")
assert not [name for work in report.works for name in work.figures if "Pyro" in name]
"""
    ran = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Pyro5: nobody-installed-it is not installed" in ran.stdout.splitlines()


def test_who_cannot_pass_a_descriptor_is_shown_as_such(done):
    ran = done("peers")
    passing = [line for line in ran.out.splitlines() if ": cannot" in line or "  cannot: " in line]

    # rpyc, Pyro5, pyzmq, pycapnp and grpcio, as far as they are installed, at each place.
    measured = [peer for peer in ("rpyc", "Pyro5", "pyzmq", "pycapnp", "grpcio") if f"{peer}: " not in ran.out]
    assert len(passing) == len(measured) * len(places())


def test_polling_is_switched_in_the_client_and_in_its_server():
    """Each pair of processes is started with its own value of the variable."""
    program = f"""\
import sys
from pathlib import Path
sys.path.insert(0, {str(CHECKOUT)!r})
from bench import calls
from bench.processes import places

def family(pid):
    yield pid
    for task in Path(f"/proc/{{pid}}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))

running = {{}}
with calls.polling_clients(places()[0], [], running):
    for name, client in running.items():
        calls.polling_seconds(running, name, 1)
        for pid in family(client.pid):
            variables = Path(f"/proc/{{pid}}/environ").read_bytes().split(b"\\0")
            print(name, *(v.decode() for v in variables if v.startswith(b"CAPMARSHAL_POLL=")))
"""
    ran = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60)

    assert (ran.returncode, ran.stderr) == (0, "")
    expected = ["capmarshal, polling CAPMARSHAL_POLL=1"] * 2 + ["capmarshal, sleeping CAPMARSHAL_POLL=0"] * 2
    assert expected == ran.stdout.splitlines()


def test_memory_is_of_one_piece_at_each_count(done):
    out = done("memory").out

    for piece in ("a channel, server", "a channel, client", "a channel, kernel", "a managed object", "a held cap"):
        assert piece in out


def test_bytes_and_descriptors_are_handed_over_by_everybody_who_can(done):
    ran = done("transfer")

    everybody = {"socket.send_fds", "C"}
    both = {"capmarshal, inline", "capmarshal, Dataspace", "multiprocessing.Connection"} | everybody
    assert both == contenders(ran, "transfer: bytes, 64 B, one core")
    both = {"capmarshal", "multiprocessing.reduction.DupFd"} | everybody
    assert both == contenders(ran, "transfer: descriptors, 1, one core")


def contenders(ran, work):
    return {name.removeprefix(f"{work}: ") for name in ran.values if name.startswith(f"{work}: ") and " / " not in name}


def test_who_cannot_hand_something_over_is_named_with_the_reason(done):
    _, _, missing = done("transfer").out.partition("\nnot measured\n")

    assert "bytes: multiprocessing.reduction.DupFd: hands over no bytes" in missing
    assert "descriptors: multiprocessing.Connection: " in missing


def test_the_largest_dataspace_is_compared_with_one_kib(done):
    ran = done("transfer")

    for place in places():
        work = f"transfer: the largest Dataspace, {place}: capmarshal, Dataspace, 1 MiB"
        assert f"{work} / capmarshal, Dataspace, 1 KiB" in ran.values


@pytest.mark.parametrize("task", ["bytes, 64 B", "descriptors, 1"])
def test_line_charts_are_well_formed_and_name_every_line(done, task):
    ran = done("transfer")

    kind = task.partition(",")[0]
    assert contenders(ran, f"transfer: {task}, one core") <= ran.picture(f"transfer-{kind}.svg")


@pytest.mark.parametrize(("name", "work"), [("call", "call: one core"), ("peers", "peers: add(int, int), one core")])
def test_bar_charts_are_well_formed_and_name_every_bar(done, name, work):
    ran = done(name)

    assert len(contenders(ran, work)) >= 4
    assert contenders(ran, work) <= ran.picture(f"{name}.svg")


def test_names_of_lines_that_end_together_do_not_overlap(monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT)
    from bench import charts

    lines = {f"line {i}": [5.0, 5.0] for i in range(5)}
    drawn = charts.line_chart("", {1: "1"}, {1: lines, 10: lines})

    names = [text for text in ET.fromstring(drawn).iter(f"{SVG}text") if text.text in lines]
    heights = sorted(float(name.get("y")) for name in names)
    assert len(heights) == 5
    assert all(after - before >= 15 for before, after in itertools.pairwise(heights))
