"""Listening with TLS from the first octet (RFC 8314 3.3).

Who has not come through the handshake is no session yet, so nobody else counts it: in each worker as many may be in one at a
time as may be connected, in all and from one place, and one more, who is told so under TLS. Others are left at once: in clear
nothing can be told to them.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from inbound.receive.board import Place
from inbound.receive.census import place, unmapped
from inbound.settings import Limits

log = logging.getLogger(__name__)

PAUSE = 0.5  # seconds until the next try when the system has no descriptor left for another connection


class Handshakes:
    """Takes connections from listening sockets, its own from now on, and makes a session of each that agrees on TLS."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        sessions: Callable[[], asyncio.BaseProtocol],
        context: ssl.SSLContext,
        limits: Limits,
    ) -> None:
        self._sockets = sockets
        self._sessions = sessions
        self._context = context
        self._limits = limits
        self._places: Counter[Place] = Counter()
        self._tasks = {asyncio.create_task(self._accept(sock)) for sock in sockets}

    async def close(self) -> None:
        """Take no more, and leave who is in a handshake."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in self._sockets:
            sock.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listening)
            except ConnectionError:  # gone before we looked
                continue
            except OSError as error:
                log.error("cannot take a connection: %s", error.strerror)  # noqa: TRY400 - that says it all
                await asyncio.sleep(PAUSE)
                continue
            at = place(unmapped(ip_address(peer[0].partition("%")[0])))
            if self._places.total() > self._limits.connections or self._places[at] > self._limits.connections_per_ip:
                log.warning("%s: too many TLS handshakes at a time", peer[0])
                connection.close()
                continue
            self._places[at] += 1
            task = asyncio.create_task(self._agree(connection, f"{peer[0]}:{peer[1]}", at))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _agree(self, connection: socket.socket, peer: str, at: Place) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._sessions,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._limits.handshake_seconds,
            )
        except OSError as error:  # ssl.SSLError is one
            log.info("%s: no TLS: %s", peer, error)
        finally:
            self._places[at] -= 1
            if not self._places[at]:
                del self._places[at]
