"""Two servers must never see two different messages in one: sequences that some take for the end of data, everywhere.

Each is sent in one piece, cut in two at every octet around it, and octet by octet; by DATA and by BDAT, whose chunks end at
every octet of it; and with both policies for bare line ends.
"""

import dataclasses

import pytest

from inbound.settings import Limits
from tests.receive.memory_wire import Heard, hear

REFUSING = Limits(tarpit_seconds=0.0)
NORMALISING = dataclasses.replace(REFUSING, bare_line_ends="normalise")
POLICIES = pytest.mark.parametrize("limits", [REFUSING, NORMALISING], ids=["refuse", "normalise"])

# The seven of The-Login's SMTP-Smuggling-Tools, and others of their kind.
SEVEN = [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n.\n", b"\r\n\0.\r\n"]
MORE = [
    b"\r\r\n.\r\r\n", b"\r\n.\r\r\n", b"\n\r.\r\n", b"\n\r.\n\r", b"\r\n.\0\r\n", b"\r\0\n.\r\n", b"\r\n.\r\0\n", b"\n\n.\n\n",
    b"\r\r.\r\r", b"\0\n.\n", b"\r\n..\n", b"\r\n.\x0b\n", b"\n.\r", b"\r.\n", b"\r\n\r.\r\n", b"\r\n\n.\r\n",
]  # fmt: skip
# These have no bare line end and no NUL: they are plain text, and no end either.
PLAIN = [b"\r\n..\r\n", b"\r\n. \r\n", b"\r\n.\t\r\n", b"\r\n .\r\n", b"\r\n.\x1a\r\n", b"\r\n\xe3\x80\x82\r\n", b"\r\n\x85.\x85",
         b"\r\n.\x0b\r\n"]  # fmt: skip

HELLO = b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
INNER = b"MAIL FROM:<evil@b.test>\r\nRCPT TO:<victim@d.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nboo"
OUTER = b"Subject: outer\r\n\r\nbody"
BARE = b"550 5.6.11"


def by_data(sequence: bytes) -> tuple[bytes, int]:
    """The stream, and where the sequence begins in it."""
    before = HELLO + b"DATA\r\n" + OUTER
    return before + sequence + INNER + b"\r\n.\r\nNOOP\r\n", len(before)


def pieces_of(stream: bytes, start: int, length: int) -> list[list[bytes]]:
    """In one, in two around the sequence, octet by octet."""
    cuts = [[stream[:at], stream[at:]] for at in range(start - 1, start + length + 2)]
    return [[stream], *cuts, [stream[at : at + 1] for at in range(len(stream))]]


def told(heard: Heard) -> list[bytes]:
    """The codes of what was answered behind the envelope, NOOP's last."""
    return [line[:10] for line in heard.replies[11:] if line]


@POLICIES
@pytest.mark.parametrize("sequence", [*SEVEN, *MORE], ids=repr)
def test_a_look_alike_ends_no_data_wherever_it_is_cut(sequence: bytes, limits: Limits) -> None:
    stream, start = by_data(sequence)
    for pieces in pieces_of(stream, start, len(sequence)):
        heard = hear(pieces, limits)
        assert len(heard.door.opened) == 1
        if limits is REFUSING or b"\0" in sequence:
            assert (told(heard), heard.messages) == ([b"354 go on,", BARE, b"250 2.0.0 "], [])
        else:
            assert told(heard) == [b"354 go on,", b"250 2.6.0 ", b"250 2.0.0 "]
            ((_, _, raw),) = heard.messages
            assert raw is not None
            assert raw.startswith(OUTER)
            assert raw.endswith(INNER + b"\r\n")
            assert raw.count(b"\n") == raw.count(b"\r") == raw.count(b"\r\n")


@POLICIES
@pytest.mark.parametrize("sequence", PLAIN, ids=repr)
def test_what_only_looks_like_a_dot_is_text(sequence: bytes, limits: Limits) -> None:
    stream, start = by_data(sequence)
    for pieces in pieces_of(stream, start, len(sequence)):
        heard = hear(pieces, limits)
        assert told(heard) == [b"354 go on,", b"250 2.6.0 ", b"250 2.0.0 "]
        expected = OUTER + sequence.replace(b"\r\n.", b"\r\n") + INNER + b"\r\n"
        assert [raw for _, _, raw in heard.messages] == [expected]


@POLICIES
@pytest.mark.parametrize("sequence", [*SEVEN, *MORE, b"\r\n.\r\n"], ids=repr)
def test_in_chunks_nothing_ends_the_data_but_the_count(sequence: bytes, limits: Limits) -> None:
    content = OUTER + sequence + INNER + b"\r\n"
    for at in range(len(OUTER), len(OUTER) + len(sequence) + 1):
        stream = b"%bBDAT %d\r\n%bBDAT %d LAST\r\n%bNOOP\r\n" % (
            HELLO, at, content[:at], len(content) - at, content[at:]
        )  # fmt: skip
        heard = hear([stream], limits)
        single = hear([stream[place : place + 1] for place in range(len(stream))], limits)
        assert (single.replies, single.messages) == (heard.replies, heard.messages)
        assert len(heard.door.opened) == 1
        assert told(heard)[-1] == b"250 2.0.0 "  # the NOOP is one
        if sequence == b"\r\n.\r\n":
            assert [raw for _, _, raw in heard.messages] == [content]
        elif limits is REFUSING or b"\0" in sequence:
            assert heard.messages == []
            assert BARE in told(heard)
        else:
            assert len(heard.messages) == 1


@POLICIES
@pytest.mark.parametrize("sequence", [b"\r\n.\r\n", b"\r\n.\r\n\r\n"], ids=repr)
def test_what_is_pipelined_behind_the_end_of_data_is_commands(sequence: bytes, limits: Limits) -> None:
    """RFC 2920 allows it: they are the same client's, and say so in two transactions of its own."""
    stream, start = by_data(sequence)
    for pieces in pieces_of(stream, start, len(sequence)):
        heard = hear(pieces, limits)
        assert [(sender, raw) for sender, _, raw in heard.messages] == [
            ("a@b.test", OUTER + b"\r\n"),
            ("evil@b.test", b"Subject: smuggled\r\n\r\nboo\r\n"),
        ]


def test_a_dot_at_the_very_beginning_is_an_empty_message_and_two_are_one() -> None:
    heard = hear([HELLO + b"DATA\r\n.\r\n" + HELLO[8:] + b"DATA\r\n..\r\n.\r\nNOOP\r\n"], REFUSING)
    assert [raw for _, _, raw in heard.messages] == [b"", b".\r\n"]


COMMANDS = [b"EHLO x", b"HELO x", b"MAIL FROM:<e@d.test>", b"RCPT TO:<e@d.test>", b"DATA", b"BDAT 4 LAST", b"RSET", b"NOOP x",
            b"VRFY x", b"EXPN x", b"HELP x", b"QUIT", b"STARTTLS", b"AUTH PLAIN eA=="]  # fmt: skip
FORBIDDEN = [b"\r", b"\0", b"\x08", b"\x0b", b"\x1b[2J", b"\x7f", b"\x80", b"\xff", b"\xc0\xae", b"\xed\xa0\x80",
             "\u0085".encode(), "\u2028".encode(), "\u202e".encode()]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_with_a_bare_lf_in_it_is_neither_one_nor_two(command: bytes) -> None:
    """An argument of somebody else's may hold anything: what follows a bare LF is never obeyed."""
    for at in range(len(command) + 1):
        heard = hear([HELLO + command[:at] + b"\n" + command[at:] + b"\r\nNOOP\r\n"], REFUSING)
        assert told(heard) == [b"500 5.5.2 ", b"421 4.7.0 "]
        assert [one.recipients for one in heard.door.opened] == [["c@d.test"]]


@pytest.mark.parametrize("octets", FORBIDDEN, ids=repr)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_printable_characters_only(command: bytes, octets: bytes) -> None:
    for at in range(len(command) + 1):
        heard = hear([HELLO + command[:at] + octets + command[at:] + b"\r\nNOOP\r\n"], REFUSING)
        # Behind a BDAT nobody can count, the NOOP is its content as well as not.
        left = command.startswith(b"BDAT") and at >= len(b"BDAT")
        assert told(heard) == [b"500 5.5.2 ", b"421 4.7.0 " if left else b"250 2.0.0 "]
        assert [one.recipients for one in heard.door.opened] == [["c@d.test"]]
