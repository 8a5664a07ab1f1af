"""The reader of plain DNS answers against dnspython: it says the same or nothing."""

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.clients import RecordType
from inbound.clients.dns_plain import plain

NAME = "mail.a.example"
SOA = ("a.example.", 900, "IN", "SOA", "ns.a.example. admin.a.example. 1 2 3 4 600")
RECORDS: dict[RecordType, list[str]] = {
    "A": ["192.0.2.1", "192.0.2.2"],
    "AAAA": ["2001:db8::1"],
    "MX": ["10 MX.a.example.", "20 b.example."],
    "NS": ["ns.a.example."],
    "PTR": ["Host.a.example."],
    "TXT": ['"v=spf1 " "-all"', '"another"'],
}
EXPECTED: dict[RecordType, tuple[str, ...]] = {
    "A": ("192.0.2.1", "192.0.2.2"),
    "AAAA": ("2001:db8::1",),
    "MX": ("10 mx.a.example", "20 b.example"),
    "NS": ("ns.a.example",),
    "PTR": ("host.a.example",),
    "TXT": ("v=spf1 -all", "another"),
}


def answer(
    rdtype: RecordType,
    *records: tuple[str, int, str, str, str],
    authority: tuple[tuple[str, int, str, str, str], ...] = (),
    rcode: int = 0,
    flags: int = 0,
    edns: int = 0,
) -> tuple[bytes, bytes]:
    """The question as it was asked, and a response to it."""
    query = dns.message.make_query(NAME, rdtype, use_edns=edns)
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.Rcode(rcode))
    response.flags |= flags
    for section, found in ((response.answer, records), (response.authority, authority)):
        for name, ttl, group, kind, text in found:
            section.append(dns.rrset.from_text(name, ttl, group, kind, text))
    wire = query.to_wire()
    return wire[12 : wire.index(b"\0", 12) + 5], response.to_wire()


@pytest.mark.parametrize("rdtype", RECORDS)
def test_records_of_the_very_name_and_type_are_read(rdtype: RecordType) -> None:
    found = [(f"{NAME}.", 300 + at, "IN", rdtype, text) for at, text in enumerate(RECORDS[rdtype])]

    read = plain(*answer(rdtype, *found), rdtype)

    assert read is not None
    assert (EXPECTED[rdtype], True, 300, False) == (read.records, read.exists, read.ttl, read.negative)


@pytest.mark.parametrize(("rcode", "exists"), [(0, True), (3, False)])
def test_that_there_is_nothing_keeps_as_long_as_the_soa_says(rcode: int, exists: bool) -> None:
    read = plain(*answer("TXT", authority=(SOA,), rcode=rcode), "TXT")

    assert read is not None
    assert ((), exists, 600, True) == (read.records, read.exists, read.ttl, read.negative)


@pytest.mark.parametrize("rcode", [0, 3])
def test_without_an_soa_nobody_says_how_long_nothing_keeps(rcode: int) -> None:
    read = plain(*answer("TXT", rcode=rcode), "TXT")

    assert read is not None
    assert ((), rcode, None, True) == (read.records, read.rcode(), read.ttl, read.negative)


def test_the_same_record_twice_is_one_and_another_division_into_strings_is_another_record() -> None:
    one, other = (f"{NAME}.", 300, "IN", "TXT", '"ab"'), (f"{NAME}.", 300, "IN", "TXT", '"a" "b"')
    _, alone = answer("TXT", one, edns=-1)
    question, both = answer("TXT", one, other, edns=-1)
    wire = both[:6] + b"\0\3" + both[8:] + alone[-15:]

    read = plain(question, wire, "TXT")

    assert read is not None
    assert read.records == ("ab", "ab")


NOT_PLAIN = {
    "an alias": answer(
        "A", (f"{NAME}.", 300, "IN", "CNAME", "b.example."), ("b.example.", 300, "IN", "A", "192.0.2.1")
    ),
    "SERVFAIL": answer("A", rcode=2),
    "truncated": answer("A", (f"{NAME}.", 300, "IN", "A", "192.0.2.1"), flags=dns.flags.TC),
    "the SOA of another zone": answer("A", authority=(("b.example.", *SOA[1:]),), rcode=3),
    "records with NXDOMAIN": answer("A", (f"{NAME}.", 300, "IN", "A", "192.0.2.1"), rcode=3),
    "another type": answer("A", (f"{NAME}.", 300, "IN", "TXT", '"x"')),
    "another class": answer("A", (f"{NAME}.", 300, "CH", "TXT", '"x"')),
    "another name": answer("A", ("b.example.", 300, "IN", "A", "192.0.2.1")),
    "a name that needs care": answer("PTR", (f"{NAME}.", 300, "IN", "PTR", r"a\.b.example.")),
}


@pytest.mark.parametrize("case", NOT_PLAIN)
def test_what_is_out_of_the_ordinary_is_left_to_dnspython(case: str) -> None:
    question, wire = NOT_PLAIN[case]
    rdtype: RecordType = "PTR" if case == "a name that needs care" else "A"

    assert plain(question, wire, rdtype) is None


@given(data=st.data())
def test_of_damaged_answers_it_says_what_dnspython_says_or_nothing(data: st.DataObject) -> None:
    rdtype = data.draw(st.sampled_from(sorted(RECORDS)))
    found = [(f"{NAME}.", 300, "IN", rdtype, text) for text in RECORDS[rdtype]]
    question, wire = answer(rdtype, *found) if data.draw(st.booleans()) else answer(rdtype, authority=(SOA,), rcode=3)
    octets = bytearray(wire)
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(2, len(octets) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(12, len(octets)))

    read = plain(question, bytes(octets[:cut]), rdtype)

    if read is not None:
        message = dns.message.from_wire(bytes(octets[:cut]), ignore_trailing=True)
        assert isinstance(message, dns.message.QueryMessage)
        chain = message.resolve_chaining()
        assert read.rcode() == message.rcode()
        assert read.ttl in (chain.minimum_ttl, None)
        assert (read.ttl is None) == (not message.answer and not message.authority)
        assert len(read.records) == len(chain.answer or ())


@given(st.binary(max_size=200))
def test_noise_is_not_plain_and_raises_nothing(noise: bytes) -> None:
    question, _ = answer("A")

    assert plain(question, noise, "A") is None
