"""The content of a message: its end, its flaws, its caps, and the smuggling sequences."""

import asyncio
import gc
import resource
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbound.receive.data import Content, DotStuffed
from inbound.receive.memory import keep_large_blocks_apart
from inbound.reply import Reply
from inbound.settings import MIB, Limits
from tests.receive.talk import FakeDoor, Served, run, served, talking, until

SMALL = Limits(message_bytes=200, line_bytes=50, header_bytes=80, header_fields=4)
BARE = Reply(550, "5.6.11", "bare CR, bare LF and NUL are not taken in a message (RFC 5321 2.3.8)")


def read(chunks: Sequence[bytes], limits: Limits = SMALL) -> tuple[bytes, Reply | None, bytes | None]:
    """What the reader makes of these chunks: the message, its flaw, and what lies behind the end."""
    content = Content(limits)
    data = DotStuffed(content)
    for number, chunk in enumerate(chunks):
        behind = data.feed(chunk)
        if behind is not None:
            return content.finish(), content.flaw, behind + b"".join(chunks[number + 1 :])
    return content.finish(), content.flaw, None


def oracle(stream: bytes) -> tuple[bytes, bool, bytes | None]:
    """The same, said in the simplest way: the message, whether it has bare line ends, what lies behind it."""
    end = (b"\r\n" + stream).find(b"\r\n.\r\n")
    behind = None if end < 0 else stream[end + 3 :]
    lines = stream[: len(stream) if end < 0 else end].split(b"\r\n")
    message = b"\r\n".join(line.removeprefix(b".") for line in lines)
    return message, any(octet in line for line in lines for octet in b"\r\n\0"), behind


STREAMS = st.lists(
    st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"\0", b"x", b"\r\n.\r\n", b"..", b"\r\n.", b"To: x\r\n"]),
    max_size=30,
).map(b"".join)


@settings(deadline=None)
@given(stream=STREAMS, cuts=st.lists(st.integers(0, 100), max_size=20))
def test_any_chunking_gives_what_the_whole_gives(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[start:stop] for start, stop in pairwise(places)]
    roomy = Limits(header_fields=1000)
    message, flawed, behind = oracle(stream)
    found, flaw, found_behind = read([*chunks, b""], roomy)
    assert found_behind == behind
    if behind is not None:
        assert flaw == (BARE if flawed else None)
        assert found == (b"" if flawed else message)


@settings(deadline=None)
@given(stream=STREAMS)
def test_one_octet_at_a_time_gives_what_the_whole_gives(stream: bytes) -> None:
    if oracle(stream)[2] is None:
        stream += b"\r\n.\r\n"
    assert read([stream[at : at + 1] for at in range(len(stream))]) == read([stream])


@settings(deadline=None)
@given(lines=st.lists(st.binary(max_size=60).map(lambda line: line.translate(None, b"\r\n\0")), max_size=12))
def test_the_caps_hold_wherever_the_chunks_are_cut(lines: list[bytes]) -> None:
    message = b"".join(b"%s\r\n" % line for line in lines)
    stream = b"".join(b"%s\r\n" % (b"." + line if line.startswith(b".") else line) for line in lines) + b".\r\n"
    found, flaw, behind = read([stream])
    assert behind == b""
    assert read([stream[at : at + 7] for at in range(0, len(stream), 7)])[2] == b""
    if flaw is None:
        assert found == message
        assert len(message) <= SMALL.message_bytes
        assert max((len(line) for line in lines), default=0) <= SMALL.line_bytes


TOO_LARGE = "552 5.3.4 the message is larger than 200 octets"
HEADER = "552 5.3.4 the header is larger than 80 octets"

