"""`cloud: local`: buckets, keys, functions and topics in a directory, in the same form as in AWS.

1. An object is `s3/BUCKET/KEY`, its user metadata `s3/BUCKET/KEY.metadata.json` (`clients.buckets`).
2. A KMS key is a file under `kms/`; `alias/…` names one. An alias that is not there is made on first use, loudly: whoever
   has that file can open the mail, and without it nobody can. A data key is wrapped by AES-GCM with the context as AAD.
3. A function that is not waited for is written under `lambda/queue/` first, then run; what a crash interrupts is run again
   at the next start. After three failures it is kept under `lambda/failed/`, as a dead letter.
4. A notification is one JSON file under `sns/TOPIC/`, a message of a queue one under `sqs/QUEUE/`.
"""

import base64
import hashlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from inbound.clients import USUAL, Body, DataKey, Listed, QueueMessage, Sharing, StoredObject, Terms
from inbound.clients.buckets import LONGEST_OBJECT, Buckets
from inbound.clients.data_keys import Counters, DataKeys
from inbound.clients.disk import directory, disk_errors, json_of, sync, write, write_new
from inbound.clients.function_queue import FunctionRunner, Queue
from inbound.clients.queues import Queues
from inbound.clients.reasons import (
    ACCESS_DENIED,
    CONTEXT_MISMATCH,
    KEY_MISSING,
    NAME_REFUSED,
    function_failure,
)
from inbound.clients.relay import Relays
from inbound.clients.shelf import segment
from inbound.errors import PermanentFailure
from inbound.offload import offload

log = logging.getLogger(__name__)


