"""Requests are signed as AWS documents it, and as botocore signs them."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from inbound.clients.aws_direct import encoded_key
from inbound.clients.sigv4 import Credentials, Signer, payload_hash

NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
EXAMPLE = Credentials(access_key="AKIDEXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


def test_aws_s_own_example_has_its_signature() -> None:
    """`get-vanilla` of AWS's signature version 4 test suite."""
    signed = Signer("service", "us-east-1").signed(
        "GET", "/", {"host": "example.amazonaws.com"}, payload_hash(b""), EXAMPLE, now=NOW
    )
    assert signed == {
        "host": "example.amazonaws.com",
        "x-amz-date": "20150830T123600Z",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    }


PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
VALUE = st.lists(st.text(PRINTABLE, min_size=1, max_size=9), max_size=4).map("  ".join)
NAME = st.text("abcdefgh0123456789-", min_size=1, max_size=12).map("x-amz-meta-".__add__)
KEY = st.text(max_size=30) | st.text("ab ./%+~ü", max_size=30)
WORD = st.text(PRINTABLE, min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAME, VALUE, max_size=6), KEY, st.binary(max_size=50), st.tuples(WORD, WORD, st.none() | WORD))
def test_every_put_is_signed_as_botocore_signs_it(
    fields: dict[str, str], key: str, body: bytes, who: tuple[str, str, str | None]
) -> None:
    host, path = "bucket.s3.eu-west-1.amazonaws.com", f"/{encoded_key(key)}"
    theirs: Any = AWSRequest(method="PUT", url=f"http://{host}{path}", data=body, headers=fields)
    S3SigV4Auth(BotocoreCredentials(*who), "s3", "eu-west-1").add_auth(theirs)

    given = {**fields, "user-agent": "x", "host": host, "x-amz-content-sha256": payload_hash(body)}
    ours = Signer("s3", "eu-west-1").signed(
        "PUT", path, given, payload_hash(body), credentials(*who), now=when(theirs.headers["X-Amz-Date"])
    )
    assert theirs.headers["Authorization"] == ours["authorization"]
    assert theirs.headers.get("X-Amz-Security-Token") == ours.get("x-amz-security-token")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=50), st.tuples(WORD, WORD, st.none() | WORD))
def test_a_call_of_another_service_is_signed_as_botocore_signs_it(
    body: bytes, who: tuple[str, str, str | None]
) -> None:
    host = "kms.eu-west-1.amazonaws.com"
    fields = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "TrentService.GenerateDataKey"}
    theirs: Any = AWSRequest(method="POST", url=f"https://{host}/", data=body, headers=fields)
    SigV4Auth(BotocoreCredentials(*who), "kms", "eu-west-1").add_auth(theirs)

    ours = Signer("kms", "eu-west-1").signed(
        "POST",
        "/",
        {**fields, "host": host},
        payload_hash(body),
        credentials(*who),
        now=when(theirs.headers["X-Amz-Date"]),
    )
    assert theirs.headers["Authorization"] == ours["authorization"]


def credentials(access_key: str, secret_key: str, token: str | None) -> Credentials:
    return Credentials(access_key=access_key, secret_key=secret_key, token=token)


def when(stamp: str) -> float:
    return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def test_a_new_day_and_new_credentials_have_a_new_key() -> None:
    signer = Signer("s3", "us-east-1")
    other = Credentials(access_key="AKIDEXAMPLE", secret_key="another")

    def signature(credentials: Credentials, now: float) -> str:
        return signer.signed("PUT", "/", {"host": "h"}, "UNSIGNED-PAYLOAD", credentials, now=now)["authorization"]

    first = signature(EXAMPLE, NOW)
    seen = {first, signature(EXAMPLE, NOW + 86_400), signature(other, NOW)}
    assert len(seen) == 3
    assert first == signature(EXAMPLE, NOW)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-meta-a", "a\0b"),
        ("x-amz-meta-a", "a\r\nb: c"),
        ("x-amz-meta-a", "ü"),
        ("x a", "b"),
        ("X-Amz", "b"),
        ("a\n", "b"),
    ],
)
def test_what_cannot_stand_in_a_header_field_is_not_signed(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        Signer("s3", "us-east-1").signed("PUT", "/", {"host": "h", name: value}, "", EXAMPLE, now=NOW)


def test_a_value_is_sent_as_it_is_given() -> None:
    signed = Signer("s3", "us-east-1").signed("PUT", "/", {"host": "h", "x-a": '{"a":"b  c"}'}, "", EXAMPLE, now=NOW)
    assert signed["x-a"] == '{"a":"b  c"}'


def test_the_hash_of_a_payload_is_sha_256() -> None:
    assert payload_hash(b"x") == hashlib.sha256(b"x").hexdigest()
