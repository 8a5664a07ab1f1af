"""The tree of a message's parts as JMAP wants it (RFC 8621 4.1.4), in one bounded pass over its octets.

1. As `mime` does: from one line that begins with `--` to the next, asking a table whether it is a delimiter of any multipart
   that is open (RFC 2046 5.1.1). An outer one ends everything inside.
2. Unlike it, the walk does not go into messages inside of the message: they are leaves, and a message of their own for whoever
   parses them. So there is no recursion whatever is nested, and every part keeps all its header fields.
3. It never raises. What readers could see differently, or what a limit cut, is told in `problems`. A multipart without any
   part has its octets as one text, so that nothing is hidden.
"""

from dataclasses import dataclass, field

from inbound.consumer.limits import Limits
from inbound.mail import HeaderField
from inbound.parameters import LONGEST_FIELD, field_of, file_name

LONGEST_BOUNDARY = 250  # RFC 2046 5.1.1 says 70; some writers exceed it
LIKE_DELIMITERS = 100_000  # lines that begin as an open boundary does and are none
_LONGEST_PREFIX = 16  # of what open boundaries have in common: bytes.find is linear for short needles
_LONGEST_DELIMITER = LONGEST_BOUNDARY + 256  # blanks may follow
_MESSAGES = ("message/rfc822", "message/global")


