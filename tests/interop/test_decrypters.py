"""What we seal opens in AWS's own clients, and what they seal opens here."""

import asyncio
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

import inbound
from inbound.actions.keep import CacheDataKeys, Form
from inbound.actions.s3 import S3, open_object
from inbound.clients.aws import AwsCloud
from inbound.errors import NotSealedForUs, Undecryptable
from inbound.settings import Settings
from tests.actions.letters import CONTENT, ID, letter
from tests.aws import bucket, client, kms_key
from tests.interop.environments import READERS, python_with

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(300)  # the environment is made at the first run

CONTEXT = {"aws:ses:message-id": ID, "aws:ses:rule-name": "support", "aws:ses:source-account": "123456789012"}
FORMS: tuple[Form, ...] = ("ses", "s3ec")
BIG = b"Subject: big\r\n\r\n" + os.urandom(3_000_000)


def store(url: str, name: str, key: str, form: Literal["ses", "s3ec"], content: bytes = CONTENT) -> None:
    cloud = AwsCloud(region="us-east-1", endpoint_url=url)
    action = S3(bucket=name, prefix="in", kms_key=key, format=form)
    asyncio.run(action.perform(letter(content), cloud))
    cloud.close()


def python(*args: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    interpreter = python_with(*READERS)
    command = [str(interpreter), str(HERE / "s3ec.py"), *args]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **more)


def ruby(*args: str) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ruby")
    assert program, "the Debian package ruby-aws-sdk-s3 is needed"
    return subprocess.run([program, str(HERE / "s3ec.rb"), *args], capture_output=True, timeout=60, check=False)


def tamper(url: str, name: str, key: str) -> None:
    s3 = client("s3", url)
    stored = s3.get_object(Bucket=name, Key=key)
    body = stored["Body"].read()
    s3.put_object(Bucket=name, Key=key, Body=bytes([body[0] ^ 1]) + body[1:], Metadata=stored["Metadata"])


@pytest.mark.parametrize("content", [CONTENT, BIG], ids=["small", "big"])
def test_aws_s_python_client_opens_what_we_seal_as_ses_does(aws: str, content: bytes) -> None:
    name, key = bucket(aws), kms_key(aws)
    store(aws, name, key, "ses", content)
    done = python("get", "ses", aws, name, f"in/{ID}", key)
    assert content == done.stdout, done.stderr.decode()[-2000:]
    tamper(aws, name, f"in/{ID}")
    assert python("get", "ses", aws, name, f"in/{ID}", key).returncode != 0


def test_aws_s_python_client_opens_the_committing_form_with_its_defaults_and_the_context(aws: str) -> None:
    name, key = bucket(aws), kms_key(aws)
    store(aws, name, key, "s3ec")
    done = python("get", "v3", aws, name, f"in/{ID}", key, json.dumps(CONTEXT))
    assert done.stdout == CONTENT, done.stderr.decode()[-2000:]
    other = {**CONTEXT, "aws:ses:rule-name": "another"}
    assert python("get", "v3", aws, name, f"in/{ID}", key, json.dumps(other)).returncode != 0


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_aws_s_ruby_clients_open_what_we_seal_as_ses_does(aws: str, form: str) -> None:
    name, key = bucket(aws), kms_key(aws)
    store(aws, name, key, "ses")
    done = ruby(form, aws, name, f"in/{ID}", key)
    assert done.stdout == CONTENT, done.stderr.decode()[-2000:]
    tamper(aws, name, f"in/{ID}")
    assert ruby(form, aws, name, f"in/{ID}", key).returncode != 0


def test_messages_that_share_a_data_key_open_in_aws_s_own_clients(aws: str) -> None:
    name, key = bucket(aws), kms_key(aws)
    contents = {f"m{number}": b"Subject: %d\r\n\r\n" % number * 40_000 for number in range(3)}

    async def keep() -> int:
        async with AwsCloud(region="us-east-1", endpoint_url=aws) as cloud:
            for form in FORMS:
                action = S3(bucket=name, prefix=form, kms_key=key, format=form, cache_data_keys=CacheDataKeys())
                for message_id, content in contents.items():
                    given = letter(content)
                    await action.perform(replace(given, mail=replace(given.mail, message_id=message_id)), cloud)
            return cloud.counters.data_keys_made

    assert asyncio.run(keep()) == 2
    shared = {name: value for name, value in CONTEXT.items() if name != "aws:ses:message-id"}
    for message_id, content in contents.items():
        done = python("get", "ses", aws, name, f"ses/{message_id}", key)
        assert content == done.stdout, done.stderr.decode()[-2000:]
        done = python("get", "v3", aws, name, f"s3ec/{message_id}", key, json.dumps(shared))
        assert content == done.stdout, done.stderr.decode()[-2000:]
    done = ruby("v2", aws, name, "ses/m1", key)
    assert contents["m1"] == done.stdout, done.stderr.decode()[-2000:]


def test_aws_s_python_client_opens_what_was_sealed_and_uploaded_in_parts(aws: str) -> None:
    name, key = bucket(aws), kms_key(aws)
    content = os.urandom(17_000_000)
    for form in FORMS:
        store(aws, name, key, form, content)
        context = [json.dumps(CONTEXT)] if form == "s3ec" else []
        done = python("get", {"ses": "ses", "s3ec": "v3"}[form], aws, name, f"in/{ID}", key, *context)
        assert content == done.stdout, done.stderr.decode()[-2000:]
        client("s3", aws).delete_object(Bucket=name, Key=f"in/{ID}")


@pytest.mark.parametrize("form", ["v2", "v3"])
def test_we_open_what_aws_s_python_client_seals(aws: str, form: str) -> None:
    name, key = bucket(aws), kms_key(aws)
    done = python("put", form, aws, name, "k", key, json.dumps(CONTEXT), input=CONTENT)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    cloud = AwsCloud(region="us-east-1", endpoint_url=aws)
    assert asyncio.run(open_object(cloud, name, "k")) == CONTENT
    cloud.close()


def test_we_open_what_aws_s_first_ruby_client_seals_where_it_is_asked_for(aws: str, tmp_path: Path) -> None:
    name, key = bucket(aws), kms_key(aws)
    (tmp_path / "mail").write_bytes(CONTENT)
    done = ruby("v1", aws, name, "old", key, str(tmp_path / "mail"))
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    stored = client("s3", aws).head_object(Bucket=name, Key="old")["Metadata"]
    assert (stored["x-amz-cek-alg"], stored["x-amz-wrap-alg"]) == ("AES/CBC/PKCS5Padding", "kms")
    settings, place = Settings(cloud="aws", endpoint_url=aws), f"s3://{name}/old"
    with pytest.raises(NotSealedForUs, match="AES/CBC"):
        inbound.consume(place, settings=settings)
    message = inbound.consume(place, settings=settings, unauthenticated=True)
    assert message is not None
    assert (message.raw, message.provenance.sealed, message.provenance.trusted) == (CONTENT, "cbc", False)
    body = client("s3", aws).get_object(Bucket=name, Key="old")["Body"].read()
    client("s3", aws).put_object(Bucket=name, Key="old", Body=body[:-7], Metadata=stored)
    with pytest.raises(Undecryptable):
        inbound.consume(place, settings=settings, unauthenticated=True)
