"""BDAT (RFC 3030): octets by count, never taken for commands."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbound.receive.data import Chunked, Content
from inbound.settings import Limits
from tests.receive.talk import DONE, FakeDoor, Talk, run, served, talking, until

BARE = "550 5.6.11 bare CR, bare LF and NUL are not taken in a message (RFC 5321 2.3.8)"
FAILED = "503 5.5.1 thrown away behind an earlier error, RSET first"
BEGUN = "503 5.5.1 BDAT has begun this message, RSET first"
READY = ["EHLO client.test", "MAIL FROM:<a@sender.test>", "RCPT TO:<b@ours.test>"]


def talk_through(
    script: Sequence[str | bytes],
    door: FakeDoor | None = None,
    limits: Limits | None = None,
    *,
    pipelined: bool = False,
) -> list[str]:
    """Send lines and octets, one after the other's reply or all at once. Returns the replies, the greeting left out."""

    async def play() -> list[str]:
        async with served(door or FakeDoor(), limits=limits) as server, talking(server) as talk:
            await talk.reply()
            return await _play(talk, script, pipelined=pipelined)

    return run(play())


async def _play(talk: Talk, script: Sequence[str | bytes], *, pipelined: bool) -> list[str]:
    replies = []
    steps = [step if isinstance(step, bytes) else f"{step}\r\n".encode() for step in script]
    if pipelined:
        talk.send(b"".join(steps))
    for at, step in enumerate(steps):
        if not pipelined:
            talk.send(step)
        if isinstance(script[at], str) and at + 1 < len(script) and isinstance(script[at + 1], bytes):
            continue  # its octets first
        replies.append(await talk.reply())
    return replies


@pytest.mark.parametrize("pipelined", [False, True], ids=["in turns", "pipelined"])
def test_a_message_comes_in_chunks(pipelined: bool) -> None:
    door = FakeDoor()
    script: list[str | bytes] = [
        *READY,
        "BDAT 14",
        b"Subject: x\r\n\r\n",
        "bdat 9",
        b".\r\n..\r\nQU",
        "BDAT 5 last",
        b"IT\r\n\r\n"[:5],
        "NOOP",
        "MAIL FROM:<>",
        "RCPT TO:<c@ours.test>",
        "BDAT 4",
        b"\r\na\r",
        "BDAT 1",
        b"\n",
        "BDAT 0 LAST",
    ]
    replies = talk_through(script, door, pipelined=pipelined)
    assert replies == [
        "250 LIMITS MAILMAX=100 RCPTMAX=100",
        "250 2.1.0 OK",
        "250 2.1.5 OK",
        "250 2.0.0 14 octets",
        "250 2.0.0 9 octets",
        BARE,
        "250 2.0.0 OK",
        "250 2.1.0 OK",
        "250 2.1.5 OK",
        "250 2.0.0 4 octets",
        "250 2.0.0 1 octets",
        str(DONE),
    ]
    assert door.contents == [b"\r\na\r\n"]


def test_dots_are_nothing_special_in_chunks() -> None:
    door = FakeDoor()
    message = b"\r\n.\r\n..\r\n.x\r\n"
    replies = talk_through([*READY, f"BDAT {len(message)} LAST", message], door)
    assert replies[-1] == str(DONE)
    assert door.contents == [message]


