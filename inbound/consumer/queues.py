"""Messages one after another: from a queue until it is told to stop, or from a bucket as they lie there.

1. At least once: a message is deleted from the queue when the loop goes on behind it. If the loop's body raises, or the process
   dies, it is not, and comes again when its time is up. `Message.id` is the same then, and so are the envelope's recipients.
2. While the body works, the message is kept hidden from other consumers, `hidden` seconds at a time, for `work_seconds` at most;
   so are those that were fetched with it, until their turn comes. Behind work that takes longer they are given back at once.
   With `break` the last message was not gone on from, so it comes again; what was fetched ahead is given back.
3. What cannot be consumed does not stop the rest. It goes to the `dead_letter` queue, if there is one; otherwise it stays where
   it is, hidden for longer each time, until somebody looks or the queue forgets it. The same goes for a message that was handed
   out more than `tries` times, because everybody who had it failed.
4. Credentials that are not accepted, and a queue that is not there, stop everything: they are no matter of one message.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from inbound.clients import QueueMessage
from inbound.clients.reasons import CREDENTIALS
from inbound.consumer.consuming import Wish, below, consumed
from inbound.consumer.events import SETUP
from inbound.consumer.message import Message
from inbound.errors import Failure, NotFound, TemporaryFailure, Unconsumable

log = logging.getLogger(__name__)

AT_ONCE = 10  # messages in one answer of SQS
LONGEST_HIDDEN = 43_200.0  # seconds, as SQS has it
LONGEST_PAUSE = 60.0  # seconds between tries of a queue that does not answer
TOO_OFTEN = "handed out too often"

Item = TypeVar("Item")


class Inbox(Protocol):
    """A cloud's queues, for those who take messages out: `clients.aws` and `clients.local` have it."""

    async def receive(self, queue_url: str, *, most: int, wait: float, hidden: float) -> Sequence[QueueMessage]:
        """Up to `most` messages, hidden for so many seconds; none when none has come within `wait`."""
        ...

    async def delete_message(self, queue_url: str, receipt: str) -> None:
        """Take it out for good."""
        ...

    async def hide_message(self, queue_url: str, receipt: str, seconds: float) -> None:
        """Hide it for so long from now; 0 gives it back."""
        ...

    async def send(self, queue_url: str, message: str, *, once: str) -> None:
        """Put one in."""
        ...


async def of_queue(
    cloud: Any,
    queue_url: str,
    wish: Wish,
    *,
    wait: float,
    hidden: float,
    work_seconds: float,
    tries: int,
    dead_letter: str | None,
    until_empty: bool,
) -> AsyncGenerator[Message, None]:
    """The messages of a queue, each deleted when the next one is asked for. Raises Failure as said above."""
    held = _Held(cloud, queue_url, hidden=hidden, work_seconds=work_seconds, dead_letter=dead_letter)
    beat = asyncio.create_task(held.beat())
    batches = _batches(cloud, queue_url, wait=wait, hidden=hidden, until_empty=until_empty)
    try:
        async with contextlib.aclosing(batches):
            async for batch in batches:
                held.take(batch)
                for one in batch:
                    if not held.begin(one):
                        continue
                    message = await _message(one, held, cloud, wish, tries)
                    if message is not None:
                        held.working = one.receipt
                        yield message
                        await held.delete(one)
    finally:
        beat.cancel()
        await held.give_back()


async def _batches(
    inbox: Inbox, queue_url: str, *, wait: float, hidden: float, until_empty: bool
) -> AsyncGenerator[Sequence[QueueMessage], None]:
    pause = 1.0
    while True:
        try:
            batch = await inbox.receive(queue_url, most=AT_ONCE, wait=wait, hidden=hidden)
        except TemporaryFailure as failure:
            if until_empty:
                raise
            log.warning("%s: %s", queue_url, failure)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            continue
        pause = 1.0
        if batch:
            yield batch
        elif until_empty:
            return


async def _message(one: QueueMessage, held: "_Held", cloud: Any, wish: Wish, tries: int) -> Message | None:
    """The message that one of the queue's is about; None where there is none to work on, and that is dealt with."""
    try:
        if one.times > tries:
            raise Unconsumable(TOO_OFTEN, f"{one.times} times, and nobody has finished it")
        message = await consumed(one.body, wish, cloud=cloud, settings=None)
    except TemporaryFailure as failure:
        await held.put_off(one, failure)
        return None
    except Failure as failure:
        if failure.reason == CREDENTIALS:
            raise
        await held.put_aside(one, failure)
        return None
    if message is None:
        await held.delete(one)
    return message


