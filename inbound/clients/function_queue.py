"""Calls of functions that nobody waits for: a file each, run by this process, kept until they worked.

A call is on the disk before it is said to be queued. Another process that starts takes what this one leaves; a lock on the
file keeps two from running it at once. What failed three times is kept apart, as a dead letter.
"""

import asyncio
import fcntl
import json
import logging
import time
import uuid
from pathlib import Path
from typing import Protocol

from inbound.clients.disk import directory, write_new
from inbound.errors import Failure
from inbound.offload import offload

log = logging.getLogger(__name__)

TRIES = 3  # of a function that is not waited for, as Lambda does
AT_ONCE = 16  # functions that run side by side
BETWEEN_TRIES = 60.0  # seconds before the second try, twice that before the third


class RanFunction(Protocol):
    """What a function answered; `error` is "" unless it failed."""

    @property
    def payload(self) -> bytes:
        """Its JSON."""
        ...

    @property
    def error(self) -> str:
        """Lambda's word for how it failed."""
        ...


class FunctionRunner(Protocol):
    """Runs functions here (`clients.invoke.Runner`)."""

    def require(self, function: str) -> str:
        """The bare name of a function that is there. Raises PermanentFailure."""
        ...

    def try_function(self, function: str) -> None:
        """Is it there, and is its command? Raises PermanentFailure."""
        ...

    async def run(self, function: str, payload: bytes) -> RanFunction:
        """Call it and wait."""
        ...


class Queue:
    """Calls of functions that nobody waits for: a file each, run by this process, kept until they worked."""

    def __init__(self, root: Path, runner: FunctionRunner) -> None:
        self._waiting, self._failed = root / "queue", root / "failed"
        self._runner = runner
        self._running: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(AT_ONCE)

    async def add(self, function: str, payload: bytes) -> None:
        """Queue a call; it is on the disk when this returns. Raises Failure."""
        name = f"{time.time_ns()}-{uuid.uuid4()}.json"
        call = {"function": function, "payload": payload.decode("utf-8")}
        await offload(write_new, self._waiting, name, call)
        self._start(self._waiting / name)

    async def resume(self) -> None:
        """Run what an earlier process left."""
        for path in await offload(lambda: sorted(self._waiting.glob("[0-9]*.json"))):
            self._start(path)

    async def idle(self, seconds: float) -> None:
        """Wait until nothing runs, at most so long."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    async def close(self) -> None:
        """End what runs; its calls stay in the queue."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self, path: Path) -> None:
        task = asyncio.create_task(self._work(path))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _work(self, path: Path) -> None:
        try:
            for tried in range(1, TRIES + 1):
                if await self._try(path):
                    return
                if tried < TRIES:
                    await asyncio.sleep(BETWEEN_TRIES * tried)
            log.error("a function failed %d times, its event is kept in %s/%s", TRIES, self._failed, path.name)
            await offload(directory, self._failed)
            await offload(path.rename, self._failed / path.name)
        except FileNotFoundError:  # another process did it
            pass
        except OSError:
            log.exception("the queue of functions cannot be read or written")

    async def _try(self, path: Path) -> bool:
        """One try. True when it is out of our hands: it worked, or another process is at it."""
        async with self._room:
            with path.open("r+b") as file:  # not in a thread: cancelled, it would leave the file open
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
                call = json.load(file)
                if await self._worked(call["function"], call["payload"].encode()):
                    await offload(path.unlink, missing_ok=True)
                    return True
        return False

    async def _worked(self, function: str, payload: bytes) -> bool:
        try:
            answer = await self._runner.run(function, payload)
        except Failure as failure:
            log.warning("function %s was not run: %s", function, failure)
            return False
        if answer.error:
            log.warning("function %s failed: %s", function, answer.payload[:500].decode("utf-8", "replace"))
        return not answer.error
