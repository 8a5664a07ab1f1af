import asyncio
import base64
import contextlib
import re
from pathlib import Path
from typing import Any

import dkim
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from inbound.stages.arc import Arc
from inbound.stages.canonical import hashes_of
from inbound.stages.dkim import Dkim
from inbound.testing import FakeResolver, Records
from inbound.verdicts import ArcVerdict
from tests.stages import sealer
from tests.stages.builders import NOW, mail_from
from tests.stages.signer import MESSAGE, canonical_field, ed25519_key, key_record, rsa_key, sign

ZONE: Records = {"s1._domainkey.list.example": {"TXT": [key_record(rsa_key())]}}
LATER = 4_000_000_000.0  # dkimpy seals by the clock
PEM = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def seal(message: bytes, found: str) -> bytes:
    """One more set on top, by dkimpy. `found` is the sealer's own arc= result."""
    results = f"Authentication-Results: list.example; arc={found}; spf=pass smtp.mailfrom=sender.example\r\n".encode()
    fields = dkim.arc_sign(
        results + message, b"s1", b"list.example", PEM, b"list.example", include_headers=[b"from", b"subject"]
    )
    return b"".join(fields) + message


def chain(sets: int) -> bytes:
    message = MESSAGE
    for at in range(sets):
        message = seal(message, "pass" if at else "none")
    return message


def judge(raw: bytes, zone: Records = ZONE, now: float = LATER) -> ArcVerdict:
    return asyncio.run(Arc(FakeResolver(zone), now=lambda: now)(mail_from(raw=raw)))


def by_dkimpy(raw: bytes, keys: dict[str, str] | None = None) -> bool:
    def key(name: bytes, timeout: float) -> str | None:  # noqa: ARG001 - dkimpy calls it so
        return key_record(rsa_key()) if keys is None else keys.get(name.decode().rstrip("."))

    with contextlib.suppress(IndexError, ValueError):
        return bool(dkim.arc_verify(raw, dnsfunc=key)[0] == dkim.CV_Pass)
    return False


