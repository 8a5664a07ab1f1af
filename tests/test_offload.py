import asyncio
import threading
from contextvars import ContextVar

import pytest

from inbound.offload import bridge, offload, wait, within


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


async def at_once(number: int) -> int:
    return number + 1


async def forever(told: list[str]) -> int:
    try:
        await asyncio.sleep(3600)
    finally:
        told.append("ended")
    return 0


def test_what_does_not_wait_needs_no_deadline_and_what_waits_keeps_it() -> None:
    assert asyncio.run(within(0.0, at_once(1))) == 2
    assert asyncio.run(within(30.0, answer(1))) == 2
    told: list[str] = []
    with pytest.raises(TimeoutError):
        asyncio.run(within(0.01, forever(told)))
    assert told == ["ended"]


@pytest.mark.parametrize("rounds", [0, 1, 3], ids=["at once", "waiting", "waiting often"])
def test_an_error_under_a_deadline_is_the_work_s_own(rounds: int) -> None:
    async def fail() -> int:
        for _ in range(rounds):
            await asyncio.sleep(0)
        return int("x")

    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(within(30.0, fail()))


def test_an_error_of_what_is_waited_for_under_a_deadline_can_be_met_by_the_work() -> None:
    async def fail() -> int:
        await asyncio.sleep(0)
        return int("x")

    async def meet() -> str:
        try:
            return str(await asyncio.create_task(fail()))
        except ValueError:
            await asyncio.sleep(0)
            return "met"

    assert asyncio.run(within(30.0, meet())) == "met"


def test_who_gives_up_ends_the_work_under_a_deadline() -> None:
    async def run() -> list[str]:
        told: list[str] = []
        task = asyncio.create_task(within(30.0, forever(told)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return told

    assert asyncio.run(run()) == ["ended"]


@pytest.mark.parametrize(("inner", "outer", "expected"), [(0.01, 30.0, "inner"), (30.0, 0.01, "outer")])
def test_a_deadline_of_the_work_s_own_is_not_mistaken_for_this_one(inner: float, outer: float, expected: str) -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(inner):
                await asyncio.sleep(3600)
        except TimeoutError:
            await asyncio.sleep(0)
        return "inner"

    async def run() -> str:
        try:
            return await within(outer, work())
        except TimeoutError:
            return "outer"

    assert asyncio.run(run()) == expected


def test_what_a_bridged_function_waits_for_sees_the_context_of_its_caller() -> None:
    told: ContextVar[str] = ContextVar("told")

    async def begun() -> str:
        return await asyncio.create_task(late())

    async def late() -> str:
        return told.get()

    async def run() -> list[str]:
        told.set("here")
        return await bridge(lambda: [told.get(), wait(begun()), wait(late())])

    assert asyncio.run(run()) == ["here"] * 3
