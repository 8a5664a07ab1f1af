"""Collecting: which messages count, as what, and that it holds nobody up."""

import asyncio
import sqlite3
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from inbound.mail import Client
from inbound.record import Ran, Record
from inbound.reply import Reply
from inbound.reports import DAY, Row, Signature
from inbound.reports import collect as collecting
from inbound.reports import store as storing
from inbound.reports.collect import Collector, row_of
from inbound.reports.store import Store
from inbound.settings import Reports
from inbound.verdicts import ALL_PASSED, DkimSignature, DkimVerdict, DmarcVerdict, SpfVerdict, Status, UpstreamVerdict
from tests.harness import DNS, mail, receiver

DMARC = DmarcVerdict(
    status=Status.FAIL,
    result="fail",
    from_domain="mail.a.example",
    record_domain="a.example",
    policy="reject",
    applied_policy="reject",
    record="v=DMARC1; p=reject; rua=mailto:r@a.example",
)
OK, REFUSED, DEFERRED = Reply(250, "2.0.0", "OK"), Reply(550, "5.7.1", "no"), Reply(451, "4.7.1", "later")


def record(dmarc: DmarcVerdict = DMARC, reply: Reply = OK, **more: Any) -> Record:
    verdicts = replace(
        ALL_PASSED,
        spf=SpfVerdict(status=Status.PASS, result="pass", domain="b.example"),
        dkim=more.pop("dkim", DkimVerdict(status=Status.GRAY, result="none")),
        dmarc=dmarc,
    )
    usual: dict[str, Any] = {"mail_from": "x@b.example", "client": Client(ip=ip_address("192.0.2.1"))}
    return Record(
        **usual | more, message_id="0" * 40, rcpt_to=("y@c.example",), size=1, verdicts=verdicts, walks=(), reply=reply
    )


def test_a_message_is_a_row_under_the_domain_of_its_policy() -> None:
    assert row_of(record(), day=7) == Row(
        day=7,
        domain="a.example",
        source_ip="192.0.2.1",
        disposition="none",
        dkim=False,
        spf=False,
        override="local_policy",
        header_from="mail.a.example",
        envelope_from="b.example",
        spf_domain="b.example",
        spf_result="pass",
    )


QUARANTINED = (Ran(rule="r", action="quarantine", recipients=(), outcome="done"),)


BY_DMARC, ANYWAY = True, False


@pytest.mark.parametrize(
    ("result", "policy", "applied", "reply", "ran", "because", "outcome"),
    [
        ("pass", "reject", "reject", OK, (), ANYWAY, ("pass", None)),
        ("pass", "none", "none", OK, (), ANYWAY, ("none", None)),
        ("pass", "reject", "reject", REFUSED, (), ANYWAY, ("pass", None)),  # refused for another reason
        ("fail", "none", "none", OK, (), ANYWAY, ("none", None)),
        ("fail", "none", "none", REFUSED, (), ANYWAY, ("none", None)),  # nor is this DMARC's doing
        ("fail", "none", "none", REFUSED, (), BY_DMARC, ("reject", "local_policy")),
        ("fail", "reject", "reject", REFUSED, (), BY_DMARC, ("reject", None)),
        ("fail", "reject", "reject", REFUSED, (), ANYWAY, ("none", "local_policy")),
        ("fail", "reject", "reject", OK, (), ANYWAY, ("none", "local_policy")),
        ("fail", "reject", "reject", OK, (), BY_DMARC, ("none", "local_policy")),  # a header field, say
        ("fail", "reject", "reject", OK, QUARANTINED, BY_DMARC, ("quarantine", "local_policy")),
        ("fail", "reject", "reject", OK, QUARANTINED, ANYWAY, ("none", "local_policy")),
        ("fail", "quarantine", "quarantine", OK, QUARANTINED, BY_DMARC, ("quarantine", None)),
        ("fail", "quarantine", "quarantine", REFUSED, (), BY_DMARC, ("reject", "local_policy")),
        ("fail", "quarantine", "none", OK, (), ANYWAY, ("none", "policy_test_mode")),
        ("fail", "reject", "quarantine", OK, QUARANTINED, BY_DMARC, ("quarantine", "policy_test_mode")),
        ("fail", "reject", "quarantine", OK, (), ANYWAY, ("none", "local_policy")),
        ("fail", "reject", "quarantine", REFUSED, (), BY_DMARC, ("reject", None)),
    ],
)
def test_the_disposition_is_what_was_done_because_of_dmarc(
    result: Any, policy: Any, applied: Any, reply: Reply, ran: Any, *, because: bool, outcome: tuple[str, str | None]
) -> None:
    dmarc = replace(DMARC, result=result, policy=policy, applied_policy=applied, aligned=("spf",) * (result == "pass"))
    row = row_of(record(dmarc, reply, ran=ran, by_dmarc=because), day=7)
    assert row is not None
    assert (row.disposition, row.override) == outcome


