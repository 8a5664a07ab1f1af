"""Where a message is kept: stored under its id, plain or sealed under a KMS key; and how it is opened again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field, StringConstraints

from inbound.actions import KeyService, Letter, ObjectStore
from inbound.clients import USUAL, Body, Sharing, Terms
from inbound.offload import offload
from inbound.schema import keys
from inbound.seal import COMMITTING, Sealing, committing, envelope, enveloping, unseal

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

AT_ONCE = 64 * 1024  # octets that are sealed where they stand, in some 20 µs


@keys
class CacheDataKeys:
    """How many messages, and octets of them, share one data key of KMS, and for how long."""

    messages: Annotated[int, Field(gt=0, le=2**32)] = 100  # 2**32: NIST SP 800-38D 8.3, with random IVs
    octets: Annotated[int, Field(gt=0)] = 100 * 1024 * 1024
    seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 300.0

    def within(self, bucket: str) -> Sharing:
        """The same for one bucket."""
        return Sharing(scope=bucket, messages=self.messages, octets=self.octets, seconds=self.seconds)


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
    terms: Terms = USUAL,
    cache: CacheDataKeys | None = None,
    role_arn: str | None = None,
) -> Kept:
    """Store the message unless it is there already, sealed before it leaves this machine if there is a key. Raises Failure."""
    key, content = object_key(prefix, letter.mail.message_id), letter.content
    body: bytes | Body = content
    metadata: Mapping[str, str] = {}
    if kms_key:
        context = encryption_context(letter, kms_key, form, shared=cache is not None)
        data_key = await store.generate_data_key(
            kms_key,
            context,
            role_arn=role_arn,
            sharing=cache.within(bucket) if cache else None,
            octets=len(content),
        )
        forms = {"ses": enveloping, "s3ec": committing}
        sealing = forms[form](len(content), data_key.plaintext, data_key.wrapped, context)
        data_key.forget()
        metadata = sealing.metadata
        body = sealing.seal(content).ciphertext if len(content) <= AT_ONCE else Sealing(content, sealing)
    new = await store.put(bucket, key, body, metadata=metadata, terms=terms, role_arn=role_arn)
    return Kept(bucket=bucket, key=key, new=new)


def object_key(prefix: str, message_id: str) -> str:
    """The prefix and the id with exactly one slash between them; a leading slash is kept, as SES keeps it."""
    return f"{prefix.removesuffix('/')}/{message_id}" if prefix else message_id


def encryption_context(letter: Letter, kms_key: str, form: Form, *, shared: bool = False) -> dict[str, str]:
    """What the data key is bound to: message, rule and account in SES's order, then what the form asks for.

    SES's `kms_cmk_id` is the key as it is configured. A key that several messages share names none of them.
    """
    return {
        **({} if shared else {"aws:ses:message-id": letter.mail.message_id}),
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
