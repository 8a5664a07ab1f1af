"""Transcripts on real sockets: every command and every refusal."""

import asyncio
import logging
from ipaddress import ip_address

import pytest

from inbound.mail import Client
from inbound.reply import Reply
from inbound.settings import Limits
from tests.receive.talk import RECIPIENT_OK, FakeDoor, run, served, talking, transcript

HELLO = """
< 220 mx.test ESMTP
> HELO client.test
< 250 mx.test
"""

READY = f"""{HELLO}
> MAIL FROM:<a@sender.test>
< 250 2.1.0 OK
> RCPT TO:<b@ours.test>
< 250 2.1.5 OK
"""


def test_a_message_goes_through() -> None:
    door = transcript(
        """
        < 220 mx.test ESMTP
        > EHLO client.test
        < 250-mx.test
        < 250-PIPELINING
        < 250-SIZE 41943040
        < 250-8BITMIME
        < 250-SMTPUTF8
        < 250-CHUNKING
        < 250-ENHANCEDSTATUSCODES
        < 250 LIMITS MAILMAX=100 RCPTMAX=100
        > MAIL FROM:<a@sender.test> SIZE=1000 BODY=8BITMIME
        < 250 2.1.0 OK
        > RCPT TO:<b@ours.test>
        < 250 2.1.5 OK
        > RCPT TO:<c@ours.test>
        < 250 2.1.5 OK
        > DATA
        < 354 go on, CRLF . CRLF ends it
        > Subject: one
        >
        > ..dot
        > .
        < 250 2.6.0 taken
        > QUIT
        < 221 2.0.0 bye
        < (closed)
        """
    )
    (message,) = door.messages
    assert message.raw == b"Subject: one\r\n\r\n.dot\r\n"
    assert message.recipients == ["b@ours.test", "c@ours.test"]
    assert message.mail_from == "a@sender.test"
    assert message.client == Client(
        ip=ip_address("127.0.0.1"), port=message.client.port, helo="client.test", esmtp=True, tls=None
    )
    assert message.client.port > 0


def test_helo_speaks_without_extensions() -> None:
    door = transcript(
        f"""{READY}
        > DATA
        < 354 go on, CRLF . CRLF ends it
        > .
        < 250 2.6.0 taken
        """
    )
    assert door.messages[0].client.esmtp is False
    assert door.contents == [b""]


