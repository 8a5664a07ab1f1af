"""The server: where it listens, and how it stops."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from inbound.addresses import a_labels
from inbound.errors import ConfigurationError, Problem
from inbound.receive import Door
from inbound.receive.board import Board, Seat
from inbound.receive.census import Census
from inbound.receive.handshakes import Handshakes
from inbound.receive.house import House
from inbound.receive.inflow import Budget
from inbound.receive.memory import keep_large_blocks_apart
from inbound.receive.rates import Rates
from inbound.receive.session import Session
from inbound.receive.tls import Certificates
from inbound.settings import Limits, Listener, Tls

log = logging.getLogger(__name__)

BACKLOG = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """An entry of `listen`, and the sockets that listen for it already: made before this process had its workers."""

    listener: Listener
    sockets: tuple[socket.socket, ...]


class Edge:
    """An SMTP server in front of a door. Raises ConfigurationError for a bad name, certificate, network or address.

    `seat` is on the board that this worker shares with others behind the same port; without one it counts for itself.
    """

    def __init__(
        self,
        door: Door,
        *,
        hostname: str,
        limits: Limits | None = None,
        tls: Tls | None = None,
        proxy_from: Sequence[str] = (),
        seat: Seat | None = None,
    ) -> None:
        keep_large_blocks_apart()
        logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd's own lines say less than ours
        limits = limits or Limits()
        if not a_labels(hostname):
            raise ConfigurationError(
                [Problem(file="hostname", line=0, column=0, message=f"{hostname!r} is not a host name")]
            )
        seat = seat or Board().seat(0)
        self._house = House(
            door=door,
            hostname=a_labels(hostname),
            limits=limits,
            certificates=Certificates(tls) if tls else None,
            proxy_from=[ip_network(text, strict=False) for text in proxy_from],
            census=Census(in_all=limits.connections, per_place=limits.connections_per_ip, seat=seat),
            budget=Budget(limits.bytes_in_flight),
            rates=Rates(limits.messages_per_minute, seat),
        )
        self._servers: list[asyncio.Server] = []
        self._handshakes: list[Handshakes] = []

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return self._house.census.connections

    @property
    def bytes_in_flight(self) -> int:
        """Octets of messages that are coming in or being worked on."""
        return self._house.budget.in_flight

    async def start(self, listeners: Sequence[str | Listener | Bound]) -> list[str]:
        """Listen. Returns the addresses bound, `HOST:PORT` or `[HOST]:PORT`, in that order. Raises ConfigurationError."""
        bound: list[str] = []
        try:
            for listener in listeners:
                if isinstance(listener, Bound):
                    bound += await self._take_over(listener)
                else:
                    bound += await self._listen(Listener(address=listener) if isinstance(listener, str) else listener)
        except BaseException:
            await self.stop(0)
            raise
        return bound

    async def _listen(self, listener: Listener) -> list[str]:
        host, port = host_and_port(listener.address)
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                self._sessions(listener), host, port, backlog=BACKLOG, reuse_address=True, start_serving=False
            )
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise _problem(f"cannot listen on {listener.address}: {reason}") from error
        await self._serve(server, listener)
        return [_address(sock) for sock in server.sockets]

    async def _take_over(self, bound: Bound) -> list[str]:
        loop = asyncio.get_running_loop()
        sessions = self._sessions(bound.listener)
        for sock in bound.sockets:
            server = await loop.create_server(sessions, sock=sock, backlog=BACKLOG, start_serving=False)
            await self._serve(server, bound.listener)
        return [_address(sock) for sock in bound.sockets]

    def _sessions(self, listener: Listener) -> Callable[[], Session]:
        if listener.tls and not self._house.certificates:
            raise _problem(f"{listener.address}: TLS needs a certificate (`tls` in the settings)")
        if listener.tls and listener.proxy:
            raise _problem(f"{listener.address}: behind a proxy TLS begins with STARTTLS, not with the first octet")
        loop = asyncio.get_running_loop()
        return lambda: Session(self._house, behind_proxy=listener.proxy, loop=loop)

    async def _serve(self, server: asyncio.Server, listener: Listener) -> None:
        self._servers.append(server)
        if not listener.tls:
            await server.start_serving()
            return
        assert self._house.certificates is not None  # noqa: S101 - `_sessions` has looked
        sockets = [socket.socket(fileno=os.dup(sock.fileno())) for sock in server.sockets]
        for sock in sockets:
            sock.setblocking(False)
            sock.listen(BACKLOG)
        context = self._house.certificates.context
        self._handshakes.append(Handshakes(sockets, self._sessions(listener), context, self._house.limits))

    def reload_certificates(self) -> None:
        """Read the certificate files again, for handshakes to come. Raises ConfigurationError; then nothing has changed."""
        if self._house.certificates:
            self._house.certificates.reload()

    async def stop(self, grace: float) -> None:
        """Take no more connections, finish the messages in flight within `grace` seconds, say 421 to the rest."""
        for server in self._servers:
            server.close()
        for handshakes in self._handshakes:
            await handshakes.close()
        self._handshakes.clear()
        sessions = tuple(self._house.sessions)
        for session in sessions:
            session.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await asyncio.gather(*(session.finished() for session in sessions))
                while self._house.at_work:
                    await asyncio.wait(self._house.at_work)
        for session in tuple(self._house.sessions):
            session.abort()
        for work in tuple(self._house.at_work):
            log.error("a message is given up, its sender still has it: %s", work.get_name())
            work.cancel()
        for server in self._servers:
            with contextlib.suppress(TimeoutError):  # a handshake may still be going on
                async with asyncio.timeout(1.0):
                    await server.wait_closed()
        self._servers.clear()


def host_and_port(address: str) -> tuple[str | None, int]:
    """`192.0.2.1:25`, `[2001:db8::1]:25`, `mx.example.com:25`, or `:25` for every address of both kinds.

    Raises ConfigurationError.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise _problem(f"{address!r}: an IPv6 address is written [ADDRESS]:PORT")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65_535:  # noqa: PLR2004
        raise _problem(f"{address!r} is not HOST:PORT")
    return host or None, int(port)


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _problem(message: str) -> ConfigurationError:
    return ConfigurationError([Problem(file="listen", line=0, column=0, message=message)])
