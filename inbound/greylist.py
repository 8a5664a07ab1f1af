"""Greylisting (RFC 6647): a first contact is asked to come again, which a mail server does and most bots do not.

1. What comes again is the recipient, the reverse-path, and who brings it: the client's network (/24 or /64, so that the hosts
   of one pool count as one) or, where SPF passes, the domain that answers for it, wherever its hosts are. Either will do.
2. `delay_seconds` are counted from the first try and never begin anew: a retry that is too early costs its sender nothing,
   and the first one after them is taken. A retry later than `retry_seconds` is a first contact again.
3. A message that is taken, and is neither spam nor a virus, makes its client's network and its SPF domain known: nothing of
   theirs waits again as long as they go on writing, and for `remember_days` afterwards.
4. The null reverse-path waits like any other: bounces lie in a queue too, and whoever asks back about one of our addresses
   with it asks again. TLS proves nothing. The operator's `allow` list comes first (`transaction`).
5. Only who would be taken otherwise is asked to come again, so unknown recipients fill nothing. Keys are digests of one size;
   a network has `PER_CLIENT` of them waiting, and all have `entries`: what would be forgotten first goes first.
6. If the file cannot be used, nobody waits. Losing its last seconds in a crash costs a sender one more retry.
"""

import asyncio
import hashlib
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from inbound.addresses import a_labels
from inbound.mail import Client, IPAddress
from inbound.offload import offload
from inbound.reply import Reply
from inbound.settings import Greylist as Settings
from inbound.sqlite import shared
from inbound.verdicts import SpfVerdict, Status, Verdicts

log = logging.getLogger(__name__)

DAY = 86_400.0
PER_CLIENT = 1000  # first contacts of one network or domain that wait at the same time
SWEPT_EVERY, SWEPT_AT_MOST = 256, 2048  # entries: so no sweep takes long, and more is swept than comes

_PREFIXES = {4: 24, 6: 64}  # RFC 6647 5: a retry may come from a neighbour


class Greylist:
    """Who must come again. `path` is one SQLite file, shared by all workers of a machine; `now` gives epoch seconds."""

    def __init__(self, settings: Settings, path: Path, *, now: Callable[[], float] = time.time) -> None:
        """Raises OSError or sqlite3.Error when the file cannot be used at all."""
        self._book = _Book(settings, path, now)

    async def answer(
        self, client: Client, mail_from: str, recipient: str, spf: "asyncio.Future[SpfVerdict]"
    ) -> Reply | None:
        """The reply that asks this client to come again with this recipient, or None: it need not."""
        network = _network(client.ip)
        try:
            if await offload(self._book.knows, (network,)):
                return None
            names = (network, *_domain(await spf))
            seconds = await offload(self._book.seconds_left, names, f"{mail_from}\0{recipient}".lower())
        except (sqlite3.Error, OSError):
            log.exception("the greylist cannot be used, nobody waits")
            return None
        return come_again(seconds) if seconds > 0 else None

    async def learn(self, client: Client, verdicts: Verdicts) -> None:
        """A message of this client was taken: unless it was a bad one, the client is known from now on."""
        if Status.FAIL in (verdicts.spam.status, verdicts.virus.status):
            return
        try:
            await offload(self._book.learn, (_network(client.ip), *_domain(verdicts.spf)))
        except (sqlite3.Error, OSError):
            log.exception("the greylist cannot be written")

    def close(self) -> None:
        """Close the file."""
        self._book.close()


def come_again(seconds: float) -> Reply:
    """What a first contact is told."""
    text = f"Greylisted: we do not know you yet, please try again in {math.ceil(seconds)} seconds"
    return Reply(451, "4.7.1", text, "greylisted")


def _network(ip: IPAddress) -> str:
    shift = ip.max_prefixlen - _PREFIXES[ip.version]
    return f"{ip.version}:{int(ip) >> shift:x}"


