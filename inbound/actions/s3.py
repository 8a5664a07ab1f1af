"""`s3`: store the message under its id, plain or sealed under a KMS key, on the terms of S3's PutObject."""

import re
from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, StringConstraints

from inbound.actions import Cloud, Done, Letter, OnFailure, Usual
from inbound.actions.keep import BucketName, CacheDataKeys, Form, KeyName, Prefix, keep, object_key, open_object
from inbound.actions.notice import RoleArn, TopicArn, announce
from inbound.clients import Terms
from inbound.schema import keys

__all__ = ["S3", "object_key", "open_object"]

MOST_TAGS = 10  # of an object

StorageClass = Literal[
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
    "REDUCED_REDUNDANCY",
    "OUTPOSTS",
    "EXPRESS_ONEZONE",
]
Account = Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")]


def _content_type(text: str) -> str:
    if not re.fullmatch(r"[\w.+-]+/[\w.+-]+(; ?[\w.+-]+=[\w.+-]+)*", text, re.ASCII) or len(text) > 200:  # noqa: PLR2004
        raise ValueError(f"{text[:60]!r} is no media type, such as message/rfc822")
    return text


ContentType = Annotated[str, AfterValidator(_content_type)]


def _tags(tags: dict[str, str]) -> dict[str, str]:
    """Amazon S3 User Guide, "Categorizing your objects using tags"."""
    if len(tags) > MOST_TAGS:
        raise ValueError(f"{len(tags)} tags; an object has at most {MOST_TAGS}")
    for name, value in tags.items():
        if not 0 < len(name) <= 128 or len(value) > 256 or name.startswith("aws:"):  # noqa: PLR2004
            raise ValueError(
                f"the tag {name[:60]!r}: a name has 1 to 128 characters, not aws: first, a value up to 256"
            )
        if not re.fullmatch(r"[\w +\-=.:/@]*", name + value):
            raise ValueError(f"the tag {name[:60]!r} has more than letters, digits, blanks and + - = . _ : / @")
    return tags


Tags = Annotated[dict[str, str], AfterValidator(_tags)]


@keys
class S3(Usual):
    """Store the message. With `kms_key` it is sealed before it leaves this machine.

    `format: ses` is what SES writes. `s3ec` is the key-committing form that AWS's encryption clients write today; to read
    it they are given the encryption context (`aws:ses:message-id`, `aws:ses:rule-name`, `aws:ses:source-account`).
    `server_side_encryption` is S3's own, with or without that.
    """

    kind: ClassVar[str] = "s3"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True

    bucket: BucketName
    prefix: Prefix = ""
    kms_key: KeyName | None = None
    cache_data_keys: CacheDataKeys | None = None
    topic_arn: TopicArn | None = None
    role_arn: RoleArn | None = None
    format: Form = "ses"
    expected_bucket_owner: Account | None = None
    server_side_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    sse_kms_key: KeyName | None = None
    bucket_key: bool | None = None
    storage_class: StorageClass | None = None
    tags: Tags = field(default_factory=dict)
    content_type: ContentType | None = None
    if_none_match: bool = True
    on_failure: OnFailure = "retry"

    def __post_init__(self) -> None:
        if self.sse_kms_key and self.server_side_encryption not in ("aws:kms", "aws:kms:dsse"):
            raise ValueError("sse_kms_key is for server_side_encryption: aws:kms, or aws:kms:dsse")
        if self.bucket_key is not None and self.server_side_encryption != "aws:kms":
            raise ValueError("bucket_key is for server_side_encryption: aws:kms")
        if self.cache_data_keys and not self.kms_key:
            raise ValueError("cache_data_keys is for messages that are sealed; name the kms_key")

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Store it, unless it is there already, and say so on the topic. Raises Failure."""
        kept = await keep(
            letter,
            cloud,
            bucket=self.bucket,
            prefix=self.prefix,
            kms_key=self.kms_key,
            form=self.format,
            terms=self.terms,
            cache=self.cache_data_keys,
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

    @property
    def terms(self) -> Terms:
        """How it is stored."""
        return Terms(
            owner=self.expected_bucket_owner,
            server_side_encryption=self.server_side_encryption,
            sse_kms_key=self.sse_kms_key,
            bucket_key=self.bucket_key,
            storage_class=self.storage_class,
            tags=self.tags,
            content_type=self.content_type,
            replaces=not self.if_none_match,
        )
