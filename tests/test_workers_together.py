"""Several workers are one server: limits count over all of them, and one that is killed takes its counts with it."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from inbound.smtp_client import SmtpClient
from tests.test_workers import Served, served

TOO_MANY = "421 4.7.0 too many connections from your address, try again later"
FULL = "421 4.3.2 too many connections at the moment, try again later"
TOO_FAST = "450 4.7.1 too many messages from your address, try again later"


@contextmanager
def only(server: Served, number: int) -> Iterator[int]:
    """Meanwhile one of the two workers has every connection: the other stands still. Its process id."""
    one, other = server.workers[number], server.workers[1 - number]
    os.kill(other, signal.SIGSTOP)
    try:
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(other, signal.SIGCONT)


@asynccontextmanager
async def connected(server: Served, *counts: int) -> AsyncIterator[list[str]]:
    """So many connections to the first worker and the second, which stay; the first words that they hear."""
    async with contextlib.AsyncExitStack() as stack:
        heard = []
        for number, count in enumerate(counts):
            with only(server, number):
                for _ in range(count):
                    client = SmtpClient("127.0.0.1", server.port)
                    await stack.enter_async_context(client)
                    heard.append(f"{client.greeting.code} {client.greeting.lines[0]}")
        yield heard


def codes(heard: list[str]) -> list[str]:
    return [line[:3] for line in heard]


def test_connections_of_one_place_are_counted_over_all_workers(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path, settings="limits: {connections_per_ip: 4}\n") as server:
            async with connected(server, 2, 3) as heard:
                assert codes(heard) == ["220"] * 4 + ["421"]
                assert heard[-1] == TOO_MANY
                async with connected(server, 1) as more:
                    assert more == [TOO_MANY]
            async with connected(server, 0, 5) as heard:  # who has gone is not counted any more
                assert codes(heard) == ["220"] * 4 + ["421"]

    asyncio.run(story())


def test_connections_in_all_are_counted_over_all_workers(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path, settings="limits: {connections: 3}\n") as server:
            async with connected(server, 1, 3) as heard:
                assert codes(heard) == ["220"] * 3 + ["421"]
                assert heard[-1] == FULL
            async with connected(server, 3) as heard:  # and one worker may have them all
                assert codes(heard) == ["220"] * 3

    asyncio.run(story())


def test_a_killed_worker_takes_its_counts_with_it(tmp_path: Path) -> None:
    async def story() -> None:
        limit = "limits: {connections_per_ip: 4}\n"
        async with served(tmp_path, settings=limit) as server, connected(server, 2, 2) as heard:
            assert codes(heard) == ["220"] * 4
            victim = server.workers[1]
            os.kill(victim, signal.SIGKILL)
            await server.until_workers(2, other_than=victim)
            await server.until_said("ended by SIGKILL")
            async with connected(server, 1, 2) as more:
                assert codes(more) == ["220", "220", "421"]

    asyncio.run(story())


def test_messages_of_one_place_are_counted_over_all_workers_and_outlast_them(tmp_path: Path) -> None:
    async def mail(server: Served, number: int) -> str:
        with only(server, number):
            async with SmtpClient("127.0.0.1", server.port) as client:
                await client.command("EHLO mx.sender.example")
                answer = await client.command("MAIL FROM:<pat@sender.example>")
                return f"{answer.code} {answer.lines[0]}"

    async def story() -> None:
        async with served(tmp_path, settings="limits: {messages_per_minute: 2}\n") as server:
            assert [(await mail(server, number))[:3] for number in (0, 1)] == ["250", "250"]
            assert [await mail(server, number) for number in (0, 1)] == [TOO_FAST] * 2
            for victim in server.workers:
                os.kill(victim, signal.SIGKILL)
                await server.until_workers(2, other_than=victim)
            assert [await mail(server, number) for number in (0, 1)] == [TOO_FAST] * 2

    asyncio.run(story())
