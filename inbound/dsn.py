"""A delivery status notification (RFC 3464): what a sender is told of recipients that were not refused in the session.

1. A multipart/report (RFC 6522) in the form of SES's bounces: a text for a person, the status of each recipient for a program,
   and the header fields of the message as it came, under the Return-Path and Received of ours. The body never goes back, and
   nothing goes back of what was found in it.
2. What a stranger wrote stays content. Header fields are copied as they are only where they are lines of printable ASCII;
   otherwise they are quoted-printable. They are cut at a field, behind LONGEST_HEADERS octets. No part has the boundary in it.
3. UTF-8 (RFC 6533) where an address has no other form. A domain alone has one: A-labels.
4. A message and its refusals have one Message-ID: what a crash makes come twice can be told to be one.
"""

import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from inbound.addresses import a_labels
from inbound.mail import HeaderField, Headers, Mail
from inbound.reply import Reply
from inbound.trace import path_of

LONGEST_HEADERS = 50_000  # octets of the message's header fields that go back; postfix bounce_size_limit
LONGEST_LINE = 998  # octets (RFC 5322 2.1.1)
SUBJECT = "Delivery Status Notification (Failure)"  # SES's, whatever the code

_ASCII_LINES = re.compile(rb"(?:[\t -~]{0,998}\r\n)*")
_UTF8_LINES = re.compile(rb"(?:[\t -~\x80-\xff]{0,998}\r\n)*")
_MSG_ID = re.compile(r"<[!-;=?-~]{1,250}@[!-;=?-~]{1,250}>")
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """One recipient that the message was refused for, and the reply that would have said so in the session.

    `by` is the host of the next hop that gave that reply, "" for us.
    """

    recipient: str
    reply: Reply
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """The message `raw`, to be sent from the null reverse-path to `rcpt_to`."""

    raw: bytes
    rcpt_to: str
    message_id: str


def notification(
    mail: Mail, failed: Sequence[Failed], *, block: bytes, hostname: str, sender: str, now: float
) -> Notification:
    """Tell the envelope sender of `mail` which recipients have `failed`.

    `block` is our header block on the mail, `hostname` the MTA that reports, `sender` the address in From, `now` seconds
    since the epoch. The mail must have an envelope sender.
    """
    to = _plainest(mail.mail_from)
    recipients = {one.recipient: _plainest(one.recipient) for one in failed}
    utf8 = not all(address.isascii() for address in (to, *recipients.values()))
    mta = a_labels(hostname) or "localhost"
    message_id = f"<{_digest(mail, failed)}@{mta}>"
    parts = (
        _text(failed, recipients, mta=mta, utf8=utf8),
        _status(mail, failed, recipients, mta=mta, utf8=utf8),
        _headers(mail, block, utf8=utf8),
    )
    boundary = _boundary(mail.message_id, parts)
    head = (
        f"Date: {format_datetime(datetime.fromtimestamp(now, UTC))}",
        f"From: {path_of(sender) if sender else f'Mail Delivery System <{mailer_daemon(hostname)}>'}",
        f"To: {path_of(to)}",
        f"Message-ID: {message_id}",
        f"Subject: {SUBJECT}",
        *_thread(mail),
        "Auto-Submitted: auto-replied",  # RFC 3834 5
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
    )
    raw = [_lines(head), b"\r\n"]
    for part in parts:
        raw += [f"--{boundary}\r\n".encode("ascii"), part, b"\r\n"]
    raw.append(f"--{boundary}--\r\n".encode("ascii"))
    return Notification(raw=b"".join(raw), rcpt_to=to, message_id=message_id)


def mailer_daemon(hostname: str) -> str:
    """The address in From where nobody names another."""
    return f"MAILER-DAEMON@{a_labels(hostname) or 'localhost'}"


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")


def _plainest(address: str) -> str:
    """The address in ASCII if it has such a form: then any system can take it."""
    local, at, domain = address.rpartition("@")
    if address.isascii() or not local.isascii():
        return address
    return f"{local}{at}{a_labels(domain) or domain}"


def _digest(mail: Mail, failed: Sequence[Failed]) -> str:
    told = "\0".join((mail.message_id, *(f"{one.recipient}\0{one.reply}" for one in failed)))
    return "dsn." + hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _thread(mail: Mail) -> Iterator[str]:
    """RFC 3834 3.1.5: which message it answers, if that message says its name as RFC 5322 wants it."""
    field = mail.headers.first("Message-ID")
    if field is not None and _MSG_ID.fullmatch(field.value):
        yield f"In-Reply-To: {field.value}"
        yield f"References: {field.value}"


