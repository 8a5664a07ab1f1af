"""PutObject and GenerateDataKey without boto3: the same requests, every answer means the same, and boto3 where it must be."""

import asyncio
import base64
import json
import random
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import trustme
import uvloop
from botocore.awsrequest import AWSRequest
from botocore.config import Config

from inbound.clients import StoredObject, Terms
from inbound.clients import aws as module
from inbound.clients import aws_direct as direct
from inbound.clients import reasons as why
from inbound.clients.aws import AwsCloud
from inbound.clients.http1 import Origin
from inbound.errors import Failure, PermanentFailure, TemporaryFailure
from tests.aws import ENVIRONMENT, bucket, client, kms_key
from tests.quick_aws import quick_aws
from tests.scripted import Act, Early, Last, Script, answer, scripted

META = {"x-amz-key-v2": "a" * 200, "x-amz-matdesc": '{"a":"b  c","d":"e"}'}
OK = answer(200, ETag='"0"')
MADE = answer(200, json.dumps({"Plaintext": "AAAA" * 10 + "AAA=", "CiphertextBlob": "AAAA", "KeyId": "k"}))


@pytest.fixture(autouse=True)
def _at_once(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del aws  # its credentials in the environment
    monkeypatch.setattr(random, "random", lambda: 0.001)  # tries follow at once


def story(url: str, work: Callable[[AwsCloud], Awaitable[Any]], loop: Callable[[Any], Any] = asyncio.run) -> Any:
    async def run() -> Any:
        async with AwsCloud(region="us-east-1", endpoint_url=url) as cloud:
            return await work(cloud)

    return loop(run())


async def put(cloud: AwsCloud, key: str = "in/k", body: bytes = b"x", **more: Any) -> bool:
    return await cloud.put("bucket", key, body, metadata=META, **more)


def test_the_first_call_of_a_kind_is_boto3_s_and_the_rest_go_without_it(aws: str) -> None:
    name, key = bucket(aws), kms_key(aws)

    async def work(cloud: AwsCloud) -> None:
        for number in range(5):
            assert await cloud.put(name, f"in/{number}", b"m%d" % number, metadata=META) is True
        assert await cloud.put(name, "in/3", b"another", metadata={}) is False
        for _ in range(3):
            made = await cloud.generate_data_key(key, {"a": "ü"})
            assert made.plaintext == await cloud.decrypt_data_key(made.wrapped, {"a": "ü"})
        counted = cloud.counters
        assert (counted.calls_of_boto3, counted.direct_calls, counted.retries) == (2 + 3, 5 + 2, 0)
        for number in range(5):
            assert StoredObject(body=b"m%d" % number, metadata=META) == await cloud.get(name, f"in/{number}")

    story(aws, work)


TERMS = Terms(
    owner="123456789012",
    server_side_encryption="aws:kms",
    sse_kms_key="alias/x",
    bucket_key=True,
    storage_class="STANDARD_IA",
    tags={"a b": "c/ü&=", "d": ""},
    content_type="message/rfc822",
)
OURS = {"accept-encoding", "amz-sdk-invocation-id", "amz-sdk-request", "authorization", "expect", "x-amz-date"}


KEYS = [
    "in/k",
    "/leading",
    "a b+c",
    "ünïcode/~x",
    "a%20b",
    "a//b///c",
    "./../a/../b/.",
    "..",
    "x?y=z#&;@:,$'()*![]|^`\\\"<>{}",
    "\t\u2028📨",
]


@pytest.mark.parametrize("terms", [Terms(), TERMS, Terms(replaces=True, bucket_key=False)])
def test_a_request_is_boto3_s_own_but_for_its_date_and_its_retry_headers(terms: Terms) -> None:
    async def run() -> None:
        async with scripted() as script, AwsCloud(region="us-east-1", endpoint_url=script.url) as cloud:
            for key in KEYS:
                cloud._ways.clear()
                for _ in range(2):
                    await put(cloud, key, terms=terms)
            assert cloud.counters.direct_calls == len(KEYS)
        for theirs, ours in zip(script.asked[::2], script.asked[1::2], strict=True):
            assert (theirs.line, theirs.content) == (ours.line, ours.content)
            fields = {name: value for name, value in theirs.fields.items() if name not in OURS}
            assert fields == {name: value for name, value in ours.fields.items() if name not in OURS}

    asyncio.run(run())


def test_a_data_key_is_asked_for_as_boto3_asks() -> None:
    async def run() -> None:
        async with scripted(MADE, MADE) as script, AwsCloud(region="us-east-1", endpoint_url=script.url) as cloud:
            for _ in range(2):
                await cloud.generate_data_key("alias/x", {"aws:ses:rule-name": "r"})
            theirs, ours = script.asked
        assert (theirs.line, json.loads(theirs.content)) == (ours.line, json.loads(ours.content))
        fields = {name: value for name, value in theirs.fields.items() if name not in OURS}
        assert fields == {name: value for name, value in ours.fields.items() if name not in OURS}

    asyncio.run(run())


def test_every_request_is_signed_as_a_service_verifies_it() -> None:
    with quick_aws() as (url, service):

        async def work(cloud: AwsCloud) -> None:
            await asyncio.gather(*[put(cloud, f"a {number}/ü", b"x" * number) for number in range(50)])
            await put(cloud, "big", bytes(3_000_000))
            made = await cloud.generate_data_key("alias/x", {"a": "b"})
            again = await cloud.generate_data_key("alias/x", {"a": "b"})
            for one in (made, again):
                assert one.plaintext == await cloud.decrypt_data_key(one.wrapped, {"a": "b"})

        story(url, work)
        assert service.counts == {"s3": 51, "kms": 4}
        assert len(service.objects) == 51


@contextmanager
def certified(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[ssl.SSLContext]:
    """TLS for 127.0.0.1, whose authority is believed."""
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(directory / "ca.pem"))
    yield server


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])
def test_over_tls_a_checksum_goes_in_the_place_of_the_signed_hash(
    loop: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with certified(monkeypatch, tmp_path) as server, quick_aws(tls=server) as (url, service):

        async def work(cloud: AwsCloud) -> None:
            await put(cloud, "first")
            (way,) = cloud._ways.values()
            assert (way.hashed, way.checksum) == (True, False)  # as boto3 does with a store of somebody else's
            way.hashed, way.checksum = False, True  # as it does with AWS's own
            for number in range(2):
                await put(cloud, f"k{number}")

        story(url, work, loop)
        assert service.counts == {"s3": 3}
        sent = [one.fields for one in service.asked[-2:]]
        assert {one["x-amz-content-sha256"] for one in sent} == {"UNSIGNED-PAYLOAD"}
        assert {one["x-amz-checksum-crc32"] for one in sent} == {
            base64.b64encode(zlib.crc32(b"x").to_bytes(4, "big")).decode()
        }


# --- Faults


def with_way(
    *acts: Any, tries: int = 3, loop: Callable[[Any], Any] = asyncio.run, monkeypatch: pytest.MonkeyPatch
) -> tuple[bool | Failure, Script, AwsCloud]:
    """What a put comes to that goes without boto3, when the service does this to it."""
    monkeypatch.setattr(module, "TRIES", tries)

    async def run() -> tuple[bool | Failure, Script, AwsCloud]:
        async with scripted(OK, *acts) as script, AwsCloud(region="us-east-1", endpoint_url=script.url) as cloud:
            await put(cloud, "first")
            script.asked.clear()
            try:
                return await put(cloud, "second"), script, cloud
            except Failure as failure:
                return failure, script, cloud

    result: tuple[bool | Failure, Script, AwsCloud] = loop(run())
    return result


def xml(status: int, code: str, **fields: str) -> bytes:
    return answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>", **fields)


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])  # the receiver's own is uvloop
@pytest.mark.parametrize(
    "faults",
    [
        [Act.CLOSE_AT_ONCE],
        [Act.CLOSE_BEHIND],
        [Act.RESET],
        [xml(500, "InternalError")],
        [xml(503, "SlowDown")],
        [answer(502, "<html>a proxy's page")],
        [answer(429)],
        [xml(400, "RequestTimeout")],
        [Early(xml(503, "SlowDown"))],
        [Last(OK[:-5])],
        [Last(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")],
        [b"no HTTP at all\r\n\r\n"],
        [xml(500, "InternalError"), Act.CLOSE_BEHIND],
    ],
)
def test_what_may_pass_is_tried_again(
    faults: list[Any], loop: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, script, _ = with_way(*faults, loop=loop, monkeypatch=monkeypatch)
    assert stored is True
    assert [one.line for one in script.asked] == ["PUT /bucket/second HTTP/1.1"] * (len(faults) + 1)


def test_an_answer_that_was_lost_and_a_second_try_that_finds_the_object_are_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored, _, _ = with_way(Act.CLOSE_BEHIND, xml(412, "PreconditionFailed"), monkeypatch=monkeypatch)
    assert stored is False


@pytest.mark.parametrize(
    ("act", "kind", "reason", "requests"),
    [
        (xml(500, "InternalError"), TemporaryFailure, why.SERVICE_DOWN, 3),
        (xml(503, "SlowDown"), TemporaryFailure, why.THROTTLED, 3),
        (xml(400, "RequestTimeout"), TemporaryFailure, why.TIMED_OUT, 3),
        (xml(400, "ThrottledException"), TemporaryFailure, why.THROTTLED, 3),
        (xml(429, "Whatever"), TemporaryFailure, why.THROTTLED, 3),
        (answer(502, "<html>a proxy's page"), TemporaryFailure, why.SERVICE_DOWN, 3),
        (Act.CLOSE_AT_ONCE, TemporaryFailure, why.UNREACHABLE, 3),
        (Act.RESET, TemporaryFailure, why.UNREACHABLE, 3),
        (xml(403, "AccessDenied"), PermanentFailure, why.ACCESS_DENIED, 1),
        (xml(403, "SignatureDoesNotMatch"), PermanentFailure, why.CREDENTIALS, 1),
        (xml(400, "ExpiredToken"), TemporaryFailure, why.CREDENTIALS, 1),
        (xml(400, "EntityTooLarge"), PermanentFailure, why.TOO_LARGE, 1),
        (xml(404, "NoSuchBucket"), PermanentFailure, why.BUCKET_MISSING, 1),
        (answer(403), PermanentFailure, why.ACCESS_DENIED, 1),
        (answer(418, "teapot"), PermanentFailure, why.BAD_REQUEST, 1),
        (xml(400, "KMS.DisabledException"), PermanentFailure, why.KEY_UNUSABLE, 1),
    ],
)
def test_what_stays_is_the_failure_that_boto3_would_bring(
    act: Any, kind: type[Failure], reason: str, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, script, _ = with_way(*[act] * 4, monkeypatch=monkeypatch)
    assert isinstance(failed, kind)
    assert (reason, requests) == (failed.reason, len(script.asked))

    async def by_boto3() -> tuple[Failure, int]:
        async with scripted(*[act] * 4) as script:
            cloud = AwsCloud(region="us-east-1", endpoint_url=script.url)
            with pytest.raises(kind) as caught:
                await put(cloud, "second")
            cloud.close()
            return caught.value, len(script.asked)

    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))
    theirs, asked = asyncio.run(by_boto3())
    assert (type(failed), failed.reason, requests) == (type(theirs), theirs.reason, asked)


def test_a_conflict_with_another_write_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    conflict = xml(409, "ConditionalRequestConflict")
    stored, script, _ = with_way(conflict, conflict, monkeypatch=monkeypatch)
    assert (stored, len(script.asked)) == (True, 3)


def test_a_store_that_knows_no_conditions_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = xml(501, "NotImplemented")
    stored, script, _ = with_way(unknown, unknown, answer(404), OK, monkeypatch=monkeypatch)
    assert stored is True
    assert [one.line.split()[0] for one in script.asked] == ["PUT", "PUT", "HEAD", "PUT"]
    stored, _, _ = with_way(unknown, unknown, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", monkeypatch=monkeypatch)
    assert stored is False


def test_a_clock_that_is_wrong_is_set_after_the_service_s(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = datetime.fromtimestamp(time.time() + 7200, UTC)
    skewed = xml(403, "RequestTimeTooSkewed", Date=format_datetime(theirs, usegmt=True))
    stored, script, _ = with_way(skewed, monkeypatch=monkeypatch)
    assert stored is True
    dates = [datetime.strptime(one.fields["x-amz-date"], "%Y%m%dT%H%M%S%z") for one in script.asked]
    assert 7190 < (dates[1] - dates[0]).total_seconds() < 7210
    failed, script, _ = with_way(skewed.replace(b"Date", b"Dote"), monkeypatch=monkeypatch)
    assert isinstance(failed, PermanentFailure)
    assert (failed.reason, len(script.asked)) == (why.CREDENTIALS, 1)
    failed, script, _ = with_way(skewed, skewed, monkeypatch=monkeypatch)
    assert isinstance(failed, PermanentFailure)
    assert len(script.asked) == 2


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_is_boto3_s_to_follow_and_the_way_is_found_anew(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = xml(status, "TemporaryRedirect", Location="http://127.0.0.1:1/")
    stored, script, cloud = with_way(moved, monkeypatch=monkeypatch)
    assert stored is True
    first, second = script.asked
    assert ("expect" in first.fields, "expect" in second.fields) == (False, True)
    assert cloud._ways


def test_a_service_that_is_silent_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.1)
    failed, _, _ = with_way(Act.SILENT, Act.SILENT, tries=2, monkeypatch=monkeypatch)
    assert isinstance(failed, TemporaryFailure)
    assert failed.reason == why.TIMED_OUT


def test_a_certificate_of_somebody_else_s_is_not_believed_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with certified(monkeypatch, tmp_path) as server, quick_aws(tls=server) as (url, service):

        async def work(cloud: AwsCloud) -> None:
            await put(cloud, "first")
            (way,) = cloud._ways.values()
            way.origin = replace(way.origin, host="localhost")
            with pytest.raises(TemporaryFailure) as caught:
                await put(cloud, "second")
            assert (caught.value.reason, cloud.counters.retries) == (why.UNREACHABLE, 0)

        story(url, work)
        assert list(service.objects) == ["/bucket/first"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("{}", 200),
        ("[]", 200),
        ('{"Plaintext": "AAAA", "CiphertextBlob": "AAAA", "KeyId": "k"}', 200),
        ('{"Plaintext": "!", "CiphertextBlob": "AAAA", "KeyId": "k"}', 200),
        ("<html>", 200),
    ],
)
def test_an_answer_of_kms_without_a_key_is_none(content: str, status: int) -> None:
    async def run() -> None:
        async with (
            scripted(MADE, answer(status, content)) as script,
            AwsCloud(region="us-east-1", endpoint_url=script.url) as cloud,
        ):
            await cloud.generate_data_key("alias/x", {})
            with pytest.raises(TemporaryFailure):
                await cloud.generate_data_key("alias/x", {})

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "code", "kind", "reason"),
    [
        (400, "AccessDeniedException", PermanentFailure, why.ACCESS_DENIED),
        (400, "NotFoundException", PermanentFailure, why.KEY_MISSING),
        (400, "ThrottlingException", TemporaryFailure, why.THROTTLED),
        (500, "KMSInternalException", TemporaryFailure, why.SERVICE_DOWN),
    ],
)
def test_what_kms_refuses_is_the_failure_that_boto3_would_bring(
    status: int, code: str, kind: type[Failure], reason: str
) -> None:
    refused = answer(status, json.dumps({"__type": code, "Message": "m"}))

    async def run() -> Failure:
        async with (
            scripted(MADE, *[refused] * 3) as script,
            AwsCloud(region="us-east-1", endpoint_url=script.url) as cloud,
        ):
            await cloud.generate_data_key("alias/x", {})
            with pytest.raises(kind) as caught:
                await cloud.generate_data_key("alias/x", {})
            return caught.value

    assert asyncio.run(run()).reason == reason


# --- Whose credentials, and when boto3 stays

ROLE = "arn:aws:iam::123456789012:role/writer"


def test_a_role_is_assumed_once_and_again_before_it_ends() -> None:
    with quick_aws() as (url, service):
        service.role_seconds = [890.0, 3600.0]  # botocore looks for new ones 15 minutes before the end

        async def work(cloud: AwsCloud) -> None:
            for number in range(6):
                await put(cloud, f"k{number}", role_arn=ROLE)
            await cloud.generate_data_key("alias/x", {}, role_arn=ROLE)
            await cloud.generate_data_key("alias/x", {}, role_arn=ROLE)
            await put(cloud, "own")

        story(url, work)
        assert service.counts == {"s3": 7, "kms": 2, "sts": 2}
        tokens = [one.fields.get("x-amz-security-token") for one in service.asked if one.method == "PUT"]
        assert tokens == ["token1"] + ["token2"] * 5 + [None]


def test_a_role_that_cannot_be_assumed_is_a_failure_and_nothing_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    with quick_aws() as (url, service):
        service.secrets.clear()

        async def work(cloud: AwsCloud) -> None:
            with pytest.raises(PermanentFailure) as caught:
                await put(cloud, role_arn=ROLE)
            assert caught.value.reason == why.CREDENTIALS

        story(url, work)
        assert service.objects == {}
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")

    async def nobody(cloud: AwsCloud) -> None:
        with pytest.raises(TemporaryFailure) as caught:
            await put(cloud, role_arn=ROLE)
        assert caught.value.reason == why.CREDENTIALS

    story("http://127.0.0.1:1", nobody)


@contextmanager
def shown(**changed: str) -> Iterator[Any]:
    """A client of boto3 that has shown a request; `changed` are its fields, and its `url`."""
    tries = Config(retries={"mode": "standard", "total_max_attempts": 3})
    s3: Any = boto3.client("s3", region_name="us-east-1", config=tries)
    url = changed.pop("url", "https://bucket.s3.us-east-1.amazonaws.com/in/k")
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/s3/aws4_request, SignedHeaders=host",
        "X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-sdk-checksum-algorithm": "CRC32",
    }
    seen = direct.Seen()
    seen._note(AWSRequest(method="PUT", url=url, headers=headers | changed).prepare())
    yield lambda: seen.way(s3, "PutObject", "in/k", no_credentials)


