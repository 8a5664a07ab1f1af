"""One HTTP POST to somebody else's service: no redirects, no surprises about where it goes.

1. The name is resolved here, every address it has is looked at, and the connection goes to an address that was looked at.
   Unless private addresses are allowed, one that is not global refuses the whole call (so a name cannot be rebound between
   the look and the connection), forms that carry an IPv4 address inside included.
2. TLS with the system's trust (SSL_CERT_FILE counts), the certificate checked for the name.
3. Only the status of the answer counts. 2xx is success. A redirect is not followed: what was signed for one place is not
   told another. 408, 425, 429 and 5xx may differ later; everything else will not.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import SplitResult, urlsplit

from inbound.addresses import a_labels
from inbound.clients.reasons import TIMED_OUT, UNREACHABLE
from inbound.errors import PermanentFailure, TemporaryFailure

LONGEST_HEAD = 32 * 1024  # octets of the answer's head
NOT_ALLOWED = "address not allowed"
NOT_TRUSTED = "certificate not trusted"
NO_HTTP = "answer is no HTTP"
REDIRECTED = "redirect not followed"
REFUSED = "service refused"
WAITS = "service asks to wait"

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r?\n")
_LATER = frozenset({408, 425, 429})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a URL leads: its host (A-labels or an address), port, and the target of the request line."""

    tls: bool
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The Host field's value."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def place_of(url: str) -> Place:
    """Take a URL apart. Raises ValueError when it is not one that can be posted to."""
    if not re.fullmatch(r"[!-~]+", url):
        raise ValueError("a URL has no blanks and nothing but ASCII")
    parts: SplitResult = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.username is not None or not parts.hostname:
        raise ValueError("a URL is https://HOST[:PORT]/PATH, without a user in it")
    host = parts.hostname if ":" in parts.hostname else a_labels(parts.hostname)
    if not host:
        raise ValueError(f"{parts.hostname!r} is no host")
    tls = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(tls=tls, host=host, port=parts.port or (443 if tls else 80), target=target)


async def post(url: str, body: bytes, fields: Mapping[str, str], *, allow_private: bool, seconds: float) -> int:
    """POST, and the status of a 2xx answer. Raises Failure, within `seconds`."""
    place = place_of(url)
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await _connect(place, await _addresses(place, allow_private=allow_private))
            try:
                writer.write(_request(place, body, fields))
                await writer.drain()
                status = await _status(reader)
            finally:
                writer.transport.abort()  # nothing more is wanted of it
    except TimeoutError as error:
        raise TemporaryFailure(TIMED_OUT, f"{place.host} gave no answer within {seconds:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise PermanentFailure(NOT_TRUSTED, f"{place.host}: {error.verify_message}") from error
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise TemporaryFailure(UNREACHABLE, f"{place.host}: {error}") from error
    return _judged(place, status)


async def reach(url: str, *, allow_private: bool, seconds: float) -> None:
    """Connect as `post` would, TLS and all, and say nothing. Raises Failure, within `seconds`."""
    place = place_of(url)
    try:
        async with asyncio.timeout(seconds):
            _, writer = await _connect(place, await _addresses(place, allow_private=allow_private))
            writer.close()
    except TimeoutError as error:
        raise TemporaryFailure(TIMED_OUT, place.host) from error
    except ssl.SSLCertVerificationError as error:
        raise PermanentFailure(NOT_TRUSTED, f"{place.host}: {error.verify_message}") from error
    except OSError as error:
        raise TemporaryFailure(UNREACHABLE, f"{place.host}: {error}") from error


def is_public(address: str) -> bool:
    """An address anybody could reach, also when it stands inside of another form."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return ip.is_global and not ip.is_multicast


async def _addresses(place: Place, *, allow_private: bool) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private:
        for address in addresses:
            if not is_public(address):
                raise PermanentFailure(NOT_ALLOWED, f"{place.host} is {address}, which is not public")
    return addresses


async def _connect(place: Place, addresses: list[str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The first address that takes the connection. Raises the last one's OSError."""
    tls = {"ssl": _trust(), "server_hostname": place.host} if place.tls else {}
    refused: OSError = OSError("the name has no address")
    for address in addresses:
        try:
            return await asyncio.open_connection(address, place.port, limit=LONGEST_HEAD, **tls)  # type: ignore[arg-type]
        except ssl.SSLError:
            raise
        except OSError as error:
            refused = error
    raise refused


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def _request(place: Place, body: bytes, fields: Mapping[str, str]) -> bytes:
    lines = {"Host": place.authority, "Content-Length": str(len(body)), "Connection": "close", **fields}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {place.target} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body


async def _status(reader: asyncio.StreamReader) -> int:
    """The status of the final answer; interim ones (1xx) are read over."""
    while True:
        match = _STATUS.fullmatch(await reader.readuntil(b"\n"))
        if match is None:
            raise PermanentFailure(NO_HTTP)
        if match.group(1)[0:1] != b"1":
            return int(match.group(1))
        while (await reader.readuntil(b"\n")).strip():
            pass


def _judged(place: Place, status: int) -> int:
    if 200 <= status < 300:  # noqa: PLR2004 - the classes of HTTP
        return status
    if status in _LATER or status >= 500:  # noqa: PLR2004
        raise TemporaryFailure(WAITS, f"{place.host} answered {status}")
    if status < 400:  # noqa: PLR2004
        raise PermanentFailure(REDIRECTED, f"{place.host} answered {status}")
    raise PermanentFailure(REFUSED, f"{place.host} answered {status}")
