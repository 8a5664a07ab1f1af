"""One object on its way to its place: files with names that nobody looks at become an object and its metadata.

Theory in `clients.buckets`. Everything here works in a thread.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inbound.clients import Body, whole
from inbound.clients.disk import failure_of, json_of, sync, write
from inbound.clients.redo import Record
from inbound.clients.shelf import beside
from inbound.errors import Failure

OFTEN = 1000  # tries to get an object into a directory that a consumer removes


@dataclass(slots=True, kw_only=True, eq=False)
class Put:
    """One object on its way."""

    bucket: str
    key: str
    path: str
    body: bytes | Body
    metadata: bytes
    replaces: bool = False  # whatever is there
    was_there: bool = False  # when it was looked for, so it is not in the log
    shared: str = ""  # a file that has its metadata, to be linked to; "" when they go into one of its own
    outcome: bool | Failure = False

    def record(self) -> Record:
        """For the log; what is made piece by piece is made once, and written from here to its place too."""
        self.body = body = whole(self.body)
        head = [self.bucket, self.key, self.metadata.decode("utf-8"), *([True] if self.replaces else [])]
        return Record(when=time.time_ns(), head=json_of(head), body=body)


def placed(put: Put, part: str, *, durably: bool) -> bool | Failure:
    """Give a written object its place, under the bucket's lock. False: another one has it, and is on the disk by now."""
    path = put.path
    try:
        found = _mode(path)
        if stat.S_ISDIR(found):
            raise IsADirectoryError(errno.EISDIR, "keys below it are taken", path)
        if not put.replaces and (put.was_there or found):
            if _is_kept(path):
                remove(part)
                return False
            for written in (part, put.shared or metadata_of(part)):
                sync(written)  # it is in no log
            durably = True
        _place_metadata(put, part, durably=durably)
        if durably:
            _sync_names(put)
        _in_its_directory(os.replace, part, path)
        if durably:
            _sync_names(put)
    except OSError as error:
        remove(part)
        return failure_of(error)
    return True


def _mode(path: str) -> int:
    """What lies there, as `st_mode` has it; 0: nothing."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_kept(path: str) -> bool:
    """The object that was there is on the disk, or a consumer has taken it. False: it lies there and cannot be read."""
    try:
        for one in (beside(path), path, os.path.dirname(path)):
            sync(one)  # whoever wrote it may be about to, or have died before
    except FileNotFoundError:
        return not os.path.exists(path)
    return True


def _place_metadata(put: Put, part: str, *, durably: bool) -> None:
    """As a link where that can be: not where metadata lie that an object had which is gone."""
    place = beside(put.path)
    if put.shared:
        with contextlib.suppress(OSError):
            _in_its_directory(os.link, put.shared, place)
            return
        write(metadata_of(part), (put.metadata,), durably=durably)
    _in_its_directory(os.replace, metadata_of(part), place)


def _in_its_directory(move: Callable[[str, str], None], part: str, path: str) -> None:
    """The directory is made when it is not there; a consumer may remove it again as long as it is empty."""
    for _ in range(OFTEN):
        try:
            move(part, path)
        except FileNotFoundError:
            for above in reversed([one for one in Path(path).parents if not one.exists()]):
                with contextlib.suppress(FileNotFoundError, FileExistsError):
                    above.mkdir(mode=0o700)
        else:
            return
    move(part, path)


def _sync_names(put: Put) -> None:
    """The names in its directory, and in those above it that may be new. What a consumer has removed needs no place."""
    for above in list(Path(put.path).parents)[: put.key.count("/") + 1]:
        with contextlib.suppress(FileNotFoundError):
            sync(above)


def metadata_of(part: str) -> str:
    """Where the metadata are written first."""
    return f"{part}.json"


def remove(part: str) -> None:
    """Away with a written object that gets no place."""
    for path in (part, metadata_of(part)):
        unlink(path)


def unlink(path: str) -> None:
    """Away with it, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def is_there(put: Put) -> bool:
    """The object and its metadata lie in their places, octet for octet."""
    try:
        return Path(put.path).read_bytes() == put.body and Path(beside(put.path)).read_bytes() == put.metadata
    except OSError:
        return False
