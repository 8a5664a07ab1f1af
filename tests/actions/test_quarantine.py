"""What is held in quarantine: sealed, whole, and nothing else opens as it."""

import asyncio
import json
import shutil
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inbound.actions import Letter, Onward
from inbound.actions.quarantine import (
    ENVELOPE,
    ID,
    MIXED_UP,
    NOT_READABLE,
    NOT_SEALED,
    Held,
    Quarantine,
    content_of,
    held,
    held_id,
)
from inbound.actions.s3 import open_object
from inbound.clients.reasons import CONTEXT_MISMATCH, OBJECT_MISSING
from inbound.errors import PermanentFailure
from inbound.mail import Headers
from inbound.record import RuleTrace, Walk
from inbound.reply import Reply
from inbound.seal import seal
from inbound.trace import stamped
from tests.actions import letters
from tests.actions.letters import TOPIC, VERDICTS, local

BLOCK = b"Return-Path: <pat@sender.example>\r\nAuthentication-Results: mx.example.com; spf=pass\r\n"
ADDED = b"X-Queue: support\r\n"
RAW = (
    b" a first line that continues nothing\r\nX-SES-Virus-Verdict: PASS\r\n"
    b"Authentication-Results: mx.example.com; dkim=pass\r\nSubject: =?utf-8?q?Caf=C3=A9?=\r\n\r\nHello\xff\r\n"
)
WALK = Walk(
    recipient="support@example.com",
    traces=(RuleTrace(name="support", met=True, why="spam is FAIL"),),
    actions=("quarantine",),
    reply=Reply(250, "2.0.0", "OK"),
)
ACTION = Quarantine(bucket="held", prefix="q")


def letter(raw: bytes = RAW, **more: Any) -> Letter:
    made = letters.letter(raw)
    content = stamped(made.mail, BLOCK, ADDED)
    return replace(made, content=content, head=BLOCK + ADDED, walks=(WALK,), ruleset="v1", **more)


def run(awaitable: Awaitable[Any]) -> Any:
    async def story() -> Any:
        return await awaitable

    return asyncio.run(story())


def key_of(given: Letter) -> str:
    return f"q/{held_id(given.mail.message_id, given.rule, given.recipients)}"


@pytest.mark.parametrize("raw", [RAW, b"\r\nonly a body", b"Subject: only a header\r\n", b"Subject: x\r\n\r\n"])
def test_what_is_held_comes_back_as_it_was_received(tmp_path: Path, raw: bytes) -> None:
    given, cloud = letter(raw), local(tmp_path)
    done = run(ACTION.perform(given, cloud))
    assert (done.onward, done.detail) == (Onward.STOP_RULE_SET, {"object": f"held/{key_of(given)}"})
    found: Held = run(held(cloud, "held", key_of(given)))
    content = run(content_of(cloud, "held", key_of(given)))
    assert given.content == content
    assert replace(given.mail, rcpt_to=given.recipients) == found.mail(content)
    assert stamped(found.mail(content), found.head) == content
    assert (found.rule, found.why, found.recipients) == ("support", "spam is FAIL", given.recipients)
    assert (found.record.verdicts, found.record.walks, found.record.ruleset) == (VERDICTS, (WALK,), "v1")
    assert found.headers == Headers.of(raw)


def test_both_objects_are_sealed_and_a_retry_changes_neither(tmp_path: Path) -> None:
    given, cloud = letter(), local(tmp_path)
    run(ACTION.perform(given, cloud))
    files = {path: path.read_bytes() for path in sorted((tmp_path / "s3/held/q").iterdir())}
    key = key_of(given).removeprefix("q/")
    assert [path.name for path in files] == [
        key,
        f"{key}{ENVELOPE}",
        f"{key}{ENVELOPE}.metadata.json",
        f"{key}.metadata.json",
    ]
    assert not any(word in octets for octets in files.values() for word in (b"Hello", b"pat@", b"Subject"))
    later = replace(given, mail=replace(given.mail, received_at=given.mail.received_at + 60))
    assert run(ACTION.perform(later, cloud)).detail["note"] == "it was there already"
    assert files == {path: path.read_bytes() for path in files}


