"""The resolver: questions over UDP and TCP, one cache for the whole process.

Plain answers are read by `dns_plain`, in a tenth of the time, all others by dnspython.

1. Answers are kept for their TTL, negative ones for the SOA's (RFC 2308), failures for a second, in a cache of bounded
   size. Concurrent identical questions are asked once.
2. NXDOMAIN and NODATA are answers, and differ. SERVFAIL, REFUSED, broken answers and silence are TemporaryFailure, each
   with its own reason. A name that cannot be asked about at all does not exist.
3. An answer is `authenticated` when a resolver that is trusted says that it has validated it (the AD bit, RFC 6840 5.8): one on
   this machine, or as the operator has it. The CNAMEs on the way must be too.
4. Each question has a deadline, in which every server is tried in turn. A truncated answer is asked for again over TCP; a
   server that does not know EDNS, or drops questions with it, is asked without.

c-ares (aiodns) takes as long for a question, but refuses names such as `a+b._spf.example.com`, which SPF macros make, and
tells neither the AD bit nor how long a negative answer keeps.
"""

import asyncio
import ipaddress
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.NS import NS
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from inbound.clients import Answer, RecordType
from inbound.clients.dns_plain import Plain, plain
from inbound.errors import TemporaryFailure

TIMEOUT = "dns timeout"
SERVFAIL = "dns servfail"
REFUSED = "dns refused"
UNREACHABLE = "dns unreachable"
BROKEN = "dns broken answer"
LAME = "dns lame server"

PAYLOAD = 1232  # octets of a UDP answer that are sure not to be fragmented (DNS flag day 2020)
LONGEST_KEPT = 86_400  # seconds; unbound's cache-max-ttl is the same
NEGATIVE_KEPT = 300  # at most; RFC 2308 5 allows hours, but a new sender's record should be found soon
NEGATIVE_UNTOLD = 60  # where no SOA came with it
FAILURE_KEPT = 1  # RFC 9520 3.2 asks a recursive resolver for more; ours must find the server that is back again
CACHED_OCTETS = 32 * 1024 * 1024
ENTRY_OCTETS = 512  # what one answer takes beside its records
AT_ONCE = 300  # questions in flight, each with a socket; the usual limit of 1024 descriptors is for connections too
LONGEST_ALIAS = 8  # CNAMEs that are followed where the server does not

_RCODES = {dns.rcode.SERVFAIL: SERVFAIL, dns.rcode.REFUSED: REFUSED, dns.rcode.NOTIMP: REFUSED}
_TYPES = {word: dns.rdatatype.from_text(word) for word in ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "TXT")}

Trust = Literal["auto", "yes", "no"]  # whose AD bit is believed: that of a resolver on this machine, any, none

_Question = tuple[str, RecordType]
Response = Plain | dns.message.QueryMessage


