"""Who may have a domain's reports."""

import asyncio
from typing import Any

import pytest

from inbound.reports.rua import destinations
from inbound.testing import FakeResolver

ZONE: dict[str, Any] = {
    "_dmarc.a.example": {"TXT": ["v=DMARC1; p=none"]},
    "a.example._report._dmarc.agreed.test": {"TXT": ["v=DMARC1"]},
    "a.example._report._dmarc.moved.test": {"TXT": ["v=DMARC1; rua=mailto:new@moved.test"]},
    "a.example._report._dmarc.passes-on.test": {"TXT": ["v=DMARC1; rua=mailto:x@victim.test"]},
    "a.example._report._dmarc.says-other.test": {"TXT": ["v=spf1 -all", "v=dmarc1", "x; v=DMARC1"]},
    "*._report._dmarc.wild.test": {"TXT": ["v=DMARC1"]},
    "a.example._report._dmarc.down.test": "SERVFAIL",
}


def found(rua: str, domain: str = "a.example") -> list[tuple[str, str]]:
    record = f"v=DMARC1; p=none; rua={rua}"
    return [(one.address, one.refused) for one in asyncio.run(destinations(domain, record, FakeResolver(ZONE)))]


@pytest.mark.parametrize(
    ("rua", "expected"),
    [
        ("mailto:r@a.example", [("r@a.example", "")]),
        ("MAILTO:r@A.example!10m", [("r@a.example", "")]),
        ("mailto:r%2Bx@a.example", [("r+x@a.example", "")]),
        ("mailto:r@mail.a.example , mailto:r@mail.a.example", [("r@mail.a.example", "")]),
        ("mailto:r@agreed.test", [("r@agreed.test", "")]),
        ("mailto:old@moved.test", [("new@moved.test", "")]),
        ("mailto:r@passes-on.test", [("r@passes-on.test", "passes-on.test hands reports on to another host")]),
        (
            "mailto:r@says-other.test",
            [("r@says-other.test", "says-other.test has not agreed to reports about a.example")],
        ),
        ("mailto:r@victim.test", [("r@victim.test", "victim.test has not agreed to reports about a.example")]),
        ("mailto:r@down.test", [("r@down.test", "dns servfail")]),
        ("https://a.example/r", []),
        ("mailto:", []),
        ("mailto:r@a.example%0d%0aBcc: x@b.example", []),
        ("mailto:r%0a@a.example", []),
        ("mailto:a@b@a.example", []),
        ("", []),
    ],
)
def test_only_addresses_of_the_domain_or_of_who_agreed(rua: str, expected: list[tuple[str, str]]) -> None:
    assert found(rua) == expected


def test_a_record_of_many_addresses_is_bounded() -> None:
    assert len(found(",".join(f"mailto:r{number}@a.example" for number in range(1000)))) == 10


def test_a_name_too_long_for_dns_confirms_nothing() -> None:
    domain = ".".join(["a" * 60] * 3 + ["a.example"])
    host = ".".join(["b" * 60] * 2 + ["test"])
    ((_, refused),) = found(f"mailto:r@{host}", domain)
    assert refused.endswith("has not agreed to reports about " + domain)
