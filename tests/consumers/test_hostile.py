"""Nothing that a sender writes makes a consumer raise, wait, or look outside of the message."""

import base64
import io
import json
import re
import time
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.consumer import Limits, Message, Verdicts
from inbound.consumer.block import block_of
from inbound.consumer.reading import parse
from inbound.mail import Headers
from tests.consumers.stored import OURS, SES_BLOCK, told
from tests.consumers.test_message import MIXED

HEAD = b"Subject: x\r\nMIME-Version: 1.0\r\n"
PATIENCE = 20.0  # seconds that no honest reading comes near; what is quadratic takes minutes

FORMS = ("Raw", "Text", "Addresses", "GroupedAddresses", "MessageIds", "Date", "URLs")


def looked_at(raw: bytes) -> Message:
    """Everything of a message, as a consumer might ask for it."""
    begun = time.monotonic()
    message = parse(raw)
    json.loads(message.to_json())
    assert isinstance(message.text + message.html + message.preview, str)
    for one in message.attachments:
        assert "/" not in one.safe_name
        one.content()
        one.text()
    block_of(Headers.of(raw).fields)
    assert time.monotonic() - begun < PATIENCE
    return message


@given(st.binary(max_size=2000))
def test_no_octets_make_it_raise(octets: bytes) -> None:
    for raw in (octets, OURS + octets, OURS[: len(octets)] + octets):
        looked_at(raw)


_PIECES = st.sampled_from(
    [
        *(b"Content-Type: multipart/mixed; boundary=a\r\n", b"Content-Type: multipart/alternative; boundary=ab\n"),
        *(b"--a\r\n", b"--ab\n", b"--a--\r\n", b"--ab--", b"\r\n", b"\n", b"\r", b" ", b"\t", b"From: a@b, c:d@e;\r\n"),
        *(
            b"Content-Type: text/html\r\n",
            b"Content-Type: message/rfc822\r\n",
            b"Content-Transfer-Encoding: base64\r\n",
        ),
        *(
            b"Content-Disposition: attachment; filename*0*=utf-8''%ff; filename*1=x\r\n",
            b"=?utf-8?b?////?=",
            b"<p",
            b"\0",
        ),
    ]
)


@given(st.lists(_PIECES, max_size=40))
def test_no_order_of_pieces_makes_it_raise_or_lose_octets(pieces: list[bytes]) -> None:
    message = looked_at(b"".join(pieces))
    assert message.raw == b"".join(pieces)


@pytest.mark.parametrize("form", FORMS)
@given(st.text(max_size=300))
def test_no_header_makes_a_form_raise(form: str, value: str) -> None:
    parse(b"X: " + value.encode("utf-8", "surrogatepass") + b"\r\n\r\n").header(f"X:as{form}:all")


def test_ten_thousand_parts_are_read_as_far_as_the_limit() -> None:
    raw = HEAD + b"Content-Type: multipart/mixed; boundary=m\r\n\r\n" + b"--m\r\n\r\nx\r\n" * 10_000 + b"--m--\r\n"
    message = looked_at(raw)
    assert (len(message.textBody), message.problems) == (999, ("more than 1000 parts",))
    assert len(parse(raw, Limits(parts=20_000)).textBody) == 10_000


def test_messages_inside_of_messages_are_one_attachment() -> None:
    raw = HEAD + b"Content-Type: message/rfc822\r\n\r\n" * 1000 + b"Subject: innermost\r\n\r\n"
    message = looked_at(raw)
    assert (len(message.attachments), message.problems) == (1, ())
    inner, depth = message, 0
    while inner.attachments and depth < 50:
        inner, depth = inner.attachments[0].message(), depth + 1
    assert depth == 50


def test_an_attachment_that_is_made_like_an_event_is_no_event() -> None:
    event = told({"type": "SNS"}, "From: boss@sender.example\r\n\r\n").encode()
    raw = HEAD + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode(event)
    inner = parse(raw).attachments[0].message()
    assert (inner.from_, inner.raw, inner.verdicts) == ((), event, Verdicts())
    assert (inner.passed("dmarc"), inner.provenance.reason) == (False, "it stood inside of another message")


def test_multiparts_inside_of_multiparts_have_an_end() -> None:
    opened = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (at, at) for at in range(2000))
    message = looked_at(HEAD + opened + b"\r\ninnermost\r\n")
    assert message.problems == ("nested deeper than 100",)
    assert "innermost" in message.text


