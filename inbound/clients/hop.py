"""A next hop: where it is, how it is spoken to, and whether it is us; and the connection to it."""

import asyncio
import contextlib
import os
import socket
import ssl
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from inbound.addresses import a_labels
from inbound.clients.reasons import TIMED_OUT
from inbound.errors import PermanentFailure, TemporaryFailure
from inbound.settings import TlsPolicy

UNREACHABLE = "next hop not reached"
NOT_TRUSTED = "next hop's certificate not trusted"
OURSELVES = "next hop is ourselves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A next hop: where it is and how it is spoken to. The password is in a file, in a variable of the environment, or here."""

    host: str
    port: int = 25
    tls: TlsPolicy = "opportunistic"
    ca_file: Path | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    password_env: str = ""
    password_file: Path | None = None

    @property
    def name(self) -> str:
        """As records have it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def secret(self) -> str:
        """The password as it is now. Raises OSError or ValueError when there is none."""
        if self.password_file is not None:
            return self.password_file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
        password = os.environ.get(self.password_env, "") if self.password_env else self.password
        if not password:
            raise ValueError(f"{self.password_env or 'password'} is empty")
        return password


@dataclass(frozen=True, slots=True, kw_only=True)
class Ourselves:
    """How we are called, and the addresses and ports that we listen on ("" is every address): relaying there is a loop."""

    hostname: str
    listening: frozenset[tuple[str, int]] = frozenset()

    def listen_at(self, address: str, port: int) -> bool:
        """An address of this machine, on a port, is where we listen."""
        everywhere = {("", port), ("0.0.0.0", port), ("::", port)}  # noqa: S104 - nothing is bound
        return not self.listening.isdisjoint(everywhere | {(address, port)})

    def goes_by(self, name: str, port: int) -> bool:
        """Who answers EHLO so, on a port that mail comes in at, is us. `localhost` is everybody's name."""
        ports = {25} | {ours for _, ours in self.listening}
        name = a_labels(name)
        return port in ports and name not in ("", "localhost") and name == a_labels(self.hostname)


async def connect(hop: Hop, ourselves: Ourselves, seconds: float) -> socket.socket:
    """A connection to the first address that takes one, each with its own share of the time."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            found = await loop.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise TemporaryFailure(TIMED_OUT, f"the addresses of {hop.host}") from error
    except OSError as error:
        raise TemporaryFailure(UNREACHABLE, f"{hop.host}: {error.strerror or error}") from error
    last = "the name has no address"
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        with contextlib.ExitStack() as unless_used:
            unless_used.enter_context(contextlib.closing(connection))
            try:
                connection.setblocking(False)
                async with asyncio.timeout(seconds / min(len(found), 3)):
                    await loop.sock_connect(connection, address)
                ours = is_here(connection) and ourselves.listen_at(str(address[0]), hop.port)
            except (OSError, TimeoutError) as error:
                last = "no answer" if isinstance(error, TimeoutError) else str(error.strerror or error)
                continue
            if ours:
                raise PermanentFailure(OURSELVES, f"{hop.name} is where we listen")
            unless_used.pop_all()
            return connection
    raise TemporaryFailure(UNREACHABLE, f"{hop.name}: {last}")


def is_here(connection: socket.socket) -> bool:
    """Both ends have the same address, or loopback ones."""
    there, here = ip_address(connection.getpeername()[0]), ip_address(connection.getsockname()[0])
    return there == here or (there.is_loopback and here.is_loopback)


def trust(hop: Hop) -> ssl.SSLContext:
    """What TLS believes: the authorities when the certificate counts, else anybody (RFC 7435: better than in clear).

    Blocks. Raises PermanentFailure when `ca_file` cannot be used.
    """
    try:
        return _trust(hop.tls in ("verify", "implicit"), hop.ca_file)
    except OSError as error:
        raise PermanentFailure(NOT_TRUSTED, f"{hop.ca_file} cannot be used: {error.strerror or error}") from error


@cache
def _trust(verified: bool, ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
