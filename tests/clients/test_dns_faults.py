"""DNS servers that answer wrongly: what the resolver makes of it, and what that means for SPF, DKIM, DMARC and iprev."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest

import inbound
from inbound.clients import Answer
from inbound.clients.dns import BROKEN, LAME, REFUSED, SERVFAIL, TIMEOUT, UNREACHABLE, Resolver
from inbound.errors import TemporaryFailure
from inbound.testing import DnsServer
from inbound.verdicts import Verdicts
from tests.stages.builders import NOW
from tests.stages.signer import key_record, rsa_key, sign

SPF = "v=spf1 ip4:192.0.2.1 -all"
KEY = key_record(rsa_key())
ZONE: dict[str, Any] = {
    "sender.example": {"TXT": [SPF]},
    "s1._domainkey.sender.example": {"TXT": [KEY]},
    "_dmarc.sender.example": {"TXT": ["v=DMARC1; p=reject"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["mx.sender.example"]},
    "mx.sender.example": {"A": ["192.0.2.1"]},
}

Mangle = Callable[[dns.message.Message, bool], bytes | None]


def flagged(*flags: dns.flags.Flag, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, empty: bool = False) -> Mangle:
    def mangle(response: dns.message.Message, tcp: bool) -> bytes | None:  # noqa: ARG001
        for flag in flags:
            response.flags |= flag
        response.set_rcode(rcode)
        if empty:
            response.answer, response.authority = [], []
        return response.to_wire()

    return mangle


def cut(by: int) -> Mangle:
    """Over UDP it ends in the middle of a record and says so; over TCP it is whole."""

    def mangle(response: dns.message.Message, tcp: bool) -> bytes | None:
        if not tcp:
            response.use_edns(False)
            response.flags |= dns.flags.TC
        return response.to_wire() if tcp else response.to_wire()[:-by]

    return mangle


def instead(section: str, *records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Mangle:
    """These records and no others."""

    def mangle(response: dns.message.Message, tcp: bool) -> bytes | None:  # noqa: ARG001
        response.answer, response.authority = [], []
        sets = [dns.rrset.from_text(*_parts(record, response)) for record in records]
        getattr(response, section).extend(sets)
        response.set_rcode(rcode)
        return response.to_wire()

    return mangle


def _parts(record: str, response: dns.message.Message) -> tuple[Any, int, str, str, str]:
    owner, rdtype, text = record.split(" ", 2)
    name = response.question[0].name if owner == "@" else dns.name.from_text(owner)
    return name, 300, "IN", rdtype, text


def octets(change: Callable[[bytes], bytes | None]) -> Mangle:
    return lambda response, tcp: change(response.to_wire())  # noqa: ARG005


def over_udp(change: Callable[[bytes], bytes | None]) -> Mangle:
    return lambda response, tcp: response.to_wire() if tcp else change(response.to_wire())


def shouted(response: dns.message.Message, tcp: bool) -> bytes | None:  # noqa: ARG001
    wire = response.to_wire()
    end = wire.index(b"\0", 12)
    return wire[:12] + wire[12:end].upper() + wire[end:]


def looped(wire: bytes) -> bytes:
    at = wire.index(b"\xc0\x0c")  # the owner of the first record: "as in the question"
    return wire[:at] + bytes([0xC0, at]) + wire[at + 2 :]


GOOD = "the records"
SOA = "ns.example. h.example. 1 3600 600 86400 300"
FAULTS: list[tuple[str, Mangle, str]] = [
    ("nothing is wrong", flagged(), GOOD),
    ("SERVFAIL", flagged(rcode=dns.rcode.SERVFAIL, empty=True), SERVFAIL),
    ("SERVFAIL with the records", flagged(rcode=dns.rcode.SERVFAIL), SERVFAIL),
    ("REFUSED", flagged(rcode=dns.rcode.REFUSED, empty=True), REFUSED),
    ("NOTIMP", flagged(rcode=dns.rcode.NOTIMP, empty=True), REFUSED),
    ("FORMERR", flagged(rcode=dns.rcode.FORMERR, empty=True), BROKEN),
    ("NOTAUTH", flagged(rcode=dns.rcode.NOTAUTH, empty=True), BROKEN),
    ("YXDOMAIN", flagged(rcode=dns.rcode.YXDOMAIN, empty=True), BROKEN),
    ("NXDOMAIN", flagged(rcode=dns.rcode.NXDOMAIN, empty=True), "no such name"),
    ("NXDOMAIN with the records", flagged(rcode=dns.rcode.NXDOMAIN), BROKEN),
    ("NODATA without SOA", flagged(empty=True), "no records"),
    ("NODATA with SOA", instead("authority", f"example. SOA {SOA}"), "no records"),
    ("a referral", instead("authority", "example. NS ns.example."), LAME),
    ("a referral to the root", instead("authority", ". NS a.root-servers.net."), LAME),
    ("a referral with SOA", instead("authority", "example. NS ns.example.", f"example. SOA {SOA}"), "no records"),
    ("silence", octets(lambda _: None), TIMEOUT),
    ("silence over UDP to what would be truncated", over_udp(lambda _: None), TIMEOUT),
    ("truncated in the middle of a record", cut(3), GOOD),
    ("truncated to the header", over_udp(lambda wire: wire[:2] + bytes([wire[2] | 2]) + wire[3:12]), GOOD),
    ("truncated over TCP too", flagged(dns.flags.TC), BROKEN),
    ("another id", octets(lambda wire: bytes([wire[0] ^ 1]) + wire[1:]), TIMEOUT),
    ("a question instead of an answer", octets(lambda wire: wire[:2] + bytes([wire[2] & 0x7F]) + wire[3:]), TIMEOUT),
    ("no octets", octets(lambda _: b""), TIMEOUT),
    ("a header only", octets(lambda wire: wire[:12]), TIMEOUT),
    ("half a header", octets(lambda wire: wire[:5]), TIMEOUT),
    ("cut without saying so", octets(lambda wire: wire[:-20]), BROKEN),
    ("octets behind the answer", octets(lambda wire: wire + b"more"), GOOD),
    ("counts that are too large", octets(lambda wire: wire[:6] + b"\xff\xff" + wire[8:]), BROKEN),
    ("a name that points to itself", octets(looped), BROKEN),
    ("names in capitals", shouted, GOOD),
    ("records of another name", instead("answer", 'other.example. TXT "v=spf1 +all"'), "no records"),
    ("records of another type", instead("answer", "@ A 192.0.2.9"), "no records"),
    ("an alias of itself", instead("answer", "@ CNAME sender.example."), "no records"),
    ("an alias that leads nowhere", instead("answer", "@ CNAME gone.example.", rcode=dns.rcode.NXDOMAIN), "no records"),
]  # fmt: skip


class Faulty(DnsServer):
    """Answers what ends in `about` with the fault, everything else well."""

    about = ""
    mangle: Mangle = staticmethod(flagged())

    async def respond(self, wire: bytes, *, tcp: bool) -> bytes | None:
        answer = await super().respond(wire, tcp=tcp)
        question = dns.message.from_wire(wire).question[0].name.to_text(omit_final_dot=True)
        if answer is None or question != self.about:
            return answer
        return self.mangle(dns.message.from_wire(answer), tcp)


async def _with(about: str, mangle: Mangle, use: Callable[[str], Any]) -> Any:
    server = Faulty(ZONE)
    server.about, server.mangle = about, mangle
    await server.start()
    try:
        return await use(server.address)
    finally:
        await server.stop()


async def _outcome(about: str, mangle: Mangle) -> Answer | str:
    async def use(address: str) -> Answer | str:
        try:
            return await Resolver(address, deadline=3.0).query(about, "TXT")
        except TemporaryFailure as failure:
            return failure.reason

    found: Answer | str = await _with(about, mangle, use)
    return found


@functools.cache
def outcomes() -> list[Answer | str]:
    """Of all faults, side by side: silence takes its time."""

    async def run() -> list[Answer | str]:
        return await asyncio.gather(*(_outcome("sender.example", one[1]) for one in FAULTS))

    return asyncio.run(run())


@pytest.mark.parametrize("at", range(len(FAULTS)), ids=[one[0] for one in FAULTS])
def test_an_answer_is(at: int) -> None:
    found, expected = outcomes()[at], FAULTS[at][2]
    words = {
        GOOD: Answer(exists=True, records=(SPF,), ttl=300),
        "no records": Answer(exists=True),
        "no such name": Answer(exists=False),
    }
    if isinstance(found, Answer) and not found.records:
        found = Answer(exists=found.exists)
    assert found == words.get(expected, expected)


def test_nobody_answers_over_tcp_what_was_truncated() -> None:
    async def run() -> str:
        server = await DnsServer(ZONE, truncated=["sender.example"]).start()
        assert server._tcp
        server._tcp.close()
        try:
            await Resolver(server.address, deadline=0.6).query("sender.example", "TXT")
        except TemporaryFailure as failure:
            return failure.reason
        finally:
            await server.stop()
        return "an answer"

    assert asyncio.run(run()) == UNREACHABLE


def test_a_second_try_may_answer() -> None:
    """The first packet is lost, or comes with another id."""
    for lost in (None, b"\0\0\x81\x80" + bytes(8)):
        tries: list[int] = []

        def once(wire: bytes, lost: bytes | None = lost, tries: list[int] = tries) -> bytes | None:
            tries.append(1)
            return lost if len(tries) == 1 else wire

        found = asyncio.run(_outcome("sender.example", octets(once)))
        assert isinstance(found, Answer)
        assert found.records == (SPF,)


async def _judged(about: str, mangle: Mangle) -> list[str]:
    async def use(address: str) -> Verdicts:
        return await inbound.authenticate(
            sign(),
            client_ip="192.0.2.1",
            helo="mx.sender.example",
            mail_from="author@sender.example",
            resolver=Resolver(address, deadline=4.0),
            now=NOW,
            deadline=30,
        )

    found: Verdicts = await _with(about, mangle, use)
    return [found.spf.result, found.dkim.result, found.dmarc.result, found.iprev.result]


WHERE = ("sender.example", "s1._domainkey.sender.example", "_dmarc.sender.example", "1.2.0.192.in-addr.arpa")


@functools.cache
def judged() -> list[list[list[str]]]:
    """What becomes of SPF, DKIM, DMARC and iprev, for each fault at each of these names."""

    async def run() -> list[list[list[str]]]:
        found = await asyncio.gather(*(_judged(where, one[1]) for one in FAULTS for where in WHERE))
        return [list(found[at : at + len(WHERE)]) for at in range(0, len(found), len(WHERE))]

    return asyncio.run(run())


@pytest.mark.parametrize("at", range(len(FAULTS)), ids=[one[0] for one in FAULTS])
def test_what_is_no_answer_is_a_temperror_and_what_says_nothing_is_not(at: int) -> None:
    expected, well = FAULTS[at][2], "pass"
    nothing, spf, dmarc = ("permerror", "none", "none")
    if expected == GOOD:
        nothing = spf = dmarc = well
    elif expected not in ("no records", "no such name"):
        nothing = spf = dmarc = "temperror"
    assert judged()[at] == [
        [spf, well, well, well],  # the signature is aligned, and enough
        [well, nothing, well, well],  # SPF is, too
        [well, well, dmarc, well],
        [well, well, well, nothing],
    ]
