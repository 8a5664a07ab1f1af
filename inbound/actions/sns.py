"""`sns`: publish the whole message on a topic; one that does not fit is kept in a bucket and pointed to, or refused."""

import base64
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from inbound.actions import Cloud, Done, Letter, OnFailure, Onward, Usual
from inbound.actions.keep import BucketName, KeyName, Prefix, keep
from inbound.actions.notice import RoleArn, TopicArn, written
from inbound.errors import PermanentFailure
from inbound.event import SUBJECT, notification
from inbound.reply import Reply
from inbound.schema import keys

LONGEST = 150 * 1024  # octets of the message with its header fields (AWS: "Publish to Amazon SNS topic action")
LONGEST_NOTIFICATION = 256 * 1024  # octets that SNS takes
TOO_LARGE = "message too large for SNS"
REFUSED = Reply(552, "5.2.3", "Message length exceeds limit set by recipient", TOO_LARGE)  # the words SES has for it


@keys
class Sns(Usual):
    """Publish the message. One over 150 KB is kept in `bucket`, and the notification is the one of an S3 action.

    Without `bucket` it is refused in SES's words, or passed over with `on_failure: continue`. `kms_key` seals what is kept.
    """

    kind: ClassVar[str] = "sns"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True

    topic_arn: TopicArn
    encoding: Literal["utf-8", "base64"] = "utf-8"
    bucket: BucketName | None = None
    prefix: Prefix = ""
    kms_key: KeyName | None = None
    role_arn: RoleArn | None = None
    on_failure: OnFailure = "retry"

    @model_validator(mode="after")
    def _keeps_where_it_says(self) -> Self:
        if self.bucket is None and (self.prefix or self.kms_key):
            raise ValueError("prefix and kms_key say how a message is kept in `bucket`, which is missing")
        return self

    @property
    def may_refuse(self) -> str:
        """Asked at RCPT: recipients that this may refuse share no transaction with others."""
        return "" if self.bucket or self.on_failure == "continue" else TOO_LARGE

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Publish it. Raises Failure."""
        encoding = {"utf-8": "UTF8", "base64": "BASE64"}[self.encoding]
        action = {"type": "SNS", "topicArn": self.topic_arn, "encoding": encoding}
        told = ""
        if len(letter.content) <= LONGEST:
            told = await written(notification, letter, action, content=self._content(letter.content))
        if not told or len(told.encode("utf-8")) > LONGEST_NOTIFICATION:
            if self.bucket is None:
                return self._too_large(len(letter.content))
            told = await written(notification, letter, await self._kept(letter, cloud, self.bucket))
        await cloud.publish(self.topic_arn, SUBJECT, told, role_arn=self.role_arn)
        return Done()

    def _content(self, octets: bytes) -> str:
        """As text, octets that are no UTF-8 replaced; or in base64 on one line."""
        return (
            octets.decode("utf-8", "replace") if self.encoding == "utf-8" else base64.b64encode(octets).decode("ascii")
        )

    async def _kept(self, letter: Letter, cloud: Cloud, bucket: str) -> dict[str, str]:
        """Where the message is instead, told as the S3 action is: every consumer of SES knows what to do then."""
        kept = await keep(
            letter, cloud, bucket=bucket, prefix=self.prefix, kms_key=self.kms_key, role_arn=self.role_arn
        )
        return {
            "type": "S3",
            "topicArn": self.topic_arn,
            "bucketName": kept.bucket,
            "objectKeyPrefix": self.prefix,
            "objectKey": kept.key,
        }

    def _too_large(self, size: int) -> Done:
        """A later try would not differ, so the sender hears it now."""
        if self.on_failure == "continue":
            raise PermanentFailure(TOO_LARGE, f"{size} octets")
        return Done(onward=Onward.STOP_RULE_SET, reply=REFUSED, detail={"note": f"{TOO_LARGE}: {size} octets"})
