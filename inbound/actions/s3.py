"""`s3`: store the message under its id, plain or sealed under a KMS key; and open what was stored."""

from typing import Annotated, ClassVar, Literal, Protocol

from pydantic import StringConstraints

from inbound.actions import Cloud, Done, KeyService, Letter, ObjectStore, OnFailure
from inbound.actions.notice import RoleArn, TopicArn, announce
from inbound.offload import offload
from inbound.reply import Reply
from inbound.schema import keys
from inbound.seal import COMMITTING, commit, envelope, seal, unseal

# Amazon S3 User Guide, "Bucket naming rules"; access points are named by ARN.
BucketName = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([a-z0-9-]|\.[a-z0-9-]){1,61}[a-z0-9]|arn:aws[a-z-]*:s3:[a-z0-9-]*:[0-9]{12}:accesspoint[:/][a-z0-9-]{3,50})$"
    ),
]
Prefix = Annotated[str, StringConstraints(max_length=900)]  # a key has at most 1024 octets
KeyName = Annotated[
    str, StringConstraints(pattern=r"^(arn:aws[a-z-]*:kms:.+|alias/[A-Za-z0-9/_-]+|[A-Za-z0-9-]{20,64})$")
]


@keys
class S3:
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
    format: Literal["ses", "s3ec"] = "ses"
    on_failure: OnFailure = "retry"

    @property
    def patience(self) -> float:
        """Storing keeps to the delivery's budget."""
        return 0.0

    @property
    def ends(self) -> bool:
        """The walk goes on."""
        return False

    @property
    def refusal(self) -> Reply | None:
        """It refuses nothing."""
        return None

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Store it, unless it is there already, and say so on the topic. Raises Failure."""
        key = object_key(self.prefix, letter.mail.message_id)
        body, metadata = letter.content, {}
        if self.kms_key:
            context = encryption_context(letter, self.kms_key, self.format)
            data_key = await cloud.generate_data_key(self.kms_key, context, role_arn=self.role_arn)
            seals = {"ses": seal, "s3ec": commit}[self.format]
            sealed = await offload(seals, letter.content, data_key.plaintext, data_key.wrapped, context)
            body, metadata = sealed.ciphertext, dict(sealed.metadata)
        stored = await cloud.put(self.bucket, key, body, metadata=metadata, role_arn=self.role_arn)
        action = {
            "type": "S3",
            "topicArn": self.topic_arn,
            "bucketName": self.bucket,
            "objectKeyPrefix": self.prefix,
            "objectKey": key,
        }
        await announce(letter, cloud, action, role_arn=self.role_arn)
        return Done(detail={"object": f"{self.bucket}/{key}"} | ({} if stored else {"note": "it was there already"}))


def object_key(prefix: str, message_id: str) -> str:
    """The prefix and the id with exactly one slash between them; a leading slash is kept, as SES keeps it."""
    return f"{prefix.removesuffix('/')}/{message_id}" if prefix else message_id


def encryption_context(letter: Letter, kms_key: str, form: Literal["ses", "s3ec"]) -> dict[str, str]:
    """What the data key is bound to: message, rule and account in SES's order, then what the form asks for.

    SES's `kms_cmk_id` is the key as it is configured.
    """
    return {
        "aws:ses:message-id": letter.mail.message_id,
        "aws:ses:rule-name": letter.rule,
        "aws:ses:source-account": letter.account,
        **({"kms_cmk_id": kms_key} if form == "ses" else {"aws:x-amz-cek-alg": COMMITTING}),
    }


class Store(ObjectStore, KeyService, Protocol):
    """Buckets and keys: what it takes to open an object."""


async def open_object(cloud: Store, bucket: str, key: str) -> bytes:
    """A stored message in clear, whether it was sealed or not. Raises Failure; a changed object is a PermanentFailure."""
    stored = await cloud.get(bucket, key)
    sealed = envelope(stored.metadata)
    if sealed is None:
        return stored.body
    data_key = await cloud.decrypt_data_key(sealed.wrapped, sealed.context)
    return await offload(unseal, stored.body, stored.metadata, data_key)
