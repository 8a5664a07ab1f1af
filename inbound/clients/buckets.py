"""Buckets in a directory, written so that many messages share one wait for the disk (group commit).

1. An object is `BUCKET/KEY`, its user metadata `BUCKET/KEY.metadata.json`. Puts that arrive while others are being written are
   written together after those: all of them into a redo log, which is synced once. From then on they cannot be lost.
2. Then each gets its place, the metadata first, both by a rename under the bucket's lock: between processes too the first
   write wins, whole. Only then `put` says so, and every reader sees the object.
3. The files themselves are synced later, all at once (`SETTLE_SECONDS`), and the log that had them is dropped. A large object
   goes its own way, synced before `put` says so.
4. At the start, logs that a dead process left are played back: what did not get its place gets it. An object that did, and
   that a consumer has deleted since, stays deleted: a mark in the log says so (a kill between place and mark, some
   microseconds, forgets it). If the machine went down, no mark counts: what the log has is made anew unless it lies there
   whole, so an object that was deleted less than `SETTLE_SECONDS` after it was stored is there once more.
5. Consumers take no lock and delete what they please, at any time. What was there when it was put again, and is gone a moment
   later, was stored and read: the second `put` is told that it was there. One without its metadata can be read by nobody,
   and is put anew.
6. A key's segments that a file name cannot be are percent-encoded, so no key leads out of its bucket.
"""

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import re
import stat
import threading
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbound.clients import Body, Listed, StoredObject, whole
from inbound.clients.disk import (
    directory,
    disk_errors,
    failure_of,
    json_of,
    locked,
    sync,
    sync_everything,
    top_of_hierarchies,
    write,
)
from inbound.clients.reasons import BUCKET_MISSING, DISK, NAME_REFUSED, OBJECT_MISSING, TOO_LARGE
from inbound.clients.redo import Record, RedoLog, left_behind
from inbound.clients.shelf import beside, listed, segment
from inbound.errors import Failure, PermanentFailure, TemporaryFailure
from inbound.offload import aside

log = logging.getLogger(__name__)

ABANDONED_SECONDS = 86_400  # a half-written object that old has no writer any more
SETTLE_SECONDS = 2.0  # after which files are synced and their log dropped
LARGEST_LOG = 64 * 1024 * 1024  # octets; then it is not waited for
LARGE = 512 * 1024  # octets of an object that is not worth writing twice
LONGEST_OBJECT = 128 * 1024 * 1024  # octets that `get` takes into memory
PIECE = 1024 * 1024  # octets of a large object that are made at a time
OFTEN = 1000  # tries to get an object into a directory that a consumer removes
MOST_AT_ONCE = 64  # puts that are written together
PAGE = 1000  # objects that are listed in one go

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")


@dataclass(slots=True, kw_only=True, eq=False)
class _Put:
    """One object on its way."""

    bucket: str
    key: str
    path: str
    body: bytes | Body
    metadata: bytes
    replaces: bool = False  # whatever is there
    was_there: bool = False  # when it was looked for, though not to be read, so it is not in the log
    outcome: bool | Failure = False

    def record(self) -> Record:
        """For the log; what is made piece by piece is made once, and written from here to its place too."""
        self.body = body = whole(self.body)
        head = [self.bucket, self.key, self.metadata.decode("utf-8"), *([True] if self.replaces else [])]
        return Record(when=time.time_ns(), head=json_of(head), body=body)