_QUEUE = re.compile(r"https?://[^/?#]+/(?:\d{12}/)?([A-Za-z0-9_-]{1,80}(?:\.fifo)?)")
_TOPIC = re.compile(r"(?:arn:aws[a-z-]*:sns:[a-z0-9-]*:\d{12}:)?([A-Za-z0-9_-]{1,256})")
_ALIAS = re.compile(r"(?:arn:aws[a-z-]*:kms:[a-z0-9-]*:\d{12}:)?alias/([A-Za-z0-9/_-]{1,200})")
_KEY_ID = re.compile(r"(?:arn:aws[a-z-]*:kms:[a-z0-9-]*:\d{12}:key/)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


class LocalCloud:
    """Fulfils `actions.Cloud` in a directory. Use it as an async context: what was left in the queue is run then."""

    def __init__(
        self, data_dir: Path, *, account: str, region: str, runner: FunctionRunner, relays: Relays | None = None
    ) -> None:
        self.relays = relays or Relays.nowhere()
        self._buckets = Buckets(data_dir / "s3")
        self.data_keys = DataKeys()
        self._keys = _Keys(data_dir / "kms", account, region)
        self._topics, self._queues = data_dir / "sns", data_dir / "sqs"
        self._inbox = Queues(self._queues)
        self._queue = Queue(data_dir / "lambda", runner)
        self._runner = runner
        self._account, self._region = account, region

    @property
    def counters(self) -> Counters:
        """What it did so far."""
        return self.data_keys.counters

    async def __aenter__(self) -> Self:
        await self._buckets.recover()
        await self._buckets.sweep()
        await self._queue.resume()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.data_keys.close()
        await self._queue.close()
        await self._buckets.close()

    async def idle(self, seconds: float) -> None:
        """Wait until the functions that were not waited for have run, at most so long; what is left stays queued."""
        await self._queue.idle(seconds)

    async def put(
        self,
        bucket: str,
        key: str,
        body: bytes | Body,
        *,
        metadata: Mapping[str, str],
        terms: Terms = USUAL,
        role_arn: str | None = None,
    ) -> bool:
        """Store unless something is there already, or in its stead. A bucket is made on first use, and is our account's.

        Roles mean nothing here; nor does what S3 keeps beside octets and user metadata: class, tags, content type.
        """
        del role_arn
        if terms.owner not in (None, self._account):
            raise PermanentFailure(ACCESS_DENIED, f"the bucket is that of {self._account}, not of {terms.owner}")
        return await self._buckets.put(bucket, key, body, metadata, replaces=terms.replaces)

    async def get(self, bucket: str, key: str, *, limit: int = LONGEST_OBJECT) -> StoredObject:
        """Fetch an object whole; one of more octets than `limit` is a PermanentFailure."""
        return await self._buckets.get(bucket, key, limit)

    async def list_buckets(self) -> tuple[str, ...]:
        """The names of all buckets."""
        return await self._buckets.list_buckets()

    def list_objects(self, bucket: str, prefix: str, *, after: str = "") -> AsyncIterator[Listed]:
        """The objects whose keys begin with `prefix`, in the order of their keys, from behind the key `after`."""
        return self._buckets.list_objects(bucket, prefix, after)

    async def delete_object(self, bucket: str, key: str) -> None:
        """Remove an object; one that is not there is removed already."""
        await self._buckets.delete_object(bucket, key)

    async def generate_data_key(
        self,
        key: str,
        context: Mapping[str, str],
        *,
        role_arn: str | None = None,
        sharing: Sharing | None = None,
        octets: int = 0,
    ) -> DataKey:
        """A 256-bit data key under a key file."""
        del role_arn
        make = partial(offload, self._keys.generate, key, context)
        return await self.data_keys.get((key, *context.items()), sharing, octets, make)

    async def decrypt_data_key(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key in clear."""
        return await offload(self._keys.decrypt, wrapped, context)

    async def invoke(self, function: str, payload: bytes, *, wait: bool) -> bytes:
        """Call a function of the settings. Not waited for: it is on the disk when this returns, and runs after."""
        if not wait:
            await self._queue.add(self._runner.require(function), payload)
            return b""
        answer = await self._runner.run(function, payload)
        if answer.error:
            raise function_failure(answer.payload)
        return answer.payload

    async def try_function(self, function: str) -> None:
        """Do the settings have it, and is its command there? Nothing runs."""
        self._runner.try_function(function)

    async def publish(self, topic_arn: str, subject: str, message: str, *, role_arn: str | None = None) -> None:
        """Write one notification, in the form in which SNS hands it to a queue. A topic is made on first use."""
        del role_arn
        match = _TOPIC.fullmatch(topic_arn)
        if match is None:
            raise PermanentFailure(NAME_REFUSED, f"{topic_arn!r} is no topic")
        now, ident = time.time_ns(), str(uuid.uuid4())
        notification = {
            "Type": "Notification",
            "MessageId": ident,
            "TopicArn": topic_arn if ":" in topic_arn else f"arn:aws:sns:{self._region}:{self._account}:{topic_arn}",
            "Subject": subject,
            "Message": message,
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now / 1e9)) + f".{now // 1_000_000 % 1000:03}Z",
            **_NOT_SIGNED,
        }
        await offload(write_new, self._topics / match.group(1), f"{now}-{ident}.json", notification)

    async def send(self, queue_url: str, message: str, *, once: str, role_arn: str | None = None) -> None:
        """Write one message, in the form in which SQS hands it out. A queue is made on first use."""
        del role_arn
        name = _queue_name(queue_url)
        digest = hashlib.md5(message.encode("utf-8"), usedforsecurity=False).hexdigest()
        document = {"MessageId": str(uuid.uuid4()), "MD5OfBody": digest, "Body": message}
        file = (
            f"{segment(once)}.json" if queue_url.endswith(".fifo") else f"{time.time_ns()}-{document['MessageId']}.json"
        )
        await offload(write_new, self._queues / name, file, document)

    async def receive(self, queue_url: str, *, most: int, wait: float, hidden: float) -> tuple[QueueMessage, ...]:
        """Up to `most` messages of a queue, hidden from others for so many seconds; () when none has come within `wait`."""
        return await self._inbox.receive(_queue_name(queue_url), most=most, wait=wait, hidden=hidden)

    async def delete_message(self, queue_url: str, receipt: str) -> None:
        """Take a message out of a queue for good."""
        await self._inbox.delete(_queue_name(queue_url), receipt)

    async def hide_message(self, queue_url: str, receipt: str, seconds: float) -> None:
        """Hide a message from others for so long from now; 0 gives it back."""
        await self._inbox.hide(_queue_name(queue_url), receipt, seconds)


# Readers of notifications want these fields to be there. Nobody but SNS can sign as SNS, and what verifies must not pass.
_NOT_SIGNED = {
    "SignatureVersion": "1",
    "Signature": base64.b64encode(b"not signed").decode("ascii"),
    "SigningCertURL": "https://sns.invalid/not-signed.pem",
    "UnsubscribeURL": "https://sns.invalid/?Action=Unsubscribe",
}


def _queue_name(queue_url: str) -> str:
    match = _QUEUE.fullmatch(queue_url)
    if match is None:
        raise PermanentFailure(NAME_REFUSED, f"{queue_url!r} is no queue")
    return match.group(1)


class _Keys:
    def __init__(self, root: Path, account: str, region: str) -> None:
        self._root, self._account, self._region = root, account, region

    def generate(self, key: str, context: Mapping[str, str]) -> DataKey:
        ident = self._ident(key)
        material, arn = self._material(ident)
        plaintext, nonce = os.urandom(32), os.urandom(12)
        sealed = AESGCM(material).encrypt(nonce, plaintext, json_of(context, sort_keys=True))
        return DataKey(plaintext=bytearray(plaintext), wrapped=uuid.UUID(ident).bytes + nonce + sealed, key_arn=arn)

    def decrypt(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        if len(wrapped) != 16 + 12 + 32 + 16:
            raise PermanentFailure(CONTEXT_MISMATCH, "this data key was not wrapped here")
        material, _ = self._material(str(uuid.UUID(bytes=wrapped[:16])))
        try:
            return AESGCM(material).decrypt(wrapped[16:28], wrapped[28:], json_of(context, sort_keys=True))
        except InvalidTag as error:
            raise PermanentFailure(CONTEXT_MISMATCH) from error

    def _ident(self, key: str) -> str:
        """The id of a key named by id, ARN or alias; an alias is made when it is not there."""
        if match := _KEY_ID.fullmatch(key):
            return match.group(1)
        match = _ALIAS.fullmatch(key)
        if match is None:
            raise PermanentFailure(NAME_REFUSED, f"{key!r} is no key")
        alias = self._root / "alias" / quote(match.group(1), safe="")
        with disk_errors():
            if not alias.exists():
                self._make(alias, match.group(1))
            return alias.read_text("ascii").strip()

    def _make(self, alias: Path, name: str) -> None:
        ident = str(uuid.uuid4())
        arn = f"arn:aws:kms:{self._region}:{self._account}:key/{ident}"
        directory(alias.parent)
        key, new = self._root / f"{ident}.json", alias.with_name(f".{ident}")
        material = base64.b64encode(os.urandom(32)).decode("ascii")
        write(key, (json_of({"key_id": ident, "arn": arn, "material": material}),))
        sync(self._root)
        write(new, (ident.encode("ascii"),))
        try:
            os.link(new, alias)
        except FileExistsError:  # another process was first
            key.unlink()
        else:
            log.warning(
                "made a key for alias/%s: %s. Keep a copy of it, no mail sealed under it opens without", name, key
            )
        finally:
            new.unlink()
            sync(alias.parent)

    def _material(self, ident: str) -> tuple[bytes, str]:
        with disk_errors():
            try:
                key = json.loads((self._root / f"{ident}.json").read_bytes())
            except FileNotFoundError as error:
                raise PermanentFailure(KEY_MISSING, f"{self._root}/{ident}.json") from error
        return base64.b64decode(key["material"]), key["arn"]
