"""One message and where it came from, as it was received: nothing here judges or changes it.

Header fields are found by one pass over the header block, whatever the size of the body. A line that is no header field
(no colon, or blanks inside the name) is kept as a nameless field, so that nothing is lost when it is written again.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from inbound.addresses import Mailbox, parse_mailboxes
from inbound.decoding import encoded_words

IPAddress = IPv4Address | IPv6Address

# Octets of a message, and of its header, from which work on them would hold up the others: it belongs in a thread.
BIG = 128 * 1024
BIG_HEADER = 32 * 1024  # where nobody attacks, few have half as many


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The TLS session the message came through: `TLSv1.3`, `TLS_AES_256_GCM_SHA384`."""

    version: str
    cipher: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who is speaking to us. `helo` is "" before HELO/EHLO; `esmtp` tells EHLO from HELO."""

    ip: IPAddress
    port: int = 0
    helo: str = ""
    esmtp: bool = True
    tls: Tls | None = None

    def __post_init__(self) -> None:
        """A link-local address without its zone, which is this machine's own word (RFC 4007 11.2)."""
        if isinstance(self.ip, IPv6Address) and self.ip.scope_id is not None:
            object.__setattr__(self, "ip", IPv6Address(int(self.ip)))


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One header field: `name` as written ("" for a line that is none), `raw` the whole of it with folds and final CRLF."""

    name: str
    raw: bytes

    @property
    def value(self) -> str:
        """The value unfolded as SES does it (CRLF and the blanks behind it become one space), 8-bit octets as UTF-8."""
        after = self.raw.partition(b":")[2] if self.name else self.raw
        lines = after.splitlines()
        return _text(after if len(lines) == 1 else b" ".join([line.strip(b" \t") for line in lines])).strip()

    @property
    def decoded(self) -> str:
        """The value with RFC 2047 encoded words as text; as it is where they cannot be decoded."""
        value = self.value
        return encoded_words(value) if "=?" in value else value


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Headers:
    """The header fields from the top, and `size`, the octets of the block with the empty line that ends it."""

    fields: tuple[HeaderField, ...]
    size: int
    by_name: Mapping[str, tuple[HeaderField, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort the fields by their names in lower case."""
        found: dict[str, list[HeaderField]] = {}
        for one in self.fields:
            found.setdefault(one.name.lower(), []).append(one)
        object.__setattr__(self, "by_name", {name: tuple(fields) for name, fields in found.items()})

    @classmethod
    def of(cls, raw: bytes) -> "Headers":
        """Find the header block of a message with CRLF line ends. A message without an empty line is all header."""
        if raw.startswith(b"\r\n"):
            return cls((), 2)
        end = raw.find(b"\r\n\r\n")
        block = raw[: end + 2] if end >= 0 else raw
        *lines, last = _FIELD_END.split(block)
        fields = [HeaderField(_field_name(line), line + b"\r\n") for line in lines]
        if last:
            fields.append(HeaderField(_field_name(last), last))
        return cls(tuple(fields), len(block) + (2 if end >= 0 else 0))

    def all(self, name: str) -> tuple[HeaderField, ...]:
        """Every field of that name, case folded, from the top."""
        return self.by_name.get(name.lower(), ())

    def first(self, name: str) -> HeaderField | None:
        """The topmost field of that name."""
        return next(iter(self.all(name)), None)

    def mailboxes(self, name: str) -> tuple[Mailbox, ...]:
        """The mailboxes of all fields of that name."""
        return tuple(box for one in self.all(name) for box in parse_mailboxes(one.value))


def _field_name(line: bytes) -> str:
    found = _FIELD_NAME.match(line)
    return found[1].decode("ascii") if found else ""


_FIELD_NAME = re.compile(rb"([!-9;-~]++)[ \t]*+:")  # RFC 5322 3.6.8
_FIELD_END = re.compile(rb"\r\n(?![ \t])")  # RFC 5322 2.2.3: where a blank follows, it is a fold


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Mail:
    """One message as received: `raw` octets with CRLF line ends, its envelope, and the client that brought it.

    `mail_from` is "" for the null reverse-path; `rcpt_to` are the accepted recipients in the order given; `received_at`
    is seconds since the epoch; `message_id` is ours (40 characters), not the Message-ID field.
    """

    raw: bytes
    headers: Headers
    client: Client
    mail_from: str
    rcpt_to: tuple[str, ...]
    received_at: float
    message_id: str
    smtputf8: bool = False

    def __hash__(self) -> int:
        """Enough to tell messages apart, without the octets."""
        return hash(self.message_id)

    @property
    def is_big(self) -> bool:
        """Work on the whole of it, or on its header, belongs in a thread."""
        return len(self.raw) > BIG or self.headers.size > BIG_HEADER

    @property
    def body(self) -> bytes:
        """The octets behind the empty line."""
        return self.raw[self.headers.size :]

    @property
    def authors(self) -> tuple[Mailbox, ...]:
        """The mailboxes of all From fields (RFC 5322 3.6.2 allows one field)."""
        return self.headers.mailboxes("from")


def message_id(secret: bytes, mail_from: str, rcpt_to: Iterable[str], raw: bytes) -> str:
    """Our id of a message in SES's form: 40 characters of `[0-9a-v]`, the same when the sender tries again (design 3).

    Keyed, so that nobody outside can make two messages meet under one id or tell what an id stands for.
    """
    digest = hmac.new(secret, digestmod=hashlib.sha256)
    digest.update(mail_from.encode("utf-8", "surrogateescape"))
    for recipient in sorted(rcpt_to):
        digest.update(b"\0" + recipient.encode("utf-8", "surrogateescape"))
    digest.update(b"\0\0")
    digest.update(raw)
    return base64.b32hexencode(digest.digest()[:24] + b"\x01").decode("ascii").lower()
