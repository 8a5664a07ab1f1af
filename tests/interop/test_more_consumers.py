"""Consumers of SES from PyPI, each as it is published, take our events, notifications and objects."""

import asyncio
import email
import email.policy
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inbound.actions.invoke import Invoke
from inbound.actions.s3 import S3
from inbound.actions.sns import Sns
from inbound.clients.aws import AwsCloud
from inbound.trace import header_block, stamped
from inbound.verdicts import DkimSignature, DkimVerdict, DmarcVerdict, Status
from tests.actions.letters import ID, TOPIC, VERDICTS, letter, local
from tests.aws import bucket, client, received, topic_with_queue
from tests.interop.environments import OTHERS, python_with

pytestmark = pytest.mark.timeout(300)  # the environment is made at the first run

RAW = (
    b'DKIM-Signature: v=1;\r\n b=x\r\nFrom: "Pat Sender" <pat@sender.example>\r\nTo: Help <support@example.com>\r\n'
    b"Subject: Order 1234\r\nDate: Tue, 6 Oct 2026 11:15:00 +0200\r\nMessage-ID: <1@sender.example>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n"
    b"--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n"
    b"--a\r\nContent-Type: text/plain; charset=UTF-8\r\n\r\nHello\r\n"
    b"--a\r\nContent-Type: text/html; charset=UTF-8\r\n\r\n<p>Hello</p><p>there</p>\r\n--a--\r\n"
    b"--m\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQK\r\n--m--\r\n"
)
SIGNED = DkimVerdict(
    status=Status.PASS,
    result="pass",
    signatures=(DkimSignature(domain="sender.example", selector="s1", algorithm="rsa-sha256", result="pass"),),
)


ALIGNED = DmarcVerdict(status=Status.PASS, result="pass", from_domain="sender.example", aligned=("spf", "dkim"))


def incoming(raw: bytes = RAW) -> Any:
    """The letter, under the block that the receiver makes."""
    mail, found = letter(raw).mail, replace(VERDICTS, dkim=SIGNED, dmarc=ALIGNED)
    block = header_block(mail, found, hostname="mx.example.com", authserv_id="mx.example.com")
    return letter(raw, content=stamped(mail, block), verdicts=found)


def run(name: str, event: Any, *arguments: str, **environ: str) -> Any:
    command = [str(python_with(*OTHERS)), str(Path(__file__).with_name("consumers.py")), name, *arguments]
    usual = {key: value for key, value in os.environ.items() if key.startswith("AWS_") or key == "PATH"}
    done = subprocess.run(
        command, input=json.dumps(event).encode(), capture_output=True, timeout=60, check=False, env=usual | environ
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(done.stdout)


def lambda_event(tmp_path: Path) -> Any:
    """What a function is really called with."""
    seen = tmp_path / "event.json"

    async def story() -> None:
        async with local(tmp_path, {"note": ("tee", str(seen))}) as cloud:
            await Invoke(function="note", invocation="request_response").perform(incoming(), cloud)

    asyncio.run(story())
    return json.loads(seen.read_text())


def stored(aws: str, *, topic: str | None = None) -> str:
    """The bucket in which it lies."""
    name = bucket(aws)

    async def story() -> None:
        async with AwsCloud(region="us-east-1", endpoint_url=aws) as cloud:
            await S3(bucket=name, prefix="in", topic_arn=topic).perform(incoming(), cloud)

    asyncio.run(story())
    return name


def test_sesforwader_forwards_our_mail(aws: str, tmp_path: Path) -> None:
    name = stored(aws)
    client("ses", aws).verify_email_identity(EmailAddress="support@example.com")
    client("ses", aws).verify_email_identity(EmailAddress="noreply@example.com")
    before = client("ses", aws).get_send_quota()["SentLast24Hours"]
    sent = email.message_from_string(
        run("sesforwader", lambda_event(tmp_path), name, AWS_ENDPOINT_URL=aws), policy=email.policy.default
    )
    assert (sent["Subject"], sent["From"]) == ("[fwd] Order 1234", "noreply@example.com")
    assert sent["Reply-To"] == "Pat Sender <pat@sender.example>"
    assert client("ses", aws).get_send_quota()["SentLast24Hours"] > before


def test_sesparser_reads_our_header_block_as_ses_s(aws: str) -> None:
    topic, queue = topic_with_queue(aws)
    name = stored(aws, topic=topic)
    (message,) = received(aws, queue)
    event = {"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": message}]}
    (found,) = run("sesparser", event, AWS_ENDPOINT_URL=aws)
    assert {key: found[key] for key in ("spam-check", "virus", "spf", "dkim", "dmarc", "folder")} == {
        **dict.fromkeys(("spam-check", "virus", "spf", "dkim", "dmarc"), "pass"),
        "folder": "inbox",
    }
    assert (found["sender_ip"], found["mailed_by"], found["smtp_server"], found["signed_by"]) == (
        *("192.0.2.10", "sender.example", "mail.sender.example", "sender.example"),
    )
    assert (found["timestamp"], found["To"], found["subject"]) == (
        20261006091502,
        ["support@example.com"],
        "Order 1234",
    )
    assert [one["filename"] for one in found["attachments"]] == ["a.pdf"]
    keys = [one["Key"] for one in client("s3", aws).list_objects_v2(Bucket=name)["Contents"]]
    assert "email_archives/example.com/support/<1@sender.example>" in keys


def test_django_email_gateway_takes_what_the_sns_action_publishes(aws: str) -> None:
    topic, queue = topic_with_queue(aws)

    async def story() -> None:
        async with AwsCloud(region="us-east-1", endpoint_url=aws) as cloud:
            await Sns(topic_arn=topic).perform(
                incoming(RAW.partition(b"--m\r\nContent-Type: application")[0] + b"--m--\r\n"), cloud
            )

    asyncio.run(story())
    (message,) = received(aws, queue)
    subject, author, to, local_part, text = run("django_email_gateway", message)
    assert (subject, author, to, local_part) == ("Order 1234", "pat@sender.example", "support@example.com", "support")
    assert text == "Hellothere"


def test_powertools_data_classes_read_every_field(tmp_path: Path) -> None:
    event = lambda_event(tmp_path)
    found = run("data_classes", event)
    assert found[:5] == [ID, "pat@sender.example", ["support@example.com"], False, "2026-10-06T09:15:02.118Z"]
    assert found[6:] == [
        *("pat@sender.example", ['"Pat Sender" <pat@sender.example>'], ["Help <support@example.com>"], "Order 1234"),
        *("<1@sender.example>", "Tue, 6 Oct 2026 11:15:00 +0200", ["support@example.com"], True, ["PASS"] * 5),
        *("Lambda", "arn:aws:lambda:us-east-1:123456789012:function:note", "RequestResponse"),
    ]


def test_lambda_app_common_knows_our_event_for_ses_s(tmp_path: Path) -> None:
    found = run("lambda_app_common", lambda_event(tmp_path))
    assert found == ["ses", ID, "pat@sender.example", ["support@example.com"], "Order 1234"]


def test_a_local_notification_is_what_powertools_expects_in_a_queue(tmp_path: Path) -> None:
    async def story() -> None:
        async with local(tmp_path) as cloud:
            await S3(bucket="mail-support", topic_arn=TOPIC).perform(incoming(), cloud)

    asyncio.run(story())
    (file,) = (tmp_path / "sns/inbound-mail").glob("*.json")
    assert run("sns_in_queue", json.loads(file.read_text())) == ID
