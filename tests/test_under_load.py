"""Twenty connections send while workers and supervisor are killed, stopped, told new rules: a 250 is kept, always.

Kept means: stored once, under the id that was promised, and what is stored opens and is what was sent.
"""

import asyncio
import contextlib
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from inbound.actions.s3 import open_object
from inbound.app import cloud_of
from inbound.settings import Settings
from inbound.smtp_client import SmtpClient
from tests.harness import mail
from tests.test_workers import STORE, Served, _status, _until, served

MANY = 20
LIMITS = "limits: {connections_per_ip: 100}\n"
SEALED = STORE.replace("bucket: mail", "bucket: mail, kms_key: alias/mail")
OTHER = STORE.replace("bucket: mail", "bucket: other")


@dataclass
class Load:
    """What twenty senders were told. `promised`: the number of each message that got 250, by the id in it."""

    server: Served
    promised: dict[str, int] = field(default_factory=dict)
    heard: Counter[str] = field(default_factory=Counter)
    numbers: "count[int]" = field(default_factory=count)
    stop: bool = False

    async def send(self) -> None:
        """Several messages in one session, as long as it lasts."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            async with SmtpClient("127.0.0.1", self.server.port) as client:
                if client.greeting.code != 220:
                    self.heard[f"greeting {client.greeting.code}"] += 1
                    return
                for _ in range(5):
                    number = next(self.numbers)
                    answers = await client.send(
                        mail(f"number {number}.\r\n" * 50),
                        helo="mx.sender.example",
                        mail_from="pat@sender.example",
                        rcpt_to=("support@example.com",),
                    )
                    answer = answers.get("") or next(iter(answers.values()))
                    self.heard[str(answer.code)] += 1
                    if answer.code != 250 or self.stop:
                        return
                    self.promised[answer.lines[0].split()[-1]] = number

    async def sender(self) -> None:
        while not self.stop:
            await self.send()
            await asyncio.sleep(0.01)

    async def until_more(self, messages: int) -> None:
        """Wait until so many more were promised."""
        enough = len(self.promised) + messages
        await _until(lambda: len(self.promised) >= enough)


@asynccontextmanager
async def loaded(server: Served) -> AsyncIterator[Load]:
    load = Load(server)
    async with asyncio.TaskGroup() as group:
        for _ in range(MANY):
            group.create_task(load.sender())
        try:
            yield load
        finally:
            load.stop = True


async def opened(directory: Path, bucket: str = "mail") -> dict[str, int]:
    """The number in each stored message by its key, all opened as a consumer would; each number at most once."""
    stored: dict[str, int] = {}
    settings = Settings(data_dir=directory / "data")
    async with cloud_of(settings) as cloud:
        for path in (directory / "data" / "s3" / bucket).glob("*"):
            if path.suffix == ".json" or path.name.startswith("."):
                continue
            content = await open_object(cloud, bucket, path.name)
            (number,) = set(re.findall(rb"^number (-?\d+)\.\r$", content, re.MULTILINE))
            assert content.count(b"number ") == 50
            stored[path.name] = int(number)
    assert len(set(stored.values())) == len(stored)
    return stored


def kept(load: Load, stored: dict[str, int]) -> dict[str, int]:
    """Of what is stored, what was promised."""
    return {key: number for key, number in stored.items() if key in load.promised}


def test_workers_killed_one_after_the_other(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path, rules=SEALED, settings=LIMITS) as server:
            async with loaded(server) as load:
                for turn in range(4):
                    await load.until_more(40)
                    victim = server.workers[turn % 2]
                    os.kill(victim, signal.SIGKILL)
                    await server.until_workers(2, other_than=victim)
                await load.until_more(40)
            assert set(load.heard) <= {"250", "0", "greeting 0"}  # 0: the connection was lost with the worker
        assert kept(load, await opened(tmp_path)) == load.promised
        assert server.process.returncode == 0

    asyncio.run(story())


async def _supervisor(server: Served) -> None:
    server.process.kill()
    await _until(lambda: server.process.returncode is not None)


async def _all(server: Served) -> None:
    for pid in (server.process.pid, *server.workers):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [_supervisor, _all], ids=["the supervisor", "everything at once"])
def test_what_was_promised_is_there_when_it_is_started_again(
    tmp_path: Path, kill: Callable[[Served], Awaitable[None]]
) -> None:
    async def story() -> None:
        async with served(tmp_path, rules=SEALED, settings=LIMITS) as server:
            workers = server.workers
            async with loaded(server) as load:
                await load.until_more(100)
                await kill(server)
            await _until(lambda: not any(map(_status, workers)))
        async with served(tmp_path, rules=SEALED, settings=LIMITS) as again:
            assert kept(load, await opened(tmp_path)) == load.promised
            async with loaded(again) as more:
                await more.until_more(20)

    asyncio.run(story())


def test_who_is_told_to_stop_finishes_what_is_in_flight_and_loses_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path, settings=LIMITS) as server:
            async with loaded(server) as load:
                await load.until_more(60)
                server.process.terminate()
                await server.process.wait()
            assert server.process.returncode == 0
        # Whoever sent a whole message was told 250; who had not, 421 (0: no reply any more, the next session was not accepted).
        assert {code for code in load.heard if code.startswith(("4", "5", "greeting"))} <= {"421", "greeting 421"}
        stored = await opened(tmp_path)
        assert kept(load, stored) == load.promised

    asyncio.run(story())


def test_new_rules_are_for_transactions_to_come(tmp_path: Path) -> None:
    """MAIL FROM before the signal, and the end of data behind it: the rules of then."""

    async def begin(server: Served) -> SmtpClient:
        client = SmtpClient("127.0.0.1", server.port)
        await client.__aenter__()
        for line in ("EHLO x", "MAIL FROM:<pat@sender.example>", "RCPT TO:<support@example.com>"):
            assert (await client.command(line)).code == 250
        return client

    async def end(client: SmtpClient, number: int) -> str:
        assert (await client.command("DATA")).code == 354
        answer = await client.command(mail(f"number {number}.\r\n" * 50).decode() + ".")
        await client.__aexit__(None, None, None)
        return answer.lines[0].split()[-1]

    async def story() -> None:
        async with served(tmp_path, settings=LIMITS) as server, loaded(server) as load:
            await load.until_more(20)
            before = [await begin(server) for _ in range(8)]
            (tmp_path / "rules.yaml").write_text(OTHER)
            server.process.send_signal(signal.SIGHUP)
            await server.until_said("rules taken in force: store", 2)
            after = [await begin(server) for _ in range(8)]
            old = {await end(client, -1 - number) for number, client in enumerate(before)}
            new = {await end(client, -101 - number) for number, client in enumerate(after)}
            await load.until_more(20)
            load.stop = True
        mails, others = await opened(tmp_path, "mail"), await opened(tmp_path, "other")
        assert old <= mails.keys()
        assert new <= others.keys()
        assert not mails.keys() & others.keys()
        assert kept(load, mails | others) == load.promised
        assert set(load.heard) == {"250"}

    asyncio.run(story())
