"""One connection: aiosmtpd's protocol object, with reading, writing, leaving and TLS of its own.

From aiosmtpd come the protocol and its life on a transport, its `envelope`, the names of its hooks (`smtp_VERB`, `push`,
`handle_exception`) and the parser of the PROXY header. Ours is what an open MX needs beyond it:

1. One task talks to the client, and nothing cancels it because of the client: who hangs up, half-closes or falls silent is
   noticed where the next octets are waited for.
2. Replies to pipelined commands leave in one write (RFC 2920 3.2), and no write is waited for without a deadline.
3. Who is turned away is told why, and has time to read it.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from ipaddress import ip_address
from typing import Any

from aiosmtpd.proxy_protocol import V2_CMD, get_proxy
from aiosmtpd.smtp import SMTP

from inbound.mail import IPAddress, Tls
from inbound.receive import Rebuff
from inbound.receive.board import Place
from inbound.receive.census import place, unmapped
from inbound.receive.house import House
from inbound.receive.inflow import CrowdedError, GoneError, Inflow, ProxyReader, SilentError, StoppingError
from inbound.receive.replies import BROKEN, BYE, CROWDED, NOT_TRUSTED, SILENT, STOPPING
from inbound.reply import Reply

log = logging.getLogger(__name__)

LINGER_SECONDS = 2.0  # for a client to read why it is turned away


class LeavingError(Exception):
    """The session is over: `reply` is the last one."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(str(reply))


