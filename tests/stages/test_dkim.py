import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import pytest

from inbound.stages.dkim import SIGNATURES, Dkim
from inbound.testing import FakeResolver, Records
from inbound.verdicts import DkimSignature, DkimVerdict, Status
from tests.stages.builders import NOW, mail_from
from tests.stages.signer import MESSAGE, ed25519_key, key_record, rsa_key, sign

KEY = "s1._domainkey.sender.example"


def judge(raw: bytes, records: Records | None = None, **more: Any) -> DkimVerdict:
    zone = {KEY: {"TXT": [key_record(rsa_key())]}} if records is None else records
    return asyncio.run(Dkim(FakeResolver(zone), now=lambda: NOW, **more)(mail_from(raw=raw)))


def only(verdict: DkimVerdict) -> DkimSignature:
    (signature,) = verdict.signatures
    return signature


def only_first(verdict: DkimVerdict) -> DkimSignature:
    return verdict.signatures[0]


def test_a_valid_signature_passes_and_tells_everything_about_itself() -> None:
    verdict = judge(sign(tags={"t": str(int(NOW) - 60), "x": str(int(NOW) + 60)}))
    assert verdict == DkimVerdict(
        status=Status.PASS,
        result="pass",
        signatures=(
            DkimSignature(
                domain="sender.example",
                selector="s1",
                algorithm="rsa-sha256",
                key_bits=2048,
                identity="@sender.example",
                aligned=True,
                result="pass",
            ),
        ),
    )


def test_without_signature_there_is_none() -> None:
    verdict = judge(MESSAGE)
    assert (verdict.status, verdict.result, verdict.signatures) == (Status.GRAY, "none", ())


@pytest.mark.parametrize("header", ["simple", "relaxed"])
@pytest.mark.parametrize("body", ["simple", "relaxed"])
@pytest.mark.parametrize(
    "content", [b"", b"\r\n", b"\r\n\r\n", b" \r\n", b"x", b"x\r\n", b" x \t y\t\r\n \r\n\r\n", b"\n\r\n", b"x\r\r\n"]
)
def test_every_canonicalisation_holds_for_every_kind_of_end(header: str, body: str, content: bytes) -> None:
    message = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + content
    assert judge(sign(message, canonicalization=(header, body))).result == "pass"


@pytest.mark.parametrize(("c", "how"), [(None, ("simple", "simple")), ("relaxed", ("relaxed", "simple"))])
def test_canonicalisation_has_defaults(c: str | None, how: tuple[str, str]) -> None:
    assert judge(sign(canonicalization=how, tags={"c": c})).result == "pass"


def test_an_empty_name_in_h_does_not_mean_a_line_that_is_no_field() -> None:
    raw = sign(header="from::to:subject:date")
    assert judge(raw.replace(b"Subject: ", b"no field\r\nSubject: ", 1)).result == "pass"


def test_ed25519_signatures_pass() -> None:
    verdict = judge(sign(key=ed25519_key()), {KEY: {"TXT": [key_record(ed25519_key())]}})
    assert (verdict.result, only(verdict).algorithm, only(verdict).key_bits) == ("pass", "ed25519-sha256", 256)


def test_a_key_may_be_the_bare_rsa_key_in_several_strings() -> None:
    record = key_record(rsa_key())
    assert judge(sign(), {KEY: {"TXT": [[record[:100], record[100:200], record[200:]]]}}).result == "pass"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Hello,", b"Hullo,"),
        (b"Subject: A", b"Subject: B"),
        (b"To: reader@", b"To: others@"),
        (b"this  is", b"thisis"),
        (b"s=s1", b"s= s1"),
    ],
)
def test_what_was_signed_cannot_be_changed(before: bytes, after: bytes) -> None:
    raw = sign()
    assert before in raw
    verdict = judge(raw.replace(before, after, 1))
    assert (verdict.status, verdict.result) == (Status.FAIL, "fail")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Subject: A  subject\r\n\t folded", b"SUBJECT:\tA subject folded  "),
        (b"this  is\t a message. ", b"this is a message.   \t"),
        (b"\r\n\r\n\r\n", b"\r\n\r\n\r\n\r\n\r\n \r\n"),
        (b"DKIM-Signature: v=1;", b"dkim-signature:  v=1;"),
    ],
)
def test_what_relaxed_canonicalisation_ignores_can_be_changed(before: bytes, after: bytes) -> None:
    head, found, tail = sign().rpartition(before)
    assert found
    assert judge(head + after + tail).result == "pass"


