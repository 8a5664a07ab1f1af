"""Refused, but not in the session: the recipients of a transaction that were refused while others were taken.

The one reply is 250 then, and the sender is told of these by a notification (`dsn`), if it may be told (`backscatter`).
Telling is done when the next hop has taken the notification. Until then nothing is promised: a Failure defers the message.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from inbound.backscatter import TOO_MANY, Rates, why_not
from inbound.clients.relay import RefusedError
from inbound.dsn import Failed, Notification, notification
from inbound.errors import TemporaryFailure
from inbound.mail import Mail
from inbound.offload import aside
from inbound.reply import Reply
from inbound.verdicts import Verdicts

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds to hand over a notification, even when the delivery's own budget is spent

REFUSED_BY_NEXT_HOP = "next hop refused it"
DEFERRED_BY_NEXT_HOP = "next hop deferred it"
UNCOUNTED = "senders cannot be counted"


class Postman(Protocol):
    """Who takes mail of ours to others."""

    async def send(self, raw: bytes, *, mail_from: str, rcpt_to: tuple[str, ...]) -> Mapping[str, Reply]:
        """Hand a message over: the refusals by recipient, none when all were taken. Raises Failure when nobody has it.

        RefusedError and DeferredError are a next hop's own word, and have its `replies` by recipient.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One recipient that a rule refused; `sender` is the address that the rule tells of it from, "" if it names none.

    `by` is the next hop (HOST:PORT) whose refusal it is, "" for our own.
    """

    recipient: str
    reply: Reply
    rule: str
    sender: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How it went: `suppressed` says why the sender was not told, "" when it was. `detail` is for the record."""

    suppressed: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounces:
    """How senders are told. `sender` is the address in From, "" for MAILER-DAEMON at `hostname`; `now` gives epoch seconds."""

    postman: Postman
    rates: Rates
    hostname: str
    sender: str = ""
    now: Callable[[], float] = time.time

    def suppressed(self, mail: Mail, verdicts: Verdicts, refused: Sequence[Refused]) -> str:
        """Why the sender of `mail` must not be told, "" when it may be. Raises TemporaryFailure: that is not known yet."""
        sender = self._sender(refused)
        return why_not(mail, verdicts, ours=[sender] if sender else [])

    async def tell(self, mail: Mail, refused: Sequence[Refused], block: bytes) -> Told:
        """Tell the sender of `mail`, unless it was told too often. `block` is our header block on it.

        Raises Failure: it is not told yet.
        """
        if not await self._counted(self.rates.take, mail.mail_from):
            return Told(suppressed=TOO_MANY)
        failed = [Failed(recipient=one.recipient, reply=one.reply, by=one.by.rpartition(":")[0]) for one in refused]
        told = notification(
            mail, failed, block=block, hostname=self.hostname, sender=self._sender(refused), now=self.now()
        )
        detail = {"notification": told.message_id}
        try:
            refusal = await self._handed_over(told)
        except BaseException:
            await self._counted(self.rates.give_back, mail.mail_from)
            raise
        if refusal is None:
            return Told(detail=detail)
        # A notification that cannot be delivered has nobody to be told of it (RFC 5321 6.1).
        log.warning("%s: %s", REFUSED_BY_NEXT_HOP, refusal, extra={"message_id": mail.message_id})
        return Told(suppressed=REFUSED_BY_NEXT_HOP, detail=detail | {"next_hop": str(refusal)})

    def _sender(self, refused: Sequence[Refused]) -> str:
        return next((one.sender for one in refused if one.sender), self.sender)

    async def _handed_over(self, told: Notification) -> Reply | None:
        """The next hop's refusal, None when it took it. Raises Failure."""
        try:
            refusals = await self.postman.send(told.raw, mail_from="", rcpt_to=(told.rcpt_to,))
        except RefusedError as refused:
            refusals = refused.replies
        refusal = refusals.get(told.rcpt_to)
        if refusal is not None and refusal.defers:
            raise TemporaryFailure(DEFERRED_BY_NEXT_HOP, str(refusal))
        return refusal

    async def _counted(self, count: Callable[[str], bool | None], sender: str) -> bool:
        try:
            return bool(await aside(count, sender))
        except (sqlite3.Error, OSError) as error:
            raise TemporaryFailure(UNCOUNTED, str(error)) from error

    def close(self) -> None:
        """Close the file of rates."""
        self.rates.close()
