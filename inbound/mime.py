"""The parts of a message: one pass over its octets, bounded, whatever they are.

1. The walk is linear: from one delimiter of any multipart that is open to the next (`entities.Boundaries`), and headers of a
   part are read once. There is no recursion but into an encoded message, and that is bounded.
2. It reads as mail readers do, not as the RFC hopes: LF ends a line too, a multipart may lack its close, MIME-Version may be
   missing, parameters may be written in any of the ways they are (RFC 2231, RFC 2047, neither).
3. It never raises. Where readers could see different things, or a cap is met, the message is not `readable`: `reason` says
   why, and what was found until then is still there.
4. Content is decoded when asked for, no more of it than asked for.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from inbound import magic
from inbound.decoding import ASCII_AND_MORE, TRANSFER_ENCODINGS, codec, decode, transferred
from inbound.entities import DESCRIBING, Boundaries, Entity, described
from inbound.mail import Mail

MOST_PARTS = 1000  # SES takes 500, amavis 1500 files
DEEPEST = 100  # postfix mime_nesting_limit
HEADER_OCTETS = 65_536  # of one part
HEADER_LINES = 20_000  # of all parts
FIELD_OCTETS = 512 * 1024  # of all fields that we read, of all parts
ENCODED_MESSAGES = 3  # messages inside base64 or quoted-printable inside such messages
_LONGEST_TEXT = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part that is not a multipart. `name` is its file name, "" if none; `names` all that readers could take for it.

    `declared` is the type as written (`text/plain` if none), `type` the one that the first octets show; both lower case.
    `within` are the multiparts and messages around it, outermost first. `size` counts octets as they stand in the message.
    """

    name: str = ""
    names: tuple[str, ...] = ()
    declared: str = "text/plain"
    type: str = "text/plain"
    charset: str = ""
    disposition: str = ""
    encoding: str = ""
    within: tuple[str, ...] = ()
    size: int = 0
    encoded: memoryview = field(default=memoryview(b""), repr=False, compare=False)

    def content(self, limit: int) -> bytes:
        """The first `limit` octets, decoded. What is no valid encoding is decoded as far as it goes."""
        return transferred(self.encoded, self.encoding, limit)

    def text(self, limit: int) -> str:
        """The text of the first `limit` octets, by the declared charset where it is one."""
        return decode(self.content(limit), self.charset)

    @property
    def is_ascii_as_it_stands(self) -> bool:
        """What of its text is ASCII stands so in the message: it is not encoded, and its charset holds ASCII as it is."""
        return self.encoding not in TRANSFER_ENCODINGS and codec(self.charset) in ASCII_AND_MORE

    def ends(self, limit: int, last: int) -> tuple[str, ...]:
        """The text where it has `limit` octets at most, else its beginning and its `last` octets, that many in all.

        Of what is very long, what comes last in the first 256 KiB.
        """
        octets = self.content(_LONGEST_TEXT)
        if len(octets) <= limit:
            return (decode(octets, self.charset),)
        whole = (len(octets) - last) // 4 * 4  # no character of UTF-16 or UTF-32 is cut
        return decode(octets[: limit - last], self.charset), decode(octets[whole:], self.charset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts in the order of the message. `reason` says why it is not readable as MIME, "" when it is."""

    parts: tuple[Part, ...]
    reason: str = ""

    @property
    def readable(self) -> bool:
        """Every reader sees these parts."""
        return not self.reason

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def parts(mail: Mail) -> Parts:
    """The parts of a message. Linear in its size; never raises. Taken apart once, as long as the message is there."""
    known = _known.get(mail)
    if known is None:
        known = _known[mail] = _taken_apart(mail)
    return known


_known: "WeakKeyDictionary[Mail, Parts]" = WeakKeyDictionary()


def _taken_apart(mail: Mail) -> Parts:
    count = _Count()
    written = {name: [one.raw.partition(b":")[2] for one in mail.headers.by_name.get(name, ())] for name in DESCRIBING}
    _Walk(mail.raw, count).read(_head(written, magic.TEXT, count), mail.headers.size)
    return Parts(parts=tuple(count.parts), reason=count.reason)


def attachments(mail: Mail) -> tuple[Part, ...]:
    """What rules call attachments: every part but nameless plain or HTML text, once under each name it could be taken for."""
    return tuple(
        replace(part, name=name)
        for part in parts(mail)
        if part.name or part.disposition == "attachment" or part.type not in (magic.TEXT, magic.HTML)
        for name in part.names or ("",)
    )


_NAME = re.compile(rb"[!-~]*")
_MESSAGES = frozenset({"message/rfc822", "message/global", "message/news"})


@dataclass(slots=True, kw_only=True)
class _Open:
    """A multipart that is open. `around` is how much was around it."""

    head: Entity
    body: int
    around: int
    met: bool = False


@dataclass(slots=True)
class _Count:
    """What the walks of one message share: the parts found, and the first reason why it is not readable."""

    parts: list[Part] = field(default_factory=list)
    reason: str = ""
    encoded_messages: int = 0
    header_lines: int = 0
    field_octets: int = 0

    def unreadable(self, reason: str) -> None:
        self.reason = self.reason or reason


class _Walk:
    """The walk over one run of octets: the message, or a message that was encoded inside of it."""

    def __init__(self, octets: bytes, count: _Count, within: tuple[str, ...] = (), *, alike: int = 0) -> None:
        self._octets = octets
        self._count = count
        self._open: list[_Open] = []
        self._boundaries = Boundaries(octets, alike=alike)
        self._around = list(within)

    def read(self, head: Entity, at: int) -> None:
        """Read the entity with this header, whose body begins at `at`, to the end of the octets."""
        leaf, at = self._descend(head, at)
        while len(self._count.parts) < MOST_PARTS:
            start = at
            stop, level, closes, at = self._boundaries.following(start, self._count.unreadable)
            if leaf:
                self._leaf(leaf, start, stop)
            self._close(level if closes else level + 1, stop)
            if level < 0:
                return
            leaf = None
            if not closes:
                self._open[level].met = True
                leaf, at = self._descend(*self._header(at))
        self._count.unreadable(f"more than {MOST_PARTS} parts")

    def _descend(self, head: Entity, at: int) -> tuple[Entity | None, int]:
        """Go into messages and multiparts until there is a leaf; None where a multipart's preamble begins."""
        while True:
            message = head.type in _MESSAGES and not _is_encoded(head)
            multipart = head.type.startswith("multipart/")
            if multipart and not head.boundary:
                self._count.unreadable(f"{head.type} without a boundary")
            elif (message or multipart) and len(self._around) >= DEEPEST:
                self._count.unreadable(f"nested deeper than {DEEPEST}")
            elif message:
                self._around.append(head.type)
                head, at = self._header(at)
                continue
            elif multipart:
                self._push(head, at)
                return None, at
            return head, at

    def _push(self, head: Entity, at: int) -> None:
        self._boundaries.push(head.boundary)
        self._open.append(_Open(head=head, body=at, around=len(self._around)))
        self._around.append(head.type)

    def _close(self, level: int, stop: int) -> None:
        """Close the multiparts from the innermost to `level`. The message that a part was ends with the part."""
        while len(self._open) > max(level, 0):
            one = self._open.pop()
            self._boundaries.pop()
            del self._around[one.around :]
            if not one.met:
                self._count.unreadable(f"the boundary of a {one.head.type} never comes")
                self._leaf(one.head, one.body, stop)
        if self._open:
            del self._around[self._open[-1].around + 1 :]

    def _header(self, at: int) -> tuple[Entity, int]:
        """The header of the part that begins at `at`, and where its body begins."""
        octets = self._octets
        written: dict[str, list[bytes]] = {name: [] for name in DESCRIBING}
        values: list[bytes] | None = None  # of the field that we are in, where it is one we read
        begin, first, end = 0, at, at + HEADER_OCTETS
        while at < len(octets):
            behind = octets.find(b"\n", at, end) + 1
            if not behind and len(octets) > end:
                self._count.unreadable(f"the header of a part is longer than {HEADER_OCTETS} octets")
                break
            behind = behind or len(octets)
            self._count.header_lines += 1
            if self._count.header_lines > HEADER_LINES:
                self._count.unreadable(f"more than {HEADER_LINES} header lines in the parts")
                break
            line = octets[at:behind].rstrip(b"\r\n")
            if not line:
                at = behind
                break
            if line.startswith(b"--") and self._boundaries.which(at, behind)[0] >= 0:
                break
            if line[0] not in b" \t":
                if values is not None:
                    values.append(octets[begin:at])
                name = _field_name(line, may_be_mbox=at == first)
                if not name:
                    values = None
                    break  # no header field, so the body begins here, as readers see it
                begin = at + line.index(b" " if name == "from " else b":") + 1
                values = written.get(name)
            at = behind
        if values is not None:
            values.append(octets[begin:at])
        default = "message/rfc822" if self._around[-1:] == ["multipart/digest"] else magic.TEXT  # RFC 2046 5.1.5
        return _head(written, default, self._count), at

    def _leaf(self, head: Entity, start: int, stop: int) -> None:
        if head.type in _MESSAGES and self._encoded_message(head, start, stop):
            return
        encoded = memoryview(self._octets)[start : max(start, stop)]
        self._count.parts.append(
            Part(
                name=head.names[0] if head.names else "",
                names=head.names,
                declared=head.type,
                type=magic.sniff(transferred(encoded, head.encoding, magic.OCTETS), head.type),
                charset=head.charset,
                disposition=head.disposition,
                encoding=head.encoding,
                within=tuple(self._around),
                size=len(encoded),
                encoded=encoded,
            )
        )

    def _encoded_message(self, head: Entity, start: int, stop: int) -> bool:
        """Walk a message that stands in base64 or quoted-printable: no writer should, readers open it (RFC 2046 5.2.1)."""
        if not _is_encoded(head):
            return False
        self._count.encoded_messages += 1
        if self._count.encoded_messages > ENCODED_MESSAGES or len(self._around) >= DEEPEST:
            self._count.unreadable(f"more than {ENCODED_MESSAGES} encoded messages inside")
            return False
        octets = transferred(memoryview(self._octets)[start:stop], head.encoding, stop - start)
        inner = _Walk(octets, self._count, (*self._around, head.type), alike=self._boundaries.alike)
        inner.read(*inner._header(0))
        self._boundaries.alike = inner._boundaries.alike
        return True


def _field_name(line: bytes, *, may_be_mbox: bool) -> str:
    """The name of the field that the line begins, lower case; `from ` for what an mbox left there; "" when it begins none."""
    if may_be_mbox and line.startswith((b"From ", b">From ")):
        return "from "
    name, colon, _ = line.partition(b":")
    name = name.rstrip(b" \t")
    return name.lower().decode("ascii") if colon and _NAME.fullmatch(name) else ""


def _is_encoded(head: Entity) -> bool:
    return head.encoding in ("base64", "quoted-printable")


def _head(written: dict[str, list[bytes]], default: str, count: _Count) -> Entity:
    """What the fields say. Two that say different things make the message unreadable."""
    count.field_octets += sum(sum(map(len, values)) for values in written.values())
    if count.field_octets > FIELD_OCTETS:
        count.unreadable(f"more than {FIELD_OCTETS} octets of fields that describe parts")
        return Entity(type=default)
    return described(written, default, count.unreadable)
