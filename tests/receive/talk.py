"""A client that talks by transcript on a real socket, and a door that remembers what came through it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from inbound.mail import Client
from inbound.receive import Rebuff
from inbound.receive.edge import Edge
from inbound.reply import Reply
from inbound.settings import Limits, Listener, Tls

T = TypeVar("T")

HOSTNAME = "mx.test"
DONE = Reply(250, "2.6.0", "taken")
RECIPIENT_OK = Reply(250, "2.1.5", "OK")
PATIENCE = 10.0


@dataclass
class Received:
    """One message as the door got it."""

    client: Client
    mail_from: str
    smtputf8: bool
    recipients: list[str] = field(default_factory=list)
    raw: bytes | None = None


@dataclass
class FakeTransaction:
    """Takes everything, unless the test says otherwise."""

    received: Received
    door: "FakeDoor"

    async def recipient(self, address: str) -> Reply:
        reply = self.door.recipient_reply(address)
        if reply.accepts:
            self.received.recipients.append(address)
        return reply

    async def message(self, raw: bytes) -> Reply:
        self.received.raw = raw
        self.door.messages.append(self.received)
        return await self.door.at_message(raw)


async def _take(_raw: bytes) -> Reply:
    return DONE


@dataclass
class FakeDoor:
    """What lies behind the edge in these tests."""

    at_message: Callable[[bytes], Coroutine[Any, Any, Reply]] = _take
    recipient_reply: Callable[[str], Reply] = lambda _address: RECIPIENT_OK
    opened: list[Received] = field(default_factory=list)
    messages: list[Received] = field(default_factory=list)
    rebuffs: list[Rebuff] = field(default_factory=list)

    def rebuffed(self, rebuff: Rebuff) -> None:
        self.rebuffs.append(rebuff)

    def open(self, client: Client, mail_from: str, *, smtputf8: bool) -> FakeTransaction:
        received = Received(client, mail_from, smtputf8)
        self.opened.append(received)
        return FakeTransaction(received, self)

    @property
    def contents(self) -> list[bytes | None]:
        return [message.raw for message in self.messages]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop, as the product does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


@dataclass
class Served:
    edge: Edge
    host: str
    port: int


@asynccontextmanager
async def served(
    door: FakeDoor,
    *,
    limits: Limits | None = None,
    tls: Tls | None = None,
    proxy: bool = False,
    tls_first: bool = False,
    proxy_from: Sequence[str] = (),
    host: str = "127.0.0.1",
    **more: Any,
) -> AsyncIterator[Served]:
    edge = Edge(
        door, hostname=HOSTNAME, limits=limits or Limits(tarpit_seconds=0.0), tls=tls, proxy_from=proxy_from, **more
    )
    (address,) = await edge.start([Listener(address=f"{host}:0", proxy=proxy, tls=tls_first)])
    try:
        yield Served(edge, host, int(address.rpartition(":")[2]))
    finally:
        await edge.stop(1.0)


class Talk:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(
        cls, server: Served, *, source: str | None = None, tls: ssl.SSLContext | None = None, name: str = HOSTNAME
    ) -> "Talk":
        """Connect, from the address `source`; `tls`: with TLS from the first octet, asking for `name`."""
        own: dict[str, Any] = {"local_addr": (source, 0)} if source else {}
        secure: dict[str, Any] = {"ssl": tls, "server_hostname": name} if tls else {}
        return cls(*await asyncio.open_connection(server.host, server.port, limit=2**20, **own, **secure))

    async def line(self) -> str:
        """The next line, or "(closed)"."""
        async with asyncio.timeout(PATIENCE):
            try:
                line = await self.reader.readline()
            except ConnectionResetError:
                return "(reset)"
        return line.decode().removesuffix("\r\n") if line else "(closed)"

    async def reply(self) -> str:
        """The next reply; its last line when it has several."""
        while True:
            line = await self.line()
            if line[3:4] != "-":
                return line

    async def say(self, line: str) -> str:
        self.send(f"{line}\r\n".encode())
        return await self.reply()

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def begin(self, *recipients: str, mail_from: str = "a@sender.test") -> None:
        """Go on until the recipients are taken."""
        assert (await self.reply())[:3] == "220"
        assert (await self.say("EHLO client.test"))[:3] == "250"
        assert (await self.say(f"MAIL FROM:<{mail_from}>"))[:3] == "250"
        for recipient in recipients or ("b@ours.test",):
            assert (await self.say(f"RCPT TO:<{recipient}>"))[:3] == "250"

    async def begin_data(self) -> None:
        await self.begin()
        assert (await self.say("DATA"))[:3] == "354"

    async def start_tls(self, context: ssl.SSLContext, name: str = HOSTNAME) -> None:
        await self.writer.start_tls(context, server_hostname=name)

    @property
    def certificate_names(self) -> list[str]:
        """The names in the server's certificate."""
        return [name for _, name in self.writer.get_extra_info("peercert")["subjectAltName"]]

    async def transcript(self, text: str) -> None:
        """Say the `>` lines, expect the `<` lines; `< (closed)` is the end."""
        expected = [line.strip() for line in text.split("\n") if line.strip()]
        actual = []
        for line in expected:
            if line.startswith(">"):
                self.send(line[2:].encode() + b"\r\n")
                actual.append(line)
            else:
                actual.append(f"< {await self.line()}")
        assert actual == expected

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            return

    async def vanish(self) -> None:
        """Close with a reset."""
        self.writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def talking(
    server: Served, *, source: str | None = None, tls: ssl.SSLContext | None = None, name: str = HOSTNAME
) -> AsyncIterator[Talk]:
    talk = await Talk.to(server, source=source, tls=tls, name=name)
    try:
        yield talk
    finally:
        await talk.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the server
            await asyncio.sleep(0.005)


def transcript(text: str, door: FakeDoor | None = None, **settings: Any) -> FakeDoor:
    """Play a transcript against a server of its own. Returns the door."""
    door = door or FakeDoor()

    async def play() -> None:
        async with served(door, **settings) as server, talking(server) as talk:
            await talk.transcript(text)

    run(play())
    return door
