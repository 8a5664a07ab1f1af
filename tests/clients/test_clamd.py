"""clamd on real sockets: the daemon itself, and what happens when there is something else behind the address."""

import asyncio
import base64
import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from inbound.clients.clamd import (
    BROKEN_OFF,
    CHUNK,
    ENCRYPTED,
    NOT_UNDERSTOOD,
    OVER_LIMITS,
    SILENT,
    UNREACHABLE,
    Clamd,
    Scan,
)
from inbound.errors import TemporaryFailure
from tests.archives import encrypted_zip
from tests.servers import STREAM_LIMIT, RunningClamd, clamd

EICAR = base64.b64decode("WDVPIVAlQEFQWzRcUFpYNTQoUF4pN0NDKTd9JEVJQ0FSLVNUQU5EQVJELUFOVElWSVJVUy1URVNULUZJTEUhJEgrSCo=")
CLEAN = Scan(result="clean")
FOUND = Scan(result="infected", signature="Eicar-Test-Signature.UNOFFICIAL")
HEADER = b"From: a@sender.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def attached(*contents: bytes) -> bytes:
    parts = [
        b"--b\r\nContent-Type: application/octet-stream; name=f\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(content).replace(b"\n", b"\r\n")
        for content in contents
    ]
    return HEADER + b"".join(parts) + b"--b--\r\n"


def scan(
    address: str, octets: bytes, *, deadline: float = 20.0, loop: Callable[[], asyncio.AbstractEventLoop] = LOOPS[0]
) -> Scan:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(Clamd(address, deadline=deadline).scan(octets))


def failure(address: str, octets: bytes = EICAR, *, deadline: float = 20.0) -> str:
    with pytest.raises(TemporaryFailure) as caught:
        scan(address, octets, deadline=deadline)
    return caught.value.reason


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", CLEAN),
        (b"From: a@sender.example\r\n\r\nhello\r\n", CLEAN),
        (EICAR, FOUND),
        (attached(b"harmless", EICAR), FOUND),
        (b"DKIM-Signature: v=1\r\n" + attached(EICAR), FOUND),
        (attached(b"x" * (3 * CHUNK), EICAR), FOUND),
        (attached(encrypted_zip("a.txt", b"hello", b"secret")),
         Scan(result="opaque", signature="Heuristics.Encrypted.Zip", reason=ENCRYPTED)),
        (attached(encrypted_zip("a.txt", b"hello", b"secret"), EICAR), FOUND),
        (b"x" * (STREAM_LIMIT + 1), Scan(result="opaque", reason=OVER_LIMITS)),
        (b"x" * (4 * STREAM_LIMIT), Scan(result="opaque", reason=OVER_LIMITS)),
    ],
    ids=["empty", "plain", "eicar", "attached", "signed", "large", "encrypted", "encrypted-and-eicar", "one-over", "far-over"],
)  # fmt: skip
def test_clamd_answers(
    running_clamd: RunningClamd, kind: str, octets: bytes, expected: Scan, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    assert scan(getattr(running_clamd, kind), octets, loop=loop) == expected


def test_every_file_of_debians_test_files_is_found(running_clamd: RunningClamd) -> None:
    files = sorted(Path("/usr/share/clamav-testfiles").iterdir())
    assert len(files) > 40
    names = {file.name: scan(running_clamd.unix, file.read_bytes()).signature for file in files}
    assert set(names.values()) == {"ClamAV-Test-File.UNOFFICIAL"}


def test_scans_at_once_get_their_own_answers(running_clamd: RunningClamd) -> None:
    async def many() -> list[Scan]:
        scanner = Clamd(running_clamd.unix)
        return await asyncio.gather(*(scanner.scan(EICAR if at % 2 else b"clean %d" % at) for at in range(100)))

    assert asyncio.run(many()) == [CLEAN, FOUND] * 50


def test_what_is_over_the_engines_limits_was_not_looked_into() -> None:
    with short_directory() as directory, clamd(directory, "MaxFileSize 100K", "MaxScanSize 100K") as running:
        found = scan(running.unix, b"x" * 300_000)
    assert (found.result, found.reason) == ("opaque", OVER_LIMITS)
    assert found.signature.startswith("Heuristics.Limits.Exceeded")


def test_control_commands(running_clamd: RunningClamd) -> None:
    for address in (running_clamd.unix, running_clamd.tcp):
        daemon = Clamd(address)
        assert daemon.ping() == "PONG"
        assert daemon.version().startswith("ClamAV ")
        assert "POOLS:" in daemon.stats()


@pytest.mark.parametrize("address", ["unix:/nowhere/clamd.ctl", "tcp:127.0.0.1:1"])
def test_where_nobody_listens_the_failure_says_so(address: str) -> None:
    assert failure(address) == UNREACHABLE
    with pytest.raises(TemporaryFailure, match=UNREACHABLE):
        Clamd(address).ping()


@pytest.mark.parametrize(
    "address", ["", "/run/clamd.ctl", "unix:clamd.ctl", "tcp:3310", "tcp:host:", "tcp:host:99999", "udp:h:1"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"is not unix:/path or tcp:HOST:PORT"):
        Clamd(address)


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="clamd-") as directory:
        yield Path(directory)


@contextlib.contextmanager
def impostor(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """A unix socket behind which `answer` is called with each connection; gives its address."""
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = directory / "s"
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"unix:{path}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def saying(reply: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        received = b""
        while not received.endswith(b"\0\0\0\0"):
            received += connection.recv(65_536)
        connection.sendall(reply)

    return answer


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"", BROKEN_OFF),
        (b"stream: OK", BROKEN_OFF),  # the NUL is missing: it could go on
        (b"\0", NOT_UNDERSTOOD),
        (b"stream: OK\n\0", NOT_UNDERSTOOD),
        (b"stream: FOUND\0", NOT_UNDERSTOOD),
        (b"1: stream: OK\0", NOT_UNDERSTOOD),
        (b"220 mail.example.com ESMTP\r\n\0", NOT_UNDERSTOOD),
        (b"stream: Can't allocate memory ERROR\0", NOT_UNDERSTOOD),
        (b"COMMAND READ TIMED OUT\0", NOT_UNDERSTOOD),
        (b"stream: \xff\xfe FOUND\0", NOT_UNDERSTOOD),
        (b"x" * 100_000, NOT_UNDERSTOOD),
    ],
)
def test_a_reply_that_is_none_is_a_failure_and_never_clean(reply: bytes, reason: str) -> None:
    with impostor(saying(reply)) as address:
        assert failure(address) == reason


