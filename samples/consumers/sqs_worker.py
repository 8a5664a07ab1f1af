"""A worker that takes mail from a queue, each message once: `python sqs_worker.py QUEUE_URL [aws | inbound.yaml]`.

The queue is filled by the `sqs` action, by a topic of an `s3` action, or by S3's own notifications. It hands messages out at
least once; what was done is written down in the same transaction as the work, so that a second time finds it done.
"""

import logging
import sqlite3
import sys
from collections.abc import Iterable
from typing import Any

import inbound

log = logging.getLogger("worker")


def work_off(messages: Iterable[Any], database: sqlite3.Connection) -> None:
    """Do the work of each message, and remember that it is done. What raises is handed out again by the queue."""
    database.execute("CREATE TABLE IF NOT EXISTS done (step TEXT PRIMARY KEY)")
    database.execute("CREATE TABLE IF NOT EXISTS tickets (author TEXT, subject TEXT, body TEXT)")
    for message in messages:
        step = " ".join((message.id, *message.provenance.recipients))
        with database:
            if database.execute("INSERT OR IGNORE INTO done VALUES (?)", (step,)).rowcount:
                author = message.from_[0].email if message.passed("dmarc") and message.from_ else ""
                database.execute("INSERT INTO tickets VALUES (?, ?, ?)", (author, message.subject, message.text))
                log.info("%s: %s", message.id, message.subject)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    queue, where = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "aws"  # noqa: PLR2004
    place: Any = {"cloud": "aws"} if where == "aws" else {"settings": where}
    work_off(inbound.consume_queue(queue, **place), sqlite3.connect("tickets.sqlite"))
