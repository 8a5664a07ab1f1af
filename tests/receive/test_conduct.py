"""Clients that misbehave: held back, slowed down, turned away."""

import time
from ipaddress import ip_address

import pytest

from inbound.receive.board import Board
from inbound.receive.census import place
from inbound.receive.rates import Rates
from inbound.reply import Reply
from inbound.settings import Limits
from tests.receive.talk import DONE, RECIPIENT_OK, FakeDoor, Talk, run, served, talking, transcript, until

UNKNOWN_USER = Reply(550, "5.1.1", "no such user")
SPOKE_FIRST = "554 5.5.1 a client waits for the greeting (RFC 5321 3.1)"


def nobody_but_b(address: str) -> Reply:
    return RECIPIENT_OK if address.startswith("b@") else UNKNOWN_USER


def test_who_speaks_before_the_greeting_is_refused_where_it_is_waited_for() -> None:
    door = FakeDoor()

    async def play() -> list[str]:
        async with served(door, limits=Limits(greet_seconds=5)) as server, talking(server) as talk:
            talk.send(b"EHLO client.test\r\nMAIL FROM:<a@b.test>\r\n")
            return [await talk.line(), await talk.line()]

    assert run(play()) == [SPOKE_FIRST, "(closed)"]
    assert door.opened == []


def test_who_waits_for_the_greeting_is_greeted() -> None:
    transcript(
        """
        < 220 mx.test ESMTP
        > NOOP
        < 250 2.0.0 OK
        """,
        limits=Limits(greet_seconds=0.1),
    )


def test_who_leaves_before_the_greeting_or_is_there_when_we_stop_is_no_early_talker() -> None:
    async def play() -> str:
        async with served(FakeDoor(), limits=Limits(greet_seconds=5)) as server:
            talk = await Talk.to(server)
            await talk.close()
            await until(lambda: server.edge.connections == 0)
            async with talking(server) as talk:
                await until(lambda: server.edge.connections == 1)
                await server.edge.stop(3)
                return await talk.line()

    assert run(play()) == "421 4.3.2 stopping, try again later"


def test_too_many_refused_recipients_end_the_session() -> None:
    transcript(
        """
        < 220 mx.test ESMTP
        > HELO client.test
        < 250 mx.test
        > MAIL FROM:<a@sender.test>
        < 250 2.1.0 OK
        > RCPT TO:<x@ours.test>
        < 550 5.1.1 no such user
        > RSET
        < 250 2.0.0 OK
        > MAIL FROM:<a@sender.test>
        < 250 2.1.0 OK
        > RCPT TO:<b@ours.test>
        < 250 2.1.5 OK
        > RCPT TO:<y@ours.test>
        < 550 5.1.1 no such user
        < 421 4.7.0 too many recipients were refused, goodbye
        < (closed)
        """,
        FakeDoor(recipient_reply=nobody_but_b),
        limits=Limits(refused_recipients=2),
    )


def test_a_message_that_is_taken_wipes_the_refused_recipients_out() -> None:
    transcript(
        f"""
        < 220 mx.test ESMTP
        > HELO client.test
        < 250 mx.test
        > MAIL FROM:<a@sender.test>
        < 250 2.1.0 OK
        > RCPT TO:<x@ours.test>
        < 550 5.1.1 no such user
        > RCPT TO:<b@ours.test>
        < 250 2.1.5 OK
        > DATA
        < 354 go on, CRLF . CRLF ends it
        > .
        < {DONE}
        > MAIL FROM:<a@sender.test>
        < 250 2.1.0 OK
        > RCPT TO:<x@ours.test>
        < 550 5.1.1 no such user
        > NOOP
        < 250 2.0.0 OK
        """,
        FakeDoor(recipient_reply=nobody_but_b),
        limits=Limits(refused_recipients=2),
    )


def test_recipients_that_are_deferred_are_no_offence() -> None:
    later = Reply(452, "4.5.3", "another transaction, please")
    text = "\n> RCPT TO:<x@ours.test>\n< 452 4.5.3 another transaction, please" * 5
    transcript(
        f"""
        < 220 mx.test ESMTP
        > HELO client.test
        < 250 mx.test
        > MAIL FROM:<a@sender.test>
        < 250 2.1.0 OK
        {text}
        """,
        FakeDoor(recipient_reply=lambda _address: later),
        limits=Limits(refused_recipients=2, soft_errors=0, tarpit_seconds=3600),
    )


def test_an_offenders_replies_are_held_back_one_by_one() -> None:
    """What is asserted is the least time that must pass, never the most."""

    async def play() -> tuple[float, float, list[str]]:
        limits = Limits(soft_errors=2, tarpit_seconds=0.15)
        async with served(FakeDoor(recipient_reply=nobody_but_b), limits=limits) as server, talking(server) as talk:
            await talk.begin()
            assert (await talk.say("FROB"))[:3] == "500"
            assert (await talk.say("RCPT TO:<x@ours.test>"))[:3] == "550"
            before = time.monotonic()
            talk.send(b"FROB\r\nRCPT TO:<x@ours.test>\r\nNOOP\r\n")
            replies = [await talk.reply()]
            first = time.monotonic() - before
            replies += [await talk.reply(), await talk.reply()]
            return first, time.monotonic() - before, replies

    first, both, replies = run(play())
    assert [reply[:3] for reply in replies] == ["500", "550", "250"]
    assert first >= 0.14
    assert both >= 0.29


def test_messages_beyond_the_rate_of_a_place_are_deferred() -> None:
    async def play() -> list[str]:
        replies = []
        async with served(FakeDoor(), limits=Limits(messages_per_minute=2)) as server:
            for source in ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2"):
                async with talking(server, source=source) as talk:
                    await talk.reply()
                    await talk.say("EHLO client.test")
                    replies.append(await talk.say("MAIL FROM:<a@sender.test>"))
        return replies

    too_fast = "450 4.7.1 too many messages from your address, try again later"
    assert run(play()) == ["250 2.1.0 OK", "250 2.1.0 OK", too_fast, "250 2.1.0 OK"]


def test_an_allowance_comes_back_evenly() -> None:
    now = [1000.0]
    rates = Rates(3, Board().seat(0), clock=lambda: now[0])
    here, there = place(ip_address("2001:db8::1")), place(ip_address("2001:db8::2:1"))
    assert [rates.admits(here), rates.admits(there), rates.admits(here), rates.admits(here)] == [
        True,
        True,
        True,
        False,
    ]
    now[0] += 19.9
    assert not rates.admits(here)
    now[0] += 0.2
    assert [rates.admits(here), rates.admits(here)] == [True, False]
    now[0] += 3600
    assert [rates.admits(here) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("key", ["soft_errors", "tarpit_seconds", "messages_per_minute", "greet_seconds"])
def test_what_can_be_switched_off_takes_0(key: str) -> None:
    assert getattr(Limits(**{key: 0}), key) == 0  # type: ignore[arg-type]
