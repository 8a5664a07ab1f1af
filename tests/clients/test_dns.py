import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from inbound.clients import Answer, RecordType
from inbound.clients.dns import REFUSED, SERVFAIL, TIMEOUT, UNREACHABLE, Resolver, Server, parse_server
from inbound.errors import TemporaryFailure
from inbound.testing import DnsServer, FakeResolver, Records

ZONE: Records = {
    "a.example": {
        "A": ["192.0.2.1"],
        "AAAA": ["2001:db8::1"],
        "MX": ["10 MX.a.example", "20 mx2.a.example."],
        "TXT": ["v=spf1 -all", ["two ", "strings"], b"\xff\xfe"],
        "NS": ["ns.a.example"],
    },
    "1.2.0.192.in-addr.arpa": {"PTR": ["Host.a.example"]},
    "deep.below.b.example": {"A": ["192.0.2.2"]},
    "alias.example": {"CNAME": ["a.example"]},
    "dangling.example": {"CNAME": ["nowhere.example"]},
    "loop.example": {"CNAME": ["loop2.example"]},
    "loop2.example": {"CNAME": ["loop.example"]},
    "long.example": {"TXT": ["x" * 5000]},
    "broken.example": "SERVFAIL",
    "refused.example": "REFUSED",
    "silent.example": "TIMEOUT",
    "half.example": {"A": ["192.0.2.3"], "*": "TIMEOUT"},
    "a+b=c d.example": {"A": ["192.0.2.4"]},
}

Ask = Callable[[str, RecordType], Awaitable[Answer]]


def with_resolver(use: Callable[[Resolver, DnsServer], Awaitable[Any]], **more: Any) -> Any:
    async def run() -> Any:
        server = await DnsServer(ZONE, truncated=["a.example"]).start()
        resolver = Resolver(server.address, **({"deadline": 5.0} | more))
        try:
            return await use(resolver, server)
        finally:
            await resolver.close()
            await server.stop()

    return asyncio.run(run())


def ask(name: str, rdtype: RecordType) -> Answer:
    async def use(resolver: Resolver, _: DnsServer) -> Answer:
        return await resolver.query(name, rdtype)

    found: Answer = with_resolver(use)
    return found


@pytest.mark.parametrize(
    ("name", "rdtype", "records"),
    [
        ("a.example", "A", ["192.0.2.1"]),
        ("A.EXAMPLE.", "A", ["192.0.2.1"]),
        ("a.example", "AAAA", ["2001:db8::1"]),
        ("a.example", "MX", ["10 mx.a.example", "20 mx2.a.example"]),
        ("a.example", "TXT", ["two strings", "v=spf1 -all", "ÿþ"]),
        ("a.example", "NS", ["ns.a.example"]),
        ("1.2.0.192.in-addr.arpa", "PTR", ["host.a.example"]),
        ("alias.example", "A", ["192.0.2.1"]),
        ("alias.example", "CNAME", ["a.example"]),
        ("long.example", "TXT", ["x" * 5000]),
        ("a+b=c d.example", "A", ["192.0.2.4"]),
    ],
)
@pytest.mark.parametrize("fake", [False, True], ids=["over the wire", "in memory"])
def test_records_are_answered_in_one_form(name: str, rdtype: RecordType, records: list[str], *, fake: bool) -> None:
    answer = asyncio.run(FakeResolver(ZONE).query(name, rdtype)) if fake else ask(name, rdtype)
    assert records == sorted(answer.records)
    assert answer.exists
    assert answer.ttl == 300


@pytest.mark.parametrize(
    ("name", "exists"),
    [
        ("a.example", True),  # other types only
        ("b.example", True),  # an empty non-terminal, RFC 8020
        ("below.b.example", True),
        ("c.example", False),
        ("x.a.example", False),
        ("dangling.example", True),  # the alias does, RFC 6604
        ("loop.example", True),
    ],
)
@pytest.mark.parametrize("fake", [False, True], ids=["over the wire", "in memory"])
def test_a_name_without_the_records_and_a_name_that_does_not_exist_differ(
    name: str, *, exists: bool, fake: bool
) -> None:
    answer = asyncio.run(FakeResolver(ZONE).query(name, "PTR")) if fake else ask(name, "PTR")
    assert (exists, ()) == (answer.exists, answer.records)


