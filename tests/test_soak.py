"""Nothing is lost and nothing grows: connections by the thousand, and (`make soak`) mixed load for half an hour.

SOAK_SECONDS is how long the mixed load runs; without it, long enough to see that every kind of client does its part. Clients
rest between visits, SOAK_REST times what `RESTS` says (0: not at all), so that a long soak leaves some of the machine to others.
"""

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trustme

from inbound.smtp_client import SmtpClient
from tests.harness import mail
from tests.test_workers import Served, served

SECONDS = float(os.environ.get("SOAK_SECONDS", "4"))
LONG = SECONDS > 60
CONNECTIONS = 100_000 if LONG else 5_000
IDLE = 500 if LONG else 50
LARGE = 40_000_000 if LONG else 4_000_000  # octets
GROWTH = 64 * 1024 * 1024  # octets that a worker may have more at the end than after its first minute: fragmentation
REST = float(os.environ.get("SOAK_REST", "1" if LONG else "0"))
RESTS = {"good": 0.05, "secure": 0.05, "bad": 0.2, "slow": 0.1, "broken": 0.2, "large": 15.0}  # seconds between visits
LIMITS = "limits: {connections: 4000, connections_per_ip: 4000, messages_per_minute: 1000000, tarpit_seconds: 0}\n"


