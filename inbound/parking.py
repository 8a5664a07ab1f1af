"""What could not be finished inside the SMTP session.

1. A message whose action failed is parked: message and remaining actions written durably, answered 250, tried again.
   `NoParking` is the parking there is so far: it takes nothing, so the message is deferred (451) and stays in the
   sender's queue, which is durable too.
2. Before a deferral, what was done already is written down (`Ledger`), so that the sender's retry, which comes under the
   same message id, skips it. When all goes well nothing is written, but for what must not even be done twice for a sender that
   missed our answer (`deliver`).
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from inbound.mail import Mail
from inbound.sqlite import shared, transaction

SETTLED_NS = 50_000_000  # a file's time is as coarse as the kernel's tick, at most 10 ms
KEPT_SECONDS = 5 * 86_400  # RFC 5321 4.5.4.1: a sender gives up after 4 to 5 days


class Parking(Protocol):
    """Where a message goes whose action failed and may be tried again."""

    async def park(self, mail: Mail, remaining: Mapping[str, tuple[str, ...]]) -> bool:
        """Write message and remaining steps (rule name to recipients) durably. False: it cannot, so defer."""
        ...


class NoParking:
    """Takes nothing: the sender's queue keeps the message."""

    async def park(self, mail: Mail, remaining: Mapping[str, tuple[str, ...]]) -> bool:  # noqa: ARG002
        """Never parks."""
        return False


class Ledger(Protocol):
    """What was done for a message before it was deferred: action keys, and how the walk went on behind each."""

    def done(self, message_id: str) -> Mapping[str, str]:
        """The actions done already under this id; empty for nearly every message."""
        ...

    def remember(self, message_id: str, done: Mapping[str, str]) -> None:
        """Write them down durably. Blocks: call it from a thread. Raises sqlite3.Error or OSError when it cannot."""
        ...


class SqliteLedger:
    """The ledger in one SQLite file, shared by all workers of a machine.

    A look-up has a connection of its own: on the event loop nobody waits for what a thread is writing.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self._files = (str(path), f"{path}-wal")
        self._empty_at: tuple[tuple[int, int], ...] = ()
        self._now = now
        self._lock = threading.Lock()
        self._writing = shared(
            path,
            "CREATE TABLE IF NOT EXISTS done (message_id TEXT, action TEXT, onward TEXT, at REAL,"
            " PRIMARY KEY (message_id, action)) WITHOUT ROWID",
            "CREATE INDEX IF NOT EXISTS done_at ON done (at)",
            durable=True,
        )
        self._reading = shared(path)

    def done(self, message_id: str) -> Mapping[str, str]:
        """The actions done already under this id. Not for several threads at once."""
        if self._is_empty():
            return {}
        rows = self._reading.execute("SELECT action, onward FROM done WHERE message_id = ?", (message_id,))
        return dict(rows.fetchall())

    def _is_empty(self) -> bool:
        """Nothing stands in it, as far as its files show: they are looked into only when they have changed."""
        file, log = self._files
        state = (_state(file), _state(log))
        if state == self._empty_at:
            return True
        empty = self._reading.execute("SELECT 1 FROM done LIMIT 1").fetchone() is None
        settled = time.time_ns() - max(changed for changed, _ in state) > SETTLED_NS
        self._empty_at = state if empty and settled else ()
        return empty

    def remember(self, message_id: str, done: Mapping[str, str]) -> None:
        """Write them down, and forget what is older than a sender's patience."""
        now = self._now()
        with self._lock, transaction(self._writing) as cursor:
            cursor.executemany(
                "INSERT OR IGNORE INTO done VALUES (?, ?, ?, ?)",
                [(message_id, action, onward, now) for action, onward in done.items()],
            )
            cursor.execute("DELETE FROM done WHERE at < ?", (now - KEPT_SECONDS,))

    def close(self) -> None:
        """Close the file."""
        self._reading.close()
        with self._lock:
            self._writing.close()


def _state(path: str) -> tuple[int, int]:
    """When a file was last written, in nanoseconds, and how long it is; zeros when it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116 - for every message, and twice as fast
    except FileNotFoundError:
        return 0, 0
    return status.st_mtime_ns, status.st_size