def test_fields_are_taken_from_the_bottom_and_more_than_there_are_forbids_another_one() -> None:
    twice = b"X-A: 1\r\nX-A: 2\r\n" + MESSAGE
    assert judge(sign(twice, header="from:x-a")).result == "pass"
    assert judge(sign(twice, header="from:x-a").replace(b"X-A: 1", b"X-A: 3")).result == "pass"
    assert judge(sign(twice, header="from:x-a").replace(b"X-A: 2", b"X-A: 3")).result == "fail"
    assert judge(sign(twice, header="from:x-a:x-a:x-a")).result == "pass"
    assert judge(b"X-A: 0\r\n" + sign(twice, header="from:x-a:x-a:x-a")).result == "fail"


def test_a_signature_that_forbids_another_signature_does_not_mean_itself() -> None:
    assert judge(sign(header="from:dkim-signature")).result == "pass"
    older = sign(tags={"s": "older"})
    assert only_first(judge(sign(older, header="from:dkim-signature"))).result == "pass"
    added = older.removesuffix(MESSAGE)
    below = sign(header="from:dkim-signature").replace(b"From:", added + b"From:", 1)
    assert only_first(judge(below)).result == "fail"


REFUSED: list[tuple[str, Mapping[str, Any], str, str]] = [
    ("rsa-sha1", {"tags": {"a": "rsa-sha1"}}, "policy", "rsa-sha1 is not to be trusted"),
    ("an unknown algorithm", {"tags": {"a": "rsa-md5"}}, "permerror", "a= names no algorithm"),
    ("no algorithm", {"tags": {"a": None}}, "permerror", "no a= in the signature"),
    ("no version", {"tags": {"v": None}}, "permerror", "no v= in the signature"),
    ("another version", {"tags": {"v": "2"}}, "permerror", "v= is not 1"),
    ("no selector", {"tags": {"s": None}}, "permerror", "no s= in the signature"),
    ("a bad selector", {"tags": {"s": "s 1/x"}}, "permerror", "s= is no selector"),
    ("no list of fields", {"tags": {"h": None}}, "permerror", "no h= in the signature"),
    ("no body hash", {"tags": {"bh": None}}, "permerror", "no bh= in the signature"),
    ("a body hash that is no base64", {"tags": {"bh": "?"}}, "permerror", "bh= is no base64"),
    ("an unknown canonicalisation", {"tags": {"c": "nofws"}}, "permerror", "c= names no canonicalisation"),
    ("an empty canonicalisation", {"tags": {"c": ""}}, "permerror", "c= names no canonicalisation"),
    ("an unknown way to the key", {"tags": {"q": "dns/any"}}, "permerror", "q= names no way to the key"),
    ("an identity of somebody else", {"tags": {"i": "@example.com"}}, "permerror", "i= is not within d="),
    ("an identity that ends alike", {"tags": {"i": "@badsender.example"}}, "permerror", "i= is not within d="),
    ("From unsigned", {"header": "to:subject"}, "permerror", "From is not signed"),
    ("its time over", {"tags": {"x": str(int(NOW) - 1)}}, "fail", "the signature has expired"),
    (
        "an end before its beginning",
        {"tags": {"t": str(int(NOW)), "x": str(int(NOW) - 1)}},
        "permerror",
        "x= is before t=",
    ),
    ("a date to come", {"tags": {"t": str(int(NOW) + 3600)}}, "fail", "the signature is from the future"),
    ("a time that is none", {"tags": {"x": "tomorrow"}}, "permerror", "x= is no number"),
    ("an empty length", {"tags": {"l": ""}}, "permerror", "l= is no number"),
    ("more length than body", {"tags": {"l": "9999"}}, "permerror", "l= is longer than the body"),
    ("length and nothing behind it", {"length": 31}, "policy", "l= leaves the body open behind octet 31 of 31"),
]


