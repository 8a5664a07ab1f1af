"""The keys of `s3`: what may be written, what comes of it in either place."""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inbound.actions.kinds import ACTIONS
from inbound.actions.s3 import S3, open_object
from inbound.clients.aws import AwsCloud
from inbound.clients.reasons import ACCESS_DENIED
from inbound.errors import ConfigurationError, PermanentFailure
from inbound.rulecheck import impossible, warnings
from inbound.ruleset import loaded
from inbound.settings import Settings
from tests.actions.letters import ACCOUNT, CONTENT, ID, letter, local
from tests.aws import bucket, client, kms_key
from tests.quick_aws import quick_aws

RULES = "rules:\n  - name: r\n    actions:\n      - s3: {{bucket: mail-in, {}}}\n"
ELSEWHERE = "999999999999"


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("expected_bucket_owner: 12", "r.yaml:4:54: '12' has not the form ^[0-9]{12}$"),
        (
            "server_side_encryption: aes",
            "r.yaml:4:55: expected 'AES256', 'aws:kms' or 'aws:kms:dsse', found 'aes', did you mean 'AES256'?",
        ),
        ("sse_kms_key: alias/x", "r.yaml:4:13: sse_kms_key is for server_side_encryption: aws:kms, or aws:kms:dsse"),
        (
            "sse_kms_key: alias/x, server_side_encryption: AES256",
            "r.yaml:4:13: sse_kms_key is for server_side_encryption: aws:kms, or aws:kms:dsse",
        ),
        (
            "bucket_key: yes, server_side_encryption: aws:kms:dsse",
            "r.yaml:4:13: bucket_key is for server_side_encryption: aws:kms",
        ),
        ("bucket_key: maybe", "r.yaml:4:43: expected yes or no, found 'maybe'"),
        ("storage_class: GLACIAR", "did you mean 'GLACIER'?"),
        ("content_type: mail", "r.yaml:4:45: 'mail' is no media type, such as message/rfc822"),
        ('content_type: "a/b\\r\\nx: y"', "is no media type"),
        ("tags: [a]", "r.yaml:4:37: expected a mapping of keys, found a list"),
        ("tags: {aws:a: b}", "r.yaml:4:37: the tag 'aws:a': a name has 1 to 128 characters, not aws: first"),
        ("tags: {a: 'b;c'}", "r.yaml:4:37: the tag 'a' has more than letters"),
        (
            f"tags: {{{', '.join(f't{number}: x' for number in range(11))}}}",
            "r.yaml:4:37: 11 tags; an object has at most 10",
        ),
        ("if_none_match: off-ish", "expected yes or no"),
        ("cache_data_keys: {messages: 1}", "cache_data_keys is for messages that are sealed; name the kms_key"),
        ("kms_key: alias/x, cache_data_keys: {messages: 0}", "r.yaml:4:77: input should be greater than 0"),
        ("kms_key: alias/x, cache_data_keys: {mesages: 3}", "unknown key 'mesages', did you mean 'messages'?"),
        ("kms_key: alias/x, cache_data_keys: yes", "r.yaml:4:66: expected a mapping of keys, found 'yes'"),
    ],
)
def test_a_mistake_is_told_with_its_place(keys: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(RULES.format(keys), ACTIONS, "r.yaml")
    assert problem in str(caught.value)


def keep(cloud: Any, content: bytes = CONTENT, message_id: str = ID, **keys: Any) -> Any:
    given = letter(content)
    if message_id != ID:
        given = replace(given, mail=replace(given.mail, message_id=message_id))
    return S3(bucket=keys.pop("bucket", "mail-in"), **keys).perform(given, cloud)


def test_the_terms_reach_s3(aws: str) -> None:
    name = bucket(aws)
    keys: dict[str, Any] = {
        "bucket": name,
        "expected_bucket_owner": "123456789012",
        "server_side_encryption": "aws:kms",
        "sse_kms_key": kms_key(aws),
        "bucket_key": True,
        "storage_class": "STANDARD_IA",
        "tags": {"team": "support desk", "b": ""},
        "content_type": "message/rfc822",
    }

    async def work() -> None:
        async with AwsCloud(region="us-east-1", endpoint_url=aws) as cloud:
            for ident in ("first", "second", "third"):
                await keep(cloud, message_id=ident, **keys)
            assert cloud.counters.direct_calls == 2

    asyncio.run(work())
    s3 = client("s3", aws)
    for key in ("first", "second", "third"):
        found = s3.head_object(Bucket=name, Key=key)
        assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", keys["sse_kms_key"])
        assert (found["StorageClass"], found["ContentType"]) == ("STANDARD_IA", "message/rfc822")
        tags = {one["Key"]: one["Value"] for one in s3.get_object_tagging(Bucket=name, Key=key)["TagSet"]}
        assert tags == keys["tags"]


def test_without_the_condition_a_second_write_replaces_the_first(aws: str, tmp_path: Path) -> None:
    name = bucket(aws)

    async def work() -> None:
        async with AwsCloud(region="us-east-1", endpoint_url=aws) as cloud, local(tmp_path) as here:
            for place in (cloud, here):
                for content in (b"first", b"second"):
                    done = await keep(place, content, bucket=name, if_none_match=False)
                    assert "note" not in done.detail
                assert await open_object(place, name, ID) == b"second"
                done = await keep(place, b"third", bucket=name)
                assert done.detail["note"] == "it was there already"
                assert await open_object(place, name, ID) == b"second"

    asyncio.run(work())


def test_a_bucket_of_another_account_is_refused_in_a_directory_too(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as cloud:
            await keep(cloud, expected_bucket_owner=ACCOUNT)
            with pytest.raises(PermanentFailure) as caught:
                await keep(cloud, message_id="other", expected_bucket_owner=ELSEWHERE)
            assert caught.value.reason == ACCESS_DENIED

    asyncio.run(work())


def test_what_a_directory_cannot_do_is_refused_or_warned_of() -> None:
    rules = loaded(
        RULES.format("server_side_encryption: AES256, tags: {a: b}, content_type: message/rfc822"), ACTIONS, "r.yaml"
    )
    here, there = Settings(), Settings(cloud="aws")
    (refused,) = impossible(rules, here)
    assert str(refused).startswith("r.yaml:2:11: rule 'r' asks for server_side_encryption, which is S3's own")
    assert impossible(rules, there) == ()
    warned = [problem.message for problem in warnings(rules, here)]
    assert any("it is refused when mail is to be received" in one for one in warned)
    assert any("sets tags and content_type, which a directory does not have" in one for one in warned)
    assert not any("directory" in problem.message for problem in warnings(rules, there))


@pytest.mark.parametrize("size", [100, 600_000])
@pytest.mark.parametrize("form", ["ses", "s3ec"])
def test_messages_share_a_data_key_and_open_by_what_stands_with_them(
    aws: str, tmp_path: Path, form: Any, size: int
) -> None:
    name, key = bucket(aws), kms_key(aws)
    contents = [os.urandom(size) for _ in range(5)]
    keys: dict[str, Any] = {"bucket": name, "kms_key": key, "format": form, "cache_data_keys": {"messages": "2"}}
    where = {"ses": ("x-amz-matdesc", "x-amz-key-v2"), "s3ec": ("x-amz-t", "x-amz-3")}[form]

    async def work() -> None:
        async with AwsCloud(region="us-east-1", endpoint_url=aws) as cloud, local(tmp_path) as here:
            for place in (cloud, here):
                if place is here:
                    keys["kms_key"] = "alias/shared"
                for number, content in enumerate(contents):
                    await keep(place, content, f"m{number}", **keys)
                stored = [await place.get(name, f"m{number}") for number in range(5)]
                wrapped = [one.metadata[where[1]] for one in stored]
                assert (wrapped[0] == wrapped[1], wrapped[2] == wrapped[3], len(set(wrapped))) == (True, True, 3)
                contexts = {one.metadata[where[0]] for one in stored}
                assert len(contexts) == 1
                assert "aws:ses:message-id" not in json.loads(contexts.pop())
                assert [await open_object(place, name, f"m{number}") for number in range(5)] == contents
                assert (place.counters.data_keys_made, place.counters.data_keys_used_again) == (3, 2)

    asyncio.run(work())


@pytest.mark.usefixtures("aws")
def test_a_key_is_shared_within_a_bucket_a_rule_a_role_a_form_and_the_same_limits_only() -> None:
    usual: dict[str, Any] = {"kms_key": "alias/shared", "cache_data_keys": {}}
    role = "arn:aws:iam::123456789012:role/writer"
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("support", {"bucket": "one"}),
        ("support", {"bucket": "two"}),
        ("another", {"bucket": "one"}),
        ("support", {"bucket": "one", "role_arn": role}),
        ("support", {"bucket": "one", "format": "s3ec"}),
        ("support", {"bucket": "one", "kms_key": "alias/other"}),
        ("support", {"bucket": "one", "cache_data_keys": {"messages": "7"}}),
    ]

    async def work(url: str) -> None:
        async with AwsCloud(region="us-east-1", endpoint_url=url) as cloud:
            for turn in range(2):
                for number, (rule, keys) in enumerate(kinds):
                    given = letter()
                    given = replace(given, rule=rule, mail=replace(given.mail, message_id=f"m{turn}-{number}"))
                    await S3(**usual | keys).perform(given, cloud)
            counted = cloud.counters
            assert (counted.data_keys_made, counted.data_keys_used_again) == (len(kinds), len(kinds))

    with quick_aws() as (url, service):
        asyncio.run(work(url))
    wrapped: dict[str, set[str]] = {}
    for path, (_, fields) in service.objects.items():
        number = path.rpartition("-")[2]
        wrapped.setdefault(number, set()).add(fields.get("x-amz-meta-x-amz-key-v2") or fields["x-amz-meta-x-amz-3"])
    assert [len(one) for one in wrapped.values()] == [1] * len(kinds)
    assert len(set().union(*wrapped.values())) == len(kinds)


def test_without_sharing_every_message_has_its_own_key(tmp_path: Path) -> None:
    async def work() -> None:
        async with local(tmp_path) as here:
            for number in range(3):
                await keep(here, CONTENT, f"m{number}", kms_key="alias/own")
            wrapped = {(await here.get("mail-in", f"m{number}")).metadata["x-amz-key-v2"] for number in range(3)}
            assert (len(wrapped), here.counters.data_keys_made) == (3, 0)

    asyncio.run(work())
