"""Some recipients refused, others taken, in one transaction: 250, and a notification for the sender; or neither."""

import asyncio
import io
import json
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inbound.errors import ConfigurationError
from inbound.journal import Journal
from inbound.record import Ran, Record
from inbound.settings import Dsn, Settings
from tests.harness import DNS, Receiver, mail, receiver

TOPIC = "arn:aws:sns:us-east-1:000000000000:mail"
RULES = f"""
rules:
  - name: closed
    recipients: [closed@example.com]
    when: {{subject: {{contains: order}}}}
    actions:
      - s3: {{bucket: closed}}
      - bounce: {{smtp_reply_code: 550, status_code: 5.2.1, message: Mailbox closed, topic_arn: "{TOPIC}"}}
  - name: rest
    recipients: [example.com]
    actions: [{{s3: {{bucket: mail}}}}]
"""
BOTH = ("open@example.com", "closed@example.com")


def shared(directory: Path, rules: str = RULES, **more: Any) -> AbstractAsyncContextManager[Receiver]:
    """A receiver whose recipients share transactions, and whose notifications are files."""
    return receiver(directory, rules=rules, **{"split_recipients": False, "dsn": Dsn(through="outbox"), **more})


def outbox(mx: Receiver) -> list[bytes]:
    return [path.read_bytes() for path in sorted((mx.directory / "outbox").glob("*.eml"))]


def told(record: Record) -> Ran:
    return next(ran for ran in record.ran if ran.action == "dsn")


def ran(record: Record) -> list[tuple[str, str, str]]:
    return [(it.rule, it.action, it.outcome) for it in record.ran]


def test_who_is_refused_while_others_are_taken_is_told_of_by_a_notification(tmp_path: Path) -> None:
    async def story() -> None:
        async with shared(tmp_path) as mx:
            answers = await mx.send(mail(), *BOTH)
            assert {who: str(answer) for who, answer in answers.items()} == {"": f"250 2.0.0 OK {mx.record.message_id}"}
            assert list(mx.objects("mail")) == list(mx.objects("closed")) == [mx.record.message_id]
            (notification,) = outbox(mx)
            assert b"\r\nTo: pat@sender.example\r\n" in notification
            assert b"\r\nFinal-Recipient: rfc822; closed@example.com\r\n" in notification
            assert b"\r\nDiagnostic-Code: smtp; 550 5.2.1 Mailbox closed\r\n" in notification
            assert b"open@example.com" not in notification
            assert told(mx.record).rule == "closed"
            assert told(mx.record).recipients == ("closed@example.com",)
            assert told(mx.record).outcome == "done"
            assert told(mx.record).detail["to"] == "pat@sender.example"
            assert {walk.recipient: walk.reply.code for walk in mx.record.walks} == dict(
                zip(BOTH, (250, 550), strict=True)
            )
            (notice,) = mx.notifications("mail")
            assert notice["receipt"]["action"]["type"] == "Bounce"
            assert notice["receipt"]["recipients"] == ["closed@example.com"]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("recipients", "subject", "reply"),
    [
        (("closed@example.com",), "An order", "550 5.2.1 Mailbox closed"),
        (("open@example.com",), "An order", "250 2.0.0 OK"),
        (BOTH, "Hello", "250 2.0.0 OK"),
    ],
)
def test_where_one_reply_is_true_for_all_nobody_is_told_anything_else(
    tmp_path: Path, recipients: tuple[str, ...], subject: str, reply: str
) -> None:
    async def story() -> None:
        async with shared(tmp_path) as mx:
            assert (await mx.reply(mail(Subject=subject), *recipients)).startswith(reply)
            assert outbox(mx) == []

    asyncio.run(story())


def test_what_is_certain_at_rcpt_is_refused_there_all_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        rules = RULES.replace("when: {subject: {contains: order}}", "").replace("- s3: {bucket: closed}", "")
        async with shared(tmp_path, rules.replace(f', topic_arn: "{TOPIC}"', "")) as mx:
            answers = await mx.send(mail(), *BOTH)
            assert str(answers["closed@example.com"]) == "550 5.2.1 Mailbox closed"
            assert str(answers[""]).startswith("250 ")
            assert outbox(mx) == []

    asyncio.run(story())


def test_split_recipients_get_a_transaction_each_and_hear_it_in_the_session(tmp_path: Path) -> None:
    async def story() -> None:
        async with shared(tmp_path, split_recipients=True) as mx:
            answers = await mx.send(mail(), *BOTH)
            assert str(answers["closed@example.com"]).startswith("452 4.5.3")
            assert outbox(mx) == []

    asyncio.run(story())


