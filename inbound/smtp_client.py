"""A small SMTP client that brings samples and tests to a receiver, as any client address it likes by PROXY protocol."""

import asyncio
import contextlib
import re
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Self

SECONDS = 60.0  # for one reply


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply of a server: its code and its lines without codes."""

    code: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.code} {' / '.join(self.lines)}"


class SmtpClient:
    """One session, ended with QUIT when all went well.

    `client_ip` is claimed with a PROXY v1 header; then the address must be a listener that takes one.
    """

    def __init__(self, host: str, port: int, *, client_ip: str | None = None) -> None:
        self._host = host
        self._port = port
        self._client_ip = client_ip
        self.greeting = Answer(0, ())

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        if self._client_ip:
            self._writer.write(proxy_v1(self._client_ip).encode("ascii"))
        self.greeting = await self.answer()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            if error is None:
                await self.command("QUIT")
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def answer(self) -> Answer:
        """Read one reply. Code 0 when the server has closed the connection."""
        lines: list[str] = []
        async with asyncio.timeout(SECONDS):
            while True:
                line = (await self._reader.readline()).decode("utf-8", "replace").rstrip("\r\n")
                if not re.match(r"[2-5]\d\d[ -]", line):
                    return Answer(0, (*lines, line))
                lines.append(line[4:])
                if line[3] == " ":
                    return Answer(int(line[:3]), tuple(lines))

    async def command(self, line: str) -> Answer:
        """Send one command line and read its reply."""
        self._writer.write(line.encode("utf-8") + b"\r\n")
        await self._writer.drain()
        return await self.answer()

    async def starttls(self, context: ssl.SSLContext, name: str) -> None:
        """Go on in TLS."""
        answer = await self.command("STARTTLS")
        if answer.code != 220:  # noqa: PLR2004
            raise ConnectionError(f"no TLS: {answer}")
        await self._writer.start_tls(context, server_hostname=name)

    async def send(self, raw: bytes, *, helo: str, mail_from: str, rcpt_to: tuple[str, ...]) -> dict[str, Answer]:
        """One transaction. Replies by recipient where RCPT was refused, by "" for the message or what came before it."""
        refused: dict[str, Answer] = {}
        hello = await self.command(f"EHLO {helo}")
        utf8 = "" if all(address.isascii() for address in (mail_from, *rcpt_to)) else " SMTPUTF8"
        opened = await self.command(f"MAIL FROM:<{mail_from}>{utf8}")
        for answer in (hello, opened):
            if answer.code != 250:  # noqa: PLR2004
                return {"": answer}
        for recipient in rcpt_to:
            answer = await self.command(f"RCPT TO:<{recipient}>")
            if answer.code != 250:  # noqa: PLR2004
                refused[recipient] = answer
        if len(refused) == len(rcpt_to):
            return refused
        ready = await self.command("DATA")
        if ready.code != 354:  # noqa: PLR2004
            return {"": ready, **refused}
        stuffed = re.sub(rb"(?m)^\.", b"..", raw)
        self._writer.write(stuffed + (b"" if stuffed.endswith(b"\r\n") else b"\r\n") + b".\r\n")
        await self._writer.drain()
        return {"": await self.answer(), **refused}


def proxy_v1(client_ip: str) -> str:
    """A PROXY protocol v1 line that says the connection comes from this address."""
    ip = ip_address(client_ip)
    there = "127.0.0.1" if ip.version == 4 else "::1"  # noqa: PLR2004
    return f"PROXY TCP{ip.version} {ip} {there} 40000 25\r\n"
