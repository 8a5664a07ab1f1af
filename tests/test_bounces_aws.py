"""Notifications through SES's SendRawEmail, over real HTTP to moto's server, which wants a verified identity as SES does."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from inbound.clients.ses import NEEDS_SMTPUTF8, Ses
from inbound.settings import Dsn
from tests.aws import aws, bucket, client
from tests.harness import mail, receiver
from tests.test_bounces import BOTH, told

__all__ = ["aws"]

SENDER = "bounces@example.com"


def sent(recipient: str) -> list[Any]:
    """What moto's SES was given for somebody."""
    from moto.ses.models import ses_backends  # noqa: PLC0415 - it takes a second

    backend = ses_backends["123456789012"]["us-east-1"]
    return [one for one in backend.sent_messages if recipient in one.destinations]


def test_ses_sends_once_its_identity_is_verified(tmp_path: Path, aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = bucket(aws)
    rules = f"""
rules:
  - name: closed
    recipients: [closed@example.com]
    when: {{subject: {{contains: order}}}}
    actions:
      - s3: {{bucket: {store}, prefix: closed}}
      - bounce: {{smtp_reply_code: 550, status_code: 5.2.1, message: Mailbox closed}}
  - name: rest
    recipients: [example.com]
    actions: [{{s3: {{bucket: {store}}}}}]
"""
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)

    async def story() -> None:
        dsn = Dsn(through="ses", sender=SENDER)
        async with receiver(tmp_path, rules=rules, cloud="aws", split_recipients=False, dsn=dsn) as mx:
            assert (await mx.reply(mail(), *BOTH)).startswith("451 4.3.0")
            assert told(mx.record).detail["reason"] == "request not accepted"
            assert "MessageRejected" in told(mx.record).detail["detail"]
            client("ses", aws).verify_email_identity(EmailAddress=SENDER)
            assert (await mx.reply(mail(), *BOTH)).startswith("250 ")
            assert [ran.outcome for ran in mx.record.ran] == ["already done"] * 3 + ["done"]
        (message,) = sent("pat@sender.example")
        assert message.source == SENDER
        assert "\r\nFinal-Recipient: rfc822; closed@example.com\r\n" in message.raw_data

    asyncio.run(story())


def test_ses_is_not_asked_to_send_where_it_cannot() -> None:
    class Nobody:
        async def send_raw_email(self, raw: bytes, *, source: str, rcpt_to: tuple[str, ...]) -> str:
            raise AssertionError

    refusals = asyncio.run(Ses(Nobody()).send(b"", mail_from="", rcpt_to=("änne@sender.example",)))
    assert refusals == {"änne@sender.example": NEEDS_SMTPUTF8}