def test_a_recipient_whom_no_rule_takes_is_told_of_too(tmp_path: Path) -> None:
    async def story() -> None:
        rules = """
rules:
  - name: open
    recipients: [open@example.com]
    actions: [{s3: {bucket: mail}}]
  - name: some
    recipients: [some@example.com]
    when: {subject: hello}
    actions: [{s3: {bucket: mail}}]
"""
        async with shared(tmp_path, rules) as mx:
            assert (await mx.reply(mail(), "open@example.com", "some@example.com")).startswith("250 ")
            (notification,) = outbox(mx)
            assert b"\r\nFinal-Recipient: rfc822; some@example.com\r\n" in notification
            assert b"smtp; 550 5.7.1 No rule here takes this message\r\n" in notification

    asyncio.run(story())


def test_a_bounce_that_goes_on_is_told_of_as_in_ses_and_so_is_what_comes_after_it(tmp_path: Path) -> None:
    async def story() -> None:
        rules = RULES.replace("Mailbox closed,", "Mailbox closed, then: continue, sender: bounces@example.com,")
        async with shared(tmp_path, rules) as mx:
            assert (await mx.reply(mail(), *BOTH)).startswith("250 ")
            (notification,) = outbox(mx)
            assert b"\r\nFrom: bounces@example.com\r\n" in notification
            assert len(mx.objects("mail")) == 1
            assert [it.recipients for it in mx.record.ran if it.rule == "rest"] == [BOTH]
            (notice,) = mx.notifications("mail")
            assert notice["receipt"]["action"]["sender"] == "bounces@example.com"

    asyncio.run(story())


def test_a_bounce_with_4xx_defers_all_before_anything_is_done(tmp_path: Path) -> None:
    async def story() -> None:
        rules = RULES.replace("smtp_reply_code: 550, status_code: 5.2.1", "smtp_reply_code: 450, status_code: 4.2.1")
        async with shared(tmp_path, rules) as mx:
            assert await mx.reply(mail(), *BOTH) == "450 4.2.1 Mailbox closed"
            assert (outbox(mx), mx.objects("mail"), mx.objects("closed")) == ([], {}, {})

    asyncio.run(story())


UNSAFE: Mapping[str, dict[str, Any]] = {
    "null sender": {"mail_from": ""},
    "message was sent by a program": {"Auto-Submitted": "auto-replied"},
    "message came by a list": {"List-Id": "<list.sender.example>"},
    "message is bulk mail": {"Precedence": "bulk"},
    "sender is a mail system": {"mail_from": "MAILER-DAEMON@sender.example"},
    "sender is not authenticated": {"mail_from": "pat@other.example"},
}


@pytest.mark.parametrize(("reason", "given"), UNSAFE.items(), ids=UNSAFE)
def test_a_sender_that_must_not_be_told_is_not_and_the_record_says_why(
    tmp_path: Path, reason: str, given: dict[str, Any]
) -> None:
    fields = {name: value for name, value in given.items() if name != "mail_from"}
    envelope = {name: value for name, value in given.items() if name == "mail_from"}

    async def story() -> None:
        async with shared(tmp_path) as mx:
            assert (await mx.reply(mail(**fields), *BOTH, **envelope)).startswith("250 ")
            assert outbox(mx) == []
            assert (told(mx.record).outcome, told(mx.record).detail["reason"]) == ("bounce suppressed", reason)
            assert any(
                line.startswith("  bounce suppressed dsn of closed:") and reason in line for line in mx.record.lines()
            )

    asyncio.run(story())


def test_a_sender_is_told_no_more_often_than_the_settings_say(tmp_path: Path) -> None:
    async def story() -> None:
        async with shared(tmp_path, dsn=Dsn(through="outbox", per_hour=2)) as mx:
            for number in range(4):
                assert (await mx.reply(mail(f"number {number}\r\n"), *BOTH)).startswith("250 ")
            assert len(outbox(mx)) == 2
            assert told(mx.record).detail["reason"] == "sender was told too often"

    asyncio.run(story())


def test_a_notification_that_comes_back_is_never_answered(tmp_path: Path) -> None:
    async def story() -> None:
        async with shared(tmp_path) as mx:
            await mx.reply(mail(), *BOTH)
            (notification,) = outbox(mx)
            back = notification.replace(b"Subject: ", b"Subject: order: ")
            for sender in ("", "pat@sender.example"):
                assert (await mx.reply(back, *BOTH, mail_from=sender)).startswith("250 ")
                assert told(mx.record).outcome == "bounce suppressed"
            assert len(outbox(mx)) == 1

    asyncio.run(story())


