"""`quarantine`: keep the message sealed for somebody to look at, and all that it takes to let it go on later.

1. A message is held as two objects, both sealed. `PREFIX/ID` is the message as an `s3` action would store it, so that
   `inbound get` opens it. `PREFIX/ID.envelope.json` is the `Held` record: envelope, client, verdicts, walks, the rule.
2. The envelope is written last: where it is, its message is. A message without one was never promised to its sender.
3. The ID is the message's own id and a digest of the rule and its recipients: what two rules hold of one message, or one
   rule of it on two days, does not meet under one key. Both writes are *first write wins*, so a retry changes nothing.
"""

import base64
import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from inbound.actions import Cloud, Done, Letter, Onward, Usual
from inbound.actions.keep import BucketName, KeyName, Prefix, Store, encryption_context, object_key
from inbound.actions.notice import TopicArn, announce
from inbound.errors import PermanentFailure
from inbound.mail import Headers, Mail
from inbound.offload import offload
from inbound.plain import read, written
from inbound.record import Record
from inbound.reply import accepted
from inbound.schema import keys
from inbound.seal import envelope, seal, unseal

KEY = "alias/quarantine"
ENVELOPE = ".envelope.json"

NOT_SEALED = "what is held is not sealed"
MIXED_UP = "what is held does not belong together"
NOT_READABLE = "envelope cannot be read"

ID = re.compile(r"[0-9a-v]{40}-[0-9a-v]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is known of a message in quarantine. `record` is the mail's as far as it had come; times are epoch seconds.

    `header` is the header block as it was received; `body` octets follow it at the end of the stored message; `digest`
    is the SHA-256 of both, in hex. `head` is what stood above: our header block, and fields that rules had added.
    """

    version: Literal[1] = 1
    id: str
    rule: str
    why: str
    recipients: tuple[str, ...]
    received_at: float
    held_at: float
    smtputf8: bool
    record: Record
    head: bytes
    header: bytes
    body: int
    digest: str

    def mail(self, content: bytes) -> Mail:
        """The mail as it was received, for these recipients. `content` is the stored message. Raises PermanentFailure."""
        raw = self.header + content[len(content) - self.body :]
        if len(content) < self.body or hashlib.sha256(raw).hexdigest() != self.digest:
            raise PermanentFailure(MIXED_UP, f"{self.id}: the message is not the one of its envelope")
        return Mail(
            raw=raw,
            headers=Headers.of(raw),
            client=self.record.client,
            mail_from=self.record.mail_from,
            rcpt_to=self.recipients,
            received_at=self.received_at,
            message_id=self.record.message_id,
            smtputf8=self.smtputf8,
        )

    @property
    def headers(self) -> Headers:
        """The header fields as they were received."""
        return Headers.of(self.header)


@keys
class Quarantine(Usual):
    """Hold the message, sealed under `kms_key`, until somebody releases or deletes it. The walk ends here."""

    kind: ClassVar[str] = "quarantine"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True

    bucket: BucketName
    prefix: Prefix = ""
    kms_key: KeyName = KEY
    topic_arn: TopicArn | None = None
    on_failure: Literal["retry", "defer"] = "retry"  # to go on would be to let it through

    @property
    def ends(self) -> bool:
        """What is behind it waits for the release."""
        return True

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Store message and envelope, unless they are there already, and say so on the topic. Raises Failure."""
        held = await offload(_held, letter)
        key = object_key(self.prefix, held.id)
        context = encryption_context(letter, self.kms_key, "ses")
        await _put(cloud, self.bucket, key, letter.content, context)
        new = await _put(cloud, self.bucket, key + ENVELOPE, written(held), context)
        action = {
            "type": "Quarantine",
            "topicArn": self.topic_arn,
            "bucketName": self.bucket,
            "objectKeyPrefix": self.prefix,
            "objectKey": key,
        }
        await announce(letter, cloud, action)
        note = {} if new else {"note": "it was there already"}
        return Done(onward=Onward.STOP_RULE_SET, detail={"object": f"{self.bucket}/{key}"} | note)


def held_id(message_id: str, rule: str, recipients: Iterable[str]) -> str:
    """What a rule holds of a message for these recipients: the message's id, and 8 characters more."""
    step = "\0".join((rule, *sorted(recipients)))
    digest = hashlib.sha256(step.encode("utf-8", "surrogateescape")).digest()
    return f"{message_id}-{base64.b32hexencode(digest[:5]).decode('ascii').lower()}"


async def held(store: Store, bucket: str, key: str) -> Held:
    """Open an envelope. `key` is that of the message. Raises Failure: also for one that is not sealed, or of another."""
    octets, context = await _opened(store, bucket, key + ENVELOPE)
    try:
        found = read(octets, Held)
    except ValueError as error:
        raise PermanentFailure(NOT_READABLE, f"{bucket}/{key}{ENVELOPE}: {error}") from error
    _belong(found.id == key.rpartition("/")[2], key)
    _belong(found.id == held_id(found.record.message_id, found.rule, found.recipients), key)
    _belong(context.get("aws:ses:message-id") == found.record.message_id, key)
    return found


async def content_of(store: Store, bucket: str, key: str) -> bytes:
    """Open a held message. Raises Failure."""
    octets, _ = await _opened(store, bucket, key)
    return octets


async def _put(cloud: Cloud, bucket: str, key: str, body: bytes, context: Mapping[str, str]) -> bool:
    data_key = await cloud.generate_data_key(context["kms_cmk_id"], context)
    sealed = await offload(seal, body, data_key.plaintext, data_key.wrapped, context)
    return await cloud.put(bucket, key, sealed.ciphertext, metadata=sealed.metadata)


async def _opened(store: Store, bucket: str, key: str) -> tuple[bytes, Mapping[str, str]]:
    """What is sealed there, and the context it was sealed in. Whoever can only write to the bucket cannot seal."""
    stored = await store.get(bucket, key)
    sealed = envelope(stored.metadata)
    if sealed is None:
        raise PermanentFailure(NOT_SEALED, f"{bucket}/{key}")
    data_key = await store.decrypt_data_key(sealed.wrapped, sealed.context)
    return await offload(unseal, stored.body, stored.metadata, data_key), sealed.context


def _belong(condition: bool, key: str) -> None:
    if not condition:
        raise PermanentFailure(MIXED_UP, f"{key}: the envelope is that of another message")


def _held(letter: Letter) -> Held:
    mail = letter.mail
    raw = memoryview(mail.raw)
    record = Record(
        message_id=mail.message_id,
        client=mail.client,
        mail_from=mail.mail_from,
        rcpt_to=letter.recipients,
        size=len(mail.raw),
        verdicts=letter.verdicts,
        walks=letter.walks,
        reply=accepted(mail.message_id),
        ruleset=letter.ruleset,
    )
    return Held(
        id=held_id(mail.message_id, letter.rule, letter.recipients),
        rule=letter.rule,
        why=next((it.why for walk in letter.walks for it in walk.traces if it.name == letter.rule), ""),
        recipients=letter.recipients,
        received_at=mail.received_at,
        held_at=time.time(),
        smtputf8=mail.smtputf8,
        record=record,
        head=letter.head,
        header=bytes(raw[: mail.headers.size]),
        body=len(mail.raw) - mail.headers.size,
        digest=hashlib.sha256(raw).hexdigest(),
    )