def test_an_engine_that_ran_out_of_time_could_not_look_inside() -> None:
    with impostor(saying(b"stream: CL_ETIMEOUT: Time limit reached ERROR\0")) as address:
        assert scan(address, b"x") == Scan(result="opaque", reason=OVER_LIMITS)


def test_a_reply_in_pieces_is_one_reply() -> None:
    def answer(connection: socket.socket) -> None:
        saying(b"str")(connection)
        for octet in b"eam: OK\0":
            time.sleep(0.001)
            connection.sendall(bytes([octet]))

    with impostor(answer) as address:
        assert scan(address, b"x") == CLEAN


def test_a_daemon_that_dies_while_we_send_is_a_failure() -> None:
    with impostor(lambda connection: connection.recv(10)) as address:
        assert failure(address, b"x" * 10_000_000) == BROKEN_OFF


def test_what_it_said_before_it_broke_off_is_read() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(10)
        connection.sendall(b"INSTREAM size limit exceeded. ERROR\0")

    with impostor(answer) as address:
        assert scan(address, b"x" * 10_000_000) == Scan(result="opaque", reason=OVER_LIMITS)


@pytest.mark.parametrize("octets", [b"x", b"x" * 10_000_000], ids=["waiting", "sending"])
def test_a_daemon_that_is_silent_is_given_up_at_the_deadline(octets: bytes) -> None:
    release = threading.Event()
    with impostor(lambda _: release.wait(10)) as address:
        assert failure(address, octets, deadline=0.2) == SILENT
        release.set()


def test_the_deadline_covers_a_connect_that_nobody_accepts() -> None:
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = str(directory / "s")
        listener.bind(path)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)  # the backlog is full now
            assert failure(f"unix:{path}", deadline=0.3) == SILENT


@pytest.mark.parametrize("loop", LOOPS)
def test_a_scan_that_is_cancelled_leaves_no_socket_open(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    closed = threading.Event()

    def answer(connection: socket.socket) -> None:
        while connection.recv(65_536):
            pass
        closed.set()

    async def cancelled(address: str) -> None:
        task = asyncio.create_task(Clamd(address).scan(b"x"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with impostor(answer) as address, asyncio.Runner(loop_factory=loop) as runner:
        runner.run(cancelled(address))
        assert closed.wait(5)
