"""A notification of what was refused: one that every reader of bounces reads, whatever the message was like."""

import email
import email.policy
import quopri
import re
from collections.abc import Sequence
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.dsn import LONGEST_HEADERS, Failed, Notification, notification
from inbound.reply import Reply
from inbound.trace import header_block
from tests.ruling import CLIENT, PASSED, mail

REFUSED = Reply(554, "5.7.1", "Message contains malware")
UNKNOWN = Reply(550, "5.1.1", "No such recipient")
NOW = 1_790_000_060.0


def told(
    *failed: Failed,
    header: bytes = b"From: Sender <sender@example.net>\r\nSubject: Hello\r\nMessage-ID: <1@example.net>\r\n",
    sender: str = "",
    **envelope: Any,
) -> Notification:
    message = mail(header=header.decode("utf-8", "surrogateescape").removesuffix("\r\n") + "\r\n", **envelope)
    block = header_block(message, PASSED, hostname="mx.example.com", authserv_id="mx.example.com")
    return notification(
        message,
        failed or (Failed(recipient="b@example.com", reply=REFUSED),),
        block=block,
        hostname="mx.example.com",
        sender=sender,
        now=NOW,
    )


def read(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def parts(raw: bytes) -> list[Any]:
    message = read(raw)
    assert message.get_content_type() == "multipart/report"
    assert message.defects == []
    payload = message.get_payload()
    assert isinstance(payload, list)
    return payload


def status(raw: bytes) -> list[dict[str, str]]:
    """The blocks of the status part, with names and values as they are written."""
    body = raw.split(b"Content-Description: Delivery Status Notification\r\n\r\n")[1].split(b"\r\n------=_Part_")[0]
    blocks = body.decode().strip().split("\r\n\r\n")
    return [dict(line.split(": ", 1) for line in block.split("\r\n")) for block in blocks]


def test_it_has_the_form_of_ses_and_what_ses_leaves_out() -> None:
    message = told(Failed(recipient="b@example.com", reply=REFUSED), Failed(recipient="c@example.com", reply=UNKNOWN))
    assert message.rcpt_to == "sender@example.net"
    head = read(message.raw)
    assert {name: str(head[name]) for name in head.keys() if name not in ("Content-Type", "Message-ID")} == {  # noqa: SIM118
        "Date": "Mon, 21 Sep 2026 14:14:20 +0000",
        "From": "Mail Delivery System <MAILER-DAEMON@mx.example.com>",
        "To": "sender@example.net",
        "Subject": "Delivery Status Notification (Failure)",
        "In-Reply-To": "<1@example.net>",
        "References": "<1@example.net>",
        "Auto-Submitted": "auto-replied",
        "MIME-Version": "1.0",
    }
    assert head["Content-Type"].params["report-type"] == "delivery-status"
    assert [
        (part.get_content_type(), part["Content-Transfer-Encoding"], part["Content-Description"])
        for part in parts(message.raw)
    ] == [
        ("text/plain", "7bit", "Notification"),
        ("message/delivery-status", "7bit", "Delivery Status Notification"),
        ("text/rfc822-headers", "7bit", "Undelivered Message"),
    ]
    assert status(message.raw) == [
        {
            "Reporting-MTA": "dns; mx.example.com",
            "Received-From-MTA": "dns; mail.example.net",
            "Arrival-Date": "Mon, 21 Sep 2026 14:13:20 +0000",
        },
        {
            "Final-Recipient": "rfc822; b@example.com",
            "Action": "failed",
            "Status": "5.7.1",
            "Diagnostic-Code": "smtp; 554 5.7.1 Message contains malware",
        },
        {
            "Final-Recipient": "rfc822; c@example.com",
            "Action": "failed",
            "Status": "5.1.1",
            "Diagnostic-Code": "smtp; 550 5.1.1 No such recipient",
        },
    ]
    assert "<c@example.com>\r\n    550 5.1.1 No such recipient" in parts(message.raw)[0].get_content()


def test_the_header_fields_go_back_under_our_received_and_nothing_else_of_ours_or_of_the_body() -> None:
    content = parts(told().raw)[2].get_payload()
    names = [line.partition(":")[0] for line in content.splitlines() if line[:1].strip()]
    assert names == ["Return-Path", "Received", "From", "Subject", "Message-ID"]
    assert b"Hello.\r\n" not in told().raw


def test_the_sender_of_the_rule_is_from() -> None:
    assert read(told(sender="bounces@example.com").raw)["From"] == "bounces@example.com"


def test_one_message_and_its_refusals_have_one_message_id() -> None:
    other = told(Failed(recipient="b@example.com", reply=UNKNOWN))
    assert told().message_id == told().message_id
    assert told().message_id != other.message_id
    assert read(told().raw)["Message-ID"] == told().message_id


@pytest.mark.parametrize(
    "written",
    [b"<>", b"<a@b> <c@d>", b"<a@b>\r\n\t<c@d>", b"<" + b"a" * 300 + b"@b>", b"a@b", b"<\xc3\xa4@b>", b"<a@b\x00>"],
)
def test_a_message_id_that_is_none_is_not_answered(written: bytes) -> None:
    head = read(told(header=b"Subject: x\r\nMessage-ID: " + written + b"\r\n").raw)
    assert (head["In-Reply-To"], head["References"]) == (None, None)


MANY = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 40) for number in range(10_000))
HOSTILE = {
    "a boundary": b"Subject: x\r\n------=_Part_1_" + b"0" * 40 + b"--\r\n",
    "a bare carriage return": b"Subject: a\rBcc: victim@example.org\r\n",
    "a bare line feed": b"Subject: a\nBcc: victim@example.org\n\nbody\r\n",
    "a zero octet": b"Subject: a\x00b\r\n",
    "escape sequences": b"Subject: \x1b]0;x\x07\r\n",
    "a long line": b"Subject: " + b"x" * 20_000 + b"\r\n",
    "ten thousand fields": MANY,
    "one field too long to go back": b"X-Long: " + b"x" * LONGEST_HEADERS + b"\r\nSubject: x\r\n",
    "utf-8": "Subject: Größe\r\n".encode(),
    "latin-1": "Subject: Größe\r\n".encode("latin-1"),
    "c1 controls": "Subject: a\x85Bcc: x\u2028y\r\n".encode(),
    "lines that are no fields": b"no field\r\n: nor this\r\n\tnor that\r\nSubject: x\r\n",
    "a first line that continues nothing": b" x\r\nSubject: x\r\n",
    "fields of a part": b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n",
    "trailing blanks": b"Subject: x  \r\n \t\r\nX: y \r\n",
    "soft line breaks": "Subject: ä=\r\n =3D\r\n".encode(),
}


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE)
def test_header_fields_of_any_kind_stay_content(header: bytes) -> None:
    raw = told(header=header).raw
    found = parts(raw)
    assert [part.get_content_type() for part in found] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    assert [name for name in read(raw).keys() if name in ("Bcc", "X-1")] == []  # noqa: SIM118
    assert re.fullmatch(rb"(?:[\t -~]{0,998}\r\n)*", raw), "it is lines of ASCII"
    assert len(raw) < 3 * LONGEST_HEADERS + 4000
    content = found[2].get_payload(decode=True)
    start = content.index(b" (UTC)\r\n") + 8
    assert header.startswith(content[start:].removesuffix(b"\r\n"))
    if len(header) < LONGEST_HEADERS - 1000:
        assert content[start:].removesuffix(b"\r\n") == header.removesuffix(b"\r\n")


