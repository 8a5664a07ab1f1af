"""clamd (ClamAV's daemon): scanning by INSTREAM on our own sockets; PING, VERSION and STATS by the `clamd` package.

1. One connection for one scan. Nothing is shared, so no scan can be given the answer of another.
2. Everything stands under one deadline, the connect too: a daemon that takes no more connections does not answer them.
3. Only a whole and well-formed reply is believed. An empty one, one cut off, or any other error of clamd's raises
   TemporaryFailure. When clamd breaks off while we send, it has said why: that is read first.
4. What it could not look into is an answer of its own, not an error: the sender brought it about.
"""

import asyncio
import re
import socket
from dataclasses import dataclass
from typing import Literal

import clamd

from inbound.errors import TemporaryFailure

UNREACHABLE = "clamd unreachable"
SILENT = "clamd gave no answer in time"
BROKEN_OFF = "clamd broke off"
NOT_UNDERSTOOD = "clamd answered something else"

ENCRYPTED = "encrypted"
OVER_LIMITS = "over the engine's limits"

CHUNK = 64 * 1024  # clamd's own buffer is 128 KiB; smaller chunks cost it and us more calls
_LONGEST_REPLY = 4096
_BACKLOG_FULL_SECONDS = 0.02
_CONTROL_SECONDS = 5.0

_FOUND = re.compile(r"stream: ([!-~][ -~]{0,1000}) FOUND")
_TOO_LONG = "INSTREAM size limit exceeded. ERROR"
_OUT_OF_TIME = re.compile(r"stream: .{0,200}Time limit reached ERROR")
_OPAQUE = {
    "Heuristics.Encrypted.": ENCRYPTED,
    "Heuristics.Limits.Exceeded": OVER_LIMITS,
}  # AlertEncrypted, AlertExceedsMax


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What clamd says: `clean`, `infected` by `signature`, or `opaque`, that it could not look inside, for `reason`."""

    result: Literal["clean", "infected", "opaque"]
    signature: str = ""
    reason: str = ""


class Clamd:
    """A clamd at `unix:/path` or `tcp:HOST:PORT`. Raises ValueError for any other address."""

    def __init__(self, address: str, *, deadline: float = 30.0) -> None:
        self.address = address
        self._where = _parsed(address)
        self._deadline = deadline

    async def scan(self, octets: bytes) -> Scan:
        """Scan octets of any length. Raises TemporaryFailure when clamd is down, silent, or not to be understood."""
        try:
            async with asyncio.timeout(self._deadline):
                with await self._connected() as connection:
                    return _scan_of(await _instream(connection, octets))
        except TimeoutError:
            raise TemporaryFailure(SILENT, f"{self.address}, {self._deadline:g} s") from None

    def ping(self) -> str:
        """PONG. Blocks, for five seconds at most: call it from a thread. Raises TemporaryFailure."""
        return self._control("ping")

    def version(self) -> str:
        """Engine, number of the signature database and its date. As `ping`."""
        return self._control("version")

    def stats(self) -> str:
        """Threads, queue and memory, as clamd writes them. As `ping`."""
        return self._control("stats")

    def _control(self, command: Literal["ping", "version", "stats"]) -> str:
        try:
            return str(getattr(_Control(self._where), command)())
        except clamd.ResponseError as error:
            raise TemporaryFailure(NOT_UNDERSTOOD, f"{self.address}: {error}") from error
        except (clamd.ClamdError, OSError) as error:
            raise TemporaryFailure(UNREACHABLE, f"{self.address}: {error}") from error

    async def _connected(self) -> socket.socket:
        try:
            if isinstance(self._where, str):
                return await _connected_to_path(self._where)
            return await _connected_by_tcp(*self._where)
        except OSError as error:
            raise TemporaryFailure(UNREACHABLE, f"{self.address}: {error}") from error


class _Control(clamd.ClamdNetworkSocket):  # type: ignore[misc]
    """The library's client with a deadline that covers the connect, for either kind of socket. For one command."""

    def __init__(self, where: str | tuple[str, int]) -> None:
        super().__init__(timeout=_CONTROL_SECONDS)
        self._where = where

    def _init_socket(self) -> None:
        if isinstance(self._where, tuple):
            self.clamd_socket = socket.create_connection(self._where, self.timeout)
            return
        self.clamd_socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.clamd_socket.settimeout(self.timeout)
        try:
            self.clamd_socket.connect(self._where)
        except OSError:
            self.clamd_socket.close()
            raise


def _parsed(address: str) -> str | tuple[str, int]:
    kind, _, where = address.partition(":")
    host, _, port = where.rpartition(":")
    if kind == "unix" and where.startswith("/"):
        return where
    if kind == "tcp" and host and port.isdecimal() and 0 < int(port) < 65_536:  # noqa: PLR2004
        return host.removeprefix("[").removesuffix("]"), int(port)
    raise ValueError(f"{address!r} is not unix:/path or tcp:HOST:PORT")


async def _connected_to_path(path: str) -> socket.socket:
    """A connected unix socket. While the daemon's backlog is full, connect answers EAGAIN at once: ask again."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        while True:
            try:
                connection.connect(path)
            except BlockingIOError:
                await asyncio.sleep(_BACKLOG_FULL_SECONDS)
            else:
                return connection
    except BaseException:
        connection.close()
        raise


async def _connected_by_tcp(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    (family, kind, protocol, _, where), *_ = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        await loop.sock_connect(connection, where)
    except BaseException:
        connection.close()
        raise
    return connection


async def _instream(connection: socket.socket, octets: bytes) -> bytes:
    """Send the octets and read clamd's reply, without the NUL that ends it."""
    loop = asyncio.get_running_loop()
    try:
        before = b"zINSTREAM\0"
        for at in range(0, len(octets), CHUNK):
            chunk = octets[at : at + CHUNK]
            last = b"\0\0\0\0" if at + CHUNK >= len(octets) else b""
            await loop.sock_sendall(connection, b"".join((before, len(chunk).to_bytes(4, "big"), chunk, last)))
            before = b""
        if before:
            await loop.sock_sendall(connection, before + b"\0\0\0\0")
    except OSError as error:
        broken = str(error)
    else:
        broken = ""
    reply = b""
    try:
        while b"\0" not in reply and len(reply) < _LONGEST_REPLY:
            more = await loop.sock_recv(connection, _LONGEST_REPLY)
            if not more:
                break
            reply += more
    except OSError as error:
        broken = str(error)
    said, end, _ = reply.partition(b"\0")
    if not end and len(reply) < _LONGEST_REPLY:
        raise TemporaryFailure(BROKEN_OFF, f"{broken or 'end of file'} after {reply[:200]!r}")
    return said


def _scan_of(reply: bytes) -> Scan:
    said = reply.decode("ascii", "replace")
    if said == "stream: OK":
        return Scan(result="clean")
    if said == _TOO_LONG or _OUT_OF_TIME.fullmatch(said):
        return Scan(result="opaque", reason=OVER_LIMITS)
    found = _FOUND.fullmatch(said)
    if not found:
        raise TemporaryFailure(NOT_UNDERSTOOD, repr(said[:200]))
    signature = found[1]
    for beginning, reason in _OPAQUE.items():
        if signature.startswith(beginning):
            return Scan(result="opaque", signature=signature, reason=reason)
    return Scan(result="infected", signature=signature)
