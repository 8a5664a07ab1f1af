"""The rows of each domain and day in one SQLite file, which all workers of a machine share."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from inbound.reports import Row, Signature
from inbound.sqlite import shared, transaction

FILE = "reports.sqlite"  # in data_dir
MOST_ROWS = 100_000  # different ones of one day; a sender can make a new one with each message
MOST_POLICIES = 20_000  # domains of one day

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS rows (
        day INTEGER, domain TEXT, digest BLOB, facts TEXT, count INTEGER, PRIMARY KEY (day, domain, digest)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS policies (
        day INTEGER, domain TEXT, record TEXT, PRIMARY KEY (day, domain)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS sent (
        day INTEGER, domain TEXT, address TEXT, PRIMARY KEY (day, domain, address)
    ) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One domain's day: messages in all, those that passed DMARC, those refused or put apart for it, and how many clients."""

    day: int
    domain: str
    record: str
    messages: int
    passed: int
    quarantined: int
    rejected: int
    sources: int


class Store:
    """Open it, making it if need be. Raises sqlite3.Error or OSError. `keep_days` is how long a day stays."""

    def __init__(self, path: Path, *, keep_days: int = 30) -> None:
        self._keep_days = keep_days
        self._swept = 0  # the last day on which old ones were removed
        self._lock = threading.Lock()
        self._connection = shared(path, *_SCHEMA)

    def add(self, rows: Mapping[Row, int], policies: Mapping[tuple[int, str], str]) -> int:
        """Add counts, and the policies seen last. Blocks: call it from a thread. Gives the messages there was no room for."""
        with self._lock, transaction(self._connection) as cursor:
            return self._add(cursor, rows, policies)

    def _add(self, cursor: sqlite3.Cursor, rows: Mapping[Row, int], policies: Mapping[tuple[int, str], str]) -> int:
        left_out = 0
        days = {row.day for row in rows}
        room = {day: MOST_ROWS - _count(cursor, "rows", day) for day in days}
        domains = {day: MOST_POLICIES - _count(cursor, "policies", day) for day in days}
        known = set()
        for (day, domain), record in policies.items():
            change = cursor.execute(
                "UPDATE policies SET record = ? WHERE day = ? AND domain = ?", (record, day, domain)
            )
            if not change.rowcount and domains[day] > 0:
                cursor.execute("INSERT INTO policies VALUES (?, ?, ?)", (day, domain, record))
                domains[day] -= 1
            elif not change.rowcount:
                continue
            known.add((day, domain))
        for row, count in rows.items():
            facts = _facts(row)
            key = (row.day, row.domain, hashlib.sha256(facts.encode()).digest()[:16])
            change = cursor.execute(
                "UPDATE rows SET count = count + ? WHERE day = ? AND domain = ? AND digest = ?", (count, *key)
            )
            if change.rowcount:
                continue
            if room[row.day] <= 0 or (row.day, row.domain) not in known:
                left_out += count
                continue
            cursor.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", (*key, facts, count))
            room[row.day] -= 1
        self._sweep(cursor, max(days))
        return left_out

    def _sweep(self, cursor: sqlite3.Cursor, today: int) -> None:
        if today <= self._swept:
            return
        for table in ("rows", "policies", "sent"):
            cursor.execute(f"DELETE FROM {table} WHERE day <= ?", (today - self._keep_days,))  # noqa: S608 - a name of ours
        self._swept = today

    def summaries(self, since: int, until: int) -> Iterator[Summary]:
        """Each domain's days between two days, both included, in order."""
        query = """
            SELECT day, domain, record, sum(count),
                sum(count * (json_extract(facts, '$.dkim') OR json_extract(facts, '$.spf'))),
                sum(count * (json_extract(facts, '$.disposition') = 'quarantine')),
                sum(count * (json_extract(facts, '$.disposition') = 'reject')),
                count(DISTINCT json_extract(facts, '$.source_ip'))
            FROM rows JOIN policies USING (day, domain) WHERE day BETWEEN ? AND ? GROUP BY day, domain ORDER BY day, domain
        """
        for day, domain, record, messages, passed, quarantined, rejected, sources in self._connection.execute(
            query, (since, until)
        ):
            yield Summary(
                day=day,
                domain=domain,
                record=record,
                messages=messages,
                passed=passed,
                quarantined=quarantined,
                rejected=rejected,
                sources=sources,
            )

    def policies(self, since: int, until: int) -> dict[str, str]:
        """Every domain of the days, with the record seen last."""
        query = "SELECT domain, record FROM policies WHERE day BETWEEN ? AND ? ORDER BY domain, day"
        return dict(self._connection.execute(query, (since, until)).fetchall())

    def rows(self, domain: str, since: int, until: int) -> Iterator[tuple[Row, int]]:
        """One domain's rows over the days, most messages first, alike ones of different days together."""
        query = """
            SELECT facts, sum(count) AS messages FROM rows WHERE day BETWEEN ? AND ? AND domain = ?
            GROUP BY digest ORDER BY messages DESC, digest
        """
        for facts, count in self._connection.execute(query, (since, until, domain)):
            found = json.loads(facts)
            found["signatures"] = tuple(Signature(**one) for one in found["signatures"])
            yield Row(day=since, domain=domain, **found), count

    def sent(self, day: int, domain: str) -> frozenset[str]:
        """The addresses that have the day's report."""
        found = self._connection.execute("SELECT address FROM sent WHERE day = ? AND domain = ?", (day, domain))
        return frozenset(address for (address,) in found)

    def was_sent(self, day: int, domain: str, address: str) -> None:
        """Remember who has the day's report."""
        with self._lock:
            self._connection.execute("PRAGMA synchronous=FULL")  # or a crash would have it sent again
            self._connection.execute("INSERT OR IGNORE INTO sent VALUES (?, ?, ?)", (day, domain, address))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def _count(cursor: sqlite3.Cursor, table: str, day: int) -> int:
    count: int = cursor.execute(f"SELECT count(*) FROM {table} WHERE day = ?", (day,)).fetchone()[0]  # noqa: S608
    return count


def _facts(row: Row) -> str:
    facts = asdict(row)
    del facts["day"], facts["domain"]
    return json.dumps(facts, separators=(",", ":"), sort_keys=True)
