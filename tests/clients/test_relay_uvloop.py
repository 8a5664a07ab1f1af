"""The receiver runs on uvloop, which hands an answer over before tasks that wait for it have begun."""

import asyncio
import threading
from collections.abc import Iterator, Mapping

import pytest
import uvloop

from inbound.clients.relay import Relays
from inbound.reply import Reply
from inbound.settings import Relay
from tests.next_hop import next_hop


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """The port of a next hop in a thread of its own, as quick as another process."""
    loop, ready, ports = asyncio.new_event_loop(), threading.Event(), []
    over = asyncio.Event()

    async def serve() -> None:
        async with next_hop() as hop:
            ports.append(hop.port)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(over.set)
    thread.join(10)
    loop.close()


def test_no_answer_is_missed_however_quick_it_is(elsewhere: int) -> None:
    async def story() -> list[Mapping[str, Reply]]:
        relay = Relay(host="127.0.0.1", port=elsewhere, seconds=5.0)
        async with Relays(relay, hostname="mx.example.com") as relays:
            raw = b"From: a@sender.example\r\n\r\nHello\r\n"
            return [await relays.to().send(raw, mail_from="", rcpt_to=("b@example.net",)) for _ in range(20)]

    assert uvloop.run(story()) == [{}] * 20
