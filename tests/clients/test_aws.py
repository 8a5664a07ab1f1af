"""The real cloud's client, over HTTP: against moto's server, and against answers that moto never gives."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions as botocore
import pytest

from inbound.clients import Listed, StoredObject
from inbound.clients import aws as module
from inbound.clients import reasons as why
from inbound.clients.aws import AwsCloud
from inbound.clients.aws_errors import failure
from inbound.clients.invoke import Endpoint, Runner
from inbound.errors import Failure, PermanentFailure, TemporaryFailure
from tests.aws import answering, bucket, client, kms_key, received, topic_with_queue

CONTEXT = {"aws:ses:message-id": "m", "aws:ses:rule-name": "r"}


@cache
def shared() -> AwsCloud:
    """One for all tests: what boto3 reads for a new one takes a second."""
    return AwsCloud(region="us-east-1")


@pytest.fixture
def cloud(aws: str) -> AwsCloud:
    return at(aws)


def at(url: str) -> AwsCloud:
    """The shared one, pointed at an endpoint."""
    cloud = shared()
    clients = cloud._clients
    clients._endpoint_url = url
    session = clients._sessions[None]
    session._session.set_credentials("test", "test")
    clients._manners = replace(clients._manners, tries=module.TRIES, read_seconds=module.READ_SECONDS)
    clients._clients.clear()
    clients._sessions = {None: session}
    return cloud


def run(awaitable: Awaitable[Any]) -> Any:
    async def story() -> Any:
        return await awaitable

    return asyncio.run(story())


def test_the_first_write_wins_and_a_second_says_so(aws: str, cloud: AwsCloud) -> None:
    name = bucket(aws)
    assert run(cloud.put(name, "in/k", b"first", metadata={"colour": "blue"})) is True
    assert run(cloud.put(name, "in/k", b"second", metadata={"colour": "red"})) is False
    assert run(cloud.get(name, "in/k")) == StoredObject(body=b"first", metadata={"colour": "blue"})


def test_a_listing_goes_on_over_its_pages_and_what_is_deleted_is_not_in_it(
    aws: str, cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    name = bucket(aws)
    keys = sorted(f"in/{number}" for number in range(10))
    for key in (*keys, "out/1"):
        client("s3", aws).put_object(Bucket=name, Key=key, Body=b"12345")

    async def story() -> list[Listed]:
        for _ in range(2):
            await cloud.delete_object(name, "in/7")
        return [one async for one in cloud.list_objects(name, "in/")]

    found = run(story())
    assert [key for key in keys if key != "in/7"] == [one.key for one in found]
    assert {5} == {one.size for one in found}
    assert abs(found[0].modified - time.time()) < 3600


def test_a_bucket_that_is_not_there_is_neither_listed_nor_deleted_from(cloud: AwsCloud) -> None:
    async def listed() -> list[Listed]:
        return [one async for one in cloud.list_objects("mail-nowhere", "")]

    for work in (listed(), cloud.delete_object("mail-nowhere", "key")):
        with pytest.raises(PermanentFailure) as caught:
            run(work)
        assert caught.value.reason == why.BUCKET_MISSING


def test_a_data_key_opens_with_its_context_only(aws: str, cloud: AwsCloud) -> None:
    key = kms_key(aws)
    client("kms", aws).create_alias(AliasName="alias/open", TargetKeyId=key)
    for name in (key, "alias/open"):
        made = run(cloud.generate_data_key(name, CONTEXT))
        assert (32, key) == (len(made.plaintext), made.key_arn)
        assert made.plaintext == run(cloud.decrypt_data_key(made.wrapped, CONTEXT))
        with pytest.raises(PermanentFailure) as caught:
            run(cloud.decrypt_data_key(made.wrapped, {**CONTEXT, "aws:ses:rule-name": "another"}))
        assert caught.value.reason == why.CONTEXT_MISMATCH


def test_a_notification_goes_to_the_subscribers(aws: str, cloud: AwsCloud) -> None:
    topic, queue = topic_with_queue(aws)
    run(cloud.publish(topic, "Subject", '{"a":"ü"}'))
    assert [(topic, "Subject", '{"a":"ü"}')] == [
        (it["TopicArn"], it["Subject"], it["Message"]) for it in received(aws, queue)
    ]


def test_a_role_is_assumed_once_and_used_for_bucket_key_and_topic(aws: str, cloud: AwsCloud) -> None:
    name, key, (topic, queue) = bucket(aws), kms_key(aws), topic_with_queue(aws)
    role = "arn:aws:iam::123456789012:role/writer"
    run(cloud.put(name, "k", b"x", metadata={}, role_arn=role))
    run(cloud.put(name, "l", b"x", metadata={}, role_arn=role))
    run(cloud.generate_data_key(key, CONTEXT, role_arn=role))
    run(cloud.publish(topic, "S", "M", role_arn=role))
    assert len(received(aws, queue)) == 1
    used = {wanted.service: made for wanted, made in cloud._clients._clients.items() if wanted.role_arn == role}
    assert sorted(used) == ["kms", "s3", "sns"]
    sessions = {made._request_signer._credentials.token for made in used.values()}
    assert len(sessions) == 1
    assert None not in sessions


def test_what_is_named_by_arn_is_called_in_its_own_region(aws: str, cloud: AwsCloud) -> None:
    sns = boto3.client("sns", endpoint_url=aws, region_name="eu-west-1")
    topic = sns.create_topic(Name="elsewhere")["TopicArn"]
    run(cloud.publish(topic, "S", "M"))
    assert [wanted.region for wanted in cloud._clients._clients] == ["eu-west-1"]


MISSING: list[tuple[str, Callable[[AwsCloud], Awaitable[object]]]] = [
    (why.BUCKET_MISSING, lambda it: it.put("no-such-bucket", "k", b"x", metadata={})),
    (why.BUCKET_MISSING, lambda it: it.get("no-such-bucket", "k")),
    (why.KEY_MISSING, lambda it: it.generate_data_key("alias/none", {})),
    (why.KEY_MISSING, lambda it: it.generate_data_key("12345678-1234-1234-1234-123456789012", {})),
    (why.TOPIC_MISSING, lambda it: it.publish("arn:aws:sns:us-east-1:123456789012:none", "S", "M")),
    (why.FUNCTION_MISSING, lambda it: it.invoke("none", b"{}", wait=True)),
    (why.BAD_REQUEST, lambda it: it.put("no bucket", "k", b"x", metadata={})),
    (why.BAD_REQUEST, lambda it: it.put("bucket", "k", b"x", metadata={"ü": "ü"})),
]


@pytest.mark.parametrize(("reason", "call"), MISSING)
def test_what_is_not_there_is_said_to_be_missing(
    cloud: AwsCloud, reason: str, call: Callable[[AwsCloud], Awaitable[object]]
) -> None:
    with pytest.raises(PermanentFailure) as caught:
        run(call(cloud))
    assert reason == caught.value.reason


def test_an_object_that_is_not_there_is_said_to_be_missing(aws: str, cloud: AwsCloud) -> None:
    name = bucket(aws)
    with pytest.raises(PermanentFailure) as caught:
        run(cloud.get(name, "k"))
    assert caught.value.reason == why.OBJECT_MISSING


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("status", "code", "kind", "reason"),
    [
        (400, "AccessDeniedException", PermanentFailure, why.ACCESS_DENIED),
        (400, "DisabledException", PermanentFailure, why.KEY_UNUSABLE),
        (400, "KMSInvalidStateException", PermanentFailure, why.KEY_UNUSABLE),
        (500, "KeyUnavailableException", TemporaryFailure, why.SERVICE_DOWN),
        (400, "ThrottlingException", TemporaryFailure, why.THROTTLED),
    ],
)
def test_when_kms_refuses_there_is_no_data_key_and_it_is_said_why(
    status: int, code: str, kind: type[Failure], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIES", 1)
    with answering((status, json.dumps({"__type": code}))) as (url, _), pytest.raises(kind) as caught:
        run(at(url).generate_data_key("alias/support", CONTEXT))
    assert reason == caught.value.reason


def put_to(url: str) -> bool:
    stored: bool = run(at(url).put("bucket", "k", b"x", metadata={}))
    return stored


def xml(code: str) -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>"


CONFLICT, UNKNOWN = (409, xml("ConditionalRequestConflict")), (501, xml("NotImplemented"))


@pytest.mark.usefixtures("aws")
def test_a_conflict_with_another_write_is_tried_again() -> None:
    with answering(CONFLICT, CONFLICT, (200, "")) as (url, seen):
        assert put_to(url) is True
    assert seen == ["PUT *"] * 3


@pytest.mark.usefixtures("aws")
def test_a_conflict_that_stays_is_a_temporary_failure() -> None:
    with answering(CONFLICT, CONFLICT, CONFLICT) as (url, _), pytest.raises(TemporaryFailure) as caught:
        put_to(url)
    assert caught.value.reason == why.CONFLICT


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("answers", "stored", "requests"),
    [
        ([UNKNOWN, (404, ""), (200, "")], True, ["PUT *", "HEAD", "PUT"]),
        ([UNKNOWN, (200, "")], False, ["PUT *", "HEAD"]),
    ],
)
def test_a_store_without_conditional_writes_is_asked_first(
    answers: list[tuple[int, str]], stored: bool, requests: list[str]
) -> None:
    with answering(*answers) as (url, seen):
        assert stored == put_to(url)
    assert requests == seen


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("status", "code", "kind", "reason"),
    [
        (503, "SlowDown", TemporaryFailure, why.THROTTLED),
        (500, "InternalError", TemporaryFailure, why.SERVICE_DOWN),
        (403, "AccessDenied", PermanentFailure, why.ACCESS_DENIED),
        (403, "SignatureDoesNotMatch", PermanentFailure, why.CREDENTIALS),
        (400, "ExpiredToken", TemporaryFailure, why.CREDENTIALS),
        (400, "EntityTooLarge", PermanentFailure, why.TOO_LARGE),
        (418, "Teapot", PermanentFailure, why.BAD_REQUEST),
    ],
)
def test_what_a_store_answers_is_a_failure_with_its_reason(
    status: int, code: str, kind: type[Failure], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIES", 1)
    with answering((status, xml(code))) as (url, _), pytest.raises(kind) as caught:
        put_to(url)
    assert reason == caught.value.reason


@pytest.mark.usefixtures("aws")
def test_an_endpoint_that_is_down_is_a_temporary_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIES", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(TemporaryFailure) as caught:
            put_to(f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert caught.value.reason == why.UNREACHABLE


@pytest.mark.usefixtures("aws")
def test_an_endpoint_that_never_answers_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.2)
    monkeypatch.setattr(module, "TRIES", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(TemporaryFailure) as caught:
            put_to(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert caught.value.reason == why.TIMED_OUT


def test_without_credentials_nothing_is_done_and_a_later_try_may_differ(
    aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    cloud = AwsCloud(region="us-east-1", endpoint_url=aws)
    with pytest.raises(TemporaryFailure) as caught:
        run(cloud.put("bucket", "k", b"x", metadata={}))
    cloud.close()
    assert caught.value.reason == why.CREDENTIALS


def test_calls_run_side_by_side_and_off_the_loop(aws: str, cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    name = bucket(aws)

    put, threads = cloud._put_object, set()

    def noting(*args: Any) -> None:
        threads.add(threading.current_thread().name.rpartition("_")[0])
        put(*args)

    monkeypatch.setattr(cloud, "_put_object", noting)

    async def story() -> list[bool]:
        return await asyncio.gather(*[cloud.put(name, f"k{n}", b"x", metadata={}) for n in range(20)])

    assert asyncio.run(story()) == [True] * 20
    assert threads == {"inbound-aws"}


# --- Lambda, through our own Invoke endpoint: moto runs no code


@pytest.mark.usefixtures("aws")
def test_functions_really_run_behind_the_invoke_endpoint(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(
        "def handler(event, context):\n    if 'fail' in event: raise ValueError('no')\n"
        "    return {'got': event, 'name': context.function_name}\n"
    )
    functions = {
        "f": (f"{tmp_path}/f.py:handler",),
        "slow": ("sleep", "60"),
        "note": ("cp", "/dev/stdin", f"{tmp_path}/n"),
    }

    async def story() -> None:
        hasty = Runner(functions, account="123456789012", region="us-east-1", patience=0.5)
        fast = Runner(functions, account="123456789012", region="us-east-1")
        async with Endpoint(fast) as endpoint, Endpoint(hasty) as impatient:
            cloud = at(endpoint.url)
            arn = "arn:aws:lambda:us-east-1:123456789012:function:f"
            for function in ("f", arn, "f:$LATEST"):
                answer = json.loads(await cloud.invoke(function, b'{"a": "\xc3\xbc"}', wait=True))
                assert answer == {"got": {"a": "ü"}, "name": "f"}
            with pytest.raises(TemporaryFailure) as caught:
                await cloud.invoke("f", b'{"fail": 1}', wait=True)
            assert (caught.value.reason, "ValueError" in caught.value.detail) == (why.FUNCTION_ERROR, True)
            with pytest.raises(PermanentFailure) as missing:
                await cloud.invoke("nobody", b"{}", wait=False)
            assert missing.value.reason == why.FUNCTION_MISSING
            assert await cloud.invoke("note", b'{"queued": 1}', wait=False) == b""
            with pytest.raises(TemporaryFailure) as late:
                await at(impatient.url).invoke("slow", b"{}", wait=True)
            assert late.value.reason == why.FUNCTION_TIMEOUT

    asyncio.run(story())
    assert (tmp_path / "n").read_text() == '{"queued": 1}'


# --- The table of errors


def operations() -> Iterator[tuple[str, int]]:
    """Every error that the services say of themselves for the calls that are made here."""
    calls = {
        "s3": ["PutObject", "GetObject", "HeadObject"],
        "kms": ["GenerateDataKey", "Decrypt"],
        "sns": ["Publish"],
        "lambda": ["Invoke"],
        "sts": ["AssumeRole"],
        "sqs": ["SendMessage"],
    }
    for service, names in calls.items():
        model = boto3.client(service, region_name="us-east-1").meta.service_model  # type: ignore[call-overload]
        for name in names:
            for shape in model.operation_model(name).error_shapes:
                error = shape.metadata.get("error", {})
                yield error.get("code", shape.name), error.get("httpStatusCode", 400)


def test_every_error_in_the_service_models_is_temporary_only_where_a_later_try_can_differ() -> None:
    def means(code: str, status: int) -> Failure:
        answer: Any = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return failure(botocore.ClientError(answer, "Call"))

    temporary = {code for code, status in operations() if isinstance(means(code, status), TemporaryFailure)}
    assert sorted(temporary) == [
        "CodeArtifactUserPendingException",
        "DependencyTimeoutException",
        "EC2ThrottledException",
        "EC2UnexpectedException",
        "EFSIOException",
        "EFSMountConnectivityException",
        "EFSMountTimeoutException",
        "ENILimitReachedException",
        "ENINotReadyException",
        "ExpiredTokenException",
        "InternalError",
        "KMSInternalException",
        "KMSThrottling",
        "KeyUnavailableException",
        "KmsThrottled",
        "RequestThrottled",
        "ResourceConflictException",
        "ResourceNotReadyException",
        "S3FilesMountConnectivityException",
        "S3FilesMountTimeoutException",
        "ServiceException",
        "ServiceQuotaExceededException",
        "SnapStartNotReadyException",
        "SnapStartRegenerationFailureException",
        "SnapStartTimeoutException",
        "SubnetIPAddressLimitReachedException",
        "TooManyRequestsException",
    ]


def every(kind: type[botocore.BotoCoreError]) -> Iterator[type[botocore.BotoCoreError]]:
    for below in kind.__subclasses__():
        yield below
        yield from every(below)


TIMEOUTS = ["ConnectTimeoutError", "ReadTimeoutError"]
CONNECTIONS = [
    "ChecksumError",
    "ConnectionClosedError",
    "ConnectionError",
    "EndpointConnectionError",
    "FlexibleChecksumError",
    "HTTPClientError",
    "IncompleteReadError",
    "ProxyConnectionError",
    "ResponseStreamingError",
    "SSLError",
]
OUR_MISTAKES = """
AliasConflictParameterError BaseEndpointResolverError ConfigNotFound ConfigParseError DataNotFoundError
EndpointProviderError EndpointResolutionError EndpointVariantError InfiniteLoopConfigError InvalidConfigError
InvalidDNSNameError InvalidEndpointConfigurationError InvalidHostLabelError InvalidMaxRetryAttemptsError
InvalidProxiesConfigError InvalidRegionError InvalidRetryConfigurationError InvalidRetryModeError
MissingDependencyException MissingParametersError NoRegionError ParamValidationError PartialCredentialsError
ProfileNotFound RangeError RefreshWithMFAUnsupportedError ServiceNotInRegionError UnknownCredentialError
UnknownEndpointError UnknownEndpointResolutionBuiltInName UnknownFIPSEndpointError UnknownKeyError
UnknownParameterError UnknownRegionError UnknownServiceError UnsupportedS3AccesspointConfigurationError
UnsupportedS3ArnError ValidationError
"""


def test_every_error_class_of_botocore_has_a_stable_reason_and_only_our_own_mistakes_are_permanent() -> None:
    meanings = {}
    for kind in every(botocore.BotoCoreError):
        if kind.__module__ != botocore.__name__:
            continue
        error = kind.__new__(kind)
        Exception.__init__(error, "message")
        meanings[kind.__qualname__] = failure(error)
    reasons = {value for name, value in vars(why).items() if name.isupper()}
    assert {it.reason for it in meanings.values()} <= reasons
    assert sorted(name for name, it in meanings.items() if it.reason == why.TIMED_OUT) == TIMEOUTS
    assert sorted(name for name, it in meanings.items() if it.reason == why.UNREACHABLE) == CONNECTIONS
    permanent = sorted(name for name, it in meanings.items() if isinstance(it, PermanentFailure))
    assert OUR_MISTAKES.split() == permanent