def test_a_trusted_forwarder_is_the_reason() -> None:
    forwarded = record()
    verdicts = replace(forwarded.verdicts, upstream=UpstreamVerdict(result="pass"))
    row = row_of(replace(forwarded, verdicts=verdicts), day=7)
    assert row is not None
    assert (row.disposition, row.override) == ("none", "trusted_forwarder")


@pytest.mark.parametrize(
    "uncounted",
    [
        record(reply=DEFERRED),
        record(replace(DMARC, policy="", applied_policy="", result="none")),
        record(replace(DMARC, policy="", applied_policy="", result="temperror", status=Status.PROCESSING_FAILED)),
        record(replace(DMARC, record_domain="../../a")),
    ],
    ids=["deferred", "no policy", "temperror", "no file name"],
)
def test_what_comes_again_or_has_no_policy_is_not_counted(uncounted: Record) -> None:
    assert row_of(uncounted, day=7) is None


def test_signatures_stand_in_the_order_of_preference_and_are_few() -> None:
    def one(domain: str, result: Any, selector: str = "s", *, aligned: bool = False) -> DkimSignature:
        return DkimSignature(domain=domain, selector=selector, result=result, aligned=aligned)

    found = (
        one("fails.example", "fail"),
        one("other.example", "pass"),
        one("a.example", "pass", aligned=True),
        one("mail.a.example", "pass", aligned=True),
        one("", "permerror"),
        one("x.example", "fail", "\0 bad"),
        *(one(f"{number}.example", "fail") for number in range(20)),
    )
    row = row_of(record(dkim=DkimVerdict(status=Status.PASS, result="pass", signatures=found)), day=7)
    assert row is not None
    assert row.signatures[:4] == (
        Signature(domain="mail.a.example", selector="s", result="pass"),
        Signature(domain="a.example", selector="s", result="pass"),
        Signature(domain="other.example", selector="s", result="pass"),
        Signature(domain="fails.example", selector="s", result="fail"),
    )
    assert len(row.signatures) == collecting.SIGNATURES


def collected(path: Path) -> list[tuple[Any, ...]]:
    store = Store(path)
    found = [(one.day, one.domain, one.messages, one.passed, one.rejected) for one in store.summaries(0, 10**6)]
    store.close()
    return found


def test_counts_of_several_processes_add_up(tmp_path: Path) -> None:
    path = tmp_path / "reports.sqlite"

    async def story() -> None:
        async with (
            Collector(Store(path), now=lambda: 7 * DAY) as one,
            Collector(Store(path), now=lambda: 7 * DAY) as two,
        ):
            for collector in (one, two, two):
                collector.note(record())
                await collector.flush()
            two.note(record(reply=REFUSED, by_dmarc=True))

    asyncio.run(story())
    assert collected(path) == [(7, "a.example", 4, 0, 1)]


def test_old_days_are_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path / "r", keep_days=30)
    for day in (1, 40, 70):
        row = row_of(record(), day=day)
        assert row is not None
        store.add({row: 1}, {(day, "a.example"): DMARC.record})
    store.close()
    assert [one[0] for one in collected(tmp_path / "r")] == [70]


