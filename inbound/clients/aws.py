"""`cloud: aws`: S3, KMS, Lambda, SNS, SQS, SES through boto3 (`aws_clients`); what every mail does, without it (`aws_direct`).

1. Calls of boto3 run in threads of their own, never on the loop: one pool for calls that answer at once, another for
   functions that are waited for, so that slow functions keep no mail from being stored. Each call has its timeouts and few
   tries. As an async context, PutObject and GenerateDataKey go the way that boto3 has shown, without it (`aws_direct`).
2. A write is conditional (`If-None-Match: *`): 412 says that the object is there, which is success. A conflict with
   another write (409) is tried again. A store that knows no conditional writes (501) is asked first, then written to.
3. An object larger than a part is uploaded in parts (`aws_parts`).
4. Every error becomes one of ours. Temporary: no answer, throttled, 5xx, credentials that could not be fetched.
   Permanent: what somebody must change, such as a missing bucket or a right (`aws_errors`).
"""

import asyncio
import contextlib
import math
import random
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from botocore import exceptions as botocore

from inbound.clients import USUAL, Body, DataKey, Listed, Octets, QueueMessage, Sharing, StoredObject, Terms, whole
from inbound.clients import reasons as why
from inbound.clients.aws_clients import Clients, Manners
from inbound.clients.aws_direct import Direct, Moved, Seen, Way, encoded_key
from inbound.clients.aws_errors import failure, http_status
from inbound.clients.aws_parts import PART, Upload, arguments, condition, fields, must_not_be_there
from inbound.clients.data_keys import Counters, DataKeys
from inbound.clients.http1 import Connections
from inbound.clients.relay import Relays
from inbound.errors import PermanentFailure, TemporaryFailure
from inbound.offload import offload

THREADS = 32  # calls side by side that answer at once
WAITING = 64  # functions side by side that are waited for
CONNECT_SECONDS, READ_SECONDS = 3.0, 10.0
FUNCTION_SECONDS = 30.0  # SES's patience with a RequestResponse function
TRIES = 3  # of each call, as botocore counts them
CONFLICTS = 3  # tries of a write that another write was in the way of
BIG = 256 * 1024  # octets that are too many to be worked on without a thread
LONGEST_OBJECT = 128 * 1024 * 1024  # octets that `get` takes into memory
LONGEST_POLL, LONGEST_HIDDEN = 20, 43_200  # seconds that SQS waits for a message, and hides one, at most
PAGE = 1000  # objects of a listing in one answer, the most that S3 gives
LONGEST_ANSWER = 6 * 1024 * 1024  # octets; Lambda's own limit

_QUEUE_REGION = re.compile(r"https://sqs\.([a-z0-9-]+)\.amazonaws\.com")

_Kind = tuple[str, str, str | None]  # service; bucket, or region; role

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(slots=True, kw_only=True)
class AwsCounters(Counters):
    """Also the requests without boto3, how many connections they took and how many were tries again; and boto3's calls."""

    direct_calls: int
    connections: int
    retries: int
    calls_of_boto3: int