COMMANDS = {
    "MAIL before HELO": """
        < 220 mx.test ESMTP
        > MAIL FROM:<a@b.test>
        < 503 5.5.1 say EHLO first
        > RCPT TO:<a@b.test>
        < 503 5.5.1 say EHLO first
        > DATA
        < 503 5.5.1 say EHLO first
        """,
    "RCPT and DATA before MAIL": f"""{HELLO}
        > RCPT TO:<a@b.test>
        < 503 5.5.1 MAIL FROM first
        > DATA
        < 503 5.5.1 MAIL FROM first
        """,
    "DATA without recipients": f"""{HELLO}
        > MAIL FROM:<>
        < 250 2.1.0 OK
        > DATA
        < 554 5.5.1 no valid recipients
        """,
    "nested MAIL": f"""{READY}
        > MAIL FROM:<>
        < 503 5.5.1 there is a sender already, RSET first
        """,
    "RSET forgets sender and recipients": f"""{READY}
        > RSET
        < 250 2.0.0 OK
        > DATA
        < 503 5.5.1 MAIL FROM first
        """,
    "HELO and EHLO forget sender and recipients": f"""{READY}
        > HELO client.test
        < 250 mx.test
        > RCPT TO:<b@ours.test>
        < 503 5.5.1 MAIL FROM first
        """,
    "HELO needs a name": """
        < 220 mx.test ESMTP
        > HELO
        < 501 5.5.4 syntax: EHLO hostname or EHLO [address]
        > EHLO a b
        < 501 5.5.4 syntax: EHLO hostname or EHLO [address]
        > EHLO (comment)
        < 501 5.5.4 syntax: EHLO hostname or EHLO [address]
        > HELO [IPv6:2001:db8::1]
        < 250 mx.test
        > HELO under_score
        < 250 mx.test
        """,
    "commands that take no argument": f"""{READY}
        > RSET now
        < 501 5.5.4 this command has no argument
        > DATA now
        < 501 5.5.4 this command has no argument
        > QUIT now
        < 501 5.5.4 this command has no argument
        > STARTTLS now
        < 501 5.5.4 this command has no argument
        """,
    "harmless commands": """
        < 220 mx.test ESMTP
        > NOOP
        < 250 2.0.0 OK
        > noop with words
        < 250 2.0.0 OK
        > VRFY root
        < 252 2.1.5 not verified; send the mail and see
        > HELP
        < 214 2.0.0 see RFC 5321
        > HELP VRFY
        < 214 2.0.0 see RFC 5321
        """,
    "commands that are not offered": """
        < 220 mx.test ESMTP
        > EXPN staff
        < 502 5.5.1 this command is not offered here
        > AUTH PLAIN AGEAYg==
        < 502 5.5.1 this command is not offered here
        > ETRN b.test
        < 502 5.5.1 this command is not offered here
        > STARTTLS
        < 502 5.5.1 TLS is not offered here
        """,
    "unknown and malformed commands": """
        < 220 mx.test ESMTP
        > FROB
        < 500 5.5.1 unknown command
        > \x00
        < 500 5.5.2 a command is one line of printable characters that ends in CRLF
        > NO\rOP
        < 500 5.5.2 a command is one line of printable characters that ends in CRLF
        """,
    "parameters": """
        < 220 mx.test ESMTP
        > EHLO client.test
        < 250-mx.test
        < 250-PIPELINING
        < 250-SIZE 41943040
        < 250-8BITMIME
        < 250-SMTPUTF8
        < 250-CHUNKING
        < 250-ENHANCEDSTATUSCODES
        < 250 LIMITS MAILMAX=100 RCPTMAX=100
        > MAIL FROM:<a@b.test> SIZE=41943041
        < 552 5.3.4 the message is larger than 41943040 octets
        > MAIL FROM:<a@b.test> SIZE=99999999999999999999
        < 552 5.3.4 the message is larger than 41943040 octets
        > MAIL FROM:<a@b.test> SIZE=ten
        < 501 5.5.4 a parameter has a value that it cannot have
        > MAIL FROM:<a@b.test> SIZE
        < 501 5.5.4 a parameter has a value that it cannot have
        > MAIL FROM:<a@b.test> BODY=9BIT
        < 501 5.5.4 a parameter has a value that it cannot have
        > MAIL FROM:<a@b.test> BODY=BINARYMIME
        < 501 5.5.4 a parameter has a value that it cannot have
        > MAIL FROM:<a@b.test> SMTPUTF8=yes
        < 501 5.5.4 a parameter has a value that it cannot have
        > MAIL FROM:<a@b.test> SIZE=1 size=2
        < 501 5.5.4 a parameter is malformed or given twice
        > MAIL FROM:<a@b.test> =x
        < 501 5.5.4 a parameter is malformed or given twice
        > MAIL FROM:<a@b.test> AUTH=<>
        < 555 5.5.4 a parameter is not known here
        > MAIL FROM:<a@b.test> RET=HDRS
        < 555 5.5.4 a parameter is not known here
        > MAIL FROM:<é@b.test>
        < 553 5.6.7 an address that is not ASCII needs SMTPUTF8 (RFC 6531)
        > MAIL FROM:<a@b.test> body=8bitmime SIZE=41943040
        < 250 2.1.0 OK
        > RCPT TO:<é@b.test>
        < 553 5.6.7 an address that is not ASCII needs SMTPUTF8 (RFC 6531)
        > RCPT TO:<a@b.test> NOTIFY=NEVER
        < 555 5.5.4 a parameter is not known here
        """,
    "parameters without EHLO": f"""{HELLO}
        > MAIL FROM:<a@b.test> SIZE=1
        < 555 5.5.4 a parameter is not known here
        """,
    "addresses": f"""{HELLO}
        > MAIL FROM:a@b.test
        < 501 5.1.7 that is not the address of a sender (RFC 5321 4.1.2)
        > MAIL
        < 501 5.5.4 syntax: MAIL FROM:<address> [parameters]
        > MAIL TO:<a@b.test>
        < 501 5.5.4 syntax: MAIL FROM:<address> [parameters]
        > MAIL FROM:<a@b.test>x
        < 501 5.1.7 that is not the address of a sender (RFC 5321 4.1.2)
        > mail from: <a@b.test>
        < 250 2.1.0 OK
        > RCPT FROM:<a@b.test>
        < 501 5.5.4 syntax: RCPT TO:<address> [parameters]
        > RCPT TO:<>
        < 501 5.1.3 that is not the address of a recipient (RFC 5321 4.1.2)
        > RCPT TO:<b@[127.0.0.1]>
        < 550 5.7.1 mail for address literals is not taken here
        > RCPT TO:<b>
        < 501 5.1.3 that is not the address of a recipient (RFC 5321 4.1.2)
        > RCPT TO:<Postmaster>
        < 250 2.1.5 OK
        """,
}


