"""The content of a message as it comes in: found to its end, looked at for flaws, and kept in one piece.

1. DATA ends at CRLF "." CRLF and nowhere else (RFC 5321 4.1.1.4). Any other look-alike (a bare LF or CR around the dot, a
   NUL between them) is content, and such content is a flaw: two servers never see two different messages in one.
   Where the settings say `normalise`, a bare LF or CR becomes CRLF, but only when the end has been found: it ends no message.
2. A flawed message is read to its end without being kept and then refused with its first flaw.
3. Octets are handled in the chunks they come in, never line by line, and kept in a `BytesIO`, which grows in place (of a large
   message by `memory`) and hands its content out without a copy: no step costs more than its chunk, and memory stays near the
   size of the message.
"""

import io
import re

from inbound.receive.memory import roomy
from inbound.reply import Reply
from inbound.settings import Limits

END = b"\r\n.\r\n"
LARGE = 256 * 1024  # octets from which a message gets all the room that it may need
BARE = Reply(
    550, "5.6.11", "bare CR, bare LF and NUL are not taken in a message (RFC 5321 2.3.8)", "bare line end or NUL"
)

_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")


def too_large(limits: Limits) -> Reply:
    """The refusal of a message over the limit, at MAIL FROM or at its end."""
    return Reply(552, "5.3.4", f"the message is larger than {limits.message_bytes} octets", "message too large")


def line_too_long(limits: Limits) -> Reply:
    """The refusal of a message with an overlong line."""
    return Reply(554, "5.6.0", f"a line is longer than {limits.line_bytes} octets", "line too long")


def header_too_large(limits: Limits) -> Reply:
    """The refusal of a message whose header block is over the limit."""
    return Reply(552, "5.3.4", f"the header is larger than {limits.header_bytes} octets", "header too large")


def too_many_fields(limits: Limits) -> Reply:
    """The refusal of a message with too many header fields."""
    return Reply(554, "5.6.0", f"the header has more than {limits.header_fields} fields", "too many header fields")


class Content:
    """A message without its transfer encoding (dots, chunks). `flaw` is the refusal of the first thing wrong with it."""

    def __init__(self, limits: Limits) -> None:
        self.flaw: Reply | None = None
        self._limits = limits
        self._normalise = limits.bare_line_ends == "normalise"
        self._kept = io.BytesIO()
        self._line = 0  # octets of the line that is not yet ended

    @property
    def octets(self) -> int:
        """How many are held."""
        return self._kept.tell()

    def add(self, piece: bytes) -> None:
        """Take the next octets. A CRLF never lies across two pieces."""
        if self.flaw:
            return
        bare = _has_bare_line_ends(piece)
        if bare and self._normalise:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
            bare = False
        overlong = self._overlong(piece)
        large = self._limits.message_bytes - self.octets
        if bare or b"\0" in piece or min(overlong, large) < len(piece):
            self._spoil(self._first_flaw(piece, overlong, large))
        else:
            before = self.octets
            self._kept.write(piece)
            if before < LARGE <= self.octets:
                self._kept = roomy(self._kept.getvalue(), self._limits.message_bytes)

    def expect(self, octets: int) -> None:
        """So many octets are to come: what cannot fit is not kept at all."""
        if not self.flaw and self.octets + octets > self._limits.message_bytes:
            self._spoil(too_large(self._limits))

    def finish(self) -> bytes:
        """The whole message. Look at `flaw` afterwards: with a flaw there is none."""
        if self.flaw:
            return b""
        self._kept.truncate()
        raw = self._kept.getvalue()
        self._kept = io.BytesIO()
        self._check_header(raw)
        return b"" if self.flaw else raw

    def _spoil(self, flaw: Reply) -> None:
        self.flaw = flaw
        self._kept = io.BytesIO()

    def _first_flaw(self, piece: bytes, overlong: int, large: int) -> Reply:
        """The flaw that comes first, so that the answer does not depend on how the network cut the message."""
        bare = _BARE.search(piece)
        places = (
            (bare.start() if bare else len(piece), 0, BARE),
            (overlong, 1, line_too_long(self._limits)),
            (large, 2, too_large(self._limits)),
        )
        return min(places)[2]

    def _overlong(self, piece: bytes) -> int:
        """Where a line becomes too long, the length of the piece if none does.

        Looks for the last line end within as many octets as a line may have, and goes on from there: a few steps, however
        many lines there are.
        """
        start, room = 0, self._limits.line_bytes - self._line
        while (end := piece.rfind(b"\r\n", start, start + room + 2)) >= 0:
            start, room = end + 2, self._limits.line_bytes
            self._line = 0
        self._line += len(piece) - start
        return len(piece) if len(piece) - start <= room else start + room

    def _check_header(self, raw: bytes) -> None:
        limit = self._limits.header_bytes
        end = 0 if raw.startswith(b"\r\n") else raw.find(b"\r\n\r\n", 0, limit + 4)
        if end < 0:
            end = len(raw)
        if end > limit:
            self._spoil(header_too_large(self._limits))
            return
        block = raw[:end]
        most = self._limits.header_fields + (end == len(raw))
        line_ends = block.count(b"\r\n")
        if line_ends >= most and line_ends - block.count(b"\r\n ") - block.count(b"\r\n\t") >= most:
            self._spoil(too_many_fields(self._limits))


def _has_bare_line_ends(piece: bytes) -> bool:
    # Which kinds of line ends there are is found in one pass; counting each kind takes three, and twice as long.
    kinds = io.IncrementalNewlineDecoder(None, translate=False)
    kinds.decode(piece.decode("latin-1"), final=True)
    return kinds.newlines not in (None, "\r\n")


class DotStuffed:
    """The content behind DATA: dots at the beginning of lines are doubled, a line with one dot alone is the end."""

    def __init__(self, content: Content) -> None:
        self._content = content
        # DATA's own CRLF counts as the one before the first line: "." CRLF right away is an empty message.
        self._carry = END[:2]
        self._first = True

    def feed(self, chunk: bytes) -> bytes | None:
        """Take a chunk. Returns what lies behind the end of data, or None while there is no end."""
        window = self._carry + chunk
        dot = window.find(END[:3])  # few messages have another than the last
        end = window.find(END, dot) if dot >= 0 else -1
        stuffed = dot != end
        if end >= 0:
            self._pass_on(window[: end + 2], stuffed=stuffed)
            return window[end + len(END) :]
        # What could be the beginning of the end waits for the next chunk; so no CRLF "." is ever cut in two.
        kept_back = next((n for n in (4, 3, 2, 1) if window.endswith(END[:n])), 0)
        self._carry = END[:kept_back]
        self._pass_on(window[: len(window) - kept_back], stuffed=stuffed)
        return None

    def _pass_on(self, piece: bytes, *, stuffed: bool) -> None:
        if not piece or self._content.flaw:
            return
        if stuffed:
            piece = piece.replace(b"\r\n.", b"\r\n")  # RFC 5321 4.5.2
        if self._first:
            piece = piece[2:]
            self._first = False
        self._content.add(piece)


class Chunked:
    """The content behind BDAT (RFC 3030): octets as they are, as many as the command says."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._carry = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next octets of a chunk; a CRLF may lie across two of them."""
        window = self._carry + chunk
        self._carry = b"\r" if window.endswith(b"\r") else b""
        self._content.add(window.removesuffix(b"\r"))

    def end(self) -> None:
        """There are no more chunks."""
        self._content.add(self._carry)
        self._carry = b""
