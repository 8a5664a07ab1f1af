"""What is in quarantine: found again, let go on, taken away.

1. A message that is held stands in a bucket of the rule set's `quarantine` actions (`actions.quarantine`). Where its
   envelope is, its message is: a message without one was never promised to anybody, an envelope without one is what an
   interrupted removal left. Both are told, neither is released.
2. A released message goes on behind the rule that held it, under the rule set that is in force *now*, for the recipients
   it was held for, with the verdicts that were found when it came. If that rule is gone, somebody must say where it begins.
3. It is decided first. When a rule there would refuse it, none would take it, or the same rule would hold it again for the
   same recipients, nothing is done and it stays.
4. A release is claimed (`ID.release.json`, first write wins), so two at a time deliver once. Every action is written down
   in the ledger as soon as it was done, and skipped by the next try. The objects go only after everything was done: the
   message, then its envelope, then the claim.
"""

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from inbound.actions import ObjectStore
from inbound.actions.keep import Store, object_key
from inbound.actions.quarantine import ENVELOPE, ID, Held, Quarantine, content_of, held, held_id
from inbound.clients import Listed
from inbound.deliver import Delivery, Means, deliver
from inbound.errors import Failure, PermanentFailure, TemporaryFailure
from inbound.mail import Mail
from inbound.mime import attachments
from inbound.offload import offload
from inbound.recipients import forms
from inbound.record import Walk
from inbound.rules import Decision, RuleSet, decide

CLAIM = ".release.json"