async def no_credentials() -> Any:
    raise AssertionError


def test_the_way_is_read_off_the_request_that_boto3_has_sent() -> None:
    with shown() as way:
        found = way()
    assert (found.origin, found.path) == (
        Origin(tls=True, host="bucket.s3.us-east-1.amazonaws.com", port=443),
        "/",
    )
    assert (found.fields["host"], found.hashed, found.checksum) == ("bucket.s3.us-east-1.amazonaws.com", False, True)
    assert (found.signer._service, found.signer._region) == ("s3", "us-east-1")
    with shown() as way:
        way()
        assert way() is None


@pytest.mark.parametrize(
    "changed",
    [
        {"Authorization": "AWS4-ECDSA-P256-SHA256 Credential=A/20260101/s3/aws4_request, SignedHeaders=host"},
        {"x-amz-s3session-token": "t"},
        {"Authorization": "AWS A:signature"},
        {"Authorization": ""},
        {"url": "https://bucket.s3.amazonaws.com/in/k?x-id=PutObject"},
        {"url": "https://bucket.s3.amazonaws.com/in/another"},
    ],
)
def test_where_more_is_asked_than_is_known_here_boto3_goes_on(changed: dict[str, str]) -> None:
    with shown(**changed) as way:
        assert way() is None


def test_where_there_is_a_proxy_boto3_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    with shown() as way:
        assert way() is None
    monkeypatch.setenv("NO_PROXY", ".amazonaws.com")
    with shown() as way:
        assert way() is not None