def test_a_try_that_broke_off_between_the_two_is_completed_by_the_next(tmp_path: Path) -> None:
    given, cloud = letter(), local(tmp_path)
    run(ACTION.perform(given, cloud))
    run(cloud.delete_object("held", key_of(given) + ENVELOPE))
    with pytest.raises(PermanentFailure) as caught:
        run(held(cloud, "held", key_of(given)))
    assert caught.value.reason == OBJECT_MISSING
    # The second try found other things: the header block is that of the envelope, the message is the same.
    head = BLOCK.replace(b"spf=pass", b"spf=temperror") + ADDED
    again = replace(given, content=stamped(given.mail, head), head=head)
    run(ACTION.perform(again, cloud))
    found: Held = run(held(cloud, "held", key_of(given)))
    content = run(content_of(cloud, "held", key_of(given)))
    assert (content, found.head, found.mail(content).raw) == (given.content, head, RAW)


def test_what_two_rules_hold_or_one_rule_for_others_has_keys_of_its_own(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    for more in ({}, {"rule": "other"}, {"recipients": ("a@example.com",)}, {"recipients": ("b@example.com",)}):
        assert "note" not in run(ACTION.perform(letter(**more), cloud)).detail
    assert ID.fullmatch(held_id("0" * 40, "x", ("a@b.example",)))
    assert held_id("0" * 40, "x", ("a", "b")) == held_id("0" * 40, "x", ("b", "a"))


def test_it_tells_of_itself(tmp_path: Path) -> None:
    given = letter()
    run(Quarantine(bucket="held", topic_arn=TOPIC).perform(given, local(tmp_path)))
    (file,) = (tmp_path / "sns/inbound-mail").glob("*.json")
    assert list(json.loads(json.loads(file.read_text())["Message"])["receipt"]["action"].items()) == [
        ("type", "Quarantine"),
        ("topicArn", TOPIC),
        ("bucketName", "held"),
        ("objectKeyPrefix", ""),
        ("objectKey", key_of(given).removeprefix("q/")),
    ]


def test_an_envelope_that_is_not_sealed_is_nobody_s(tmp_path: Path) -> None:
    given, cloud = letter(), local(tmp_path)
    run(ACTION.perform(given, cloud))
    for suffix in ("", ENVELOPE):
        key = key_of(given) + suffix
        (tmp_path / f"s3/held/{key}.metadata.json").write_text("{}")
        with pytest.raises(PermanentFailure) as caught:
            run((held if suffix else content_of)(cloud, "held", key_of(given)))
        assert caught.value.reason == NOT_SEALED


def test_what_was_moved_to_another_key_does_not_open_there(tmp_path: Path) -> None:
    one, cloud = letter(), local(tmp_path)
    other = replace(one, mail=replace(one.mail, message_id="0" * 40, raw=RAW + b"more\r\n"), content=RAW + b"more\r\n")
    for given in (one, other):
        run(ACTION.perform(given, cloud))
    place = tmp_path / "s3/held"

    def move(suffix: str) -> None:
        for end in (suffix, f"{suffix}.metadata.json"):
            shutil.copy(place / f"{key_of(other)}{end}", place / f"{key_of(one)}{end}")

    move("")
    found: Held = run(held(cloud, "held", key_of(one)))
    with pytest.raises(PermanentFailure) as caught:
        found.mail(run(content_of(cloud, "held", key_of(one))))
    assert caught.value.reason == MIXED_UP
    move(ENVELOPE)
    with pytest.raises(PermanentFailure) as caught:
        run(held(cloud, "held", key_of(one)))
    assert caught.value.reason == MIXED_UP


def test_an_envelope_sealed_in_the_context_of_another_message_is_refused(tmp_path: Path) -> None:
    given, cloud = letter(), local(tmp_path)
    run(ACTION.perform(given, cloud))
    key = key_of(given) + ENVELOPE
    octets = run(open_object(cloud, "held", key))
    context = {"aws:ses:message-id": "0" * 40, "kms_cmk_id": "alias/quarantine"}
    for body, reason in ((octets, MIXED_UP), (b"{}", NOT_READABLE)):
        data_key = run(cloud.generate_data_key("alias/quarantine", context))
        sealed = seal(body, data_key.plaintext, data_key.wrapped, context)
        (tmp_path / f"s3/held/{key}").write_bytes(sealed.ciphertext)
        (tmp_path / f"s3/held/{key}.metadata.json").write_text(json.dumps(dict(sealed.metadata)))
        with pytest.raises(PermanentFailure) as caught:
            run(held(cloud, "held", key_of(given)))
        assert caught.value.reason == reason
    metadata = json.loads((tmp_path / f"s3/held/{key}.metadata.json").read_text())
    metadata["x-amz-matdesc"] = metadata["x-amz-matdesc"].replace("0" * 40, given.mail.message_id)
    (tmp_path / f"s3/held/{key}.metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(PermanentFailure) as caught:
        run(held(cloud, "held", key_of(given)))
    assert caught.value.reason == CONTEXT_MISMATCH
