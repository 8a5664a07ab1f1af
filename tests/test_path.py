"""A message goes the whole path: real SMTP in, real DNS, a real bucket out, and one reply that is true."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from inbound.actions.s3 import open_object
from inbound.app import cloud_of
from inbound.errors import ConfigurationError
from inbound.record import Record, plain
from inbound.transaction import Refusal
from tests.harness import mail, receiver

STORE = """
rules:
  - name: store
    recipients: [example.com]
    actions:
      - s3: {bucket: mail-all, prefix: in, topic_arn: "arn:aws:sns:us-east-1:000000000000:mail"}
"""


def test_an_ordinary_mail_is_judged_stored_and_answered_with_its_id(tmp_path: Path) -> None:
    async def run() -> None:
        async with receiver(tmp_path, rules=STORE) as mx:
            reply = await mx.reply(mail())
            record = mx.record
            assert reply == f"250 2.0.0 OK {record.message_id}"
            ((key, content),) = mx.objects("mail-all").items()
            assert key == f"in/{record.message_id}"
            assert content.startswith(
                b"Return-Path: <pat@sender.example>\r\nReceived: from mx.sender.example (mx.sender.example"
            )
            assert content.endswith(mail())
            assert b"spf=pass" in content
            assert record.verdicts.dmarc.aligned == ("spf",)
            (notice,) = mx.notifications("mail")
            assert notice["mail"]["messageId"] == record.message_id
            assert notice["receipt"]["action"]["objectKey"] == key

    asyncio.run(run())


TELL = """
rules:
  - name: tell
    recipients: [example.com]
    actions:
      - sns: {topic_arn: "arn:aws:sns:us-east-1:000000000000:mail"}
      - lambda: {function: note, invocation: request_response}
"""
NOTE = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"


@pytest.mark.parametrize(("events", "ours"), [("inbound", ["inbound"]), ("ses", [])])
def test_what_is_told_beyond_ses_can_be_left_out(tmp_path: Path, events: str, ours: list[str]) -> None:
    seen = tmp_path / "event.json"

    async def run() -> None:
        functions = {"note": (sys.executable, "-c", NOTE, str(seen))}
        async with receiver(tmp_path, rules=TELL, events=events, functions=functions) as mx:
            assert (await mx.reply(mail())).startswith("250 ")
            (notice,) = mx.notifications("mail")
            assert list(notice) == ["notificationType", "mail", "receipt", "content", *ours]
            assert list(json.loads(seen.read_text())["Records"][0]["ses"]) == ["mail", "receipt", *ours]

    asyncio.run(run())


def test_a_sealed_object_opens_and_is_what_was_received(tmp_path: Path) -> None:
    async def run() -> None:
        async with receiver(tmp_path) as mx:
            await mx.reply(mail())
            key = f"in/{mx.record.message_id}"
            assert mail() not in mx.objects("mail-support")[key]
            async with cloud_of(mx.app.settings) as cloud:
                assert (await open_object(cloud, "mail-support", key)).endswith(mail())

    asyncio.run(run())


def test_the_same_mail_again_is_one_object_under_one_id(tmp_path: Path) -> None:
    async def run() -> None:
        async with receiver(tmp_path, rules=STORE) as mx:
            first = await mx.reply(mail())
            stored = mx.objects("mail-all")
            await asyncio.sleep(1.1)  # so that the Received line of the second would differ
            assert await mx.reply(mail()) == first
            assert mx.objects("mail-all") == stored

    asyncio.run(run())


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("someone@elsewhere.example", "550 5.7.1 not relaying"),
        ("someone@sub.example.com", "550 5.7.1 not relaying"),
        ("nobody@example.com", "550 5.1.1 No such recipient here"),
        ("payroll@example.com", "530 5.7.0 Must issue a STARTTLS command first"),
        ("old-shop@example.com", "550 5.1.6 This address is retired"),
    ],
)
def test_what_is_certain_at_rcpt_is_answered_there_and_noted(tmp_path: Path, recipient: str, reply: str) -> None:
    async def run() -> None:
        async with receiver(tmp_path) as mx:
            answers = await mx.send(mail(), recipient)
            assert str(answers[recipient]).startswith(reply)
            (note,) = mx.notes
            assert isinstance(note, Refusal)
            assert (note.recipient, note.reply.code) == (recipient, int(reply[:3]))

    asyncio.run(run())


def test_recipients_that_may_need_different_answers_do_not_share_a_transaction(tmp_path: Path) -> None:
    rules = """
rules:
  - name: strict
    recipients: [strict@example.com]
    when: {spf: fail}
    actions: [bounce: {smtp_reply_code: 550, status_code: 5.7.23, message: SPF says no}]
  - name: store
    recipients: [example.com]
    actions: [s3: {bucket: mail-all}]
