"""What an attacker does around STARTTLS: octets in clear that would count as secured, and handshakes without end."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Sequence

import pytest

from inbound.settings import Tls
from tests.receive.talk import FakeDoor, Served, run, served, talking, until

READY = "220 2.0.0 begin TLS"
ENVELOPE = b"MAIL FROM:<evil@b.test>\r\nRCPT TO:<c@d.test>\r\n"
INJECTED = {
    "a transaction": b"EHLO evil.test\r\n" + ENVELOPE,
    "the end of a message": b"EHLO evil.test\r\n" + ENVELOPE + b"DATA\r\nSubject: x\r\n\r\n.\r\n",
    "the beginning of a message": b"EHLO evil.test\r\n" + ENVELOPE + b"DATA\r\nSubject: x\r\n",
    "a chunk": b"EHLO evil.test\r\n" + ENVELOPE + b"BDAT 4 LAST\r\nx\r\n\r\n",
    "a chunk to be filled": b"EHLO evil.test\r\n" + ENVELOPE + b"BDAT 4000 LAST\r\n",
    "STARTTLS again": b"STARTTLS\r\n",
    "half a command": b"MAIL FRO",
    "QUIT": b"QUIT\r\n",
}

UNDER_TLS = ["RCPT TO:<b@ours.test>", "EHLO x", "BDAT 0 LAST", "DATA", "MAIL FROM:<good@b.test>", "QUIT"]


@pytest.mark.parametrize("before", [b"", b"EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 3\r\na\r\n"],
                         ids=["first", "within a message"])  # fmt: skip
@pytest.mark.parametrize("injected", INJECTED.values(), ids=INJECTED)
def test_nothing_that_came_in_clear_counts_under_tls(
    injected: bytes, before: bytes, tls: Tls, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    door = FakeDoor()

    async def play() -> list[str]:
        async with served(door, tls=tls) as server, talking(server) as talk:
            await talk.line()
            talk.send(before + b"STARTTLS\r\n" + injected)
            while (line := await talk.line()) != READY:
                assert line[:3] == "250"
            await talk.start_tls(trusting)
            return [await talk.say(command) for command in UNDER_TLS]

    with caplog.at_level(logging.ERROR):
        heard = run(play())
    assert heard == [
        "503 5.5.1 say EHLO first",
        "250 LIMITS MAILMAX=100 RCPTMAX=100",
        "503 5.5.1 MAIL FROM first",
        "503 5.5.1 MAIL FROM first",
        "250 2.1.0 OK",
        "221 2.0.0 bye",
    ]
    assert [one.mail_from for one in door.opened] == ["a@b.test"] * bool(before) + ["good@b.test"]
    assert door.messages == []
    assert caplog.records == []


def test_more_in_clear_than_is_dropped_at_once_is_no_handshake(tls: Tls) -> None:
    async def play() -> bytes:
        async with served(FakeDoor(), tls=tls) as server, talking(server) as talk:
            talk.send(b"STARTTLS\r\n" + b"NOOP\r\n" * 60_000)
            heard = b""
            async with asyncio.timeout(8):
                with contextlib.suppress(ConnectionResetError):
                    while octets := await talk.reader.read(1000):
                        heard += octets
            await until(lambda: server.edge.connections == 0)
            return heard

    heard = run(play())
    assert heard.startswith(b"220 mx.test ESMTP\r\n220 2.0.0 begin TLS\r\n")
    assert b"250" not in heard


def test_a_handshake_in_the_segment_of_the_command_is_dropped_with_it(tls: Tls, trusting: ssl.SSLContext) -> None:
    """RFC 3207 4: the client waits for the 220. Who does not has no TLS, and no session in clear either."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        trusting.wrap_bio(incoming, outgoing, server_hostname="mx.test").do_handshake()
    flight = outgoing.read()

    async def play() -> tuple[str, bytes]:
        async with served(FakeDoor(), tls=tls) as server, talking(server) as talk:
            await talk.line()
            talk.send(b"STARTTLS\r\n" + flight)
            ready = await talk.line()
            talk.send(b"NOOP\r\n")
            return ready, await asyncio.wait_for(talk.reader.read(), 8)

    ready, then = run(play())
    assert ready == READY
    assert b"250" not in then


async def _openssl(server: Served, *options: str, steps: Sequence[tuple[bytes, bytes]]) -> bytes:
    """What `openssl s_client` shows of a session: each step is what it is given, and what it is to show then."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"{server.host}:{server.port}", "-starttls", "smtp", *options,
        stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    shown = b""
    try:
        async with asyncio.timeout(10):
            for line, answer in ((b"", b"250 STARTTLS"), *steps):
                process.stdin.write(line)
                shown += await process.stdout.readuntil(answer)
    finally:
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
    return shown


def test_a_client_cannot_have_the_handshake_anew(tls: Tls) -> None:
    async def play() -> str:
        async with served(FakeDoor(), tls=tls) as server:
            await _openssl(server, "-tls1_2", steps=[(b"R\n", b"RENEGOTIATING"), (b"", b"no renegotiation")])
            await until(lambda: server.edge.connections == 0)
            async with talking(server) as talk:
                return await talk.line()

    assert run(play()) == "220 mx.test ESMTP"


def test_new_keys_are_had_within_tls_1_3(tls: Tls) -> None:
    async def play() -> None:
        async with served(FakeDoor(), tls=tls) as server:
            steps = [(b"K\n", b"KEYUPDATE"), (b"NOOP\n", b"250 2.0.0 OK"), (b"quit\n", b"221 2.0.0 bye")]
            await _openssl(server, "-tls1_3", "-crlf", steps=steps)
            await until(lambda: server.edge.connections == 0)

    run(play())