@pytest.mark.parametrize(("how", "result", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_signature_does_not_pass_with(how: Mapping[str, Any], result: str, reason: str) -> None:
    verdict = judge(sign(**how))
    assert (only(verdict).domain, only(verdict).result, only(verdict).reason) == ("sender.example", result, reason)
    assert (verdict.status, verdict.result) == (Status.FAIL, result)


@pytest.mark.parametrize(
    "tags",
    [
        {"x": str(int(NOW))},
        {"t": str(int(NOW) + 299)},
        {"q": "dns/any:dns/txt"},
        {"i": "me@mail.sender.example"},
        {"zz": "unknown"},
    ],
)
def test_a_signature_passes_with(tags: Mapping[str, str]) -> None:
    assert judge(sign(tags=tags)).result == "pass"


KEYS: list[tuple[str, list[Any] | str, str, str]] = [
    ("no key", [], "permerror", "there is no such key"),
    ("an empty key", ["v=DKIM1; p="], "permerror", "the key was revoked"),
    ("a record without key", ["v=DKIM1; k=rsa"], "permerror", "the key record has no key"),
    (
        "a record of another version",
        [key_record(rsa_key()).replace("DKIM1", "DKIM2")],
        "permerror",
        "the key record is of another version",
    ),
    (
        "a record whose version is not first",
        [key_record(rsa_key()).replace("v=DKIM1; k=rsa;", "k=rsa; v=DKIM1;")],
        "permerror",
        "the key record is of another version",
    ),
    ("a key for something else", [key_record(rsa_key(), "s=tlsrpt; ")], "permerror", "the key is not for mail"),
    ("a key for sha1 only", [key_record(rsa_key(), "h=sha1; ")], "permerror", "the key is not for sha256"),
    ("a key of another kind", [key_record(ed25519_key())], "permerror", "a ed25519 key for rsa-sha256"),
    (
        "a key of an unknown kind",
        [key_record(rsa_key()).replace("k=rsa", "k=dsa")],
        "permerror",
        "the key is of an unknown type",
    ),
    ("a key that is no base64", ["v=DKIM1; p=????"], "permerror", "the key's p= is no base64"),
    ("a key that is none", ["v=DKIM1; p=AAAA"], "permerror", "the key cannot be read"),
    (
        "an ed25519 key in rsa's clothes",
        [key_record(ed25519_key()).replace("k=ed25519", "k=rsa")],
        "permerror",
        "the key cannot be read",
    ),
    ("what is no record", ["hello"], "permerror", "the key record cannot be read"),
    ("a tag twice", ["k=rsa; k=rsa; p=AAAA"], "permerror", "the key record cannot be read"),
    ("an endless record", [key_record(rsa_key(), "n=" + "x" * 4096 + "; ")], "permerror", "the key record is too long"),
    ("another key", [key_record(rsa_key(1024))], "fail", "the signature does not verify"),
    ("a server that fails", "SERVFAIL", "temperror", f"dns servfail: {KEY} TXT"),
    ("no answer", "TIMEOUT", "temperror", f"dns timeout: {KEY} TXT"),
]


@pytest.mark.parametrize(("records", "result", "reason"), [case[1:] for case in KEYS], ids=[case[0] for case in KEYS])
def test_a_signature_does_not_pass_by(records: list[Any] | str, result: str, reason: str) -> None:
    verdict = judge(sign(), {KEY: {"TXT": records}})
    assert (only(verdict).result, only(verdict).reason) == (result, reason)
    assert verdict.status is (Status.PROCESSING_FAILED if result == "temperror" else Status.FAIL)


@pytest.mark.parametrize(
    "more", ["h=sha1:sha256; ", "s=email; ", "s=tlsrpt:*; ", "t=; ", "n=a note; ", "t=s; ", "g=*; "]
)
def test_a_key_record_may_say(more: str) -> None:
    assert judge(sign(), {KEY: {"TXT": [key_record(rsa_key(), more)]}}).result == "pass"


@pytest.mark.parametrize(("bits", "result"), [(1024, "pass"), (4096, "pass"), (4224, "policy")])
def test_only_keys_of_1024_to_4096_bits_pass(bits: int, result: str) -> None:
    verdict = judge(sign(key=rsa_key(bits)), {KEY: {"TXT": [key_record(rsa_key(bits))]}})
    assert (only(verdict).result, only(verdict).key_bits) == (result, bits)


def test_a_key_of_512_bits_does_not_pass() -> None:
    short = (
        "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBANmBe10IgY+u7h3enWTukkqtUD5PR52Tb/mPfjC0QJTocVBq6Za/PlzfV+Py92VaCak1"
        "9F4WrbVTK5Gg5tW220MCAwEAAQ=="
    )
    verdict = judge(sign(), {KEY: {"TXT": [f"v=DKIM1; p={short}"]}})
    assert (only(verdict).result, only(verdict).reason, only(verdict).key_bits) == ("policy", "a key of 512 bits", 512)


def test_the_key_that_verifies_wins_among_several() -> None:
    records = ["hello", key_record(rsa_key(1024)), key_record(rsa_key())]
    assert only(judge(sign(), {KEY: {"TXT": records}})).result == "pass"


def test_a_key_for_its_domain_only_does_not_sign_for_subdomains() -> None:
    records: Records = {KEY: {"TXT": [key_record(rsa_key(), "t=s; ")]}}
    assert judge(sign(tags={"i": "@sender.example"}), records).result == "pass"
    assert (
        only(judge(sign(tags={"i": "@mail.sender.example"}), records)).reason
        == "the key is not for subdomains, as i= has one"
    )


def test_a_broken_signature_by_a_key_under_test_is_as_good_as_none() -> None:
    records: Records = {KEY: {"TXT": [key_record(rsa_key(), "t=y:s; ")]}}
    assert only(judge(sign(), records)).reason == "the key is being tested"
    verdict = judge(sign().replace(b"Hello", b"Hullo"), records)
    assert (verdict.status, verdict.result) == (Status.GRAY, "neutral")


@pytest.mark.parametrize("name", [b"From", b"Subject", b"To", b"Date"])
def test_a_second_field_of_which_the_reader_sees_one_spoils_the_signature(name: bytes) -> None:
    verdict = judge(name + b": somebody@evil.example\r\n" + sign())
    assert (only(verdict).result, only(verdict).reason) == (
        "policy",
        f"a second {name.decode().lower()} field is not signed",
    )


def test_a_second_field_that_is_signed_too_does_no_harm() -> None:
    assert judge(sign(b"Subject: twice\r\n" + MESSAGE, header="from:subject:subject")).result == "pass"


def test_content_behind_the_signed_length_does_not_pass_unless_that_is_wanted() -> None:
    raw = sign(length=31) + b"buy now\r\n"
    assert only(judge(raw)).result == "policy"
    assert only(judge(raw, accept_length=True)).result == "pass"
    assert only(judge(raw.replace(b"Hello", b"Hullo"), accept_length=True)).result == "fail"


@pytest.mark.parametrize(
    "field",
    [
        b"DKIM-Signature:\r\n",
        b"DKIM-Signature: hello\r\n",
        b"DKIM-Signature: v=1; v=1\r\n",
        b"DKIM-Signature: v=1; d=\xff\r\n",
        b"DKIM-Signature: v=1; =x\r\n",
        b"DKIM-Signature: " + b"x" * 20_000 + b"\r\n",
        b"DKIM-Signature: v=1; a=rsa-sha256; d=not a domain!; s=s1; h=from; bh=AAAA; b=AAAA\r\n",
    ],
)
def test_what_cannot_be_read_is_listed_as_permerror_without_domain_and_hides_nothing_below(field: bytes) -> None:
    verdict = judge(field + sign())
    assert [(one.domain, one.result) for one in verdict.signatures] == [("", "permerror"), ("sender.example", "pass")]
    assert verdict.status is Status.PASS


@pytest.mark.parametrize(
    "line",
    [
        b"no colon at all\r\n",
        b"two words: x\r\n",
        b"\xc3\xa9: x\r\n",
        b": x\r\n",
        b"Empty:\r\n",
        b"X-8bit: \xff\xfe\r\n",
        b"X-Long: " + b"y" * 100_000 + b"\r\n",
        b"Subject : x\r\n",
    ],
)
def test_a_broken_header_line_does_not_kill_the_signature(line: bytes) -> None:
    raw = line + sign(header="from:to:date")
    assert judge(raw).result == "pass"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b" leading blank\r\n\r\nbody",
        b"DKIM-Signature",
        b"DKIM-Signature:",
        b"DKIM-Signature: x\r\n y\r\n",
    ],
)
def test_no_message_makes_it_raise(raw: bytes) -> None:
    assert judge(raw).result in ("none", "permerror")
    assert judge(raw + sign()).status is not Status.PROCESSING_FAILED


