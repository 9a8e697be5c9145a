"""How listening ends: by closing, signals, exits and forks; who was connecting is told, and no file is left."""

import _thread
import contextlib
import os
import signal
import sys
import threading

import pytest

import by_hand
import capmarshal as cm
import matrix
from patience import PATIENCE, until
from services import connected, double, failure, leave_stale, serving


def test_the_file_goes_when_the_entrypoint_is_closed(place):
    """What lies beside it stays, and one can listen there again at once."""
    for _ in range(2):
        with serving(place):
            assert place.is_socket()
        assert [path.name for path in place.parent.iterdir()] == ["service.lock"]
        assert failure(place)[0] == "Disconnected"


def test_a_file_of_somebody_elses_stays(place):
    """Where another has come to stand at the path meanwhile, it is not ours to remove."""
    with serving(place):
        place.unlink()
        place.write_text("another")
    assert place.read_text() == "another"


def test_a_closed_entrypoint_listens_nowhere(place):
    entrypoint = cm.Entrypoint("service")
    entrypoint.close()
    with pytest.raises(cm.Closed):
        entrypoint.listen(place, by_hand.Worker())
    assert not place.exists()


def test_it_may_listen_before_and_while_it_is_served_and_at_more_than_one_path(place):
    """Who connects before waits."""
    entrypoint = cm.Entrypoint("service")
    entrypoint.listen(place, by_hand.Worker())
    waiting = by_hand.Concurrent(double, place)
    with entrypoint:
        assert waiting.outcome() == 8
        entrypoint.listen(f"{place}.other", by_hand.Worker())
        assert double(f"{place}.other") == 8
        assert double(place) == 8
    # Its lock files are left.
    assert not [path for path in place.parent.iterdir() if path.is_socket()]


def test_one_that_was_never_served_lets_go(place):
    """Who has connected finds it gone."""
    entrypoint = cm.Entrypoint("service")
    entrypoint.listen(place, by_hand.Worker())
    waiting = by_hand.Concurrent(failure, place)
    with connected(place) as connection:
        entrypoint.close()
        assert waiting.outcome()[0] == "Disconnected"
        assert by_hand.ended(connection)
    assert not place.exists()


def test_the_main_thread_serves_and_a_signal_ends_it(place, run_peer):
    """serve_forever(): the file goes with the entrypoint."""

    def serve(path):
        class Hello(cm.Interface):
            @cm.method
            def double(self, value: int) -> int: ...

        class Server(Hello):
            def double(self, value: int) -> int:
                return 2 * value

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        entrypoint = cm.Entrypoint("service")
        entrypoint.listen(path, Server())
        print("ready", flush=True)
        try:
            entrypoint.serve_forever()
        finally:
            entrypoint.close()

    peer = run_peer(serve, str(place))
    assert peer.line() == "ready"
    assert double(place) == 8
    os.kill(peer.pid, signal.SIGTERM)
    peer.finish(code=7)
    assert not place.exists()


def test_a_signal_in_for_client_ends_the_service_of_the_main_thread(place, run_peer):
    """As in a method: who was connecting is told, or finds the service gone; nothing of it stays open."""

    def serve(path):
        def choose(_caller):
            signal.raise_signal(signal.SIGINT)

        entrypoint = cm.Entrypoint("service")
        entrypoint.listen(path, for_client=choose)
        print("ready", flush=True)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        try:
            entrypoint.serve_forever()
        except KeyboardInterrupt:
            print("interrupted", len(os.listdir("/proc/self/fd")) - before, flush=True)  # noqa: PTH208
        entrypoint.close()

    peer = run_peer(serve, str(place))
    assert peer.line() == "ready"
    assert failure(place)[0] in ("Refused", "Disconnected")
    assert peer.line().startswith("interrupted")
    peer.finish(stderr=None)


