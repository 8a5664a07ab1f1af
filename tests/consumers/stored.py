"""Messages as they are stored: our header block or SES's own on top of what was sent."""

import asyncio
from pathlib import Path

from inbound.actions import Action
from inbound.actions.notice import event as event_of
from inbound.clients.local import LocalCloud
from inbound.event import notification
from inbound.trace import header_block
from tests.actions.letters import ID, VERDICTS, letter, local
from tests.harness import mail

ORIGINAL = mail()
OTHER_ID = ID[:-3] + "i01"
OURS = header_block(letter().mail, VERDICTS, hostname="mx.example.com", authserv_id="mx.example.com")
STORED = OURS + ORIGINAL

SES_BLOCK = (
    "Return-Path: <bounce+42@sender.example>\r\n"
    "Received: from mail.sender.example (mail.sender.example [192.0.2.10])\r\n"
    f" by inbound-smtp.eu-west-1.amazonaws.com with SMTP id {ID}\r\n"
    " for support@example.com;\r\n Tue, 06 Oct 2026 09:15:02 +0000 (UTC)\r\n"
    "X-SES-Spam-Verdict: PASS\r\nX-SES-Virus-Verdict: PASS\r\n"
    "Received-SPF: pass (spfCheck: domain of sender.example designates 192.0.2.10 as permitted sender)"
    " client-ip=192.0.2.10; envelope-from=bounce+42@sender.example; helo=mail.sender.example;\r\n"
    "Authentication-Results: amazonses.com;\r\n"
    " spf=pass (spfCheck: domain of sender.example designates 192.0.2.10 as permitted sender)"
    " client-ip=192.0.2.10; envelope-from=bounce+42@sender.example; helo=mail.sender.example;\r\n"
    " dkim=pass header.i=@sender.example;\r\n dmarc=pass header.from=sender.example;\r\n"
    "X-SES-RECEIPT: AEFCQ0RFRkdISUpLTE1OT1A=\r\n"
    "X-SES-DKIM-SIGNATURE: a=rsa-sha256; q=dns/txt; b=c2ln; d=amazonses.com;\r\n"
).encode()


def performed(tmp_path: Path, *actions: Action, content: bytes = STORED) -> LocalCloud:
    """A cloud in which these actions were done."""

    async def story() -> LocalCloud:
        async with local(tmp_path) as cloud:
            for action in actions:
                await action.perform(letter(content=content), cloud)
            return cloud

    return asyncio.run(story())


def put(tmp_path: Path, key: str, body: bytes, metadata: dict[str, str] | None = None) -> LocalCloud:
    """A cloud in which this object lies in a bucket."""
    cloud = local(tmp_path)
    asyncio.run(cloud.put("mail-support", key, body, metadata=metadata or {}))
    return cloud


def told(action: dict[str, str], content: str | None = None, stored: bytes = STORED) -> str:
    """The notification of that action."""
    return notification(event_of(letter(content=stored), action), content=content)


POINTER = {"type": "S3", "bucketName": "mail-support", "objectKeyPrefix": "in", "objectKey": f"in/{ID}"}
S3_EVENT = {
    "eventSource": "aws:s3",
    "eventName": "ObjectCreated:Put",
    "s3": {"bucket": {"name": "mail-support"}, "object": {"key": f"in%2F{ID}"}},
}
EVENTBRIDGE = {
    "version": "0",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "detail": {"bucket": {"name": "mail-support"}, "object": {"key": f"in/{ID}", "size": 10}},
}