class Buckets:
    """All buckets under one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._redo = RedoLog(root / ".log")
        self._writing = threading.Lock()  # one commit at a time, and none while the log changes
        self._waiting: list[tuple[_Put, asyncio.Future[bool]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._committing = self._settling = False
        self._writer, self._numbers = uuid.uuid4(), itertools.count()  # counting is one step also between threads

    async def put(
        self, bucket: str, key: str, body: bytes | Body, metadata: Mapping[str, str], *, replaces: bool = False
    ) -> bool:
        """Store unless something is there already, or in its stead. Raises Failure."""
        path = self._path(bucket, key)
        put = _Put(bucket=bucket, key=key, path=path, body=body, metadata=json_of(metadata), replaces=replaces)
        if len(body) > LARGE:
            return await aside(self._put_by_itself, put)
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((put, waiter))
        if not self._committing:
            self._committing = True
            self._start(self._commit_what_waits())
        try:
            return await waiter
        finally:
            del put, waiter  # a failure would keep this frame, and this frame the failure

    async def get(self, bucket: str, key: str, limit: int = LONGEST_OBJECT) -> StoredObject:
        """Fetch an object whole. Raises Failure, also where it has more octets than `limit`."""
        return await aside(self._get, bucket, key, limit)

    async def list_buckets(self) -> tuple[str, ...]:
        """The names of the buckets there are. Raises Failure."""
        return await aside(self._list_buckets)

    async def list_objects(self, bucket: str, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """The objects whose keys begin with `prefix`, in the order of their keys, from behind `after`. Raises Failure."""
        found = await aside(self._list, bucket, prefix)
        while page := await aside(_page, found):
            for one in page:
                if one.key > after:
                    yield one

    async def delete_object(self, bucket: str, key: str) -> None:
        """Remove an object; one that is not there is removed already. Raises Failure."""
        await aside(self._delete, bucket, key)

    async def recover(self) -> None:
        """Play back what dead processes left in their logs. Raises Failure."""
        await aside(self._play_back)

    async def sweep(self) -> None:
        """Remove what writers left half-written that died long ago."""
        await aside(self._sweep)

    async def close(self) -> None:
        """End what is under way and sync everything."""
        while self._committing:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tuple(self._tasks):
            task.cancel()
        await aside(self._settle)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _commit_what_waits(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                try:
                    await aside(self._commit, [put for put, _ in batch])
                except Exception as error:
                    log.exception("a commit broke")
                    for put, _ in batch:
                        put.outcome = TemporaryFailure(DISK, type(error).__name__)
                for put, waiter in batch:
                    _tell(waiter, put.outcome)
        finally:
            self._committing = False
        if not self._settling:
            self._settling = True
            self._start(self._settle_soon())

    async def _settle_soon(self) -> None:
        try:
            if self._redo.size < LARGEST_LOG:
                await asyncio.sleep(SETTLE_SECONDS)
            await aside(self._settle)
        except Failure:
            log.exception("files could not be synced, their log is kept")
        finally:
            self._settling = False

    # In a thread

    def _commit(self, puts: Sequence[_Put]) -> None:
        """Make them durable, then give each its place. Every put has an outcome after this."""
        with self._writing:
            puts = [put for put in puts if not _is_done(put)]
            new = [put for put in puts if not put.was_there]
            try:
                if new:
                    self._make_root()
                    self._redo.append([put.record() for put in new])
            except OSError as error:
                for put in new:
                    put.outcome = failure_of(error)
                puts = [put for put in puts if put not in new]
            for bucket in dict.fromkeys(put.bucket for put in puts):
                self._place(bucket, [put for put in puts if put.bucket == bucket])
            with contextlib.suppress(OSError):  # then the log has to be read as if they had no places yet
                self._redo.mark()

    def _make_root(self) -> None:
        if not os.path.isdir(self._root):
            directory(self._root)
            top_of_hierarchies(self._root)

    def _place(self, bucket: str, puts: Sequence[_Put]) -> None:
        try:
            self._make_parts(bucket)
            parts = [self._written(put, durably=False) for put in puts]
            with locked(f"{self._root}/{bucket}/.lock"):
                for put, part in zip(puts, parts, strict=True):
                    if part is not None:
                        put.outcome = _placed(put, part, durably=False)
        except OSError as error:
            for put in puts:
                put.outcome = failure_of(error)

    def _make_parts(self, bucket: str) -> None:
        if not os.path.isdir(parts := f"{self._root}/{bucket}/.parts"):
            directory(Path(parts))

    def _written(self, put: _Put, *, durably: bool) -> str | None:
        """The object and its metadata under names that nobody looks at. None: the put has failed."""
        part = f"{self._root}/{put.bucket}/.parts/{self._writer}-{next(self._numbers)}"
        try:
            pieces = (put.body,) if isinstance(put.body, bytes) else put.body.pieces(PIECE)
            write(part, pieces, durably=durably)
            write(_beside_part(part), (put.metadata,), durably=durably)
        except OSError as error:
            _remove(part)
            put.outcome = failure_of(error)
            return None
        return part

    def _put_by_itself(self, put: _Put) -> bool:
        with disk_errors():
            if _had(put):
                return False
            self._make_root()
            self._make_parts(put.bucket)
            part = self._written(put, durably=True)
            if part is not None:
                with locked(f"{self._root}/{put.bucket}/.lock"):
                    put.outcome = _placed(put, part, durably=True)
            if isinstance(put.outcome, Failure):
                raise put.outcome.again()
            return put.outcome

    def _settle(self) -> None:
        """Sync everything that has its place, and drop the log that had it. Raises Failure."""
        with disk_errors():
            with self._writing:
                settled = self._redo.let_go()
            if settled is not None:
                sync_everything(self._root)
                settled.unlink()

    def _sweep(self) -> None:
        for part in self._root.glob("*/.parts/*"):
            with contextlib.suppress(OSError):
                if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                    part.unlink()

    def _play_back(self) -> None:
        place = self._root / ".log"
        if not place.is_dir():
            return
        with disk_errors(), self._writing, locked(place / ".lock"):
            left = left_behind(place)
            stays: dict[tuple[str, str], tuple[bool, int]] = {}  # of each object, the write that it keeps
            for record in (record for one in left for record in one.records()):
                name, rank = _rank(record)
                stays[name] = max(rank, stays.get(name, rank))
            for one in left:
                for record in one.records():
                    name, rank = _rank(record)
                    if stays[name] == rank:
                        self._do_again(record, may_be_broken=not one.same_boot)
            if left:
                sync_everything(self._root)
                log.warning("%d objects of processes that died are in their places", len(stays))
            for one in left:
                one.path.unlink()

    def _do_again(self, record: Record, *, may_be_broken: bool) -> None:
        bucket, key, metadata, *replaces = json.loads(record.head)
        path = self._path(bucket, key)
        put = _Put(bucket=bucket, key=key, path=path, body=record.body, metadata=metadata.encode("utf-8"))
        if (may_be_broken or replaces) and not _is_there(put):
            put.replaces = True
        if put.replaces or not os.path.exists(path):
            self._place(bucket, [put])
            if isinstance(put.outcome, Failure):
                log.error("%s/%s of a process that died: %s", bucket, key, put.outcome)

    def _get(self, bucket: str, key: str, limit: int) -> StoredObject:
        path = Path(self._path(bucket, key))
        with disk_errors():
            self._must_exist(bucket)
            try:
                if (size := path.stat().st_size) > limit:
                    raise PermanentFailure(TOO_LARGE, f"{bucket}/{key} has {size} octets")
                body = path.read_bytes()
                metadata = json.loads(Path(beside(path)).read_bytes())
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise PermanentFailure(OBJECT_MISSING, f"{bucket}/{key}") from error
        return StoredObject(body=body, metadata=metadata)

    def _list_buckets(self) -> tuple[str, ...]:
        with disk_errors():
            found = sorted(self._root.iterdir()) if self._root.is_dir() else []
            return tuple(path.name for path in found if path.is_dir() and _BUCKET.fullmatch(path.name))

    def _list(self, bucket: str, prefix: str) -> Iterator[Listed]:
        self._must_exist(bucket)
        return listed(self._root / bucket, prefix)

    def _delete(self, bucket: str, key: str) -> None:
        """The directories above it stay: another object may be on its way there."""
        path = self._path(bucket, key)
        self._must_exist(bucket)
        with disk_errors(), locked(f"{self._root}/{bucket}/.lock"):
            for one in (path, beside(path)) if os.path.isfile(path) else ():
                _unlink(one)
                sync(os.path.dirname(path))

    def _must_exist(self, bucket: str) -> None:
        if not _BUCKET.fullmatch(bucket):
            raise PermanentFailure(NAME_REFUSED, f"{bucket!r} is no bucket name")
        if not (self._root / bucket).is_dir():
            raise PermanentFailure(BUCKET_MISSING, bucket)

    def _path(self, bucket: str, key: str) -> str:
        if not _BUCKET.fullmatch(bucket):
            raise PermanentFailure(NAME_REFUSED, f"{bucket!r} is no bucket name")
        if not key or len(key.encode("utf-8", "replace")) > 1024:  # noqa: PLR2004 - as S3
            raise PermanentFailure(NAME_REFUSED, f"a key of {len(key)} characters")
        return f"{self._root}/{bucket}/{'/'.join(map(segment, key.split('/')))}"


def _page(found: Iterator[Listed]) -> list[Listed]:
    with disk_errors():
        return list(itertools.islice(found, PAGE))


def _tell(waiter: asyncio.Future[bool], outcome: bool | Failure) -> None:
    if waiter.done():  # who waited has given up
        return
    if isinstance(outcome, Failure):
        waiter.set_exception(outcome)
    else:
        waiter.set_result(outcome)


def _rank(record: Record) -> tuple[tuple[str, str], tuple[bool, int]]:
    """Whose record it is, and what makes it the one that counts: the last that replaces, else the first of all."""
    bucket, key, _, *replaces = json.loads(record.head)
    return (bucket, key), (bool(replaces), record.when if replaces else -record.when)


def _had(put: _Put) -> bool:
    """Look whether it is there already, and on the disk: then there is nothing to be done."""
    put.was_there = not put.replaces and os.path.exists(put.path)
    return put.was_there and _is_kept(put.path)


def _is_done(put: _Put) -> bool:
    """The put has its outcome without being written."""
    try:
        return _had(put)
    except OSError as error:
        put.outcome = failure_of(error)
        return True


def _placed(put: _Put, part: str, *, durably: bool) -> bool | Failure:
    """Give a written object its place, under the bucket's lock. False: another one has it, and is on the disk by now."""
    path = put.path
    try:
        found = _mode(path)
        if stat.S_ISDIR(found):
            raise IsADirectoryError(errno.EISDIR, "keys below it are taken", path)
        if found and not put.replaces and _is_kept(path):
            _remove(part)
            return False
        if put.was_there or (found and not put.replaces):
            for written in (part, _beside_part(part)):
                sync(written)  # it is in no log
            durably = True
        for piece, place in ((_beside_part(part), beside(path)), (part, path)):
            _rename(piece, place)
            if durably:
                _sync_names(Path(path).parent, len(put.key.split("/")))
    except OSError as error:
        _remove(part)
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


def _rename(part: str, path: str) -> None:
    """Into its directory, made when it is not there; a consumer may remove it again as long as it is empty."""
    for _ in range(OFTEN):
        try:
            os.replace(part, path)
        except FileNotFoundError:
            for above in reversed([one for one in Path(path).parents if not one.exists()]):
                with contextlib.suppress(FileNotFoundError, FileExistsError):
                    above.mkdir(mode=0o700)
        else:
            return
    os.replace(part, path)


def _sync_names(place: Path, depth: int) -> None:
    """The names in a directory, and in those above it that may be new. What a consumer has removed needs no place."""
    for one in (place, *place.parents)[:depth]:
        with contextlib.suppress(FileNotFoundError):
            sync(one)


def _beside_part(part: str) -> str:
    return part + ".json"


def _remove(part: str) -> None:
    for path in (part, _beside_part(part)):
        _unlink(path)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _is_there(put: _Put) -> bool:
    """The object and its metadata lie in their places, octet for octet."""
    try:
        return Path(put.path).read_bytes() == put.body and Path(beside(put.path)).read_bytes() == put.metadata
    except OSError:
        return False