@pytest.mark.parametrize(
    "name", ["", ".", "a..example", "x" * 64 + ".example", "a." * 127 + "example", "bücher.example"]
)
def test_a_name_that_cannot_be_asked_about_does_not_exist_and_nobody_is_asked(name: str) -> None:
    async def use(resolver: Resolver, server: DnsServer) -> tuple[Answer, list[Any]]:
        return await resolver.query(name, "A"), server.asked

    assert with_resolver(use) == (Answer(exists=False), [])


@pytest.mark.parametrize(
    ("name", "reason"), [("broken.example", SERVFAIL), ("refused.example", REFUSED), ("silent.example", TIMEOUT)]
)
def test_what_is_no_answer_is_a_temporary_failure_with_its_reason(name: str, reason: str) -> None:
    async def use(resolver: Resolver, _: DnsServer) -> tuple[str, int, int]:
        with pytest.raises(TemporaryFailure) as caught:
            await resolver.query(name, "A")
        return caught.value.reason, resolver.counters.timeouts, resolver.counters.failures

    timeouts = int(reason == TIMEOUT)
    assert with_resolver(use, deadline=0.3) == (reason, timeouts, 1 - timeouts)


def test_a_fault_can_be_of_some_types_only() -> None:
    assert ask("half.example", "A").records == ("192.0.2.3",)
    with pytest.raises(TemporaryFailure):
        asyncio.run(FakeResolver(ZONE).query("half.example", "TXT"))


def test_nobody_at_the_servers_address_is_a_temporary_failure() -> None:
    async def run() -> str:
        server = await DnsServer({}).start()
        await server.stop()
        with pytest.raises(TemporaryFailure) as caught:
            await Resolver(server.address, deadline=2.0).query("a.example", "A")
        return caught.value.reason

    assert asyncio.run(run()) == UNREACHABLE


def test_a_truncated_answer_is_asked_for_again_over_tcp() -> None:
    async def use(resolver: Resolver, server: DnsServer) -> list[Any]:
        await resolver.query("a.example", "A")
        await resolver.query("long.example", "TXT")
        return server.asked

    assert with_resolver(use) == [
        ("a.example", "A", "udp"),
        ("a.example", "A", "tcp"),
        ("long.example", "TXT", "udp"),
        ("long.example", "TXT", "tcp"),
    ]


@pytest.mark.parametrize("answers", [False, True], ids=["silence", "FORMERR"])
def test_a_server_that_does_not_know_edns_is_asked_without(*, answers: bool) -> None:
    class Old(DnsServer):
        async def respond(self, wire: bytes, *, tcp: bool) -> bytes | None:
            query = dns.message.from_wire(wire)
            if query.edns < 0:
                return await super().respond(wire, tcp=tcp)
            query.flags |= dns.flags.QR
            query.set_rcode(dns.rcode.FORMERR)
            return query.to_wire() if answers else None

    async def run() -> tuple[str, ...]:
        server = await Old(ZONE).start()
        found = await Resolver(server.address, deadline=0.9).query("alias.example", "A")
        await server.stop()
        return found.records

    assert asyncio.run(run()) == ("192.0.2.1",)


def test_an_answer_to_another_question_is_not_listened_to() -> None:
    class Confused(DnsServer):
        async def respond(self, wire: bytes, *, tcp: bool) -> bytes | None:
            return await super().respond(wire.replace(b"\x05other", b"\x05alias"), tcp=tcp)

    async def run() -> str:
        server = await Confused(ZONE).start()
        with pytest.raises(TemporaryFailure) as caught:
            await Resolver(server.address, deadline=0.3).query("other.example", "A")
        await server.stop()
        return caught.value.reason

    assert asyncio.run(run()) == TIMEOUT


def test_the_second_server_is_asked_when_the_first_one_fails() -> None:
    async def run() -> tuple[str, ...]:
        bad = await DnsServer({"example": "SERVFAIL", "a.example": "SERVFAIL"}).start()
        good = await DnsServer(ZONE).start()
        try:
            return (await Resolver(f"{bad.address}, {good.address}", deadline=5.0).query("a.example", "A")).records
        finally:
            await bad.stop()
            await good.stop()

    assert asyncio.run(run()) == ("192.0.2.1",)