def _boundary(message_id: str, parts: Sequence[bytes]) -> str:
    """One that is in no part. The id is not known before the message is written, but its sender can guess and try again."""
    number = 1
    while any(f"_{number}_{message_id}".encode("ascii") in part for part in parts):
        number += 1
    return f"----=_Part_{number}_{message_id}"


def _part(kind: str, encoding: str, description: str, content: bytes) -> bytes:
    """One part with SES's Content-Description."""
    head = (f"Content-Type: {kind}", f"Content-Transfer-Encoding: {encoding}", f"Content-Description: {description}")
    return _lines(head) + b"\r\n" + content


def _text(failed: Sequence[Failed], recipients: dict[str, str], *, mta: str, utf8: bool) -> bytes:
    told = [line for one in failed for line in (f"  <{path_of(recipients[one.recipient])}>", f"    {one.reply}", "")]
    lines = (
        f"This is the mail system at {mta}.",
        "",
        "Your message was refused for the recipients below. For the others that it was",
        "brought here for at the same time it was accepted.",
        "",
        *told,
        "The header fields of your message are attached.",
    )
    kind = f"text/plain; charset={'utf-8' if utf8 else 'us-ascii'}"
    return _part(kind, "8bit" if utf8 else "7bit", "Notification", _lines(lines))


def _status(mail: Mail, failed: Sequence[Failed], recipients: dict[str, str], *, mta: str, utf8: bool) -> bytes:
    """RFC 3464 2.2 and 2.3; RFC 6533 3 and 4. Where we refuse ourselves, there is no Remote-MTA."""
    helo = mail.client.helo
    lines = [
        f"Reporting-MTA: dns; {mta}",
        *([f"Received-From-MTA: dns; {helo}"] if _HOST.fullmatch(helo) else []),
        f"Arrival-Date: {format_datetime(datetime.fromtimestamp(mail.received_at, UTC))}",
        "",
    ]
    for one in failed:
        address = recipients[one.recipient]
        kind = "rfc822" if address.isascii() else "utf-8"
        lines += [
            f"Final-Recipient: {kind}; {path_of(address)}",
            "Action: failed",
            f"Status: {one.reply.enhanced}",
            *([f"Remote-MTA: dns; {_literal(one.by)}"] if _HOST.fullmatch(one.by) else []),
            f"Diagnostic-Code: smtp; {one.reply}",
            "",
        ]
    kind = "message/global-delivery-status" if utf8 else "message/delivery-status"
    return _part(kind, "8bit" if utf8 else "7bit", "Delivery Status Notification", _lines(lines))


def _literal(host: str) -> str:
    """A name as it is, an IPv4 address in brackets; an IPv6 address has them already."""
    return f"[{host}]" if not set(host) - set("0123456789.") else host


def _headers(mail: Mail, block: bytes, *, utf8: bool) -> bytes:
    ours = [field for field in Headers.of(block).fields if field.name.lower() in ("return-path", "received")]
    content = b"".join(_cut([*ours, *mail.headers.fields]))
    if _ASCII_LINES.fullmatch(content):
        kind, encoding = "text/rfc822-headers", "7bit"
    elif utf8 and _UTF8_LINES.fullmatch(content) and _is_utf8(content):
        kind, encoding = "message/global-headers", "8bit"  # RFC 6533 6
    else:
        kind, encoding, content = "text/rfc822-headers", "quoted-printable", _quoted_printable(content)  # RFC 6522 4
    return _part(kind, encoding, "Undelivered Message", content)


def _cut(fields: Sequence[HeaderField]) -> Iterator[bytes]:
    """Whole fields, as many as fit."""
    left = LONGEST_HEADERS
    for field in fields:
        left -= len(field.raw)
        if left < 0:
            return
        yield field.raw if field.raw.endswith(b"\r\n") else field.raw + b"\r\n"


def _is_utf8(octets: bytes) -> bool:
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return text.translate(_BLANKS).isprintable()


_BLANKS = dict.fromkeys(map(ord, "\r\n\t"), " ")


def _quoted_printable(octets: bytes) -> bytes:
    """RFC 2045 6.7. Line ends are those of the message; a CR or LF that stands alone is none, and is encoded."""
    lines = octets.removesuffix(b"\r\n").split(b"\r\n")
    return b"".join(binascii.b2a_qp(line, istext=False).replace(b"\n", b"\r\n") + b"\r\n" for line in lines)
