"""Queues in a directory: a message is a file, hidden from other consumers while one of them has it.

1. A message that is handed out gets a receipt and is hidden for a while; what is not deleted until then is handed out again.
   Receipt, time and count stand in a file beside it, written under the queue's lock, so that consumers may be many processes.
2. That file is not synced: when it is lost with the machine, the message is handed out once more, as it may always be.
3. A file that holds no message, as whoever else writes there may leave one, is put aside as `.NAME.broken`, and the log says so.
4. A FIFO queue (`….fifo`) hands out nothing behind a message that somebody has, as SQS does within one group.
"""

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inbound.clients import QueueMessage
from inbound.clients.disk import disk_errors, json_of, locked
from inbound.offload import aside

log = logging.getLogger(__name__)

PAUSE = 0.1  # seconds between two looks into an empty queue


class Queues:
    """All queues under one directory, for those who take messages out."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def receive(self, name: str, *, most: int, wait: float, hidden: float) -> tuple[QueueMessage, ...]:
        """Up to `most` messages, hidden for so many seconds; () when none has come within `wait`. Raises Failure."""
        until = time.monotonic() + wait
        while True:
            found = await aside(self._receive, self._root / name, most, hidden)
            left = until - time.monotonic()
            if found or left <= 0:
                return found
            await asyncio.sleep(min(PAUSE, left))

    async def delete(self, name: str, receipt: str) -> None:
        """Take a message out for good, unless it was handed to somebody else meanwhile. Raises Failure."""
        await aside(self._delete, self._root / name, receipt)

    async def hide(self, name: str, receipt: str, seconds: float) -> None:
        """Hide a message for so long from now, 0 to give it back; as `delete`. Raises Failure."""
        await aside(self._hide, self._root / name, receipt, seconds)

    # In a thread

    def _receive(self, place: Path, most: int, hidden: float) -> tuple[QueueMessage, ...]:
        if not place.is_dir():
            return ()
        with disk_errors(), locked(place / ".lock"):
            found: list[QueueMessage] = []
            for path, state in _messages(place):
                if len(found) == most:
                    break
                if state.get("until", 0) > time.time():
                    if place.name.endswith(".fifo"):
                        break
                    continue
                document = _document(path)
                if not isinstance(document.get("MessageId"), str) or not isinstance(document.get("Body"), str):
                    log.error("%s holds no message", path)
                    path.rename(path.with_name(f".{path.name}.broken"))
                    continue
                times, receipt = state.get("times", 0) + 1, f"{uuid.uuid4()}/{path.name}"
                _write(path, {"until": time.time() + hidden, "receipt": receipt, "times": times})
                found.append(
                    QueueMessage(id=document["MessageId"], body=document["Body"], receipt=receipt, times=times)
                )
            return tuple(found)

    def _delete(self, place: Path, receipt: str) -> None:
        with disk_errors(), locked(place / ".lock"):
            path = _held(place, receipt)
            if path is not None:
                path.unlink()
                _beside(path).unlink()

    def _hide(self, place: Path, receipt: str, seconds: float) -> None:
        with disk_errors(), locked(place / ".lock"):
            path = _held(place, receipt)
            if path is not None:
                _write(path, {**_state(path), "until": time.time() + seconds})


def _messages(place: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The messages in the order in which they came, each with what is known of it. States without a message are swept."""
    names = {path.name: path for path in place.iterdir()}
    for name, path in names.items():
        if name.startswith(".") and name.endswith(".state") and name[1:].removesuffix(".state") not in names:
            path.unlink(missing_ok=True)
    found = [path for name, path in names.items() if name.endswith(".json") and not name.startswith(".")]
    fifo = place.name.endswith(".fifo")  # their files are named by what they are, others' by when they came
    for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns if fifo else 0, path.name)):
        yield path, _state(path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.state")


def _state(path: Path) -> dict[str, Any]:
    """When it is seen again (`until`, seconds since the epoch), who has it, how often it was handed out."""
    with contextlib.suppress(FileNotFoundError):
        return _document(_beside(path))
    return {}


def _document(path: Path) -> dict[str, Any]:
    """The JSON object in a file, {} where there is none in it. Raises OSError."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _write(path: Path, state: dict[str, Any]) -> None:
    part = path.with_name(f".{uuid.uuid4()}")
    part.write_bytes(json_of(state))
    part.replace(_beside(path))


def _held(place: Path, receipt: str) -> Path | None:
    """The message, if this is still its receipt."""
    path = place / receipt.partition("/")[2].replace("/", "")
    return path if path.is_file() and _state(path).get("receipt") == receipt else None
