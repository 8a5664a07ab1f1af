"""`cloud: aws`: S3, KMS, Lambda, SNS, SQS, SES through boto3, which is met nowhere else.

1. Calls run in threads of their own, never on the loop: one pool for calls that answer at once, another for functions that
   are waited for, so that slow functions keep no mail from being stored. Each call has its timeouts and few tries.
2. A write is conditional (`If-None-Match: *`): 412 says that the object is there, which is success. A conflict with
   another write (409) is tried again. A store that knows no conditional writes (501) is asked first, then written to.
3. Every error becomes one of ours. Temporary: no answer, throttled, 5xx, credentials that could not be fetched.
   Permanent: what somebody must change, such as a missing bucket or a right (`aws_errors`).
4. A role is assumed once an hour. Topics, keys and functions named by ARN, and queues, are called in their own region.
"""

import asyncio
import math
import os
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import boto3
from botocore import exceptions as botocore
from botocore.config import Config

from inbound.clients import DataKey, Listed, QueueMessage, StoredObject
from inbound.clients import reasons as why
from inbound.clients.aws_errors import failure, http_status
from inbound.clients.relay import Relays
from inbound.errors import PermanentFailure, TemporaryFailure

THREADS = 32  # calls side by side that answer at once
WAITING = 64  # functions side by side that are waited for
CONNECT_SECONDS, READ_SECONDS = 3.0, 10.0
FUNCTION_SECONDS = 30.0  # SES's patience with a RequestResponse function
TRIES = 3  # of each call, as botocore counts them
LONGEST_POLL, LONGEST_HIDDEN = 20, 43_200  # seconds that SQS waits for a message, and hides one, at most
PAGE = 1000  # objects of a listing in one answer, the most that S3 gives
CONFLICTS = 3  # tries of a write that another write was in the way of
LONGEST_OBJECT = 128 * 1024 * 1024  # octets that `get` takes into memory
LONGEST_ANSWER = 6 * 1024 * 1024  # octets; Lambda's own limit
ROLE_SECONDS, RENEW_SECONDS = 3600, 300  # how long a role is assumed for, and how long before its end it is renewed