CAPS = {
    "a message of just the limit": (b"\r\n" + (b"x" * 48 + b"\r\n") * 3 + b"x" * 46 + b"\r\n", None),
    "a line of just the limit": (b"\r\n" + b"x" * 50 + b"\r\n", None),
    "a header of just the limit": (b"a: " + b"x" * 36 + b"\r\nb: " + b"x" * 36 + b"\r\n\r\nbody\r\n", None),
    "fields of just the limit": (b"a: b\r\n" * 4 + b"\r\n", None),
    "fields of just the limit, no body": (b"a: b\r\n" * 4, None),
    "folds are not fields": (b"a: b\r\n" + b" c\r\n\td\r\n" * 7 + b"\r\n", None),
    "no header": (b"\r\n" + b"x\r\n" * 60, None),
    "an octet too many": (b"\r\n" + b"x" * 47 + b"\r\n" + (b"x" * 48 + b"\r\n") * 3, TOO_LARGE),
    "a line too long": (b"\r\n" + b"x" * 51 + b"\r\n", "554 5.6.0 a line is longer than 50 octets"),
    "a line too long at the end": (b"\r\nx\r\n" + b"x" * 51 + b"\r\n", "554 5.6.0 a line is longer than 50 octets"),
    "a header too large": (b"a: " + b"x" * 37 + b"\r\nb: " + b"x" * 36 + b"\r\n\r\n", HEADER),
    "nothing but header": (b"a: bcdefgh\r\n" * 7, HEADER),
    "a field too many": (b"a: b\r\n" * 5 + b"\r\n", "554 5.6.0 the header has more than 4 fields"),
    "a field too many, no body": (b"a: b\r\n" * 5, "554 5.6.0 the header has more than 4 fields"),
}  # fmt: skip


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(("message", "refusal"), CAPS.values(), ids=CAPS)
def test_caps(message: bytes, refusal: str | None, step: int) -> None:
    stream = message + b".\r\n"
    if message == CAPS["an octet too many"][0]:
        assert len(message) == 201
    found, flaw, behind = read([stream[at : at + step] for at in range(0, len(stream), step)])
    assert behind == b""
    assert (str(flaw) if flaw else None) == refusal
    assert found == (b"" if refusal else message)


SMUGGLING = [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n.\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n",
             b"\r\r\n.\r\r\n", b"\n..\r\n", b"\n\r.\r\n", b"\r\n.\r\0\n"]  # fmt: skip


@pytest.mark.parametrize("fast", [True, False], ids=["in one segment", "octet by octet"])
@pytest.mark.parametrize("sequence", SMUGGLING, ids=repr)
def test_a_message_cannot_be_smuggled_in(sequence: bytes, fast: bool) -> None:
    door = FakeDoor()
    inner = (
        b"MAIL FROM:<admin@ours.test>\r\nRCPT TO:<victim@ours.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nhello\r\n.\r\n"
    )
    stream = b"Subject: outer\r\n\r\nbody" + sequence + inner

    async def play() -> list[str]:
        async with served(door) as server, talking(server) as talk:
            await talk.begin_data()
            for octets in [stream] if fast else [stream[at : at + 1] for at in range(len(stream))]:
                talk.send(octets)
                await talk.writer.drain()
                if not fast:
                    await asyncio.sleep(0)
            return [await talk.line(), await talk.say("NOOP"), await talk.say("QUIT")]

    assert run(play()) == [str(BARE), "250 2.0.0 OK", "221 2.0.0 bye"]
    assert (door.contents, len(door.opened)) == ([], 1)


NORMALISING = Limits(bare_line_ends="normalise")


@pytest.mark.parametrize("fast", [True, False], ids=["in one segment", "octet by octet"])
@pytest.mark.parametrize("sequence", SMUGGLING, ids=repr)
def test_where_line_ends_are_normalised_it_is_one_message_all_the_same(sequence: bytes, fast: bool) -> None:
    inner = b"MAIL FROM:<admin@ours.test>\r\nDATA\r\nSubject: smuggled\r\n"
    stream = b"Subject: outer\n\nbody" + sequence + inner + b".\r\nQUIT\r\n"
    chunks = [stream] if fast else [stream[at : at + 1] for at in range(len(stream))]
    message, flaw, behind = read(chunks, NORMALISING)
    assert behind == b"QUIT\r\n"
    if b"\0" in sequence:
        assert (message, flaw) == (b"", BARE)
    else:
        assert flaw is None
        assert message.startswith(b"Subject: outer\r\n\r\nbody\r\n")
        assert message.endswith(inner)
        assert message.count(b"\r") == message.count(b"\n") == message.count(b"\r\n")


@settings(deadline=None)
@given(stream=STREAMS, cuts=st.lists(st.integers(0, 100), max_size=20))
def test_normalising_does_not_depend_on_the_chunks(stream: bytes, cuts: list[int]) -> None:
    stream = stream.replace(b"\0", b"x") + b"\r\n.\r\n"
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[start:stop] for start, stop in pairwise(places)]
    message, _, behind = oracle(stream)
    lines = message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    roomy = Limits(bare_line_ends="normalise", header_fields=1000)
    assert read(chunks, roomy) == (b"\r\n".join(lines), None, behind)