def test_a_sender_whom_dns_cannot_tell_yet_is_asked_to_come_again_and_is_told_then(tmp_path: Path) -> None:
    async def once(dns: Mapping[str, Any]) -> tuple[str, Record, int]:
        async with shared(tmp_path, dns=dns) as mx:
            reply = await mx.reply(mail(), *BOTH)
            return reply, mx.record, len(outbox(mx))

    reply, record, count = asyncio.run(once({**DNS, "sender.example": "SERVFAIL"}))
    assert (reply[:9], count) == ("451 4.3.0", 0)
    assert told(record).detail["reason"] == "sender cannot be authenticated yet"
    reply, record, count = asyncio.run(once(DNS))
    assert (reply[:3], count) == ("250", 1)
    assert [it.outcome for it in record.ran] == ["already done"] * 3 + ["done"]


def test_what_was_done_before_a_notification_failed_is_not_done_again_and_the_next_one_is_the_only_one(
    tmp_path: Path,
) -> None:
    in_the_way = tmp_path / "data" / "outbox"

    async def once() -> tuple[str, list[tuple[str, str, str]], int, int]:
        async with shared(tmp_path) as mx:
            reply = await mx.reply(mail(), *BOTH)
            return reply, ran(mx.record), len(outbox(mx)), len(mx.notifications("mail"))

    in_the_way.parent.mkdir()
    in_the_way.touch()
    for outcome in ("done", "already done"):
        reply, what, count, notices = asyncio.run(once())
        assert (reply[:9], count, notices) == ("451 4.3.0", 0, 1)
        assert what == [
            ("closed", "s3", outcome),
            ("closed", "bounce", outcome),
            ("rest", "s3", outcome),
            ("closed", "dsn", "failed"),
        ]
    in_the_way.unlink()
    for outcome in ("done", "already done"):
        reply, what, count, notices = asyncio.run(once())
        assert (reply[:3], count, notices) == ("250", 1, 1)
        assert [it for *_, it in what] == ["already done"] * 3 + [outcome]


def test_tries_that_failed_do_not_count_against_the_sender(tmp_path: Path) -> None:
    in_the_way = tmp_path / "data" / "outbox"
    in_the_way.parent.mkdir()
    in_the_way.touch()

    async def story() -> None:
        async with shared(tmp_path, dsn=Dsn(through="outbox", per_hour=1)) as mx:
            for _ in range(3):
                assert (await mx.reply(mail(), *BOTH)).startswith("451 ")
            in_the_way.unlink()
            assert (await mx.reply(mail(), *BOTH)).startswith("250 ")
            assert len(outbox(mx)) == 1

    asyncio.run(story())


FUNCTION = """
import json, pathlib, sys
receipt = json.load(sys.stdin)["Records"][0]["ses"]["receipt"]
with pathlib.Path(sys.argv[1]).open("a") as file:
    file.write(",".join(receipt["recipients"]) + "\\n")
if receipt["recipients"] == ["closed@example.com"]:
    print(json.dumps({"disposition": "bounce", "smtp_reply_code": int(sys.argv[2]), "message": "No such ticket"}))
else:
    print("null")
"""
ASKING = """
rules:
  - name: one
    recipients: [open@example.com]
    actions: [{lambda: {function: ask, invocation: request_response}}]
  - name: other
    recipients: [closed@example.com]
    actions: [{lambda: {function: ask, invocation: request_response}}, {s3: {bucket: mail}}]
"""


def asking(directory: Path, code: int, **more: Any) -> AbstractAsyncContextManager[Receiver]:
    function = (sys.executable, "-c", FUNCTION, str(directory / "asked"), str(code))
    return shared(directory, ASKING, functions={"ask": function}, **more)


def asked(directory: Path) -> list[str]:
    return (directory / "asked").read_text().splitlines()


def test_a_function_that_refuses_for_some_recipients_has_the_sender_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with asking(tmp_path, 550) as mx:
            assert (await mx.reply(mail(), *BOTH)).startswith("250 ")
            (notification,) = outbox(mx)
            assert b"\r\nDiagnostic-Code: smtp; 550 5.7.1 No such ticket\r\n" in notification
            assert b"\r\nFinal-Recipient: rfc822; closed@example.com\r\n" in notification
            assert mx.objects("mail") == {}

    asyncio.run(story())