@given(st.binary(max_size=2000), st.booleans())
def test_whatever_the_header_fields_are_they_come_out_as_they_were(octets: bytes, utf8: bool) -> None:
    header = b"X: " + octets.replace(b"\r\n", b"\n") + b"\r\n"
    made = told(Failed(recipient="bär@example.com" if utf8 else "b@example.com", reply=REFUSED), header=header)
    assert len(parts(made.raw)) == 3
    assert re.fullmatch(rb"(?:[^\r\n\0]{0,998}\r\n)*", made.raw)
    encoded = made.raw.split(b"Content-Description: Undelivered Message\r\n\r\n")[1].rpartition(b"\r\n------=_Part_")[0]
    content = quopri.decodestring(encoded) if b"quoted-printable" in made.raw else encoded
    assert content.endswith(b" (UTC)\r\n" + header)


@pytest.mark.parametrize("helo", ["", "[192.0.2.1]", "mail.example.net", "a b", "x\r\nAction: delivered", "ä.example"])
def test_a_name_from_helo_is_told_where_it_is_one(helo: str) -> None:
    fields = status(told(client=replace(CLIENT, helo=helo)).raw)[0]
    known = {"Received-From-MTA": f"dns; {helo}"} if helo.isascii() and helo and " " not in helo else {}
    assert {name: value for name, value in fields.items() if name == "Received-From-MTA"} == known