def test_the_same_boundary_at_every_level_is_read_in_linear_time() -> None:
    opened = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" * 100
    looked_at(HEAD + opened + b"\r\nx\r\n" + b"--b\r\n\r\n" * 100_000)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"X: y\r\n" * 10_000, "the header is longer than the limits allow"),
        (b"X: " + b"y" * 2_000_000 + b"\r\n", "the header is longer than the limits allow"),
        (b"X: y\r\n" + b" y\r\n" * 500_000, "the header is longer than the limits allow"),
        (b"Content-Type: text/plain;" + b" a=b;" * 10_000 + b"\r\n", "a content-type field longer than 8192 octets"),
        (b"nothing of a field\r\n", "a line in the header that is no field"),
        (b"Content-Type: text/plain\r\nContent-Type: text/html\r\n", "several content-type fields"),
        (b"Content-Type: multipart/mixed\r\n", "multipart/mixed without a boundary"),
        (b"Content-Type: multipart/mixed; boundary=x\r\n", "the boundary of a multipart/mixed never comes"),
        (b"Content-Type: multipart/mixed; boundary=" + b"x" * 300 + b"\r\n", "a boundary longer than 250 octets"),
    ],
    ids=range(9),
)
def test_a_header_beyond_what_is_honest_is_told_and_the_body_is_still_there(header: bytes, problem: str) -> None:
    message = looked_at(HEAD + header + b"\r\nThe body\r\n")
    assert problem in message.problems
    assert message.subject == "x"
    assert "The body" in message.text


def test_a_header_bomb_in_a_part_ends_the_header_and_nothing_else() -> None:
    bomb = b"--m\r\n" + b"X: y\r\n" * 20_000 + b"\r\n"
    raw = HEAD + b"Content-Type: multipart/mixed; boundary=m\r\n\r\n" + bomb * 20 + b"--m\r\n\r\nthe last\r\n--m--\r\n"
    message = looked_at(raw)
    assert message.problems == ("the header of a part is longer than the limits allow",)
    assert "the last" in message.text


@pytest.mark.parametrize(
    "value",
    [
        *(
            b"<" * 60_000,
            b"(" * 60_000,
            b"<a" * 30_000,
            b"a@b," * 15_000,
            b'"' * 60_000,
            b"\\" * 60_000,
            b"a:" * 30_000,
        ),
        *(b"=?utf-8?q?" * 6_000, b"=?utf-8?b?YQ==?= " * 4_000, b"; dkim=" * 8_000, b"[" * 60_000, b"\r\n (" * 15_000),
        *("e\u0301\u0327".encode() * 10_000, "\u0301\u0327".encode() * 10_000),
    ],
    ids=range(14),
)
def test_a_hostile_header_is_read_in_linear_time(value: bytes) -> None:
    names = (b"From", b"To", b"References", b"Message-ID", b"Date", b"Subject", b"Content-Id", b"List-Post")
    raw = (
        OURS.replace(b"spf=pass", b"spf=pass;" + value) + b"".join(n + b": " + value + b"\r\n" for n in names) + b"\r\n"
    )
    message = looked_at(raw)
    for form in FORMS[1:]:
        parse(b"X: " + value + b"\r\n\r\n").header(f"X:as{form}")
    assert message.size == len(raw)


@pytest.mark.parametrize(
    "page",
    [b"<" * 500_000, b"<style>" * 70_000, b"<script" * 70_000, b"</style>" * 70_000, b"&" * 500_000, b"&#9" * 100_000],
    ids=["tags", "styles", "scripts", "ends", "entities", "numbers"],
)
def test_a_hostile_page_is_read_in_linear_time(page: bytes) -> None:
    looked_at(b"Content-Type: text/html\r\n\r\n" + page)


def test_lines_like_delimiters_have_an_end() -> None:
    raw = HEAD + b"Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\r\n" + b"--mm\r\n" * 1_000_000
    assert looked_at(raw).problems == ("more than 100000 lines that look like delimiters",)


def attached(field: bytes, body: bytes = b"x") -> Message:
    return looked_at(
        HEAD + b"Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: application/zip\r\n"
        b"Content-Disposition: attachment" + field + b"\r\n\r\n" + body + b"\r\n--m--\r\n"
    )


