"""Answers of HTTP/1.1 read strictly (RFC 9112): a status line, fields, and one way of telling where the content ends.

Two ways, or a length that is no number, make an answer that cannot be trusted. Head and content have caps.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

LONGEST_HEAD = 64 * 1024  # octets of an answer's head
LONGEST_CONTENT = 1024 * 1024  # octets of its content

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\r\n]*)?")
_EMPTY = frozenset({204, 304})


class NotUnderstood(OSError):
    """What came is no answer of HTTP/1.1, or a longer one than is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status, fields (lower-case names; the values of one name joined by commas) and content."""

    status: int
    fields: Mapping[str, str]
    content: bytes


class Reader:
    """Reads one answer out of a growing buffer, and takes out of it what it has read."""

    def __init__(self) -> None:
        self._status = 0
        self._fields: dict[str, str] = {}
        self._length: int | None = 0  # octets of content; None: all there are to the end of the connection
        self._chunked = False
        self._content = bytearray()
        self.may_be_kept = False
        self.heard = self.touched = False

    def read(self, buffer: bytearray) -> Answer | None:
        """The answer once it is there. Raises NotUnderstood."""
        self.heard = self.touched = True
        while not self._status:
            end = buffer.find(b"\r\n\r\n")
            if end > LONGEST_HEAD or (end < 0 and len(buffer) > LONGEST_HEAD):
                raise NotUnderstood(f"an answer with a head of more than {LONGEST_HEAD} octets")
            if end < 0:
                return None
            self._take_head(bytes(buffer[:end]))
            del buffer[: end + 4]
        if self._chunked:
            return self._take_chunks(buffer)
        self._take(buffer)
        return self._whole() if len(self._content) == self._length else None

    def end(self, buffer: bytearray) -> Answer | None:
        """The answer, if it is one that the end of the connection ends."""
        done = self._status and self._length is None and not self._chunked and not buffer
        return self._whole() if done else None

    def _take_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        match = _STATUS.fullmatch(first)
        if match is None:
            raise NotUnderstood(f"an answer that begins {first[:40]!r}")
        status = int(match.group(2))
        if status == 101:  # noqa: PLR2004 - nobody asked to switch
            raise NotUnderstood("a switch of protocols")
        if status < 200:  # noqa: PLR2004 - interim answers, such as 100 Continue
            return
        fields: dict[str, str] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise NotUnderstood(f"a header field {line[:40]!r}")
            name, value = field.group(1).decode("ascii").lower(), field.group(2).decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        self._status, self._fields = status, fields
        self._delimit(status, fields)
        tokens = {token.strip().lower() for token in fields.get("connection", "").split(",")}
        self.may_be_kept = match.group(1) == b"1" and "close" not in tokens and self._length is not None

    def _delimit(self, status: int, fields: Mapping[str, str]) -> None:
        """RFC 9112 6.3, for requests that are not HEAD."""
        coding, length = fields.get("transfer-encoding"), fields.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise NotUnderstood(f"content delimited by {coding[:40]!r} and length {length!r}")
            self._chunked = True
        elif status in _EMPTY:
            self._length = 0
        elif length is None:
            self._length = None
        elif not _LENGTH.fullmatch(length):
            raise NotUnderstood(f"a content length {length[:40]!r}")
        else:
            self._length = int(length)
            if self._length > LONGEST_CONTENT:
                raise NotUnderstood(f"content of {length} octets")

    def _take(self, buffer: bytearray) -> None:
        wanted = len(buffer) if self._length is None else self._length - len(self._content)
        self._content += buffer[:wanted]
        del buffer[:wanted]
        if len(self._content) > LONGEST_CONTENT:
            raise NotUnderstood(f"content of more than {LONGEST_CONTENT} octets")

    def _take_chunks(self, buffer: bytearray) -> Answer | None:
        """RFC 9112 7.1. A chunk is taken once it is there whole."""
        while True:
            line_end = buffer.find(b"\r\n")
            if line_end < 0:
                if len(buffer) > LONGEST_HEAD:
                    raise NotUnderstood("a chunk without an end of its first line")
                return None
            match = _CHUNK.fullmatch(bytes(buffer[:line_end]))
            if match is None:
                raise NotUnderstood(f"a chunk that begins {bytes(buffer[:40])!r}")
            size = int(match.group(1), 16)
            if size == 0:
                return self._take_trailers(buffer, line_end)
            if len(self._content) + size > LONGEST_CONTENT:
                raise NotUnderstood(f"content of more than {LONGEST_CONTENT} octets")
            begin, behind = line_end + 2, line_end + 2 + size
            if len(buffer) < behind + 2:
                return None
            if buffer[behind : behind + 2] != b"\r\n":
                raise NotUnderstood("a chunk longer than it says")
            self._content += buffer[begin:behind]
            del buffer[: behind + 2]

    def _take_trailers(self, buffer: bytearray, line_end: int) -> Answer | None:
        end = line_end if buffer[line_end : line_end + 4] == b"\r\n\r\n" else buffer.find(b"\r\n\r\n", line_end)
        if end < 0:
            if len(buffer) > LONGEST_HEAD:
                raise NotUnderstood("trailers without an end")
            return None
        del buffer[: end + 4]
        return self._whole()

    def _whole(self) -> Answer:
        return Answer(status=self._status, fields=self._fields, content=bytes(self._content))
