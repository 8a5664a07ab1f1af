"""Consumers of SES from npm, each as it is published, take our events, notifications and objects."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import inbound
from inbound.actions.invoke import Invoke
from inbound.actions.s3 import S3
from inbound.actions.sns import Sns
from inbound.verdicts import DmarcVerdict, Status
from tests.actions.letters import ID, TOPIC, VERDICTS, letter, local
from tests.aws import client
from tests.interop.environments import node_modules_with
from tests.interop.test_more_consumers import RAW, incoming

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not shutil.which("npm"), reason="needs Node.js and npm"),
]

PACKAGES = (
    *("@aws-lambda-powertools/parser@2.35.0", "zod@4.6.7", "@types/aws-lambda@8.10.164", "typescript@5.9.3"),
    *("@reapit-cdk/email-receiver@0.1.2", "@aws-sdk/client-dynamodb@3.1164.0", "@aws-sdk/lib-dynamodb@3.1162.0"),
    *("mailparser@3.14.2", "postal-mime@4.0.0"),
)


def run(name: str, given: bytes, **environ: str) -> Any:
    modules = node_modules_with(*PACKAGES)
    node = shutil.which("node")
    assert node
    usual = {key: value for key, value in os.environ.items() if key.startswith("AWS_") or key == "PATH"}
    done = subprocess.run(
        [node, str(Path(__file__).with_name("consumers.mjs")), name],
        input=given,
        capture_output=True,
        timeout=60,
        check=False,
        env=usual | {"NODE_PATH": str(modules)} | environ,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(done.stdout)


def event(tmp_path: Path, **more: Any) -> bytes:
    """What a function that is not waited for is called with."""
    seen = tmp_path / "event.json"

    async def story() -> None:
        async with local(tmp_path, {"note": ("cp", "/dev/stdin", str(seen))}) as cloud:
            await Invoke(function="note").perform(replace(incoming(), **more), cloud)
            async with asyncio.timeout(30):
                while list((tmp_path / "lambda/queue").iterdir()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    asyncio.run(story())
    return seen.read_bytes()


def test_powertools_for_typescript_reads_our_event(tmp_path: Path) -> None:
    """Its model wants `dmarcPolicy` always, which SES tells of failures only; so this one failed."""
    failed = DmarcVerdict(status=Status.FAIL, result="fail", from_domain="sender.example", applied_policy="reject")
    given = event(tmp_path, verdicts=replace(VERDICTS, dmarc=failed))
    ses = run("powertools", given)
    ours = json.loads(given)["Records"][0]["ses"]
    assert ses["mail"] == {**ours["mail"], "commonHeaders": ours["mail"]["commonHeaders"]}
    assert ses["receipt"] == ours["receipt"]


@pytest.mark.parametrize("name", ["s3", "sns"])
def test_a_local_notification_is_what_powertools_expects_in_a_queue(tmp_path: Path, name: str) -> None:
    async def story() -> None:
        async with local(tmp_path) as cloud:
            action = S3(bucket="mail-support", topic_arn=TOPIC) if name == "s3" else Sns(topic_arn=TOPIC)
            await action.perform(incoming(), cloud)

    asyncio.run(story())
    (file,) = (tmp_path / "sns/inbound-mail").glob("*.json")
    assert run("powertools_sns", file.read_bytes())["TopicArn"] == TOPIC


def test_our_event_has_the_types_of_definitely_typed(tmp_path: Path) -> None:
    modules = node_modules_with(*PACKAGES)
    ours = json.loads(event(tmp_path))
    for record in ours["Records"]:
        record["ses"].pop("inbound")  # an excess property to a literal, which a parsed event would not be
    source = tmp_path / "event.ts"
    source.write_text(
        f'import type {{ SESEvent }} from "aws-lambda";\nexport const event: SESEvent = {json.dumps(ours)};\n'
    )
    (tmp_path / "node_modules").symlink_to(modules)
    command = [
        str(modules / ".bin/tsc"),
        "--noEmit",
        "--strict",
        "--types",
        "aws-lambda",
        "--skipLibCheck",
        str(source),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=100, check=False)
    assert (done.returncode, done.stdout.decode()) == (0, "")


def test_reapit_s_email_receiver_keeps_what_the_sns_action_publishes(aws: str, tmp_path: Path) -> None:
    table = f"mail-{uuid.uuid4()}"
    client("dynamodb", aws).create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )

    async def story() -> None:
        async with local(tmp_path) as cloud:
            await Sns(topic_arn=TOPIC, encoding="base64").perform(incoming(), cloud)

    asyncio.run(story())
    (file,) = (tmp_path / "sns/inbound-mail").glob("*.json")
    given = json.dumps({"Records": [{"EventSource": "aws:sns", "Sns": json.loads(file.read_text())}]})
    assert run("reapit", given.encode(), AWS_ENDPOINT_URL=aws, AWS_REGION="us-east-1", TABLE_NAME=table) == "kept"
    item = client("dynamodb", aws).get_item(TableName=table, Key={"id": {"S": ID}})["Item"]
    assert {key: value["S"] for key, value in item.items()} == {
        "id": ID,
        "timestamp": "2026-10-06T09:15:02.118Z",
        "sender": "pat@sender.example",
        "recipient": "support@example.com",
        "subject": "Order 1234",
        "text": "Hello",
        "html": "<p>Hello</p><p>there</p>",
    }


@pytest.mark.parametrize("parser", ["mailparser", "postal"])
def test_parsers_of_mail_see_what_our_own_consumer_sees(parser: str) -> None:
    stored = incoming(RAW).content
    theirs = run(parser, stored)
    ours = inbound.consume(stored)
    assert ours is not None
    assert [(one["name"], one["address"]) for one in theirs["from"]] == [(one.name, one.email) for one in ours.from_]
    assert [(one["name"], one["address"]) for one in theirs["to"]] == [(one.name, one.email) for one in ours.to]
    assert (theirs["subject"], theirs["text"].strip(), theirs["html"].strip()) == (ours.subject, ours.text, ours.html)
    assert theirs["date"].startswith("2026-10-06T09:15:00")
    assert theirs["verdict"] == ours.verdicts.virus == "PASS"
    attached = [(one.name, one.type, base64.b64encode(one.content()).decode()) for one in ours.attachments]
    assert [tuple(one) for one in theirs["attachments"]] == attached
    assert letter().mail.message_id == ours.id