def test_normalising_keeps_to_the_caps() -> None:
    limits = Limits(bare_line_ends="normalise", message_bytes=20, line_bytes=8)
    assert read([b"\n" * 11 + b"\r\n.\r\n"], limits)[1] == Reply(552, "5.3.4", "the message is larger than 20 octets")
    assert read([b"\n" + b"x" * 9 + b"\n\r\n.\r\n"], limits)[1] == Reply(554, "5.6.0", "a line is longer than 8 octets")
    assert read([b"\n" + b"x" * 8 + b"\ny\r\n.\r\n"], limits)[0] == b"\r\nxxxxxxxx\r\ny\r\n"


@pytest.mark.parametrize("line", [b".", b"..", b". ", b".\t", b".x", b"x."])
def test_lines_that_begin_with_a_dot_arrive_as_they_were(line: bytes) -> None:
    door = FakeDoor()
    stuffed = b"." + line if line.startswith(b".") else line

    async def play() -> str:
        async with served(door) as server, talking(server) as talk:
            await talk.begin_data()
            talk.send(b"\r\n" + stuffed + b"\r\n" + stuffed + b"\r\n.\r\n")
            return await talk.line()

    assert run(play()) == "250 2.6.0 taken"
    assert door.contents == [b"\r\n" + line + b"\r\n" + line + b"\r\n"]


async def _send_and_hear(server: Served, octets: bytes) -> str:
    async with talking(server) as talk:
        await talk.begin_data()
        talk.send(octets)
        reply = await talk.line()
        assert await talk.say("NOOP") == "250 2.0.0 OK"
        return reply


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\r\n" + b"x" * 78 + b"\r\n", "250 2.6.0 taken"),
        (b"\r\n" + (b"x" * 48 + b"\r\n") * 4, "552 5.3.4 the message is larger than 200 octets"),
        (b"\r\n" + b"x" * 101 + b"\r\n", "554 5.6.0 a line is longer than 100 octets"),
        (b"a: b\n\r\n", str(BARE)),
        (b"a: b\r\n" * 20, "554 5.6.0 the header has more than 10 fields"),
    ],
)  # fmt: skip
def test_a_refused_message_is_read_to_its_end_and_the_session_goes_on(message: bytes, expected: str) -> None:
    door = FakeDoor()

    async def play() -> str:
        limits = Limits(message_bytes=200, line_bytes=100, header_fields=10)
        async with served(door, limits=limits) as server:
            return await _send_and_hear(server, message + b".\r\n")

    assert run(play()) == expected
    assert len(door.messages) == (expected[:3] == "250")


def test_a_message_of_forty_million_octets_is_taken_without_a_long_stall() -> None:
    """What is asserted is the longest step of the reader in CPU time, a tick of the clock (4 ms) included.

    Of three tries each step counts as it was at its best: what else the process is charged with falls on any step, a stall of
    the reader's own on the same one each time.
    """
    tries = [_steps(_cpu) for _ in range(3)]
    assert max(map(min, zip(*tries, strict=True))) < 0.010


def test_nothing_of_a_large_message_is_copied_again_while_it_comes_in() -> None:
    """A copy of it would lie in pages that were never touched before, and the kernel counts each of them once."""
    keep_large_blocks_apart()
    between: list[bytes] = []  # what keeps the room that others have left from going back to the system
    touched = 0.0
    for _ in range(6):
        others = [bytes(100_000) for _ in range(200)]
        between.append(bytes(100_000))
        del others
        touched = max(touched, *_steps(_first_touches))
    assert touched * resource.getpagesize() < 2 * MIB