@pytest.mark.parametrize("text", COMMANDS.values(), ids=COMMANDS)
def test_commands_are_answered_as_written(text: str) -> None:
    transcript(text)


LOOK_ALIKES = ["\u017fTARTTLS", "R\u017fET", "noop".replace("o", "\u00ba"), "QU\u0131T"]


@pytest.mark.parametrize("verb", LOOK_ALIKES)
def test_a_letter_beyond_ascii_is_none_of_a_command_though_its_capital_is(verb: str) -> None:
    """U+017F and U+0131 are S and I in upper case; a filter before us that knows ASCII sees no such command."""
    door = transcript(f"{READY}\n> {verb}\n< 500 5.5.1 unknown command\n> DATA\n< 354 go on, CRLF . CRLF ends it")
    assert door.opened[0].recipients == ["b@ours.test"]


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("MAIL FROM:<a@b.test> SMTPUTF8 BODY=8B\u0131TMIME", "501 5.5.4"),
        ("RCPT TO:<po\u017ftmaster>", "501 5.1.3"),
    ],
)
def test_a_letter_beyond_ascii_is_none_of_a_keyword(argument: str, answer: str) -> None:
    async def play() -> str:
        async with served(FakeDoor()) as server, talking(server) as talk:
            await talk.line()
            await talk.say("EHLO client.test")
            if argument.startswith("RCPT"):
                await talk.say("MAIL FROM:<a@b.test> SMTPUTF8")
            return (await talk.say(argument))[:9]

    assert run(play()) == answer


def test_the_joiners_of_persian_and_indic_words_are_taken_in_an_address() -> None:
    door = FakeDoor()
    persian = "\u0646\u0627\u0645\u0647\u200c\u0627\u06cc"

    async def play() -> list[str]:
        async with served(door) as server, talking(server) as talk:
            await talk.line()
            await talk.say("EHLO client.test")
            return [
                await talk.say(f"MAIL FROM:<{persian}@{persian}.test> SMTPUTF8"),
                await talk.say("RCPT TO:<b@\u0915\u094d\u200d\u0937.test>"),
                await talk.say("RCPT TO:<b@our\u200ds.test>"),  # RFC 5892 A.2: not between Latin letters
                await talk.say("RCPT\u200d TO:<b@ours.test>"),
            ]

    assert [reply[:9] for reply in run(play())] == ["250 2.1.0", "250 2.1.5", "501 5.1.3", "500 5.5.1"]
    assert [received.recipients for received in door.opened] == [["b@\u0915\u094d\u200d\u0937.test"]]


def test_addresses_reach_the_door_as_written() -> None:
    door = FakeDoor()
    transcript(
        """
        < 220 mx.test ESMTP
        > EHLO client.test
        < 250-mx.test
        < 250-PIPELINING
        < 250-SIZE 41943040
        < 250-8BITMIME
        < 250-SMTPUTF8
        < 250-CHUNKING
        < 250-ENHANCEDSTATUSCODES
        < 250 LIMITS MAILMAX=100 RCPTMAX=100
        > MAIL FROM:<@relay.test,@b.test:Jörg@Bücher.example> SMTPUTF8
        < 250 2.1.0 OK
        > RCPT TO:<"two words"@Ours.Test>
        < 250 2.1.5 OK
        > RCPT TO:<Postmaster>
        < 250 2.1.5 OK
        """,
        door,
    )
    (received,) = door.opened
    assert (received.mail_from, received.smtputf8) == ("Jörg@Bücher.example", True)
    assert received.recipients == ['"two words"@Ours.Test', "Postmaster"]


