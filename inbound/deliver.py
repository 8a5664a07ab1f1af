"""Deliver: carry out what the rules decided, and answer for it with one reply that is true.

1. Nothing runs when the decision has no steps: it defers, or no rule took the mail. Otherwise the steps run in order, each
   for the recipients that met its rule.
2. An action that fails follows its `on_failure`. `retry` asks the parking; what it does not take is deferred (451). An action
   may be done for some recipients and not for others (`Done.refusals`): whom it refused is refused, and goes no further.
3. What was done is written down in the ledger, so that the sender's retry skips it: before a deferral, and before and behind
   telling a sender; at once where an action says whom it reached (`Done.reached`), or `Means.at_once` asks for it. Otherwise,
   when all goes well, nothing is written.
4. All actions share one budget of seconds. An action with `patience` (a function that is waited for) may outlast it.
5. Recipients that were refused while others were taken cannot hear it in the session. The sender is told by a notification
   (`bounces`), or it is decided that it must not be; only then is the answer 250. Without a way to tell it is 451, as it is
   when one of the refusals is temporary: that is true for everybody.
6. Once begun this runs to its end: a client that hangs up cancels nothing (`receive` shields it).
"""

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from inbound.actions import Action, Cloud, Done, Letter, Onward
from inbound.bounces import PATIENCE, Bounces, Refused, Told
from inbound.errors import Failure, TemporaryFailure
from inbound.mail import Mail
from inbound.offload import aside, offload, within
from inbound.parking import Ledger, Parking
from inbound.record import Ran
from inbound.reply import Reply, accepted
from inbound.rules import Decision, Step
from inbound.trace import stamped
from inbound.verdicts import Verdicts

log = logging.getLogger(__name__)

Result = TypeVar("Result")

