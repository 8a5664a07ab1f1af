"""PutObject and GenerateDataKey on connections of our own, in the way that boto3 has shown.

Every mail makes these calls, and boto3's own work for each is ten times as much.

1. The first call of a kind goes through boto3 as ever. The request that it really sent is looked at (`before-send`) and says
   everything that rules, environment, profile and redirects have led to: host, path style, region, service, whether the
   payload is hashed and a checksum sent. That is the way (`Way`) for the calls that follow.
2. There is no way, and boto3 goes on, where the signature is another than SigV4 with the session's own credentials (S3
   Express, multi-region access points), or a proxy is to be used.
3. Credentials stay botocore's: the current ones are asked for at each call, and refreshed in a thread.
4. What is worth another try, how long to wait before it and how many tries all calls may cost are asked of botocore's own
   standard mode; a certificate is not worth one. A kept connection that was closed meanwhile costs no try. A clock that is
   wrong is corrected by the service's own (`Date`).
5. What a service answers is made into botocore's own error, so that the same means the same. A redirect and a wrong region
   are `Moved`: boto3 finds the new way.
"""

import asyncio
import base64
import itertools
import json
import logging
import random
import ssl
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

from botocore import exceptions as botocore
from botocore.awsrequest import AWSResponse
from botocore.parsers import ResponseParserError, create_parser
from botocore.retries import standard
from botocore.retries.quota import RetryQuota
from botocore.utils import get_environ_proxies

from inbound.clients import DataKey
from inbound.clients.aws_errors import error_code
from inbound.clients.http1 import Connections, CutOff, Origin, origin_of
from inbound.clients.http_answers import Answer, NotUnderstood
from inbound.clients.sigv4 import UNSIGNED, Credentials, Signer, payload_hash
from inbound.offload import offload

log = logging.getLogger(__name__)

BIG = 256 * 1024  # octets that are too many to be hashed without a thread
MOST_STALE = 64  # kept connections in a row that turn out to be closed
SKEW_SECONDS = 60.0  # a difference of clocks that is worth a correction

_SKEWED_CODES = frozenset(
    {"RequestTimeTooSkewed", "RequestExpired", "InvalidSignatureException", "SignatureDoesNotMatch"}
)
_MOVED_CODES = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)


class Moved(Exception):
    """The way is another one now."""


class Retries:
    """botocore's standard mode, for the calls of one operation of a client: its tries, its waits, a quota for all of them."""

    def __init__(self, client: Any, operation: str) -> None:
        throttling = standard.ThrottlingErrorDetector(standard.RetryEventAdapter())
        self._operation = client.meta.service_model.operation_model(operation)
        self._worth = standard.StandardRetryConditions(client.meta.config.retries["total_max_attempts"])
        self._backoff = standard.ExponentialBackoff(random=random.random, throttling_detector=throttling)
        self._quota = RetryQuota()
        self._within = standard.RetryQuotaChecker(self._quota, throttling)

    def wait(self, error: Exception, attempt: int, spent: dict[str, int]) -> float | None:
        """Seconds before the next try, None when there is none. `spent` is what this call has taken of the quota."""
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            return None
        answered = error.response if isinstance(error, botocore.ClientError) else None
        met: Any = (answered or {}).get("ResponseMetadata")
        context = standard.RetryContext(
            attempt_number=attempt,
            operation_model=self._operation,
            parsed_response=answered,
            http_response=AWSResponse("", met["HTTPStatusCode"], met["HTTPHeaders"], None) if answered else None,
            caught_exception=None if answered else error,
            request_context=spent,
        )
        if not self._worth.is_retryable(context) or not self._within.acquire_retry_quota(context):
            return None
        seconds: float = self._backoff.delay_amount(context)
        return seconds

    def done(self, spent: Mapping[str, int]) -> None:
        """A call has succeeded: what its last try again has cost comes back, or a little if there was none."""
        self._quota.release(spent.get("retry_quota_capacity", 1))


@dataclass(slots=True, kw_only=True)
class Way:
    """How calls of one kind reach their service."""

    operation: str
    origin: Origin
    path: str  # before an object's key, or the whole
    fields: Mapping[str, str]  # that every request has
    signer: Signer
    credentials: Callable[[], Awaitable[Credentials]]
    hashed: bool  # the payload is part of what is signed
    checksum: bool  # CRC-32 is sent
    parser: Any
    retries: Retries
    skew: float = 0.0  # seconds that the service's clock is before ours