def test_the_transactions_replies_are_sent_as_they_are() -> None:
    async def refuse(_raw: bytes) -> Reply:
        return Reply(554, "5.7.1", "contains malware")

    def recipient(address: str) -> Reply:
        return RECIPIENT_OK if address.startswith("b@") else Reply(550, "5.1.1", "no such user")

    door = transcript(
        f"""{READY}
        > RCPT TO:<nobody@ours.test>
        < 550 5.1.1 no such user
        > DATA
        < 354 go on, CRLF . CRLF ends it
        > Subject: x
        > .
        < 554 5.7.1 contains malware
        > DATA
        < 503 5.5.1 MAIL FROM first
        """,
        FakeDoor(at_message=refuse, recipient_reply=recipient),
    )
    assert door.messages[0].recipients == ["b@ours.test"]


@pytest.mark.parametrize("error", [ValueError("secret"), ConnectionRefusedError("secret"), TimeoutError("secret")])
@pytest.mark.parametrize("where", ["open", "recipient", "message"])
def test_an_unexpected_exception_is_451_and_its_text_stays_in_the_log(
    where: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(FakeDoor):
        def open(self, client: Client, mail_from: str, *, smtputf8: bool) -> object:  # type: ignore[override]
            if where == "open":
                raise error
            return super().open(client, mail_from, smtputf8=smtputf8)

    def recipient(_address: str) -> Reply:
        if where == "recipient":
            raise error
        return RECIPIENT_OK

    async def message(_raw: bytes) -> Reply:
        raise error

    expected = "451 4.3.0 something went wrong here, try again later"
    text = {
        "open": f"{HELLO}\n> MAIL FROM:<a@b.test>\n< {expected}",
        "recipient": f"{HELLO}\n> MAIL FROM:<a@b.test>\n< 250 2.1.0 OK\n> RCPT TO:<b@ours.test>\n< {expected}",
        "message": f"{READY}\n> DATA\n< 354 go on, CRLF . CRLF ends it\n> .\n< {expected}",
    }[where]
    with caplog.at_level(logging.ERROR):
        transcript(f"{text}\n> NOOP\n< 250 2.0.0 OK", Broken(at_message=message, recipient_reply=recipient))
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]


def test_a_message_task_that_is_cancelled_is_451() -> None:
    async def cancelled(_raw: bytes) -> Reply:
        raise asyncio.CancelledError

    transcript(
        f"""{READY}
        > DATA
        < 354 go on, CRLF . CRLF ends it
        > .
        < 451 4.3.0 something went wrong here, try again later
        > NOOP
        < 250 2.0.0 OK
        """,
        FakeDoor(at_message=cancelled),
    )


def test_recipients_beyond_the_limit_are_told_to_come_again() -> None:
    transcript(
        f"""{READY}
        > RCPT TO:<c@ours.test>
        < 250 2.1.5 OK
        > RCPT TO:<d@ours.test>
        < 452 4.5.3 too many recipients, send the rest separately
        """,
        limits=Limits(recipients=2),
    )


def test_too_many_errors_end_the_session() -> None:
    transcript(
        f"""{HELLO}
        > FROB
        < 500 5.5.1 unknown command
        > FROB
        < 500 5.5.1 unknown command
        > FROB
        < 500 5.5.1 unknown command
        < 421 4.7.0 too many errors, goodbye
        < (closed)
        """,
        limits=Limits(errors=3),
    )


def test_a_message_wipes_the_errors_out() -> None:
    transcript(
        f"""{READY}
        > FROB
        < 500 5.5.1 unknown command
        > DATA
        < 354 go on, CRLF . CRLF ends it
        > .
        < 250 2.6.0 taken
        > FROB
        < 500 5.5.1 unknown command
        > NOOP
        < 250 2.0.0 OK
        """,
        limits=Limits(errors=2),
    )


def test_too_many_commands_without_mail_end_the_session() -> None:
    transcript(
        """
        < 220 mx.test ESMTP
        > NOOP
        < 250 2.0.0 OK
        > RSET
        < 250 2.0.0 OK
        > NOOP
        < 421 4.7.0 too many commands without mail, goodbye
        < (closed)
        """,
        limits=Limits(idle_commands=2),
    )


def test_too_many_commands_of_any_kind_end_the_session() -> None:
    transcript(
        f"""{READY}
        > RCPT TO:<b@ours.test>
        < 421 4.7.0 too many commands, goodbye
        < (closed)
        """,
        limits=Limits(commands=3),
    )


