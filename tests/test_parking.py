"""What was done before a deferral is known to the retry, also after a crash; and forgotten after five days."""

from pathlib import Path

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
