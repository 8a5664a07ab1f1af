"""SQLite files that all workers of a machine share: opened alike everywhere, written in transactions.

They are in WAL mode: who reads waits for nobody, who writes waits for another writer, for BUSY_SECONDS at most.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

BUSY_SECONDS = 5.0


def shared(path: Path, *schema: str, durable: bool = False) -> sqlite3.Connection:
    """Open a file, making it and its directory if need be. Threads may share the connection, not at the same time.

    `durable`: what was committed is on the disk; otherwise the last of it may be lost with the machine, never with the
    process. Raises OSError or sqlite3.Error when the file cannot be used at all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    for statement in ("PRAGMA journal_mode=WAL", f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}", *schema):
        connection.execute(statement)
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
    """All of it is written, or nothing. Raises sqlite3.Error."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        try:
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