def test_without_an_async_context_everything_is_boto3_s(aws: str) -> None:
    name = bucket(aws)
    cloud = AwsCloud(region="us-east-1", endpoint_url=aws)
    for number in range(3):
        assert asyncio.run(cloud.put(name, f"k{number}", b"x", metadata={})) is True
    assert (cloud.counters.calls_of_boto3, cloud.counters.direct_calls) == (3, 0)
    cloud.close()


def test_the_service_of_these_tests_believes_boto3_and_nobody_who_signs_wrong() -> None:
    with quick_aws() as (url, service):
        s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        s3.put_object(Bucket="b", Key="k ü", Body=b"x", Metadata={"a": "b"})
        assert s3.get_object(Bucket="b", Key="k ü")["Body"].read() == b"x"
        wrong = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_secret_access_key="wrong", aws_access_key_id="test"
        )
        with pytest.raises(wrong.exceptions.ClientError, match="SignatureDoesNotMatch"):
            wrong.put_object(Bucket="b", Key="k", Body=b"x")
        assert list(service.objects) == ["/b/k%20%C3%BC"]


def test_moto_s_own_clients_see_what_was_stored_on_terms(aws: str) -> None:
    name = bucket(aws)
    terms = Terms(storage_class="STANDARD_IA", tags={"a b": "c/d=+"}, content_type="message/rfc822")

    async def work(cloud: AwsCloud) -> None:
        for key in ("by-boto3", "without"):
            await cloud.put(name, key, b"x", metadata=META, terms=terms)
        assert cloud.counters.direct_calls == 1

    story(aws, work)
    s3 = client("s3", aws)
    for key in ("by-boto3", "without"):
        found = s3.head_object(Bucket=name, Key=key)
        assert (found["ContentType"], found["StorageClass"], found["Metadata"]) == (
            "message/rfc822",
            "STANDARD_IA",
            META,
        )
        assert s3.get_object_tagging(Bucket=name, Key=key)["TagSet"] == [{"Key": "a b", "Value": "c/d=+"}]