def test_a_process_that_ends_without_closing_is_replaced(place, run_peer):
    """By an exit, or killed: what it leaves behind is a file that nobody answers at."""

    def serve(path, how):
        entrypoint = cm.Entrypoint("service")
        entrypoint.listen(path, for_client=lambda _caller: None)
        entrypoint.__enter__()
        print("ready", flush=True)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)

    for how, code in (("exit", 0), ("kill", -9)):
        peer = run_peer(serve, str(place), how)
        assert peer.line() == "ready"
        peer.finish(code=code)
        assert place.is_socket()
        kind, words = failure(place)
        assert (kind, "nobody listens there" in words) == ("Disconnected", True)
        with serving(place):
            assert double(place) == 8
        assert not place.exists()


def test_a_forked_child_neither_holds_the_listener_nor_removes_the_file(place, fork):
    """It may outlive its parent's service, and nobody waits at a socket that nobody accepts."""
    with serving(place) as entrypoint:
        started, begun = os.pipe()
        wait, go = os.pipe()

        def live_on():
            os.close(go)
            closed = entrypoint.closed
            entrypoint.close()
            os.write(begun, b".")
            os.read(wait, 1)
            return closed, place.exists()

        child = fork(live_on)
        assert os.read(started, 1) == b"."
        assert double(place) == 8
        with connected(place) as connection:
            assert connection.recv(100)
    # The only ones that listened are of this process.
    assert failure(place)[0] == "Disconnected"
    leave_stale(place)
    with serving(place):
        assert double(place) == 8
        os.close(go)
        assert child.result() == (True, True)
        assert double(place) == 8
    for number in (started, begun, wait):
        os.close(number)


def test_a_fork_in_for_client_leaves_the_answer_to_the_parent(place, fork):
    """As in a method: the child ends, and the client is served by the parent."""
    with cm.Entrypoint("service") as entrypoint:
        capability = entrypoint.manage(by_hand.Worker())
        pids = []

        def choose(_caller):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            pids.append(pid)
            return capability

        entrypoint.listen(place, for_client=choose)

        def client():
            return double(place)

        assert fork(client).result() == 8
        os.waitpid(pids[0], 0)
        capability.close()


@matrix.loop_is_kept
def test_what_runs_when_the_entrypoint_is_left_is_named(place, caplog, open_descriptors):
    """for_client, where that does not return: clients find the service gone within the bound."""
    before = open_descriptors()
    started, go = threading.Event(), threading.Event()

    def choose(_caller):
        started.set()
        go.wait(PATIENCE)

    with cm.Entrypoint("service", close_timeout=0.1) as entrypoint:
        entrypoint.listen(place, for_client=choose)
        waiting = by_hand.Concurrent(failure, place)
        assert started.wait(PATIENCE)
        queued = connected(place)
    assert "for_client" in caplog.records[-1].getMessage()
    assert not place.exists()
    # Who was not asked about yet sees the end at once; the other when the call of the application's ends.
    assert by_hand.ended(queued)
    queued.close()
    go.set()
    assert waiting.outcome()[0] in ("Refused", "Disconnected")
    del entrypoint
    # The client is answered before the thread that was left behind has ended.
    until(lambda: open_descriptors() <= before)
    caplog.clear()


def test_many_threads_listen_and_close(place):
    """Whoever listens as the entrypoint is closed has no file left, and no socket."""
    for round_ in range(20):
        entrypoint = cm.Entrypoint("service")
        entrypoint.__enter__()
        gate = _thread.allocate_lock()
        gate.acquire()

        def listen(number, entrypoint=entrypoint, gate=gate):
            with gate:
                pass
            with contextlib.suppress(cm.Closed):
                entrypoint.listen(f"{place}{number}", by_hand.Worker())

        threads = [by_hand.Concurrent(listen, number) for number in range(4)]
        gate.release()
        entrypoint.close()
        for thread in threads:
            thread.outcome()
        assert not [path for path in place.parent.iterdir() if path.is_socket()], round_
