"""What a consumer is told of a message: SES's `mail` and `receipt`, in a Lambda event or an SNS notification.

1. Names, nesting and order are those of captured SES payloads, undocumented ones included: `destination` comes from the
   header fields (To, Cc), `recipients` from the envelope; `receipt.timestamp` is the time of receipt.
2. Header fields are read from the message as it is stored, so ours come first. 10 KB of them are told; the rest is left
   out and `headersTruncated` says so. `commonHeaders` stays complete, up to a cap that no honest mail reaches.
3. Everything of ours is under one key, `inbound`, the last one; the names in it are those of `inbound check --json`. The
   setting `events: ses` leaves it out, for readers that take nothing they do not know.
4. The size of an event is bounded, whatever the sender wrote.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from inbound.addresses import parse_mailboxes
from inbound.mail import HeaderField, Headers, Mail
from inbound.verdicts import Status, Verdicts

HEADERS_LIMIT = 10 * 1024  # octets of header fields that are told (AWS: "headersTruncated")
LISTS_LIMIT = 60 * 1024  # octets of JSON for `destination` and the address lists of `commonHeaders` together
ENTRY_OCTETS = 48  # what an entry of a list counts at the least: many short ones take time too
SINGLE_LIMIT = 2048  # characters of each other entry of `commonHeaders`
SHORT, SHORT_TEXT = 20, 256  # signatures and spam symbols told of in `inbound`, and characters of each text there

SUBJECT = "Amazon SES Email Receipt Notification"  # of every SNS notification

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What is told of one action on one message: `action` is SES's `receipt.action`, `now` seconds since the epoch.

    `content` is the message as stored; `recipients` are those that met the rule; `ours` puts our own key beside SES's.
    """

    mail: Mail
    verdicts: Verdicts
    recipients: tuple[str, ...]
    rule: str
    content: bytes
    action: Mapping[str, Any]
    now: float
    ours: bool = True


def lambda_event(event: Event) -> bytes:
    """The JSON that a function is invoked with: one record, never the body."""
    ses = {"mail": _mail(event), "receipt": _receipt(event), **_ours(event)}
    record = {"eventSource": "aws:ses", "eventVersion": "1.0", "ses": ses}
    return _json({"Records": [record]}).encode("utf-8")


def notification(event: Event, *, content: str | None = None) -> str:
    """The JSON text of an SNS message. `content` is the message itself, for the SNS action only."""
    told: Json = {"notificationType": "Received", "mail": _mail(event), "receipt": _receipt(event)}
    if content is not None:
        told["content"] = content
    return _json(told | _ours(event))


