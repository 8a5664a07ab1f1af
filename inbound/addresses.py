"""Reading the addresses of a header field, in linear time and without guessing.

Lenient where real mail is (obsolete forms, missing phrases), but never silent: whatever could be taken for a second
author comes out as a second mailbox, and what cannot be read comes out with an empty domain. So DMARC never judges a
domain that a reader would not see.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import idna

LONGEST_FIELD = 65_536  # octets of one address field that are read; the rest is treated as unreadable


@dataclass(frozen=True, slots=True)
class Mailbox:
    """`display` is the phrase without quotes and comments, `address` is `local@domain` as written, "" if there is none."""

    display: str
    address: str

    @property
    def local(self) -> str:
        """The local part as written, quotes included."""
        return self.address.rpartition("@")[0]

    @property
    def domain(self) -> str:
        """The domain as lower-case A-labels (RFC 5890), "" if it is not a domain name."""
        return a_labels(self.address.rpartition("@")[2])

    def __str__(self) -> str:
        return f"{self.display} <{self.address}>" if self.display else self.address


def a_labels(domain: str) -> str:
    """The domain in lower-case A-labels without a trailing dot, or "" when it cannot be a host name in DNS."""
    return _a_labels(domain) if len(domain) < _KEPT else _a_labels.__wrapped__(domain)


_KEPT = (
    300  # characters up to which an answer is kept; what is longer than 253 can be no name unless blanks are about it
)


@lru_cache(4096)
def _a_labels(domain: str) -> str:
    name = domain.strip().rstrip(".").lower()
    if not name or len(name) > 253:  # noqa: PLR2004 - RFC 1035 2.3.4
        return ""
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return ""
    labels = name.split(".")
    usable = all(0 < len(label) <= 63 and not set(label) & _NOT_IN_NAMES for label in labels)  # noqa: PLR2004
    return name if usable else ""


def printable(text: str) -> bool:
    """Nothing in it can steer a terminal or pass for a line end; the joiners in words of Persian and Indic scripts cannot."""
    return text.isprintable() or text.translate(_JOINERS).isprintable()


def shown(label: str) -> str:
    """A label of a domain name as readers see it: an A-label's letters (RFC 5890), any other as it is."""
    if not label.startswith("xn--"):
        return label
    try:
        return idna.decode(label)
    except (idna.IDNAError, UnicodeError):
        return label


_JOINERS = str.maketrans("", "", "\u200c\u200d")  # IDNA takes them where they belong (RFC 5892 A.1 and A.2)
_NOT_IN_NAMES = set('\0\t\r\n "(),/:;<>@[\\]^`{|}')


def parse_mailboxes(text: str) -> tuple[Mailbox, ...]:
    """The mailboxes of an address list (RFC 5322 3.4), groups flattened, empty elements left out."""
    if len(text) > LONGEST_FIELD:
        return (Mailbox("", ""),)
    return (_parsed if len(text) < _KEPT else _parsed.__wrapped__)(text)


# One mailbox as most are written: words or a quoted string, and an address in angle brackets.
_ORDINARY = re.compile(
    r"""(?:"([^"\\]*+)"\ ?|((?:[^\s(),:;<>"@\[\]]++\ )*+))<([^\s(),:;<>"@\[\]]++@[^\s(),:;<>"@\[\]]++)>""", re.VERBOSE
)


@lru_cache(1024)
def _parsed(text: str) -> tuple[Mailbox, ...]:
    ordinary = _ORDINARY.fullmatch(text)
    if ordinary:
        quoted_name, words, address = ordinary.groups()
        return (Mailbox(words[:-1] if quoted_name is None else quoted_name, address),)
    return tuple(box for element in _elements(_tokens(text)) for box in _mailboxes(element))


_Token = tuple[str, str]  # kind: "word" | "quoted" | "angle" | "comma" | "colon" | "semicolon" | "broken"; its text


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        char = text[at]
        if char in " \t\r\n":
            at += 1
        elif char == "(":
            end = _past_comment(text, at)
            # Who knows no quoted pairs sees the comment end earlier, and what stands there then as an address.
            if "@" in text[at:end] and ("\\)" in text[at:end] or "\\(" in text[at:end]):
                yield "broken", ""
            at = end
        elif char == '"':
            end, content = quoted(text, at)
            # A quoted local part stands directly before its @ (RFC 5321 4.1.2): keep its quotes and the domain with it.
            if end < len(text) and text[end] == "@":
                tail = word_end(text, end)
                yield "word", text[at:tail]
                at = tail
            else:
                yield ("quoted" if end <= len(text) and text[end - 1] == '"' else "broken"), content
                at = end
        elif char == "<":
            end = text.find(">", at)
            if end < 0:
                yield "broken", text[at + 1 :]
                return
            yield "angle", text[at + 1 : end]
            at = end + 1
        elif char in ",:;":
            yield {",": "comma", ":": "colon", ";": "semicolon"}[char], char
            at += 1
        else:
            end = max(word_end(text, at), at + 1)
            yield "word", text[at:end]
            at = end


def word_end(text: str, at: int) -> int:
    """Where the word that goes on at `at` ends."""
    while at < len(text) and text[at] not in ' \t\r\n(),:;<"':
        if text[at] == "[":  # a domain literal, whose colons are its own
            close = text.find("]", at)
            return len(text) if close < 0 else close + 1
        at += 1
    return at


def _past_comment(text: str, at: int) -> int:
    depth = 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == "(":
            depth += 1
        elif text[at] == ")":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return at


def quoted(text: str, at: int) -> tuple[int, str]:
    """The position behind a quoted string that begins at `at`, and its content without quoted pairs."""
    content: list[str] = []
    at += 1
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text):
            content.append(text[at + 1])
            at += 2
        elif text[at] == '"':
            return at + 1, "".join(content)
        else:
            content.append(text[at])
            at += 1
    return at + 1, "".join(content)


def _elements(tokens: Iterator[_Token]) -> Iterator[list[_Token]]:
    element: list[_Token] = []
    for token in tokens:
        match token[0]:
            case "comma" | "semicolon":
                yield element
                element = []
            case "colon":  # a group's display name ends here
                element = []
            case _:
                element.append(token)
    yield element


def _mailboxes(element: list[_Token]) -> Iterator[Mailbox]:
    if not element:
        return
    if any(kind == "broken" for kind, _ in element):
        yield Mailbox("", "")
        return
    angles = [text for kind, text in element if kind == "angle"]
    if angles:
        display = " ".join(text for kind, text in element if kind != "angle")
        for text in angles:
            yield Mailbox(display, _bare(text))
        last = max(at for at, (kind, _) in enumerate(element) if kind == "angle")
        if any("@" in text for _, text in element[last + 1 :]):  # nothing may stand there, and some readers take it
            yield Mailbox("", "")
        return
    words = [text for kind, text in element if kind == "word"]
    bare = [word for word in words if "@" in word]
    if len(bare) == 1 and len(element) == 1:
        yield Mailbox("", bare[0])
    elif bare:  # "a@x b@y", or an address among loose words: each could be read as an author
        for word in bare:
            yield Mailbox("", word)
        yield Mailbox("", "")
    else:
        yield Mailbox(" ".join(text for _, text in element), "")


def _bare(text: str) -> str:
    """The addr-spec inside angle brackets: white space at its ends and an obsolete source route taken off."""
    address = text.strip()
    if address.startswith("@") and ":" in address:
        address = address.partition(":")[2].strip()
    return "" if any(char in address for char in " \t\r\n<>,;") and not address.startswith('"') else address
