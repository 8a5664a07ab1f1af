"""The connection of an SMTP client on aiosmtplib, whose replies are read once, in whatever pieces they come.

aiosmtplib reads a reply from its beginning with each piece that ends in a line, so 32 KiB that come line by line would cost
seconds. Here a line that was read is not read again, and the reply is taken apart when its last line is there.
"""

import asyncio
import re
from typing import Any

import aiosmtplib
from aiosmtplib.protocol import SMTPProtocol

_INVALID = -1  # aiosmtplib's code of what is no reply
_CODE = re.compile(rb"[0-9]{3}")


class Replies(SMTPProtocol):
    """What the next hop says."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._next_line = 0  # where it begins in the buffer

    def _read_response_from_buffer(self) -> aiosmtplib.SMTPResponse | None:
        """The reply, once its last line is there: the one without a hyphen behind its code (RFC 5321 4.2.1)."""
        while (end := self._buffer.find(b"\n", self._next_line)) >= 0:
            line = self._buffer[self._next_line : end]
            if not _CODE.match(line):
                text = line.decode("utf-8", "ignore")
                raise aiosmtplib.SMTPResponseException(_INVALID, f"Malformed SMTP response line: {text}")
            self._next_line = end + 1
            if line[3:4] != b"-":
                self._next_line = 0
                return super()._read_response_from_buffer()
        return None

    @property
    def has_more(self) -> bool:
        """Something is left behind the reply that was read."""
        return bool(self._buffer)

    async def drain(self) -> None:
        """Wait until the next hop keeps up, as asyncio's own StreamWriter does. Raises OSError."""
        await self._drain_helper()


class Wire(aiosmtplib.SMTP):
    """A client over a socket that is connected already (`sock`)."""

    protocol: Replies | None

    async def _create_connection(self, timeout: float | None) -> aiosmtplib.SMTPResponse:  # noqa: ASYNC109 - its name there
        """The greeting. Raises SMTPException or OSError."""
        loop = asyncio.get_running_loop()
        replies = Replies(loop=loop, connection_lost_callback=self._on_connection_lost)
        try:
            async with asyncio.timeout(timeout):
                self.transport, self.protocol = await loop.create_connection(
                    lambda: replies,
                    sock=self.sock,
                    ssl=self.tls_context if self.use_tls else None,
                    server_hostname=self.hostname if self.use_tls else None,
                    ssl_handshake_timeout=timeout if self.use_tls else None,
                )
        except TimeoutError as error:
            raise aiosmtplib.SMTPConnectTimeoutError("Timed out at the handshake") from error
        greeting = await replies.read_response(timeout=timeout)
        if greeting.code != aiosmtplib.SMTPStatus.ready:
            raise aiosmtplib.SMTPConnectResponseError(greeting.code, greeting.message)
        return greeting
