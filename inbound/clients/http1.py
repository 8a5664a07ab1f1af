"""HTTP/1.1 with connections that are kept: one request after the other on each, the answer whole in memory. No redirects.

1. A connection has one request at a time. It is used again when the answer was read to its end and nobody said `close`; what
   was cut off, late, cancelled or not understood ends it.
2. Deadlines are of progress: `connect` for each address of the name, `read` while nothing goes out and nothing comes in.
3. An answer that comes before the request was sent whole counts; the rest is not sent.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from inbound.clients import Piece
from inbound.clients.http_answers import Answer, NotUnderstood, Reader
from inbound.offload import offload

KEEP_SECONDS = 20.0  # that a connection lies idle; services end it after 20 to 60 s
JOINED = 64 * 1024  # octets of content that go out with the head in one piece


class CutOff(OSError):
    """The connection ended before the answer did. `untouched`: it was a kept one, and nothing at all came back."""

    def __init__(self, text: str, *, untouched: bool = False) -> None:
        super().__init__(text)
        self.untouched = untouched


class NotReached(OSError):
    """No address of the name took the connection."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection goes."""

    tls: bool
    host: str
    port: int


def origin_of(url: str) -> Origin:
    """The origin of an http or https URL. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError(f"{url!r} is no place to send a request to")
    tls = parts.scheme == "https"
    return Origin(tls, parts.hostname, parts.port or (443 if tls else 80))


class Connections:
    """The connections of one event loop, at most `most` to each origin."""

    def __init__(self, trust: Callable[[], ssl.SSLContext], *, connect: float, read: float, most: int) -> None:
        self._trust, self._connect_seconds, self._read_seconds, self._most = trust, connect, read, most
        self._idle: dict[Origin, deque[tuple[_Connection, float]]] = {}
        self._free: dict[Origin, asyncio.Semaphore] = {}
        self.opened = self.requests = 0

    async def request(self, origin: Origin, head: bytes, content: Piece = b"") -> Answer:
        """Send a request and read its answer. `head` is everything up to the empty line, with `Content-Length`.

        Raises NotReached, CutOff, NotUnderstood, TimeoutError or ssl.SSLError.
        """
        free = self._free.get(origin)
        if free is None:
            free = self._free[origin] = asyncio.Semaphore(self._most)
        async with free:
            connection = self._kept(origin) or await self._open(origin)
            self.requests += 1
            answer = None
            try:
                answer = await connection.exchange(head, content, self._read_seconds)
            finally:
                if answer is not None and connection.may_be_kept:
                    self._idle.setdefault(origin, deque()).append((connection, asyncio.get_running_loop().time()))
                else:
                    connection.abort()
            return answer

    async def close(self) -> None:
        """End all that lie idle."""
        ended = [connection for kept in self._idle.values() for connection, _ in kept]
        for connection in ended:
            connection.abort()
        self._idle.clear()
        if ended:
            await asyncio.wait([connection.ended for connection in ended])

    def _kept(self, origin: Origin) -> "_Connection | None":
        kept = self._idle.get(origin)
        if not kept:
            return None
        oldest = asyncio.get_running_loop().time() - KEEP_SECONDS
        while kept and (kept[0][1] < oldest or not kept[0][0].may_be_kept):
            kept.popleft()[0].abort()
        while kept:
            connection, _ = kept.pop()
            if connection.may_be_kept:
                return connection
        return None

    async def _open(self, origin: Origin) -> "_Connection":
        loop = asyncio.get_running_loop()
        tls: Any = {"ssl": await offload(self._trust), "server_hostname": origin.host} if origin.tls else {}
        refused: OSError = OSError("the name has no address")
        try:
            async with asyncio.timeout(self._connect_seconds):
                found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, TimeoutError) as error:
            raise NotReached(f"{origin.host}: {error}") from error
        for address, port in dict.fromkeys((str(entry[4][0]), int(entry[4][1])) for entry in found):
            try:
                async with asyncio.timeout(self._connect_seconds):
                    _, connection = await loop.create_connection(_Connection, address, port, **tls)
            except ssl.SSLError:
                raise
            except OSError as error:  # TimeoutError is one
                refused = error
            else:
                self.opened += 1
                return connection
        if isinstance(refused, TimeoutError):
            raise TimeoutError(f"{origin.host}:{origin.port} takes no connection in time")
        raise NotReached(f"{origin.host}:{origin.port}: {refused}")


class _Connection(asyncio.Protocol):
    """One connection and the answer that is being read from it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None
        self._reader = Reader()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._used = self._closing = False

    @property
    def may_be_kept(self) -> bool:
        return not (self.ended.done() or self._closing or self._buffer or self._waiter)

    def abort(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, head: bytes, content: Piece, seconds: float) -> Answer:
        transport = self._transport
        if transport is None or self.ended.done():
            raise CutOff("the connection has ended", untouched=True)
        self._reader = Reader()
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        self._waiter = waiter
        if len(content) <= JOINED:
            transport.write(head + content)
        else:
            transport.write(head)
            transport.write(content)
        timer = self._loop.call_later(seconds, self._look, seconds, transport.get_write_buffer_size())
        self._timer = timer
        try:
            answer = await waiter
        finally:
            self._timer.cancel()
            self._waiter = None
            self._used = True
        if transport.get_write_buffer_size() or not self._reader.may_be_kept:
            self._closing = True
        return answer

    def _look(self, seconds: float, left: int) -> None:
        """Time is over unless more has gone out meanwhile, or something has come in."""
        transport, waiter = self._transport, self._waiter
        if transport is None or waiter is None or waiter.done():
            return
        now_length = transport.get_write_buffer_size()
        if now_length < left or self._reader.heard:
            self._reader.heard = False
            self._timer = self._loop.call_later(seconds, self._look, seconds, now_length)
        else:
            waiter.set_exception(TimeoutError(f"no answer within {seconds:g} s"))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.abort()  # nobody asked
            return
        try:
            answer = self._reader.read(self._buffer)
        except NotUnderstood as error:
            waiter.set_exception(error)
            return
        if answer is not None:
            waiter.set_result(answer)

    def eof_received(self) -> bool:
        self._closing = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            answer = self._reader.end(self._buffer)
            if answer is not None:
                waiter.set_result(answer)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            untouched = self._used and not self._reader.touched and not self._buffer
            waiter.set_exception(
                CutOff(f"the connection ended before the answer: {exc or 'closed'}", untouched=untouched)
            )
