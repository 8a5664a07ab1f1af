"""The same actions against S3, KMS, SNS over HTTP; and what each says when the service refuses."""

import asyncio
import base64
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from inbound.actions import Action, Done
from inbound.actions.invoke import Invoke
from inbound.actions.s3 import S3, open_object
from inbound.actions.sns import LONGEST, Sns
from inbound.actions.sqs import Sqs
from inbound.clients.aws import AwsCloud
from inbound.clients.reasons import BUCKET_MISSING, FUNCTION_MISSING, KEY_MISSING, QUEUE_MISSING, TOPIC_MISSING
from inbound.errors import PermanentFailure
from tests.actions.letters import ACCOUNT, CONTENT, ID, TOPIC, letter
from tests.aws import bucket, client, kms_key, received, topic_with_queue


@pytest.fixture(scope="module")
def shared() -> Iterator[list[AwsCloud]]:
    made: list[AwsCloud] = []
    yield made
    for cloud in made:
        cloud.close()


@pytest.fixture
def cloud(aws: str, shared: list[AwsCloud]) -> AwsCloud:
    if not shared:
        shared.append(AwsCloud(region="us-east-1", endpoint_url=aws))
    return shared[0]


def perform(action: Action, cloud: AwsCloud, **more: Any) -> Done:
    return asyncio.run(action.perform(letter(**more), cloud))


def test_s3_stores_and_tells_its_topic(aws: str, cloud: AwsCloud) -> None:
    name, (topic, queue) = bucket(aws), topic_with_queue(aws)
    perform(S3(bucket=name, prefix="in", topic_arn=topic), cloud)
    stored = client("s3", aws).get_object(Bucket=name, Key=f"in/{ID}")
    assert (stored["Body"].read(), stored["Metadata"]) == (CONTENT, {})
    message = received(aws, queue)[0]
    told = json.loads(message["Message"])
    assert message["Subject"] == "Amazon SES Email Receipt Notification"
    assert (told["notificationType"], told["receipt"]["action"]["objectKey"]) == ("Received", f"in/{ID}")


def test_s3_under_a_key_is_sealed_and_a_retry_leaves_it_as_it_is(aws: str, cloud: AwsCloud) -> None:
    name, key = bucket(aws), kms_key(aws)
    action = S3(bucket=name, kms_key=key, role_arn="arn:aws:iam::123456789012:role/writer")
    perform(action, cloud)
    before = client("s3", aws).get_object(Bucket=name, Key=ID)["Body"].read()
    assert b"Order 1234" not in before
    perform(action, cloud)
    assert before == client("s3", aws).get_object(Bucket=name, Key=ID)["Body"].read()
    assert asyncio.run(open_object(cloud, name, ID)) == CONTENT


@pytest.mark.parametrize("encoding", ["utf-8", "base64"])
def test_sns_takes_a_message_as_big_as_it_may_be(aws: str, cloud: AwsCloud, encoding: Any) -> None:
    topic, queue = topic_with_queue(aws)
    content = (CONTENT + b"More of it.\r\n" * 20_000)[:LONGEST]
    perform(Sns(topic_arn=topic, encoding=encoding), cloud, content=content)
    told = json.loads(received(aws, queue)[0]["Message"])
    octets = told["content"].encode() if encoding == "utf-8" else base64.b64decode(told["content"], validate=True)
    assert content == octets


def test_sqs_sends_and_a_fifo_queue_takes_a_retry_once(aws: str, cloud: AwsCloud) -> None:
    sqs = client("sqs", aws)
    plain = sqs.create_queue(QueueName=f"q-{uuid.uuid4()}")["QueueUrl"]
    fifo = sqs.create_queue(QueueName=f"q-{uuid.uuid4()}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    for url in (plain, fifo):
        for _ in range(2):
            perform(Sqs(queue_url=url, content="utf-8"), cloud)
    assert [CONTENT.decode()] * 2 == [it["content"] for it in received(aws, plain)]
    assert [CONTENT.decode()] == [it["content"] for it in received(aws, fifo)]


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (S3(bucket="no-such-bucket"), BUCKET_MISSING),
        (S3(bucket="no-such-bucket", kms_key="alias/none"), KEY_MISSING),
        (Sns(topic_arn=TOPIC), TOPIC_MISSING),
        (Sqs(queue_url=f"http://127.0.0.1/{ACCOUNT}/none"), QUEUE_MISSING),
        (Invoke(function="none", invocation="request_response"), FUNCTION_MISSING),
    ],
)
def test_what_is_not_there_is_a_permanent_failure_with_its_reason(cloud: AwsCloud, action: Action, reason: str) -> None:
    with pytest.raises(PermanentFailure) as caught:
        perform(action, cloud)
    assert reason == caught.value.reason


def test_a_topic_that_is_not_there_fails_the_action_after_the_mail_was_stored(aws: str, cloud: AwsCloud) -> None:
    name = bucket(aws)
    with pytest.raises(PermanentFailure) as caught:
        perform(S3(bucket=name, topic_arn=TOPIC), cloud)
    assert caught.value.reason == TOPIC_MISSING
    assert client("s3", aws).get_object(Bucket=name, Key=ID)["Body"].read() == CONTENT
