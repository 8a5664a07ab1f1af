"""`make soak`: half an hour of good, bad, slow and broken clients against a real receiver, whose memory must stay flat.

    python -m tests.soak [SECONDS]        1800 by default; SOAK_CONNECTIONS=100000 is the least number of connections made

The receiver runs as it does in service: two workers, TLS, DNS, a local cloud. 500 clients are connected and say nothing, one
sends 40 MB all the time. Every `EVERY` seconds the memory and the descriptors of all its processes are looked at. It fails
when a client gets an answer it must not get, when something was logged as an error, when the highest memory of the second
half is more than a tenth above that of the first (behind a warm-up), or when descriptors are left over at the end.
"""

import asyncio
import contextlib
import os
import random
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from inbound.testing import DnsServer
from tests.harness import DNS, mail

EVERY = 5.0  # seconds
IDLE = 500
BIG = 40 * 1024 * 1024 - 65_536
WARM_UP = 0.2  # of the time
RULES = """
rules:
  - {name: big, recipients: [big@example.com], scan: no, actions: [drop]}
  - {name: store, recipients: [example.com], actions: [s3: {bucket: mail-all}]}
"""


class WrongAnswer(Exception):
    """A client was told what it must not be told."""


@dataclass
class Soak:
    """The receiver, and what has happened to its clients."""

    host: str
    port: int
    directory: Path
    pid: int
    trust: ssl.SSLContext
    until: float
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def connection(self) -> Any:
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=2**20)
        self.counts["connections"] += 1
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def again(self, kind: str, client: Callable[["Soak"], Coroutine[Any, Any, None]], pause: float) -> None:
        """One client after the other, until the time is over."""
        while time.monotonic() < self.until:
            try:
                await client(self)
                self.counts[kind] += 1
            except (OSError, asyncio.IncompleteReadError):
                self.counts[f"{kind}: lost"] += 1
            except WrongAnswer as wrong:
                self.wrong.append(f"{kind}: {wrong}")
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))

    def processes(self) -> list[int]:
        """The supervisor and its workers."""
        found = [self.pid]
        for each in found:
            for task in Path(f"/proc/{each}/task").glob("*/children"):
                found += [int(child) for child in task.read_text().split()]
        return found

    def memory(self) -> float:
        """MiB that all processes hold of their own, and share with each other counted once (Pss)."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        return total / 1024

    def descriptors(self) -> int:
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                total += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return total


async def answer(reader: asyncio.StreamReader, wanted: str, to: str) -> str:
    """The next reply, which must begin with one of these digits or codes (blank-separated)."""
    while True:
        line = (await asyncio.wait_for(reader.readuntil(b"\n"), 120)).decode()
        if line[3:4] != "-":
            break
    if not line.startswith(tuple(wanted.split())):
        raise WrongAnswer(f"{line.strip()} to {to}")
    return line


async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str, wanted: str) -> str:
    writer.write(line.encode() + b"\r\n")
    return await answer(reader, wanted, line)


async def bring(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes, to: str) -> None:
    await say(reader, writer, "EHLO mx.sender.example", "250")
    await say(reader, writer, "MAIL FROM:<pat@sender.example>", "250")
    await say(reader, writer, f"RCPT TO:<{to}>", "250")
    await say(reader, writer, "DATA", "354")
    writer.write(raw)
    await writer.drain()
    writer.write(b".\r\n")
    await answer(reader, "250", "the end of data")


async def good(soak: Soak) -> None:
    async with soak.connection() as (reader, writer):
        await answer(reader, "220", "nothing")
        if random.random() < 0.5:
            await say(reader, writer, "EHLO mx.sender.example", "250")
            await say(reader, writer, "STARTTLS", "220")
            await writer.start_tls(soak.trust, server_hostname="mx.example.com")
        for _ in range(random.randint(1, 3)):
            body = "".join(f"{random.getrandbits(256):064x}\r\n" for _ in range(random.choice((5, 50, 800))))
            await bring(reader, writer, mail(body), "support@example.com")
        await say(reader, writer, "QUIT", "221")


async def churning(soak: Soak) -> None:
    async with soak.connection() as (reader, writer):
        await answer(reader, "220", "nothing")
        if random.random() < 0.5:
            await say(reader, writer, "QUIT", "221")


async def big(soak: Soak) -> None:
    async with soak.connection() as (reader, writer):
        await answer(reader, "220", "nothing")
        line = b"x" * 998 + b"\r\n"
        await bring(reader, writer, b"From: a@sender.example\r\n\r\n" + line * (BIG // len(line)), "big@example.com")


BAD = [
    (b"MAIL FROM:<a@b.example>\r\nRCPT TO:<x@elsewhere.example>\r\nDATA\r\n", ("250", "550", "554")),  # no relay
    (b"MAIL FROM:<a@b.example>\r\nRCPT TO:<x@[127.0.0.1]>\r\n", ("250", "550")),
    (b"\xff\xfe\r\nGARBAGE\r\nMAIL FROM:<a@b\r\n", ("500", "500", "501")),
    (b"RCPT TO:<a@example.com>\r\nDATA\r\nBDAT 5\r\nxxxxx", ("503", "503", "503")),
    (b"MAIL FROM:<a@b.example> SIZE=99999999999\r\n", ("552",)),
    (b"x" * 100_000 + b"\r\n", ("500",)),
    (
        b"MAIL FROM:<a@b.example>\r\nRCPT TO:<support@example.com>\r\nDATA\r\na\nb\n.\nRSET\n\r\n.\r\n",
        ("250", "250", "354", "550"),
    ),
]


async def bad(soak: Soak) -> None:
    async with soak.connection() as (reader, writer):
        await answer(reader, "220", "nothing")
        await say(reader, writer, "EHLO bot.example", "250")
        octets, wanted = random.choice(BAD)
        writer.write(octets)
        for one in wanted:
            await answer(reader, f"{one} 421", repr(octets[:60]))


async def slow(soak: Soak) -> None:
    async with soak.connection() as (reader, writer):
        await answer(reader, "220", "nothing")
        raw = b"EHLO slow.example\r\nMAIL FROM:<pat@sender.example>\r\nRCPT TO:<support@example.com>\r\nDATA\r\n"
        for octet in raw + mail() + b".\r\n":
            writer.write(bytes([octet]))
            await asyncio.sleep(random.random() * 0.1)
        for wanted in ("250", "250", "250", "354", "250"):
            await answer(reader, wanted, "an octet at a time")


async def broken(soak: Soak) -> None:
    async with soak.connection() as (reader, writer):
        octets = b"EHLO x\r\nMAIL FROM:<pat@sender.example>\r\nRCPT TO:<support@example.com>\r\nDATA\r\n" + mail() * 50
        writer.write(octets[: random.randint(0, len(octets))])
        await writer.drain()
        if random.random() < 0.5:
            await asyncio.wait_for(reader.read(10), 60)
        writer.transport.abort()


async def idle(soak: Soak) -> None:
    async with soak.connection() as (reader, _):
        await answer(reader, "220", "nothing")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(), max(0.0, soak.until - time.monotonic()))


CLIENTS: list[tuple[str, Callable[[Soak], Coroutine[Any, Any, None]], int, float]] = [
    ("good", good, 8, 0.05),
    ("churning", churning, 8, 0.02),
    ("big", big, 1, 0.5),
    ("bad", bad, 4, 0.05),
    ("slow", slow, 10, 0.1),
    ("broken", broken, 4, 0.05),
    ("idle", idle, IDLE, 1.0),
]


async def look(soak: Soak, seconds: float) -> list[float]:
    """Measure until the time is over, and throw away what was stored."""
    begun, measured = time.monotonic(), []
    while time.monotonic() < soak.until:
        await asyncio.sleep(EVERY)
        measured.append(soak.memory())
        done = ", ".join(f"{name} {count}" for name, count in sorted(soak.counts.items()))
        at = time.monotonic() - begun
        print(f"{at:6.0f}/{seconds:.0f} s  {measured[-1]:6.0f} MiB  {soak.descriptors():5} fds  {done}", flush=True)
        await asyncio.to_thread(_empty, soak.directory / "data" / "s3")
    return measured


def _empty(place: Path) -> None:
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.name.startswith(".") and time.time() - path.stat().st_mtime > EVERY:
                path.unlink()


async def _ready(host: str, port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
                return
            await asyncio.sleep(0.1)


async def main(seconds: float) -> int:
    """Run it. Returns an exit code."""
    directory = Path(tempfile.mkdtemp(prefix="inbound-soak-"))
    authority = trustme.CA()
    certificate = authority.issue_cert("mx.example.com", key_type=trustme.KeyType.ECDSA)
    certificate.cert_chain_pems[0].write_to_path(directory / "chain.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    (directory / "rules.yaml").write_text(RULES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dns = await DnsServer(DNS).start()
    (directory / "inbound.yaml").write_text(
        f"listen: ['127.0.0.1:{port}']\nhostname: mx.example.com\nworkers: 2\nrules: rules.yaml\nlog: json\n"
        f"resolver: {dns.address}\ntls: {{certificate: chain.pem, key: key.pem}}\nclamd: ''\n"
        "limits: {connections: 2000, connections_per_ip: 2000, tarpit_seconds: 0.1}\n"
    )
    errors = directory / "errors.log"
    with errors.open("wb") as stderr, (directory / "journal.log").open("wb") as stdout:
        server = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "inbound",
            "serve",
            "--config",
            str(directory / "inbound.yaml"),
            stdout=stdout,
            stderr=stderr,
        )
        try:
            await _ready("127.0.0.1", port)
            soak = Soak("127.0.0.1", port, directory, server.pid, trust, time.monotonic() + seconds)
            await asyncio.sleep(1)
            before = soak.descriptors()
            looking = asyncio.create_task(look(soak, seconds))
            await asyncio.gather(
                *(soak.again(kind, client, pause) for kind, client, many, pause in CLIENTS for _ in range(many))
            )
            measured = await looking
            await asyncio.sleep(3)
            after = soak.descriptors()
        finally:
            server.terminate()
            await server.wait()
            await dns.stop()
    return report(soak, measured, (before, after), errors)


def report(soak: Soak, measured: list[float], descriptors: tuple[int, int], errors: Path) -> int:
    """Say what was found."""
    flat = measured[int(len(measured) * WARM_UP) :]
    first, second = max(flat[: len(flat) // 2]), max(flat[len(flat) // 2 :])
    least = int(os.environ.get("SOAK_CONNECTIONS", "0"))
    logged = [line for line in errors.read_text().splitlines() if "ERROR" in line or line.startswith("Traceback")]
    faults = [
        *soak.wrong[:20],
        *logged[:20],
        *([f"memory rose from {first:.0f} to {second:.0f} MiB"] if second > first * 1.1 else []),
        *(
            [f"descriptors rose from {descriptors[0]} to {descriptors[1]}"]
            if descriptors[1] > descriptors[0] + 20
            else []
        ),
        *([f"only {soak.counts['connections']} connections"] if soak.counts["connections"] < least else []),
    ]
    print(f"memory: at most {first:.0f} MiB in the first half, {second:.0f} MiB in the second")
    print(f"descriptors: {descriptors[0]} before, {descriptors[1]} behind {soak.counts['connections']} connections")
    print("\n".join(faults) if faults else "all well")
    if not faults:
        shutil.rmtree(soak.directory, ignore_errors=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 1800.0)))