class Seen:
    """The last request that each thread has sent through a client."""

    def __init__(self) -> None:
        self._local = threading.local()

    def watch(self, client: Any, operation: str) -> None:
        """Look at what the client sends for one operation."""
        service = client.meta.service_model.service_id.hyphenize()
        client.meta.events.register(f"before-send.{service}.{operation}", self._note, unique_id="inbound-seen")

    def _note(self, request: Any, **_: Any) -> None:
        self._local.shown = request.url, dict(request.headers)

    def way(
        self, client: Any, operation: str, suffix: str, credentials: Callable[[], Awaitable[Credentials]]
    ) -> Way | None:
        """The way that this thread's last request has shown. `suffix` is the end of its path that belongs to it alone."""
        shown: tuple[str, Mapping[str, bytes | str]] | None = self._local.__dict__.pop("shown", None)
        return None if shown is None else _way(shown[0], shown[1], client, operation, suffix, credentials)


def encoded_key(key: str) -> str:
    """A key as it stands in the path."""
    return quote(key, safe="/-._~")


def _way(
    address: str,
    headers: Mapping[str, bytes | str],
    client: Any,
    operation: str,
    suffix: str,
    credentials: Callable[[], Awaitable[Credentials]],
) -> Way | None:
    sent = {name.lower(): _text(value) for name, value in headers.items()}
    scheme, _, rest = sent.get("authorization", "").partition(" ")
    scope = rest.partition("Credential=")[2].partition(",")[0].split("/")
    url = urlsplit(address)
    plain = scheme == "AWS4-HMAC-SHA256" and len(scope) == 5 and "x-amz-s3session-token" not in sent  # noqa: PLR2004
    as_it_stands = (
        scope[3:4] == ["s3"] or url.path == "/"
    )  # other services sign a path made plain and encoded once more
    known = plain and as_it_stands and not url.query and url.path.endswith(suffix)
    if not known or get_environ_proxies(address):
        return None
    fields = {"host": url.netloc.rpartition("@")[2], "user-agent": sent.get("user-agent", "inbound")}
    fields |= {
        name: sent[name] for name in ("content-type", "x-amz-target") if operation != "PutObject" and name in sent
    }
    payload = sent.get("x-amz-content-sha256", "")
    return Way(
        operation=operation,
        origin=origin_of(address),
        path=url.path.removesuffix(suffix),
        fields=fields,
        signer=Signer(scope[3], scope[2]),
        credentials=credentials,
        hashed="UNSIGNED" not in payload,
        checksum="x-amz-sdk-checksum-algorithm" in sent,
        parser=create_parser(client.meta.service_model.metadata["protocol"]),
        retries=Retries(client, operation),
    )


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