class _Held:
    """The messages that are in our hands. `working` is the receipt of the one that the loop's body has."""

    def __init__(
        self, inbox: Inbox, queue_url: str, *, hidden: float, work_seconds: float, dead_letter: str | None
    ) -> None:
        self._inbox, self._queue_url = inbox, queue_url
        self._hidden, self._work_seconds, self._dead_letter = hidden, work_seconds, dead_letter
        self._receipts: dict[str, None] = {}  # in their order
        self._begun = time.monotonic()  # when the turn of the last one came
        self.working = ""

    def take(self, batch: Sequence[QueueMessage]) -> None:
        """They are ours now."""
        self._receipts |= dict.fromkeys(one.receipt for one in batch)

    def begin(self, one: QueueMessage) -> bool:
        """Its turn has come, if it is still ours: those that waited for too long behind another are somebody else's."""
        self._begun = time.monotonic()
        return one.receipt in self._receipts

    async def delete(self, one: QueueMessage) -> None:
        """It is done with."""
        self._receipts.pop(one.receipt, None)
        try:
            await self._inbox.delete_message(self._queue_url, one.receipt)
        except Failure as failure:  # it comes again, as it may at any time
            log.warning("%s: message %s is done, and cannot be deleted: %s", self._queue_url, one.id, failure)

    async def put_off(self, one: QueueMessage, failure: Failure) -> None:
        """Another time, later each time."""
        self._receipts.pop(one.receipt, None)
        seconds = min(self._hidden * 2.0 ** min(one.times - 1, 20), LONGEST_HIDDEN)
        log.warning("%s: message %s waits %.0f s: %s", self._queue_url, one.id, seconds, failure)
        await self._hide(one.receipt, seconds)

    async def put_aside(self, one: QueueMessage, failure: Failure) -> None:
        """To the dead letters, where there is a queue for them."""
        if self._dead_letter is None:
            await self.put_off(one, failure)
            return
        log.error("%s: message %s goes to %s: %s", self._queue_url, one.id, self._dead_letter, failure)
        try:
            await self._inbox.send(self._dead_letter, one.body, once=one.id)
        except TemporaryFailure as away:
            await self.put_off(one, away)
        else:
            await self.delete(one)

    async def beat(self) -> None:
        """Keep what we hold hidden, until it is cancelled."""
        while True:
            await asyncio.sleep(self._hidden / 3)
            if time.monotonic() - self._begun <= self._work_seconds:
                for receipt in tuple(self._receipts):
                    await self._hide(receipt, self._hidden)
            elif self._receipts:
                log.error("%s: work on a message takes longer than %g s", self._queue_url, self._work_seconds)
                await self.give_back()

    async def give_back(self) -> None:
        """What was not begun is for somebody else, at once; what was, when its time is up."""
        given, self._receipts = self._receipts, {}
        for receipt in given:
            if receipt != self.working:
                await self._hide(receipt, 0)

    async def _hide(self, receipt: str, seconds: float) -> None:
        try:
            await self._inbox.hide_message(self._queue_url, receipt, seconds)
        except Failure as failure:  # then it comes again sooner, which it may at any time
            log.warning("%s: %s", self._queue_url, failure)


async def of_bucket(
    cloud: Any,
    bucket: str,
    wish: Wish,
    *,
    after: str,
    broken: Callable[[str, Failure], None] | None,
) -> AsyncGenerator[Message, None]:
    """The messages in a bucket below the wish's prefix, in the order of their keys, from behind `after`. Raises Failure."""
    listing = cloud.list_objects(bucket, below(wish.prefix), after=after)
    async with contextlib.aclosing(listing):
        async for one in listing:
            if one.key.endswith("/") or one.key.rpartition("/")[2] == SETUP:
                continue
            try:
                message = await consumed(f"s3://{bucket}/{one.key}", wish, cloud=cloud, settings=None)
            except NotFound:  # somebody has taken it away since
                continue
            except Unconsumable as failure:
                if broken is None:
                    raise
                broken(one.key, failure)
            else:
                if message is not None:
                    yield message


def blocking(source: AsyncGenerator[Item, None]) -> Iterator[Item]:
    """The same for a program without an event loop: one runs in a thread of its own, also while the caller works."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="inbound-consumer", daemon=True)
    thread.start()
    steps: list[asyncio.Task[Any]] = []

    async def step() -> Item | None:
        steps[:] = [task] if (task := asyncio.current_task()) else []
        return await anext(source, None)

    async def close() -> None:
        for task in steps:
            task.cancel()
        if steps:
            await asyncio.wait(steps)
        await source.aclose()
        await loop.shutdown_asyncgens()

    try:
        while True:
            item = asyncio.run_coroutine_threadsafe(step(), loop).result()
            if item is None:
                return
            yield item
    finally:
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