"""

    async def run() -> None:
        async with receiver(tmp_path, rules=rules) as mx:
            answers = await mx.send(mail(), "easy@example.com", "strict@example.com", "other@example.com")
            assert str(answers["strict@example.com"]).startswith("452 4.5.3")
            assert answers[""].code == 250
            assert mx.record.rcpt_to == ("easy@example.com", "other@example.com")
            alone = await mx.reply(mail(), "strict@example.com", client_ip="198.51.100.9")
            assert alone == "550 5.7.23 SPF says no"

    asyncio.run(run())


def test_a_failing_dns_defers_what_turns_on_it_before_anything_is_done(tmp_path: Path) -> None:
    rules = """
rules:
  - name: copy
    recipients: [example.com]
    actions: [s3: {bucket: mail-copy}]
  - name: verified-only
    recipients: [example.com]
    unless: {dmarc: pass}
    actions: [bounce: {smtp_reply_code: 550, status_code: 5.7.1, message: Only verified mail}]
"""

    async def run() -> None:
        async with receiver(
            tmp_path, rules=rules, dns={"sender.example": "SERVFAIL", "_dmarc.sender.example": "SERVFAIL"}
        ) as mx:
            assert (await mx.reply(mail())).startswith("451 4.7.0 The dmarc check could not be completed")
            assert mx.objects("mail-copy") == {}
            assert mx.record.verdicts.spf.status == "PROCESSING_FAILED"

    asyncio.run(run())


FUNCTION = """
import json, pathlib, sys
event = json.load(sys.stdin)
log = pathlib.Path(__file__).with_suffix(".log")
with log.open("a") as file:
    file.write(event["Records"][0]["ses"]["mail"]["messageId"] + "\\n")
if pathlib.Path(__file__).with_suffix(".down").exists():
    sys.exit(1)
print(json.dumps({"disposition": "stop_rule_set"}))
"""


def test_what_was_done_before_a_deferral_is_skipped_by_the_senders_retry_after_a_restart(tmp_path: Path) -> None:
    """Two functions, the second fails: 451. The retry, which a new process takes, calls only the second again."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(
            FUNCTION.replace("stop_rule_set", "continue" if name == "one" else "stop_rule_set")
        )
    (tmp_path / "two.down").touch()
    rules = """
rules:
  - name: functions
    recipients: [example.com]
    actions:
      - lambda: {function: one, invocation: request_response}
      - lambda: {function: two, invocation: request_response}
      - s3: {bucket: never-reached}
"""
    functions = {name: (sys.executable, str(tmp_path / f"{name}.py")) for name in ("one", "two")}

    async def once() -> tuple[str, Record]:
        async with receiver(tmp_path, rules=rules, functions=functions) as mx:
            reply = await mx.reply(mail())
            assert mx.objects("never-reached") == {}
            return reply, mx.record

    reply, record = asyncio.run(once())
    assert reply.startswith("451 4.3.0")
    assert [ran.outcome for ran in record.ran] == ["done", "failed"]
    (tmp_path / "two.down").unlink()
    reply, record = asyncio.run(once())
    assert reply.startswith("250 2.0.0 OK")
    assert [ran.outcome for ran in record.ran] == ["already done", "done"]
    assert len((tmp_path / "one.log").read_text().splitlines()) == 1
    assert len((tmp_path / "two.log").read_text().splitlines()) == 2


def test_a_record_is_one_json_document_that_says_why(tmp_path: Path) -> None:
    async def run() -> None:
        async with receiver(tmp_path) as mx:
            await mx.reply(mail())
            document = json.loads(json.dumps(plain(mx.record.document())))
            rules = document["recipients"]["support@example.com"]["rules"]
            assert {"name": "support", "met": True, "why": "it has no condition"} in rules
            assert document["reply"] == {
                "code": 250,
                "enhanced": "2.0.0",
                "text": f"OK {mx.record.message_id}",
                "reason": "",
            }
            assert sorted(document["timings_ms"]) == ["arc", "dkim", "dmarc", "iprev", "spam", "spf", "virus"]

    asyncio.run(run())


def test_rules_that_fail_their_own_tests_never_go_live(tmp_path: Path) -> None:
    async def run() -> None:
        async with receiver(tmp_path, rules=STORE) as mx:
            before = mx.app.ruleset
            changed = STORE.replace("mail-all", "mail-new")
            broken = (
                changed + "tests:\n  - it: refuses\n    given: {to: a@example.com}\n    expect: {reply: 550 5.7.1}\n"
            )
            file = tmp_path / "rules.yaml"
            for text in ("rules: [", broken):
                file.write_text(text)
                with pytest.raises(ConfigurationError, match=r"rules\.yaml:\d+:\d+: "):
                    mx.app.reload()
                assert mx.app.ruleset is before
            file.write_text(changed)
            mx.app.reload()
            await mx.reply(mail())
            assert list(mx.objects("mail-new"))

    asyncio.run(run())