REFUSALS: dict[str, tuple[list[str | bytes], list[str]]] = {
    "before MAIL": (
        ["EHLO a", "BDAT 6", b"QUIT\r\n", "BDAT 6 LAST", b"QUIT\r\n", *READY[1:], "BDAT 2 LAST", b"\r\n"],
        ["503 5.5.1 MAIL FROM first", FAILED, "250 2.1.0 OK", "250 2.1.5 OK", str(DONE)],
    ),
    "without recipients, and none can be added behind it": (
        ["EHLO a", "MAIL FROM:<>", "BDAT 6", b"QUIT\r\n", "RCPT TO:<b@ours.test>", "BDAT 6 LAST", b"QUIT\r\n", "MAIL FROM:<>"],
        ["250 2.1.0 OK", "554 5.5.1 no valid recipients", BEGUN, FAILED, "250 2.1.0 OK"],
    ),
    "a flaw in the middle": (
        [*READY, "BDAT 3", b"a\nb", "BDAT 6", b"QUIT\r\n", "DATA", "RCPT TO:<c@ours.test>", "BDAT 6 LAST", b"QUIT\r\n", "NOOP"],
        ["250 2.1.0 OK", "250 2.1.5 OK", BARE, FAILED, BEGUN, BEGUN, FAILED, "250 2.0.0 OK"],
    ),
    "a flaw, then RSET": (
        [*READY, "BDAT 3", b"a\nb", "RSET", *READY[1:], "BDAT 2 LAST", b"\r\n"],
        ["250 2.1.0 OK", "250 2.1.5 OK", BARE, "250 2.0.0 OK", "250 2.1.0 OK", "250 2.1.5 OK", str(DONE)],
    ),
    "DATA and RCPT behind a chunk": (
        [*READY, "BDAT 2", b"\r\n", "DATA", "RCPT TO:<c@ours.test>", "BDAT 3 LAST", b"x\r\n"],
        ["250 2.1.0 OK", "250 2.1.5 OK", "250 2.0.0 2 octets", BEGUN, BEGUN, str(DONE)],
    ),
    "a bare CR at the very end": (
        [*READY, "BDAT 3 LAST", b"\r\n\r"],
        ["250 2.1.0 OK", "250 2.1.5 OK", BARE],
    ),
    "a CR and its LF kept apart by a chunk that has neither": (
        [*READY, "BDAT 1", b"\r", "BDAT 1", b"x", "BDAT 1 LAST", b"\n"],
        ["250 2.1.0 OK", "250 2.1.5 OK", "250 2.0.0 1 octets", BARE, FAILED],
    ),
    "too large, as the count says": (
        [*READY, "BDAT 50", b"\r\n" + b"x" * 46 + b"\r\n", "BDAT 51", b"x" * 51, "BDAT 2 LAST", b"\r\n"],
        ["250 2.1.0 OK", "250 2.1.5 OK", "250 2.0.0 50 octets", "552 5.3.4 the message is larger than 100 octets", FAILED],
    ),
}  # fmt: skip


