"""Clients that are slow, silent or gone; and how the server stops."""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any

import pytest

from inbound.errors import ConfigurationError
from inbound.receive.board import Board
from inbound.receive.census import Census, place, unmapped
from inbound.receive.edge import Edge, host_and_port
from inbound.reply import Reply
from inbound.settings import Limits
from tests.receive.talk import DONE, HOSTNAME, RECIPIENT_OK, FakeDoor, Served, Talk, run, served, talking, until

SILENT = "421 4.4.2 you took too long, goodbye"
STOPPING = "421 4.3.2 stopping, try again later"


class Gated(FakeDoor):
    """A door whose messages are worked on until the test lets them go."""

    def __init__(self) -> None:
        super().__init__(at_message=self._wait)
        self.go = asyncio.Event()
        self.finished: list[bytes] = []
        self.cancelled: list[bytes] = []

    async def _wait(self, raw: bytes) -> Reply:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(raw)
            raise
        self.finished.append(raw)
        return DONE


def test_a_silent_client_is_told_and_left() -> None:
    async def play() -> list[str]:
        async with served(FakeDoor(), limits=Limits(command_seconds=0.2)) as server, talking(server) as talk:
            return [await talk.reply(), await talk.reply(), await talk.reply()]

    assert run(play()) == ["220 mx.test ESMTP", SILENT, "(closed)"]


def test_the_deadline_is_for_the_whole_line_not_for_each_octet() -> None:
    async def play() -> str:
        async with served(FakeDoor(), limits=Limits(command_seconds=0.4)) as server, talking(server) as talk:
            await talk.reply()
            answer = asyncio.create_task(talk.reply())
            while not answer.done():
                talk.send(b"x")
                await asyncio.sleep(0.02)
            return await answer

    assert run(play()) == SILENT


def test_a_client_that_falls_silent_inside_data_is_told_and_left() -> None:
    door = FakeDoor()

    async def play() -> str:
        async with served(door, limits=Limits(data_idle_seconds=0.2)) as server, talking(server) as talk:
            await talk.begin_data()
            talk.send(b"Subject: half a mess")
            return await talk.line()

    assert run(play()) == SILENT
    assert door.contents == []


def test_data_as_a_whole_has_a_deadline_however_busy_the_client_is() -> None:
    async def play() -> str:
        async with served(FakeDoor(), limits=Limits(data_seconds=0.4)) as server, talking(server) as talk:
            await talk.begin_data()
            answer = asyncio.create_task(talk.line())
            while not answer.done():
                talk.send(b"x\r\n")
                await asyncio.sleep(0.01)
            return await answer

    assert run(play()) == SILENT


def test_no_deadline_runs_while_a_message_is_worked_on() -> None:
    door = Gated()

    async def play() -> str:
        limits = Limits(command_seconds=0.1, data_idle_seconds=0.1, data_seconds=0.1)
        async with served(door, limits=limits) as server, talking(server) as talk:
            await talk.begin_data()
            talk.send(b".\r\n")
            await until(lambda: bool(door.messages))
            await asyncio.sleep(0.5)
            door.go.set()
            return await talk.line()

    assert run(play()) == str(DONE)


RUNNERS = pytest.mark.parametrize("runner", [run, asyncio.run], ids=["uvloop", "asyncio"])


@RUNNERS
@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_a_client_that_hangs_up_does_not_cancel_the_work_on_its_message(
    how: str, runner: Callable[[Coroutine[Any, Any, str]], str], caplog: pytest.LogCaptureFixture
) -> None:
    door = Gated()

    async def play() -> str:
        async with served(door) as server:
            talk = await Talk.to(server)
            await talk.begin_data()
            talk.send(b"Subject: x\r\n\r\n.\r\n")
            await until(lambda: bool(door.messages))
            reply = ""
            if how == "half-close":
                talk.writer.write_eof()
            elif how == "reset":
                await talk.vanish()
            else:
                await talk.close()
            await asyncio.sleep(0.1)
            door.go.set()
            await until(lambda: bool(door.finished))
            if how == "half-close":
                reply = await talk.line()
                assert await talk.line() == "(closed)"
            await talk.close()
            await until(lambda: server.edge.connections == 0)
            return reply

    with caplog.at_level(logging.WARNING):
        assert runner(play()) == (str(DONE) if how == "half-close" else "")
    assert caplog.records == []
    assert (door.finished, door.cancelled) == ([b"Subject: x\r\n\r\n"], [])