def test_an_answer_is_kept_for_its_ttl_and_says_how_much_of_it_is_left() -> None:
    now = [1000.0]

    async def use(resolver: Resolver, server: DnsServer) -> list[int]:
        ttls = []
        for now[0] in (1000.0, 1100.5, 1299.9, 1300.0):
            ttls.append((await resolver.query("b.example", "A")).ttl)
            ttls.append((await resolver.query("alias.example", "A")).ttl)
        assert len(server.asked) == 4
        assert (resolver.counters.hits, resolver.counters.misses) == (4, 4)
        return ttls

    assert with_resolver(use, clock=lambda: now[0]) == [300, 300, 199, 199, 0, 0, 300, 300]


def test_a_failure_is_kept_for_a_second() -> None:
    now = [1000.0]

    async def use(resolver: Resolver, server: DnsServer) -> int:
        for now[0] in (1000.0, 1000.9, 1001.0):
            with pytest.raises(TemporaryFailure):
                await resolver.query("broken.example", "A")
        return len(server.asked)

    assert with_resolver(use, clock=lambda: now[0]) == 2


def test_the_cache_is_bounded_in_size_and_forgets_what_was_not_used() -> None:
    async def use(resolver: Resolver, server: DnsServer) -> list[str]:
        await resolver.query("a.example", "A")
        for at in range(50):
            await resolver.query("alias.example", "A")
            await resolver.query(f"n{at}.example", "A")
        server.asked.clear()
        await resolver.query("alias.example", "A")
        await resolver.query("a.example", "A")
        assert len(resolver._cache) <= 20
        return [name for name, _, _ in server.asked]

    assert with_resolver(use, cached_octets=20 * 520) == ["a.example", "a.example"]


def test_a_question_asked_by_many_at_once_is_asked_once() -> None:
    async def use(resolver: Resolver, server: DnsServer) -> tuple[int, int, int]:
        answers = await asyncio.gather(*(resolver.query("alias.example", "A") for _ in range(20)))
        assert len(set(answers)) == 1
        return len(server.asked), resolver.counters.misses, resolver.counters.joined

    assert with_resolver(use) == (1, 1, 19)


def test_one_who_gives_up_does_not_take_the_answer_from_the_others() -> None:
    async def use(resolver: Resolver, _: DnsServer) -> tuple[str, ...]:
        first = asyncio.create_task(resolver.query("alias.example", "A"))
        second = asyncio.create_task(resolver.query("alias.example", "A"))
        await asyncio.sleep(0)
        first.cancel()
        return (await second).records

    assert with_resolver(use) == ("192.0.2.1",)


def test_a_server_serves_other_processes_from_a_thread_of_its_own() -> None:
    with DnsServer(ZONE) as server:
        assert asyncio.run(Resolver(server.address).query("alias.example", "A")).records == ("192.0.2.1",)
    assert server.asked == [("alias.example", "A", "udp")]


def test_a_server_forwards_what_is_neither_its_own_nor_reserved() -> None:
    upstream = FakeResolver({"mail.com": {"A": ["192.0.2.8"], "TXT": [b"\xff"]}, "broken.com": "SERVFAIL"})

    async def run() -> list[Any]:
        server = await DnsServer({**ZONE, "x.example": {"CNAME": ["mail.com"]}}, forward=upstream).start()
        resolver = Resolver(server.address)
        found: list[Any] = [
            (await resolver.query("mail.com", "A")).records,
            (await resolver.query("mail.com", "TXT")).records,
            (await resolver.query("x.example", "A")).records,
            (await resolver.query("nosuch.com", "A")).exists,
            (await resolver.query("nosuch.example", "A")).exists,
        ]
        with pytest.raises(TemporaryFailure):
            await resolver.query("broken.com", "A")
        await server.stop()
        return found

    assert asyncio.run(run()) == [("192.0.2.8",), ("ÿ",), ("192.0.2.8",), False, False]
    assert ("nosuch.example", "A") not in upstream.asked


def test_a_zone_refuses_a_fault_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="no DNS fault"):
        FakeResolver({"a.example": {"A": "192.0.2.1"}})


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", Server(host="192.0.2.1", port=53)),
        ("127.0.0.1:5353", Server(host="127.0.0.1", port=5353)),
        ("2001:db8::1", Server(host="2001:db8::1", port=53)),
        ("[::1]:5353", Server(host="::1", port=5353)),
        ("[::1]", Server(host="::1", port=53)),
    ],
)
def test_a_server_is_written_with_or_without_port(text: str, server: Server) -> None:
    assert server == parse_server(text)


@pytest.mark.parametrize("text", ["", "dns.example", "127.0.0.1:0", "127.0.0.1:99999", "127.0.0.1:x", "[::1"])
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_server(text)
