"""A connection in memory: the session's real protocol object on a transport that is two lists."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inbound.receive.edge import Edge
from inbound.receive.session import Session
from inbound.settings import Limits
from tests.receive.talk import HOSTNAME, FakeDoor


class MemoryTransport(asyncio.Transport):
    """What the session has sent, and whether it has closed its side. Nothing it is fed comes before its next turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": ("192.0.2.7", 4711)})
        self.sent = bytearray()
        self.ended = False
        self.paused = False
        self._loop = loop
        self._protocol: asyncio.BaseProtocol | None = None
        self._closing = False

    def attach(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended, "written behind the end"
        self.sent += data

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            assert self._protocol is not None
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol


@dataclass(kw_only=True)
class Heard:
    """What came of a stream: everything the server said, what came through the door, and what went wrong."""

    said: bytes
    door: FakeDoor
    left: tuple[int, int] = (0, 0)  # connections and octets that the edge still counts
    troubles: list[dict[str, Any]] = field(default_factory=list)  # what the event loop was told of

    @property
    def replies(self) -> list[bytes]:
        return self.said.split(b"\r\n")

    @property
    def messages(self) -> list[tuple[str, list[str], bytes | None]]:
        return [(one.mail_from, one.recipients, one.raw) for one in self.door.messages]


def hear(pieces: Sequence[bytes], limits: Limits, door: FakeDoor | None = None) -> Heard:
    """Feed the pieces one by one, the session running as far as it gets behind each, then the end of the stream."""
    door = door or FakeDoor()
    troubles: list[dict[str, Any]] = []

    async def play() -> Heard:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: troubles.append(context))
        edge = Edge(door, hostname=HOSTNAME, limits=limits)
        session = Session(edge._house, behind_proxy=False, loop=loop)
        transport = MemoryTransport(loop)
        transport.attach(session)
        for piece in pieces:
            await _settled(transport)
            session.data_received(piece)
        await _settled(transport)
        if session.eof_received() is not True:
            transport.close()
        async with asyncio.timeout(5):
            await session.finished()
        await _settled(transport)
        return Heard(
            said=bytes(transport.sent),
            door=door,
            left=(edge.connections, edge.bytes_in_flight),
            troubles=troubles,
        )

    return asyncio.run(play())


async def _settled(transport: MemoryTransport) -> None:
    """Let the session run as far as it gets without another octet."""
    quiet = 0
    while quiet < 4:
        before = len(transport.sent)
        await asyncio.sleep(0)
        quiet = quiet + 1 if len(transport.sent) == before else 0
