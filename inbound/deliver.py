"""Deliver: carry out what the rules decided, and answer for it with one reply that is true.

1. Nothing runs when the decision has no steps: it defers, or no rule took the mail. Otherwise the steps run in order, each
   for the recipients that met its rule.
2. An action that fails follows its `on_failure`. `retry` asks the parking; what it does not take is deferred (451), after
   what was done is written down, so that the sender's retry skips it.
3. All actions share one budget of seconds. An action with `patience` (a function that is waited for) may outlast it.
4. Once begun this runs to its end: a client that hangs up cancels nothing (`receive` shields it).
"""

import asyncio
import hashlib
import logging
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from inbound.actions import Action, Cloud, Done, Letter, Onward
from inbound.errors import Failure, TemporaryFailure
from inbound.mail import Mail
from inbound.offload import offload
from inbound.parking import Ledger, Parking
from inbound.record import Ran
from inbound.reply import Reply
from inbound.rules import Decision, Step
from inbound.trace import stamped
from inbound.verdicts import Verdicts

log = logging.getLogger(__name__)

OUT_OF_TIME = "out of time"
NOT_DONE = Reply(
    451, "4.3.0", "Not everything could be done with this message yet, please try again later", "not everything done"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What delivery works with. `budget` is seconds for all actions of a message.

    `at_once`: each thing done is written down when it was done, not only before a deferral.
    """

    cloud: Cloud
    ledger: Ledger
    parking: Parking
    budget: float
    account: str
    region: str
    ours: bool = True  # events have our own key beside SES's
    at_once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What was done, and the reply that says so."""

    reply: Reply
    ran: tuple[Ran, ...] = ()


async def deliver(mail: Mail, verdicts: Verdicts, decision: Decision, block: bytes, means: Means) -> Delivery:
    """Run the decided steps. `block` is the header block of ours that goes on top of what is stored or handed on."""
    if not decision.steps:
        return Delivery(reply=decision.reply)
    course = _Course(mail=mail, verdicts=verdicts, decision=decision, block=block, means=means)
    try:
        for step in decision.steps:
            await course.run(step)
        course.must_have_an_end()
    except _Deferred as deferred:
        return Delivery(reply=await course.put_off(deferred.remaining), ran=tuple(course.ran))
    return Delivery(reply=course.reply(), ran=tuple(course.ran))


def accepted(message_id: str) -> Reply:
    """The reply that promises: done. SES answers with the id as well."""
    return Reply(250, "2.0.0", f"OK {message_id}")


class _Deferred(Exception):
    """The message goes no further now; `remaining` are the rules that still have work, and for whom."""

    def __init__(self, rule: str, recipients: tuple[str, ...]) -> None:
        self.remaining = {rule: recipients}


@dataclass(slots=True, kw_only=True)
class _Course:
    """The state of one delivery while it runs."""

    mail: Mail
    verdicts: Verdicts
    decision: Decision
    block: bytes
    means: Means
    added: list[tuple[bytes, tuple[str, ...]]] = field(default_factory=list)  # header fields, and in whose walks
    taken: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    refused: dict[str, Reply] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    ran: list[Ran] = field(default_factory=list)
    before: dict[str, str] = field(init=False)
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.before = dict(self.means.ledger.done(self.mail.message_id))
        self.until = time.monotonic() + self.means.budget

    async def run(self, step: Step) -> None:
        recipients = tuple(recipient for recipient in step.recipients if recipient not in self.ended)
        if not recipients:
            return
        for position, action in enumerate(step.rule.actions):
            done = await self.once(step, position, action, recipients)
            if done is None:
                continue
            if action.takes:
                self.taken.update(recipients)
            if done.added:
                self.added.append((done.added, recipients))
            if done.reply:
                self.refused.update(dict.fromkeys(recipients, done.reply))
            if action.ends or done.onward is Onward.STOP_RULE_SET:
                self.ended.update(recipients)
                return
            if done.onward is Onward.STOP_RULE:
                return

    async def once(self, step: Step, position: int, action: Action, recipients: tuple[str, ...]) -> Done | None:
        """One action, unless it was done before the message was deferred. None: it failed and the rule goes on."""
        key = _key(step.rule.name, position, action, recipients)
        started = time.perf_counter()

        def note(outcome: str, **detail: str) -> None:
            took = round((time.perf_counter() - started) * 1000, 3)
            ran = Ran(
                rule=step.rule.name,
                action=action.kind,
                recipients=recipients,
                outcome=outcome,
                detail=detail,
                milliseconds=took,
            )
            self.ran.append(ran)

        if key in self.before:
            note("already done")
            self.done[key] = self.before[key]
            return Done(onward=Onward(self.before[key]), reply=action.refusal)
        try:
            done = await self.attempt(action, step.rule.name, recipients)
        except Failure as failure:
            note("failed", reason=failure.reason, detail=failure.detail)
            if action.on_failure == "continue":
                return None
            raise _Deferred(step.rule.name, recipients) from failure
        except Exception as error:
            log.exception("action %s crashed", action.kind, extra={"message_id": self.mail.message_id})
            note("failed", reason="crashed", detail=type(error).__name__)
            raise _Deferred(step.rule.name, recipients) from error
        note("done", **done.detail)
        # A function's own refusal is not remembered: the retry asks it again, and has its reply to give.
        if action.outward and done.reply in (None, action.refusal):
            self.done[key] = done.onward.value
            if self.means.at_once:
                await self.write_down()
        return done

    def seen(self) -> bytes:
        """The header fields that rules added. As in SES all later actions see them, until the walks they belong to end."""
        return b"".join(added for added, walks in self.added if not self.ended.issuperset(walks))

    async def attempt(self, action: Action, rule: str, recipients: tuple[str, ...]) -> Done:
        seconds = max(self.until - time.monotonic(), action.patience)
        if seconds <= 0:
            raise TemporaryFailure(OUT_OF_TIME, f"{self.means.budget:g} s for all actions are over")
        added = self.seen()
        letter = Letter(
            mail=self.mail,
            verdicts=self.verdicts,
            recipients=recipients,
            rule=rule,
            content=stamped(self.mail, self.block, added),
            account=self.means.account,
            region=self.means.region,
            ours=self.means.ours,
            head=self.block + added,
            walks=tuple(walk for walk in self.decision.walks if walk.recipient in recipients),
            ruleset=self.decision.ruleset,
        )
        try:
            async with asyncio.timeout(seconds):
                return await action.perform(letter, self.means.cloud)
        except TimeoutError as error:
            raise TemporaryFailure(OUT_OF_TIME, f"not done within {seconds:.1f} s") from error

    def must_have_an_end(self) -> None:
        """Everybody's mail was taken, or everybody's refused: one reply is true.

        What `on_failure: continue` passed over may have been all that would have kept the mail. And a function may refuse
        for some recipients only, which RCPT keeps apart as far as it can know.
        """
        lost = tuple(who for who in self.mail.rcpt_to if who not in self.taken and who not in self.refused)
        if lost:
            raise _Deferred("", lost)
        if 0 < len(self.refused) < len(set(self.mail.rcpt_to)):
            raise _Deferred("", tuple(self.refused))

    async def put_off(self, remaining: Mapping[str, tuple[str, ...]]) -> Reply:
        """Park the message, or write down what was done and leave it with its sender."""
        if await self.means.parking.park(self.mail, remaining):
            return accepted(self.mail.message_id)
        await self.write_down()
        return NOT_DONE

    async def write_down(self) -> None:
        """Remember what was done."""
        if not self.done:
            return
        try:
            await offload(self.means.ledger.remember, self.mail.message_id, self.done)
        except (sqlite3.Error, OSError):
            log.exception("the ledger cannot be written", extra={"message_id": self.mail.message_id})

    def reply(self) -> Reply:
        """The refusal that all recipients met, or the promise."""
        return next(iter(self.refused.values()), accepted(self.mail.message_id))


def _key(rule: str, position: int, action: Action, recipients: tuple[str, ...]) -> str:
    """Names one run of one action as it is written: an edited action is another one."""
    digest = hashlib.sha256(repr((action, sorted(recipients))).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{rule}/{position}/{action.kind}/{digest}"
