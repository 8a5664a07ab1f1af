"""A message as a consumer gets it: JMAP's Email (RFC 8621 4), with what the receiver found and where it all came from.

1. What JMAP names has JMAP's name and meaning: `messageId`, `sentAt`, `textBody`. `from` is Python's word, so it is `from_` here
   and `from` in `to_json`. A header field that is not there is an empty tuple or None here, and null there.
2. Everything is what the sender wrote, but for `verdicts` and `provenance`, which are the receiver's. They are worth what
   `provenance.trusted` says.
3. Records are frozen. Contents of attachments are decoded when they are asked for, with a cap, and never opened.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from inbound.consumer import forms
from inbound.consumer.forms import Address, AddressGroup
from inbound.consumer.limits import Limits
from inbound.decoding import decode, transferred
from inbound.errors import TooBig
from inbound.mail import HeaderField
from inbound.verdicts import Status

TOO_BIG = "more octets than the limits allow"
INSIDE = "it stood inside of another message"

HeaderValue = str | tuple[str, ...] | tuple[Address, ...] | tuple[AddressGroup, ...] | None


@dataclass(frozen=True, slots=True)
class Header:
    """JMAP's EmailHeader: the name as written and the value in Raw form."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyValue:
    """JMAP's EmailBodyValue: decoded text with LF line ends; whether its octets made sense, and whether it was cut."""

    value: str
    isEncodingProblem: bool = False
    isTruncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyPart:
    """JMAP's EmailBodyPart. `name` is what the sender wrote, `safe_name` is fit for a file.

    `partId` and `blobId` are None of a multipart, `subParts` of everything else. `sniffedType` is the type that the first octets
    show, whatever the sender calls it.
    """

    partId: str | None = None
    blobId: str | None = None
    headers: tuple[Header, ...] = ()
    name: str | None = None
    type: str = "text/plain"
    charset: str | None = None
    disposition: str | None = None
    cid: str | None = None
    language: tuple[str, ...] | None = None
    location: str | None = None
    subParts: "tuple[BodyPart, ...] | None" = None
    encoding: str = ""
    encoded: memoryview = field(default=memoryview(b""), repr=False, compare=False)
    limits: Limits = field(default=Limits(), repr=False, compare=False)

    @property
    def size(self) -> int:
        """Octets of the decoded content; of a multipart, as it stands in the message."""
        if self.subParts is not None or self.encoding not in _CODED:
            return len(self.encoded)
        return len(transferred(self.encoded, self.encoding, len(self.encoded)))

    @property
    def sniffedType(self) -> str:
        """The media type by content (`inbound.magic`): what a reader would make of it."""
        from inbound import magic  # noqa: PLC0415 - a table of patterns that not every consumer needs

        return magic.sniff(transferred(self.encoded, self.encoding, magic.OCTETS), self.type)

    @property
    def safe_name(self) -> str:
        """The name as a file may have it in any directory: no path, no control characters, nothing hidden or reserved."""
        return safe_name(self.name or "")

    def content(self, limit: int | None = None) -> bytes:
        """The octets, decoded. Raises TooBig when there are more than `limit` (`content_bytes` of the limits)."""
        most = self.limits.content_bytes if limit is None else limit
        octets = transferred(self.encoded, self.encoding, min(most + 1, len(self.encoded)))
        if len(octets) > most:
            raise TooBig(TOO_BIG, f"part {self.partId} has more than {most} octets")
        return octets

    def text(self, limit: int | None = None) -> BodyValue:
        """The text by its charset, cut at `limit` octets (`text_bytes` of the limits)."""
        most = self.limits.text_bytes if limit is None else limit
        octets = transferred(self.encoded, self.encoding, min(most + 1, len(self.encoded)))
        cut = len(octets) > most
        value = decode(octets[:most] if cut else octets, self.charset or "")
        value = value.rstrip("\ufffd") if cut else value  # half a character is not to be seen
        return BodyValue(value=value.replace("\r\n", "\n"), isEncodingProblem="\ufffd" in value, isTruncated=cut)

    def message(self) -> "Message":
        """The message that the part is: read, and nothing of it believed. Raises TooBig.

        `inbound.consume` is not for that: octets that look like an event are one to it, and these are the sender's.
        """
        from inbound.consumer.reading import parse  # noqa: PLC0415 - which makes parts

        return replace(parse(self.content(), self.limits), provenance=Provenance(reason=INSIDE))

    def header(self, name: str) -> Any:
        """A header field of the part, as `Message.header`."""
        return _header(self.headers, name)

    def document(self) -> dict[str, Any]:
        """What JMAP tells of a part unless asked for more (RFC 8621 4.2), for JSON."""
        return {
            "partId": self.partId,
            "blobId": self.blobId,
            "size": self.size,
            "name": self.name,
            "type": self.type,
            "charset": self.charset,
            "disposition": self.disposition,
            "cid": self.cid,
            "language": list(self.language) if self.language is not None else None,
            "location": self.location,
        }

    def tree(self) -> dict[str, Any]:
        """The same with header fields and parts, for JSON."""
        return self.document() | {
            "headers": [{"name": one.name, "value": one.value} for one in self.headers],
            "subParts": [part.tree() for part in self.subParts] if self.subParts is not None else None,
        }


