"""The example of a web server whose workers hold nothing: what is lost when they are killed, and when it is stopped."""

import contextlib
import http.client
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from patience import PATIENCE, until
from web_site import BIG, PAGES, START, Load, Served, gate, get, of_tcp, refuses

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def serve(ordinary_python):
    """serve(workers, pages): a server that has said nothing but where it listens."""
    interpreter, options = ordinary_python
    with contextlib.ExitStack() as stack:

        def start(workers=1, pages=PAGES):
            # The checkout may be where only root may read.
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            Path(directory).chmod(0o755)
            for name in ("web_server.py", "web_worker.py"):
                shutil.copy(EXAMPLES / name, directory)
            Path(directory, "pages.py").write_text(pages)
            process = subprocess.Popen(
                [interpreter, "-W", "error", "-c", START, directory, str(workers), "0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                cwd="/",
                # By whoever runs the tests, root perhaps.
                env=options["env"],
                start_new_session=True,
            )
            stack.enter_context(process)
            served = Served(process)
            stack.callback(served.end)
            return served

        yield start


def test_no_request_is_lost_that_had_not_begun(serve):
    """Under load, while workers are killed: each that fails had been sent, and the parent knows that it was cut."""
    served, enough = serve(workers=2), threading.Event()
    clients = [Load(served, enough) for _ in range(3)]
    cut = 0
    alive = []

    def until_ready():
        nonlocal cut
        line = served.said.get(timeout=PATIENCE)
        while not (ready := re.fullmatch(r"worker (\d+) is ready", line)):
            cut += line.endswith("has cut an answer")
            line = served.said.get(timeout=PATIENCE)
        alive.append(int(ready[1]))

    try:
        until_ready()
        until_ready()
        for together in (1, 2):
            before = sum(client.answered for client in clients)
            until(lambda before=before: sum(client.answered for client in clients) > before + 50)
            for _ in range(together):
                os.kill(alive.pop(0), signal.SIGKILL)
            for _ in range(together):
                until_ready()
    finally:
        enough.set()
        for client in clients:
            client.join()
    assert [client.wrong for client in clients] == [None] * 3
    status, said = served.stop()
    cut += sum(line.endswith("has cut an answer") for line in said)
    assert (status, sum(client.cut for client in clients)) == (0, cut)


def test_what_a_worker_has_not_taken_is_answered_by_the_next(serve):
    """It stands still when it is asked, so nothing is begun: on new connections, and on one that was kept."""
    served = serve()
    worker = served.ready()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.client()) for _ in range(4)]
        assert get(clients[0], "/echo/first") == (200, b"first")
        before = served.descriptors()
        os.kill(worker, signal.SIGSTOP)
        until(lambda: Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        for client in clients:
            client.request("GET", "/")
        # Each has a connection and a channel.
        until(lambda: served.descriptors() >= before + 2 * (len(clients) - 1))
        os.kill(worker, signal.SIGKILL)
        assert served.next(r"worker (\d+) has ended: -9")[1] == str(worker)
        other = served.ready()
        for client in clients:
            assert client.getresponse().read() == f"hello from process {other} of user {uid_of(other)}\n".encode()
    assert served.stop() == (0, [])


def uid_of(pid):
    return Path(f"/proc/{pid}").stat().st_uid


def test_a_crash_ends_the_connection_of_its_request_and_is_made_good(serve):
    """Whether nothing of the answer had been sent, or some: the client can't take it for whole."""
    served = serve()
    worker = served.ready()
    with served.client() as client:
        with pytest.raises((OSError, http.client.HTTPException)):
            get(client, "/crash")
        client.close()
        assert {served.said.get(timeout=PATIENCE) for _ in range(2)} == {
            f"worker {worker} has cut an answer",
            f"worker {worker} has ended: -9",
        }
        worker = served.ready()
        client.request("GET", "/big")
        response = client.getresponse()
        assert len(response.read(1000)) == 1000
        os.kill(worker, signal.SIGKILL)
        with pytest.raises((OSError, http.client.HTTPException)):
            response.read()
        client.close()
        assert get(client, "/echo/again") == (200, b"again")


def test_no_client_has_a_whole_answer_while_that_may_still_be_cut(serve):
    """Or it would send its next request on a connection that is about to be ended: the parent sends the end."""
    served = serve()
    worker = served.ready()
    with served.client() as client, gate() as (path, stands, let):
        client.request("GET", path)
        stands()
        os.kill(served.process.pid, signal.SIGSTOP)
        let()
        # It has done its part, and let go of the connection.
        until(lambda: not of_tcp(worker, served.port))
        assert select.select([client.sock], [], [], 0)[0] == []
        os.kill(served.process.pid, signal.SIGCONT)
        assert client.getresponse().read() == b"through"


def test_a_stop_cuts_no_answer(serve):
    """One that is being made, and one of which the client has read a part; who is idle holds nothing up."""
    served = serve()
    worker = served.ready()
    with served.client() as slow, served.client() as large, served.client() as idle, gate() as (path, stands, let):
        assert get(idle, "/echo/once") == (200, b"once")
        slow.request("GET", path)
        stands()
        large.request("GET", "/big")
        response = large.getresponse()
        first = response.read(1000)
        served.process.send_signal(signal.SIGTERM)
        assert idle.sock.recv(1) == b""
        until(lambda: refuses(served))
        assert first + response.read() == bytes(BIG)
        let()
        assert slow.getresponse().read() == b"through"
        assert served.process.wait(PATIENCE) == 0
    assert served.rest() == []
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_what_was_sent_before_a_stop_is_answered(serve, number):
    """Though most connections were not even accepted."""
    served = serve()
    served.ready()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.client()) for _ in range(6)]
        assert get(clients[0], "/echo/once") == (200, b"once")
        os.kill(served.process.pid, signal.SIGSTOP)
        for client in clients:
            client.request("GET", "/echo/last")
        # All that a terminal's Ctrl-C would reach.
        os.killpg(served.process.pid, number)
        os.kill(served.process.pid, signal.SIGCONT)
        for client in clients:
            assert client.getresponse().read() == b"last"
    assert (served.process.wait(PATIENCE), served.rest()) == (0, [])