class Direct:
    """The two calls."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.retries = 0

    async def put_object(self, way: Way, key: str, body: bytes, fields: Mapping[str, str]) -> None:
        """S3 PutObject. `fields` are the request's own. Raises botocore's errors, and Moved."""
        every = {**way.fields, **fields}
        if way.checksum:
            every["x-amz-checksum-crc32"] = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode("ascii")
            every["x-amz-sdk-checksum-algorithm"] = "CRC32"
        payload = UNSIGNED
        if way.hashed:
            payload = payload_hash(body) if len(body) <= BIG else await offload(payload_hash, body)
        every["x-amz-content-sha256"] = payload
        await self._call(way, "PUT", way.path + encoded_key(key), every, body, payload)

    async def generate_data_key(self, way: Way, key: str, context: Mapping[str, str]) -> DataKey:
        """KMS GenerateDataKey, AES-256. Raises botocore's errors."""
        asked = {"KeyId": key, "KeySpec": "AES_256", "EncryptionContext": dict(context)}
        body = json.dumps(asked).encode("ascii")
        answer = await self._call(way, "POST", way.path, way.fields, body, payload_hash(body))
        try:
            said = json.loads(answer.content)
            plaintext, wrapped = (
                base64.b64decode(said[name], validate=True) for name in ("Plaintext", "CiphertextBlob")
            )
            made = DataKey(plaintext=bytearray(plaintext), wrapped=wrapped, key_arn=str(said["KeyId"]))
        except (ValueError, KeyError, TypeError) as error:
            raise botocore.HTTPClientError(error="an answer of KMS that is none") from error
        if len(made.plaintext) != 32 or not made.wrapped:  # noqa: PLR2004 - octets
            raise botocore.HTTPClientError(error="an answer of KMS without a key of 256 bits")
        return made

    async def _call(
        self, way: Way, method: str, path: str, fields: Mapping[str, str], body: bytes, payload: str
    ) -> Answer:
        """As often as it takes. Raises botocore's errors, and Moved."""
        spent: dict[str, int] = {}
        for attempt in itertools.count(1):
            try:
                answer = await self._try(way, method, path, fields, body, payload)
            except (botocore.ClientError, botocore.HTTPClientError, botocore.ConnectionError) as error:
                seconds = way.retries.wait(error, attempt, spent)
                if seconds is None:
                    raise
            else:
                way.retries.done(spent)
                return answer
            self.retries += 1
            await asyncio.sleep(seconds)
        raise AssertionError  # the last try raises

    async def _try(
        self, way: Way, method: str, path: str, fields: Mapping[str, str], body: bytes, payload: str
    ) -> Answer:
        """Once; what a wrong clock or a kept connection that was closed has cost is not counted."""
        corrected, stale = False, 0
        while True:
            try:
                answer = await self._send(way, method, path, fields, body, payload)
            except CutOff as error:
                if not error.untouched or stale >= MOST_STALE:
                    raise botocore.ConnectionClosedError(endpoint_url=_url(way, path), error=error) from error
                stale += 1
                continue
            except TimeoutError as error:
                raise botocore.ReadTimeoutError(endpoint_url=_url(way, path), error=error) from error
            except ssl.SSLError as error:
                raise botocore.SSLError(endpoint_url=_url(way, path), error=error) from error
            except NotUnderstood as error:
                raise botocore.HTTPClientError(error=error) from error
            except OSError as error:
                raise botocore.EndpointConnectionError(endpoint_url=_url(way, path), error=error) from error
            if answer.status < 300:  # noqa: PLR2004 - HTTP
                return answer
            refused = _error(way, answer)
            if corrected or not (error_code(refused) in _SKEWED_CODES and _corrected(way, answer)):
                raise refused
            corrected = True

    async def _send(
        self, way: Way, method: str, path: str, fields: Mapping[str, str], body: bytes, payload: str
    ) -> Answer:
        credentials = await way.credentials()
        try:
            signed = way.signer.signed(method, path, fields, payload, credentials, now=time.time() + way.skew)
        except ValueError as error:
            raise botocore.ParamValidationError(report=str(error)) from error
        lines = "".join([f"{name}: {value}\r\n" for name, value in signed.items()])
        head = f"{method} {path} HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n".encode("ascii")
        return await self._connections.request(way.origin, head, body)


def _url(way: Way, path: str) -> str:
    return f"{'https' if way.origin.tls else 'http'}://{way.fields['host']}{path}"


def _error(way: Way, answer: Answer) -> botocore.ClientError:
    """What botocore would have raised. Raises Moved."""
    try:
        parsed = way.parser.parse(
            {"status_code": answer.status, "headers": answer.fields, "body": answer.content}, None
        )
    except ResponseParserError:  # a proxy's page
        parsed = {"Error": {}, "ResponseMetadata": {"HTTPStatusCode": answer.status, "HTTPHeaders": answer.fields}}
    error = botocore.ClientError(parsed, way.operation)
    if 300 <= answer.status < 400 or error_code(error) in _MOVED_CODES:  # noqa: PLR2004 - HTTP
        raise Moved(f"{answer.status} {error_code(error)}")
    return error


def _corrected(way: Way, answer: Answer) -> bool:
    """The service's clock differs from the one that was signed by, which is set after it."""
    try:
        theirs = parsedate_to_datetime(answer.fields["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return False
    skew = theirs - time.time()
    if abs(skew - way.skew) < SKEW_SECONDS:
        return False
    log.warning("the clock of %s differs from ours by %.0f s, requests are dated by theirs", way.fields["host"], skew)
    way.skew = skew
    return True