def _domain(spf: SpfVerdict) -> tuple[str, ...]:
    name = a_labels(spf.domain) if spf.result == "pass" else ""
    return (name,) if name else ()


class _Book:
    """What is remembered: digests, since when, and until when. All of it blocks, and is called from threads."""

    def __init__(self, settings: Settings, path: Path, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now
        self._lock = threading.Lock()
        self._since_sweep = 0
        self._connection = shared(
            path,
            # `who` is the network or domain that waits; empty for who is known or has come again
            "CREATE TABLE IF NOT EXISTS seen (key BLOB PRIMARY KEY, who BLOB, since REAL, until REAL) WITHOUT ROWID",
            "CREATE INDEX IF NOT EXISTS seen_until ON seen (until)",
            "CREATE INDEX IF NOT EXISTS seen_who ON seen (who, since) WHERE who <> x''",
        )

    def knows(self, names: Iterable[str]) -> bool:
        """One of them is known; it is remembered for longer then."""
        with self._lock:
            return self._knows(names)

    def seconds_left(self, names: tuple[str, ...], contact: str) -> float:
        """How long this contact has to wait yet; 0: it may come in. The first time it begins to wait."""
        keys = {_digest(name, contact): _digest(name) for name in names}
        with self._lock:
            if self._knows(names):
                return 0.0
            now = self._now()
            first = min([now, *(since for since, _ in map(self._row, keys) if since is not None)])
            left = self._settings.delay_seconds - (now - first)
            if left <= 0:
                self._remember(keys, first)
                return 0.0
            until = first + self._settings.retry_seconds
            for key, who in keys.items():
                self._write(key, who, first, until)
                self._since_sweep += 1
                self._keep_few(who)
            self._sweep()
            return left

    def learn(self, names: Iterable[str]) -> None:
        """They are known from now on."""
        with self._lock:
            self._remember(map(_digest, names), self._now())
            self._sweep()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _knows(self, names: Iterable[str]) -> bool:
        known = [(key, since) for key in map(_digest, names) for since, _ in (self._row(key),) if since is not None]
        for key, since in known:
            self._remember((key,), since)
        return bool(known)

    def _row(self, key: bytes) -> tuple[float | None, float]:
        """Since when and until when; None and 0 when it is not there any more."""
        row = self._connection.execute("SELECT since, until FROM seen WHERE key = ?", (key,)).fetchone()
        return row if row and row[1] > self._now() else (None, 0.0)

    def _remember(self, keys: Iterable[bytes], since: float) -> None:
        """For `remember_days` from now; written at most once a day."""
        until = self._now() + self._settings.remember_days * DAY
        for key in keys:
            if self._row(key)[1] < until - min(DAY, self._settings.remember_days * DAY / 2):
                self._write(key, b"", since, until)
                self._since_sweep += 1

    def _write(self, key: bytes, who: bytes, since: float, until: float) -> None:
        self._connection.execute(
            "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
            " SET who = excluded.who, since = excluded.since, until = excluded.until",
            (key, who, since, until),
        )

    def _keep_few(self, who: bytes) -> None:
        self._connection.execute(
            "DELETE FROM seen WHERE key IN (SELECT key FROM seen WHERE who = ? AND who <> x''"
            " ORDER BY since DESC LIMIT -1 OFFSET ?)",
            (who, PER_CLIENT),
        )

    def _sweep(self) -> None:
        """Forget what is over, and what is too much: what would be over first."""
        if self._since_sweep < SWEPT_EVERY:
            return
        self._since_sweep = 0
        delete = "DELETE FROM seen WHERE key IN (SELECT key FROM seen WHERE until <= ? ORDER BY until LIMIT ?)"
        self._connection.execute(delete, (self._now(), SWEPT_AT_MOST))
        (entries,) = self._connection.execute("SELECT COUNT(*) FROM seen").fetchone()
        if entries > self._settings.entries:
            self._connection.execute(delete, (math.inf, min(entries - self._settings.entries, SWEPT_AT_MOST)))


def _digest(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=16).digest()
