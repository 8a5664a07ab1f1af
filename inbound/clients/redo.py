"""A redo log: what must not be lost is written and synced here at once, in few large pieces, before it gets its own place.

1. Each process writes a log of its own and holds a lock on it while it lives. A record stands there whole, with its
   checksum, or not at all: reading ends at the first that does not.
2. A log without an owner is that of a process that died. `boot` says whether the machine has gone down since.
3. A failed write leaves nothing behind: the log is cut back to where it was, or given up for a new one.
4. A mark says that everything before it was done. It is not synced: it tells the next process of the same boot what not to
   do again, and nothing to one after the machine has gone down, since what was done need not have reached the disk then.
"""

import contextlib
import fcntl
import os
import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from inbound.clients.disk import directory, locked, sync, write_whole

_RECORD = struct.Struct(">4sIQII")  # mark, CRC-32 of the rest, nanoseconds since the epoch, octets of head and body
_MARK = b"redo"
_CHECKED_FROM = 8
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_FIRST_LINE = b"inbound redo log 1 "


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing to be done again: when it was first, what it is about, and its content."""

    when: int
    head: bytes
    body: bytes

    def encoded(self) -> tuple[bytes, bytes, bytes]:
        """As it stands in the log."""
        start = _RECORD.pack(_MARK, 0, self.when, len(self.head), len(self.body))[_CHECKED_FROM:]
        check = zlib.crc32(self.body, zlib.crc32(self.head, zlib.crc32(start)))
        return _MARK + check.to_bytes(4, "big") + start, self.head, self.body


_DONE = Record(when=0, head=b"", body=b"")  # the mark
_DONE_WRITTEN = b"".join(_DONE.encoded())


class RedoLog:
    """The log that this process writes. Not for several threads at once."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._handle = -1
        self._path = place
        self._size = 0

    @property
    def size(self) -> int:
        """Octets in it, 0 when there is none."""
        return self._size

    def append(self, records: Sequence[Record]) -> None:
        """They are on the disk when this returns. Raises OSError: then none of them is."""
        if self._handle < 0:
            self._open()
        self._write(b"".join(piece for record in records for piece in record.encoded()), durably=True)

    def mark(self) -> None:
        """Everything that was appended so far is done. Raises OSError: then it may be done again."""
        if self._handle >= 0:
            self._write(_DONE_WRITTEN, durably=False)

    def _write(self, octets: bytes, *, durably: bool) -> None:
        try:
            write_whole(self._handle, octets)
            if durably:
                os.fdatasync(self._handle)
        except OSError:
            self._cut_back()
            raise
        self._size += len(octets)

    def let_go(self) -> Path | None:
        """Write no more to it; its path, to be removed once everything in it has its place. None when there is none."""
        if self._handle < 0:
            return None
        os.close(self._handle)
        self._handle, self._size = -1, 0
        return self._path

    def _open(self) -> None:
        directory(self._place)
        self._path = self._place / f"{uuid.uuid4()}.log"
        handle = -1
        try:
            with locked(self._place / ".lock"):  # or it might be taken for one without an owner
                handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
                fcntl.flock(handle, fcntl.LOCK_EX)
            first = _FIRST_LINE + boot().encode("ascii") + b"\n"
            write_whole(handle, first)
            sync(self._place)
        except OSError:
            if handle >= 0:
                os.close(handle)
            raise
        self._handle, self._size = handle, len(first)

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._handle, self._size)
            os.fdatasync(self._handle)
        except OSError:
            self.let_go()


def boot() -> str:
    """A name for the time since this machine went up, "" where there is none to be had."""
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A log that its owner left behind. `same_boot`: whatever was written since is still there, synced or not."""

    path: Path
    same_boot: bool

    def records(self) -> Iterator[Record]:
        """What stands in it and has to be done again, in order."""
        with self.path.open("rb") as file:
            file.readline(200)
            if self.same_boot:
                file.seek(self._behind_the_mark(file))
            while record := _read(file):
                if record != _DONE:
                    yield record

    def _behind_the_mark(self, file: BinaryIO) -> int:
        """Where the last mark ends, or the first line."""
        behind = file.tell()
        while record := _read(file):
            if record == _DONE:
                behind = file.tell()
        return behind


def left_behind(place: Path) -> list[Left]:
    """The logs without an owner. Hold the lock of the place (`.lock`) while you deal with them."""
    now = boot()
    left: list[Left] = []
    for path in sorted(place.glob("*.log")):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            same_boot = bool(now) and file.readline(200) == _FIRST_LINE + now.encode("ascii") + b"\n"
            left.append(Left(path=path, same_boot=same_boot))
    return left


def _read(file: BinaryIO) -> Record | None:
    start = file.read(_RECORD.size)
    if len(start) < _RECORD.size:
        return None
    mark, check, when, head_size, body_size = _RECORD.unpack(start)
    if mark != _MARK or head_size + body_size > os.fstat(file.fileno()).st_size:
        return None
    head, body = file.read(head_size), file.read(body_size)
    whole = len(body) == body_size
    if not whole or zlib.crc32(body, zlib.crc32(head, zlib.crc32(start[_CHECKED_FROM:]))) != check:
        return None
    return Record(when=when, head=head, body=body)
