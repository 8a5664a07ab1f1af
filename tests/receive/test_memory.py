"""The memory of a process of its own, as the kernel counts it, while it is attacked."""

import asyncio
import contextlib
import resource
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.receive.talk import Served, Talk, run, talking

MIB = 1024 * 1024
LINE = b"x" * 998 + b"\r\n"

# An edge whose door holds each message for a moment, as the examination would.
SERVER = """
import asyncio, sys
from inbound.reply import Reply
from inbound.settings import Limits
from tests.receive.talk import FakeDoor, run, served

async def held(raw):
    await asyncio.sleep(0.5)
    return Reply(250, "2.6.0", str(len(raw)))

async def play():
    door = FakeDoor(at_message=held)
    door.messages = door.opened = door.rebuffs = type("Nothing", (), {"append": lambda *_: None})()
    limits = Limits(connections_per_ip=500, idle_commands=10**9, errors=10**9, commands=10**9, tarpit_seconds=0)
    async with served(door, limits=limits) as server:
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

run(play())
"""


@asynccontextmanager
async def a_process() -> AsyncIterator[tuple[Served, Path]]:
    """The server, and where the kernel tells about its process."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await asyncio.wait_for(process.stdout.readline(), 30))
        edge: object = None
        yield Served(edge, "127.0.0.1", port), Path(f"/proc/{process.pid}")  # type: ignore[arg-type]
    finally:
        process.stdin.close()
        await process.wait()


def peak(process: Path) -> int:
    """Octets that the process held at most since `forget`."""
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def forget(process: Path) -> None:
    """Begin to count anew, from what it holds now (proc(5))."""
    (process / "clear_refs").write_text("5")


async def send(talk: Talk, octets: bytes, times: int) -> str:
    """So many octets behind DATA, an end, and the reply to it."""
    await talk.begin_data()
    talk.send(b"\r\n")  # it is all body
    for _ in range(times):
        talk.send(octets)
        await talk.writer.drain()
    talk.send(b"\r\n.\r\n")
    async with asyncio.timeout(40):
        return (await talk.reader.readline()).decode()[:9]


@pytest.mark.parametrize(
    ("octets", "reply"),
    [(b"x" * MIB, "554 5.6.0"), (LINE * 1000, "552 5.3.4"), (b"\n" * MIB, "550 5.6.1")],
    ids=["no line end", "good lines", "bare LF"],
)
def test_two_hundred_mib_take_no_more_than_a_message_may(octets: bytes, reply: str) -> None:
    async def play() -> tuple[str, int]:
        async with a_process() as (server, process), talking(server) as talk:
            forget(process)
            before = peak(process)
            answer = await send(talk, octets, 200 * MIB // len(octets))
            return answer, peak(process) - before

    answer, more = run(play())
    assert answer == reply
    assert more < (45 * MIB if octets.endswith(LINE) else 2 * MIB)


def test_a_command_without_an_end_takes_no_memory() -> None:
    async def play() -> tuple[str, int]:
        async with a_process() as (server, process), talking(server) as talk:
            await talk.reply()
            forget(process)
            before = peak(process)
            for _ in range(100):
                talk.send(b"x" * MIB)
                await talk.writer.drain()
            return (await talk.say(""))[:9], peak(process) - before

    answer, more = run(play())
    assert answer == "500 5.5.2"
    assert more < 2 * MIB


def test_forty_megabytes_in_parallel_take_no_more_than_two_and_a_half_times_their_size() -> None:
    many, times = 3, 40_000

    async def one(server: Served) -> str:
        async with talking(server) as talk:
            return await send(talk, LINE * 100, times // 100)

    async def play() -> tuple[list[str], int]:
        async with a_process() as (server, process):
            forget(process)
            before = peak(process)
            answers = await asyncio.gather(*(one(server) for _ in range(many)))
            return answers, peak(process) - before

    answers, more = run(play())
    assert answers == ["250 2.6.0"] * many
    assert times * len(LINE) * many < more < 2.5 * times * len(LINE) * many


async def _talk_for_ever(server: Served, octets: bytes, sockets: list[socket.socket]) -> None:
    """Send as long as anything is taken, and read nothing."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    sockets.append(client)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, (server.host, server.port))
    with contextlib.suppress(ConnectionError):
        while True:
            await loop.sock_sendall(client, octets)


@pytest.mark.parametrize(
    "octets",
    [b"HELP\r\n" * 1000, b"x" * 6000, b"EHLO x\r\n" * 100, b"A\r\nMAIL FROM:<a@b.test>\r\nRSET\r\n" * 100],
    ids=["HELP", "no command", "EHLO", "a mixture"],
)
def test_a_hundred_clients_that_send_and_never_read_take_little(octets: bytes) -> None:
    """What the edge holds of each is one read of the loop (256 KiB), and what it could not send (64 KiB), at most."""
    many = 100

    async def play() -> int:
        async with a_process() as (server, process):
            forget(process)
            before = peak(process)
            sockets: list[socket.socket] = []
            sending = [asyncio.create_task(_talk_for_ever(server, octets, sockets)) for _ in range(many)]
            await asyncio.sleep(1.0)
            more = peak(process) - before
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
            for client in sockets:
                client.close()
            return more

    assert run(play()) < many * 320 * 1024


@pytest.mark.parametrize("command", [b"DATA\r\n", b"BDAT 12000000 LAST\r\n"], ids=["DATA", "BDAT"])
def test_when_there_is_no_memory_for_a_message_nothing_of_it_is_taken_for_commands(command: bytes) -> None:
    async def play() -> list[str]:
        async with a_process() as (server, process), talking(server) as talk:
            await talk.begin()
            talk.send(command)
            if command.startswith(b"DATA"):
                await talk.line()
            size = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmSize:"))
            most = int(size.split()[1]) * 1024 + 3 * MIB
            _, highest = resource.prlimit(int(process.name), resource.RLIMIT_AS)
            resource.prlimit(int(process.name), resource.RLIMIT_AS, (most, highest))
            talk.send((b"x" * 992 + b"\r\nNOOP\r\n") * 12_000)
            return [await talk.line() for _ in range(3)]

    broken, left, closed = run(play())
    assert broken == "451 4.3.0 something went wrong here, try again later"
    assert left == "421 4.7.0 what follows cannot be told from content, goodbye"
    assert closed in {"(closed)", "(reset)"}