def test_a_client_that_half_closes_behind_its_last_command_gets_every_reply() -> None:
    async def play() -> list[str]:
        async with served(FakeDoor()) as server, talking(server) as talk:
            talk.send(b"HELO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<b@ours.test>\r\nDATA\r\n.\r\nQUIT\r\n")
            talk.writer.write_eof()
            return [await talk.reply() for _ in range(8)]

    assert [reply[:3] for reply in run(play())] == ["220", "250", "250", "250", "354", "250", "221", "(cl"]


@pytest.mark.parametrize("sent", [b"", b"EHLO a.test\r\nMAIL", b"EHLO a.test\r\nMAIL FROM:<a@b.test>\r\n"])
def test_a_client_that_vanishes_leaves_nothing_behind(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        async with served(FakeDoor()) as server:
            for vanish in (True, False):
                talk = await Talk.to(server)
                await talk.line()
                talk.send(sent)
                await (talk.vanish() if vanish else talk.close())
            await until(lambda: server.edge.connections == 0)

    with caplog.at_level(logging.ERROR):
        run(play())
    assert caplog.records == []


def test_a_client_that_vanishes_inside_data_delivers_nothing() -> None:
    door = FakeDoor()

    async def play() -> None:
        async with served(door) as server:
            talk = await Talk.to(server)
            await talk.begin_data()
            talk.send(b"Subject: x\r\n\r\nhalf of it\r\n.\r")
            await talk.close()
            await until(lambda: server.edge.connections == 0)
            assert server.edge.bytes_in_flight == 0

    run(play())
    assert door.contents == []


def test_a_client_that_never_reads_its_replies_is_left() -> None:
    async def play() -> None:
        limits = Limits(command_seconds=0.3, idle_commands=10**9, connections=1)
        async with served(FakeDoor(), limits=limits) as server:
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, (server.host, server.port))
            sending = asyncio.create_task(_send_for_ever(loop, client))
            await until(lambda: server.edge.connections == 1)
            await until(lambda: server.edge.connections == 0)
            sending.cancel()
            client.close()

    async def _send_for_ever(loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
        while True:
            await loop.sock_sendall(client, b"HELP\r\n" * 1000)

    run(play())


def test_connections_beyond_the_limits_are_told_why() -> None:
    async def play() -> list[str]:
        limits = Limits(connections=3, connections_per_ip=2)
        async with (
            served(FakeDoor(), limits=limits) as server,
            talking(server) as one,
            talking(server, source="127.0.0.2") as two,
        ):
            replies = [await one.line(), await two.line()]
            async with talking(server) as three:
                replies.append(await three.line())
                async with talking(server, source="127.0.0.3") as four:
                    replies += [await four.line(), await four.line()]
                await four.close()
                await until(lambda: server.edge.connections == 3)
            await until(lambda: server.edge.connections == 2)
            async with talking(server, source="127.0.0.2") as five:
                replies.append(await five.line())
                await two.close()
                await until(lambda: server.edge.connections == 2)
                async with talking(server) as six:
                    replies.append(await six.line())
                    await until(lambda: server.edge.connections == 3)
                await until(lambda: server.edge.connections == 2)
                async with talking(server) as six:
                    await six.line()
            return replies

    greeting = "220 mx.test ESMTP"
    assert run(play()) == (
        [greeting] * 3
        + ["421 4.3.2 too many connections at the moment, try again later", "(closed)"]
        + [greeting] * 2
    )  # fmt: skip


def test_when_it_gets_crowded_who_says_nothing_makes_room() -> None:
    async def play() -> list[str]:
        limits = Limits(connections=4, stress_seconds=0.2)
        async with (
            served(Gated(), limits=limits) as server,
            talking(server) as silent,
            talking(server) as busy,
        ):
            await silent.line()
            await busy.begin_data()
            await asyncio.sleep(0.3)
            async with talking(server) as third:
                replies = [await third.line(), await silent.line()]
                busy.send(b".\r\n")
                return replies

    assert run(play()) == ["220 mx.test ESMTP", SILENT]


def test_a_client_that_sends_many_commands_at_once_does_not_keep_others_waiting() -> None:
    happened: list[str] = []

    async def play() -> None:
        async with (
            served(door, limits=Limits(recipients=10_000)) as server,
            talking(server) as many,
            talking(server) as one,
        ):
            await many.begin("first@ours.test")
            await one.line()
            await one.say("HELO client.test")

            def recipient(_address: str) -> Reply:
                happened.append("many")
                if len(happened) == 10:
                    one.send(b"MAIL FROM:<one@sender.test>\r\n")
                return RECIPIENT_OK

            door.recipient_reply = recipient
            many.send(b"RCPT TO:<b@ours.test>\r\n" * 5000)
            await one.line()
            happened.append("one")
            await until(lambda: len(happened) == 5001)

    door = FakeDoor()
    run(play())
    assert happened.index("one") < 4000


def test_connections_from_one_address_are_limited() -> None:
    async def play() -> list[str]:
        async with (
            served(FakeDoor(), limits=Limits(connections_per_ip=1)) as server,
            talking(server) as one,
        ):
            replies = [await one.line()]
            async with talking(server) as two, talking(server, source="127.0.0.2") as three:
                replies += [await two.line(), await two.line(), await three.line()]
            await one.close()
            await until(lambda: server.edge.connections == 0)
            async with talking(server) as four:
                replies.append(await four.line())
            return replies

    greeting = "220 mx.test ESMTP"
    too_many = "421 4.7.0 too many connections from your address, try again later"
    assert run(play()) == [greeting, too_many, "(closed)", greeting, greeting]


def test_one_place_is_an_ipv4_address_or_an_ipv6_64() -> None:
    census = Census(in_all=100, per_place=1, seat=Board().seat(0))
    places = [place(unmapped(ip_address(text))) for text in ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2")]
    assert places[0] == places[1] != places[2]
    assert place(ip_address("2001:db8::1")) == place(ip_address("2001:db8::ffff:1:2:3"))
    assert place(ip_address("2001:db8::1")) != place(ip_address("2001:db8:0:1::1"))
    assert census.settle(places[0]) is None
    assert census.settle(places[1]) is not None
    census.unsettle(places[1])
    census.unsettle(places[0])
    assert census.settle(places[0]) is None


def test_an_ipv6_client_is_served() -> None:
    door = FakeDoor()

    async def play() -> None:
        async with served(door, host="[::1]") as server, talking(Served(server.edge, "::1", server.port)) as talk:
            await talk.begin()

    run(play())
    assert [received.client.ip for received in door.opened] == [ip_address("::1")]


def test_stopping_finishes_the_message_in_hand_and_turns_the_rest_away() -> None:
    door = Gated()

    async def play() -> list[str]:
        async with (
            served(door) as server,
            talking(server) as idle,
            talking(server) as between,
            talking(server) as receiving,
            talking(server) as working,
        ):
            await idle.line()
            await between.begin()
            await receiving.begin_data()
            await working.begin_data()
            working.send(b"Subject: in hand\r\n\r\n.\r\n")
            await until(lambda: bool(door.messages))
            stopping = asyncio.create_task(server.edge.stop(10))
            replies = [await idle.line(), await idle.line(), await between.line(), await between.line()]
            receiving.send(b"Subject: coming in\r\n\r\n.\r\n")
            await until(lambda: len(door.messages) == 2)
            assert not stopping.done()
            door.go.set()
            replies += [await working.line(), await working.line(), await receiving.line(), await receiving.line()]
            for talk in (idle, between, receiving, working):
                await talk.close()
            await stopping
            with pytest.raises(ConnectionRefusedError):
                await Talk.to(server)
            return replies

    assert run(play()) == [STOPPING, "(closed)"] * 2 + [str(DONE), STOPPING] * 2
    assert sorted(door.finished) == [b"Subject: coming in\r\n\r\n", b"Subject: in hand\r\n\r\n"]


@RUNNERS
def test_stopping_while_clients_vanish_is_no_trouble(
    runner: Callable[[Coroutine[Any, Any, None]], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        async with served(FakeDoor()) as server:
            for vanish_first in (True, False):
                talks = [await Talk.to(server) for _ in range(8)]
                for number, talk in enumerate(talks):
                    await talk.line()
                    if vanish_first and number % 2:
                        await talk.vanish()
                stopping = asyncio.create_task(server.edge.stop(5))
                for talk in talks:
                    await talk.vanish()
                await stopping
                await server.edge.start([f"127.0.0.1:{server.port}"])

    with caplog.at_level(logging.WARNING):
        runner(play())
    assert caplog.records == []


def test_stopping_waits_for_the_message_of_a_client_that_is_gone() -> None:
    door = Gated()

    async def play() -> None:
        async with served(door) as server:
            talk = await Talk.to(server)
            await talk.begin_data()
            talk.send(b".\r\n")
            await until(lambda: bool(door.messages))
            await talk.vanish()
            stopping = asyncio.create_task(server.edge.stop(10))
            await asyncio.sleep(0.05)
            assert not stopping.done()
            door.go.set()
            await stopping

    run(play())
    assert (door.finished, door.cancelled) == ([b""], [])


def test_when_the_grace_is_over_nothing_was_promised() -> None:
    door = Gated()

    async def play() -> list[str]:
        async with served(door) as server, talking(server) as talk:
            await talk.begin_data()
            talk.send(b".\r\n")
            await until(lambda: bool(door.messages))
            await server.edge.stop(0.1)
            return [await talk.line(), await talk.line()]

    assert run(play()) == [STOPPING, "(closed)"]
    assert (door.finished, door.cancelled) == ([], [b""])


ADDRESSES = [
    ("127.0.0.1:25", ("127.0.0.1", 25)),
    ("[::1]:2525", ("::1", 2525)),
    (":25", (None, 25)),
    ("mx.example.com:0", ("mx.example.com", 0)),
]


@pytest.mark.parametrize(("written", "expected"), ADDRESSES)
def test_listening_addresses(written: str, expected: tuple[str | None, int]) -> None:
    assert host_and_port(written) == expected


@pytest.mark.parametrize("written", ["", "127.0.0.1", "127.0.0.1:smtp", "::1:25", "127.0.0.1:65536", "127.0.0.1:-1"])
def test_bad_listening_addresses_are_told(written: str) -> None:
    with pytest.raises(ConfigurationError):
        host_and_port(written)


def test_an_address_in_use_is_told_and_nothing_stays_open() -> None:
    async def play() -> str:
        async with served(FakeDoor()) as server:
            edge = Edge(FakeDoor(), hostname=HOSTNAME)
            address = f"127.0.0.1:{server.port}"
            with pytest.raises(ConfigurationError) as caught:
                await edge.start(["127.0.0.1:0", address])
            assert edge._servers == []
            return str(caught.value).replace(address, "ADDRESS")

    assert run(play()) == "listen: cannot listen on ADDRESS: Address already in use"


def test_several_addresses_are_listened_on() -> None:
    async def play() -> list[str]:
        edge = Edge(FakeDoor(), hostname=HOSTNAME)
        bound = await edge.start(["127.0.0.1:0", "[::1]:0"])
        greetings = []
        for address in bound:
            host, port = host_and_port(address)
            async with talking(Served(edge, str(host), port)) as talk:
                greetings.append(await talk.line())
        await edge.stop(1)
        return greetings

    assert run(play()) == ["220 mx.test ESMTP"] * 2


@pytest.mark.parametrize("hostname", ["", "two words", "mx.test\r\n250 ok", "-" * 70])
def test_a_name_that_is_none_is_told(hostname: str) -> None:
    with pytest.raises(ConfigurationError):
        Edge(FakeDoor(), hostname=hostname)
