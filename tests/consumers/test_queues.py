"""Queues are worked off at least once, whoever fails; buckets are gone through in order."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import inbound
from inbound.actions.s3 import S3
from inbound.actions.sqs import Sqs
from inbound.clients.aws import AwsCloud
from inbound.consumer import Message
from inbound.errors import NotSealedForUs, PermanentFailure, TemporaryFailure
from inbound.settings import Settings
from tests.actions.letters import ACCOUNT, ID, letter, local
from tests.aws import bucket, client, kms_key, topic_with_queue
from tests.consumers.stored import POINTER, STORED, performed, put, told
from tests.consumers.test_consume import SETUP_EVENT

QUEUE = f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/mail"
DEAD = f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/dead"
WITH_CONTENT = Sqs(queue_url=QUEUE, content="base64")


def drained(cloud: Any, **more: Any) -> list[str]:
    return [one.id for one in inbound.consume_queue(QUEUE, wait=0, until_empty=True, cloud=cloud, **more)]


def left(tmp_path: Path, queue: str = "mail") -> list[str]:
    return [json.loads(file.read_text())["Body"] for file in sorted((tmp_path / "sqs" / queue).glob("[!.]*.json"))]


def test_a_queue_is_worked_off(tmp_path: Path) -> None:
    cloud = performed(tmp_path, WITH_CONTENT, WITH_CONTENT)
    asyncio.run(cloud.send(QUEUE, SETUP_EVENT, once="setup"))
    assert (drained(cloud), left(tmp_path)) == ([ID, ID], [])
    assert [thread.name for thread in threading.enumerate() if "consumer" in thread.name] == []


def test_a_message_is_deleted_when_the_loop_goes_on_and_not_before(tmp_path: Path) -> None:
    cloud = performed(tmp_path, WITH_CONTENT)
    for _ in inbound.consume_queue(QUEUE, wait=0, until_empty=True, cloud=cloud):
        assert len(left(tmp_path)) == 1
    assert left(tmp_path) == []


@pytest.mark.parametrize("ending", ["raise", "break", "close"])
def test_a_message_whose_work_did_not_end_comes_again_and_what_was_fetched_ahead_at_once(
    tmp_path: Path, ending: str
) -> None:
    cloud = performed(tmp_path, WITH_CONTENT, WITH_CONTENT, WITH_CONTENT)
    messages = inbound.consume_queue(QUEUE, wait=0, until_empty=True, cloud=cloud, hidden=1.0)
    with contextlib.suppress(ZeroDivisionError):
        if ending == "close":
            next(messages)
        else:
            for _ in messages:
                if ending == "break":
                    break
                raise ZeroDivisionError
    messages.close()  # type: ignore[attr-defined]
    assert len(left(tmp_path)) == 3
    assert drained(cloud) == [ID, ID]
    time_passes(tmp_path)
    assert drained(cloud) == [ID]


def time_passes(tmp_path: Path) -> None:
    """What is hidden is hidden no more."""
    for state in (tmp_path / "sqs/mail").glob(".*.state"):
        state.write_text(json.dumps(json.loads(state.read_text()) | {"until": 0}))


def hidden_for(tmp_path: Path) -> float:
    (state,) = (tmp_path / "sqs/mail").glob(".*.state")
    return float(json.loads(state.read_text())["until"]) - time.time()


def test_while_somebody_works_on_a_message_it_stays_hidden(tmp_path: Path) -> None:
    cloud = performed(tmp_path, WITH_CONTENT)
    for _ in inbound.consume_queue(QUEUE, wait=0, until_empty=True, cloud=cloud, hidden=0.3):
        first = hidden_for(tmp_path)
        until = time.monotonic() + 20
        while time.monotonic() < until and hidden_for(tmp_path) <= first:
            time.sleep(0.02)
        assert hidden_for(tmp_path) > 0
    assert left(tmp_path) == []


def test_work_without_end_is_handed_to_somebody_else(tmp_path: Path) -> None:
    cloud = performed(tmp_path, WITH_CONTENT)
    consuming = inbound.consume_queue(QUEUE, wait=0, until_empty=True, cloud=cloud, hidden=0.3, work_seconds=0.0)
    for _ in consuming:
        until = time.monotonic() + 20
        while time.monotonic() < until and not (again := drained(cloud)):
            time.sleep(0.05)
        assert again == [ID]
        break


def test_what_waits_behind_work_without_end_is_given_back_and_is_not_worked_on_twice(tmp_path: Path) -> None:
    cloud = performed(tmp_path, *[WITH_CONTENT] * 3)
    seen = 0
    for _ in inbound.consume_queue(QUEUE, wait=0, until_empty=True, cloud=cloud, hidden=1.5, work_seconds=0.0):
        seen += 1
        others: list[str] = []
        until = time.monotonic() + 20
        while time.monotonic() < until and len(others) < 2:
            others += drained(cloud)
            time.sleep(0.05)
        assert set(others) == {ID}
        assert len(others) >= 2
    assert (seen, left(tmp_path)) == (1, [])


def test_dead_letters_that_cannot_be_taken_now_wait_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cloud = local(tmp_path)
    asyncio.run(cloud.send(QUEUE, "no event", once="1"))
    performed(tmp_path, WITH_CONTENT)
    assert drained(Faulty(cloud, send=[TemporaryFailure("throttled")]), hidden=100, dead_letter=DEAD) == [ID]
    assert (left(tmp_path), left(tmp_path, "dead")) == (["no event"], [])
    assert "waits 100 s: throttled" in caplog.text
    time_passes(tmp_path)
    assert drained(cloud, dead_letter=DEAD) == []
    assert (left(tmp_path), left(tmp_path, "dead")) == ([], ["no event"])


def test_what_cannot_be_consumed_is_left_in_the_queue_for_later_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cloud = local(tmp_path)
    asyncio.run(cloud.send(QUEUE, "no event", once="1"))
    performed(tmp_path, WITH_CONTENT)
    assert drained(cloud, hidden=100) == [ID]
    assert left(tmp_path) == ["no event"]
    assert "waits 100 s: no event of a mail" in caplog.text
    for seconds in (200, 400):
        time_passes(tmp_path)
        assert drained(cloud, hidden=100) == []
        assert f"waits {seconds} s" in caplog.text


def test_what_cannot_be_consumed_goes_to_the_dead_letters_where_there_is_a_queue_for_them(tmp_path: Path) -> None:
    cloud = performed(tmp_path, WITH_CONTENT)
    missing = told(POINTER)
    for body in ("no event", missing):
        asyncio.run(cloud.send(QUEUE, body, once=body))
    assert drained(cloud, dead_letter=DEAD) == [ID]
    assert (left(tmp_path), left(tmp_path, "dead")) == ([], ["no event", missing])


def test_a_message_that_everybody_fails_at_is_a_dead_letter_in_the_end(tmp_path: Path) -> None:
    cloud = performed(tmp_path, WITH_CONTENT)
    for _ in range(3):
        fail(inbound.consume_queue(QUEUE, wait=0, until_empty=True, cloud=cloud, tries=3, dead_letter=DEAD))
        time_passes(tmp_path)
    assert drained(cloud, tries=3, dead_letter=DEAD) == []
    assert (len(left(tmp_path)), len(left(tmp_path, "dead"))) == (0, 1)


def fail(messages: Iterator[Message]) -> None:
    """A loop whose body raises at the first message."""
    seen = 0
    with contextlib.suppress(ZeroDivisionError):
        for _ in messages:
            seen += 1
            raise ZeroDivisionError
    assert seen == 1


class Faulty:
    """A cloud whose methods fail where a test wants it, and work otherwise."""

    def __init__(self, cloud: Any, **failing: list[Exception]) -> None:
        self._cloud, self._failing = cloud, failing

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._cloud, name)

        async def method(*args: Any, **more: Any) -> Any:
            if self._failing.get(name):
                raise self._failing[name].pop(0)
            return await real(*args, **more)

        return method


def test_a_service_that_is_away_for_a_while_loses_nothing(tmp_path: Path) -> None:
    cloud = performed(tmp_path, S3(bucket="mail-support", prefix="in"), Sqs(queue_url=QUEUE))
    away = Faulty(cloud, get=[TemporaryFailure("service unavailable")])
    pins = {"bucket": "mail-support", "prefix": "in"}
    assert drained(away, **pins) == []
    time_passes(tmp_path)
    assert drained(Faulty(cloud, delete_message=[TemporaryFailure("away")]), **pins) == [ID]
    time_passes(tmp_path)
    assert drained(Faulty(cloud, hide_message=[TemporaryFailure("away")] * 9), **pins) == [ID]
    assert left(tmp_path) == []


def test_a_queue_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    cloud = performed(tmp_path, WITH_CONTENT)
    away = Faulty(cloud, receive=[TemporaryFailure("service unavailable")])
    for message in inbound.consume_queue(QUEUE, wait=0, cloud=away):
        assert message.id == ID
        break
    with pytest.raises(TemporaryFailure):
        drained(Faulty(cloud, receive=[TemporaryFailure("service unavailable")]))


@pytest.mark.parametrize(
    "failing",
    [{"receive": [PermanentFailure("no such queue")]}, {"get": [PermanentFailure("credentials not accepted")]}],
)
def test_what_is_no_matter_of_one_message_stops_everything(tmp_path: Path, failing: Any) -> None:
    cloud = performed(tmp_path, S3(bucket="mail-support", prefix="in"), Sqs(queue_url=QUEUE))
    with pytest.raises(PermanentFailure):
        drained(Faulty(cloud, **failing), bucket="mail-support", prefix="in")
    assert len(left(tmp_path)) == 1


def test_asyncio_programs_consume_side_by_side(tmp_path: Path) -> None:
    cloud = performed(tmp_path, *[WITH_CONTENT] * 30)

    async def worker() -> int:
        count = 0
        async with contextlib.aclosing(
            inbound.aconsume_queue(QUEUE, wait=0, until_empty=True, cloud=cloud)
        ) as messages:
            async for message in messages:
                assert message.raw == STORED
                count += 1
                await asyncio.sleep(0)
        return count

    async def story() -> list[int]:
        return list(await asyncio.gather(worker(), worker(), worker()))

    assert sum(asyncio.run(story())) == 30
    assert left(tmp_path) == []


def test_a_queue_that_sns_fills_is_worked_off_on_aws(aws: str) -> None:
    name, (topic, queue), dead = bucket(aws), topic_with_queue(aws), topic_with_queue(aws)[1]
    settings = Settings(cloud="aws", endpoint_url=aws)

    async def story() -> None:
        async with AwsCloud(region="us-east-1", endpoint_url=aws) as cloud:
            action = S3(bucket=name, prefix="in", kms_key=kms_key(aws), topic_arn=topic)
            await action.perform(letter(content=STORED), cloud)
            await cloud.send(queue, "no event", once="1")

    def consumed(**more: Any) -> list[Message]:
        return list(inbound.consume_queue(queue, wait=0, until_empty=True, settings=settings, dead_letter=dead, **more))

    asyncio.run(story())
    fail(inbound.consume_queue(queue, wait=0, settings=settings, hidden=1.0, dead_letter=dead))
    until = time.monotonic() + 20
    while time.monotonic() < until and not (found := consumed()):
        time.sleep(0.1)
    assert [(one.id, one.provenance.sealed, one.provenance.trusted) for one in found] == [(ID, "ses", True)]
    assert consumed() == []
    (letter_,) = client("sqs", aws).receive_message(QueueUrl=dead)["Messages"]
    assert letter_["Body"] == "no event"
    with pytest.raises(PermanentFailure) as caught:
        list(inbound.consume_queue(f"{queue}-none", settings=settings))
    assert caught.value.reason == "no such queue"


def subjects(place: Any, **more: Any) -> list[str | None]:
    return [one.subject for one in inbound.consume_bucket(*place, **more)]


def test_a_bucket_is_gone_through_in_order_and_what_is_broken_is_told_of(tmp_path: Path) -> None:
    cloud = local(tmp_path)
    for number, key in enumerate(["in/a", "in/b", "in/c", "in/AMAZON_SES_SETUP_NOTIFICATION", "inner/d", "out/d"]):
        put(tmp_path, key, f"Subject: {number}\r\n\r\n".encode())
    put(tmp_path, "in/broken", b"x", {"x-amz-key-v2": "?"})
    broken: list[str] = []
    place = ("mail-support", "in")
    assert subjects(place, cloud=cloud, broken=lambda key, _: broken.append(key)) == ["0", "1", "2"]
    assert broken == ["in/broken"]
    assert subjects(place, cloud=cloud, after="in/broken") == ["2"]
    assert subjects(("mail-support", "inner/"), cloud=cloud) == ["4"]
    with pytest.raises(NotSealedForUs):
        subjects(place, cloud=cloud)
    with pytest.raises(PermanentFailure):
        subjects(("mail-none",), cloud=cloud)


def test_an_object_that_goes_away_meanwhile_is_passed_over(tmp_path: Path) -> None:
    cloud = put(tmp_path, "in/a", b"Subject: 1\r\n\r\n")
    put(tmp_path, "in/b", b"Subject: 2\r\n\r\n")
    seen = []
    for message in inbound.consume_bucket("mail-support", "in", cloud=cloud):
        seen.append(message.subject)
        asyncio.run(cloud.delete_object("mail-support", "in/b"))
    assert seen == ["1"]


def test_a_bucket_of_aws_is_gone_through_from_a_key_on(aws: str) -> None:
    name = bucket(aws)
    for key in ("in/a", "in/b", "in/c"):
        client("s3", aws).put_object(Bucket=name, Key=key, Body=f"Subject: {key}\r\n\r\n".encode())
    settings = Settings(cloud="aws", endpoint_url=aws)
    assert subjects((name, "in"), settings=settings) == ["in/a", "in/b", "in/c"]
    assert subjects((name, "in"), settings=settings, after="in/a") == ["in/b", "in/c"]
