"""What a signature is over: header fields and body in canonical form (RFC 6376 3.4), and their SHA-256.

dkimpy's own canonicalisation needs quadratic time and a dozen copies of the body, so it is the oracle in the tests only.
Everything here takes time linear in what it reads, and a body is hashed in pieces.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from weakref import WeakKeyDictionary

from inbound.mail import HeaderField, Headers, Mail

PIECE = 1 << 18  # octets of the body that are canonicalised at a time


class _Simple:
    """RFC 6376 3.4.1 and 3.4.3, in pieces."""

    empty_body = b"\r\n"

    def canonicalize_header(self, fields: Iterable[HeaderField]) -> bytes:
        return b"".join(field.raw for field in fields)

    def canonicalize_lines(self, lines: bytes) -> bytes:
        return lines


class _Relaxed:
    """RFC 6376 3.4.2 and 3.4.4, in pieces and in linear time."""

    empty_body = b""

    def canonicalize_header(self, fields: Iterable[HeaderField]) -> bytes:
        parts: list[bytes] = []
        for field in fields:
            name, _, value = field.raw.partition(b":")
            parts += name.rstrip(b" \t").lower(), b":", value.replace(b"\r\n", b"").strip(b" \t"), b"\r\n"
        return _squeezed(b"".join(parts))

    def canonicalize_lines(self, lines: bytes) -> bytes:
        return _squeezed(lines).replace(b" \r\n", b"\r\n").rstrip(b" ")


_CANONICALIZATIONS: Mapping[str, _Simple | _Relaxed] = {"simple": _Simple(), "relaxed": _Relaxed()}


def _squeezed(octets: bytes) -> bytes:
    """Every run of blanks as one space. Each round halves the longest run."""
    octets = octets.replace(b"\t", b" ")
    while b"  " in octets:
        octets = octets.replace(b"  ", b" ")
    return octets


def canonical_body(raw: bytes, start: int, canonicalization: str) -> Iterator[bytes]:
    """The body of a message (from `start`) in canonical form, piece by piece."""
    rule = _CANONICALIZATIONS[canonicalization]
    held = 0  # line ends that count only when something follows them
    empty = True
    while start < len(raw):
        end = raw.find(b"\r\n", start + PIECE)
        end = len(raw) if end < 0 else end + 2
        lines = rule.canonicalize_lines(raw[start:end])
        content = _without_empty_lines(lines)
        ends = (len(lines) - len(content)) // 2
        if content:
            yield b"\r\n" * held + content
            held, empty = ends, False
        else:
            held += ends
        start = end
    yield rule.empty_body if empty else b"\r\n"


def _without_empty_lines(lines: bytes) -> bytes:
    """Without the CRLFs at its end."""
    content = lines.rstrip(b"\r\n")
    tail = lines[len(content) :]
    if tail == b"\r\n" * (len(tail) // 2):
        return content
    end = len(tail)  # bare CR or LF among them: these are content
    while tail.endswith(b"\r\n", 0, end):
        end -= 2
    return content + tail[:end]


class Hashes:
    """SHA-256 of one message's body and header fields in every form its signatures ask for, each computed once."""

    def __init__(self, raw: bytes, headers: Headers) -> None:
        self._raw = raw
        self._headers = headers
        self._bodies: dict[tuple[str, int | None], tuple[bytes, int]] = {}

    def body(self, canonicalization: str, length: int | None) -> tuple[bytes, int]:
        """The hash of the first `length` octets of the canonical body, and how many octets that body has."""
        wanted = (canonicalization, length)
        if wanted not in self._bodies:
            digest, size = hashlib.sha256(), 0
            for piece in canonical_body(self._raw, self._headers.size, canonicalization):
                digest.update(piece if length is None else piece[: max(length - size, 0)])
                size += len(piece)
            self._bodies[wanted] = digest.digest(), size
        return self._bodies[wanted]

    def count(self, name: str) -> int:
        """How many fields of that name (lower case) there are."""
        return len(self._headers.by_name.get(name, ()))

    def select(self, names: Sequence[str], own: HeaderField) -> list[HeaderField]:
        """The fields that h= of `own` means: each name the lowest one not taken yet, or nothing (RFC 6376 5.4.2)."""
        selected: list[HeaderField] = []
        left: dict[str, list[HeaderField]] = {"": []}  # lines that are no fields have no name, and nothing means them
        for name in names:
            if name not in left:  # of its own h= it was not there yet when that was written
                left[name] = [field for field in self._headers.by_name.get(name, ()) if field is not own]
            if left[name]:
                selected.append(left[name].pop())
        return selected

    def header(self, fields: Iterable[HeaderField], signature: HeaderField, canonicalization: str) -> bytes:
        """The hash over header fields and the signature field itself, its b= emptied (RFC 6376 3.7)."""
        canonical = _CANONICALIZATIONS[canonicalization].canonicalize_header
        return hashlib.sha256(canonical((*fields, without_value(signature))).removesuffix(b"\r\n")).digest()


def hashes_of(mail: Mail) -> Hashes:
    """Those of this message: DKIM and ARC mostly ask for the same body, where it has both."""
    if not _BOTH.issubset(mail.headers.by_name):
        return Hashes(mail.raw, mail.headers)
    known = _known.get(mail)
    if known is None:
        known = _known[mail] = Hashes(mail.raw, mail.headers)
    return known


_BOTH = {"dkim-signature", "arc-message-signature"}
_known: "WeakKeyDictionary[Mail, Hashes]" = WeakKeyDictionary()


def seal_hashes(sets: Iterable[tuple[HeaderField, HeaderField, HeaderField]]) -> Iterator[bytes]:
    """What each seal of an ARC chain is over (RFC 8617 5.1.1): the sets up to its own, and of itself all but its value.

    A set is its results, its message signature and its seal; they come from the oldest on. Each field is read once.
    """
    canonical = _CANONICALIZATIONS["relaxed"].canonicalize_header
    digest = hashlib.sha256()
    for results, message, seal in sets:
        digest.update(canonical((results, message)))
        own = digest.copy()
        own.update(canonical((without_value(seal),)).removesuffix(b"\r\n"))
        yield own.digest()
        digest.update(canonical((seal,)))


_VALUE = re.compile(rb"(;\s*b\s*=)[^;]*")


def without_value(field: HeaderField) -> HeaderField:
    """The signature field with the value of its b= deleted, blanks around it too."""
    name, _, value = field.raw.partition(b":")
    emptied = _VALUE.sub(rb"\1", b";" + value.removesuffix(b"\r\n"))
    return HeaderField(field.name, name + b":" + emptied[1:] + b"\r\n")