_QUEUE_REGION = re.compile(r"https://sqs\.([a-z0-9-]+)\.amazonaws\.com")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which client: every combination has its own, made once (that takes 50 ms and more)."""

    service: str
    region: str
    role_arn: str | None = None
    patient: bool = False


class AwsCloud:
    """Fulfils `actions.Cloud`. Credentials come from boto3's own chain; `endpoint_url` is for every service."""

    def __init__(self, *, region: str, endpoint_url: str | None = None, relays: Relays | None = None) -> None:
        self.relays = relays or Relays.nowhere()
        self._region, self._endpoint_url = region, endpoint_url
        self._session = boto3.session.Session(region_name=region)
        self._making = threading.Lock()
        self._clients: dict[_Wanted, tuple[Any, float]] = {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="inbound-aws")
        self._waiting = ThreadPoolExecutor(WAITING, thread_name_prefix="inbound-lambda")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads once what they do is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._waiting.shutdown(wait=False, cancel_futures=True)

    async def put(
        self, bucket: str, key: str, body: bytes, *, metadata: Mapping[str, str], role_arn: str | None = None
    ) -> bool:
        """Store unless something is there already."""
        return await _call(self._pool, self._put, bucket, key, body, dict(metadata), role_arn)

    async def get(self, bucket: str, key: str, *, limit: int = LONGEST_OBJECT) -> StoredObject:
        """Fetch an object whole; one of more octets than `limit` is a PermanentFailure."""
        return await _call(self._pool, self._get, bucket, key, limit)

    async def list_buckets(self) -> tuple[str, ...]:
        """The names of all buckets of the account."""
        return await _call(self._pool, self._list_buckets)

    async def list_objects(self, bucket: str, prefix: str, *, after: str = "") -> AsyncIterator[Listed]:
        """The objects whose keys begin with `prefix`, in the order of their keys, from behind the key `after`."""
        token: str | None = ""
        while token is not None:
            page, token = await _call(self._pool, self._list, bucket, prefix, after, token)
            for one in page:
                yield one

    async def delete_object(self, bucket: str, key: str) -> None:
        """Remove an object; one that is not there is removed already."""
        await _call(self._pool, self._delete, bucket, key)

    async def generate_data_key(self, key: str, context: Mapping[str, str], *, role_arn: str | None = None) -> DataKey:
        """KMS GenerateDataKey, AES-256, with the encryption context."""
        return await _call(self._pool, self._generate_data_key, key, dict(context), role_arn)

    async def decrypt_data_key(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """KMS Decrypt with the encryption context."""
        return await _call(self._pool, self._decrypt_data_key, wrapped, dict(context))

    async def invoke(self, function: str, payload: bytes, *, wait: bool) -> bytes:
        """Lambda Invoke: RequestResponse when it is waited for, else Event."""
        return await _call(self._waiting if wait else self._pool, self._invoke, function, payload, wait)

    async def try_function(self, function: str) -> None:
        """Lambda Invoke as DryRun: is it there, and may we call it? Nothing runs."""
        await _call(self._pool, self._try_function, function)

    async def publish(self, topic_arn: str, subject: str, message: str, *, role_arn: str | None = None) -> None:
        """SNS Publish."""
        await _call(self._pool, self._publish, topic_arn, subject, message, role_arn)

    async def send(self, queue_url: str, message: str, *, once: str, role_arn: str | None = None) -> None:
        """SQS SendMessage."""
        await _call(self._pool, self._send, queue_url, message, once, role_arn)

    async def receive(self, queue_url: str, *, most: int, wait: float, hidden: float) -> tuple[QueueMessage, ...]:
        """SQS ReceiveMessage with long polling: () when none has come within `wait` seconds, 20 at most."""
        return await _call(self._waiting, self._receive, queue_url, most, wait, hidden)

    async def delete_message(self, queue_url: str, receipt: str) -> None:
        """SQS DeleteMessage."""
        await _call(self._pool, self._delete_message, queue_url, receipt)

    async def hide_message(self, queue_url: str, receipt: str, seconds: float) -> None:
        """SQS ChangeMessageVisibility, whole seconds; 0 gives the message back."""
        await _call(self._pool, self._hide_message, queue_url, receipt, seconds)

    async def send_raw_email(self, raw: bytes, *, source: str, rcpt_to: tuple[str, ...]) -> str:
        """SES SendRawEmail, and its MessageId. Without a `source` SES sends from the address in From."""
        return await _call(self._pool, self._send_raw_email, raw, source, rcpt_to)

    def _put(self, bucket: str, key: str, body: bytes, metadata: dict[str, str], role_arn: str | None) -> bool:
        s3 = self._client("s3", role_arn=role_arn)
        put = partial(s3.put_object, Bucket=bucket, Key=key, Body=body, Metadata=metadata)
        for attempt in range(CONFLICTS):
            try:
                put(IfNoneMatch="*")
            except botocore.ClientError as error:
                match http_status(error):
                    case 412:
                        return False
                    case 409:
                        time.sleep(random.uniform(0.05, 0.2) * (attempt + 1))  # noqa: S311 - only spreads the tries
                        continue
                    case 501:
                        return _look_first(s3, put, bucket, key)
                raise
            return True
        raise TemporaryFailure(why.CONFLICT, f"{bucket}/{key}")

    def _get(self, bucket: str, key: str, limit: int) -> StoredObject:
        answer = self._client("s3").get_object(Bucket=bucket, Key=key)
        with answer["Body"] as stream:
            if answer["ContentLength"] > limit:
                raise PermanentFailure(why.TOO_LARGE, f"{bucket}/{key} has {answer['ContentLength']} octets")
            return StoredObject(body=stream.read(), metadata=answer["Metadata"])

    def _list_buckets(self) -> tuple[str, ...]:
        return tuple(it["Name"] for it in self._client("s3").list_buckets().get("Buckets", []))

    def _list(self, bucket: str, prefix: str, after: str, token: str) -> tuple[list[Listed], str | None]:
        """One page, and where the next begins."""
        more = {"ContinuationToken": token} if token else {"StartAfter": after} if after else {}
        answer = self._client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=PAGE, **more)
        found = [
            Listed(key=it["Key"], size=it["Size"], modified=it["LastModified"].timestamp())
            for it in answer.get("Contents", [])
        ]
        return found, answer.get("NextContinuationToken")

    def _delete(self, bucket: str, key: str) -> None:
        self._client("s3").delete_object(Bucket=bucket, Key=key)

    def _generate_data_key(self, key: str, context: dict[str, str], role_arn: str | None) -> DataKey:
        kms = self._client("kms", arn=key, role_arn=role_arn)
        answer = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=context)
        return DataKey(plaintext=answer["Plaintext"], wrapped=answer["CiphertextBlob"], key_arn=answer["KeyId"])

    def _decrypt_data_key(self, wrapped: bytes, context: dict[str, str]) -> bytes:
        kms = self._client("kms", arn=context.get("kms_cmk_id", ""))
        plaintext: bytes = kms.decrypt(CiphertextBlob=wrapped, EncryptionContext=context)["Plaintext"]
        return plaintext

    def _invoke(self, function: str, payload: bytes, wait: bool) -> bytes:
        client = self._client("lambda", arn=function, patient=wait)
        kind = "RequestResponse" if wait else "Event"
        answer = client.invoke(FunctionName=function, InvocationType=kind, Payload=payload)
        with answer["Payload"] as stream:
            octets: bytes = stream.read(LONGEST_ANSWER + 1)
        if answer.get("FunctionError"):
            raise why.function_failure(octets)
        if len(octets) > LONGEST_ANSWER:
            raise PermanentFailure(why.TOO_LARGE, f"the answer of {function}")
        return octets if wait else b""

    def _try_function(self, function: str) -> None:
        answer = self._client("lambda", arn=function).invoke(FunctionName=function, InvocationType="DryRun")
        answer["Payload"].close()

    def _publish(self, topic_arn: str, subject: str, message: str, role_arn: str | None) -> None:
        sns = self._client("sns", arn=topic_arn, role_arn=role_arn)
        sns.publish(TopicArn=topic_arn, Subject=subject, Message=message)

    def _send(self, queue_url: str, message: str, once: str, role_arn: str | None) -> None:
        sqs = self._client("sqs", arn=_arn_of_queue(queue_url), role_arn=role_arn)
        fifo = {"MessageGroupId": "inbound", "MessageDeduplicationId": once} if queue_url.endswith(".fifo") else {}
        sqs.send_message(QueueUrl=queue_url, MessageBody=message, **fifo)

    def _receive(self, queue_url: str, most: int, wait: float, hidden: float) -> tuple[QueueMessage, ...]:
        answer = self._client("sqs", arn=_arn_of_queue(queue_url), patient=True).receive_message(
            QueueUrl=queue_url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=min(math.ceil(wait), LONGEST_POLL),
            VisibilityTimeout=math.ceil(hidden),
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return tuple(
            QueueMessage(
                id=it["MessageId"],
                body=it["Body"],
                receipt=it["ReceiptHandle"],
                times=int(it.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
            for it in answer.get("Messages", [])
        )

    def _delete_message(self, queue_url: str, receipt: str) -> None:
        self._client("sqs", arn=_arn_of_queue(queue_url)).delete_message(QueueUrl=queue_url, ReceiptHandle=receipt)

    def _hide_message(self, queue_url: str, receipt: str, seconds: float) -> None:
        sqs = self._client("sqs", arn=_arn_of_queue(queue_url))
        sqs.change_message_visibility(
            QueueUrl=queue_url, ReceiptHandle=receipt, VisibilityTimeout=min(math.ceil(seconds), LONGEST_HIDDEN)
        )

    def _send_raw_email(self, raw: bytes, source: str, rcpt_to: tuple[str, ...]) -> str:
        envelope = {"Destinations": list(rcpt_to)} | ({"Source": source} if source else {})
        message_id: str = self._client("ses").send_raw_email(RawMessage={"Data": raw}, **envelope)["MessageId"]
        return message_id

    def _client(self, service: str, *, arn: str = "", role_arn: str | None = None, patient: bool = False) -> Any:
        """The client for a service, in the region of `arn` if that is one; made anew when its role is about to end."""
        parts = arn.split(":")
        region = parts[3] if parts[0] == "arn" and len(parts) > 5 and parts[3] else self._region  # noqa: PLR2004
        wanted = _Wanted(service, region, role_arn, patient)
        client, until = self._clients.get(wanted, (None, 0.0))
        if client is None or time.monotonic() > until:
            with self._making:  # sessions are not thread-safe, clients are
                client, until = self._clients.get(wanted, (None, 0.0))
                if client is None or time.monotonic() > until:
                    client, until = self._make(wanted)
                    self._clients[wanted] = client, until
        return client

    def _make(self, wanted: _Wanted) -> tuple[Any, float]:
        credentials, until = self._assume(wanted.role_arn) if wanted.role_arn else ({}, float("inf"))
        client = self._session.client(
            wanted.service,  # type: ignore[call-overload]
            region_name=wanted.region,
            endpoint_url=self._endpoint_url,
            config=self._config(wanted),
            **credentials,
        )
        return client, until

    def _assume(self, role_arn: str) -> tuple[dict[str, str], float]:
        sts: Any = self._session.client(
            "sts",
            region_name=self._region,
            endpoint_url=self._endpoint_url,
            config=self._config(_Wanted("sts", self._region)),
        )
        until = time.monotonic() + ROLE_SECONDS - RENEW_SECONDS
        got = sts.assume_role(RoleArn=role_arn, RoleSessionName="inbound", DurationSeconds=ROLE_SECONDS)["Credentials"]
        return {
            "aws_access_key_id": got["AccessKeyId"],
            "aws_secret_access_key": got["SecretAccessKey"],
            "aws_session_token": got["SessionToken"],
        }, until

    def _config(self, wanted: _Wanted) -> Config:
        # Other stores answer at one host name, and some refuse checksums that came after them.
        elsewhere = self._endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        checksums: Any = "when_required" if elsewhere else "when_supported"
        return Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=FUNCTION_SECONDS + 5 if wanted.patient else READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1 if wanted.patient else TRIES},  # a function runs once
            max_pool_connections=WAITING if wanted.patient else THREADS,
            s3={"addressing_style": "path" if elsewhere else "auto"},
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            user_agent_extra="inbound",
        )


def _arn_of_queue(queue_url: str) -> str:
    """An ARN that names the queue's region, "" where the URL does not."""
    region = _QUEUE_REGION.match(queue_url)
    return f"arn:aws:sqs:{region.group(1)}::" if region else ""


async def _call(
    pool: ThreadPoolExecutor, function: Callable[Arguments, Result], *args: Arguments.args, **more: Arguments.kwargs
) -> Result:
    """Run it in the pool; whatever boto3 raises comes out as one of ours."""
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, partial(function, *args, **more))
    except (botocore.ClientError, botocore.BotoCoreError) as error:
        raise failure(error) from error


def _look_first(s3: Any, put: Callable[[], object], bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except botocore.ClientError as error:
        if http_status(error) != 404:  # noqa: PLR2004 - HTTP
            raise
        put()
        return True
    return False
