"""What was deleted while a redo log may still have it, so that no log brings it back.

One file for each such object, `.log/NANOSECONDS-UUID.gone`, on the disk before the object goes. It is forgotten once every
log that there is began after it.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from inbound.clients.disk import json_of, replace
from inbound.clients.redo import Left

Name = tuple[str, str]  # bucket and key


def note(place: Path, name: Name) -> None:
    """Say durably that an object is about to be deleted, if a log is there. Raises OSError."""
    if next(place.glob("*.log"), None) is not None:
        replace(place / f".{uuid.uuid4()}", place / f"{time.time_ns()}-{uuid.uuid4()}.gone", json_of(name))


def noted(place: Path) -> dict[Name, int]:
    """What was deleted, and when (nanoseconds since the epoch), the last time. Raises OSError."""
    found: dict[Name, int] = {}
    for when, path in _files(place):
        with contextlib.suppress(FileNotFoundError):
            bucket, key = json.loads(path.read_bytes())
            found[bucket, key] = max(when, found.get((bucket, key), 0))
    return found


def forget(place: Path) -> None:
    """Remove what no log can bring back. Hold the lock of the place. Raises OSError."""
    firsts = (next(Left(path=path, same_boot=True).records(), None) for path in place.glob("*.log"))
    oldest = min((first.when if first else 0 for first in firsts), default=time.time_ns())
    for when, path in _files(place):
        if when < oldest:
            path.unlink(missing_ok=True)


def _files(place: Path) -> Iterator[tuple[int, Path]]:
    for path in place.glob("*.gone"):
        when = path.name.partition("-")[0]
        if when.isdecimal():
            yield int(when), path
