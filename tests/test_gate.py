"""Who may speak to us, and for whom."""

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address

import pytest

from inbound.clients import Answer, RecordType
from inbound.errors import TemporaryFailure
from inbound.gate import Gate
from inbound.reply import Reply
from inbound.settings import BlockList, DnsblZone
from inbound.verdicts import BlockVerdict, Listing

DOMAINS = ("ours.test", ".sub.test", "Bücher.example")


class Zones:
    """A resolver that knows these A records; an exception is raised instead of an answer."""

    def __init__(self, records: Mapping[str, tuple[str, ...] | Exception] | None = None) -> None:
        self.records = records or {}
        self.asked: list[str] = []

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        assert rdtype == "A"
        self.asked.append(name)
        answer = self.records.get(name)
        if isinstance(answer, Exception):
            raise answer
        return Answer(exists=answer is not None, records=answer or ())


def look_up(block_list: BlockList, ip: str, zones: Zones | None = None) -> BlockVerdict:
    return asyncio.run(Gate(block_list, DOMAINS, zones or Zones()).look_up(ip_address(ip)))


def denied(entry: str) -> BlockVerdict:
    return BlockVerdict(blocked=True, listings=(Listing(list="deny", entry=entry),))


def allowed(entry: str) -> BlockVerdict:
    return BlockVerdict(listings=(Listing(list="allow", entry=entry),))


NOBODY = BlockVerdict()

LISTS = [
    (("192.0.2.0/24",), (), "192.0.2.7", denied("192.0.2.0/24")),
    (("192.0.2.0/24",), (), "192.0.3.7", NOBODY),
    (("192.0.2.7",), (), "192.0.2.7", denied("192.0.2.7/32")),
    (("192.0.2.77/24",), (), "192.0.2.7", denied("192.0.2.0/24")),  # host bits do no harm
    (("0.0.0.0/0",), (), "192.0.2.7", denied("0.0.0.0/0")),
    (("0.0.0.0/0",), (), "2001:db8::1", NOBODY),
    (("2001:db8::/32",), (), "2001:db8:1::1", denied("2001:db8::/32")),
    (("::/0",), (), "192.0.2.7", NOBODY),
    (("192.0.2.0/24",), (), "::ffff:192.0.2.7", denied("192.0.2.0/24")),
    (("::ffff:192.0.2.0/120",), (), "192.0.2.7", denied("192.0.2.0/24")),
    (("0.0.0.0/0", "192.0.2.0/24", "192.0.2.6/31"), (), "192.0.2.7", denied("192.0.2.6/31")),
    (("192.0.2.0/24",), ("192.0.2.7",), "192.0.2.7", allowed("192.0.2.7/32")),
    (("192.0.2.7",), ("192.0.2.0/24",), "192.0.2.7", allowed("192.0.2.0/24")),  # allow is first, not the narrower
    (("192.0.2.0/24",), ("192.0.2.7",), "192.0.2.8", denied("192.0.2.0/24")),
]


@pytest.mark.parametrize(("deny", "allow", "ip", "expected"), LISTS)
def test_the_operators_lists(deny: tuple[str, ...], allow: tuple[str, ...], ip: str, expected: BlockVerdict) -> None:
    assert look_up(BlockList(deny=deny, allow=allow), ip) == expected


def test_a_list_of_twenty_thousand_networks_costs_one_look_for_each_prefix_length() -> None:
    deny = tuple(f"10.{n >> 8 & 255}.{n & 255}.{n >> 12 & 240}/28" for n in range(20_000))
    gate = Gate(BlockList(deny=deny), DOMAINS, Zones())
    assert asyncio.run(gate.look_up(ip_address("10.1.2.3"))) == denied("10.1.2.0/28")
    assert list(gate._deny._by_prefix) == [(4, 4)]


def test_who_is_allowed_or_denied_is_not_looked_up_in_dns() -> None:
    zones = Zones()
    lists = BlockList(allow=("192.0.2.1",), deny=("192.0.2.2",), dnsbl=(DnsblZone(zone="bl.test"),))
    look_up(lists, "192.0.2.1", zones)
    look_up(lists, "192.0.2.2", zones)
    assert zones.asked == []


def test_a_zone_is_asked_with_the_octets_or_nibbles_turned_round() -> None:
    zones = Zones()
    lists = BlockList(dnsbl=(DnsblZone(zone="BL.Test."),))
    look_up(lists, "192.0.2.99", zones)
    look_up(lists, "::ffff:192.0.2.98", zones)
    look_up(lists, "2001:db8:1:2:3:4:567:89ab", zones)
    assert zones.asked == [
        "99.2.0.192.bl.test",
        "98.2.0.192.bl.test",
        "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.test",  # RFC 5782 2.4
    ]


def listed(entry: str, meaning: str = "") -> BlockVerdict:
    return BlockVerdict(blocked=True, listings=(Listing(list="bl.test", entry=entry, meaning=meaning),))


UNANSWERED = BlockVerdict(unanswered=("bl.test",))
CODES = {"127.0.0.2": "spam source", "127.0.0.10": "dynamic", "127.0.0.11": "dynamic", "127.0.1.0/24": "bad domain"}