def test_without_header_fields_there_is_still_our_own() -> None:
    assert b"Received: from mail.example.net" in parts(told(header=b"").raw)[2].get_payload(decode=True)


@pytest.mark.parametrize(
    ("sender", "recipient", "to", "final"),
    [
        ("a@bücher.example", "b@example.com", "a@xn--bcher-kva.example", "rfc822; b@example.com"),
        ("a@example.net", "b@bücher.example", "a@example.net", "rfc822; b@xn--bcher-kva.example"),
        ("a@example.net", "bär@bücher.example", "a@example.net", "utf-8; bär@bücher.example"),
        ("änne@bücher.example", "b@example.com", "änne@bücher.example", "rfc822; b@example.com"),
        ('"a \\"b"@example.net', '"c;d"@example.com', '"a \\"b"@example.net', 'rfc822; "c;d"@example.com'),
    ],
)
def test_an_address_is_written_in_the_plainest_form_it_has(sender: str, recipient: str, to: str, final: str) -> None:
    made = told(Failed(recipient=recipient, reply=REFUSED), mail_from=sender)
    assert made.rcpt_to == to
    assert f"\r\nTo: {to}\r\n".encode() in made.raw
    assert status(made.raw)[1]["Final-Recipient"] == final
    utf8 = not (to + final).isascii()
    kinds = ["text/plain", f"message/{'global-' if utf8 else ''}delivery-status", "text/rfc822-headers"]
    assert [part.get_content_type() for part in parts(made.raw)] == kinds


def test_utf_8_header_fields_go_back_as_they_are_where_the_addresses_need_utf_8() -> None:
    made = told(Failed(recipient="bär@example.com", reply=REFUSED), header="Subject: Größe\r\n".encode())
    last = parts(made.raw)[2]
    assert (last.get_content_type(), last["Content-Transfer-Encoding"]) == ("message/global-headers", "8bit")
    assert "Subject: Größe\r\n".encode() in made.raw


def test_header_fields_that_are_no_utf_8_are_encoded_even_then() -> None:
    made = told(Failed(recipient="bär@example.com", reply=REFUSED), header="Subject: Größe\r\n".encode("latin-1"))
    last = parts(made.raw)[2]
    assert (last.get_content_type(), last["Content-Transfer-Encoding"]) == ("text/rfc822-headers", "quoted-printable")


def recipients(count: int) -> Sequence[Failed]:
    return tuple(Failed(recipient=f"r{number}@example.com", reply=UNKNOWN) for number in range(count))


def test_every_refused_recipient_is_told_of() -> None:
    blocks = status(told(*recipients(100)).raw)
    assert [block["Final-Recipient"] for block in blocks[1:]] == [
        f"rfc822; r{number}@example.com" for number in range(100)
    ]
