"""A session broken off at every octet of it, in clear and under TLS: nothing stays open and nothing is promised."""

import asyncio
import logging
import os
import socket
import ssl

import pytest

from inbound.settings import Limits, Tls
from tests.receive.talk import FakeDoor, Served, Talk, run, served, talking, until

SESSION = (
    b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nA: b\r\n\r\nx\r\n.\r\n"
    b"MAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\nBDAT 4\r\n\r\ny\rBDAT 1 LAST\r\n\nQUIT\r\n"
)
FIRST = SESSION.index(b"\r\n.\r\n") + 5  # octets until the first message is whole
LIMITS = Limits(
    tarpit_seconds=0.0, connections=5000, connections_per_ip=5000, command_seconds=5.0, data_idle_seconds=5.0
)


def files() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def reset(writer: asyncio.StreamWriter) -> None:
    """Go with a RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def _break_off(server: Served, upto: int, how: str) -> bytes:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    if how == "reset when it is answered":
        await reader.readline()
    writer.write(SESSION[:upto])
    await writer.drain()
    if how == "half-close":
        writer.write_eof()
        heard = await asyncio.wait_for(reader.read(), 8)
        writer.close()
        return heard
    reset(writer)
    return b""


@pytest.mark.parametrize("how", ["reset", "reset when it is answered", "half-close"])
def test_a_session_can_be_broken_off_at_every_octet(how: str, caplog: pytest.LogCaptureFixture) -> None:
    door = FakeDoor()

    async def play() -> list[bytes]:
        async with served(door, limits=LIMITS) as server:
            async with talking(server) as first:  # whatever is opened once is open
                await first.begin()
            await until(lambda: server.edge.connections == 0)
            before = files()
            heard = [await _break_off(server, upto, how) for upto in range(len(SESSION) + 1)]
            await until(lambda: server.edge.connections == 0)
            await until(lambda: files() <= before)
            assert server.edge.bytes_in_flight == 0
            async with talking(server) as talk:
                await talk.begin()
            return heard

    with caplog.at_level(logging.ERROR):
        heard = run(play())
    assert caplog.records == []
    whole = [message.raw for message in door.messages]
    assert set(whole) <= {b"A: b\r\n\r\nx\r\n", b"\r\ny\r\n"}
    if how == "half-close":  # every command that was whole is answered, and every message that was whole is taken
        assert [said.count(b"taken") for said in heard] == [
            (upto >= FIRST) + (upto >= len(SESSION) - len(b"QUIT\r\n")) for upto in range(len(SESSION) + 1)
        ]


def _hello(context: ssl.SSLContext) -> bytes:
    """The octets of a client's first flight."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="mx.test").do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("tls_first", [False, True], ids=["STARTTLS", "from the first octet"])
def test_a_handshake_can_be_broken_off_at_every_octet(
    tls_first: bool, tls: Tls, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    flight = _hello(trusting)

    async def play() -> None:
        async with served(FakeDoor(), limits=LIMITS, tls=tls, tls_first=tls_first) as server:
            before = files() + 1
            for upto in range(0, len(flight) + 1, 3):
                reader, writer = await asyncio.open_connection(server.host, server.port)
                if not tls_first:
                    writer.write(b"STARTTLS\r\n")
                    await reader.readuntil(b"begin TLS\r\n")
                writer.write(flight[:upto])
                await writer.drain()
                await asyncio.sleep(0)
                reset(writer)
            await until(lambda: server.edge.connections == 0)
            await until(lambda: files() <= before)

    with caplog.at_level(logging.ERROR):
        run(play())
    assert caplog.records == []


@pytest.mark.parametrize("how", ["reset", "half-close"])
def test_a_session_under_tls_can_be_broken_off_at_every_command(
    how: str, tls: Tls, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    door = FakeDoor()
    steps = [at + 1 for at, octet in enumerate(SESSION) if octet == 10]

    async def play() -> None:
        async with served(door, limits=LIMITS, tls=tls) as server:
            before = files() + 1
            for upto in steps:
                for more in (0, -2, 2):  # behind a line, within its CRLF, within the next
                    talk = await Talk.to(server)
                    await talk.reply()
                    await talk.say("STARTTLS")
                    await talk.start_tls(trusting)
                    talk.send(SESSION[: upto + more])
                    await talk.writer.drain()
                    if how == "reset":
                        reset(talk.writer)
                    else:  # TLS has no half: close_notify ends both directions
                        await talk.close()
            await until(lambda: server.edge.connections == 0)
            await until(lambda: files() <= before)
            assert server.edge.bytes_in_flight == 0

    with caplog.at_level(logging.ERROR):
        run(play())
    assert caplog.records == []
    assert {message.raw for message in door.messages} <= {b"A: b\r\n\r\nx\r\n", b"\r\ny\r\n"}


def test_a_handshake_that_stalls_is_given_up(tls: Tls, trusting: ssl.SSLContext) -> None:
    flight = _hello(trusting)

    async def play() -> list[bytes]:
        limits = Limits(handshake_seconds=0.3)
        async with served(FakeDoor(), limits=limits, tls=tls) as server:
            heard = []
            for upto in (0, 1, 5, len(flight) // 2, len(flight)):
                async with talking(server) as talk:
                    await talk.reply()
                    await talk.say("STARTTLS")
                    talk.send(flight[:upto])
                    async with asyncio.timeout(8):
                        heard.append((await talk.reader.read())[:1])
                    await until(lambda: server.edge.connections == 0)
            return heard

    *stalled, answered = run(play())
    assert set(stalled) == {b""}
    assert answered == b"\x16"  # a ServerHello, and then the client says nothing more