ANSWERS: list[tuple[dict[str, str], tuple[str, ...] | Exception, BlockVerdict]] = [
    ({}, ("127.0.0.2",), listed("127.0.0.2")),
    ({}, ("127.0.0.255",), listed("127.0.0.255")),
    ({}, ("127.0.0.10", "127.0.0.2"), listed("127.0.0.2, 127.0.0.10")),
    ({}, ("127.0.0.1",), NOBODY),
    ({}, ("127.0.0.0",), NOBODY),
    ({}, ("127.0.1.2",), NOBODY),
    ({}, (), NOBODY),
    ({}, ("127.255.255.254",), UNANSWERED),  # asked through an open resolver
    ({}, ("127.255.255.254", "127.0.0.2"), listed("127.0.0.2")),
    ({}, ("203.0.113.80",), UNANSWERED),  # the zone is dead, its domain parked
    ({}, ("203.0.113.80", "127.0.0.3"), listed("127.0.0.3")),
    ({}, ("not an address",), UNANSWERED),
    ({}, TemporaryFailure("dns-timeout"), UNANSWERED),
    ({}, RuntimeError("a bug"), UNANSWERED),
    (CODES, ("127.0.0.2",), listed("127.0.0.2", "spam source")),
    (CODES, ("127.0.0.3",), NOBODY),
    (CODES, ("127.0.0.3", "127.0.0.2"), listed("127.0.0.2", "spam source")),
    (
        CODES,
        ("127.0.0.10", "127.0.0.2", "127.0.0.11"),
        listed("127.0.0.2, 127.0.0.10, 127.0.0.11", "spam source, dynamic"),
    ),
    (CODES, ("127.0.1.77",), listed("127.0.1.77", "bad domain")),
    ({"127.255.255.0/24": "never"}, ("127.255.255.254",), UNANSWERED),
]


@pytest.mark.parametrize(("codes", "records", "expected"), ANSWERS)
def test_return_codes_mean_what_the_settings_say(
    codes: dict[str, str], records: tuple[str, ...] | Exception, expected: BlockVerdict
) -> None:
    zones = Zones({"7.2.0.192.bl.test": records})
    assert look_up(BlockList(dnsbl=(DnsblZone(zone="bl.test", codes=codes),)), "192.0.2.7", zones) == expected


def test_all_zones_are_asked_at_the_same_time() -> None:
    class Slow(Zones):
        everybody_is_here = asyncio.Barrier(3)

        async def query(self, name: str, rdtype: RecordType) -> Answer:
            await self.everybody_is_here.wait()
            return await super().query(name, rdtype)

    zones = Slow({"7.2.0.192.b.test": ("127.0.0.2",), "7.2.0.192.c.test": TemporaryFailure("dns-timeout")})
    lists = BlockList(dnsbl=tuple(DnsblZone(zone=zone) for zone in ("a.test", "b.test", "c.test")))
    expected = BlockVerdict(blocked=True, listings=(Listing(list="b.test", entry="127.0.0.2"),), unanswered=("c.test",))
    assert look_up(lists, "192.0.2.7", zones) == expected


OURS = [
    ("a@ours.test", True),
    ("a@OURS.Test", True),
    ("a@ours.test.", True),
    ("a@x.ours.test", False),
    ("a@notours.test", False),
    ("a@sub.test", False),
    ("a@x.sub.test", True),
    ("a@x.Y.Sub.test", True),
    ("a@xsub.test", False),
    ("a@bücher.example", True),
    ("a@BÜCHER.example", True),
    ("a@xn--bcher-kva.example", True),
    ("a@test", False),
    ("a@", False),
    ("a@[127.0.0.1]", False),
    ("Postmaster", True),
    ("root", False),
    ("", False),
    ('"a@elsewhere.test"@ours.test', True),
    ("a@ours.test@elsewhere.test", False),
    ("elsewhere.test!a@ours.test", True),
    ("a%elsewhere.test@ours.test", True),  # ours to look at; nothing is ever routed by what is before the last @
]


@pytest.mark.parametrize(("recipient", "ours"), OURS)
def test_mail_is_taken_for_our_domains_only(recipient: str, ours: bool) -> None:
    reply = Gate(BlockList(), DOMAINS, Zones()).answer(NOBODY, recipient)
    expected = None if ours else Reply(550, "5.7.1", "not relaying: that domain does not receive its mail here")
    assert reply == expected


def test_a_blocked_client_is_told_by_whom() -> None:
    gate = Gate(BlockList(), DOMAINS, Zones())
    assert gate.answer(denied("192.0.2.0/24"), "a@ours.test") == (
        Reply(554, "5.7.1", "your address is on the deny list of this server")
    )
    assert gate.answer(listed("127.0.0.2", "spam source"), "a@ours.test") == (
        Reply(554, "5.7.1", "your address is listed by bl.test (spam source)")
    )
    assert gate.answer(listed("127.0.0.2"), "a@ours.test") == Reply(554, "5.7.1", "your address is listed by bl.test")
    assert gate.answer(allowed("192.0.2.0/24"), "a@ours.test") is None


def test_a_meaning_that_no_reply_can_hold_is_made_fit() -> None:
    gate = Gate(BlockList(), DOMAINS, Zones())
    assert gate.answer(listed("127.0.0.2", "schädlich\r\n250 ok"), "a@ours.test") == (
        Reply(554, "5.7.1", "your address is listed by bl.test (sch?dlich??250 ok)")
    )
    assert gate.answer(listed("127.0.0.2", "x" * 1000), "a@ours.test") is not None


def test_record_only_lets_a_listing_pass_but_never_relays() -> None:
    gate = Gate(BlockList(record_only=True), DOMAINS, Zones())
    assert gate.answer(denied("192.0.2.0/24"), "a@ours.test") is None
    assert gate.answer(denied("192.0.2.0/24"), "a@elsewhere.test") == (
        Reply(550, "5.7.1", "not relaying: that domain does not receive its mail here")
    )
