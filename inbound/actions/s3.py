"""`s3`: store the message under its id, plain or sealed under a KMS key."""

from typing import ClassVar

from inbound.actions import Cloud, Done, Letter, OnFailure, Usual
from inbound.actions.keep import BucketName, Form, KeyName, Prefix, keep, object_key, open_object
from inbound.actions.notice import RoleArn, TopicArn, announce
from inbound.schema import keys

__all__ = ["S3", "object_key", "open_object"]


@keys
class S3(Usual):
    """Store the message. With `kms_key` it is sealed before it leaves this machine.

    `format: ses` is what SES writes. `s3ec` is the key-committing form that AWS's encryption clients write today; to read
    it they are given the encryption context (`aws:ses:message-id`, `aws:ses:rule-name`, `aws:ses:source-account`).
    """

    kind: ClassVar[str] = "s3"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True

    bucket: BucketName
    prefix: Prefix = ""
    kms_key: KeyName | None = None
    topic_arn: TopicArn | None = None
    role_arn: RoleArn | None = None
    format: Form = "ses"
    on_failure: OnFailure = "retry"

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Store it, unless it is there already, and say so on the topic. Raises Failure."""
        kept = await keep(
            letter,
            cloud,
            bucket=self.bucket,
            prefix=self.prefix,
            kms_key=self.kms_key,
            form=self.format,
            role_arn=self.role_arn,
        )
        action = {
            "type": "S3",
            "topicArn": self.topic_arn,
            "bucketName": self.bucket,
            "objectKeyPrefix": self.prefix,
            "objectKey": kept.key,
        }
        await announce(letter, cloud, action, role_arn=self.role_arn)
        return Done(
            detail={"object": f"{kept.bucket}/{kept.key}"} | ({} if kept.new else {"note": "it was there already"})
        )
