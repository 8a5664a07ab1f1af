import asyncio
from ipaddress import ip_address

import pytest

from inbound.stages.iprev import MOST_NAMES, Iprev
from inbound.testing import FakeResolver, Records
from inbound.verdicts import IprevVerdict
from tests.stages.builders import mail_from

REVERSE = "1.2.0.192.in-addr.arpa"
REVERSE6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"


@pytest.mark.parametrize(
    ("ip", "records", "verdict"),
    [
        (
            "192.0.2.1",
            {REVERSE: {"PTR": ["Mx.a.example."]}, "mx.a.example": {"A": ["192.0.2.1"]}},
            IprevVerdict(result="pass", name="mx.a.example"),
        ),
        (
            "::ffff:192.0.2.1",
            {REVERSE: {"PTR": ["mx.a.example"]}, "mx.a.example": {"A": ["192.0.2.1"]}},
            IprevVerdict(result="pass", name="mx.a.example"),
        ),
        (
            "2001:db8::1",
            {REVERSE6: {"PTR": ["mx.a.example"]}, "mx.a.example": {"AAAA": ["2001:db8::1"]}},
            IprevVerdict(result="pass", name="mx.a.example"),
        ),
        (
            "192.0.2.1",
            {REVERSE: {"PTR": ["a.example", "b.example"]}, "a.example": "SERVFAIL", "b.example": {"A": ["192.0.2.1"]}},
            IprevVerdict(result="pass", name="b.example"),
        ),
        (
            "192.0.2.1",
            {REVERSE: {"PTR": ["a.example"]}, "a.example": {"A": ["192.0.2.2"]}},
            IprevVerdict(result="fail", reason="a.example does not lead back"),
        ),
        (
            "192.0.2.1",
            {REVERSE: {"PTR": ["a.example"]}},
            IprevVerdict(result="fail", reason="a.example does not lead back"),
        ),
        ("192.0.2.1", {}, IprevVerdict(result="permerror", reason="the address has no name")),
        ("192.0.2.1", {REVERSE: "SERVFAIL"}, IprevVerdict(result="temperror", reason=f"dns servfail: {REVERSE} PTR")),
        (
            "192.0.2.1",
            {REVERSE: {"PTR": ["a.example"]}, "a.example": "TIMEOUT"},
            IprevVerdict(result="temperror", reason="dns timeout: a.example A"),
        ),
    ],
)
def test_a_client_is_known_by_a_name_that_leads_back(ip: str, records: Records, verdict: IprevVerdict) -> None:
    assert verdict == asyncio.run(Iprev(FakeResolver(records))(mail_from(client_ip=ip_address(ip))))


def test_a_client_with_a_thousand_names_is_asked_about_ten() -> None:
    resolver = FakeResolver({REVERSE: {"PTR": [f"n{at}.example" for at in range(1000)]}})
    assert asyncio.run(Iprev(resolver)(mail_from())).result == "fail"
    assert len(resolver.asked) == 1 + MOST_NAMES
