"""What was done before a deferral is known to the retry, also after a crash; and forgotten after five days."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inbound.parking import KEPT_SECONDS, SqliteLedger


def test_what_was_done_is_known_to_another_process(tmp_path: Path) -> None:
    one, other = SqliteLedger(tmp_path / "ledger.sqlite"), SqliteLedger(tmp_path / "ledger.sqlite")
    one.remember("id", {"store/0/s3/x": "CONTINUE", "call/0/lambda/y": "STOP_RULE"})
    assert other.done("id") == {"store/0/s3/x": "CONTINUE", "call/0/lambda/y": "STOP_RULE"}
    assert other.done("another id") == {}
    one.close()
    other.close()


def test_what_was_written_first_stays(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    ledger.remember("id", {"a": "STOP_RULE"})
    ledger.remember("id", {"a": "CONTINUE", "b": "CONTINUE"})
    assert ledger.done("id") == {"a": "STOP_RULE", "b": "CONTINUE"}
    ledger.close()


def test_nothing_is_kept_longer_than_a_sender_tries(tmp_path: Path) -> None:
    clock = [1_000_000.0]
    ledger = SqliteLedger(tmp_path / "ledger.sqlite", now=lambda: clock[0])
    ledger.remember("old", {"a": "CONTINUE"})
    clock[0] += KEPT_SECONDS + 1
    ledger.remember("new", {"a": "CONTINUE"})
    assert ledger.done("old") == {}
    assert ledger.done("new") == {"a": "CONTINUE"}
    ledger.close()


def test_a_look_up_waits_for_nobody_who_writes(tmp_path: Path) -> None:
    """It is done on the event loop; writing waits for the disk, and for other workers."""
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    ledger.remember("id", {"a": "CONTINUE"})
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(ledger.remember, "id", {"b": "CONTINUE"})
        while not ledger._lock.locked():
            assert not writing.done()
        assert ledger.done("id") == {"a": "CONTINUE"}
        assert not writing.done()
        other.execute("ROLLBACK")
    assert ledger.done("id") == {"a": "CONTINUE", "b": "CONTINUE"}
    other.close()
    ledger.close()


def test_what_cannot_be_written_whole_is_not_written(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    with pytest.raises(sqlite3.Error):
        ledger.remember("id", {"a": "CONTINUE", "b": object()})  # type: ignore[dict-item]
    assert ledger.done("id") == {}
    ledger.remember("id", {"a": "CONTINUE"})
    assert ledger.done("id") == {"a": "CONTINUE"}
    ledger.close()
