"""The one door to threads: work that takes a processor or a disk for long."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import ParamSpec, TypeVar

THREADS = min(4, os.cpu_count() or 1)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="inbound-offload")


async def offload(function: Callable[Arguments, Result], *args: Arguments.args, **more: Arguments.kwargs) -> Result:
    """Run it in a thread and wait. Cancelling the wait does not stop the thread."""
    return await asyncio.get_running_loop().run_in_executor(_pool(), partial(function, *args, **more))