def test_the_signatures_are_listed_in_header_order_and_the_best_is_the_result() -> None:
    raw = sign(sign(tags={"d": "other.example"}), tags={"s": "gone"})
    zone: Records = {name: {"TXT": [key_record(rsa_key())]} for name in (KEY, "s1._domainkey.other.example")}
    verdict = judge(raw, zone)
    assert [(one.domain, one.selector, one.aligned, one.result) for one in verdict.signatures] == [
        ("sender.example", "gone", True, "permerror"),
        ("other.example", "s1", False, "pass"),
    ]
    assert (verdict.status, verdict.result) == (Status.FAIL, "pass")


def test_a_pass_of_somebody_else_alone_is_gray() -> None:
    verdict = judge(
        sign(tags={"d": "other.example"}), {"s1._domainkey.other.example": {"TXT": [key_record(rsa_key())]}}
    )
    assert (verdict.status, verdict.result, verdict.reason) == (Status.GRAY, "pass", "no signature aligned with From")


def test_an_aligned_temperror_counts_only_when_no_other_aligned_signature_passes() -> None:
    raw = sign(sign(), tags={"s": "s2"})
    broken: Records = {KEY: {"TXT": [key_record(rsa_key())]}, "s2._domainkey.sender.example": "SERVFAIL"}
    assert judge(raw, broken).status is Status.PASS
    assert judge(raw.replace(b"Hello", b"Hullo"), broken).status is Status.PROCESSING_FAILED


