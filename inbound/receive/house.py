"""What all sessions of a server share."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from inbound.receive import Door, Transaction
from inbound.receive.census import Census
from inbound.receive.inflow import Budget
from inbound.receive.rates import Rates
from inbound.receive.replies import BROKEN
from inbound.receive.tls import Certificates
from inbound.reply import Reply
from inbound.settings import Limits

if TYPE_CHECKING:
    from inbound.receive.wire import Wire

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """The door and the limits; who is here; and `at_work`, the messages that are being worked on."""

    door: Door
    hostname: str
    limits: Limits
    certificates: Certificates | None
    proxy_from: Collection[IPv4Network | IPv6Network]
    census: Census
    budget: Budget
    rates: Rates
    at_work: set["asyncio.Task[Reply]"] = field(default_factory=set)
    sessions: set["Wire"] = field(default_factory=set)

    async def work(self, transaction: Transaction, raw: bytes, peer: str) -> Reply:
        """The transaction's answer to a message, from a task that runs to its end even when nobody waits for it any more."""
        work = asyncio.create_task(_answer(transaction, raw, peer))
        del raw
        self.at_work.add(work)
        over = asyncio.get_running_loop().create_future()

        def done(work: "asyncio.Task[Reply]") -> None:
            self.at_work.discard(work)
            if not over.done():
                over.set_result(None)

        work.add_done_callback(done)
        await over
        return BROKEN if work.cancelled() else work.result()


async def _answer(transaction: Transaction, raw: bytes, peer: str) -> Reply:
    try:
        return await transaction.message(raw)
    except Exception:
        log.exception("%s: a message could not be worked on", peer)
        return BROKEN
