"""Fakes and builders that tests, samples and the demo share: DNS as data, in memory or over real UDP and TCP.

1. A `Zone` is what DNS says, as data: `{"sender.example": {"TXT": ["v=spf1 -all"], "MX": ["10 mx.sender.example"]}}`.
   A name that has a name below it exists, though it has no records (RFC 8020); everything else that is not there is NXDOMAIN.
2. A fault stands where records would: for a whole name (`{"broken.example": "SERVFAIL"}`), for one type, or as type `*` for
   every type not listed.
3. `FakeResolver` asks a zone directly; `DnsServer` serves it on a free port of 127.0.0.1.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, cast, get_args

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from inbound.clients import Answer, RecordType
from inbound.errors import TemporaryFailure
from inbound.stages import Resolver

Fault = Literal["SERVFAIL", "REFUSED", "FORMERR", "NXDOMAIN", "TIMEOUT"]
Record = str | bytes | Sequence[str | bytes]  # a TXT record of several strings is a sequence; text is UTF-8 on the wire
Records = Mapping[str, Fault | str | Mapping[str, str | Sequence[Record]]]

RESERVED = ("example", "test", "invalid", "localhost", "example.com", "example.net", "example.org")  # RFC 2606, 6761
RESERVED_ADDRESSES = (
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa",
)
LONGEST_CHAIN = 16  # CNAMEs followed for one question


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a zone says: the CNAMEs on the way (owner, target), the records at `owner`, or a fault, or that it is not ours."""

    chain: tuple[tuple[str, str], ...] = ()
    owner: str = ""
    records: tuple[Record, ...] = ()
    exists: bool = True
    fault: Fault | None = None


class Zone:
    """Everything a server is authoritative for."""

    def __init__(self, records: Records) -> None:
        self._names = {_fold(name): _by_type(entry) for name, entry in records.items()}
        self._parents = {parent for name in self._names for parent in _parents(name)}

    def holds(self, name: str) -> bool:
        """The name, or one below it, has an entry."""
        return _fold(name) in self._names or _fold(name) in self._parents

    def find(self, name: str, rdtype: str) -> Found:
        """Follow CNAMEs to the records of that type."""
        chain: list[tuple[str, str]] = []
        owner = _fold(name)
        while len(chain) < LONGEST_CHAIN:
            entry = self._names.get(owner)
            if entry is None:
                return Found(chain=tuple(chain), owner=owner, exists=owner in self._parents)
            found = entry.get(rdtype, entry.get("*", () if "CNAME" not in entry else None))
            if found is None:
                target = _fold(str(cast("tuple[Record, ...]", entry["CNAME"])[0]))
                chain.append((owner, target))
                owner = target
            elif isinstance(found, str):
                return Found(chain=tuple(chain), owner=owner, fault=found)
            else:
                return Found(chain=tuple(chain), owner=owner, records=found)
        return Found(chain=tuple(chain), owner=owner)


def _fold(name: str) -> str:
    return name.rstrip(".").lower()


def _parents(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[at:]) for at in range(1, len(labels))]


def _by_type(
    entry: str | Mapping[str, str | Sequence[Record]],
) -> dict[str, Fault | tuple[Record, ...]]:
    if isinstance(entry, str):
        return {"*": _fault(entry)}
    return {
        rdtype.upper(): _fault(records) if isinstance(records, str) else tuple(records)
        for rdtype, records in entry.items()
    }


def _fault(word: str) -> Fault:
    if word not in get_args(Fault):
        raise ValueError(f"{word!r} is no DNS fault; records are a list, faults are {', '.join(get_args(Fault))}")
    return cast("Fault", word)


class FakeResolver:
    """A resolver over a zone in memory. `asked` lists every question in order."""

    def __init__(self, records: Records, *, ttl: int = 300) -> None:
        self.asked: list[tuple[str, str]] = []
        self._zone = Zone(records)
        self._ttl = ttl

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        """Answer from the zone. A fault raises TemporaryFailure, TIMEOUT at once."""
        self.asked.append((name, rdtype))
        found = self._zone.find(name, rdtype)
        if found.fault and found.fault != "NXDOMAIN":
            raise TemporaryFailure(f"dns {found.fault.lower()}", f"{name} {rdtype}")
        records = tuple(_plain(record, rdtype) for record in found.records)
        exists = bool(found.chain) or (found.exists and found.fault is None)
        return Answer(exists=exists, records=records, ttl=self._ttl)


def _octets(record: str | bytes) -> bytes:
    return record.encode() if isinstance(record, str) else record


def _plain(record: Record, rdtype: str) -> str:
    """A record as `Answer` has it."""
    if rdtype == "TXT":
        strings = (record,) if isinstance(record, str | bytes) else record
        return b"".join(_octets(string) for string in strings).decode("latin-1")
    text = str(record)
    return text if rdtype in ("A", "AAAA") else _fold(text)