@pytest.mark.parametrize("raw", [MESSAGE, MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n", b"\r\nHello,\r\n", b"\r\n", b""])
def test_without_sets_there_is_no_chain(raw: bytes) -> None:
    assert judge(raw) == ArcVerdict(result="none")


@pytest.mark.parametrize("sets", [1, 2, 3, 7])
def test_a_chain_that_dkimpy_sealed_holds(sets: int) -> None:
    raw = chain(sets)
    assert judge(raw) == ArcVerdict(result="pass", sets=sets)
    assert by_dkimpy(raw)


CHANGES: list[tuple[str, bytes, bytes, str]] = [
    ("the body", rb"Hello", b"Hullo", "message signature 2: the body is not the one signed"),
    ("a signed field", rb"Subject: A", b"Subject: B", "message signature 2: the signature does not verify"),
    (
        "the results of the first set",
        rb"(ARC-Authentication-Results: i=1;.*?)spf=pass",
        rb"\1spf=fail",
        "seal 2: the signature does not verify",
    ),
    ("the first seal", rb"(ARC-Seal: i=1;.*?)t=1", rb"\1t=2", "seal 2: the signature does not verify"),
    ("the newest seal", rb"(ARC-Seal: i=2;.*?)t=1", rb"\1t=2", "seal 2: the signature does not verify"),
    ("what the newest sealer found", rb"i=2; cv=pass", b"i=2; cv=fail", "the newest sealer found the chain broken"),
    ("what the newest sealer found to none", rb"i=2; cv=pass", b"i=2; cv=none", "cv= of seal 2 cannot be"),
    ("what the first sealer found", rb"i=1; cv=none", b"i=1; cv=pass", "cv= of seal 1 cannot be"),
    ("a set's number", rb"ARC-Seal: i=2;", b"ARC-Seal: i=3;", "a set is not whole"),
    ("a set's number to nothing", rb"ARC-Seal: i=2;", b"ARC-Seal:", "ARC-Seal is of no set"),
    ("a set's number to a large one", rb"ARC-Seal: i=2;", b"ARC-Seal: i=51;", "ARC-Seal is of no set"),
    ("a set's number to zero", rb"ARC-Seal: i=2;", b"ARC-Seal: i=0;", "ARC-Seal is of no set"),
    ("a name", rb"ARC-Authentication-Results: i=2", b"X-Was: i=2", "a set is not whole"),
    (
        "a second result",
        rb"ARC-Authentication-Results: i=2",
        b"ARC-Authentication-Results: i=1; x\r\nARC-Authentication-Results: i=2",
        "a second ARC-Authentication-Results in set 1",
    ),
    ("an algorithm", rb"(ARC-Seal: i=2;.*?)rsa-sha256", rb"\1rsa-sha1", "seal 2: a= names no algorithm"),
    ("h= in a seal", rb"(ARC-Seal: i=2;)", rb"\1 h=from;", "a seal has h="),
    (
        "a seal among the signed fields",
        rb"(ARC-Message-Signature: i=2;.*?h=)",
        rb"\1arc-seal:",
        "message signature 2: h= covers a seal",
    ),
    ("a selector", rb"(ARC-Message-Signature: i=2;.*?)s=s1", rb"\1s=s2", "message signature 2: there is no such key"),
]


@pytest.mark.parametrize(
    ("before", "after", "reason"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES]
)
def test_a_chain_does_not_hold_any_more_when_somebody_changes(before: bytes, after: bytes, reason: str) -> None:
    raw = chain(2)
    changed = re.sub(before, after, raw, count=1, flags=re.DOTALL)
    assert changed != raw
    verdict = judge(changed)
    assert (verdict.result, verdict.reason) == ("fail", reason)
    assert not by_dkimpy(changed)


def test_a_field_written_without_blank_before_its_number_is_of_its_set() -> None:
    raw = chain(1)
    respaced = raw.replace(b"ARC-Message-Signature: i=1", b"ARC-Message-Signature:i=1")
    assert judge(respaced).result == "pass"  # relaxed canonicalisation sees no difference; dkimpy raises IndexError


def own_set(tags: dict[str, str | None], how: tuple[str, str], header: str = "from:subject") -> bytes:
    """A message with one set that dkimpy would not make."""
    base = {"v": None, "i": "1", "d": "list.example"}
    results = b"ARC-Authentication-Results: i=1; list.example; spf=pass\r\n"
    signed = sign(MESSAGE, name="ARC-Message-Signature", tags=base | tags, canonicalization=how, header=header)
    message_signature = signed.removesuffix(MESSAGE)
    seal = b"ARC-Seal: i=1; cv=none; a=rsa-sha256; d=list.example; s=s1; b="
    fields = [canonical_field(field, "relaxed") for field in (results, message_signature, seal)]
    value = rsa_key().sign(b"".join(fields).removesuffix(b"\r\n"), PKCS1v15(), SHA256())
    return seal + base64.b64encode(value) + b"\r\n" + message_signature + results + MESSAGE


@pytest.mark.parametrize("how", [("simple", "simple"), ("relaxed", "relaxed")])
def test_a_message_signature_without_c_may_be_as_the_rfc_has_it_or_as_its_drafts_had(how: tuple[str, str]) -> None:
    raw = own_set({"c": None}, how)
    assert judge(raw).result == "pass"
    assert judge(raw.replace(b"Hello", b"Hullo")).reason == "message signature 1: the body is not the one signed"


def test_a_message_signature_may_cover_no_field_but_must_say_so() -> None:
    assert judge(own_set({"h": ""}, ("relaxed", "relaxed"), "")).result == "pass"
    assert judge(own_set({"h": None}, ("relaxed", "relaxed"), "")).reason == "message signature 1: h= is missing"


def test_the_order_of_the_fields_does_not_matter() -> None:
    raw = chain(2)
    seals = re.findall(rb"ARC-Seal: .*?\r\n(?=ARC)", raw, flags=re.DOTALL)
    assert len(seals) == 2
    for seal_of_a_set in seals:
        raw = seal_of_a_set + raw.replace(seal_of_a_set, b"", 1)
    assert raw.startswith(b"ARC-Seal: i=1")
    assert judge(raw) == ArcVerdict(result="pass", sets=2)  # the numbers say the order, RFC 8617 5.1.1.1


def test_a_second_from_that_no_sealer_saw_breaks_the_chain() -> None:
    assert judge(b"From: ceo@bank.example\r\n" + chain(1)).reason == "message signature 1: a second From is not signed"


def test_the_message_may_change_between_seals_and_the_newest_signature_counts() -> None:
    once = seal(MESSAGE, "none")
    changed = seal(once.replace(b"Hello", b"[list] Hello"), "pass")
    assert judge(changed) == ArcVerdict(result="pass", sets=2)


@pytest.mark.parametrize("trouble", ["SERVFAIL", "TIMEOUT"])
def test_a_key_that_cannot_be_had_is_a_temperror(trouble: str) -> None:
    verdict = judge(chain(1), {"s1._domainkey.list.example": trouble})
    assert (verdict.result, verdict.sets) == ("temperror", 1)


CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "cases" / "arc.yaml").read_text("utf-8"))


