"""The one door to threads and tasks, and the bridge that lets synchronous libraries wait for coroutines.

1. `offload` runs work that takes a processor for long (a big body's hash) in a small pool of threads; `aside` runs what waits
   for a disk, in a pool of its own, so that neither keeps the other waiting.
2. `bridge` runs a synchronous function in a greenlet on the event loop's own thread. Inside it, `wait` hands an awaitable to
   the loop and comes back with its result, so a library that asks for DNS by a plain call can use our async resolver.
"""

import asyncio
import os
import types
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar, cast

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]

THREADS = min(
    4, os.cpu_count() or 1
)  # hashing and RSA let go of the interpreter's lock; more threads than cores gain nothing
DISK_THREADS = 8

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="inbound-offload")


async def offload(function: Callable[Arguments, Result], *args: Arguments.args, **more: Arguments.kwargs) -> Result:
    """Run it in a thread and wait. Cancelling the wait does not stop the thread."""
    return await asyncio.get_running_loop().run_in_executor(_pool(), partial(function, *args, **more))


@cache
def _disk_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="inbound-disk")


async def aside(function: Callable[Arguments, Result], *args: Arguments.args, **more: Arguments.kwargs) -> Result:
    """As `offload`, for what waits for a disk and hardly takes a processor."""
    return await asyncio.get_running_loop().run_in_executor(_disk_pool(), partial(function, *args, **more))


async def bridge(function: Callable[Arguments, Result], *args: Arguments.args, **more: Arguments.kwargs) -> Result:
    """Run a synchronous function that may call `wait`. When this is cancelled, the function ends where it waits."""
    child = greenlet(function)
    child.gr_context = copy_context()  # what begins in the function begins where this was called
    outcome = child.switch(*args, **more)
    while not child.dead:
        try:
            value = await outcome
        except asyncio.CancelledError:
            child.throw(GreenletExit)  # whatever the library makes of it, nothing of it is used
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to the function that waits
            outcome = child.throw(error)
        else:
            outcome = child.switch(value)
    return cast("Result", outcome)


async def side_by_side(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """What each comes to, in order; a task for each where there are several."""
    several = list(work)
    return [await several[0]] if len(several) == 1 else await asyncio.gather(*several)


async def within(seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
    """What it comes to. Raises TimeoutError when it waits for longer than that.

    The deadline is set when it first waits: most checks of most mail find all they need at hand, and a timer takes as long as
    some of them (10 microseconds).
    """
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        return cast("Result", done.value)
    async with asyncio.timeout(seconds):
        return await _rest(work, waits_for)


@types.coroutine
def _rest(work: Coroutine[Any, Any, Result], waits_for: Any) -> Generator[Any, Any, Result]:
    """The rest of a coroutine that waits already (PEP 380, `yield from`, without its first step)."""
    try:
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:  # noqa: BLE001 - it belongs to the coroutine
                waits_for = work.throw(error)
            else:
                waits_for = work.send(sent)
    except StopIteration as done:
        return cast("Result", done.value)


def wait(work: Coroutine[Any, Any, Result]) -> Result:
    """Wait for it. Only inside of a function that runs under `bridge`. What need not wait goes nowhere for it."""
    parent = getcurrent().parent
    if parent is None:
        raise RuntimeError("wait() was called outside of bridge()")
    try:
        waits_for = work.send(None)
    except StopIteration as done:
        return cast("Result", done.value)
    return cast("Result", parent.switch(_rest(work, waits_for)))