class DnsServer:
    """Serves a zone over UDP and TCP on one free port of 127.0.0.1, to a program in any process.

    `with DnsServer(records) as server:` runs it in a thread of its own; `await server.start()` in the running loop.
    Names in `truncated` answer over UDP with TC and nothing else, so a client must ask again over TCP; so does every answer
    that is longer than the client takes. `forward` is asked about names outside of the zone and of the reserved domains.
    `asked` lists every question: name, type and "udp" or "tcp".
    """

    def __init__(
        self,
        records: Records,
        *,
        truncated: Collection[str] = (),
        ttl: int = 300,
        forward: Resolver | None = None,
    ) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.port = 0
        self._zone = Zone(records)
        self._truncated = frozenset(_fold(name) for name in truncated)
        self._ttl = ttl
        self._forward = forward
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`, as a resolver setting has it."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> Self:
        """Listen in the running loop."""
        loop = asyncio.get_running_loop()
        while self._udp is None:
            self._tcp = await asyncio.start_server(self._connected, "127.0.0.1", 0)
            self.port = self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port), family=socket.AF_INET
                )
            except OSError:  # the port is free for TCP, but not for UDP
                self._tcp.close()
        return self

    async def stop(self) -> None:
        """Stop listening."""
        if self._tcp is not None:
            self._tcp.close()
        if self._udp is not None:
            self._udp.close()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dns-server", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _wind_up(self) -> None:
        await self.stop()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                answer = await self.respond(await reader.readexactly(size), tcp=True)
                if answer:
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    await writer.drain()
        writer.close()

    async def respond(self, wire: bytes, *, tcp: bool) -> bytes | None:
        """The answer to one question, None where there is none to be given (no question, or TIMEOUT)."""
        try:
            query = dns.message.from_wire(wire)
            question = query.question[0]
        except (dns.exception.DNSException, IndexError):
            return None
        name = b".".join(question.name.labels).rstrip(b".").decode("utf-8", "replace")
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, rdtype, "tcp" if tcp else "udp"))
        response = dns.message.make_response(query, recursion_available=True)
        if _fold(name) in self._truncated and not tcp:
            response.flags |= dns.flags.TC
            return response.to_wire()
        found = await self._found(name, rdtype)
        if found.fault == "TIMEOUT":
            return None
        self._fill(response, found, question)
        limit = 65_535 if tcp else max(query.payload, 512)
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            bare = dns.message.make_response(query, recursion_available=True)
            bare.flags |= dns.flags.TC
            return bare.to_wire()

    async def _found(self, name: str, rdtype: str) -> Found:
        found = self._zone.find(name, rdtype)
        last = found.chain[-1][1] if found.chain else _fold(name)
        if self._forward is None or self._zone.holds(last) or _reserved(last) or rdtype not in get_args(RecordType):
            return found
        try:
            answer = await self._forward.query(last, cast("RecordType", rdtype))
        except TemporaryFailure:
            return Found(chain=found.chain, owner=last, fault="SERVFAIL")
        records = tuple(text.encode("latin-1") if rdtype == "TXT" else text for text in answer.records)
        return Found(chain=found.chain, owner=last, records=records, exists=answer.exists)

    def _fill(self, response: dns.message.Message, found: Found, question: dns.rrset.RRset) -> None:
        owner = question.name
        for _, target in found.chain:
            rdata = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.CNAME, f"{_escaped(target)}.")
            response.answer.append(dns.rrset.from_rdata(owner, self._ttl, rdata))
            owner = dns.name.from_text(_escaped(target))
        if found.fault:
            response.set_rcode(dns.rcode.from_text(found.fault))
        elif found.records:
            rdatas = [_rdata(record, question.rdtype) for record in found.records]
            response.answer.append(dns.rrset.from_rdata(owner, self._ttl, *rdatas))
        elif not found.exists:
            response.set_rcode(dns.rcode.NXDOMAIN)
        response.flags |= dns.flags.AA
        if not found.records:  # RFC 2308: how long the negative answer keeps
            soa = f"ns.invalid. nobody.invalid. 1 3600 600 86400 {self._ttl}"
            rdata = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.SOA, soa)
            response.authority.append(dns.rrset.from_rdata(dns.name.root, self._ttl, rdata))


def _reserved(name: str) -> bool:
    return any(name == domain or name.endswith(f".{domain}") for domain in (*RESERVED, *RESERVED_ADDRESSES))


def _escaped(name: str) -> str:
    r"""The name in master file form (RFC 1035 5.1): what is no letter, digit, `-`, `_` or dot as `\DDD`."""
    plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.*"
    return "".join(chr(octet) if chr(octet) in plain else f"\\{octet:03d}" for octet in name.encode())


def _rdata(record: Record, rdtype: dns.rdatatype.RdataType) -> dns.rdata.Rdata:
    if rdtype == dns.rdatatype.TXT:
        strings = (record,) if isinstance(record, str | bytes) else record
        octets = [_octets(string) for string in strings]
        chunks = [string[at : at + 255] for string in octets for at in range(0, max(len(string), 1), 255)]
        wire = b"".join(bytes([len(chunk)]) + chunk for chunk in chunks)
        return dns.rdata.from_wire(dns.rdataclass.IN, rdtype, wire, 0, len(wire))
    text = str(record)
    if rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
        return dns.rdata.from_text(dns.rdataclass.IN, rdtype, text)
    *front, name = text.split(" ") if rdtype == dns.rdatatype.MX else [text]
    return dns.rdata.from_text(dns.rdataclass.IN, rdtype, " ".join([*front, f"{_escaped(_fold(name))}."]))


class _Datagrams(asyncio.DatagramProtocol):
    """UDP: each question is answered in a task of its own, so that one without an answer holds up nobody."""

    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = await self._server.respond(data, tcp=False)
        if answer and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, addr)