@pytest.mark.parametrize("verb", ["GET", "POST", "CONNECT", "put"])
def test_a_browser_is_left_before_it_says_more(verb: str) -> None:
    door = FakeDoor()

    async def play() -> list[str]:
        async with served(door) as server, talking(server) as talk:
            await talk.line()
            talk.send(f"{verb} / HTTP/1.1\r\nHost: mx.test\r\n\r\nHELO a.test\r\nMAIL FROM:<a@b.test>\r\n".encode())
            return [await talk.line(), await talk.line()]

    assert run(play()) == ["421 4.7.0 this is an SMTP server, goodbye", "(closed)"]
    assert door.opened == []


def test_messages_beyond_the_limit_need_another_connection() -> None:
    transcript(
        f"""{READY}
        > DATA
        < 354 go on, CRLF . CRLF ends it
        > .
        < 250 2.6.0 taken
        > MAIL FROM:<a@sender.test>
        < 421 4.7.0 enough messages for one connection, make another
        < (closed)
        """,
        limits=Limits(messages_per_connection=1),
    )


def test_an_overlong_command_line_is_refused_and_the_session_goes_on() -> None:
    transcript(
        f"""{HELLO}
        > NOOP {"x" * 300_000}
        < 500 5.5.2 the command line is too long
        > NOOP {"x" * 2041}
        < 250 2.0.0 OK
        > NOOP {"x" * 2042}
        < 500 5.5.2 the command line is too long
        """,
    )


@pytest.mark.parametrize("argument", [b"", b" " + b"x" * 4000], ids=["short", "overlong"])
def test_a_command_that_ends_in_a_bare_lf_ends_the_session(argument: bytes) -> None:
    async def play() -> list[str]:
        async with served(FakeDoor()) as server, talking(server) as talk:
            await talk.line()
            talk.send(b"NOOP" + argument + b"\nNOOP\r\n")
            return [await talk.line(), await talk.line(), await talk.line()]

    refused, left, closed = run(play())
    assert refused.startswith("500 5.5.2 the command line" if argument else "500 5.5.2 a command is one line")
    assert (left, closed) == ("421 4.7.0 a bare LF ends no command (RFC 5321 2.3.8), goodbye", "(closed)")


def test_a_pipelined_session_is_answered_in_order_and_its_message_taken() -> None:
    door = FakeDoor()

    async def play() -> list[str]:
        async with served(door) as server, talking(server) as talk:
            talk.send(
                b"EHLO client.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@ours.test>\r\nRCPT TO:<bad>\r\nDATA\r\n"
                b"Subject: x\r\n\r\nbody\r\n.\r\nMAIL FROM:<d@b.test>\r\nRCPT TO:<e@ours.test>\r\nDATA\r\n.\r\nQUIT\r\n"
            )
            return [(await talk.reply())[:9] for _ in range(13)]

    replies = run(play())
    assert [reply[:3] for reply in replies] == (
        ["220", "250", "250", "250", "501", "354", "250", "250", "250", "354", "250", "221", "(cl"]
    )
    assert door.contents == [b"Subject: x\r\n\r\nbody\r\n", b""]
    assert [message.recipients for message in door.messages] == [["c@ours.test"], ["e@ours.test"]]


def test_three_thousand_pipelined_recipients_cost_one_session() -> None:
    async def play() -> list[str]:
        async with served(FakeDoor(), limits=Limits(recipients=10)) as server, talking(server) as talk:
            await talk.begin()
            talk.send(b"RCPT TO:<x@ours.test>\r\n" * 3000)
            return [(await talk.line())[:9] for _ in range(3000)]

    replies = run(play())
    assert replies == ["250 2.1.5"] * 9 + ["452 4.5.3"] * 2991


def test_a_client_that_speaks_before_the_greeting_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        async with served(FakeDoor()) as server:
            for _ in range(50):  # whether the octets or our task come first is the kernel's choice
                async with talking(server) as talk:
                    talk.send(b"EHLO client.test\r\nMAIL FROM:<a@b.test>\r\n")
                    assert (await talk.reply())[:3] == "220"
                    assert (await talk.reply())[:3] == "250"
                    assert (await talk.reply())[:3] == "250"

    with caplog.at_level(logging.WARNING):
        run(play())
    assert any(
        "went on before" in record.message or "before the greeting" in record.message for record in caplog.records
    )