@pytest.mark.parametrize("pipelined", [False, True], ids=["in turns", "pipelined"])
@pytest.mark.parametrize(("script", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_refused_chunks_are_read_and_never_taken_for_commands(
    script: list[str | bytes], expected: list[str], pipelined: bool
) -> None:
    replies = talk_through(script, limits=Limits(message_bytes=100), pipelined=pipelined)
    assert replies[1:] == expected


@pytest.mark.parametrize(
    "argument", ["", " ", " x", " -1", " 1 FIRST", " 1LAST", " 1 LAST x", " ١", " 1" * 30, " 0x10"]
)
def test_a_count_that_cannot_be_read_ends_the_session(argument: str) -> None:
    async def play() -> list[str]:
        async with served(FakeDoor()) as server, talking(server) as talk:
            await talk.begin()
            talk.send(f"BDAT{argument}\r\nRSET\r\n".encode())
            return [await talk.line() for _ in range(3)]

    syntax = "501 5.5.4 syntax: BDAT octets [LAST]"
    assert run(play()) == [syntax, "421 4.7.0 what follows cannot be told from content, goodbye", "(closed)"]


MALFORMED = "500 5.5.2 a command is one line of printable characters that ends in CRLF"
TOO_LONG = "500 5.5.2 the command line is too long"


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (b"BDAT 12\tLAST", MALFORMED),
        (b"bdat\t12 LAST", MALFORMED),
        (b"BDAT 12 LAST\r", MALFORMED),
        (b"BDAT \xa012 LAST", MALFORMED),
        (b"BDAT 12\0", MALFORMED),
        (b"BDAT" + b" " * 3000 + b"12 LAST", TOO_LONG),
        (b"BDAT" + b" " * 300_000 + b"12 LAST", TOO_LONG),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_chunk_behind_a_line_that_cannot_be_read_is_not_taken_for_commands(command: bytes, reply: str) -> None:
    async def play() -> list[str]:
        async with served(FakeDoor()) as server, talking(server) as talk:
            await talk.begin()
            talk.send(command + b"\r\nRSET\r\nNOOP\r\n")
            return [await talk.line() for _ in range(3)]

    assert run(play()) == [reply, "421 4.7.0 what follows cannot be told from content, goodbye", "(closed)"]


def test_a_count_that_is_never_filled_ends_by_the_deadlines() -> None:
    async def play() -> list[str]:
        limits = Limits(data_idle_seconds=0.2)
        replies = []
        async with served(FakeDoor(), limits=limits) as server:
            for commands in (READY, READY[:1]):
                async with talking(server) as talk:
                    await talk.reply()
                    await _play(talk, commands, pipelined=False)
                    talk.send(b"BDAT 99999999999999999999 LAST\r\nNOOP\r\n")
                    replies.append(await talk.line())
            await until(lambda: server.edge.connections == 0)
        return replies

    assert run(play()) == ["421 4.4.2 you took too long, goodbye"] * 2


def test_what_a_message_held_is_given_back_when_it_is_left_in_the_middle() -> None:
    async def play() -> None:
        async with served(FakeDoor()) as server:
            for last_word in (b"RSET\r\n", b"EHLO again.test\r\n", b"QUIT\r\n", b""):
                async with talking(server) as talk:
                    await talk.begin()
                    talk.send(b"BDAT 50000\r\n" + b"x" * 50_000)
                    assert await talk.line() == "250 2.0.0 50000 octets"
                    assert server.edge.bytes_in_flight == 50_000
                    talk.send(last_word)
                    if last_word:
                        await talk.reply()
                await until(lambda: server.edge.bytes_in_flight == 0)

    run(play())


def test_a_chunk_is_busy_when_the_budget_is_spent_and_its_message_cannot_go_on_in_the_middle() -> None:
    go = asyncio.Event()

    async def wait(_raw: bytes) -> object:
        await go.wait()
        return DONE

    door = FakeDoor(at_message=wait)  # type: ignore[arg-type]

    async def play() -> list[str]:
        async with (
            served(door, limits=Limits(bytes_in_flight=1000)) as server,
            talking(server) as first,
            talking(server) as second,
        ):
            await first.begin_data()
            first.send(b"\r\n" + b"x" * 1000 + b"\r\n.\r\n")
            await until(lambda: bool(door.messages))
            await second.begin()
            replies = await _play(second, ["BDAT 2", b"\r\n"], pipelined=False)
            go.set()
            await first.line()
            return replies + await _play(second, ["BDAT 2 LAST", b"\r\n"], pipelined=False)

    assert run(play()) == ["452 4.3.1 too much mail at the moment, try again later", FAILED]
    assert len(door.messages) == 1


@settings(deadline=None)
@given(
    message=st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"\0", b"x", b".\r\n"]), max_size=20).map(b"".join),
    cuts=st.lists(st.integers(0, 30), max_size=10),
)
def test_any_chunking_gives_the_message_or_its_refusal(message: bytes, cuts: list[int]) -> None:
    content = Content(Limits())
    chunks = Chunked(content)
    places = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
    for at, place in enumerate(places[1:]):
        chunks.feed(message[places[at] : place])
    chunks.end()
    raw = content.finish()
    flawed = any(octet in line for line in message.split(b"\r\n") for octet in b"\r\n\0")
    assert (raw, str(content.flaw or "")) == ((b"", BARE) if flawed else (message, ""))