def _steps(measure: Callable[[], float]) -> list[float]:
    """What each step of the reader takes, with the heap as other connections leave it."""
    keep_large_blocks_apart()
    large = bytes(31 * MIB)  # freeing this is what teaches malloc to copy
    del large
    line = b"0123456789" * 7 + b"\r\n"
    chunk = line * 910
    content = Content(Limits())
    data = DotStuffed(content)
    steps: list[float] = []
    pins: list[bytes] = []

    def step(octets: bytes) -> bytes | None:
        before = measure()
        behind = data.feed(octets)
        steps.append(measure() - before)
        pins.append(bytes(100_000))  # what other connections hold lies between
        return behind

    gc.disable()  # a whole test run's garbage is none of the reader's
    try:
        step(b"\r\n")
        for _ in range(40_000_000 // len(chunk)):
            step(chunk)
        assert step(b".\r\nQUIT\r\n") == b"QUIT\r\n"
        before = measure()
        raw = content.finish()
        steps.append(measure() - before)
    finally:
        gc.enable()
    assert len(raw) == 40_000_000 // len(chunk) * len(chunk) + 2
    return steps


def _first_touches() -> float:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize(
    "octets", [b"x" * 65_536, b"x\r\n" * 21_845, b"\n" * 65_536], ids=["no CRLF", "lines", "bare LF"]
)
def test_memory_is_bounded_whatever_is_sent(octets: bytes) -> None:
    """A message limit of 1 MiB, 48 MiB sent: what is held stays under the limit and two socket buffers."""
    door = FakeDoor()

    async def play() -> tuple[str, int]:
        async with served(door, limits=Limits(message_bytes=MIB)) as server, talking(server) as talk:
            await talk.begin_data()
            tracemalloc.start()
            for _ in range(768):
                talk.send(octets)
                await talk.writer.drain()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            talk.send(b"\r\n.\r\n")
            return await talk.line(), peak

    reply, peak = run(play())
    assert reply[:9] in {"552 5.3.4", "554 5.6.0", "550 5.6.11"[:9]}
    assert peak < 3 * MIB
    assert door.contents == []


def test_a_message_takes_little_more_than_its_size_until_it_is_handed_over() -> None:
    peaks: list[int] = []

    async def note(raw: bytes) -> Reply:
        peaks.append(tracemalloc.get_traced_memory()[1])
        return Reply(250, "2.6.0", f"{len(raw)}")

    async def play() -> str:
        async with served(FakeDoor(at_message=note)) as server, talking(server) as talk:
            await talk.begin_data()
            tracemalloc.start()
            line = b"\r\n" + b"x" * 998
            for _ in range(20):
                talk.send(line * 1000)
                await talk.writer.drain()
            talk.send(b"\r\n.\r\n")
            reply = await talk.line()
            tracemalloc.stop()
            return reply

    assert run(play()) == "250 2.6.0 20000002"
    assert peaks[0] < 2.5 * 20_000_002


def test_when_the_budget_is_spent_sockets_are_not_read_and_every_message_comes_through() -> None:
    door = FakeDoor()
    body = b"\r\n" + (b"x" * 998 + b"\r\n") * 1000

    async def one(server: Served) -> str:
        async with talking(server) as talk:
            await talk.begin()
            while (reply := await talk.say("DATA"))[:3] == "452":  # noqa: ASYNC110 - as a sender does
                await asyncio.sleep(0.02)
            assert reply[:3] == "354"
            for at in range(0, len(body), 50_000):
                talk.send(body[at : at + 50_000])
                await talk.writer.drain()
            talk.send(b".\r\n")
            return await talk.line()

    async def play() -> list[str]:
        held: list[int] = []
        async with served(door, limits=Limits(bytes_in_flight=3 * 10**6)) as server:

            async def watch() -> None:
                while True:
                    held.append(server.edge.bytes_in_flight)
                    await asyncio.sleep(0)

            watching = asyncio.create_task(watch())
            replies = await asyncio.gather(*(one(server) for _ in range(12)))
            watching.cancel()
            assert server.edge.bytes_in_flight == 0
            # Over the budget by what the oldest may finish, and one read of each other.
            assert max(held) < 3 * 10**6 + 10**6 + 12 * 400_000
            return replies

    assert run(play()) == ["250 2.6.0 taken"] * 12
    assert door.contents == [body] * 12


def test_who_waits_for_room_too_long_is_told_to_come_again() -> None:
    async def play() -> tuple[str, str, str]:
        limits = Limits(bytes_in_flight=100_000, data_idle_seconds=0.3)
        never = asyncio.Event()

        async def wait(_raw: bytes) -> Reply:
            await never.wait()
            return Reply(250, "2.6.0", "at last")

        async with (
            served(FakeDoor(at_message=wait), limits=limits) as server,
            talking(server) as first,
            talking(server) as second,
            talking(server) as third,
        ):
            await first.begin_data()
            await second.begin_data()
            await third.begin()
            first.send(b"\r\n" + b"x" * 60_000 + b"\r\n" + b"x" * 60_000 + b"\r\n.\r\n")
            await until(lambda: server.edge.bytes_in_flight >= 100_000)
            second.send(b"\r\n")  # this is read, then there is no room
            replies = await second.line(), await third.say("DATA")
            never.set()
            return (*replies, await first.line())

    assert run(play()) == (
        "421 4.3.1 too much mail at the moment, try again later",
        "452 4.3.1 too much mail at the moment, try again later",
        "250 2.6.0 at last",
    )