def test_subdomains_are_aligned_by_the_organizational_domain() -> None:
    zone: dict[str, Any] = {
        f"s1._domainkey.{domain}": {"TXT": [key_record(rsa_key())]}
        for domain in ("mail.sender.example", "sender.example")
    }
    raw = sign(tags={"d": "mail.sender.example"})
    assert only(judge(raw, zone)).aligned
    apart = zone | {"_dmarc.mail.sender.example": {"TXT": ["v=DMARC1; psd=n"]}}
    assert not only(judge(raw, apart)).aligned


def test_a_pass_of_which_nobody_can_tell_whether_it_is_aligned_is_no_verdict() -> None:
    domains = ("mail.sender.example", "sender.example")
    zone: dict[str, Any] = {f"s1._domainkey.{domain}": {"TXT": [key_record(rsa_key())]} for domain in domains}
    zone |= {"_dmarc.example": "SERVFAIL"}
    verdict = judge(sign(tags={"d": "mail.sender.example"}), zone)
    assert (verdict.status, verdict.result, verdict.reason) == (
        Status.PROCESSING_FAILED,
        "pass",
        "dns servfail: _dmarc.example TXT",
    )
    assert judge(sign(sign(tags={"d": "mail.sender.example"})), zone).status is Status.PASS
    assert judge(sign(tags={"d": "mail.sender.example"}).replace(b"Hello", b"Hullo"), zone).status is Status.GRAY


@pytest.mark.parametrize("header", [b"From: a@sender.example, b@other.example\r\n", b"From: x\r\n"])
def test_nothing_is_aligned_without_one_author_domain(header: bytes) -> None:
    raw = sign(header + b"\r\nbody\r\n", header="from")
    verdict = judge(raw)
    assert (verdict.status, verdict.result, only(verdict).aligned) == (Status.GRAY, "pass", False)


def test_signatures_beyond_the_limit_are_listed_but_not_examined() -> None:
    raw = MESSAGE
    for _ in range(SIGNATURES + 2):
        raw = sign(raw)
    resolver = FakeResolver({KEY: {"TXT": [key_record(rsa_key())]}})
    verdict = asyncio.run(Dkim(resolver, now=lambda: NOW)(mail_from(raw=raw)))
    assert [one.result for one in verdict.signatures] == ["pass"] * SIGNATURES + ["policy"] * 2
    assert verdict.signatures[-1].reason == "more than 10 signatures"
    assert len([name for name, _ in resolver.asked if name == KEY]) == SIGNATURES


def test_ten_megabytes_are_hashed_off_the_event_loop() -> None:
    body = b"a line of  text \r\n" * 600_000
    raw = sign(MESSAGE + body)
    resolver = FakeResolver({KEY: {"TXT": [key_record(rsa_key())]}})

    async def run() -> tuple[DkimVerdict, int]:
        turns = 0
        task = asyncio.create_task(Dkim(resolver, now=lambda: NOW)(mail_from(raw=raw)))
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return await task, turns

    verdict, turns = asyncio.run(run())
    assert verdict.result == "pass"
    assert turns > 10  # a handful when the loop itself had hashed


def test_a_signature_may_be_folded_anywhere() -> None:
    raw = sign()
    value = raw.partition(b"b=")[2].partition(b"\r\nFrom")[0]
    octets = base64.b64decode(b"".join(value.split()))
    spread = b" \r\n\t".join(base64.b64encode(octets)[at : at + 1] for at in range(344))
    assert judge(raw.replace(value, spread)).result == "pass"
