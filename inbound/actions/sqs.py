"""`sqs`: put the notification of a message in a queue, with the message itself if it is wanted there and fits."""

import base64
import hashlib
from typing import Annotated, ClassVar, Literal

from pydantic import StringConstraints

from inbound.actions import Cloud, Done, Letter, OnFailure, Onward, Usual
from inbound.actions.notice import RoleArn, TopicArn, announce, written
from inbound.errors import PermanentFailure
from inbound.event import notification
from inbound.reply import Reply
from inbound.schema import keys

LONGEST = 256 * 1024  # octets; SQS takes 1 MiB today, queues made earlier and other services this much
TOO_LARGE = "message too large for SQS"
REFUSED = Reply(552, "5.2.3", "Message length exceeds limit set by recipient", TOO_LARGE)

QueueUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^/?# ]+/([0-9]{12}/)?[A-Za-z0-9_-]{1,80}(\.fifo)?$"),
]


@keys
class Sqs(Usual):
    """Send what an SNS subscription with raw delivery would: the bare notification.

    `content` puts the message itself in it; one that does not fit is refused, unless `on_failure: continue` passes it over.
    """

    kind: ClassVar[str] = "sqs"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True

    queue_url: QueueUrl
    content: Literal["none", "utf-8", "base64"] = "none"
    topic_arn: TopicArn | None = None
    role_arn: RoleArn | None = None
    on_failure: OnFailure = "retry"

    @property
    def may_refuse(self) -> str:
        """Asked at RCPT: recipients that this may refuse share no transaction with others."""
        return "" if self.content == "none" or self.on_failure == "continue" else TOO_LARGE

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Send it. Raises Failure."""
        action = {"type": "SQS", "topicArn": self.topic_arn, "queueUrl": self.queue_url}
        told = ""
        if self.content == "none" or len(letter.content) <= LONGEST:
            told = await written(notification, letter, action, content=self._content(letter.content))
        if not told or len(told.encode("utf-8")) > LONGEST:
            if self.on_failure == "continue":
                raise PermanentFailure(TOO_LARGE, f"{len(letter.content)} octets")
            return Done(
                onward=Onward.STOP_RULE_SET,
                reply=REFUSED,
                detail={"note": f"{TOO_LARGE}: {len(letter.content)} octets"},
            )
        await cloud.send(self.queue_url, told, once=_once(letter, self.queue_url), role_arn=self.role_arn)
        await announce(letter, cloud, action, role_arn=self.role_arn)
        return Done()

    def _content(self, octets: bytes) -> str | None:
        match self.content:
            case "utf-8":
                return octets.decode("utf-8", "replace")
            case "base64":
                return base64.b64encode(octets).decode("ascii")
            case _:
                return None


def _once(letter: Letter, queue_url: str) -> str:
    """The same for every try of the same step."""
    step = "\0".join((letter.mail.message_id, letter.rule, queue_url, *sorted(letter.recipients)))
    return hashlib.sha256(step.encode("utf-8", "surrogateescape")).hexdigest()