RULE_GONE = "the rule that held it is gone"
RULE_MISSING = "no such rule"
UNDER_WAY = "a release is under way"
NOT_ONE = "no such message in quarantine"
SEVERAL = "several messages begin so"
INCOMPLETE = "not whole"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where messages are held: a bucket, and the prefix of their keys."""

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What stands under one ID. `stored` is when, in seconds since the epoch; `problem` says what is missing, else ""."""

    place: Place
    id: str
    stored: float
    problem: str = ""

    @property
    def key(self) -> str:
        """The key of the message."""
        return object_key(self.place.prefix, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which of them: held before `until` (seconds since the epoch), from `sender`, for `recipient` (patterns), by `rule`."""

    until: float | None = None
    sender: str | None = None
    recipient: str | None = None
    rule: str | None = None

    def fits(self, one: Held) -> bool:
        """The envelope sender or an author is `sender`; the null sender is "<>"."""
        senders = (one.record.mail_from or "<>", *(box.address for box in one.headers.mailboxes("from")))
        return (
            (self.until is None or one.held_at < self.until)
            and (self.rule is None or self.rule == one.rule)
            and (self.sender is None or any(_meets(address, self.sender) for address in senders))
            and (self.recipient is None or any(_meets(address, self.recipient) for address in one.recipients))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a released message begins: behind the rule that held it, at the rule named, or at the first."""

    rule: str = ""
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What came of a release. `stays` says why the message is still held, "" when it is gone."""

    id: str
    walks: tuple[Walk, ...]
    delivery: Delivery | None = None
    stays: str = ""


def places(ruleset: RuleSet) -> tuple[Place, ...]:
    """Where the rules hold messages, those that are not enabled included."""
    actions = [it for rule in ruleset.rules for it in rule.actions if isinstance(it, Quarantine)]
    # `q` and `q/` are one place.
    return tuple(
        {(it.bucket, object_key(it.prefix, "")): Place(bucket=it.bucket, prefix=it.prefix) for it in actions}.values()
    )


async def entries(store: ObjectStore, place: Place) -> AsyncIterator[Entry]:
    """Everything that is held there, in the order of keys, in which what shares an ID stands together. Raises Failure."""
    ident = ""
    parts: dict[str, Listed] = {}
    above = object_key(place.prefix, "")
    async for one in store.list_objects(place.bucket, above):
        match = _NAME.fullmatch(one.key.removeprefix(above))
        if match is None:
            continue
        if match.group(1) != ident:
            if parts:
                yield _entry(place, ident, parts)
            ident, parts = match.group(1), {}
        parts[match.group(2) or ""] = one
    if parts:
        yield _entry(place, ident, parts)


_NAME = re.compile(rf"({ID.pattern})({re.escape(ENVELOPE)}|{re.escape(CLAIM)})?")


def _entry(place: Place, ident: str, parts: dict[str, Listed]) -> Entry:
    problem = ""
    if "" not in parts:
        problem = "its message is gone: an interrupted removal"
    elif ENVELOPE not in parts:
        problem = "it has no envelope: its sender was told to try again"
    stored = min(one.modified for one in parts.values())
    return Entry(place=place, id=ident, stored=stored, problem=problem)


def chosen(among: Sequence[Entry], beginning: str) -> Entry:
    """The one whose ID begins so. Raises PermanentFailure when it is none or several."""
    found = [entry for entry in among if entry.id.startswith(beginning)]
    if len(found) != 1 or not beginning:
        raise PermanentFailure(SEVERAL if found and beginning else NOT_ONE, beginning)
    return found[0]


async def opened(store: Store, entry: Entry) -> Held:
    """The envelope. Raises Failure."""
    return await held(store, entry.place.bucket, entry.key)


def onward(ruleset: RuleSet, rule: str, start: Start) -> RuleSet:
    """The rules that a message held by `rule` meets. Raises PermanentFailure when there is no such place to begin."""
    names = [one.name for one in ruleset.rules]
    if start.first:
        return ruleset
    if start.rule and start.rule not in names:
        raise PermanentFailure(RULE_MISSING, start.rule)
    if start.rule:
        return replace(ruleset, rules=ruleset.rules[names.index(start.rule) :])
    if rule not in names:
        raise PermanentFailure(RULE_GONE, f"{rule}; say --from-rule NAME or --from-start")
    return replace(ruleset, rules=ruleset.rules[names.index(rule) + 1 :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """How messages are released. `again` goes on where another release seems to have died; `dry` does nothing."""

    means: Means
    ruleset: RuleSet
    start: Start = field(default_factory=Start)
    again: bool = False
    dry: bool = False

    async def __call__(self, entry: Entry) -> Released:
        """Let one message go on, and remove it once everything was done. Raises Failure; it stays then."""
        if entry.problem:
            raise PermanentFailure(INCOMPLETE, f"{entry.id}: {entry.problem}")
        cloud = self.means.cloud
        one = await opened(cloud, entry)
        content = await content_of(cloud, entry.place.bucket, entry.key)
        mail = await offload(one.mail, content)
        rules = onward(self.ruleset, one.rule, self.start)
        decision = await offload(decide, rules, mail, one.record.verdicts, parts=attachments)
        stays = _stays(mail, decision, entry)
        if stays or self.dry:
            return Released(id=entry.id, walks=decision.walks, stays=stays)
        await self._claim(entry)
        return await _to_its_end(self._deliver(entry, one, mail, decision))

    async def _deliver(self, entry: Entry, one: Held, mail: Mail, decision: Decision) -> Released:
        means = replace(self.means, at_once=True)
        done = False
        try:
            delivery = await deliver(mail, one.record.verdicts, decision, one.head, means)
            done = delivery.reply.accepts
        finally:
            if not done:
                await means.cloud.delete_object(entry.place.bucket, entry.key + CLAIM)
        stays = "" if done else str(delivery.reply)
        try:
            if done:
                await removed(means.cloud, entry)
        except Failure as failure:  # its claim stays, so that nothing is done twice
            stays = f"everything was done, but it could not be removed: {failure}"
        return Released(id=entry.id, walks=decision.walks, delivery=delivery, stays=stays)

    async def _claim(self, entry: Entry) -> None:
        bucket, key = entry.place.bucket, entry.key + CLAIM
        now = datetime.now(UTC).isoformat(timespec="seconds")
        claim = json.dumps({"since": now, "host": socket.gethostname(), "pid": os.getpid()}).encode("ascii")
        if not await self.means.cloud.put(bucket, key, claim, metadata={}) and not self.again:
            stands = (await self.means.cloud.get(bucket, key)).body[:500].decode("utf-8", "replace")
            raise TemporaryFailure(UNDER_WAY, f"{entry.id}: {stands}; if that one is dead, say --again")


async def removed(store: ObjectStore, entry: Entry) -> None:
    """Take away a message, its envelope and what a release left. Raises Failure."""
    for suffix in ("", ENVELOPE, CLAIM):
        await store.delete_object(entry.place.bucket, entry.key + suffix)


def _stays(mail: Mail, decision: Decision, entry: Entry) -> str:
    """Why the message does not go on under these rules; "" when it does."""
    answers = [walk.reply for walk in decision.walks if not walk.reply.accepts]
    if answers:
        return str(answers[0])
    if entry.key in _held_by(mail, decision, entry.place.bucket):
        return "the same rule would hold it again"
    return ""


def _held_by(mail: Mail, decision: Decision, bucket: str) -> Iterator[str]:
    """The keys in a bucket under which the rules will hold it."""
    for step in decision.steps:
        for action in step.rule.course():
            if isinstance(action, Quarantine) and action.bucket == bucket:
                ident = held_id(mail.message_id, step.rule.name, step.recipients)
                yield object_key(action.prefix, ident)


async def _to_its_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Once begun it is not cancelled: whoever interrupts it waits."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _meets(address: str, wanted: str) -> bool:
    return address == wanted or wanted in forms(address)
