"""A next hop for tests that says what it is told to say, on a real socket."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

Says = bytes | None | Callable[[asyncio.StreamWriter], Awaitable[None]]  # None: nothing, for ever; b"": it closes

OFFERS = (b"PIPELINING", b"SIZE 1000000", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES")


def ehlo(*offers: bytes, name: bytes = b"hop.example.net") -> bytes:
    """The answer to EHLO."""
    lines = (name, *offers)
    return b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"


USUAL: Mapping[str, Says] = {
    "greeting": b"220 hop.example.net ESMTP\r\n",
    "EHLO": ehlo(*OFFERS),
    "MAIL": b"250 2.1.0 ok\r\n",
    "RCPT": b"250 2.1.5 ok\r\n",
    "DATA": b"354 go on\r\n",
    ".": b"250 2.0.0 queued as 4711\r\n",
    "RSET": b"250 2.0.0 ok\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
    "STARTTLS": b"220 2.0.0 begin\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n",
}


@dataclass(slots=True, kw_only=True)
class Scripted:
    """A running one: its port, the commands of each session, and the messages as they came over the wire."""

    script: Mapping[str, Says]
    tls: ssl.SSLContext | None
    port: int = 0
    sessions: list[list[str]] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    _calls: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def commands(self) -> list[str]:
        """Of all sessions."""
        return [line for session in self.sessions for line in session]

    def called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin a session."""
        self._calls.append(asyncio.ensure_future(self._serve(reader, writer)))

    async def stop(self) -> None:
        """End all sessions."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session: list[str] = []
        self.sessions.append(session)
        try:
            going = await self._say("greeting", writer)
            while going and (line := await reader.readline()):
                session.append(line.decode("utf-8").rstrip("\r\n"))
                going = await self._obey(session[-1], reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client has had enough
        finally:
            writer.transport.abort()

    async def _obey(self, command: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        verb, _, rest = command.partition(" ")
        own = f"{verb} {rest.partition('<')[2].partition('>')[0]}"
        going = await self._say(own if own in self.script else verb, writer)
        as_usual = self.script.get(verb) == USUAL.get(verb)
        if verb == "DATA" and going and as_usual:
            self.messages.append(await reader.readuntil(b"\r\n.\r\n"))
            return await self._say(".", writer)
        if verb == "STARTTLS" and going and as_usual and self.tls:
            await writer.start_tls(self.tls)
        return going and verb != "QUIT"

    async def _say(self, verb: str, writer: asyncio.StreamWriter) -> bool:
        told = self.script.get(verb, b"502 5.5.1 what?\r\n")
        if told is None:
            await asyncio.sleep(3600)
        elif callable(told):
            await told(writer)
        elif told:
            writer.write(told)
            await writer.drain()
        return told != b""


@contextlib.asynccontextmanager
async def next_hop(
    says: Mapping[str, Says] | None = None, *, tls: ssl.SSLContext | None = None, implicit: bool = False
) -> AsyncIterator[Scripted]:
    """Listen on 127.0.0.1. `says` gives answers by verb, by `RCPT ADDRESS`, by `greeting`, and by `.` for the end of data."""
    hop = Scripted(script=dict(USUAL) | dict(says or {}), tls=tls)
    server = await asyncio.start_server(
        hop.called, "127.0.0.1", 0, ssl=tls if implicit else None, limit=64 * 1024 * 1024
    )
    hop.port = server.sockets[0].getsockname()[1]
    try:
        yield hop
    finally:
        server.close()
        await hop.stop()
        await server.wait_closed()
