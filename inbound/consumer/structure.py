"""The tree of a message's parts as JMAP wants it (RFC 8621 4.1.4), in one bounded pass over its octets.

1. As `mime` does: from one delimiter of any multipart that is open to the next (`entities.Boundaries`).
2. Unlike it, the walk does not go into messages inside of the message: they are leaves, and a message of their own for whoever
   parses them. So there is no recursion whatever is nested, and every part keeps all its header fields.
3. It never raises. What readers could see differently, or what a limit cut, is told in `problems`. A multipart without any
   part has its octets as one text, so that nothing is hidden.
"""

from dataclasses import dataclass

from inbound.consumer.limits import Limits
from inbound.entities import DESCRIBING, Boundaries, described
from inbound.mail import HeaderField


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
    """A multipart that is open."""

    node: int
    met: bool = False


class _Walk:
    def __init__(self, octets: bytes, limits: Limits) -> None:
        self.octets = octets
        self.limits = limits
        self.nodes: list[Node] = []
        self.problems: dict[str, None] = {}
        self._open: list[_Open] = []
        self._boundaries = Boundaries(octets)
        self._fields_left = limits.part_header_fields

    def read(self) -> None:
        """Find every node."""
        leaf, at = self._begin(*self._header_of_message(), parent=-1)
        while True:
            stop, level, closes, behind = self._boundaries.following(at, self._note)
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
            self._boundaries.push(node.boundary)
            self._open.append(_Open(node=len(self.nodes) - 1))
            return None, at
        return self._as_text(len(self.nodes) - 1), at

    def _as_text(self, parent: int) -> Node:
        """The octets of a multipart that has no parts, as a text of its own."""
        whole = self.nodes[parent]
        self.nodes.append(Node(parent=parent, start=whole.start, stop=whole.stop))
        return self.nodes[-1]

    def _close(self, level: int, stop: int) -> None:
        """Close the multiparts from the innermost to `level`."""
        while len(self._open) > max(level, 0):
            one = self._open.pop()
            node = self.nodes[one.node]
            node.stop = max(node.start, stop)
            self._boundaries.pop()
            if not one.met:
                self._note(f"the boundary of a {node.type} never comes")
                self._as_text(one.node)

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
            if line.startswith(b"--") and self._boundaries.which(at, behind)[0] >= 0:
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
        """What the fields say of the node."""
        written: dict[str, list[bytes]] = {name: [] for name in DESCRIBING}
        for one in fields:
            values = written.get(one.name.lower())
            if values is not None:
                values.append(one.raw.partition(b":")[2])
        digest = parent >= 0 and self.nodes[parent].type == "multipart/digest"
        said = described(written, "message/rfc822" if digest else "text/plain", self._note)  # RFC 2046 5.1.5
        return Node(
            fields=fields,
            type=said.type,
            charset=(said.charset or "us-ascii") if said.type.startswith("text/") else None,
            name=said.names[0] if said.names else "",
            disposition=said.disposition,
            encoding=said.encoding,
            boundary=said.boundary if said.type.startswith("multipart/") else b"",
            parent=parent,
        )


def _field_name(line: bytes) -> str:
    """The name of the field that the line begins, "" when it begins none."""
    name, colon, _ = line.partition(b":")
    name = name.rstrip(b" \t")
    return name.decode("ascii") if colon and name and all(32 < octet < 127 for octet in name) else ""  # noqa: PLR2004
