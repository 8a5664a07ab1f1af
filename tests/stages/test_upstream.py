"""Whose Authentication-Results are believed, and what is read in them."""

import asyncio
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from inbound.mail import HeaderField
from inbound.settings import Trusted
from inbound.stages.upstream import LONGEST_FIELD, Upstream, results
from inbound.verdicts import DmarcVerdict, Status, UpstreamVerdict
from tests.harness import DNS, mail, receiver
from tests.stages.builders import mail_from

UPSTREAM = Upstream(["MX.Forwarder.example", "opaque-id"], ["198.51.100.0/28", "2001:db8::/64"])
FORWARDER = "198.51.100.7"
PASSED = "dmarc=pass header.from=a.example"


def verdict(*fields: str, client_ip: str = FORWARDER, author: str = "a.example") -> UpstreamVerdict:
    raw = "".join(f"{field}\r\n" for field in fields) + "From: x@a.example\r\n\r\nhello\r\n"
    dmarc = DmarcVerdict(status=Status.FAIL, result="fail", from_domain=author)
    return asyncio.run(UPSTREAM(mail_from(raw=raw.encode(), client_ip=ip_address(client_ip)), dmarc))


def ar(text: str, authserv_id: str = "mx.forwarder.example") -> str:
    return f"Authentication-Results: {authserv_id}; {text}"


@pytest.mark.parametrize(
    ("client_ip", "result"),
    [
        (FORWARDER, "pass"),
        ("::ffff:198.51.100.7", "pass"),
        ("2001:db8::7", "pass"),
        ("198.51.100.16", "none"),
        ("192.0.2.1", "none"),
        ("2001:db8:1::7", "none"),
    ],
)
def test_only_a_listed_client_is_believed(client_ip: str, result: str) -> None:
    assert verdict(ar(PASSED), client_ip=client_ip).result == result


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ([ar(PASSED)], "pass"),
        ([ar(PASSED, "OPAQUE-ID")], "pass"),
        ([ar(PASSED, '(c) "mx.forwarder.example" 1')], "pass"),
        (["Received: from x", ar(PASSED), ar(PASSED, "other.example")], "pass"),
        ([ar(PASSED, "other.example"), ar(PASSED)], "none"),  # the listed one is not on top: who knows who wrote it
        ([ar(PASSED, "other.example")], "none"),
        ([ar(PASSED, "mx.forwarder.example.evil.test")], "none"),
        ([ar("none"), ar(PASSED)], "none"),
        ([ar("dmarc=fail header.from=a.example"), ar(PASSED)], "fail"),
        (["X-" + ar(PASSED)], "none"),
        ([ar(PASSED + " " + "x" * LONGEST_FIELD)], "none"),
        ([], "none"),
    ],
)
def test_only_the_topmost_field_counts_and_only_under_a_listed_name(fields: list[str], result: str) -> None:
    assert verdict(*fields).result == result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("spf=fail smtp.mailfrom=b.example; DMARC=Pass (p=reject) header.from=A.example", "pass"),
        ('dmarc/1 = pass reason="x; dmarc=fail header.from=a.example" header . from = a.example', "pass"),
        ('dmarc=pass policy.dmarc=reject header.from="a.example"', "pass"),
        ("dmarc=fail header.from=a.example", "fail"),
        ("dmarc=pass header.from=a.example; dmarc=fail header.from=a.example", "fail"),
        ("dmarc=pass header.from=b.example", "none"),
        ("dmarc=pass header.from=a.example.evil.test", "none"),
        ("dmarc=pass", "none"),
        ("dmarc=none header.from=a.example", "none"),
        ("dmarc=temperror header.from=a.example", "none"),
        ("dmarc=pass header.from=b.example header.from=a.example", "none"),
        ("spf=pass (dmarc=pass header.from=a.example; dmarc=pass header.from=a.example)", "none"),
        ('spf=pass reason="; dmarc=pass header.from=a.example"', "none"),
        ('spf=pass reason="\\"; dmarc=pass header.from=a.example; \\""', "none"),
        ("spf=pass; dkim=pass header.d=a.example", "none"),
        ("dmarc pass header.from=a.example", "none"),
        ("dmarc==pass header.from=a.example", "none"),
        ("dmarc=pass header.from=", "none"),
        ("(unclosed dmarc=pass header.from=a.example", "none"),
        ('"unclosed; dmarc=pass header.from=a.example', "none"),
    ],
)  # fmt: skip
def test_a_pass_is_a_dmarc_pass_for_our_author_domain(text: str, result: str) -> None:
    assert verdict(ar(text)).result == result


