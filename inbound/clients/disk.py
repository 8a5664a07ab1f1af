"""Files that are on the disk when we say so, for nobody else to read."""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import struct
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from inbound.clients import Piece
from inbound.clients.reasons import DISK, NAME_REFUSED
from inbound.errors import PermanentFailure, TemporaryFailure

_libc = ctypes.CDLL(None, use_errno=True)

# linux/fs.h; what the ioctl takes is an int, whatever its number says.
_GET_FLAGS, _SET_FLAGS, _TOP_OF_HIERARCHIES = 0x8008_6601, 0x4008_6602, 0x0002_0000


def json_of(value: object, *, sort_keys: bool = False) -> bytes:
    """Compact JSON."""
    return (_SORTED if sort_keys else _COMPACT).encode(value).encode("utf-8")


_COMPACT, _SORTED = (json.JSONEncoder(separators=(",", ":"), sort_keys=sort_keys) for sort_keys in (False, True))


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """What the operating system says comes out as one of our failures."""
    try:
        yield
    except OSError as error:
        raise failure_of(error) from error


def failure_of(error: OSError) -> PermanentFailure | TemporaryFailure:
    """What an error of the disk means for a message."""
    text = f"{error.strerror}: {error.filename}"
    return PermanentFailure(NAME_REFUSED, text) if error.errno in _NO_SUCH_FILE_NAME else TemporaryFailure(DISK, text)


# An object stands where a directory must be, or the other way round; or the name is too long.
_NO_SUCH_FILE_NAME = frozenset({errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG})


def directory(path: Path) -> None:
    """Make it and what is above it, durably, for nobody else to read."""
    if not path.is_dir():
        directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync(path.parent)


def top_of_hierarchies(path: Path) -> None:
    """Ask ext4 to keep what lies in each directory below apart from the rest of the disk (chattr(1), `T`).

    It looks for a free inode near the directory and passes over those that were freed within the last minutes, one by one: where
    others make and remove many files nearby (a scanner's temporary ones), making a file took 0.6 ms instead of 0.02.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # another file system, or a directory of somebody else's
            flags = struct.unpack("i", fcntl.ioctl(handle, _GET_FLAGS, bytes(4)))[0]
            fcntl.ioctl(handle, _SET_FLAGS, struct.pack("i", flags | _TOP_OF_HIERARCHIES))
    finally:
        os.close(handle)


def sync(path: str | Path) -> None:
    """Have a file, or the names in a directory, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_everything(path: Path) -> None:
    """Have everything on the disk that was written to the file system of this directory. Raises OSError."""
    if not hasattr(_libc, "syncfs"):  # Linux has it
        os.sync()
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        if _libc.syncfs(handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(handle)


def write(path: str | Path, pieces: Iterable[Piece], *, durably: bool = True) -> None:
    """A new file of these pieces, on the disk when this returns unless told otherwise.

    Its name is not, until its directory is synced.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for piece in pieces:
            write_whole(handle, piece)
        if durably:
            os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(handle: int, octets: Piece) -> None:
    """Write all of it where the file stands."""
    view = memoryview(octets)
    while view:
        view = view[os.write(handle, view) :]


def replace(part: Path, path: Path, octets: bytes) -> None:
    """A file under its name in one step, on the disk when this returns; `part` is where it is written first."""
    write(part, (octets,))
    part.rename(path)
    sync(path.parent)


def write_new(place: Path, name: str, document: object) -> None:
    """A document as one JSON file, on the disk when this returns. Raises Failure."""
    with disk_errors():
        directory(place)
        replace(place / f".{uuid.uuid4()}", place / name, json_of(document))


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold a lock between threads and processes; it ends with the process at the latest."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
