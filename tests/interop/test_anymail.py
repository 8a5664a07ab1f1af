"""django-anymail, as it is configured for SES, takes our notifications in every form that it takes SES's."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from inbound.actions.s3 import S3
from inbound.actions.sns import LONGEST, Sns
from inbound.clients.aws import AwsCloud
from tests.actions.letters import ID, letter
from tests.aws import bucket, kms_key, received, topic_with_queue
from tests.interop.environments import READERS, python_with

pytestmark = pytest.mark.timeout(300)

HEAD = b"From: Pat <pat@sender.example>\r\nTo: Help <help@example.com>\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n"
SMALL, BIG = b"Hello\r\n", b"Hello, hello.\r\n" * (LONGEST // 14)


@pytest.mark.parametrize(
    ("form", "sealed", "body"),
    [
        ("utf-8", False, SMALL),
        ("base64", False, SMALL),
        ("s3", False, SMALL),
        ("s3", True, BIG),
        ("utf-8", True, BIG),
        ("base64", False, BIG),
    ],
    ids=["in the notification", "in base64", "stored", "sealed", "too big, sealed", "too big, stored"],
)
def test_anymail_takes_our_mail(aws: str, form: str, sealed: bool, body: bytes) -> None:
    store, key, (topic, queue) = bucket(aws), kms_key(aws) if sealed else None, topic_with_queue(aws)

    async def story() -> None:
        async with AwsCloud(region="us-east-1", endpoint_url=aws) as cloud:
            if form == "s3":
                action: S3 | Sns = S3(bucket=store, prefix="in", kms_key=key, topic_arn=topic)
            else:
                action = Sns(topic_arn=topic, encoding=form, bucket=store, kms_key=key)  # type: ignore[arg-type]
            await action.perform(letter(HEAD + body), cloud)

    asyncio.run(story())
    message = json.dumps(received(aws, queue)[0])
    command = [str(python_with(*READERS)), str(Path(__file__).with_name("anymail.py")), key or ""]
    done = subprocess.run(
        command,
        input=message.encode(),
        capture_output=True,
        timeout=60,
        check=False,
        env={"AWS_ENDPOINT_URL": aws, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    text = len(body.decode().replace("\r\n", "\n"))
    assert [ID, "Grüße", "pat@sender.example", "support@example.com", False, text] == json.loads(done.stdout)