def test_a_functions_refusal_outlives_a_notification_that_failed(tmp_path: Path) -> None:
    in_the_way = tmp_path / "data" / "outbox"
    in_the_way.parent.mkdir()
    in_the_way.touch()

    async def once() -> tuple[str, int]:
        async with asking(tmp_path, 550) as mx:
            return (await mx.reply(mail(), *BOTH))[:3], len(outbox(mx))

    assert asyncio.run(once()) == ("451", 0)
    in_the_way.unlink()
    assert asyncio.run(once()) == ("250", 1)
    assert asked(tmp_path) == list(BOTH)


def test_a_function_that_refuses_for_now_defers_all_and_is_asked_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with asking(tmp_path, 450) as mx:
            for _ in range(2):
                reply = await mx.reply(mail(), *BOTH)
                assert reply == "450 4.7.1 No such ticket"
            assert outbox(mx) == []

    asyncio.run(story())
    assert asked(tmp_path) == [*BOTH, "closed@example.com"]


def test_where_nobody_can_be_told_a_mixed_answer_is_451(tmp_path: Path) -> None:
    """It takes `split_recipients: no` to come to this, which needs a way to tell; nothing else is relied on for it."""

    async def story() -> None:
        async with asking(tmp_path, 550) as mx:
            path = mx.app._path
            mx.app._path = replace(path, means=replace(path.means, bounces=None))
            assert (await mx.reply(mail(), *BOTH)).startswith("451 4.3.0")
            assert mx.objects("mail") == {}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"split_recipients": False}, "split_recipients"),
        ({"dsn": Dsn(through="ses", sender="bounces@example.com")}, "dsn.through"),
    ],
)
def test_without_a_way_to_tell_recipients_do_not_share_transactions(
    tmp_path: Path, given: dict[str, Any], where: str
) -> None:
    async def story() -> None:
        async with receiver(tmp_path, rules=RULES, **given):
            pass

    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(story())
    assert [problem.file for problem in caught.value.problems] == [where]


def test_the_settings_have_it_at_its_line(tmp_path: Path) -> None:
    from inbound.settings import load  # noqa: PLC0415

    file = tmp_path / "inbound.yaml"
    file.write_text("hostname: mx.example.com\nsplit_recipients: off\ndsn:\n  through: ses\n")
    with pytest.raises(ConfigurationError) as caught:
        load(file, {})
    assert [(problem.line, problem.column) for problem in caught.value.problems] == [(4, 12)]
    with pytest.raises(ConfigurationError) as caught:
        load(file, {"INBOUND_DSN": "{}"})
    assert [(problem.line, problem.column) for problem in caught.value.problems] == [(2, 19)]
    assert load(file, {"INBOUND_CLOUD": "aws"}).dsn == Dsn(through="ses")


@pytest.mark.parametrize("sender", ["bounces", "a b@example.com", "a@example.com\r\nBcc: x@y.example", "ä@example.com"])
def test_what_cannot_be_from_is_no_sender(sender: str) -> None:
    with pytest.raises(ValueError, match=r"no address|no local part"):
        Settings(dsn=Dsn(sender=sender))


def test_the_record_as_json_has_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with shared(tmp_path) as mx:
            await mx.reply(mail(), *BOTH)
            told = io.StringIO()
            Journal("json", told)(mx.record)
            dsn = json.loads(told.getvalue())["ran"][-1]
            assert (dsn["action"], dsn["rule"], dsn["outcome"]) == ("dsn", "closed", "done")
            assert sorted(dsn["detail"]) == ["notification", "to"]

    asyncio.run(story())


@pytest.mark.parametrize(
    "command", ["RCPT TO:<open@example.com> NOTIFY=NEVER", "RCPT TO:<open@example.com> ORCPT=rfc822;open@example.com"]
)
def test_the_dsn_extension_is_neither_offered_nor_taken(tmp_path: Path, command: str) -> None:
    """RFC 3461 would want notifications of success too, and of what consumers do with a mail we know nothing."""

    async def story() -> None:
        async with shared(tmp_path) as mx, mx.connect() as session:
            assert "DSN" not in (await session.command("EHLO mx.sender.example")).lines
            assert (await session.command("MAIL FROM:<pat@sender.example> RET=HDRS ENVID=1")).code == 555
            await session.command("MAIL FROM:<pat@sender.example>")
            assert (await session.command(command)).code == 555

    asyncio.run(story())
