"""Mail and records made to burn time: each takes hours where a step is quadratic, and well under a second here."""

import asyncio
import base64
import time
from typing import Any

import pytest

from inbound.clients import Answer
from inbound.mail import HeaderField
from inbound.stages.arc import Arc
from inbound.stages.canonical import seal_hashes
from inbound.stages.dkim import Dkim
from inbound.stages.dmarc import Dmarc
from inbound.stages.spf import Spf
from inbound.testing import FakeResolver, Records
from inbound.verdicts import DkimVerdict, DmarcVerdict, SpfVerdict, Status
from tests.stages.builders import NOW, mail_from
from tests.stages.signer import MESSAGE, key_record, rsa_key, sign

pytestmark = pytest.mark.timeout(30)

MIB = 1024 * 1024
KEY = "s1._domainkey.sender.example"
ZONE: Records = {KEY: {"TXT": [key_record(rsa_key())]}}


def dkim(raw: bytes, zone: Records = ZONE) -> DkimVerdict:
    return asyncio.run(Dkim(FakeResolver(zone), now=lambda: NOW)(mail_from(raw=raw)))


def dmarc(text: str) -> DmarcVerdict:
    resolver = FakeResolver({"_dmarc.sender.example": {"TXT": [text]}})
    none = DkimVerdict(status=Status.GRAY, result="none")
    return asyncio.run(Dmarc(resolver)(mail_from(), SpfVerdict(status=Status.GRAY, result="none"), none))


def spf(record: str, **zone: Any) -> SpfVerdict:
    resolver = FakeResolver({"sender.example": {"TXT": [record]}} | zone)
    return asyncio.run(Spf(resolver, now=lambda: NOW)(mail_from()))


@pytest.mark.parametrize(
    "body",
    [
        b" " * (5 * MIB) + b"\r\n",
        b"\t " * (2 * MIB) + b"x\r\n",
        (b" " * 990 + b"x\r\n") * 5000,
        b"\r\n" * (2 * MIB),
        b" \r\n" * (2 * MIB),
        b"\n\r" * MIB,
        (b"x" + b" " * 300_000) * 10 + b"\r\n",
    ],
    ids=[
        "one line of blanks",
        "tabs and blanks",
        "lines of blanks",
        "empty lines",
        "blank lines",
        "line ends reversed",
        "gaps",
    ],
)
@pytest.mark.parametrize("how", ["simple", "relaxed"])
def test_a_body_of_blanks_is_hashed_in_linear_time(body: bytes, how: str) -> None:
    header = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    signature = sign(header + b"x\r\n", canonicalization=("relaxed", how)).removesuffix(header + b"x\r\n")
    assert dkim(signature + header + body).result == "fail"


def test_a_signed_field_of_two_megabytes_of_folds_is_hashed_in_linear_time() -> None:
    folded = b"X-Folded: a" + b"\r\n \t b" * (2 * MIB // 6) + b"\r\n"
    message = folded + MESSAGE
    signature = sign(MESSAGE, header="from:x-folded").removesuffix(MESSAGE)
    assert dkim(signature + message).result == "fail"


def test_ten_thousand_fields_and_as_many_names_in_h_take_linear_time() -> None:
    fields = b"".join(b"X-%d: %d\r\n" % (at, at) for at in range(10_000))
    names = ":".join(["from", *(f"x-{at % 1000}" for at in range(2000))])
    raw = sign(MESSAGE, header="from", tags={"h": names})
    assert dkim(raw.removesuffix(MESSAGE) + fields + MESSAGE).result == "fail"


def test_a_thousand_signatures_cost_ten() -> None:
    raw = MESSAGE
    signature = sign().removesuffix(MESSAGE)
    resolver = FakeResolver(ZONE)
    verdict = asyncio.run(Dkim(resolver, now=lambda: NOW)(mail_from(raw=signature * 1000 + raw)))
    assert len(verdict.signatures) == 1000
    assert len([name for name, _ in resolver.asked if name == KEY]) == 10


@pytest.mark.parametrize(
    "value",
    [
        b"b=" + b" " * 15_000,
        b"b=" + b"\r\n " * 5000 + b"!",
        b";" * 15_000,
        b"=" * 15_000,
        b"a" * 15_000,
        b"h=" + b":" * 15_000,
        b"v=1; a=rsa-sha256; d=sender.example; s=s1; h=from; bh=AAAA; b=" + b"A \r\n\t" * 3000,
        b"v=1; a=rsa-sha256; d=" + b"a." * 7000 + b"; s=s1; h=from; bh=AAAA; b=AAAA",
        b"v=1; l=" + b"9" * 15_000 + b"; a=rsa-sha256; d=sender.example; s=s1; h=from; bh=AAAA; b=AAAA",
        b"x" * (2 * MIB),
    ],
)
def test_a_signature_field_made_to_be_slow_is_read_in_linear_time(value: bytes) -> None:
    assert dkim(b"DKIM-Signature: " + value + b"\r\n" + MESSAGE).result in ("permerror", "fail")


@pytest.mark.parametrize(
    "record",
    [
        "v=DKIM1; k=rsa; p=" + "A" * 11_000,
        "p=" + "MIIB" * 1000,
        ";" * 4000,
        "v=DKIM1; p=" + " " * 3000 + "AAAA",
        "v=DKIM1; h=" + ":" * 4000,
    ],
)
def test_a_key_record_made_to_be_slow_is_read_in_linear_time(record: str) -> None:
    assert dkim(sign(), {KEY: {"TXT": [record] * 100}}).result == "permerror"


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 " + "a:%{d}." * 3000,
        "v=spf1 " + "x" * 20_000,
        "v=spf1 " + "a" * 500 + ".b " * 6000,
        "v=spf1 exists:" + "%{" * 9000,
        "v=spf1 exists:" + "a." * 9000 + "%",
        "v=spf1 a:" + "." * 20_000,
        "v=spf1 " + "ip4:192.0.2.2 " * 1500,
        "v=spf1 ip4:" + "1" * 20_000,
        "v=spf1 ip6:" + ":" * 500,
        "v=spf1 a/" + "9" * 500,
        "v=spf1 include:" + "%{d}." * 90 + "example",
    ],
)
def test_an_spf_record_made_to_be_slow_is_a_permerror(record: str) -> None:
    assert (spf(record).status, spf(record).result) == (Status.GRAY, "permerror")