DSN = "dsn"  # in the record and in the ledger, where actions have their kind
SUPPRESSED = "bounce suppressed"
REFUSED_BEFORE = "refused before the message was deferred"
OUT_OF_TIME = "out of time"
NOT_DONE = Reply(
    451, "4.3.0", "Not everything could be done with this message yet, please try again later", "not everything done"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What delivery works with. `budget` is seconds for all actions of a message. `bounces` is None where nobody can be told.

    `at_once`: each thing done is written down when it was done, not only before a deferral.
    """

    cloud: Cloud
    ledger: Ledger
    parking: Parking
    budget: float
    account: str
    region: str
    ours: bool = True  # events have our own key beside SES's
    bounces: Bounces | None = None
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
    untaken = [walk for walk in decision.walks if walk.reply.refuses and not walk.actions]
    refused = {walk.recipient: Refused(recipient=walk.recipient, reply=walk.reply, rule="") for walk in untaken}
    course = _Course(mail=mail, verdicts=verdicts, decision=decision, block=block, means=means, refused=refused)
    try:
        for step in decision.steps:
            await course.run(step)
        course.must_have_an_end()
        await course.tell_refused()
    except _Deferred as deferred:
        return Delivery(reply=await course.put_off(deferred), ran=tuple(course.ran))
    return Delivery(reply=course.reply(), ran=tuple(course.ran))


class _Deferred(Exception):
    """The message goes no further now; `remaining` are the rules that still have work, and for whom.

    A `reply` of a rule's own is said as it is: a later try of ours would not be the sender's.
    """

    def __init__(self, rule: str, recipients: tuple[str, ...], reply: Reply = NOT_DONE) -> None:
        self.remaining = {rule: recipients}
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run of one action, which the ledger knows by its key: an edited action is another one."""

    rule: str
    position: int
    kind: str
    action: Action | None  # None: the sender is told
    recipients: tuple[str, ...]

    @property
    def key(self) -> str:
        written = repr((self.action, sorted(self.recipients))).encode("utf-8", "surrogateescape")
        return f"{self.rule}/{self.position}/{self.kind}/{hashlib.sha256(written).hexdigest()[:16]}"

    def entries(self, done: Done) -> Iterator[tuple[str, str]]:
        """What the ledger is to know: that it was done, or whom it reached of several."""
        key = self.key
        if done.refusals:
            yield from ((f"{key}/{one}", done.onward.value) for one in done.reached)
        else:
            yield key, f"{done.onward.value} {done.reply or ''}".rstrip()


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
    refused: dict[str, Refused] = field(default_factory=dict)
    ran: list[Ran] = field(default_factory=list)
    unwritten: list[tuple[_Run, Done]] = field(default_factory=list)  # done, and the ledger does not know
    before: Mapping[str, str] = field(init=False)  # what it knew when this began
    content: tuple[bytes, bytes] | None = None  # what actions are given, behind the fields that rules had added to it
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.means.ledger.done(self.mail.message_id)
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
                self.taken.update(who for who in recipients if who not in done.refusals)
            recipients = self.without(step.rule.name, action, recipients, done)
            if done.added:
                self.added.append((done.added, recipients))
            if done.reply:
                self.refuse(step.rule.name, action, dict.fromkeys(recipients, done.reply))
            if action.ends or done.onward is Onward.STOP_RULE_SET or not recipients:
                self.ended.update(recipients)
                return
            if done.onward is Onward.STOP_RULE:
                return

    def without(self, rule: str, action: Action, recipients: tuple[str, ...], done: Done) -> tuple[str, ...]:
        """The recipients that go on: the refused ones' walks end here, and one that must wait makes the message wait.

        With `on_failure: continue` all go on.
        """
        if action.on_failure == "continue":
            return recipients
        waiting = tuple(who for who, reply in done.refusals.items() if reply.defers)
        if waiting:
            raise _Deferred(rule, waiting)
        self.refuse(rule, action, done.refusals, by=done.by)
        self.ended.update(done.refusals)
        return tuple(who for who in recipients if who not in done.refusals)

    async def once(self, step: Step, position: int, action: Action, recipients: tuple[str, ...]) -> Done | None:
        """One action, unless it was done before the message was deferred. None: it failed and the rule goes on."""
        rule = step.rule.name
        run = _Run(rule=rule, position=position, kind=action.kind, action=action, recipients=recipients)
        note = self.noting(rule, action.kind, recipients)
        written, reached = self.known(run)
        if written is not None:
            note("already done", {})
            return _remembered(action, written)
        try:
            done = await self.attempt(action, rule, recipients, reached)
        except Exception as error:
            self.failed(note, f"action {action.kind}", error)
            if isinstance(error, Failure) and action.on_failure == "continue":
                return None
            raise _Deferred(rule, recipients) from error
        note("partly done" if done.refusals else "done", done.detail)
        # A function that refuses for now is asked again by the retry: it may have another answer then.
        if action.outward and not (done.reply and done.reply.defers):
            self.unwritten.append((run, done))
        if done.reached or self.means.at_once:
            await self.remember()
        return done

    def known(self, run: _Run) -> tuple[str | None, frozenset[str]]:
        """How it went when it was done before, None when it was not; and whom it had reached by then."""
        if not self.before:
            return None, frozenset()
        key = run.key
        return self.before.get(key), frozenset(
            one.removeprefix(f"{key}/") for one in self.before if one.startswith(f"{key}/")
        )

    def failed(self, note: Callable[[str, Mapping[str, str]], None], what: str, error: Exception) -> None:
        if isinstance(error, Failure):
            note("failed", {"reason": error.reason, "detail": error.detail})
            return
        log.error("%s crashed", what, exc_info=error, extra={"message_id": self.mail.message_id})
        note("failed", {"reason": "crashed", "detail": type(error).__name__})

    def noting(self, rule: str, kind: str, recipients: tuple[str, ...]) -> Callable[[str, Mapping[str, str]], None]:
        """Begin something that the record tells of; what is returned takes its outcome, and details."""
        started = time.perf_counter()

        def note(outcome: str, detail: Mapping[str, str]) -> None:
            took = round((time.perf_counter() - started) * 1000, 3)
            ran = Ran(rule=rule, action=kind, recipients=recipients, outcome=outcome, detail=detail, milliseconds=took)
            self.ran.append(ran)

        return note

    def refuse(self, rule: str, action: Action, refusals: Mapping[str, Reply], *, by: str = "") -> None:
        sender = getattr(action, "sender", "")
        for who, reply in refusals.items():
            self.refused[who] = Refused(recipient=who, reply=reply, rule=rule, sender=sender, by=by)

    def seen(self) -> bytes:
        """The header fields that rules added. As in SES all later actions see them, until the walks they belong to end."""
        if not self.added:
            return b""
        return b"".join(added for added, walks in self.added if not self.ended.issuperset(walks))

    async def attempt(self, action: Action, rule: str, recipients: tuple[str, ...], reached: frozenset[str]) -> Done:
        seconds = max(self.until - time.monotonic(), action.patience)
        if seconds <= 0:
            raise TemporaryFailure(OUT_OF_TIME, f"{self.means.budget:g} s for all actions are over")
        letter = Letter(
            mail=self.mail,
            verdicts=self.verdicts,
            recipients=recipients,
            rule=rule,
            content=await self.stamped(),
            account=self.means.account,
            region=self.means.region,
            ours=self.means.ours,
            reached=reached,
            head=self.block + self.seen(),
            walks=tuple(walk for walk in self.decision.walks if walk.recipient in recipients),
            ruleset=self.decision.ruleset,
        )
        return await _within(seconds, action.perform(letter, self.means.cloud))

    async def stamped(self) -> bytes:
        """The message as actions see it now, made anew only when other header fields belong to it."""
        added = self.seen()
        if self.content is None or self.content[0] != added:
            stamp = (self.mail, self.block, added)
            self.content = added, await offload(stamped, *stamp) if self.mail.is_big else stamped(*stamp)
        return self.content[1]

    @property
    def mixed(self) -> bool:
        """Some were refused, and others taken."""
        return 0 < len(self.refused) < len(set(self.mail.rcpt_to))

    def must_have_an_end(self) -> None:
        """Everybody's mail was taken or refused, and one reply is true.

        What `on_failure: continue` passed over may have been all that would have kept the mail.
        """
        lost = tuple(who for who in self.mail.rcpt_to if who not in self.taken and who not in self.refused)
        if lost:
            raise _Deferred("", lost)
        later = next((one.reply for one in self.refused.values() if one.reply.defers), None)
        if later:
            raise _Deferred("", tuple(self.refused), later)
        if self.mixed and self.means.bounces is None:
            raise _Deferred("", tuple(self.refused))

    async def tell_refused(self) -> None:
        """Have the sender told of those that were refused while others were taken; once."""
        if not self.mixed or self.means.bounces is None:
            return
        refused = tuple(self.refused.values())
        rules = ", ".join(dict.fromkeys(one.rule for one in refused if one.rule))
        note = self.noting(rules, DSN, tuple(self.refused))
        run = _Run(rule="", position=0, kind=DSN, action=None, recipients=tuple(self.refused))
        if self.known(run)[0] is not None:
            note("already done", {})
            return
        try:
            seconds = max(self.until - time.monotonic(), PATIENCE)
            told = await _within(seconds, self.tell(self.means.bounces, refused))
        except Exception as error:
            self.failed(note, "telling the sender", error)
            raise _Deferred("", run.recipients) from error
        why = {"reason": told.suppressed} if told.suppressed else {}
        note(SUPPRESSED if told.suppressed else "done", {"to": self.mail.mail_from} | why | dict(told.detail))
        if not told.suppressed:
            self.unwritten.append((run, Done()))
            await self.remember()

    async def tell(self, bounces: Bounces, refused: Sequence[Refused]) -> Told:
        """Tell the sender, if it may be told. The next hop may take its time, so what was done is written down before."""
        reason = bounces.suppressed(self.mail, self.verdicts, refused)
        if reason:
            return Told(suppressed=reason)
        await self.remember()
        return await bounces.tell(self.mail, refused, self.block)

    async def put_off(self, deferred: _Deferred) -> Reply:
        """Park the message, or write down what was done and leave it with its sender."""
        if deferred.reply is NOT_DONE and await self.means.parking.park(self.mail, deferred.remaining):
            return accepted(self.mail.message_id)
        await self.remember()
        return deferred.reply

    async def remember(self) -> None:
        """Write down what was done since the last time. What cannot be written may be done twice; nothing is lost by it."""
        entries = dict(entry for run, done in self.unwritten for entry in run.entries(done))
        if not entries:
            return
        try:
            await aside(self.means.ledger.remember, self.mail.message_id, entries)
        except (sqlite3.Error, OSError):
            log.exception("the ledger cannot be written", extra={"message_id": self.mail.message_id})
        else:
            self.unwritten.clear()

    def reply(self) -> Reply:
        """The refusal that all recipients met, or the promise."""
        if self.refused and not self.mixed:
            return next(iter(self.refused.values())).reply
        return accepted(self.mail.message_id)


def _remembered(action: Action, written: str) -> Done:
    """How an action went that was done before: how the walk goes on, and a function's own refusal behind it."""
    onward, _, refusal = written.partition(" ")
    if not refusal:
        return Done(onward=Onward(onward), reply=action.refusal)
    code, enhanced, text = refusal.split(" ", 2)
    return Done(onward=Onward(onward), reply=Reply(int(code), enhanced, text, REFUSED_BEFORE))


async def _within(seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
    try:
        return await within(seconds, work)
    except TimeoutError as error:
        raise TemporaryFailure(OUT_OF_TIME, f"not done within {seconds:.1f} s") from error