def _mail(event: Event) -> Json:
    mail, headers = event.mail, Headers.of(event.content)
    told, cut = _told_headers(headers)
    common, short = _common_headers(mail, headers)
    destination = common.pop("destination")
    return {
        "timestamp": timestamp(mail.received_at),
        "source": mail.mail_from,
        "messageId": mail.message_id,
        "destination": destination,
        "headersTruncated": cut or short,
        "headers": told,
        "commonHeaders": common,
    }


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with milliseconds and `Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _told_headers(headers: Headers) -> tuple[list[Json], bool]:
    """The header fields from the top, as long as they fit; and whether any was left out."""
    told: list[Json] = []
    size = 0
    for field in headers.fields:
        size += len(field.raw)
        if size > HEADERS_LIMIT:
            return told, True
        if field.name:
            told.append({"name": field.name, "value": field.value})
    return told, False


def _common_headers(mail: Mail, headers: Headers) -> tuple[Json, bool]:
    """`destination` and `commonHeaders` in the observed order, only what is there; and whether a cap cut any of it."""
    allowance = _Allowance(LISTS_LIMIT)
    lists = {}
    for key, name in (("from", "From"), ("to", "To"), ("cc", "Cc"), ("replyTo", "Reply-To"), ("bcc", "Bcc")):
        fields = headers.all(name)
        if fields:
            lists[key] = allowance.take(entry for field in fields for entry in address_list(field))
    fields = (*headers.all("To"), *headers.all("Cc"))
    boxes = (box.address for field in fields for box in parse_mailboxes(field.value))
    found: Json = {"destination": allowance.take(filter(None, boxes)), "returnPath": mail.mail_from}
    for key, name in _COMMON:
        field = headers.first(name)
        if key in lists:
            found[key] = lists[key]
        elif field and key == "sender":
            found[key] = _cut(next(address_list(field), ""))
        elif field:
            found[key] = _cut(_short(field).decoded if key == "subject" else field.value)
    return found, allowance.spent


def _short(field: HeaderField) -> HeaderField:
    """As much of it as can matter: decoding takes time."""
    return HeaderField(field.name, field.raw[: 3 * SINGLE_LIMIT])


_COMMON = (
    ("from", "From"),
    ("replyTo", "Reply-To"),
    ("date", "Date"),
    ("to", "To"),
    ("cc", "Cc"),
    ("bcc", "Bcc"),
    ("sender", "Sender"),
    ("messageId", "Message-ID"),
    ("subject", "Subject"),
)


@dataclass(slots=True)
class _Allowance:
    """Octets of JSON that lists may still take."""

    left: int
    spent: bool = False

    def take(self, entries: Iterable[str]) -> list[str]:
        """The first entries that fit."""
        taken: list[str] = []
        for entry in entries:
            self.left -= max(len(_json(entry).encode("utf-8")) + 1, ENTRY_OCTETS)
            if self.left < 0:
                self.spent = True
                break
            taken.append(entry)
        return taken


def address_list(field: HeaderField) -> Iterator[str]:
    """The entries of an address list as they are written, encoded words in display names as text.

    Groups are flattened; an empty one stays as it is written. A comma in a display name without quotes divides nothing,
    as with SES. Linear, and lazy for whoever has had enough.
    """
    start, text, group = 0, field.value, False
    for at, char in _top_level(text):
        entry = text[start:at].strip()
        if char == ":" and "@" not in entry:
            group, opened = True, start
            start = at + 1
        elif char == ";":
            if entry:
                yield _with_words(entry)
            elif group and not text[opened:at].partition(":")[2].strip():
                yield text[opened : at + 1].strip()
            group, start = False, at + 1
        elif char == "," and "@" in entry:
            yield _with_words(entry)
            start = at + 1
    entry = text[start:].strip(" \t,")
    if entry:
        yield _with_words(entry)


def _top_level(text: str) -> Iterator[tuple[int, str]]:
    """The commas, colons and semicolons outside of quotes, comments, angle brackets and domain literals."""
    closing, depth, at = "", 0, 0
    while at < len(text):
        char = text[at]
        if char == "\\" and closing:
            at += 1
        elif closing == ")":
            depth += {"(": 1, ")": -1}.get(char, 0)
            closing = closing if depth else ""
        elif closing:
            closing = "" if char == closing else closing
        elif char in _PAIRS:
            closing, depth = _PAIRS[char], 1
        elif char in ",:;":
            yield at, char
        at += 1


_PAIRS = {'"': '"', "(": ")", "<": ">", "[": "]"}


def _with_words(entry: str) -> str:
    """The encoded words (RFC 2047) of a display name as text; quoted where that text needs it."""
    phrase, bracket, rest = entry.rpartition("<")
    if not bracket or "=?" not in phrase or phrase.startswith('"'):
        return entry
    name = HeaderField("-", b"-:" + phrase.encode("utf-8", "replace")).decoded
    if set(name) & set('()<>[]:;@\\,."'):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{name} <{rest}"


def _receipt(event: Event) -> Json:
    found = event.verdicts
    receipt: Json = {
        "timestamp": timestamp(event.mail.received_at),
        "processingTimeMillis": max(1, round((event.now - event.mail.received_at) * 1000)),
        "recipients": list(event.recipients),
        "spamVerdict": {"status": found.spam.status},
        "virusVerdict": {"status": found.virus.status},
        "spfVerdict": {"status": found.spf.status},
        "dkimVerdict": {"status": found.dkim.status},
        "dmarcVerdict": {"status": found.dmarc.status},
    }
    if found.dmarc.status is Status.FAIL and found.dmarc.applied_policy:
        receipt["dmarcPolicy"] = found.dmarc.applied_policy
    receipt["action"] = dict(event.action)
    return receipt


def _ours(event: Event) -> Json:
    return {"inbound": _inbound(event)} if event.ours else {}


def _inbound(event: Event) -> Json:
    """What SES does not tell: the rule, the client, and what the verdicts rest on."""
    client, found = event.mail.client, event.verdicts
    return {
        "rule": event.rule,
        "client_ip": str(client.ip),
        "helo": _cut(client.helo, SHORT_TEXT),
        "tls": client.tls.version if client.tls else "",
        "spf": {"result": found.spf.result, "domain": found.spf.domain, "identity": found.spf.identity},
        "dkim": {
            "result": found.dkim.result,
            "signatures": [
                {
                    "domain": _cut(signature.domain, SHORT_TEXT),
                    "selector": _cut(signature.selector, SHORT_TEXT),
                    "aligned": signature.aligned,
                    "result": signature.result,
                }
                for signature in found.dkim.signatures[:SHORT]
            ],
        },
        "dmarc": {
            "result": found.dmarc.result,
            "from_domain": _cut(found.dmarc.from_domain, SHORT_TEXT),
            "policy": found.dmarc.policy,
            "applied_policy": found.dmarc.applied_policy,
            "aligned": list(found.dmarc.aligned),
        },
        "arc": {"result": found.arc.result},
        "iprev": {"result": found.iprev.result, "name": _cut(found.iprev.name, SHORT_TEXT)},
        "spam": {
            "score": found.spam.score,
            "symbols": [{"name": it.name, "weight": it.weight} for it in found.spam.symbols[:SHORT]],
        },
        "virus": {"signature": _cut(found.virus.signature, SHORT_TEXT), "reason": _cut(found.virus.reason, SHORT_TEXT)},
        "blocked": found.block.blocked,
    }


def _cut(text: str, limit: int = SINGLE_LIMIT) -> str:
    return text[:limit]


def _json(value: object) -> str:
    """JSON as SES writes it: no blanks, UTF-8 as it is. What neither UTF-8 nor SQS can carry is replaced or escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
    return text.encode("utf-8", "replace").decode("utf-8")
