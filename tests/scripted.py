"""An HTTP service that does what it is told, answer by answer, also what no service should: on the loop of the test."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum, auto


class Act(Enum):
    """What is done instead of an answer."""

    CLOSE_AT_ONCE = auto()  # the request is not read beyond its first octets
    CLOSE_BEHIND = auto()  # it is read whole, then nothing
    RESET = auto()
    SILENT = auto()


@dataclass(frozen=True)
class Last:
    """An answer behind which the connection ends."""

    octets: bytes


@dataclass(frozen=True)
class Early:
    """An answer that is sent before the content is read; the connection ends."""

    octets: bytes


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request."""

    line: str
    fields: dict[str, str]
    content: bytes
    connection: int


@dataclass
class Script:
    """Where it is, what comes next and what has come."""

    acts: list[bytes | Act | Last | Early]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    usual: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        # In Python 3.11 a cancelled task of a stream server is an error of its own.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._one(reader, writer, number):
                pass
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()
        writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.rstrip().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
        act = self.acts.pop(0) if self.acts else self.usual
        if act in (Act.CLOSE_AT_ONCE, Act.RESET) or isinstance(act, Early):
            self.asked.append(Asked(line=line, fields=fields, content=b"", connection=number))
            if isinstance(act, Early):
                writer.write(act.octets)
                await writer.drain()
                await asyncio.sleep(0.05)
            elif act is Act.RESET:
                writer.transport.abort()
            return False
        if "expect" in fields:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        content = await reader.readexactly(int(fields.get("content-length", 0)))
        self.asked.append(Asked(line=line, fields=fields, content=content, connection=number))
        if isinstance(act, bytes):
            writer.write(act)
            await writer.drain()
            return True
        if act is Act.SILENT:
            await asyncio.sleep(30)
        if isinstance(act, Last):
            writer.write(act.octets)
            await writer.drain()
        return False


def answer(status: int, content: str = "", **fields: str) -> bytes:
    """An answer; fields with `_` for `-`."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(content)}\r\n\r\n{content}".encode()


@contextlib.asynccontextmanager
async def scripted(*acts: bytes | Act | Last | Early, tls: ssl.SSLContext | None = None) -> AsyncIterator[Script]:
    """A service; behind the last act everything is answered 200."""
    script = Script(list(acts))
    talking: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        talking.add(task)
        await script.talk(reader, writer)
        talking.remove(task)

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    script.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{port}"
    try:
        yield script
    finally:
        server.close()
        if talking:
            await asyncio.wait(talking, timeout=0.05)
        for task in talking:
            task.cancel()
        if talking:
            await asyncio.wait(talking)
        await asyncio.sleep(0.005)
        await server.wait_closed()
