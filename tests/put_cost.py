"""Our own CPU for a put of 4 KiB and for a data key, with boto3 and without it: `python -m tests.put_cost [CALLS]`.

The service is `tests.quick_aws` in a process of its own; twenty calls at a time, on the receiver's loop.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from inbound.clients.aws import AwsCloud
from tests.aws import ENVIRONMENT

METADATA = {f"x-amz-{name}": "v" * 60 for name in ("key-v2", "iv", "cek-alg", "wrap-alg", "tag-len", "matdesc")}
AT_ONCE = 20


async def cost(call: Callable[[int], Awaitable[object]], calls: int) -> tuple[float, float]:
    """Microseconds of CPU of one call, and calls in a second."""
    left = iter(range(calls))

    async def caller() -> None:
        for number in left:
            await call(number)

    await asyncio.gather(*[call(-number) for number in range(1, 2 * AT_ONCE)])  # connections, clients, the way
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(AT_ONCE)])
    return (time.process_time() - cpu) / calls * 1e6, calls / (time.perf_counter() - wall)


async def main() -> None:
    """Measure both, in turn."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    os.environ.update(ENVIRONMENT, AWS_EC2_METADATA_DISABLED="true")
    pipe = asyncio.subprocess.PIPE
    service = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.quick_aws", "0", stdout=pipe)
    assert service.stdout
    url = (await service.stdout.readline()).decode().strip()
    content, context = os.urandom(4096), {"aws:ses:rule-name": "support"}
    try:
        for how in ("boto3", "without") * 3:
            cloud = AwsCloud(region="us-east-1", endpoint_url=url)
            if how == "without":
                await cloud.__aenter__()
            kinds: dict[str, Callable[[int], Awaitable[object]]] = {
                "put": lambda n, cloud=cloud: cloud.put("bucket", f"in/{n}", content, metadata=METADATA),  # type: ignore[misc]
                "data key": lambda _, cloud=cloud: cloud.generate_data_key("alias/support", context),  # type: ignore[misc]
            }
            for kind, call in kinds.items():
                await call(0)  # the one that shows the way
                cpu, rate = await cost(call, calls)
                print(f"{how:8} {kind:8} {cpu:5.0f} us {rate:5.0f}/s", flush=True)  # noqa: T201
            await cloud.__aexit__(None, None, None)
    finally:
        service.terminate()
        await service.wait()


if __name__ == "__main__":
    uvloop.run(main())
