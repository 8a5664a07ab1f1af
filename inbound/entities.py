"""What every reader of MIME asks of an entity: what its header says, and where the delimiters of its parts are.

1. Reading goes from one line that begins with `--` to the next and asks a table whether it is a delimiter of any multipart
   that is open (RFC 2046 5.1.1); an outer one ends everything inside. LF ends a line too. Linear, whatever the octets are.
2. Nothing here raises. What readers could see differently, and what a cap cuts, is noted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inbound.parameters import LONGEST_FIELD, field_of, file_name

LONGEST_BOUNDARY = 250  # RFC 2046 5.1.1 says 70; some writers exceed it
LIKE_DELIMITERS = 100_000  # lines that begin as an open boundary does and are none
_TEXT = "text/plain"

DESCRIBING = ("content-type", "content-disposition", "content-transfer-encoding")

_LONGEST_PREFIX = 16  # of what open boundaries have in common: bytes.find is linear for short needles
_LONGEST_DELIMITER = LONGEST_BOUNDARY + 256  # blanks may follow
_STEP = 1 << 22  # octets

Note = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Entity:
    """What the header of an entity says. `names` are all that readers could take for its file name."""

    type: str = _TEXT
    boundary: bytes = b""
    names: tuple[str, ...] = ()
    charset: str = ""
    disposition: str = ""
    encoding: str = ""


def described(written: Mapping[str, list[bytes]], default: str, note: Note) -> Entity:
    """What these fields say, by their names in `DESCRIBING`. The first of several counts; two that differ are noted.

    `default` is the type of an entity that names none.
    """
    for name, values in written.items():
        if len(values) > 1 and len({value.strip() for value in values}) > 1:
            note(f"several {name} fields")
        if max(map(len, values), default=0) > LONGEST_FIELD:
            note(f"a {name} field longer than {LONGEST_FIELD} octets")
    kind, of_type = field_of(written["content-type"])
    disposition, of_disposition = field_of(written["content-disposition"])
    boundary = _first(of_type, "boundary").rstrip(b" \t")
    if len(boundary) > LONGEST_BOUNDARY:
        note(f"a boundary longer than {LONGEST_BOUNDARY} octets")
        boundary = b""
    names = (*of_disposition.get("filename", ()), *of_type.get("name", ()))
    encoding, _ = field_of(written["content-transfer-encoding"])
    return Entity(
        type=kind if _is_type(kind) else _TEXT if kind else default,  # RFC 2045 5.2
        boundary=boundary,
        names=tuple(dict.fromkeys(name for name in map(file_name, names) if name)) if names else (),
        charset=_first(of_type, "charset")[:64].decode("ascii", "replace"),
        disposition=disposition,
        encoding=encoding,
    )


def _is_type(kind: str) -> bool:
    main, slash, sub = kind.partition("/")
    return bool(slash and main and sub) and kind.isascii() and len(kind) < 128 and "/" not in sub  # noqa: PLR2004


def _first(of: Mapping[str, list[bytes]], name: str) -> bytes:
    return of.get(name, [b""])[0]


@dataclass(frozen=True, slots=True)
class _Open:
    """A boundary that is open. `shadowed` is the level that it meant before, `prefix` what it and those around it begin with."""

    boundary: bytes
    shadowed: int | None
    prefix: bytes


class Boundaries:
    """The boundaries of the multiparts that are open over these octets, and where their delimiters are.

    `alike` counts lines that looked like delimiters and were none; beyond `LIKE_DELIMITERS` no more are found.
    """

    def __init__(self, octets: bytes, *, alike: int = 0) -> None:
        self.alike = alike
        self._octets = octets
        self._open: list[_Open] = []
        self._levels: dict[bytes, int] = {}  # a boundary, and the innermost open multipart that has it

    def push(self, boundary: bytes) -> None:
        """A multipart begins inside of those that are open."""
        prefix = _common(self._open[-1].prefix if self._open else boundary, boundary)
        self._open.append(_Open(boundary, self._levels.get(boundary), prefix))
        self._levels[boundary] = len(self._open) - 1

    def pop(self) -> None:
        """The innermost ends."""
        one = self._open.pop()
        if one.shadowed is None:
            del self._levels[one.boundary]
        else:
            self._levels[one.boundary] = one.shadowed

    def following(self, at: int, note: Note) -> tuple[int, int, bool, int]:
        """The next delimiter from the line that begins at `at`.

        Where the text before it ends, the level of its multipart (-1: there is none more), whether it closes it, and where
        the line behind it begins.
        """
        octets = self._octets
        begins = b"--" + self._open[-1].prefix if self._open else b""
        line = at if octets.startswith(begins, at) else _found(octets, b"\n" + begins, max(at - 1, 0)) + 1
        while begins and (line or line == at):
            behind = octets.find(b"\n", line) + 1 or len(octets)
            level, closes = self.which(line, behind)
            if level >= 0:
                return max(_line_end_before(octets, line), at), level, closes, behind
            self.alike += 1
            line = _found(octets, b"\n" + begins, behind - 1) + 1
            if not line:
                break
            if self.alike > LIKE_DELIMITERS:
                note(f"more than {LIKE_DELIMITERS} lines that look like delimiters")
                break
        return len(octets), -1, False, len(octets)

    def which(self, line: int, behind: int) -> tuple[int, bool]:
        """The level of the multipart that the line is a delimiter of, or -1; and whether it closes it."""
        if behind - line > _LONGEST_DELIMITER or not self._levels:
            return -1, False
        text = self._octets[line + 2 : behind].rstrip(b" \t\r\n")
        level = self._levels.get(text, -1)
        if level < 0 and text.endswith(b"--"):
            return self._levels.get(text[:-2].rstrip(b" \t"), -1), True
        return level, False


def _common(one: bytes, other: bytes) -> bytes:
    """What both begin with, as far as it helps."""
    if one == other:
        return one[:_LONGEST_PREFIX]
    alike = 0
    while alike < min(len(one), len(other), _LONGEST_PREFIX) and one[alike] == other[alike]:
        alike += 1
    return one[:alike]


def _found(octets: bytes, what: bytes, start: int) -> int:
    """As `octets.find`, in steps between which other threads have their turn: one look at 40 MB would take 30 ms."""
    while start < len(octets):
        at = octets.find(what, start, start + _STEP + len(what) - 1)
        if at >= 0:
            return at
        start += _STEP
    return -1


def _line_end_before(octets: bytes, line: int) -> int:
    """Where the line end before the line begins: it belongs to the delimiter (RFC 2046 5.1.1)."""
    before = line - 1 if line else 0
    return before - 1 if before and octets[before - 1] == 13 else before  # noqa: PLR2004 - CR
