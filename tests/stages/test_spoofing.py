"""Attacks on what a reader sees: every case is judged over real DNS, and nothing but the one domain that is seen may pass."""

import asyncio
import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import inbound
from inbound.stages.alignment import _seen_as_from
from inbound.testing import DnsServer
from inbound.verdicts import Verdicts
from tests.stages.builders import NOW
from tests.stages.signer import key_record, rsa_key, sign

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "cases" / "spoofing.yaml").read_text("utf-8"))
KEY, BANKS_KEY = rsa_key(2048), rsa_key(1024)
ZONE: dict[str, Any] = {
    "bank.example": {"TXT": ["v=spf1 -all"]},
    "_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]},
    "s1._domainkey.bank.example": {"TXT": [key_record(BANKS_KEY)]},
    "evil.example": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]},
    "_dmarc.evil.example": {"TXT": ["v=DMARC1; p=none"]},
    "s1._domainkey.evil.example": {"TXT": [key_record(KEY)]},
    "mx.evil.example": {"TXT": ["v=spf1 a -all"], "A": ["192.0.2.1"]},
}


def zone(case: dict[str, Any]) -> dict[str, Any]:
    """What DNS says: the attacker's names answer everything that is asked below them."""
    more = {
        name: {"TXT": [key_record(KEY)]} if entry == "key" else entry for name, entry in case.get("zone", {}).items()
    }
    for one in case.get("sign", ()):
        domain = one.get("tags", {}).get("d", "")
        if domain.endswith(".evil.example"):
            more[f"s1._domainkey.{domain}"] = {"TXT": [key_record(KEY)]}
    return {**ZONE, **more}


def message(case: dict[str, Any]) -> bytes:
    header = case.get("header") or "From: " + ", ".join(f"<a{at}@d{at}.example>" for at in range(case["header_many"]))
    raw: bytes = header.encode() + b"\r\nSubject: Your account\r\n\r\nPlease log in.\r\n"
    if b"\r\n\r\n" in header.encode():
        raw = header.encode() + b"\r\n"
    for one in case.get("sign", ()):
        given = {"header": "from:subject"} | one
        key = BANKS_KEY if given.pop("bank", False) else KEY
        given["tags"] = {"d": "evil.example", **given.get("tags", {})}
        raw = sign(raw, key=key, **{"name": "DKIM-Signature", **given})
    top: str = case.get("top", "")
    return top.encode() + raw


@functools.cache
def _all() -> list[Verdicts]:
    async def run() -> list[Verdicts]:
        found = []
        for case in CASES:
            server = await DnsServer(zone(case)).start()
            found.append(
                await inbound.authenticate(
                    message(case),
                    client_ip="192.0.2.1",
                    helo=case.get("helo", "mx.evil.example"),
                    mail_from=case.get("mail_from", "x@evil.example"),
                    resolver=server.address,
                    now=NOW,
                )
            )
            await server.stop()
        return found

    return asyncio.run(run())


@pytest.mark.parametrize("at", range(len(CASES)), ids=[case["it"] for case in CASES])
def test_nothing_passes_but_what_the_reader_sees(at: int) -> None:
    case, verdicts = CASES[at], _all()[at]
    assert case["expect"] == [verdicts.spf.result, verdicts.dkim.result, verdicts.dmarc.result], verdicts
    if verdicts.dmarc.result == "pass":
        assert verdicts.dmarc.from_domain == case["reader"]
    else:
        assert verdicts.dmarc.aligned == ()


_WHOLE_CLASSES = re.compile(rb"(?:\A[ \t]*|[\r\n\0])[^!-~ \t\r\n\0]*from[^!-~]*:", re.IGNORECASE)
_PARTS = [
    b"from",
    b"From",
    b"FROM",
    b":",
    b" ",
    b"\t",
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"\x01",
    b"\xe9",
    b"\x7f",
    b"a",
    b"~",
]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(parts=st.lists(st.sampled_from(_PARTS), max_size=14))
def test_what_is_seen_as_from_is_what_the_whole_classes_say(parts: list[bytes]) -> None:
    header = b"".join(parts)
    assert len(_WHOLE_CLASSES.findall(header)) == _seen_as_from(header)
