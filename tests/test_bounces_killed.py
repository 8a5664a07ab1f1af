"""A process killed between the actions and the 250: the sender comes again, nothing is done twice, nothing is left untold."""

import asyncio
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.harness import DNS
from tests.test_bounces import BOTH, RULES
from tests.test_workers import served

HERE = {**DNS, "sender.example": {"TXT": ["v=spf1 ip4:127.0.0.1 -all"]}}


def test_a_worker_killed_before_the_sender_was_told_leaves_it_to_the_next_try(tmp_path: Path) -> None:
    """The notification waits for the file that counts them, which is locked; by then all else is done and written down."""

    async def story() -> None:
        settings = "split_recipients: no\ndsn: {through: outbox}\n"
        async with served(tmp_path, rules=RULES, settings=settings, dns=HERE) as server:
            data = tmp_path / "data"
            with closing(sqlite3.connect(data / "dsn.sqlite", isolation_level=None)) as counted:
                counted.execute("BEGIN EXCLUSIVE")
                trying = asyncio.create_task(server.send_to(*BOTH))
                with closing(sqlite3.connect(data / "ledger.sqlite")) as ledger:
                    async with asyncio.timeout(10):
                        while ledger.execute("SELECT COUNT(*) FROM done").fetchone() != (3,):  # noqa: ASYNC110
                            await asyncio.sleep(0.01)
                for worker in server.workers:
                    os.kill(worker, signal.SIGKILL)
                assert (await trying).code == 0
                counted.execute("ROLLBACK")
            await server.until_said("ended by SIGKILL", 2)
            await server.until_workers(2)
            assert list((data / "outbox").glob("*")) == []
            notices = len(list((data / "sns" / "mail").glob("*.json")))
            for _ in range(2):
                assert (await server.send_to(*BOTH)).code == 250
            assert len(list((data / "outbox").glob("*.eml"))) == 1
            assert len(list((data / "sns" / "mail").glob("*.json"))) == notices == 1

    asyncio.run(story())
