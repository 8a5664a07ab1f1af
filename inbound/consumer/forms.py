"""The values of header fields in the parsed forms of JMAP (RFC 8621 4.1.2), in linear time, whatever is written.

1. A form may be asked for only where the RFC lets it (`allowed`): nobody parses a Subject as a date.
2. Parsing is as lenient as real mail needs: an encoded word may stand in quotes or touch other text, a phrase may lack its
   quotes, an address may be none. What cannot be parsed at all is None where the RFC says null.
3. A group's name and members stay together in `grouped`, and are flattened in `mailboxes`.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from inbound.addresses import quoted, word_end
from inbound.decoding import encoded_words

LONGEST = 65_536  # octets of one field that are parsed
LONGEST_NORMALISED = 2048  # characters that NFC is made of: what sorts the marks behind a letter is quadratic
LONGEST_DATE = 200

_RESENT = ("resent-from", "resent-sender", "resent-reply-to", "resent-to", "resent-cc", "resent-bcc")
_ADDRESSES = frozenset({"from", "sender", "reply-to", "to", "cc", "bcc", *_RESENT})
_IDS = frozenset({"message-id", "in-reply-to", "references", "resent-message-id"})
_DATES = frozenset({"date", "resent-date"})
_TEXTS = frozenset({"subject", "comments", "keywords"})
_LISTS = frozenset(
    {"list-help", "list-unsubscribe", "list-subscribe", "list-post", "list-owner", "list-archive"}  # RFC 2369
)
_DEFINED = _ADDRESSES | _IDS | _DATES | _TEXTS | _LISTS | {"return-path", "received"}
_ALLOWED = {
    "Text": _TEXTS,
    "Addresses": _ADDRESSES,
    "GroupedAddresses": _ADDRESSES,
    "MessageIds": _IDS,
    "Date": _DATES,
    "URLs": _LISTS,
}


@dataclass(frozen=True, slots=True)
class Address:
    """JMAP's EmailAddress: the display name ("" if none) and the addr-spec as written, which may be no address at all."""

    name: str
    email: str

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>" if self.name else self.email


@dataclass(frozen=True, slots=True)
class AddressGroup:
    """JMAP's EmailAddressGroup: the group's name ("" for addresses outside of any group) and its members."""

    name: str
    addresses: tuple[Address, ...]


def allowed(form: str, name: str) -> bool:
    """The form may be asked for of a field of that name (RFC 8621 4.1.2.1 to 4.1.2.7)."""
    folded = name.lower()
    return form == "Raw" or (form in _ALLOWED and (folded in _ALLOWED[form] or folded not in _DEFINED))


def raw(octets: bytes) -> str:
    """4.1.2.1: everything behind the colon up to the final line end; NUL dropped, what is no UTF-8 replaced."""
    return octets.removesuffix(b"\n").removesuffix(b"\r").replace(b"\0", b"").decode("utf-8", "replace")


def text(value: str) -> str:
    """4.1.2.2: unfolded, encoded words decoded, control characters dropped, in normalisation form C."""
    unfolded = value.replace("\r\n", "").replace("\n", "").replace("\r", "").strip(" \t")
    decoded = encoded_words(unfolded[:LONGEST]) if "=?" in unfolded else unfolded
    clean = decoded if decoded.isprintable() else "".join(map(_no_control, decoded))
    return unicodedata.normalize("NFC", clean) if not clean.isascii() and len(clean) <= LONGEST_NORMALISED else clean


def _no_control(char: str) -> str:
    return " " if char == "\t" else char if ord(char) >= 32 and not 127 <= ord(char) < 160 else ""  # noqa: PLR2004


def mailboxes(value: str) -> tuple[Address, ...]:
    """4.1.2.3: the mailboxes of an address list, groups flattened."""
    return tuple(address for group in grouped(value) for address in group.addresses)


def grouped(value: str) -> tuple[AddressGroup, ...]:
    """4.1.2.4: the groups of an address list; neighbours outside of any group stand together in one without a name."""
    found: list[tuple[str, list[Address]]] = []
    name: str | None = None  # of the group that is open
    entry = _Entry()
    for kind, content in _tokens(value[:LONGEST]):
        if kind == ":" and name is None and not entry.angles:
            name = _phrase(entry.words)
            found.append((name, []))
            entry = _Entry()
        elif kind in ",;":
            _into(found, name, entry)
            entry = _Entry()
            name = None if kind == ";" else name
        else:
            entry.take(kind, content)
    _into(found, name, entry)
    return tuple(AddressGroup(name, tuple(members)) for name, members in found)