def test_memory_and_file_have_a_limit_and_known_rows_still_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "MOST_WAITING", 20)
    monkeypatch.setattr(storing, "MOST_ROWS", 15)

    async def story() -> int:
        async with Collector(Store(tmp_path / "r"), now=lambda: 7 * DAY, pause=60) as collector:
            for number in range(30):
                collector.note(record(client=Client(ip=ip_address(f"192.0.2.{number}"))))
            dropped = collector.dropped
            collector.note(record(client=Client(ip=ip_address("192.0.2.3"))))
            return dropped

    assert asyncio.run(story()) == 10
    ((_, _, messages, _, _),) = collected(tmp_path / "r")
    assert messages == 16


def test_what_cannot_be_written_waits_and_no_message_notices(tmp_path: Path) -> None:
    path = tmp_path / "r"

    async def story() -> None:
        collector = Collector(Store(path), now=lambda: 7 * DAY)
        broken = sqlite3.connect(path)
        broken.execute("ALTER TABLE rows RENAME TO elsewhere")
        collector.note(record())
        await collector.flush()
        collector.note(record())
        broken.execute("ALTER TABLE elsewhere RENAME TO rows")
        broken.commit()
        broken.close()
        await collector.flush()

    asyncio.run(story())
    assert collected(path) == [(7, "a.example", 2, 0, 0)]


REFUSE = """
rules:
  - name: stamped
    when: {dmarc: fail}
    actions: [add_header: {name: X-Forged, value: "yes"}]
  - name: refuse
    recipients: [example.com]
    when: %s
    actions: [bounce: {smtp_reply_code: 550, status_code: 5.7.1, message: No}]
  - name: store
    recipients: [example.com]
    actions: [s3: {bucket: mail}]
"""


@pytest.mark.parametrize(
    ("when", "reply", "outcome"),
    [
        ("{dmarc: fail}", "550", ("reject", None)),
        ("{all: [{dmarc_policy: reject}, {dmarc: fail}]}", "550", ("reject", None)),
        ("{not: {dmarc: pass}}", "550", ("reject", None)),
        ("{any: [{dmarc: fail}, {helo: mx.sender.example}]}", "550", ("none", "local_policy")),  # refused in any case
        ("{helo: mx.sender.example}", "550", ("none", "local_policy")),
        ("{all: [{dmarc: fail}, {helo: other.example}]}", "250", ("none", "local_policy")),
        ("{helo: other.example}", "250", ("none", "local_policy")),
    ],
)
def test_a_refusal_is_dmarcs_doing_when_a_pass_would_have_been_answered_otherwise(
    tmp_path: Path, when: str, reply: str, outcome: tuple[str, str | None]
) -> None:
    dns = {**DNS, "_dmarc.sender.example": {"TXT": ["v=DMARC1; p=reject"]}}

    async def story() -> str:
        async with receiver(tmp_path, dns=dns, rules=REFUSE % when, reports=Reports(collect=True)) as to:
            return (await to.reply(mail(), client_ip="192.0.2.66"))[:3]

    assert asyncio.run(story()) == reply
    store = Store(tmp_path / "data" / "reports.sqlite")
    ((row, count),) = store.rows("sender.example", 0, 10**6)
    store.close()
    assert (row.disposition, row.override, count) == (*outcome, 1)


@pytest.mark.parametrize("collect", [True, False])
def test_a_receiver_collects_when_it_is_told_to(tmp_path: Path, *, collect: bool) -> None:
    dns = {**DNS, "_dmarc.sender.example": {"TXT": ["v=DMARC1; p=reject; rua=mailto:r@sender.example"]}}

    async def story() -> None:
        async with receiver(tmp_path, dns=dns, reports=Reports(collect=collect)) as to:
            clients = ("192.0.2.10", "192.0.2.10", "192.0.2.66")
            replies = [(await to.reply(mail(), client_ip=ip))[:3] for ip in clients]
            assert replies == ["250", "250", "550"]

    asyncio.run(story())
    file = tmp_path / "data" / "reports.sqlite"
    assert file.exists() == collect
    if collect:
        ((_, domain, messages, passed, rejected),) = collected(file)
        assert (domain, messages, passed, rejected) == ("sender.example", 3, 2, 1)
