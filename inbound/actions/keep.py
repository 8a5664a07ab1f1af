"""Where a message is kept: stored under its id, plain or sealed under a KMS key; and how it is opened again."""

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import StringConstraints

from inbound.actions import KeyService, Letter, ObjectStore
from inbound.offload import offload
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

Form = Literal["ses", "s3ec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Where a message is now. `new` is false when it was there already, from an earlier try."""

    bucket: str
    key: str
    new: bool


async def keep(
    letter: Letter,
    store: "Store",
    *,
    bucket: str,
    prefix: str,
    kms_key: str | None,
    form: Form = "ses",
    role_arn: str | None = None,
) -> Kept:
    """Store the message unless it is there already, sealed before it leaves this machine if there is a key. Raises Failure."""
    key, body = object_key(prefix, letter.mail.message_id), letter.content
    metadata: dict[str, str] = {}
    if kms_key:
        context = encryption_context(letter, kms_key, form)
        data_key = await store.generate_data_key(kms_key, context, role_arn=role_arn)
        seals = {"ses": seal, "s3ec": commit}[form]
        sealed = await offload(seals, letter.content, data_key.plaintext, data_key.wrapped, context)
        body, metadata = sealed.ciphertext, dict(sealed.metadata)
    new = await store.put(bucket, key, body, metadata=metadata, role_arn=role_arn)
    return Kept(bucket=bucket, key=key, new=new)


def object_key(prefix: str, message_id: str) -> str:
    """The prefix and the id with exactly one slash between them; a leading slash is kept, as SES keeps it."""
    return f"{prefix.removesuffix('/')}/{message_id}" if prefix else message_id


def encryption_context(letter: Letter, kms_key: str, form: Form) -> dict[str, str]:
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
