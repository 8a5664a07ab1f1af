"""Shared data keys: within their limits, for those who may share them, forgotten in time."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbound.clients import DataKey, Sharing
from inbound.clients.data_keys import DataKeys
from inbound.errors import TemporaryFailure

LIMITS = Sharing(scope="bucket", messages=3, octets=100, seconds=60)


class Kms:
    """Makes keys, each another one, and keeps hold of what it gave."""

    def __init__(self, *, fails: int = 0) -> None:
        self.made: list[DataKey] = []
        self.fails = fails

    async def __call__(self) -> DataKey:
        await asyncio.sleep(0.001)
        if self.fails:
            self.fails -= 1
            raise TemporaryFailure("down")
        number = len(self.made) + 1
        self.made.append(DataKey(plaintext=bytearray([number]) * 32, wrapped=b"%d" % number, key_arn="k"))
        return self.made[-1]


def story(work: Callable[[DataKeys, Kms], Any], **more: Any) -> Kms:
    kms = Kms(**more)

    async def run() -> None:
        keys = DataKeys()
        await work(keys, kms)
        keys.close()

    asyncio.run(run())
    return kms


def test_a_key_seals_so_many_messages_and_then_there_is_another() -> None:
    async def work(keys: DataKeys, kms: Kms) -> None:
        got = [await keys.get("n", LIMITS, 1, kms) for _ in range(7)]
        assert [one.wrapped for one in got] == [b"1", b"1", b"1", b"2", b"2", b"2", b"3"]
        assert [one.plaintext for one in got] == [bytes([number]) * 32 for number in (1, 1, 1, 2, 2, 2, 3)]
        assert kms.made[0].plaintext == bytes(32)  # overwritten
        counted = keys.counters
        assert (counted.data_keys_made, counted.data_keys_used_again, counted.data_keys_forgotten) == (3, 4, 2)

    story(work)


def test_a_key_seals_so_many_octets_and_a_larger_message_has_its_own() -> None:
    async def work(keys: DataKeys, kms: Kms) -> None:
        got = [(await keys.get("n", LIMITS, octets, kms)).wrapped for octets in (60, 40, 1, 101, 99)]
        assert got == [b"1", b"1", b"2", b"3", b"2"]

    story(work)


def test_a_key_is_overwritten_at_its_age_also_when_nobody_asks() -> None:
    async def work(keys: DataKeys, kms: Kms) -> None:
        young = Sharing(scope="bucket", messages=3, octets=100, seconds=0.02)
        own = await keys.get("n", young, 1, kms)
        await asyncio.sleep(0.05)
        assert bytes(kms.made[0].plaintext) == bytes(32)
        assert bytes(own.plaintext) == bytes([1]) * 32
        assert (await keys.get("n", young, 1, kms)).wrapped == b"2"

    story(work)


def test_only_who_may_share_a_key_does() -> None:
    async def work(keys: DataKeys, kms: Kms) -> None:
        other = Sharing(scope="another", messages=3, octets=100, seconds=60)
        got = [await keys.get(*who, 1, kms) for who in (("n", LIMITS), ("m", LIMITS), ("n", other), ("n", LIMITS))]
        assert [one.wrapped for one in got] == [b"1", b"2", b"3", b"1"]

    story(work)


def test_many_at_once_wait_for_one_call() -> None:
    async def work(keys: DataKeys, kms: Kms) -> None:
        got = await asyncio.gather(*[keys.get("n", LIMITS, 1, kms) for _ in range(9)])
        assert sorted(one.wrapped for one in got) == [b"1"] * 3 + [b"2"] * 3 + [b"3"] * 3

    assert len(story(work).made) == 3


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(0, 3)), max_size=40),
    st.integers(1, 5),
    st.integers(1, 50),
)
def test_no_key_is_used_beyond_its_limits_or_by_another_name_whoever_asks_when(
    asked: list[tuple[str, int, int]], messages: int, octets: int
) -> None:
    limits = Sharing(scope="bucket", messages=messages, octets=octets, seconds=60)
    used: dict[bytes, list[tuple[str, int]]] = {}

    async def work(keys: DataKeys, kms: Kms) -> None:
        async def one(name: str, size: int, turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            got = await keys.get(name, limits, size, kms)
            assert bytes(got.plaintext) == bytes([int(got.wrapped)]) * 32  # not overwritten
            used.setdefault(got.wrapped, []).append((name, size))

        await asyncio.gather(*[one(*who) for who in asked])

    made = story(work).made
    assert {one.wrapped for one in made} == used.keys()
    assert sum(map(len, used.values())) == len(asked)
    for uses in used.values():
        assert len({name for name, _ in uses}) == 1
        assert len(uses) <= messages
        assert len(uses) == 1 or sum(size for _, size in uses) <= octets


def test_a_failure_is_that_of_all_who_waited_and_not_of_the_next() -> None:
    async def work(keys: DataKeys, kms: Kms) -> None:
        got = await asyncio.gather(*[keys.get("n", LIMITS, 1, kms) for _ in range(3)], return_exceptions=True)
        assert [type(one) for one in got] == [TemporaryFailure] * 3
        assert (await keys.get("n", LIMITS, 1, kms)).wrapped == b"1"

    story(work, fails=1)


def test_who_gives_up_takes_the_key_from_nobody() -> None:
    async def work(keys: DataKeys, kms: Kms) -> None:
        first = asyncio.ensure_future(keys.get("n", LIMITS, 1, kms))
        second = asyncio.ensure_future(keys.get("n", LIMITS, 1, kms))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).wrapped == b"1"

    assert len(story(work).made) == 1


def test_everybody_has_a_copy_and_the_end_overwrites_all() -> None:
    async def work(keys: DataKeys, kms: Kms) -> None:
        own = await keys.get("n", LIMITS, 1, kms)
        own.forget()
        assert own.plaintext == bytes(32)
        assert (await keys.get("n", LIMITS, 1, kms)).plaintext == bytes([1]) * 32

    assert [one.plaintext for one in story(work).made] == [bytes(32)]