def test_a_request_that_waits_for_a_worker_is_answered_when_the_server_is_to_stop(serve):
    """And the answer says that it is the last."""
    with gate() as (path, stands, let):
        port = path.rpartition("/")[2]
        served = serve(pages=f"import socket\nsocket.create_connection(('127.0.0.1', {port})).recv(1)\n{PAGES}")
        with served.client() as client:
            client.request("GET", "/echo/last")
            stands()
            served.process.send_signal(signal.SIGTERM)
            until(lambda: refuses(served))
            let()
            response = client.getresponse()
            assert (response.getheader("Connection"), response.read()) == ("close", b"last")
    assert served.process.wait(PATIENCE) == 0


def test_a_worker_is_no_root_and_has_no_port(serve):
    """Nor is anything of the port's among its descriptors."""
    served = serve()
    worker = served.ready()
    with served.client() as client:
        said = re.fullmatch(rb"hello from process (\d+) of user (\d+)\n", get(client, "/")[1])
    assert int(said[1]) == worker
    assert (int(said[2]) == os.getuid()) == (os.getuid() != 0)
    with served.client() as client:
        assert get(client, "/echo/it")[0] == 200
        # Idle: the parent has it beside the one that listens, and the worker neither.
        assert len(of_tcp(served.process.pid, served.port)) == 2
        assert of_tcp(worker, served.port) == set()


def test_the_parent_keeps_no_descriptor_of_workers_and_clients_that_have_gone(serve):
    """Of each kind it has as many as when the first had gone, and not their sum alone."""
    served = serve()
    worker, first = served.ready(), None
    with served.client() as client, gate() as (path, stands, let):
        client.request("GET", path)
        stands()
        # The event loop's, the entrypoint's, and that of calls, which the first one makes that has to wait: where the
        # answer is there when it is looked for, none does.
        until(lambda: served.kinds()["anon_inode:[eventpoll]"] == 3)
        let()
        assert client.getresponse().read() == b"through"
    for _ in range(4):
        with served.client() as client, served.client() as other:
            for each in (client, other):
                assert get(each, "/echo/it")[0] == 200
        until(lambda: len(of_tcp(served.process.pid, served.port)) == 1)
        if first:
            with contextlib.suppress(AssertionError):
                until(lambda first=first: served.kinds() == first)
            assert served.kinds() == first
        first = first or served.kinds()
        os.kill(worker, signal.SIGKILL)
        served.next(rf"worker {worker} has ended: -9")
        worker = served.ready()


def test_the_workers_of_a_parent_that_is_killed_end(serve):
    served = serve(workers=2)
    workers = [os.pidfd_open(served.ready()) for _ in range(2)]
    served.process.kill()
    for worker in workers:
        assert select.select([worker], [], [], PATIENCE)[0]
        os.close(worker)


def test_workers_that_do_nothing_but_crash_are_started_again_until_the_server_is_told_to_stop(serve):
    served = serve(pages="import sys; sys.exit(3)")
    for _ in range(3):
        served.next(r"worker \d+ has ended: 3")
    assert served.stop()[0] == 0


def test_requests_are_answered_as_they_are(serve):
    """What it has no page for, can't read or does not do is said; several that came at once are answered in order."""
    served = serve()
    for sent, statuses in [
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"GET / HTTP/1.0\r\n\r\n", [200]),
        (b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", [200]),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", [501]),
        (b"GET /\r\n\r\n", [400]),
        (b"\xff / HTTP/1.1\r\n\r\n", [400]),
        (b"GET /echo/1 HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\n\r\nGET /echo/2 HTTP/1.1\r\n\r\n", [200, 404, 200]),
        (b"GET / HTTP/1.1\r\n", []),
        (b"x" * 20_000, []),
    ]:
        with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda client=client: client.recv(1 << 16), b""))
        assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answer)] == statuses, sent
