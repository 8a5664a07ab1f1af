"""`sns`: publish the whole message on a topic, as long as it fits."""

import base64
from typing import ClassVar, Literal

from inbound.actions import Cloud, Done, Letter, OnFailure, Onward
from inbound.actions.notice import RoleArn, TopicArn, event
from inbound.errors import PermanentFailure
from inbound.event import SUBJECT, notification
from inbound.reply import Reply
from inbound.schema import keys

LONGEST = 150 * 1024  # octets of the message with its header fields (AWS: "Publish to Amazon SNS topic action")
LONGEST_NOTIFICATION = 256 * 1024  # octets that SNS takes
TOO_LARGE = "message too large for SNS"
REFUSED = Reply(552, "5.2.3", "Message length exceeds limit set by recipient")  # the words SES has for it


@keys
class Sns:
    """Publish the message. One over 150 KB is refused with SES's words, unless `on_failure: continue` passes it over."""

    kind: ClassVar[str] = "sns"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True
    may_refuse: ClassVar[str] = (
        TOO_LARGE  # asked at RCPT: recipients that this may refuse share no transaction with others
    )

    topic_arn: TopicArn
    encoding: Literal["utf-8", "base64"] = "utf-8"
    role_arn: RoleArn | None = None
    on_failure: OnFailure = "retry"

    @property
    def patience(self) -> float:
        """Publishing keeps to the delivery's budget."""
        return 0.0

    @property
    def ends(self) -> bool:
        """The walk goes on."""
        return False

    @property
    def refusal(self) -> Reply | None:
        """Only the size can tell."""
        return None

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Publish it. Raises Failure."""
        action = {
            "type": "SNS",
            "topicArn": self.topic_arn,
            "encoding": {"utf-8": "UTF8", "base64": "BASE64"}[self.encoding],
        }
        told = ""
        if len(letter.content) <= LONGEST:
            told = notification(event(letter, action), content=self._content(letter.content))
        if not told or len(told.encode("utf-8")) > LONGEST_NOTIFICATION:
            return self._too_large(len(letter.content))
        await cloud.publish(self.topic_arn, SUBJECT, told, role_arn=self.role_arn)
        return Done()

    def _content(self, octets: bytes) -> str:
        """As text, octets that are no UTF-8 replaced; or in base64 on one line."""
        return (
            octets.decode("utf-8", "replace") if self.encoding == "utf-8" else base64.b64encode(octets).decode("ascii")
        )

    def _too_large(self, size: int) -> Done:
        """A later try would not differ, so the sender hears it now."""
        if self.on_failure == "continue":
            raise PermanentFailure(TOO_LARGE, f"{size} octets")
        return Done(onward=Onward.STOP_RULE_SET, reply=REFUSED, detail={"note": f"{TOO_LARGE}: {size} octets"})
