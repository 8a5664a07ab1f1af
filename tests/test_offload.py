import asyncio
import threading

import pytest

from inbound.offload import bridge, offload, wait


def test_offloaded_work_runs_in_another_thread() -> None:
    assert asyncio.run(offload(threading.get_ident)) != threading.get_ident()


def test_offloaded_work_takes_arguments_and_hands_its_error_back() -> None:
    assert asyncio.run(offload(int, "ff", base=16)) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(offload(int, "x"))


async def answer(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


def test_a_synchronous_function_waits_for_coroutines() -> None:
    def count(number: int, *, rounds: int) -> int:
        for _ in range(rounds):
            number = wait(answer(number))
        return number

    assert asyncio.run(bridge(count, 0, rounds=5)) == 5


def test_an_error_of_a_coroutine_arrives_where_it_is_waited_for() -> None:
    async def fail() -> None:
        raise LookupError("nothing there")

    def catch() -> str:
        try:
            wait(fail())
        except LookupError as error:
            return str(error)
        return ""

    assert asyncio.run(bridge(catch)) == "nothing there"


def test_an_error_of_the_function_arrives_outside() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(bridge(int, "x"))


def test_many_bridges_do_not_hold_each_other_up() -> None:
    async def run() -> list[int]:
        barrier = asyncio.Barrier(20)

        async def meet(number: int) -> int:
            await barrier.wait()
            return number

        def waiting(number: int) -> int:
            return wait(meet(number))

        return await asyncio.gather(*(bridge(waiting, at) for at in range(20)))

    assert asyncio.run(run()) == list(range(20))


def test_a_cancelled_bridge_ends_though_the_function_swallows_every_error() -> None:
    ended = []

    def stubborn() -> str:
        try:
            wait(asyncio.sleep(60))
        except:  # noqa: E722 - as pyspf has it
            ended.append("here")
        return "verdict"

    async def run() -> None:
        async with asyncio.timeout(0.01):
            await bridge(stubborn)

    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert ended == ["here"]


def test_waiting_outside_of_a_bridge_is_an_error() -> None:
    waiting = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match=r"outside of bridge\(\)"):
        wait(waiting)
    waiting.close()
