"""Any session, however it is cut into pieces, is answered like the same session in one piece; and nothing is left of it."""

import dataclasses
import logging
import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from inbound.reply import Reply
from inbound.settings import Limits
from tests.receive.memory_wire import Heard, hear
from tests.receive.talk import RECIPIENT_OK, FakeDoor

SMALL = Limits(
    tarpit_seconds=0.0,
    message_bytes=300,
    header_bytes=90,
    header_fields=4,
    line_bytes=60,
    command_bytes=100,
    recipients=3,
    errors=12,
    commands=40,
    idle_commands=8,
    refused_recipients=4,
    messages_per_connection=4,
)
NORMALISING = dataclasses.replace(SMALL, bare_line_ends="normalise")

_ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b" \r\n", b"\0\r\n"])
_WORDS = st.sampled_from(
    [b"EHLO x", b"HELO x", b"EHLO", b"MAIL FROM:<a@b.test>", b"MAIL FROM:<>", b"MAIL FROM:<a@b.test> SIZE=9 BODY=8BITMIME",
     b"MAIL FROM:<\xc3\xa9@b.test> SMTPUTF8", b"MAIL FROM:<\xe9@b.test>", b"mail from: <a..b@c_d.test>", b"RCPT TO:<no@b.test>",
     b"RCPT TO:<c@d.test>", b"RCPT TO:<e@f.test>", b"RCPT TO:<", b"RSET", b"NOOP \0", b"NOOP", b"VRFY x", b"HELP", b"DATA",
     b"STARTTLS", b"AUTH x", b"XYZ", b"", b"QUIT", b"GET / HTTP/1.1", b"NOOP " + b"x" * 94, b"NOOP " + b"x" * 93, b"x" * 300,
     b"BDAT 0", b"BDAT 0 LAST", b"BDAT x"]
)  # fmt: skip
_COMMANDS = st.builds(lambda word, end: word + end, _WORDS, _ENDS)
_LINES = st.sampled_from(
    [b"Subject: x\r\n", b"\r\n", b"body\r\n", b"..\r\n", b".x\r\n", b".\n", b"\n.\n", b"\r.\r", b"\r\n.\r", b"\n.\r\n", b"\0",
     b"\r\r\n.\r\r\n", b"x" * 59 + b"\r\n", b"x" * 61 + b"\r\n", b"QUIT\r\n", b"MAIL FROM:<evil@b.test>\r\n", b"\r", b"\xff\r\n"]
)  # fmt: skip
_CONTENT = st.lists(_LINES, max_size=8).map(b"".join)
_ENVELOPE = st.just(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n")
_MESSAGE = st.builds(lambda content: b"DATA\r\n" + content + b"\r\n.\r\n", _CONTENT)
_CHUNK = st.builds(
    lambda content, lie, last: b"BDAT %d%b\r\n" % (max(len(content) + lie, 0), last) + content,
    _CONTENT,
    st.sampled_from([0, 0, 0, 0, 1, -1, 7, -5, 400]),
    st.sampled_from([b"", b" LAST", b" last"]),
)
_CHUNKS = st.lists(_CHUNK, min_size=1, max_size=3).map(b"".join)
_TRANSACTION = st.tuples(_ENVELOPE, st.just(b"") | _COMMANDS, _MESSAGE | _CHUNKS).map(b"".join)
_PARTS = st.one_of(_TRANSACTION, _TRANSACTION, _TRANSACTION, _COMMANDS, _MESSAGE, _CHUNK, st.binary(max_size=6))
_STREAMS = st.tuples(
    st.sampled_from([b"EHLO x\r\n", b"HELO x\r\n", b"EHLO x\r\n", b""]), st.lists(_PARTS, max_size=8).map(b"".join)
).map(b"".join)
_CUTS = st.lists(st.integers(0, 2000), max_size=24)

_LINE = re.compile(rb"[2-5]\d\d[ -][ -~]*")


def _recipient(address: str) -> Reply:
    return Reply(550, "5.1.1", "no such user") if address.startswith("no@") else RECIPIENT_OK


def _heard(pieces: list[bytes], limits: Limits) -> Heard:
    return hear(pieces, limits, FakeDoor(recipient_reply=_recipient))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stream=_STREAMS, cuts=_CUTS, limits=st.sampled_from([SMALL, NORMALISING]))
@example(
    stream=b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 65\r\n" + b"x" * 61 + b"\r\n.\n",
    cuts=[120],
    limits=SMALL,
)
@example(stream=b"EHLO x\r\n" * 5, cuts=list(range(40)), limits=SMALL)
def test_a_session_in_pieces_is_answered_as_in_one(
    stream: bytes, cuts: list[int], limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    caplog.set_level(logging.ERROR)
    whole = _heard([stream], limits)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    cut = _heard([stream[start:stop] for start, stop in pairwise(places)], limits)
    assert cut.replies == whole.replies
    assert cut.messages == whole.messages
    for heard in (whole, cut):
        assert (heard.left, heard.troubles) == ((0, 0), [])
        assert [line for line in heard.replies[:-1] if not _LINE.fullmatch(line) or len(line) > 510] == []
        assert heard.replies[-1] == b""
    assert caplog.records == []


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stream=_STREAMS)
def test_a_session_octet_by_octet_is_answered_as_in_one(stream: bytes) -> None:
    whole = _heard([stream], SMALL)
    single = _heard([stream[at : at + 1] for at in range(len(stream))], SMALL)
    assert (single.replies, single.messages) == (whole.replies, whole.messages)


RICH = (
    b"EHLO x\r\nMAIL FROM:<a@b.test> SIZE=90 BODY=8BITMIME\r\nRCPT TO:<c@d.test>\r\nRCPT TO:<no@d.test>\r\nDATA\r\n"
    b"A: b\r\n c\r\n\r\n..\r\n.x\r\n.\r\n"
    b"MAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\nBDAT 12\r\nA: b\r\n\r\nx\r\n\rBDAT 6\r\n\n\r\n.\r\nBDAT 0 LAST\r\n"
    b"MAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n\r\na\r\n.\rb\n.\n\r\n.\r\nNOOP\r\n"
    b"MAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\nBDAT 3\r\nabcDATA\r\nRSET\r\nBDAT 6\r\nQUIT\r\nNOOP x\r\nVRFY\n"
    + b"z" * 150
    + b"\r\nQUIT\r\n"
)  # fmt: skip


def test_a_session_can_be_cut_anywhere() -> None:
    whole = _heard([RICH], SMALL)
    assert [message[2] for message in whole.messages] == [
        b"A: b\r\n c\r\n\r\n.\r\nx\r\n",
        b"A: b\r\n\r\nx\r\n\r\n\r\n.\r\n",
    ]
    for at in range(len(RICH)):
        cut = _heard([RICH[:at], RICH[at:]], SMALL)
        assert (at, cut.replies, cut.messages) == (at, whole.replies, whole.messages)