_CODED = frozenset({"base64", "quoted-printable", "x-uuencode", "uuencode", "x-uue"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What the receiver found, in SES's words; None where nobody says. `source` is where that was read.

    `dmarc_policy` is the policy that was applied, where DMARC failed.
    """

    spam: Status | None = None
    virus: Status | None = None
    spf: Status | None = None
    dkim: Status | None = None
    dmarc: Status | None = None
    dmarc_policy: str = ""
    source: Literal["event", "header", ""] = ""


CHECKS = ("spam", "virus", "spf", "dkim", "dmarc")


def status_of(word: str) -> Status | None:
    """SES's word in any case; None where it is none."""
    return Status(word.upper()) if word.upper() in set(Status) else None


def policy_of(word: str) -> str:
    """DMARC's word for a policy in any case; "" where it is none."""
    return word.lower() if word.lower() in ("none", "quarantine", "reject") else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the message came from, and who said what of it.

    `kind` is what was consumed: `lambda`, `notification`, `place` or `octets`. `id` is the receiver's id of the message (the S3
    key's tail, SES's `messageId`). `mail_from` ("" is the null reverse-path) and `recipients` are the envelope. `rule` is the
    rule that kept it, where the seal or our own key in the event names it. `sealed` is the form: `ses`, `s3ec`, `kms+context`,
    `cbc`, "" in clear. `authserv_id`, `received_by` and `results` (`dmarc=pass`) are those of the header block on top.

    `trusted`: verdicts and envelope are the receiver's own word as far as can be told from here; `reason` says why not.
    """

    kind: str = "octets"
    id: str = ""
    mail_from: str | None = None
    recipients: tuple[str, ...] = ()
    rule: str = ""
    bucket: str = ""
    key: str = ""
    sealed: str = ""
    received_by: str = ""
    authserv_id: str = ""
    results: tuple[str, ...] = ()
    trusted: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. `raw` are its octets as stored, the receiver's header block on top.

    `id` is the receiver's id (the same whenever the message is delivered again), or the `blobId` where it has none. `problems`
    are what readers could see differently, and what limits cut: a message with any is not to be believed in every detail.
    """

    id: str
    blobId: str
    size: int
    receivedAt: str | None
    messageId: tuple[str, ...]
    inReplyTo: tuple[str, ...]
    references: tuple[str, ...]
    sender: tuple[Address, ...]
    from_: tuple[Address, ...]
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    replyTo: tuple[Address, ...]
    subject: str | None
    sentAt: str | None
    headers: tuple[Header, ...]
    bodyStructure: BodyPart
    bodyValues: Mapping[str, BodyValue]
    textBody: tuple[BodyPart, ...]
    htmlBody: tuple[BodyPart, ...]
    attachments: tuple[BodyPart, ...]
    hasAttachment: bool
    preview: str
    verdicts: Verdicts = Verdicts()
    provenance: Provenance = Provenance()
    problems: tuple[str, ...] = ()
    raw: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The text to read: the plain one; where there is none, what the HTML shows, without what it hides."""
        plain = [self.bodyValues[part.partId or ""].value for part in self.textBody if part.type == "text/plain"]
        if plain or not self.html:
            return "\n".join(plain)
        from inbound.consumer.reading import shown  # noqa: PLC0415 - the reader of pages is needed here only

        return shown(self.html)

    @property
    def html(self) -> str:
        """The HTML as it was sent: whoever shows it must sanitise it. "" where there is none."""
        return "\n".join(self.bodyValues[one.partId or ""].value for one in self.htmlBody if one.type == "text/html")

    def passed(self, *checks: Literal["spam", "virus", "spf", "dkim", "dmarc"]) -> bool:
        """The receiver, which can be believed, found PASS in each of these checks."""
        return self.provenance.trusted and all(getattr(self.verdicts, check) is Status.PASS for check in checks)

    def header(self, name: str) -> Any:
        """A header field by JMAP's property: `Subject:asText`, `header:To:asGroupedAddresses`, `Received:all`.

        Without a form it is Raw. The last field of the name counts, None if there is none; with `:all` a tuple of every one.
        Text and Date are str, Addresses a tuple of Address, GroupedAddresses of AddressGroup, MessageIds and URLs of str. Raises
        ValueError for a form that RFC 8621 4.1.2 does not allow for that field.
        """
        return _header(self.headers, name)

    def part(self, part_id: str) -> BodyPart:
        """The part with this partId or blobId. Raises KeyError."""
        waiting = [self.bodyStructure]
        while waiting:
            one = waiting.pop()
            if part_id in (one.partId, one.blobId):
                return one
            waiting.extend(one.subParts or ())
        raise KeyError(part_id)

    def document(self) -> dict[str, Any]:
        """JMAP's Email for JSON, and beside it `verdicts`, `provenance` and `problems`. Contents of attachments are left out."""
        return {
            "id": self.id,
            "blobId": self.blobId,
            "size": self.size,
            "receivedAt": self.receivedAt,
            **{key: _plain(self.header(f"header:{name}:as{form}")) for key, (name, form) in PROPERTIES.items()},
            "headers": [{"name": one.name, "value": one.value} for one in self.headers],
            "bodyStructure": self.bodyStructure.tree(),
            "bodyValues": {
                key: {name: getattr(one, name) for name in BodyValue.__slots__} for key, one in self.bodyValues.items()
            },
            "textBody": [part.document() for part in self.textBody],
            "htmlBody": [part.document() for part in self.htmlBody],
            "attachments": [part.document() | {"sniffedType": part.sniffedType} for part in self.attachments],
            "hasAttachment": self.hasAttachment,
            "preview": self.preview,
            "verdicts": {name: getattr(self.verdicts, name) for name in Verdicts.__slots__},
            "provenance": {name: _plain(getattr(self.provenance, name)) for name in Provenance.__slots__},
            "problems": list(self.problems),
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """`document` as JSON text, ASCII only."""
        return json.dumps(self.document(), indent=indent)


PROPERTIES = {  # RFC 8621 4.1.3
    "messageId": ("Message-ID", "MessageIds"),
    "inReplyTo": ("In-Reply-To", "MessageIds"),
    "references": ("References", "MessageIds"),
    "sender": ("Sender", "Addresses"),
    "from": ("From", "Addresses"),
    "to": ("To", "Addresses"),
    "cc": ("Cc", "Addresses"),
    "bcc": ("Bcc", "Addresses"),
    "replyTo": ("Reply-To", "Addresses"),
    "subject": ("Subject", "Text"),
    "sentAt": ("Date", "Date"),
}


def _plain(value: Any) -> Any:
    """A header's value as JSON has it."""
    match value:
        case tuple():
            return [_plain(one) for one in value]
        case Address(name, email):
            return {"name": name or None, "email": email}
        case AddressGroup(name, addresses):
            return {"name": name or None, "addresses": [_plain(one) for one in addresses]}
        case _:
            return value


def _header(headers: tuple[Header, ...], wanted: str) -> Any:
    name, *more = wanted.removeprefix("header:").split(":")
    every = more[-1:] == ["all"]
    asked = more[:-1] if every else more
    form = asked[0].removeprefix("as") if asked else "Raw"
    if not name or asked not in ([], [f"as{form}"]) or not forms.allowed(form, name):
        raise ValueError(f"{wanted!r} is not a header property of RFC 8621 4.1.3")
    parse = _FORMS[form]
    found = [one.value for one in headers if one.name.lower() == name.lower()]
    if every:
        return tuple(parse(value) for value in found)
    return parse(found[-1]) if found else None


_FORMS: Mapping[str, Any] = {
    "Raw": lambda value: value,
    "Text": forms.text,
    "Addresses": forms.mailboxes,
    "GroupedAddresses": forms.grouped,
    "MessageIds": forms.message_ids,
    "Date": forms.written_date,
    "URLs": forms.urls,
}


def header_of(field: HeaderField) -> Header:
    """A field of the message in Raw form."""
    return Header(field.name, forms.raw(field.raw.partition(b":")[2]))


LONGEST_NAME = 150  # octets of a file name that is made here; file systems take 255
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)", re.IGNORECASE)
_NOT_IN_NAMES = frozenset('<>:"/\\|?*')


def safe_name(name: str) -> str:
    """A file name made of what a sender wrote: one that no system reads as a path, a device or a hidden file.

    Letters stay; what is not printable, and what turns the direction of writing, is left out. Never empty.
    """
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join("_" if char in _NOT_IN_NAMES else char for char in last if char.isprintable())
    kept = kept.strip(" .").lstrip("-~")
    stem, dot, suffix = kept.rpartition(".")
    stem, suffix = (stem, dot + suffix) if dot and len(suffix) <= 20 else (kept, "")  # noqa: PLR2004 - no longer one is any
    room = LONGEST_NAME - len(suffix.encode("utf-8", "replace"))
    stem = stem.encode("utf-8", "replace")[: max(room, 1)].decode("utf-8", "ignore").rstrip(" .")
    suffix = suffix.encode("utf-8", "replace")[:LONGEST_NAME].decode("utf-8", "ignore")
    if _RESERVED.fullmatch(stem.partition(".")[0].strip()):
        stem = f"_{stem}"
    return f"{stem}{suffix}" if stem else f"attachment{suffix}"
