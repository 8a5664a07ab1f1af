"""A reply is read once, in whatever pieces it comes."""

import asyncio
from collections.abc import Iterable

import aiosmtplib
import pytest
from aiosmtplib.protocol import SMTPProtocol

from inbound.clients.smtp_wire import Replies

LINES = 5000


class Searched(bytearray):
    """A buffer that counts the lines that are looked for in it, and the octets that this looks at."""

    lines = 0
    octets = 0

    def find(self, wanted: bytes, start: int = 0) -> int:  # type: ignore[override]
        found = super().find(wanted, start)
        self.lines += 1
        self.octets += (len(self) if found < 0 else found) - start
        return found


def heard(pieces: Iterable[bytes], protocol: type[SMTPProtocol] = Replies) -> tuple[aiosmtplib.SMTPResponse, Searched]:
    """The reply that these pieces make, and the buffer that it was found in."""

    async def story() -> tuple[aiosmtplib.SMTPResponse, Searched]:
        replies = protocol(loop=asyncio.get_running_loop())
        buffer = replies._buffer = Searched()
        replies.connection_made(asyncio.Transport())
        for piece in pieces:
            replies.data_received(piece)
        return await replies.read_response(timeout=0.1), buffer

    return asyncio.run(story())


def test_thousands_of_short_lines_are_read_in_linear_time() -> None:
    pieces = [b"250-\r\n"] * LINES + [b"250 ok\r\n"]
    reply, buffer = heard(pieces)
    assert (reply.code, reply.message.strip()) == (250, "ok")
    assert buffer.lines <= 3 * (LINES + 1)
    assert buffer.octets <= 2 * sum(map(len, pieces))


def test_the_count_would_show_that_a_line_is_read_again_and_again() -> None:
    _, buffer = heard([b"250-\r\n"] * 100 + [b"250 ok\r\n"], SMTPProtocol)
    assert buffer.lines > 100 * 100 / 2


@pytest.mark.parametrize(
    "text",
    [
        b"250 ok\r\n",
        b"250-first\r\n250-second\r\n250 third\r\n",
        b"250\r\n",
        b"250-a\n250 b\n",
        b"250-a\r\n550 b\r\n",
    ],
)
def test_whatever_the_pieces_a_reply_is_what_aiosmtplib_reads_in_one(text: bytes) -> None:
    expected, _ = heard([text], SMTPProtocol)
    for at in range(1, len(text)):
        assert heard([text[:at], text[at:]])[0] == expected
    assert heard([text[at : at + 1] for at in range(len(text))])[0] == expected


@pytest.mark.parametrize(
    "text", [b"garbage\r\n", b"\r\n", b"25\r\n", b"25\n", b" 25-x\r\n", b"+25 x\r\n", b"2_5 x\r\n", b"220-a\r\nb-c\r\n"]
)
def test_what_does_not_begin_with_a_code_is_no_reply(text: bytes) -> None:
    with pytest.raises(aiosmtplib.SMTPResponseException):
        heard([text])


def test_a_reply_without_an_end_is_given_up_at_32_kib() -> None:
    with pytest.raises(aiosmtplib.SMTPResponseException, match="too long"):
        heard([b"250-\r\n"] * 10_000)