class Wire(SMTP, ABC):
    """One connection, from `connection_made` to the last reply; what is said on it is a subclass's.

    `behind_proxy`: it begins with a PROXY header.
    """

    def __init__(self, house: House, *, behind_proxy: bool, loop: asyncio.AbstractEventLoop) -> None:
        # aiosmtpd's own constructor looks through all members of every new object for mechanisms of AUTH and hooks that we
        # do not have (0.3 ms), clears limits that all connections share, and asks DNS for its name when it was given none.
        # What its `connection_made` needs is this.
        no_reader: Any = None  # octets go to `Inflow`
        asyncio.StreamReaderProtocol.__init__(self, no_reader, client_connected_cb=self._cb_client_connected, loop=loop)
        self.loop = loop
        self.event_handler = None
        self.hostname = house.hostname
        self.session = None
        self.envelope = None
        self.transport = None
        self._original_transport = None
        self._handler_coroutine = None
        self._house = house
        self._limits = house.limits
        self._behind_proxy = behind_proxy
        self._inflow = Inflow(loop)
        self._unsent: list[bytes] = []
        self._lost = False
        self._ended = False
        self._parted = False  # the last word is said
        self._clogged = False  # more than the transport wants to hold is unsent
        self._client_ip: IPAddress | None = None
        self._client_port = 0
        self.peer = "?"  # the client for the log
        self._place: Place | None = None
        self._tls: Tls | None = None

    @abstractmethod
    async def greet(self) -> None:
        """Say the first word."""

    @abstractmethod
    async def one_command(self) -> None:
        """Read one command and answer it."""

    @property
    def address(self) -> str:
        """The client's address as far as it is known, for notes."""
        if self._client_ip:
            return str(self._client_ip)
        peer = self._writer.get_extra_info("peername")
        return str(peer[0]) if peer else "?"

    @abstractmethod
    def rebuff(self, reply: Reply) -> Rebuff:
        """The note of this reply, with what is known of the client by now."""

    def note(self, reply: Reply) -> None:
        """Have a refusal or deferral of ours noted. What is wrong with the log is no matter between us and the client."""
        try:
            self._house.door.rebuffed(self.rebuff(reply))
        except Exception:
            log.exception("%s: cannot be noted: %s", self.peer, reply)

    @abstractmethod
    def drop_message(self) -> None:
        """Forget what has come of a message."""

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start talking."""
        self._note_tls(transport)
        self._inflow.attach(transport)
        self._house.sessions.add(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Octets go to our own reader: aiosmtpd's keeps a line without an end whatever its limit."""
        self._inflow.feed(data)

    def eof_received(self) -> bool:
        """A client that has nothing more to say still gets its replies, where the transport can be half closed."""
        self._inflow.end()
        return self._tls is None

    def pause_writing(self) -> None:
        """The client does not read what it is sent."""
        self._clogged = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has read enough of it."""
        self._clogged = False
        super().resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing is cancelled: what is half done comes to its end."""
        self._inflow.lose()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self._lost = True
        self._let_go()

    def _reset_timeout(self, duration: float | None = None) -> None:
        """There is no timer but where octets are waited for."""

    # From the server

    def stop(self) -> None:
        """Say goodbye when the message in hand, if there is one, is answered."""
        self._inflow.stop()

    def hurry(self) -> None:
        """Others want to come in: who says nothing has waited long enough."""
        self._inflow.hurry(self._limits.stress_seconds)

    async def finished(self) -> None:
        """Wait until the client has been left."""
        if self._handler_coroutine:
            await asyncio.wait((self._handler_coroutine,))

    def abort(self) -> None:
        """Leave at once: nothing was promised of what is still in hand."""
        if self._handler_coroutine:
            if not self._parted and not self._writer.is_closing():
                self._writer.write(f"{STOPPING}\r\n".encode("ascii"))
            self._handler_coroutine.cancel()

    # The task that talks to the client

    async def _handle_client(self) -> None:
        refusal = self._house.census.arrive()
        if self._house.census.crowded:
            for session in self._house.sessions:
                session.hurry()
        try:
            if refusal:
                await self._part(refusal)
            else:
                await self._converse()
        except GoneError:
            log.info("%s is gone", self.peer)
        except Exception:
            log.exception("%s: the session broke", self.peer)
        finally:
            self.drop_message()
            self._house.census.depart()
            if self._place:
                self._house.census.unsettle(self._place)
            self._house.sessions.discard(self)
            self._writer.close()
            self._ended = True
            self._let_go()

    def _let_go(self) -> None:
        """Hold nothing that holds us, when both ends are done: what TLS keeps (40 KB) is not to wait for the collector."""
        if self._lost and self._ended:
            nothing: Any = None
            self._writer = self.transport = self._client_connected_cb = self._handler_coroutine = nothing

    async def _converse(self) -> None:
        try:
            await self._identify()
            await self.greet()
            while True:
                await self.one_command()
        except LeavingError as leaving:
            await self._part(leaving.reply)
        except SilentError:
            await self._part(SILENT)
        except CrowdedError:
            await self._part(CROWDED)
        except StoppingError:
            await self._part(STOPPING)

    def send_later(self, line: str) -> None:
        """Send a line (or several, CRLF between them) with the next flush."""
        self._unsent.append(line.encode("ascii") + b"\r\n")

    @property
    def unsent(self) -> int:
        """How many replies wait for a flush."""
        return len(self._unsent)

    async def flush(self) -> None:
        """Send what is to be sent, in one write."""
        if not self._unsent:
            return
        if self._writer.is_closing():
            raise GoneError
        self._writer.write(b"".join(self._unsent))
        self._unsent.clear()
        if self._clogged:
            await self._until_sent()

    async def _until_sent(self) -> None:
        try:
            async with asyncio.timeout(self._limits.command_seconds):
                await self._writer.drain()
        except (TimeoutError, ConnectionError):  # a client that does not read, or is gone
            raise GoneError from None

    async def push(self, status: str | bytes) -> None:
        """Send a line at once, with everything that was to be sent before it."""
        self.send_later(status.decode("ascii") if isinstance(status, bytes) else status)
        await self.flush()

    async def handle_exception(self, error: Exception) -> str:
        """Log what nobody expected, and keep its text from the client."""
        log.error("%s: unexpected exception", self.peer, exc_info=error)
        self.note(BROKEN)
        return str(BROKEN)

    async def _part(self, reply: Reply) -> None:
        """Say why, and let it be read: closing with octets unread would reset the connection and lose the reply."""
        if reply is not BYE:
            self.note(reply)
        await self.push(str(reply))
        if not self._writer.can_write_eof():
            return
        self._parted = True
        try:
            self._writer.write_eof()
        except OSError:  # it was quicker
            raise GoneError from None
        deadline = self.loop.time() + LINGER_SECONDS
        try:
            while deadline > self.loop.time():
                await self._inflow.chunk(deadline - self.loop.time())
        except SilentError:
            return

    # Who is it?

    async def _identify(self) -> None:
        peer = self._writer.get_extra_info("peername")
        if not peer:  # gone before we looked
            raise GoneError
        self._client_ip = unmapped(ip_address(peer[0].partition("%")[0]))
        self._client_port = peer[1]
        self.peer = f"{self._client_ip}:{self._client_port}"
        if self._behind_proxy:
            await self._take_proxy_header(self._client_ip)
        self._place = place(self._client_ip)
        refusal = self._house.census.settle(self._place)
        if refusal:
            raise LeavingError(refusal)

    async def _take_proxy_header(self, proxy: IPAddress) -> None:
        if not any(proxy in network for network in self._house.proxy_from):
            log.warning("%s is not trusted to send a PROXY header", self.peer)
            raise LeavingError(NOT_TRUSTED)
        try:
            async with asyncio.timeout(self._limits.handshake_seconds):
                header = await get_proxy(ProxyReader(self._inflow, self._limits.handshake_seconds))
        except TimeoutError:
            raise GoneError from None
        # LOCAL is the proxy's own health check, whatever address it has or lacks (`whole_raw`: the header has been read to its
        # end); UNKNOWN hides the client: in both cases the proxy is who speaks.
        local = header.command == V2_CMD.LOCAL and bool(header.whole_raw)
        if not header.valid and not local:
            log.warning("%s sent no PROXY header: %s", self.peer, header.error)
            raise GoneError
        if local or header.src_addr is None or isinstance(header.src_addr, str | bytes):
            return
        self._client_ip = unmapped(header.src_addr)
        self._client_port = header.src_port or 0
        self.peer = f"{self._client_ip}:{self._client_port} (by {self.peer})"

    async def begin_tls(self) -> None:
        """Go on in TLS. Nothing may be unread. Raises GoneError when it cannot be agreed upon."""
        assert self._house.certificates is not None  # noqa: S101 - or it was not offered
        self._inflow.attach(None)
        try:
            await self._writer.start_tls(
                self._house.certificates.context, ssl_handshake_timeout=self._limits.handshake_seconds
            )
        except OSError as error:  # ssl.SSLError is one
            log.info("%s: no TLS: %s", self.peer, error)
            raise GoneError from None
        self.transport = self._writer.transport
        self._inflow.attach(self.transport)
        self._note_tls(self.transport)

    def _note_tls(self, transport: asyncio.BaseTransport) -> None:
        session = transport.get_extra_info("ssl_object")
        if session:
            self._tls = Tls(version=session.version(), cipher=session.cipher()[0])