def records(case: dict[str, Any]) -> dict[str, str]:
    """Its keys."""
    keys = {f"k{bits}._domainkey.list.example": key_record(rsa_key(bits)) for bits in (1024, 2048)}
    keys["ked25519._domainkey.list.example"] = key_record(ed25519_key())
    short = (
        "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAMvHIEJOMSHyZsLyDHIYDoeIbSTbDTKIRwVAkzn6MyPGf0cn4hUh7LOCnL"
        "yEhhlVwNfLPSIoQLuuPkFOIcJ2GqMCAwEAAQ=="
    )
    for name, text in case.get("keys", {}).items():
        good = key_record(rsa_key(2048))
        words = {"good": good, "bare": good.partition(";")[2].strip(), "short": f"v=DKIM1; p={short}"}
        first, semicolon, rest = text.partition(";")
        keys[name] = words.get(first, first) + semicolon + rest
    return keys


def made(case: dict[str, Any]) -> bytes:
    """Its message."""
    raw: bytes = case.get("top", "").encode() + sealer.chain(case["sets"]) + case.get("bottom", "").encode()
    for old, new in case.get("change", ()):
        before, found, after = raw.rpartition(old.encode())
        assert found, f"{old} is not there"
        raw = before + new.encode() + after
    return raw


@pytest.mark.parametrize("case", CASES, ids=[case["it"] for case in CASES])
def test_chain(case: dict[str, Any]) -> None:
    keys = records(case)
    zone: dict[str, Any] = {name: {"TXT": [text]} for name, text in keys.items()} | case.get("faults", {})
    raw = made(case)
    verdict = judge(raw, zone)
    assert (verdict.result, case.get("reason", "") in verdict.reason) == (case["result"], True), verdict
    if "faults" not in case and case.get("dkimpy") != "raises":
        theirs = "pass" if by_dkimpy(raw, keys) else "fail"
        assert (theirs == verdict.result) == (case.get("dkimpy") != "differs"), theirs


def test_fifty_sets_are_the_most() -> None:
    raw = sealer.chain([{}] * 50)
    assert judge(raw, {"k2048._domainkey.list.example": {"TXT": [key_record(rsa_key(2048))]}}).result == "pass"
    one_more = sealer.sealed(raw, 51, {})
    assert judge(one_more).reason == "ARC-Seal is of no set"


def test_the_body_that_dkim_has_hashed_is_not_hashed_again() -> None:
    raw = sealer.chain([{}], sign())
    zone: Records = {
        "k2048._domainkey.list.example": {"TXT": [key_record(rsa_key(2048))]},
        "s1._domainkey.sender.example": {"TXT": [key_record(rsa_key())]},
    }
    mail = mail_from(raw=raw)

    async def run() -> tuple[str, str]:
        dkim_found = await Dkim(FakeResolver(zone), now=lambda: NOW)(mail)
        hashed = dict(hashes_of(mail)._bodies)
        arc_found = await Arc(FakeResolver(zone), now=lambda: NOW)(mail)
        assert hashed == hashes_of(mail)._bodies
        assert len(hashed) == 1
        return dkim_found.result, arc_found.result

    assert asyncio.run(run()) == ("pass", "pass")
