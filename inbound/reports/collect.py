"""Collect: what a message adds to the reports, counted in memory and written down in batches by one writer.

The path of a message meets `note` only, which takes some microseconds and cannot fail. What is in memory when a process dies
at once (at most a few seconds' worth) is lost: a report is a statistic, no promise.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from typing import Self

from inbound.addresses import a_labels
from inbound.offload import offload
from inbound.record import Record
from inbound.reports import DAY, NAME, Disposition, Override, Row, Signature
from inbound.reports.store import Store
from inbound.verdicts import DkimSignature, DmarcVerdict, Status

log = logging.getLogger(__name__)

PAUSE = 5.0  # seconds between two batches
BATCH = 1000  # different rows at which a batch does not wait longer
MOST_WAITING = 10_000  # different rows in memory; about 10 MB
SIGNATURES = 10  # of one message; RFC 9990 allows 100
LONGEST_SELECTOR = 253


class Collector:
    """Counts rows and has `store` write them. `now` gives seconds since the epoch. An async context."""

    def __init__(self, store: Store, *, now: Callable[[], float] = time.time, pause: float = PAUSE) -> None:
        self.dropped = 0
        self._store = store
        self._now = now
        self._pause = pause
        self._rows: Counter[Row] = Counter()
        self._policies: dict[tuple[int, str], str] = {}
        self._full = asyncio.Event()
        self._turn = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None

    def note(self, record: Record) -> None:
        """Count one message. Mail that was deferred comes again, and is counted then."""
        row = row_of(record, day=int(self._now() // DAY))
        if row is None:
            return
        if row not in self._rows and len(self._rows) >= MOST_WAITING:
            self.dropped += 1
            return
        self._rows[row] += 1
        self._policies[row.day, row.domain] = record.verdicts.dmarc.record
        if len(self._rows) >= BATCH:
            self._full.set()

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._writing:
            self._writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writing
        await self.flush()
        self._store.close()

    async def flush(self) -> None:
        """Write down what is in memory; when that fails, it stays there."""
        async with self._turn:
            await self._flush()

    async def _flush(self) -> None:
        rows, policies, dropped = self._rows, self._policies, self.dropped
        self._rows, self._policies, self.dropped = Counter(), {}, 0
        self._full.clear()
        if dropped:
            log.warning("reports: %d messages are not counted, there were too many kinds of them at once", dropped)
        if not rows:
            return
        try:
            left_out = await offload(self._store.add, rows, policies)
        except sqlite3.Error as error:
            log.error("reports: cannot be written, and wait in memory: %s", error)  # noqa: TRY400 - it says it all
            self._rows += rows
            self._policies = policies | self._policies
        else:
            if left_out:
                log.warning("reports: %d messages are not counted, a day has no room for more kinds of them", left_out)

    async def _write(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._full.wait()
            self._full.clear()
            await asyncio.shield(self.flush())
            await asyncio.sleep(min(self._pause, 1.0))


def row_of(record: Record, *, day: int) -> Row | None:
    """What the message adds to its author domain's report; None when there is no policy, or none that could be evaluated."""
    dmarc, spf = record.verdicts.dmarc, record.verdicts.spf
    if not dmarc.policy or not NAME.fullmatch(dmarc.record_domain) or 400 <= record.reply.code < 500:  # noqa: PLR2004
        return None
    disposition, override = _outcome(record, dmarc)
    ip = record.client.ip
    counts = spf.status is not Status.DISABLED
    return Row(
        day=day,
        domain=dmarc.record_domain,
        source_ip=str(getattr(ip, "ipv4_mapped", None) or ip),
        disposition=disposition,
        dkim="dkim" in dmarc.aligned,
        spf="spf" in dmarc.aligned,
        override=override,
        header_from=dmarc.from_domain,
        envelope_from=a_labels(record.mail_from.rpartition("@")[2]) if record.mail_from else "",
        signatures=_signatures(record.verdicts.dkim.signatures, dmarc.from_domain),
        spf_domain=a_labels(spf.domain) if counts else "",
        spf_result=spf.result,
    )


def _outcome(record: Record, dmarc: DmarcVerdict) -> tuple[Disposition, Override | None]:
    """RFC 9990's disposition: what was done because of DMARC, and why that is not the published policy.

    What the rules would have done in any case (malware, spam) is not DMARC's doing, whatever the policy asks for.
    """
    if dmarc.result == "pass":
        return ("none" if dmarc.policy == "none" else "pass"), None
    disposition: Disposition = "none"
    if record.by_dmarc and record.reply.code >= 500:  # noqa: PLR2004
        disposition = "reject"
    elif record.by_dmarc and any(ran.action == "quarantine" for ran in record.ran):
        disposition = "quarantine"
    if disposition == dmarc.policy:
        return disposition, None
    if disposition == dmarc.applied_policy:
        return disposition, "policy_test_mode"
    return disposition, "trusted_forwarder" if record.verdicts.upstream.result == "pass" else "local_policy"


def _signatures(signatures: tuple[DkimSignature, ...], author: str) -> tuple[Signature, ...]:
    """In RFC 9990's order of preference: passed and aligned, strictly first; passed; the others."""

    def rank(signature: DkimSignature) -> tuple[bool, bool, bool]:
        return signature.result != "pass", signature.domain != author, not signature.aligned

    return tuple(
        Signature(domain=a_labels(one.domain), selector=one.selector, result=one.result)
        for one in sorted(signatures, key=rank)
        if a_labels(one.domain) and _is_selector(one.selector)
    )[:SIGNATURES]


def _is_selector(text: str) -> bool:
    return 0 < len(text) <= LONGEST_SELECTOR and text.isascii() and text.isprintable()