class AwsCloud:
    """Fulfils `actions.Cloud`. Credentials come from boto3's own chain; `endpoint_url` is for every service."""

    def __init__(self, *, region: str, endpoint_url: str | None = None, relays: Relays | None = None) -> None:
        self.relays = relays or Relays.nowhere()
        manners = Manners(connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS, tries=TRIES, connections=THREADS)
        # A function runs once.
        self._patient = replace(manners, read_seconds=FUNCTION_SECONDS + 5, tries=1, connections=WAITING)
        self._clients = Clients(region=region, endpoint_url=endpoint_url, manners=manners)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="inbound-aws")
        self._waiting = ThreadPoolExecutor(WAITING, thread_name_prefix="inbound-lambda")
        self._connections: Connections | None = None
        self._direct: Direct | None = None
        self.data_keys = DataKeys()
        self._calls_of_boto3 = 0
        self._seen = Seen()
        self._ways: dict[_Kind, Way] = {}

    @property
    def counters(self) -> AwsCounters:
        """What it did so far."""
        connections, direct = self._connections, self._direct
        return AwsCounters(
            **asdict(self.data_keys.counters),
            direct_calls=connections.requests if connections else 0,
            connections=connections.opened if connections else 0,
            retries=direct.retries if direct else 0,
            calls_of_boto3=self._calls_of_boto3,
        )

    async def __aenter__(self) -> Self:
        self._connections = Connections(self._clients.trust, connect=CONNECT_SECONDS, read=READ_SECONDS, most=THREADS)
        self._direct = Direct(self._connections)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._connections is not None:
            await self._connections.close()
        self._connections = self._direct = None
        self.data_keys.close()
        self.close()

    def close(self) -> None:
        """End the threads once what they do is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._waiting.shutdown(wait=False, cancel_futures=True)

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
        """Store unless something is there already, or in its stead if the terms say so."""
        if len(body) > PART:
            large = Octets(body) if isinstance(body, bytes) else body
            once = partial(self._put_in_parts, bucket, key, large, metadata, terms, role_arn)
        else:
            octets = whole(body) if isinstance(body, bytes) or len(body) <= BIG else await offload(whole, body)
            once = partial(self._put_at_once, bucket, key, octets, metadata, terms, role_arn)
        with _ours():
            for attempt in range(CONFLICTS):
                try:
                    await once()
                except botocore.ClientError as error:
                    if http_status(error) == 412 and not terms.replaces:  # noqa: PLR2004 - HTTP
                        return False
                    if http_status(error) != 409:  # noqa: PLR2004 - HTTP
                        raise
                else:
                    return True
                await asyncio.sleep(random.uniform(0.05, 0.2) * (attempt + 1))  # noqa: S311 - only spreads the tries
        raise TemporaryFailure(why.CONFLICT, f"{bucket}/{key}")

    async def get(self, bucket: str, key: str, *, limit: int = LONGEST_OBJECT) -> StoredObject:
        """Fetch an object whole; one of more octets than `limit` is a PermanentFailure."""
        with _ours():
            return await self._in(self._pool, self._get, bucket, key, limit)

    async def list_buckets(self) -> tuple[str, ...]:
        """The names of all buckets of the account."""
        with _ours():
            return await self._in(self._pool, self._list_buckets)

    async def list_objects(self, bucket: str, prefix: str, *, after: str = "") -> AsyncIterator[Listed]:
        """The objects whose keys begin with `prefix`, in the order of their keys, from behind the key `after`."""
        token: str | None = ""
        while token is not None:
            with _ours():
                page, token = await self._in(self._pool, self._list, bucket, prefix, after, token)
            for one in page:
                yield one

    async def delete_object(self, bucket: str, key: str) -> None:
        """Remove an object; one that is not there is removed already."""
        with _ours():
            await self._in(self._pool, self._delete, bucket, key)

    async def generate_data_key(
        self,
        key: str,
        context: Mapping[str, str],
        *,
        role_arn: str | None = None,
        sharing: Sharing | None = None,
        octets: int = 0,
    ) -> DataKey:
        """KMS GenerateDataKey, AES-256, with the encryption context, unless there is a key to be shared."""
        make = partial(self._data_key, key, context, role_arn)
        with _ours():
            return await self.data_keys.get((key, role_arn, *context.items()), sharing, octets, make)

    async def _data_key(self, key: str, context: Mapping[str, str], role_arn: str | None) -> DataKey:
        kind = ("kms", self._clients.region_of(key), role_arn)
        way = self._ways.get(kind)
        if way is not None and self._direct is not None:
            try:
                return await self._direct.generate_data_key(way, key, context)
            except Moved:
                self._ways.pop(kind, None)
        return await self._in(self._pool, self._generate_data_key, key, dict(context), role_arn, kind)

    async def decrypt_data_key(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """KMS Decrypt with the encryption context."""
        with _ours():
            return await self._in(self._pool, self._decrypt_data_key, wrapped, dict(context))

    async def invoke(self, function: str, payload: bytes, *, wait: bool) -> bytes:
        """Lambda Invoke: RequestResponse when it is waited for, else Event."""
        with _ours():
            return await self._in(self._waiting if wait else self._pool, self._invoke, function, payload, wait)

    async def try_function(self, function: str) -> None:
        """Lambda Invoke as DryRun: is it there, and may we call it? Nothing runs."""
        with _ours():
            await self._in(self._pool, self._try_function, function)

    async def publish(self, topic_arn: str, subject: str, message: str, *, role_arn: str | None = None) -> None:
        """SNS Publish."""
        with _ours():
            await self._in(self._pool, self._publish, topic_arn, subject, message, role_arn)

    async def send(self, queue_url: str, message: str, *, once: str, role_arn: str | None = None) -> None:
        """SQS SendMessage."""
        with _ours():
            await self._in(self._pool, self._send, queue_url, message, once, role_arn)

    async def receive(self, queue_url: str, *, most: int, wait: float, hidden: float) -> tuple[QueueMessage, ...]:
        """SQS ReceiveMessage with long polling: () when none has come within `wait` seconds, 20 at most."""
        with _ours():
            return await self._in(self._waiting, self._receive, queue_url, most, wait, hidden)

    async def delete_message(self, queue_url: str, receipt: str) -> None:
        """SQS DeleteMessage."""
        with _ours():
            await self._in(self._pool, self._delete_message, queue_url, receipt)

    async def hide_message(self, queue_url: str, receipt: str, seconds: float) -> None:
        """SQS ChangeMessageVisibility, whole seconds; 0 gives the message back."""
        with _ours():
            await self._in(self._pool, self._hide_message, queue_url, receipt, seconds)

    async def send_raw_email(self, raw: bytes, *, source: str, rcpt_to: tuple[str, ...]) -> str:
        """SES SendRawEmail, and its MessageId. Without a `source` SES sends from the address in From."""
        with _ours():
            return await self._in(self._pool, self._send_raw_email, raw, source, rcpt_to)

    async def _put_at_once(
        self, bucket: str, key: str, octets: bytes, metadata: Mapping[str, str], terms: Terms, role_arn: str | None
    ) -> None:
        kind = ("s3", bucket, role_arn)
        way = self._ways.get(kind)
        if way is not None and self._direct is not None:
            try:
                await self._direct.put_object(way, key, octets, fields(terms, metadata))
            except Moved:
                self._ways.pop(kind, None)
            except botocore.ClientError as error:
                if http_status(error) != 501:  # noqa: PLR2004 - HTTP; boto3 asks first then
                    raise
                self._ways.pop(kind, None)
            else:
                return
        await self._in(self._pool, self._put_object, bucket, key, octets, metadata, terms, role_arn)

    async def _in(
        self,
        pool: ThreadPoolExecutor,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **more: Arguments.kwargs,
    ) -> Result:
        """Run it in a thread of the pool."""
        self._calls_of_boto3 += 1
        return await asyncio.get_running_loop().run_in_executor(pool, partial(function, *args, **more))

    def _put_object(
        self, bucket: str, key: str, octets: bytes, metadata: Mapping[str, str], terms: Terms, role_arn: str | None
    ) -> None:
        s3 = self._clients.client("s3", role_arn=role_arn)
        put = partial(s3.put_object, Bucket=bucket, Key=key, Body=octets, **arguments(terms, metadata))
        learn = partial(self._learn, s3, "PutObject", encoded_key(key), ("s3", bucket, role_arn))
        self._seen.watch(s3, "PutObject")
        try:
            put(**condition(terms))
        except botocore.ClientError as error:
            match http_status(error):
                case 412:
                    learn()
                case 501 if not terms.replaces:
                    must_not_be_there(s3, bucket, key)
                    put()
                    return
            raise
        learn()

    async def _put_in_parts(
        self, bucket: str, key: str, body: Body, metadata: Mapping[str, str], terms: Terms, role_arn: str | None
    ) -> None:
        given_up = threading.Event()

        def put() -> None:
            s3 = self._clients.client("s3", role_arn=role_arn)
            Upload(s3, bucket, key, body, given_up).put(terms, metadata)

        try:
            await self._in(self._pool, put)
        except asyncio.CancelledError:
            given_up.set()
            raise

    def _learn(self, client: Any, operation: str, suffix: str, kind: _Kind) -> None:
        """Go the way that this thread's call has gone without boto3 from now on."""
        credentials = partial(self._clients.credentials, kind[2], self._pool)
        way = self._seen.way(client, operation, suffix, credentials)
        if way is not None and self._direct is not None:
            self._ways[kind] = way

    def _get(self, bucket: str, key: str, limit: int) -> StoredObject:
        answer = self._clients.client("s3").get_object(Bucket=bucket, Key=key)
        with answer["Body"] as stream:
            if answer["ContentLength"] > limit:
                raise PermanentFailure(why.TOO_LARGE, f"{bucket}/{key} has {answer['ContentLength']} octets")
            return StoredObject(body=stream.read(), metadata=answer["Metadata"])

    def _list_buckets(self) -> tuple[str, ...]:
        return tuple(it["Name"] for it in self._clients.client("s3").list_buckets().get("Buckets", []))

    def _list(self, bucket: str, prefix: str, after: str, token: str) -> tuple[list[Listed], str | None]:
        """One page, and where the next begins."""
        more = {"ContinuationToken": token} if token else {"StartAfter": after} if after else {}
        answer = self._clients.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=PAGE, **more)
        found = [
            Listed(key=it["Key"], size=it["Size"], modified=it["LastModified"].timestamp())
            for it in answer.get("Contents", [])
        ]
        return found, answer.get("NextContinuationToken")

    def _delete(self, bucket: str, key: str) -> None:
        self._clients.client("s3").delete_object(Bucket=bucket, Key=key)

    def _generate_data_key(self, key: str, context: dict[str, str], role_arn: str | None, kind: _Kind) -> DataKey:
        kms = self._clients.client("kms", arn=key, role_arn=role_arn)
        self._seen.watch(kms, "GenerateDataKey")
        answer = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=context)
        self._learn(kms, "GenerateDataKey", "", kind)
        plaintext = bytearray(answer["Plaintext"])
        return DataKey(plaintext=plaintext, wrapped=answer["CiphertextBlob"], key_arn=answer["KeyId"])

    def _decrypt_data_key(self, wrapped: bytes, context: dict[str, str]) -> bytes:
        kms = self._clients.client("kms", arn=context.get("kms_cmk_id", ""))
        plaintext: bytes = kms.decrypt(CiphertextBlob=wrapped, EncryptionContext=context)["Plaintext"]
        return plaintext

    def _invoke(self, function: str, payload: bytes, wait: bool) -> bytes:
        client = self._clients.client("lambda", arn=function, manners=self._patient if wait else None)
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
        answer = self._clients.client("lambda", arn=function).invoke(FunctionName=function, InvocationType="DryRun")
        answer["Payload"].close()

    def _publish(self, topic_arn: str, subject: str, message: str, role_arn: str | None) -> None:
        sns = self._clients.client("sns", arn=topic_arn, role_arn=role_arn)
        sns.publish(TopicArn=topic_arn, Subject=subject, Message=message)

    def _send(self, queue_url: str, message: str, once: str, role_arn: str | None) -> None:
        sqs = self._clients.client("sqs", arn=_arn_of_queue(queue_url), role_arn=role_arn)
        fifo = {"MessageGroupId": "inbound", "MessageDeduplicationId": once} if queue_url.endswith(".fifo") else {}
        sqs.send_message(QueueUrl=queue_url, MessageBody=message, **fifo)

    def _receive(self, queue_url: str, most: int, wait: float, hidden: float) -> tuple[QueueMessage, ...]:
        answer = self._clients.client("sqs", arn=_arn_of_queue(queue_url), manners=self._patient).receive_message(
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
        self._clients.client("sqs", arn=_arn_of_queue(queue_url)).delete_message(
            QueueUrl=queue_url, ReceiptHandle=receipt
        )

    def _hide_message(self, queue_url: str, receipt: str, seconds: float) -> None:
        sqs = self._clients.client("sqs", arn=_arn_of_queue(queue_url))
        sqs.change_message_visibility(
            QueueUrl=queue_url, ReceiptHandle=receipt, VisibilityTimeout=min(math.ceil(seconds), LONGEST_HIDDEN)
        )

    def _send_raw_email(self, raw: bytes, source: str, rcpt_to: tuple[str, ...]) -> str:
        envelope = {"Destinations": list(rcpt_to)} | ({"Source": source} if source else {})
        ses = self._clients.client("ses")
        message_id: str = ses.send_raw_email(RawMessage={"Data": raw}, **envelope)["MessageId"]
        return message_id


@contextlib.contextmanager
def _ours() -> Iterator[None]:
    """Whatever botocore raises comes out as one of ours."""
    try:
        yield
    except (botocore.ClientError, botocore.BotoCoreError) as error:
        raise failure(error) from error


def _arn_of_queue(queue_url: str) -> str:
    """An ARN that names the queue's region, "" where the URL does not."""
    region = _QUEUE_REGION.match(queue_url)
    return f"arn:aws:sqs:{region.group(1)}::" if region else ""