@dataclass(slots=True)
class _Entry:
    """One element of the list, as it is read: words and quoted texts, what stood in angle brackets, the last comment."""

    words: list[tuple[str, str]] = field(default_factory=list)
    angles: list[str] = field(default_factory=list)
    comment: str = ""

    def take(self, kind: str, content: str) -> None:
        match kind:
            case "angle":
                self.angles.append(content)
            case "comment":
                self.comment = content
            case _:
                self.words.append((kind, content))

    def addresses(self) -> Iterator[Address]:
        """What a reader would see: usually one, several where it could see several."""
        if self.angles:
            name = _phrase(self.words) or text(self.comment)
            for one in self.angles:
                yield Address(name, _addr_spec(one))
            return
        bare = [content for kind, content in self.words if kind == "word" and "@" in content]
        if len(bare) == 1 and len(self.words) > 1:
            others = [word for word in self.words if word[1] != bare[0]]
            yield Address(_phrase(others), bare[0])
        elif bare:
            for one in bare:
                yield Address(text(self.comment), one)
        elif self.words:
            yield Address("", _phrase(self.words))


def _into(found: list[tuple[str, list[Address]]], name: str | None, entry: _Entry) -> None:
    addresses = list(entry.addresses())
    if not addresses:
        return
    if name is None and (not found or found[-1][0]):
        found.append(("", []))
    found[-1][1].extend(addresses)


def _phrase(words: list[tuple[str, str]]) -> str:
    """The words with a space between, encoded ones decoded; what was quoted loses the blanks at its ends."""
    return text(" ".join(content.strip() if kind == "quoted" else content for kind, content in words))


def _addr_spec(content: str) -> str:
    """What stands in angle brackets, without an obsolete source route (RFC 5322 4.4)."""
    address = content.strip()
    if address.startswith("@") and ":" in address:
        address = address.partition(":")[2].strip()
    return _no_folds(address)


def _no_folds(value: str) -> str:
    return value.replace("\r\n", "").replace("\n", "").replace("\r", "").replace("\0", "")


def _tokens(value: str) -> Iterator[tuple[str, str]]:
    """The tokens of structured text (RFC 5322 3.2): word, quoted, comment, angle, and the marks `,` `:` `;`. Linear."""
    at, size = 0, len(value)
    while at < size:
        char = value[at]
        if char in " \t\r\n":
            at += 1
        elif char == '"':
            start, (at, content) = at, quoted(value, at)
            if at < size and value[at] == "@":  # a quoted local part stays as it is written, unfolded
                at = word_end(value, at)
                yield "word", _no_folds(value[start:at])
            else:
                yield "quoted", content
        elif char == "(":
            at, content = _past_comment(value, at)
            yield "comment", content
        elif char == "<":
            end = value.find(">", at)
            end = size if end < 0 else end
            yield "angle", value[at + 1 : end]
            at = end + 1
        elif char in ",:;":
            yield char, char
            at += 1
        else:
            start, at = at, max(word_end(value, at), at + 1)
            yield "word", value[start:at]


def _past_comment(value: str, at: int) -> tuple[int, str]:
    out: list[str] = []
    depth = 0
    while at < len(value):
        char = value[at]
        if char == "\\" and at + 1 < len(value):
            at += 1
            out.append(value[at])
        else:
            depth += {"(": 1, ")": -1}.get(char, 0)
            if depth == 0:
                return at + 1, "".join(out[1:])
            out.append(char)
        at += 1
    return at, "".join(out[1:])


def message_ids(value: str) -> tuple[str, ...] | None:
    """4.1.2.5: msg-ids without their angle brackets; None when there is none, or something else among them."""
    found: list[str] = []
    for kind, content in _tokens(value[:LONGEST]):
        if kind == "angle" and content.strip():
            found.append("".join(_no_folds(content).split()))
        elif kind in ("word", "quoted", ":", ";"):
            return None
    return tuple(found) or None


def date(value: str) -> datetime | None:
    """4.1.2.6: the date-time (RFC 5322 3.3), or None. One that names no zone is taken as UTC."""
    if len(value) > LONGEST_DATE:
        return None
    try:
        when = parsedate_to_datetime(" ".join(value.split()))
        when.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def written(when: datetime) -> str:
    """A date-time as JMAP writes it (RFC 8620 1.4): RFC 3339, capitals, no fraction of zero."""
    stamp = when.isoformat(timespec="milliseconds" if when.microsecond else "seconds")
    return stamp.removesuffix("+00:00") + "Z" if stamp.endswith("+00:00") else stamp


def written_date(value: str) -> str | None:
    """The date-time as JMAP writes it, or None."""
    when = date(value)
    return written(when) if when else None


def urls(value: str) -> tuple[str, ...] | None:
    """4.1.2.7: the URLs in angle brackets (RFC 2369 2); None when there is none."""
    found = ("".join(_no_folds(content).split()) for kind, content in _tokens(value[:LONGEST]) if kind == "angle")
    return tuple(filter(None, found)) or None