@dataclass(slots=True, kw_only=True)
class Node:
    """One part as it is found. Its body is octets `start` to `stop`; `parent` is a place in the list of all, -1 of the root."""

    fields: tuple[HeaderField, ...] = ()
    type: str = "text/plain"
    charset: str | None = "us-ascii"
    name: str = ""
    disposition: str = ""
    encoding: str = ""
    boundary: bytes = b""
    start: int = 0
    stop: int = 0
    parent: int = -1

    @property
    def multipart(self) -> bool:
        """It has parts."""
        return self.type.startswith("multipart/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """All nodes in the order of the message, the root first; and where readers could differ, or limits were met."""

    nodes: tuple[Node, ...]
    problems: tuple[str, ...]


def structure(octets: bytes, limits: Limits) -> Structure:
    """Take a message apart. Line ends may be CRLF or LF. Linear; never raises."""
    walk = _Walk(octets, limits)
    walk.read()
    return Structure(nodes=tuple(walk.nodes), problems=tuple(walk.problems))


@dataclass(slots=True, kw_only=True)
class _Open:
    """A multipart that is open. `shadowed` is the level that its boundary meant before."""

    node: int
    shadowed: int | None
    prefix: bytes
    met: bool = False


@dataclass(slots=True)
class _Walk:
    octets: bytes
    limits: Limits
    nodes: list[Node] = field(default_factory=list)
    problems: dict[str, None] = field(default_factory=dict)
    _open: list[_Open] = field(default_factory=list)
    _levels: dict[bytes, int] = field(default_factory=dict)
    _fields_left: int = 0
    _like_delimiters: int = 0

    def read(self) -> None:
        """Find every node."""
        self._fields_left = self.limits.part_header_fields
        leaf, at = self._begin(*self._header_of_message(), parent=-1)
        while True:
            stop, level, closes, behind = self._delimiter(at)
            if leaf is not None:
                leaf.stop = max(leaf.start, stop)
                self.nodes[
                    leaf.parent
                ].stop = leaf.stop  # of a multipart that has nothing else; of others, until it is closed
            self._close(level if closes else level + 1, stop)
            if level < 0:
                return
            leaf, at = None, behind
            if closes:
                continue
            if len(self.nodes) >= self.limits.parts:
                self._note(f"more than {self.limits.parts} parts")
                self._close(0, stop)
                return
            self._open[level].met = True
            leaf, at = self._begin(*self._header_of_part(behind), parent=self._open[level].node)

    def _note(self, problem: str) -> None:
        self.problems.setdefault(problem)

    def _begin(self, fields: tuple[HeaderField, ...], at: int, parent: int) -> tuple[Node | None, int]:
        """A node whose body begins at `at`. A multipart is opened, and is no leaf."""
        node = self._described(fields, parent)
        node.start = node.stop = at
        self.nodes.append(node)
        if not node.multipart:
            return node, at
        if not node.boundary:
            self._note(f"{node.type} without a boundary")
        elif len(self._open) >= self.limits.depth:
            self._note(f"nested deeper than {self.limits.depth}")
        else:
            self._push(node)
            return None, at
        return self._as_text(len(self.nodes) - 1), at

    def _as_text(self, parent: int) -> Node:
        """The octets of a multipart that has no parts, as a text of its own."""
        whole = self.nodes[parent]
        self.nodes.append(Node(parent=parent, start=whole.start, stop=whole.stop))
        return self.nodes[-1]

    def _push(self, node: Node) -> None:
        prefix = _common(self._open[-1].prefix if self._open else node.boundary, node.boundary)
        shadowed = self._levels.get(node.boundary)
        self._levels[node.boundary] = len(self._open)
        self._open.append(_Open(node=len(self.nodes) - 1, shadowed=shadowed, prefix=prefix))

    def _close(self, level: int, stop: int) -> None:
        """Close the multiparts from the innermost to `level`."""
        while len(self._open) > max(level, 0):
            one = self._open.pop()
            node = self.nodes[one.node]
            node.stop = max(node.start, stop)
            if one.shadowed is None:
                del self._levels[node.boundary]
            else:
                self._levels[node.boundary] = one.shadowed
            if not one.met:
                self._note(f"the boundary of a {node.type} never comes")
                self._as_text(one.node)

    def _delimiter(self, at: int) -> tuple[int, int, bool, int]:
        """The next delimiter from the line that begins at `at`.

        Where the text before it ends, the level of its multipart (-1: there is none more), whether it closes it, and where
        the line behind it begins.
        """
        octets = self.octets
        begins = b"--" + self._open[-1].prefix if self._open else b""
        line = at if octets.startswith(begins, at) else octets.find(b"\n" + begins, max(at - 1, 0)) + 1
        while begins and (line or line == at):
            behind = octets.find(b"\n", line) + 1 or len(octets)
            level, closes = self._which(line, behind)
            if level >= 0:
                return max(self._line_end_before(line), at), level, closes, behind
            self._like_delimiters += 1
            if self._like_delimiters > LIKE_DELIMITERS:
                self._note(f"more than {LIKE_DELIMITERS} lines that look like delimiters")
                break
            line = octets.find(b"\n" + begins, behind - 1) + 1
            if not line:
                break
        return len(octets), -1, False, len(octets)

    def _line_end_before(self, line: int) -> int:
        """Where the line end before the line begins: it belongs to the delimiter (RFC 2046 5.1.1)."""
        before = max(line - 1, 0)
        return before - 1 if before and self.octets[before - 1 : before] == b"\r" else before

    def _which(self, line: int, behind: int) -> tuple[int, bool]:
        """The level of the multipart that the line is a delimiter of, or -1; and whether it closes it."""
        if behind - line > _LONGEST_DELIMITER or not self._levels:
            return -1, False
        text = self.octets[line + 2 : behind].rstrip(b" \t\r\n")
        level = self._levels.get(text, -1)
        if level < 0 and text.endswith(b"--"):
            return self._levels.get(text[:-2].rstrip(b" \t"), -1), True
        return level, False

    def _header_of_message(self) -> tuple[tuple[HeaderField, ...], int]:
        """The message's own fields. A line that is no field is passed over, as the receiver does."""
        fields: list[HeaderField] = []
        at, end = 0, self.limits.header_bytes
        while at < len(self.octets):
            behind = self._field_end(at, end)
            line = self.octets[at:behind]
            if not line.strip(b"\r\n"):
                return tuple(fields), behind
            if behind > end or len(fields) >= self.limits.header_fields:
                self._note("the header is longer than the limits allow")
                return tuple(fields), self._past_empty_line(at)
            name = _field_name(line)
            if name:
                fields.append(HeaderField(name, line))
            else:
                self._note("a line in the header that is no field")
            at = behind
        return tuple(fields), at

    def _header_of_part(self, at: int) -> tuple[tuple[HeaderField, ...], int]:
        """The fields of the part that begins at `at`. Its body begins at the first line that is no field."""
        fields: list[HeaderField] = []
        end = at + self.limits.part_header_bytes
        while at < len(self.octets):
            behind = self._field_end(at, self.limits.part_header_bytes)
            line = self.octets[at:behind]
            if not line.strip(b"\r\n"):
                return tuple(fields), behind
            if line.startswith(b"--") and self._which(at, behind)[0] >= 0:
                break
            if behind > end or not self._fields_left:
                self._note("the header of a part is longer than the limits allow")
                break
            name = _field_name(line)
            if not name:
                break
            self._fields_left -= 1
            fields.append(HeaderField(name, line))
            at = behind
        return tuple(fields), at

    def _field_end(self, at: int, longest: int) -> int:
        """Where the field that begins at `at` ends, continuation lines with it; or the line, where it is an empty one.

        No more than `longest` octets are looked at, but for the line that goes beyond them.
        """
        octets, until = self.octets, at + longest
        end = octets.find(b"\n", at) + 1 or len(octets)
        if octets[at:end].strip(b"\r\n"):
            while end < until and octets[end : end + 1] in (b" ", b"\t"):
                end = octets.find(b"\n", end) + 1 or len(octets)
        return end

    def _past_empty_line(self, at: int) -> int:
        """Where the line behind the next empty one begins."""
        found = [
            end + size for mark, size in ((b"\n\r\n", 3), (b"\n\n", 2)) if (end := self.octets.find(mark, at)) >= 0
        ]
        return min(found, default=len(self.octets))

    def _described(self, fields: tuple[HeaderField, ...], parent: int) -> Node:
        """What the fields say of the node. The first of several counts, and that there are several is told."""
        written: dict[str, list[bytes]] = {
            "content-type": [],
            "content-disposition": [],
            "content-transfer-encoding": [],
        }
        for one in fields:
            values = written.get(one.name.lower())
            if values is not None:
                values.append(one.raw.partition(b":")[2])
        for name, values in written.items():
            if len({value.strip() for value in values}) > 1:
                self._note(f"several {name} fields")
            if any(len(value) > LONGEST_FIELD for value in values):
                self._note(f"a {name} field longer than {LONGEST_FIELD} octets")
        kind, of_type = field_of(written["content-type"])
        disposition, of_disposition = field_of(written["content-disposition"])
        digest = parent >= 0 and self.nodes[parent].type == "multipart/digest"
        default = "message/rfc822" if digest else "text/plain"  # RFC 2046 5.1.5
        kind = kind if _is_type(kind) else "text/plain" if kind else default  # RFC 2045 5.2
        boundary = of_type.get("boundary", [b""])[0].rstrip(b" \t")
        if len(boundary) > LONGEST_BOUNDARY:
            self._note(f"a boundary longer than {LONGEST_BOUNDARY} octets")
            boundary = b""
        names = [*of_disposition.get("filename", ()), *of_type.get("name", ())]
        charset = of_type.get("charset", [b""])[0][:64].decode("ascii", "replace")
        return Node(
            fields=fields,
            type=kind,
            charset=(charset or "us-ascii") if kind.startswith("text/") else None,
            name=next(filter(None, map(file_name, names)), ""),
            disposition=disposition,
            encoding=field_of(written["content-transfer-encoding"])[0],
            boundary=boundary if kind.startswith("multipart/") else b"",
            parent=parent,
        )


def _common(one: bytes, other: bytes) -> bytes:
    """What both begin with, as far as it helps."""
    alike = 0
    while alike < min(len(one), len(other), _LONGEST_PREFIX) and one[alike] == other[alike]:
        alike += 1
    return one[:alike]


def _field_name(line: bytes) -> str:
    """The name of the field that the line begins, "" when it begins none."""
    name, colon, _ = line.partition(b":")
    name = name.rstrip(b" \t")
    return name.decode("ascii") if colon and name and all(32 < octet < 127 for octet in name) else ""  # noqa: PLR2004


def _is_type(kind: str) -> bool:
    main, slash, sub = kind.partition("/")
    return bool(slash and main and sub) and kind.isascii() and len(kind) < 128 and "/" not in sub  # noqa: PLR2004
