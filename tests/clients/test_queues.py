"""Queues in a directory hand out messages as SQS does: hidden for a while, again when nobody deletes them, in order."""

import asyncio
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from inbound.clients.local import LocalCloud
from inbound.errors import PermanentFailure
from tests.actions.letters import local

QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/mail"
FIFO = QUEUE + ".fifo"


def sent(tmp_path: Path, *bodies: str, queue: str = QUEUE) -> LocalCloud:
    cloud = local(tmp_path)
    for body in bodies:
        asyncio.run(cloud.send(queue, body, once=body))
    return cloud


def received(
    cloud: LocalCloud, queue: str = QUEUE, *, most: int = 10, wait: float = 0, hidden: float = 30
) -> list[Any]:
    return list(asyncio.run(cloud.receive(queue, most=most, wait=wait, hidden=hidden)))


def test_messages_come_in_order_and_are_hidden_until_they_are_given_back_or_their_time_is_up(tmp_path: Path) -> None:
    cloud = sent(tmp_path, "1", "2", "3")
    first, second = received(cloud, most=2)
    assert (first.body, second.body, first.times) == ("1", "2", 1)
    assert [one.body for one in received(cloud)] == ["3"]
    asyncio.run(cloud.hide_message(QUEUE, second.receipt, 0))
    assert [(one.body, one.times) for one in received(cloud, hidden=0)] == [("2", 2)]
    assert [(one.body, one.times) for one in received(cloud)] == [("2", 3)]


def test_a_deleted_message_is_gone_and_an_old_receipt_deletes_nothing(tmp_path: Path) -> None:
    cloud = sent(tmp_path, "1")
    (old,) = received(cloud, hidden=0)
    (new,) = received(cloud)
    asyncio.run(cloud.delete_message(QUEUE, old.receipt))
    asyncio.run(cloud.hide_message(QUEUE, old.receipt, 0))
    assert received(cloud) == []
    asyncio.run(cloud.delete_message(QUEUE, new.receipt))
    asyncio.run(cloud.delete_message(QUEUE, new.receipt))
    assert [path.name for path in (tmp_path / "sqs/mail").iterdir()] == [".lock"]


def test_a_fifo_queue_hands_out_nothing_behind_what_somebody_has(tmp_path: Path) -> None:
    cloud = sent(tmp_path, "b", "a", queue=FIFO)
    (first,) = received(cloud, FIFO, most=1)
    assert first.body == "b"
    assert received(cloud, FIFO) == []
    asyncio.run(cloud.delete_message(FIFO, first.receipt))
    assert [one.body for one in received(cloud, FIFO)] == ["a"]


def test_an_empty_queue_is_waited_for(tmp_path: Path) -> None:
    cloud = sent(tmp_path)

    async def story() -> list[str]:
        waiting = asyncio.create_task(cloud.receive(QUEUE, most=1, wait=20, hidden=1))
        await asyncio.sleep(0.05)
        await cloud.send(QUEUE, "late", once="1")
        return [one.body for one in await waiting]

    assert received(cloud) == []
    assert asyncio.run(story()) == ["late"]


@pytest.mark.parametrize("receipt", ["", "x", "x/../../secret", "x/.lock", "/", "x/" + "y" * 300])
def test_a_receipt_that_is_none_does_nothing(tmp_path: Path, receipt: str) -> None:
    (tmp_path / "secret").write_text("x")
    cloud = sent(tmp_path, "1")
    try:
        asyncio.run(cloud.delete_message(QUEUE, receipt))
    except PermanentFailure as failure:
        assert failure.reason == "name cannot be used"  # noqa: PT017 - longer names are refused by the disk
    assert len(received(cloud)) == 1
    assert (tmp_path / "secret").exists()


def test_a_spoilt_state_costs_no_message(tmp_path: Path) -> None:
    cloud = sent(tmp_path, "1")
    assert len(received(cloud)) == 1
    (state,) = (tmp_path / "sqs/mail").glob(".*.state")
    for text in ("", "[]", "{"):
        state.write_text(text)
        assert [it.body for it in received(cloud, hidden=0)] == ["1"]
    (file,) = (tmp_path / "sqs/mail").glob("[!.]*.json")
    file.unlink()
    assert received(cloud) == []
    assert not state.exists()


@pytest.mark.parametrize("queue", [QUEUE, FIFO])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"MessageId": 1, "Body": "x"}', '{"MessageId": "x"}', "[" * 100_000])
def test_a_file_that_holds_no_message_is_put_aside_and_the_rest_is_handed_out(
    tmp_path: Path, queue: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    cloud = sent(tmp_path, "1", queue=queue)
    place = tmp_path / "sqs" / queue.rpartition("/")[2]
    (place / "0.json").write_text(text)
    os.utime(place / "0.json", (0, 0))
    assert [it.body for it in received(cloud, queue)] == ["1"]
    assert (place / ".0.json.broken").read_text() == text
    assert received(cloud, queue) == []
    assert caplog.text.count("0.json holds no message") == 1


def _take(directory: str, found: Any) -> None:
    cloud = local(Path(directory))
    until = time.monotonic() + 20
    while time.monotonic() < until and (batch := received(cloud, most=1)):
        for one in batch:
            asyncio.run(cloud.delete_message(QUEUE, one.receipt))
            found.put(one.body)


def test_processes_side_by_side_get_each_message_once(tmp_path: Path) -> None:
    bodies = [str(number) for number in range(40)]
    sent(tmp_path, *bodies)
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    workers = [context.Process(target=_take, args=(str(tmp_path), found)) for _ in range(2)]
    for worker in workers:
        worker.start()
    got = sorted(found.get(timeout=20) for _ in bodies)
    for worker in workers:
        worker.join(20)
    assert got == sorted(bodies)
    assert found.empty()
