"""Who may be told of a bounce: every reason not to, every form that it comes in, and what is near it and harmless."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inbound import backscatter as why
from inbound.backscatter import MOST_HOPS, Rates, why_not
from inbound.errors import TemporaryFailure
from inbound.verdicts import DkimSignature, DkimVerdict, DmarcVerdict, SpfResult, SpfVerdict, Status, Verdicts
from tests.ruling import PASSED, mail

USUAL = "From: Sender <sender@example.net>\r\nSubject: Hello\r\n"
STATUS = {"pass": Status.PASS, "temperror": Status.PROCESSING_FAILED, "fail": Status.FAIL}
STRANGER = DmarcVerdict(status=Status.FAIL, result="fail", from_domain="other.example")


def spf(result: SpfResult, domain: str = "example.net", **more: Any) -> SpfVerdict:
    return SpfVerdict(status=STATUS.get(result, Status.GRAY), result=result, domain=domain, **more)


def signed(*domains: str, result: Any = "pass") -> DkimVerdict:
    signatures = tuple(DkimSignature(domain=domain, result=result) for domain in domains)
    return DkimVerdict(status=STATUS.get(result, Status.GRAY), result=result, signatures=signatures)


UNSIGNED = DkimVerdict(status=Status.GRAY, result="none")
ORGANIZED = DmarcVerdict(
    status=Status.PASS, result="pass", from_domain="example.net", organizational_domain="example.net"
)

# What is told apart, and what comes of it: header fields added, envelope sender, verdicts.
FIELDS = {
    "": ["", "X-Auto-Submitted: auto-generated", "Received: from a by b; x", "Content-Type: multipart/mixed"],
    why.AUTOMATIC: [
        "Auto-Submitted: auto-generated",
        "Auto-Submitted: auto-replied",
        "Auto-Submitted: auto-notified; owner-email=a@b.example",
        "AUTO-SUBMITTED:  AUTO-REPLIED (vacation)",
        "Auto-Submitted: (no) auto-replied",
        "Auto-Submitted: sometimes",
        "Auto-Submitted:",
        "Auto-Submitted: no\r\nAuto-Submitted: auto-replied",
    ],
    why.LIST_MAIL: [
        "List-Id: <list.example.net>",
        "List-Unsubscribe: <mailto:a@b.example>",
        "list-post: NO",
        "List-Help: x",
        "List-Owner: x",
        "List-Archive: x",
        "List-Subscribe: x",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
    ],
    why.BULK_MAIL: [
        "Precedence: bulk",
        "Precedence: list",
        "Precedence: Junk",
        "Precedence: (x) bulk",
        "Precedence: auto_reply",
        "Precedence: first-class\r\nPrecedence: bulk",
    ],
    why.REPORT: [
        "Content-Type: multipart/report; report-type=delivery-status; boundary=x",
        "Content-Type: Multipart/Report;\r\n report-type=disposition-notification",
    ],
    why.LOOP: ["\r\n".join(["Received: from a by b; x"] * (MOST_HOPS + 1))],
}
HARMLESS = [
    "Auto-Submitted: no",
    "Auto-Submitted: No (really); x=y",
    "Precedence: first-class",
    "Precedence:",
    "Listed: x",
    "X-List-Id: x",
    "\r\n".join(["Received: from a by b; x"] * MOST_HOPS),
    "Subject: List-Id: Precedence: bulk",
]


@pytest.mark.parametrize(
    ("reason", "fields"),
    [*((reason, fields) for reason, several in FIELDS.items() for fields in several), *(("", one) for one in HARMLESS)],
)
def test_header_fields_say_that_nobody_reads_the_answer(reason: str, fields: str) -> None:
    assert why_not(mail(header=USUAL + (f"{fields}\r\n" if fields else "")), PASSED) == reason


@pytest.mark.parametrize(
    ("sender", "reason"),
    [
        ("", why.NULL_SENDER),
        ("MAILER-DAEMON@example.net", why.MAIL_SYSTEM),
        ("mailer-daemon+x@example.net", why.MAIL_SYSTEM),
        ('"Postmaster"@example.net', why.MAIL_SYSTEM),
        ("postmaster@example.net", why.MAIL_SYSTEM),
        ("double-bounce@example.net", why.MAIL_SYSTEM),
        ("Bounces@Example.COM", why.OURSELVES),
        ("bounces+42@example.com", why.OURSELVES),
        ("sender@example.net", ""),
        ("postmaster.general@example.net", ""),
        ("bounces@example.net", ""),
        ("sender@[192.0.2.1]", why.NOT_AUTHENTICATED),
        ("sender", why.NOT_AUTHENTICATED),
    ],
)
def test_some_senders_are_never_told(sender: str, reason: str) -> None:
    assert why_not(mail(mail_from=sender), PASSED, ours=["bounces@example.com"]) == reason


# Who the sender is: SPF's result and domain, DKIM, and what comes of it for sender@example.net.
IDENTITY: list[tuple[SpfVerdict, DkimVerdict, DmarcVerdict, str]] = [
    (spf("pass"), UNSIGNED, STRANGER, ""),
    (spf("pass"), signed("example.net", result="fail"), STRANGER, ""),
    (spf("pass"), signed("example.net", result="temperror"), STRANGER, ""),
    (spf("pass", "other.example"), UNSIGNED, STRANGER, why.NOT_AUTHENTICATED),
    (spf("pass", identity="helo"), UNSIGNED, STRANGER, why.NOT_AUTHENTICATED),
    *[
        (spf(result), UNSIGNED, STRANGER, why.NOT_AUTHENTICATED)
        for result in ("fail", "softfail", "neutral", "none", "permerror")
    ],
    *[
        (spf(result), signed("example.net"), STRANGER, "")
        for result in ("fail", "softfail", "neutral", "none", "permerror", "temperror")
    ],
    *[
        (spf("fail"), signed("example.net", result=result), STRANGER, why.NOT_AUTHENTICATED)
        for result in ("fail", "policy", "neutral", "permerror")
    ],
    (spf("fail"), signed("net"), STRANGER, ""),  # a zone speaks for what is in it (RFC 6376 3.5, `i=`)
    (spf("fail"), signed("mail.example.net"), STRANGER, why.NOT_AUTHENTICATED),
    (spf("fail"), signed("mail.example.net"), ORGANIZED, ""),
    (spf("fail"), signed("notexample.net"), ORGANIZED, why.NOT_AUTHENTICATED),
    (spf("fail"), signed("other.example"), ORGANIZED, why.NOT_AUTHENTICATED),
    (spf("fail"), signed("other.example", "example.net"), STRANGER, ""),
    (spf("fail"), signed("", result="permerror"), STRANGER, why.NOT_AUTHENTICATED),
    (spf("temperror"), UNSIGNED, STRANGER, why.NOT_YET),
    (spf("temperror"), signed("other.example"), STRANGER, why.NOT_YET),
    (spf("fail"), signed("example.net", result="temperror"), STRANGER, why.NOT_YET),
    (spf("fail"), signed("other.example", result="temperror"), STRANGER, why.NOT_AUTHENTICATED),
    (spf("fail"), signed(result="temperror"), STRANGER, why.NOT_YET),
    (SpfVerdict(status=Status.DISABLED, result="none"), UNSIGNED, STRANGER, why.NOT_AUTHENTICATED),
    (
        spf("fail"),
        DkimVerdict(
            status=Status.PASS,
            result="pass",
            signatures=(
                DkimSignature(domain="example.net", result="temperror"),
                DkimSignature(domain="example.net", result="pass"),
            ),
        ),
        STRANGER,
        "",
    ),
]


@pytest.mark.parametrize(("by_spf", "by_dkim", "by_dmarc", "reason"), IDENTITY)
def test_a_sender_is_told_when_spf_or_an_aligned_signature_says_who_it_is(
    by_spf: SpfVerdict, by_dkim: DkimVerdict, by_dmarc: DmarcVerdict, reason: str
) -> None:
    verdicts = replace(PASSED, spf=by_spf, dkim=by_dkim, dmarc=by_dmarc)
    assert _reason(verdicts) == reason


def _reason(verdicts: Verdicts) -> str:
    try:
        return why_not(mail(), verdicts)
    except TemporaryFailure as failure:
        return failure.reason


def test_what_is_certain_is_said_before_dns_is_waited_for() -> None:
    verdicts = replace(PASSED, spf=spf("temperror"), dkim=UNSIGNED, dmarc=STRANGER)
    assert why_not(mail(header=USUAL + "Precedence: bulk\r\n"), verdicts) == why.BULK_MAIL


class Clock:
    now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_sender_is_told_so_often_in_an_hour(tmp_path: Path) -> None:
    clock = Clock()
    rates = Rates(tmp_path / "dsn.sqlite", per_hour=2, now=clock)
    senders = ["a@example.net", "A+label@Example.NET", "a@example.net", "b@example.net"]
    assert [rates.take(sender) for sender in senders] == [True, True, False, True]
    rates.give_back("a@example.net")
    assert [rates.take("a@example.net"), rates.take("a@example.net")] == [True, False]
    clock.now += 3600
    assert rates.take("a@example.net")
    rates.close()


def test_workers_count_together_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    clock = Clock()
    one, other = (Rates(tmp_path / "dsn.sqlite", per_hour=2, now=clock) for _ in range(2))
    assert [one.take("a@b.example"), other.take("a@b.example"), one.take("a@b.example")] == [True, True, False]
    one.close()
    other.close()
    again = Rates(tmp_path / "dsn.sqlite", per_hour=2, now=clock)
    assert not again.take("a@b.example")
    again.close()


def test_no_more_senders_are_remembered_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(why, "MOST_SENDERS", 3)
    clock = Clock()
    rates = Rates(tmp_path / "dsn.sqlite", per_hour=2, now=clock)
    assert [rates.take(f"{number}@b.example") for number in range(5)] == [True, True, True, False, False]
    assert rates.take("0@b.example")
    clock.now += 3600
    assert rates.take("4@b.example")
    rates.close()


def test_what_was_given_back_is_never_less_than_nothing(tmp_path: Path) -> None:
    rates = Rates(tmp_path / "dsn.sqlite", per_hour=1, now=Clock())
    rates.give_back("a@b.example")
    assert [rates.take("a@b.example"), rates.take("a@b.example")] == [True, False]
    rates.close()