@dataclass(slots=True)
class Counters:
    """What the resolver did so far. `joined` are questions that waited for the same question of somebody else."""

    hits: int = 0
    misses: int = 0
    joined: int = 0
    timeouts: int = 0
    failures: int = 0  # SERVFAIL, REFUSED, broken answers, nobody there


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One DNS server."""

    host: str
    port: int

    @property
    def local(self) -> bool:
        """It is on the loopback."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def family(self) -> socket.AddressFamily:
        """IPv4 or IPv6."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET


def parse_server(text: str) -> Server:
    """`IP`, `IP:PORT` or `[IPv6]:PORT`; 53 where no port stands. Raises ValueError."""
    host, port = text.strip(), "53"
    if host.startswith("["):
        host, closed, rest = host[1:].partition("]")
        port = rest.removeprefix(":") if rest else port if closed else ""
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    if not port.isdecimal() or not 0 < int(port) < 65_536:  # noqa: PLR2004
        raise ValueError(f"{text!r} has no port that can be")
    return Server(host=str(ipaddress.ip_address(host)), port=int(port))


@dataclass(frozen=True, slots=True)
class _Failed:
    """No answer. Not an exception: one that is kept keeps all that its traceback leads to, whole messages too."""

    reason: str
    detail: str


@dataclass(slots=True)
class _Kept:
    """`answer` is as it was given last, most often to the same second."""

    answer: Answer | _Failed
    until: float
    octets: int


class Resolver:
    """Asks `servers` ("IP:PORT", several by commas; "" means the system's). `deadline` is seconds for one question.

    `dnssec` says which of them are believed when they say that an answer was validated. Used within one event loop; `close`
    when done. Fulfils `inbound.stages.Resolver`. Raises ValueError for `servers`.
    """

    def __init__(
        self,
        servers: str = "",
        *,
        deadline: float = 3.0,
        tries: int = 3,
        cached_octets: int = CACHED_OCTETS,
        clock: Callable[[], float] = time.monotonic,
        dnssec: Trust = "auto",
    ) -> None:
        self.counters = Counters()
        self._servers = [parse_server(text) for text in servers.split(",") if text.strip()] or _of_the_system()
        self._deadline = deadline
        self._tries = tries
        self._room = cached_octets
        self._clock = clock
        self._dnssec = dnssec
        self._cache: OrderedDict[_Question, _Kept] = OrderedDict()
        self._asking: dict[_Question, asyncio.Task[Answer | _Failed]] = {}
        self._free = asyncio.Semaphore(AT_ONCE)

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        """Ask, or answer from the cache. Raises TemporaryFailure when there is no answer to be had."""
        question = (name.rstrip(".").lower(), rdtype)
        now = self._clock()
        kept = self._cache.get(question)
        if kept is not None and kept.until > now:
            self._cache.move_to_end(question)
            self.counters.hits += 1
            answer = kept.answer
            if isinstance(answer, _Failed):
                raise TemporaryFailure(answer.reason, answer.detail)
            left = int(kept.until - now)
            if left != answer.ttl:
                answer = kept.answer = replace(answer, ttl=left)
            return answer
        if not _askable(question[0]):
            return Answer(exists=False)
        task = self._asking.get(question)
        if task is None:
            self.counters.misses += 1
            task = asyncio.create_task(self._ask(question))
            self._asking[question] = task
            task.add_done_callback(lambda done: self._asked(question, done))
        else:
            self.counters.joined += 1
        outcome = await asyncio.shield(task)  # others may wait for it when this one is cancelled
        if isinstance(outcome, _Failed):
            raise TemporaryFailure(outcome.reason, outcome.detail)
        return outcome

    async def close(self) -> None:
        """Give up the questions still open."""
        tasks = tuple(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _asked(self, question: _Question, task: asyncio.Task[Answer | _Failed]) -> None:
        del self._asking[question]
        if not task.cancelled():
            task.exception()  # those who waited have had it; if nobody did, it is nobody's

    async def _ask(self, question: _Question) -> Answer | _Failed:
        try:
            async with self._free, asyncio.timeout(self._deadline):
                answer = await self._resolve(*question)
        except TimeoutError:
            self.counters.timeouts += 1
            failed = _Failed(TIMEOUT, " ".join(question))
        except TemporaryFailure as error:
            self.counters.failures += 1
            failed = _Failed(error.reason, error.detail)
        else:
            self._keep(question, answer, answer.ttl)
            return answer
        self._keep(question, failed, FAILURE_KEPT)
        return failed

    def _keep(self, question: _Question, answer: Answer | _Failed, seconds: float) -> None:
        records = answer.records if isinstance(answer, Answer) else ()
        octets = ENTRY_OCTETS + sum(len(record) for record in records)
        replaced = self._cache.pop(question, None)
        self._room += (replaced.octets if replaced else 0) - octets
        self._cache[question] = _Kept(answer, self._clock() + seconds, octets)
        while self._room < 0:
            self._room += self._cache.popitem(last=False)[1].octets

    async def _resolve(self, name: str, rdtype: RecordType) -> Answer:
        asked, ttl, authenticated = name, LONGEST_KEPT, True
        for _ in range(LONGEST_ALIAS):
            server, response = await self._exchange(name, rdtype)
            authenticated &= self._trusts(server) and bool(response.flags & dns.flags.AD)
            if isinstance(response, Plain):
                told = NEGATIVE_UNTOLD if response.ttl is None else response.ttl
                ttl = min(ttl, told, NEGATIVE_KEPT if response.negative else LONGEST_KEPT)
                exists = response.exists or name != asked
                return Answer(exists=exists, records=response.records, ttl=ttl, authenticated=authenticated)
            try:
                chain = response.resolve_chaining()
            except dns.message.ChainTooLong:  # a loop of CNAMEs: nothing there, and its owner's doing
                break
            except dns.exception.DNSException as error:
                raise TemporaryFailure(BROKEN, f"{name} {rdtype}: {error}") from None
            ttl = min(ttl, chain.minimum_ttl)
            target = chain.canonical_name.to_text(omit_final_dot=True).lower()
            if chain.answer is None and response.rcode() == dns.rcode.NOERROR and not _denies(response):
                if target != name:
                    name = target  # the server does not follow CNAMEs to other zones; RFC 1034 5.2.2 leaves it to us
                    continue
                if response.authority:  # a referral (RFC 2308 2.2): it knows who would know, which is no answer
                    raise TemporaryFailure(LAME, f"{name} {rdtype}")
            records = tuple(_text(rdata) for rdata in chain.answer or ())
            if not records:
                ttl = min(ttl, NEGATIVE_KEPT) if response.authority else NEGATIVE_UNTOLD
            exists = response.rcode() != dns.rcode.NXDOMAIN or target != asked  # RFC 6604 3: an alias does
            return Answer(exists=exists, records=records, ttl=ttl, authenticated=authenticated)
        return Answer(exists=True, ttl=NEGATIVE_UNTOLD)

    def _trusts(self, server: Server) -> bool:
        return self._dnssec == "yes" or (self._dnssec == "auto" and server.local)

    async def _exchange(self, name: str, rdtype: RecordType) -> tuple[Server, Response]:
        """Ask one server after the other until one answers NOERROR or NXDOMAIN. Raises TemporaryFailure, TimeoutError."""
        failure: TemporaryFailure | None = None
        attempts = max(self._tries, len(self._servers))
        for attempt in range(attempts):
            if attempt >= len(self._servers) and failure is not None and failure.reason != UNREACHABLE:
                break  # who said SERVFAIL says so again
            server = self._servers[attempt % len(self._servers)]
            try:
                async with asyncio.timeout(self._deadline / self._tries):
                    response = await _ask_server(server, name, rdtype, edns=attempt + 1 < attempts)
            except TimeoutError:
                continue
            except OSError as error:
                failure = TemporaryFailure(UNREACHABLE, f"{name} {rdtype}: {error}")
                continue
            except dns.exception.DNSException as error:
                failure = TemporaryFailure(BROKEN, f"{name} {rdtype}: {error}")
                continue
            if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return server, response
            failure = TemporaryFailure(_RCODES.get(dns.rcode.Rcode(response.rcode()), BROKEN), f"{name} {rdtype}")
        if failure is None:
            raise TimeoutError
        raise failure


def nameservers_of(servers: str) -> list[dns.nameserver.Nameserver]:
    """The servers as dnspython has them, for a library that asks by plain calls. `servers` as for `Resolver`."""
    chosen = [parse_server(text) for text in servers.split(",") if text.strip()] or _of_the_system()
    return [dns.nameserver.Do53Nameserver(server.host, server.port) for server in chosen]


def _of_the_system() -> list[Server]:
    try:
        found = dns.resolver.Resolver().nameservers
    except dns.exception.DNSException:
        found = []
    return [parse_server(str(address)) for address in found if isinstance(address, str)] or [
        Server(host="127.0.0.1", port=53)  # resolv.conf(5): without any, the one on this machine
    ]


def _denies(response: dns.message.QueryMessage) -> bool:
    """It says that there is nothing, by the SOA that comes with it (RFC 2308 2.1, 2.2)."""
    return any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)


def _askable(name: str) -> bool:
    """RFC 1035 2.3.4: labels of 1 to 63 octets, 253 in all. U-labels are not asked about: names here are ASCII."""
    return name.isascii() and len(name) <= 253 and all(0 < len(label) <= 63 for label in name.split("."))  # noqa: PLR2004


async def _ask_server(server: Server, name: str, rdtype: RecordType, *, edns: bool) -> Response:
    response = await _over_udp(server, _query(name, rdtype, edns=edns), rdtype)
    if edns and response.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS):  # RFC 6891 6.1.3, 7
        response = await _over_udp(server, _query(name, rdtype, edns=False), rdtype)
    if response.flags & dns.flags.TC:
        response = await _over_tcp(server, _query(name, rdtype, edns=edns), rdtype)
        if response.flags & dns.flags.TC:
            raise dns.message.Truncated
    return response


def _query(name: str, rdtype: RecordType, *, edns: bool) -> bytes:
    """One question with RD and AD set: "tell me whether you have validated it" (RFC 6840 5.7)."""
    labels = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split("."))
    header = secrets.token_bytes(2) + b"\x01\x20" + b"\0\1\0\0\0\0\0" + bytes([edns])
    question = labels + b"\0" + _TYPES[rdtype].to_bytes(2, "big") + b"\0\1"
    return header + question + (b"\0\0\x29" + PAYLOAD.to_bytes(2, "big") + bytes(6) if edns else b"")


async def _over_udp(server: Server, query: bytes, rdtype: RecordType) -> Response:
    """From a port of its own for each question, so that guessing an answer takes more than the 16 bits of its id."""
    loop = asyncio.get_running_loop()
    with socket.socket(server.family, socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        udp.connect((server.host, server.port))
        udp.send(query)
        while True:
            wire = await loop.sock_recv(udp, 65_535)
            if response := _response(query, wire, rdtype):
                return response


async def _over_tcp(server: Server, query: bytes, rdtype: RecordType) -> Response:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        size = int.from_bytes(await reader.readexactly(2), "big")
        response = _response(query, await reader.readexactly(size), rdtype)
    except asyncio.IncompleteReadError:
        raise ConnectionResetError("closed in the middle of an answer") from None
    finally:
        writer.close()
    if response is None:
        raise ConnectionResetError("it answered another question")
    return response


def _response(query: bytes, wire: bytes, rdtype: RecordType) -> Response | None:
    """The answer, or None when it is not one to this question. Raises DNSException when it cannot be read."""
    if len(wire) < 12 or wire[:2] != query[:2] or not wire[2] & 0x80:  # noqa: PLR2004 - RFC 1035 4.1.1
        return None
    question = query[12 : query.index(b"\0", 12) + 5]
    unread = wire[4:6] == b"\0\0" and wire[3] & 0x0F  # a server that could not read the question need not repeat it
    cut = bool(wire[2] & 0x02)  # TC: it may end anywhere, and is asked for again in any case
    if wire[12 : 12 + len(question)].lower() != question.lower() and not (unread or cut):
        return None
    if read := plain(question, wire, rdtype):
        return read
    response = dns.message.from_wire(wire, ignore_trailing=True, continue_on_error=cut)
    return response if isinstance(response, dns.message.QueryMessage) else None


def _text(rdata: dns.rdata.Rdata) -> str:
    match rdata:
        case A(address=address) | AAAA(address=address):
            return str(address)
        case MX(preference=preference, exchange=exchange):
            return f"{preference} {_name(exchange)}"
        case TXT(strings=strings):
            return b"".join(strings).decode("latin-1")
        case CNAME(target=target) | NS(target=target) | PTR(target=target):
            return _name(target)
        case _:
            raise TypeError(rdata.rdtype)  # only the types above are asked for


def _name(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