def _handles(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _until_handles(pids: list[int], most: list[int]) -> None:
    async with asyncio.timeout(30):
        while any(_handles(pid) > allowed for pid, allowed in zip(pids, most, strict=True)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _raw(server: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await reader.readline()
    return reader, writer


@pytest.mark.timeout(60 if not LONG else 3600)
def test_thousands_of_connections_leave_no_file_open(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path, settings=LIMITS) as server:
            workers = server.workers
            await asyncio.gather(*(server.send(number) for number in range(20)))
            before = [_handles(pid) + 3 for pid in workers]  # a log file, a lock
            numbers = iter(range(CONNECTIONS))

            async def come_and_go() -> None:
                for number in numbers:
                    reader, writer = await _raw(server)
                    if number % 3 == 0:  # goes without a word
                        writer.transport.abort()
                        continue
                    writer.write(b"QUIT\r\n")
                    assert (await reader.read()).startswith(b"221 ")
                    writer.close()

            await asyncio.gather(*(come_and_go() for _ in range(40)))
            await _until_handles(workers, before)
            assert server.workers == workers
            assert (await server.send(99)).code == 250

    asyncio.run(story())


@pytest.mark.timeout(60 if not LONG else SECONDS + 600)
def test_mixed_load_leaves_memory_flat_and_every_promise_kept(tmp_path: Path) -> None:
    tls, trusting = _certificate(tmp_path)

    async def story() -> None:
        async with served(tmp_path, settings=LIMITS + tls) as server:
            load = _Load(server, trusting)
            workers = server.workers
            await asyncio.gather(*(server.send(-number) for number in range(20)))
            before = [_handles(pid) + 3 for pid in workers]  # a log file, a lock
            watch = _Watch(workers)
            until = time.monotonic() + SECONDS
            async with asyncio.TaskGroup() as group:
                for client in load.clients():
                    group.create_task(load.go_on(client, until=until))
                for _ in range(IDLE):
                    group.create_task(load.idle(until=until))
                await watch.look(until)
            assert server.workers == workers
            assert set(load.did) == {client.__name__ for client in load.clients()}
            assert load.promised <= server.stored
            await _until_handles(workers, before)
            watch.look_once()
            print(f"\n{watch.table()}\n{dict(load.did)}, {len(load.promised)} promised")  # noqa: T201
            assert max(watch.grown()) < GROWTH, watch.table()

    asyncio.run(story())
    shutil.rmtree(tmp_path / "data")  # gigabytes


def _certificate(directory: Path) -> tuple[str, ssl.SSLContext]:
    """Settings with a certificate, and a client that trusts it."""
    authority = trustme.CA()
    issued = authority.issue_cert("mx.example.com")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    issued.cert_chain_pems[0].write_to_path(directory / "chain.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return f"tls: {{certificate: {directory}/chain.pem, key: {directory}/key.pem}}\n", trusting


class _Watch:
    """What the workers hold over time: seconds, and for each worker resident octets and open files."""

    def __init__(self, workers: list[int]) -> None:
        self._workers = workers
        self._started = time.monotonic()
        self._seen: list[tuple[float, list[int], list[int]]] = []

    def look_once(self) -> None:
        seconds = time.monotonic() - self._started
        self._seen.append((seconds, [*map(_resident, self._workers)], [*map(_handles, self._workers)]))

    async def look(self, until: float) -> None:
        """Look now and then: first when everybody is there."""
        await asyncio.sleep(min(60.0, SECONDS / 2))
        while time.monotonic() < until:
            self.look_once()
            await asyncio.sleep(min(60.0, max(until - time.monotonic(), 0.1)))
        self.look_once()

    def grown(self) -> list[int]:
        """Octets that each has more at the end than when it was looked at first."""
        return [last - first for first, last in zip(self._seen[0][1], self._seen[-1][1], strict=True)]

    def table(self) -> str:
        """One line for each look."""
        return "\n".join(
            f"{seconds:6.0f} s  RSS {[round(one / 1e6) for one in octets]} MB  files {files}"
            for seconds, octets, files in self._seen
        )


class _Load:
    """Clients of every kind. `did` counts what each got through, `promised` are the ids that were answered 250."""

    def __init__(self, server: Served, trusting: ssl.SSLContext) -> None:
        self.server = server
        self.did: Counter[str] = Counter()
        self.promised: set[str] = set()
        self._trusting = trusting
        self._numbers = itertools.count()

    def clients(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Who comes, and how many of each."""
        kinds = ((self.good, 4), (self.secure, 2), (self.bad, 2), (self.slow, 4), (self.broken, 2), (self.large, 1))
        for client, count in kinds:
            yield from itertools.repeat(client, count)

    async def go_on(self, client: Callable[[], Awaitable[None]], *, until: float) -> None:
        """Come again and again."""
        while time.monotonic() < until or not self.did[client.__name__]:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await client()
                self.did[client.__name__] += 1
            await asyncio.sleep(REST * RESTS[client.__name__])

    async def idle(self, *, until: float) -> None:
        """Stay, and say something once in a while; come again when that was too long ago."""
        secure = next(self._numbers) % 4 == 0
        while time.monotonic() < until:
            with contextlib.suppress(ConnectionError):
                async with SmtpClient("127.0.0.1", self.server.port) as client:
                    if secure:
                        await client.starttls(self._trusting, "mx.example.com")
                    while (await client.command("NOOP")).code == 250 and time.monotonic() < until:  # noqa: ASYNC110
                        await asyncio.sleep(min(random.uniform(60, 200), max(until - time.monotonic(), 0)))

    async def good(self) -> None:
        """An ordinary message."""
        await self._send(mail(f"number {next(self._numbers)}\r\n" * random.randint(1, 500)))

    async def secure(self) -> None:
        """An ordinary message under TLS."""
        await self._send(mail(f"number {next(self._numbers)}\r\n" * random.randint(1, 500)), self._trusting)

    async def large(self) -> None:
        """As large as it may be."""
        line = f"{next(self._numbers):070}\r\n"
        await self._send(mail(line * (LARGE // len(line))))

    async def bad(self) -> None:
        """Commands that are none, and content that is refused."""
        reader, writer = await _raw(self.server)
        writer.write(
            b"EHLO x\r\nFOO\r\nMAIL FROM:<\r\nRCPT TO:<a@b>\r\nDATA\r\n" + random.randbytes(200) + b"\r\nQUIT\r\n"
        )
        await asyncio.wait_for(reader.read(), 30)
        writer.close()

    async def slow(self) -> None:
        """Octet by octet, and gone before the end."""
        reader, writer = await _raw(self.server)
        for octet in b"EHLO slow.example\r\nMAIL FROM:<a@slow.example>\r\n":
            writer.write(bytes([octet]))
            await asyncio.sleep(0.005)
        await reader.readline()
        writer.close()

    async def broken(self) -> None:
        """In the middle of a message the connection is reset."""
        reader, writer = await _raw(self.server)
        writer.write(b"HELO x.example\r\nMAIL FROM:<pat@sender.example>\r\nRCPT TO:<support@example.com>\r\nDATA\r\n")
        for _ in range(4):
            await reader.readline()
        writer.write(b"Subject: never ended\r\n" + b"x" * 50_000)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST, not FIN
        writer.transport.abort()

    async def _send(self, raw: bytes, tls: ssl.SSLContext | None = None) -> None:
        async with SmtpClient("127.0.0.1", self.server.port) as client:
            if tls:
                await client.starttls(tls, "mx.example.com")
            answers = await client.send(
                raw, helo="mx.sender.example", mail_from="pat@sender.example", rcpt_to=("support@example.com",)
            )
        answer = answers.get("")
        if answer is not None and answer.code == 250:
            self.promised.add(answer.lines[0].split()[-1])