def test_the_evidence_is_kept() -> None:
    found = verdict(ar("spf=fail; dkim=fail (body hash); " + PASSED))
    assert found == UpstreamVerdict(
        result="pass", authserv_id="mx.forwarder.example", results=("spf=fail", "dkim=fail", "dmarc=pass")
    )


def test_mail_without_an_author_domain_has_no_upstream_pass() -> None:
    assert verdict(ar("dmarc=pass header.from="), author="").result == "none"
    assert verdict(ar("dmarc=pass"), author="").result == "none"


@pytest.mark.parametrize("text", ['"\\"' * 5000, "(" * 16000, "a=b;" * 4000, "a " * 8000, "=" * 16000, '"' * 16000])
def test_a_hostile_field_is_read_in_linear_time(text: str) -> None:
    started = time.process_time()
    results(HeaderField("Authentication-Results", f"Authentication-Results: x; {text}\r\n".encode()))
    assert time.process_time() - started < 1


RULES = """
rules:
  - name: refuse-forged
    when: {all: [{dmarc: fail}, {not: {upstream: pass}}]}
    actions: [bounce: {smtp_reply_code: 550, status_code: 5.7.1, message: forged}]
  - name: keep
    actions: [s3: {bucket: mail}]
tests:
  - it: forgives what the forwarder has seen pass
    given: {to: a@example.com, verdicts: {dmarc: fail, upstream: pass}}
    expect: {rules: [keep], reply: "250"}
"""


def test_a_rule_forgives_what_a_trusted_forwarder_passed_and_our_verdicts_stay(tmp_path: Path) -> None:
    trusted = Trusted(authserv_ids=("mx.forwarder.example",), forwarders=(FORWARDER,))
    field = {"Authentication_Results": "mx.forwarder.example; dmarc=pass header.from=sender.example"}

    async def story() -> None:
        async with receiver(tmp_path, rules=RULES, dns=DNS, trusted=trusted) as to:
            assert await to.reply(mail(**field), client_ip=FORWARDER) == f"250 2.0.0 OK {to.record.message_id}"
            verdicts = to.record.verdicts
            assert (verdicts.spf.result, verdicts.dmarc.result) == ("fail", "fail")
            assert verdicts.upstream.result == "pass"
            assert to.record.document()["upstream"].results == ("dmarc=pass",)
            told = next(line for line in to.record.lines() if line.strip().startswith("upstream"))
            assert told.split() == ["upstream", "pass", "mx.forwarder.example", "dmarc=pass"]
            # the same field from anybody else is worth nothing
            assert (await to.reply(mail(**field), client_ip="203.0.113.5")).startswith("550 5.7.1 forged")
            assert to.record.verdicts.upstream == UpstreamVerdict(result="none")

    asyncio.run(story())


def test_without_the_setting_nobody_is_believed(tmp_path: Path) -> None:
    field = {"Authentication_Results": "mx.forwarder.example; dmarc=pass header.from=sender.example"}

    async def story() -> None:
        async with receiver(tmp_path, rules=RULES, dns=DNS) as to:
            assert (await to.reply(mail(**field), client_ip=FORWARDER)).startswith("550 5.7.1 forged")

    asyncio.run(story())
