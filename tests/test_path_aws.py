"""`cloud: aws`, the whole path: SMTP in; S3, KMS and SNS over real HTTP, and a Lambda function that really runs."""

import asyncio
import json
from pathlib import Path

import pytest

from inbound.actions.s3 import open_object
from inbound.app import cloud_of
from inbound.clients.invoke import Endpoint, Runner
from tests.aws import answering, aws, bucket, client, kms_key, received, topic_with_queue
from tests.harness import mail, receiver

__all__ = ["aws"]

FUNCTION = """
import json
def handler(event, context):
    mail = event["Records"][0]["ses"]["mail"]
    with open(__file__ + ".log", "a") as log:
        log.write(json.dumps(event) + "\\n")
    stop = "stop" in mail["commonHeaders"].get("subject", "")
    return {"disposition": "STOP_RULE_SET" if stop else "CONTINUE"}
"""


def test_a_mail_is_sealed_to_s3_announced_and_handed_to_a_function(
    tmp_path: Path, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "function.py").write_text(FUNCTION)
    store, key = bucket(aws), kms_key(aws)
    topic, queue = topic_with_queue(aws)
    rules = f"""
rules:
  - name: whole
    recipients: [example.com]
    actions:
      - s3: {{bucket: {store}, prefix: in, kms_key: "{key}", topic_arn: "{topic}"}}
      - lambda: {{function: ticket, invocation: request_response}}
      - s3: {{bucket: {store}, prefix: second}}
"""

    async def run() -> None:
        runner = Runner({"ticket": (f"{tmp_path}/function.py:handler",)}, account="000000000000", region="us-east-1")
        async with Endpoint(runner) as endpoint:
            monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", endpoint.url)
            for service in ("S3", "KMS", "SNS", "STS"):
                monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", aws)
            async with receiver(tmp_path, rules=rules, cloud="aws") as mx:
                assert (await mx.reply(mail())).startswith("250 2.0.0 OK")
                first = mx.record
                assert (await mx.reply(mail(Subject="stop here"))).startswith("250 2.0.0 OK")
                second = mx.record
                keys = {item["Key"] for item in client("s3", aws).list_objects_v2(Bucket=store)["Contents"]}
                assert keys == {f"in/{first.message_id}", f"second/{first.message_id}", f"in/{second.message_id}"}
                async with cloud_of(mx.app.settings) as cloud:
                    assert (await open_object(cloud, store, f"in/{first.message_id}")).endswith(mail())
                stored = client("s3", aws).get_object(Bucket=store, Key=f"in/{first.message_id}")
                assert mail() not in stored["Body"].read()
                assert stored["Metadata"]["x-amz-wrap-alg"] == "kms"
                assert json.loads(stored["Metadata"]["x-amz-matdesc"])["kms_cmk_id"] == key
                told = {json.loads(message["Message"])["mail"]["messageId"] for message in received(aws, queue)}
                assert told == {first.message_id, second.message_id}
                events = [json.loads(line) for line in (tmp_path / "function.py.log").read_text().splitlines()]
                assert [event["Records"][0]["ses"]["mail"]["messageId"] for event in events] == [
                    first.message_id,
                    second.message_id,
                ]

    asyncio.run(run())


DENIED = json.dumps({"__type": "AccessDeniedException", "Message": "not authorized to perform: kms:GenerateDataKey"})


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("s3: {bucket: nobody-made-this-bucket}", "no such bucket"),
        ("s3: {bucket: BUCKET, kms_key: alias/nobody-made-this-key}", "no such key"),
        ("s3: {bucket: BUCKET, kms_key: alias/refused}", "access denied"),
    ],
)
def test_what_aws_refuses_defers_the_mail_and_only_the_record_says_why(
    tmp_path: Path, aws: str, action: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = bucket(aws)
    rules = f"rules:\n  - name: store\n    recipients: [example.com]\n    actions:\n      - {action.replace('BUCKET', name)}\n"

    async def run() -> None:
        async with receiver(tmp_path, rules=rules, cloud="aws") as mx:
            reply = await mx.reply(mail())
            assert reply == "451 4.3.0 Not everything could be done with this message yet, please try again later"
            (ran,) = mx.record.ran
            assert (ran.outcome, ran.detail["reason"]) == ("failed", reason)
            assert "Contents" not in client("s3", aws).list_objects_v2(Bucket=name)

    with answering((400, DENIED)) as (refusing, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws)
        if "refused" in action:
            monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", refusing)
        asyncio.run(run())