def test_the_longest_spf_record_that_is_read_takes_no_time() -> None:
    record = "v=spf1 " + "ip4:192.0.2.9 " * 580 + "ip4:192.0.2.1 -all"
    assert spf(record).result == "pass"


@pytest.mark.parametrize(
    "text", ["v=DMARC1;" + ";" * 8000, "v=DMARC1; p=" + " " * 8000, "v=DMARC1; p=none; rua=" + "mailto:a@b," * 700]
)
def test_a_dmarc_record_made_to_be_slow_is_read_in_linear_time(text: str) -> None:
    assert dmarc(text).result in ("none", "fail")


@pytest.mark.parametrize(
    "filling", [b"\n", b"\0", b"\x80", b"from", b"\nfrom", b"\nfrom\x80", b" ", b"\r\n from", b"<", b"< "]
)
def test_a_header_made_to_look_like_many_authors_is_read_in_linear_time(filling: bytes) -> None:
    mail = mail_from(raw=b"X: " + filling * (MIB // len(filling)) + b"\r\nFrom: " + filling * 8000 + b"\r\n\r\n")
    none = DkimVerdict(status=Status.GRAY, result="none")
    verdict = asyncio.run(Dmarc(FakeResolver({}))(mail, SpfVerdict(status=Status.GRAY, result="none"), none))
    assert verdict.status is Status.FAIL


def test_a_chain_of_fifty_empty_sets_is_refused_before_any_question() -> None:
    sets = b"".join(
        b"ARC-Seal: i=%d; cv=pass\r\nARC-Message-Signature: i=%d;\r\nARC-Authentication-Results: i=%d; x\r\n"
        % (at, at, at)
        for at in range(50, 0, -1)
    )
    resolver = FakeResolver({})
    assert asyncio.run(Arc(resolver)(mail_from(raw=sets + MESSAGE))).result == "fail"
    assert not resolver.asked


def test_a_key_of_sixteen_thousand_bits_is_refused_unverified() -> None:
    der = bytes.fromhex("3082080a0282080100") + b"\xff" * 2048 + bytes.fromhex("0203010001")
    verdict = dkim(sign(), {KEY: {"TXT": [f"v=DKIM1; p={base64.b64encode(der).decode()}"]}})
    assert verdict.signatures[0].reason in ("a key of 16384 bits", "the key cannot be read")


class Endless:
    """A resolver whose every answer is as big as DNS allows."""

    def __init__(self) -> None:
        self.asked = 0

    async def query(self, name: str, rdtype: str) -> Answer:
        self.asked += 1
        if rdtype == "TXT":
            return Answer(exists=True, records=(f"v=spf1 include:a.{name[-200:]} include:b.{name[-200:]} -all",))
        return Answer(exists=True, records=("192.0.2.99",) * 1000)


@pytest.mark.parametrize("client", ["pass", "mx"])
def test_an_spf_record_that_includes_itself_over_and_over_ends_at_the_limit(client: str) -> None:
    resolver = Endless()
    verdict = asyncio.run(Spf(resolver, now=lambda: NOW)(mail_from(f"{client}@sender.example")))
    assert verdict.result == "permerror"
    assert resolver.asked <= 20


def test_what_the_seals_of_a_chain_are_over_is_read_in_linear_time() -> None:
    one = HeaderField("ARC-Seal", b"ARC-Seal: i=1; cv=none;" + b" \t x" * 200 + b"; b=abc\r\n")

    def cost(sets: int) -> float:
        started = time.process_time()
        assert len(set(seal_hashes([(one, one, one)] * sets))) == sets
        return time.process_time() - started

    cost(10)
    assert cost(1600) < 20 * cost(200) + 0.05
