"""The most widely used SES consumer, unmodified, as a Lambda function of ours: it finds the object, and forwards the mail."""

import asyncio
import base64
import email
import email.policy
import json
import shutil
from pathlib import Path

import pytest

from inbound.actions import Done
from inbound.actions.invoke import Invoke
from inbound.actions.s3 import S3
from inbound.clients.aws import AwsCloud
from inbound.clients.invoke import Endpoint, Runner
from inbound.trace import header_block, stamped
from tests.actions.letters import VERDICTS, letter
from tests.aws import answering, bucket
from tests.interop.environments import node_modules_with

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not shutil.which("npm"), reason="needs Node.js and npm"),
]


@pytest.mark.parametrize("recipient", ["support@example.com", "Support+label@example.com"])
def test_the_forwarder_forwards_our_mail(aws: str, monkeypatch: pytest.MonkeyPatch, recipient: str) -> None:
    modules = node_modules_with("aws-lambda-ses-forwarder@6.0.0")
    monkeypatch.setenv("NODE_PATH", str(modules))
    store = bucket(aws)
    raw = (
        b"DKIM-Signature: v=1;\r\n b=x\r\n"
        b'From: "Pat Sender" <pat@sender.example>\r\nTo: support@example.com\r\nSubject: Order 1234\r\n\r\nHello\r\n'
    )
    mail = letter(raw).mail
    block = header_block(mail, VERDICTS, hostname="mx.example.com", authserv_id="mx.example.com")
    incoming = letter(raw, content=stamped(mail, block), recipients=(recipient,))

    async def story(ses: str) -> Done:
        script = str(Path(__file__).with_name("forwarder.js"))
        functions = {"forward": ("node", script, store, "in/", aws, ses)}
        runner = Runner(functions, account="123456789012", region="us-east-1")
        async with Endpoint(runner) as endpoint:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", aws)
            monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", endpoint.url)
            async with AwsCloud(region="us-east-1") as cloud:
                await S3(bucket=store, prefix="in").perform(incoming, cloud)
                return await Invoke(function="forward", invocation="request_response").perform(incoming, cloud)

    bodies: list[bytes] = []
    with answering((200, '{"MessageId": "x"}'), bodies=bodies) as (ses, _):
        assert asyncio.run(story(ses)) == Done()
    sent = json.loads(bodies[0])
    assert sent["Destination"]["ToAddresses"] == ["pat@elsewhere.example"]
    forwarded = email.message_from_bytes(base64.b64decode(sent["Content"]["Raw"]["Data"]), policy=email.policy.default)
    assert (
        forwarded["Subject"],
        forwarded["From"],
        forwarded.get_content().strip(),
    ) == ("[fwd] Order 1234", "Pat Sender <noreply@example.com>", "Hello")