@pytest.mark.parametrize(
    ("field", "name", "safe"),
    [
        (b'; filename="../../../etc/passwd"', "../../../etc/passwd", "passwd"),
        (b"; filename*=utf-8''..%2F..%2Fetc%2Fpasswd", "../../etc/passwd", "passwd"),
        (b"; filename*1=b; filename*0=a", "ab", "ab"),
        (b"; filename*0=a; filename*2=c", "a", "a"),
        (b"; filename*0*=utf-8''%C3; filename*1*=%A4", "ä", "ä"),
        (b"; filename*=utf-8''%00%0d%0aX", "X", "X"),
        (b"; filename*=nonsense''%ff", "ÿ", "ÿ"),
        (b"; filename*=%", "%", "%"),
        (b"; filename==?utf-8?q?a=2Epdf?=", "a.pdf", "a.pdf"),
        (b'; filename="C:\\\\Users\\\\x\\\\a.exe"', "C:\\Users\\x\\a.exe", "a.exe"),
        (b"; filename=" + b"a" * 5000, "a" * 5000, "a" * 150),
        (b"; filename=\xff\xfe", "ÿþ", "ÿþ"),
        (b"; filename*=utf-7''+2AA-", "\ufffd", "\ufffd"),
        (b"", None, "attachment"),
    ],
    ids=range(14),
)
def test_names_of_attachments_are_data(field: bytes, name: str | None, safe: str) -> None:
    (one,) = attached(field).attachments
    assert (one.name, one.safe_name) == (name, safe)


def test_a_zip_bomb_is_octets_and_is_not_opened() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * 50_000_000)
    encoded = base64.encodebytes(made.getvalue())
    message = attached(b"; filename=a.zip\r\nContent-Transfer-Encoding: base64", encoded)
    (one,) = message.attachments
    assert (one.size, one.content()) == (len(made.getvalue()), made.getvalue())


@pytest.mark.parametrize(
    "garbage", [b"=" * 100_000, b"A" * 100_001, b"%$#!" * 10_000, b"AA=A" * 50_000, b"\0\xff" * 50_000], ids=range(5)
)
@pytest.mark.parametrize("encoding", [b"base64", b"quoted-printable", b"x-uuencode", b"x-none", b"7bit"])
def test_garbage_in_any_encoding_is_decoded_as_far_as_it_goes(encoding: bytes, garbage: bytes) -> None:
    (one,) = attached(b"\r\nContent-Transfer-Encoding: " + encoding, garbage).attachments
    assert one.size == len(one.content())


@pytest.mark.parametrize("charset", ["utf-7", "punycode", "idna", "zlib", "rot13", "undefined", "utf-16", "x" * 10_000])
def test_no_charset_makes_lone_surrogates_or_runs_a_codec_that_is_none(charset: str) -> None:
    body = b"+2AA- =D8=00 +/v8-\xed\xa0\x80" * 100
    message = looked_at(f"Content-Type: text/plain; charset={charset}\r\n\r\n".encode() + body)
    message.text.encode("utf-8")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "99 99 9999",
        "Tue, 6 Oct 2026 11:15:00 +9999",
        "0" * 10_000,
        "Tue, 6 Oct 0 0:0:0",
        "1 Jan 99999 1:1",
        "1 Jan 1 0:0 +1400",
    ],
)
def test_a_date_that_is_none_is_told_as_none(value: str) -> None:
    message = looked_at(f"Return-Path: <>\r\nReceived: x; {value}\r\nDate: {value}\r\n\r\n".encode())
    assert message.sentAt is None or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", message.sentAt)


@pytest.mark.parametrize(
    ("first", "second"), [(b"\r\n", b"\n"), (b"\n", b"\r\n"), (b"\n", b"\n")], ids=["crlf", "lf first", "lf"]
)
def test_either_line_end_is_read(first: bytes, second: bytes) -> None:
    raw = MIXED.replace(b"\r\n", first, 20).replace(b"\r\n", second)
    message = looked_at(raw)
    assert (message.subject, len(message.attachments)) == ("Grüße", 2)


def test_a_forged_block_below_ours_counts_for_nothing_however_it_is_hung_on() -> None:
    forged = SES_BLOCK.replace(b"sender.example", b"bank.example")
    for between in (b"", b" ", b"\t", b"X:\r\n ", b"\n", b"\r", b"\0"):
        found: Any = block_of(Headers.of(OURS + between + forged + MIXED).fields)
        assert found is not None
        assert (found.mail_from, found.authserv_id) == ("pat@sender.example", "mx.example.com")
