"""250 means done. What failed is deferred, what was done before is not done again, and nothing is lost in between."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from inbound.actions import Action, Cloud, Done, Letter, OnFailure, Onward
from inbound.deliver import NOT_DONE, Delivery, Means, deliver
from inbound.errors import PermanentFailure, TemporaryFailure
from inbound.mail import Client, Headers, Mail
from inbound.parking import NoParking, SqliteLedger
from inbound.reply import Reply
from inbound.rules import Decision, Rule, Step
from inbound.verdicts import (
    ArcVerdict,
    DkimVerdict,
    DmarcVerdict,
    IprevVerdict,
    SpamVerdict,
    SpfVerdict,
    Status,
    Verdicts,
    VirusVerdict,
)

A, B = "a@example.com", "b@example.com"
ID = "0" * 40
OK = Reply(250, "2.0.0", f"OK {ID}")
NO = Reply(550, "5.7.1", "No")
GRAY = Status.GRAY
VERDICTS = Verdicts(
    spf=SpfVerdict(status=GRAY, result="none"),
    dkim=DkimVerdict(status=GRAY, result="none"),
    dmarc=DmarcVerdict(status=GRAY, result="none"),
    arc=ArcVerdict(result="none"),
    iprev=IprevVerdict(result="fail"),
    spam=SpamVerdict(status=Status.PASS),
    virus=VirusVerdict(status=Status.DISABLED),
)


@dataclass(frozen=True, kw_only=True)
class Act:
    """An action that writes down what it was given, and does what the test says."""

    kind: ClassVar[str] = "act"
    name: str
    diary: list[tuple[Any, ...]] = field(repr=False, compare=False)
    perform_it: Callable[[], Awaitable[None]] | None = field(default=None, repr=False, compare=False)
    onward: Onward = Onward.CONTINUE
    added: bytes = b""
    takes: bool = True
    outward: bool = True
    on_failure: OnFailure = "retry"
    patience: float = 0.0
    ends: bool = False
    refusal: Reply | None = None

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        if self.perform_it is not None:
            await self.perform_it()
        self.diary.append((self.name, letter.rule, letter.recipients, letter.content))
        return Done(onward=self.onward, added=self.added, reply=self.refusal)


class World:
    """One message and its means; `run` delivers it with a fresh ledger connection, as a restarted process would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.diary: list[tuple[Any, ...]] = []

    def act(self, name: str, **more: Any) -> Action:
        return cast("Action", Act(name=name, diary=self.diary, **more))

    def run(self, *steps: tuple[str, tuple[str, ...], tuple[Action, ...]], budget: float = 5.0) -> Delivery:
        raw = b"From: x@y.example\r\n\r\nhello\r\n"
        recipients = tuple(dict.fromkeys(who for _, whom, _ in steps for who in whom))
        mail = Mail(
            raw=raw,
            headers=Headers.of(raw),
            client=Client(ip=ip_address("192.0.2.7")),
            mail_from="x@y.example",
            rcpt_to=recipients,
            received_at=0.0,
            message_id=ID,
        )
        made = tuple(Step(rule=Rule(name=name, actions=actions), recipients=whom) for name, whom, actions in steps)
        ledger = SqliteLedger(self.directory / "ledger.sqlite")
        means = Means(
            cloud=cast("Cloud", None),
            ledger=ledger,
            parking=NoParking(),
            budget=budget,
            account="000000000000",
            region="us-east-1",
        )
        try:
            return asyncio.run(deliver(mail, VERDICTS, Decision(walks=(), steps=made, reply=OK), b"X: y\r\n", means))
        finally:
            ledger.close()

    @property
    def names(self) -> list[str]:
        return [entry[0] for entry in self.diary]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def _fails() -> None:
    raise TemporaryFailure("store down")


async def _is_refused() -> None:
    raise PermanentFailure("no such bucket")


async def _crashes() -> None:
    raise ZeroDivisionError


async def _hangs() -> None:
    await asyncio.sleep(3600)


def test_everything_done_is_250_with_the_id(world: World) -> None:
    delivery = world.run(("one", (A, B), (world.act("store"),)))
    assert delivery.reply == OK
    assert world.diary == [("store", "one", (A, B), b"X: y\r\nFrom: x@y.example\r\n\r\nhello\r\n")]
    assert [(ran.rule, ran.action, ran.outcome) for ran in delivery.ran] == [("one", "act", "done")]


def test_a_header_that_a_rule_adds_is_seen_by_later_actions_of_every_rule_as_in_ses(world: World) -> None:
    world.run(
        ("one", (A,), (world.act("add", added=b"X-Queue: support\r\n", takes=False), world.act("store"))),
        ("two", (B,), (world.act("store again"),)),
    )
    assert [b"X-Queue: support\r\n" in content for *_, content in world.diary] == [False, True, True]


def test_a_header_is_not_seen_by_others_once_the_walk_that_added_it_has_ended(world: World) -> None:
    add = world.act("add", added=b"X-Queue: support\r\n", takes=False)
    stop = world.act("stop", ends=True, outward=False)
    world.run(("one", (A,), (add, world.act("store"), stop)), ("two", (B,), (world.act("store again"),)))
    seen = {name: b"X-Queue: support\r\n" in content for name, *_, content in world.diary}
    assert seen == {"add": False, "store": True, "stop": True, "store again": False}


def test_a_refusal_for_some_recipients_only_is_neither_250_nor_5xx(world: World) -> None:
    """Where nobody can be told of it later, nothing is said that is not true for all."""
    refusing = world.act("call", patience=5.0)
    object.__setattr__(refusing, "refusal", NO)
    delivery = world.run(("one", (A,), (refusing,)), ("two", (B,), (world.act("store"),)))
    assert delivery.reply == NOT_DONE


@pytest.mark.parametrize(
    ("refusal", "asked"),
    [(NO, ["store", "call"]), (Reply(450, "4.2.1", "Not now"), ["store", "call", "call"])],
)
def test_a_functions_refusal_is_remembered_and_one_for_now_is_asked_for_again(
    world: World, refusal: Reply, asked: list[str]
) -> None:
    class Refusing(Act):
        async def perform(self, letter: Letter, cloud: Cloud) -> Done:
            return replace(await Act.perform(self, letter, cloud), reply=refusal, onward=Onward.STOP_RULE_SET)

    call = cast("Action", Refusing(name="call", diary=world.diary))
    world.run(("one", (A,), (world.act("store"), call)), ("two", (B,), (world.act("tell", perform_it=_fails),)))
    delivery = world.run(("one", (A,), (world.act("store"), call)))
    assert delivery.reply == refusal
    assert world.names == asked


def test_a_refusal_for_now_is_the_answer_for_all_and_nothing_is_done_twice(world: World) -> None:
    for_now = Reply(450, "4.2.1", "Not now")
    bounce = world.act("bounce", takes=False, ends=True, outward=True, refusal=for_now)
    for _ in range(2):
        delivery = world.run(("one", (A,), (world.act("store"), bounce)), ("two", (B,), (world.act("file"),)))
        assert delivery.reply == for_now
    assert world.names == ["store", "bounce", "file", "bounce"]


@pytest.mark.parametrize("failing", [_fails, _is_refused, _crashes])
def test_a_failing_action_defers_the_message_and_later_actions_do_not_run(
    world: World, failing: Callable[[], Awaitable[None]]
) -> None:
    delivery = world.run(("one", (A,), (world.act("store"), world.act("call", perform_it=failing), world.act("tell"))))
    assert delivery.reply == NOT_DONE
    assert world.names == ["store"]
    assert [ran.outcome for ran in delivery.ran] == ["done", "failed"]


def test_the_retry_skips_what_was_done_and_does_the_rest(world: World) -> None:
    store, tell = world.act("store"), world.act("tell")
    world.run(("one", (A,), (store, world.act("call", perform_it=_fails), tell)))
    delivery = world.run(("one", (A,), (store, world.act("call"), tell)))
    assert delivery.reply == OK
    assert world.names == ["store", "call", "tell"]
    assert [ran.outcome for ran in delivery.ran] == ["already done", "done", "done"]


def test_the_retry_of_a_retry_still_knows_the_first(world: World) -> None:
    store, tell = world.act("store"), world.act("tell")
    for _ in range(2):
        world.run(("one", (A,), (store, world.act("call", perform_it=_fails), tell)))
    assert world.run(("one", (A,), (store, world.act("call"), tell))).reply == OK
    assert world.names == ["store", "call", "tell"]


def test_what_a_function_decided_before_the_deferral_is_remembered(world: World) -> None:
    call = world.act("call", onward=Onward.STOP_RULE_SET)
    other = world.act("other", perform_it=_fails)
    world.run(("one", (A,), (call,)), ("two", (B,), (other,)))
    delivery = world.run(("one", (A,), (call,)), ("two", (A, B), (world.act("other"),)))
    assert delivery.reply == OK
    assert [entry[:3] for entry in world.diary] == [("call", "one", (A,)), ("other", "two", (B,))]


def test_an_edited_action_is_another_one(world: World) -> None:
    world.run(("one", (A,), (world.act("store"), world.act("call", perform_it=_fails))))
    world.run(("one", (A,), (world.act("store elsewhere"), world.act("call"))))
    assert world.names == ["store", "store elsewhere", "call"]


def test_nothing_is_written_on_the_happy_path(world: World) -> None:
    world.run(("one", (A,), (world.act("store"),)))
    ledger = SqliteLedger(world.directory / "ledger.sqlite")
    assert ledger.done(ID) == {}
    ledger.close()


def test_whom_an_action_has_reached_is_written_down_before_the_next_one_runs(world: World) -> None:
    class Reaching(Act):
        async def perform(self, letter: Letter, cloud: Cloud) -> Done:
            return replace(await Act.perform(self, letter, cloud), reached=letter.recipients)

    known: list[int] = []

    async def look() -> None:
        ledger = SqliteLedger(world.directory / "ledger.sqlite")
        known.append(len(ledger.done(ID)))
        ledger.close()

    hand_on = cast("Action", Reaching(name="hand on", diary=world.diary))
    steps = ("one", (A,), (world.act("1", perform_it=look), hand_on, world.act("2", perform_it=look)))
    assert [world.run(steps).reply for _ in range(2)] == [OK, OK]
    assert known == [0, 2, 2]
    assert world.names == ["1", "hand on", "2", "2"]


def test_what_only_a_retry_needs_is_not_worked_out_on_the_happy_path(world: World) -> None:
    shown: list[str] = []

    class Shown(Act):
        def __repr__(self) -> str:
            shown.append(self.name)
            return self.name

    store = cast("Action", Shown(name="store", diary=world.diary))
    world.run(("one", (A,), (store,)))
    assert shown == []
    world.run(("one", (A,), (store, world.act("call", perform_it=_fails))))
    assert shown == ["store"]


def test_the_message_is_put_together_once_for_all_actions_until_a_rule_adds_to_it(world: World) -> None:
    add = world.act("add", added=b"X-Queue: support\r\n", takes=False)
    world.run(("one", (A,), (world.act("1"), world.act("2"), add, world.act("3"))), ("two", (A,), (world.act("4"),)))
    one, two, before, three, four = (content for *_, content in world.diary)
    assert one is two is before
    assert three is four
    assert three != one


def test_on_failure_continue_goes_on(world: World) -> None:
    failing = world.act("tell", perform_it=_fails, on_failure="continue", takes=False)
    delivery = world.run(("one", (A,), (failing, world.act("store"))))
    assert delivery.reply == OK
    assert world.names == ["store"]


def test_on_failure_continue_never_turns_a_mail_that_nobody_kept_into_a_promise(world: World) -> None:
    failing = world.act("store", perform_it=_fails, on_failure="continue")
    assert world.run(("one", (A,), (failing,))).reply == NOT_DONE
    assert world.run(("one", (A,), (failing,)), ("two", (B,), (world.act("store"),))).reply == NOT_DONE


def test_a_bounce_is_the_reply_and_ends_the_walk(world: World) -> None:
    bounce = world.act("bounce", takes=False, ends=True, refusal=NO)
    delivery = world.run(("one", (A,), (world.act("store"), bounce)), ("two", (A,), (world.act("never"),)))
    assert delivery.reply == NO
    assert world.names == ["store", "bounce"]


@pytest.mark.parametrize(
    ("onward", "expected"),
    [
        (Onward.CONTINUE, ["call", "rest", "two"]),
        (Onward.STOP_RULE, ["call", "two"]),
        (Onward.STOP_RULE_SET, ["call"]),
    ],
)
def test_a_function_says_how_the_walk_goes_on(world: World, onward: Onward, expected: list[str]) -> None:
    call = world.act("call", onward=onward)
    world.run(("one", (A,), (call, world.act("rest"))), ("two", (A,), (world.act("two"),)))
    assert world.names == expected


def test_the_end_of_one_recipients_walk_is_not_the_others(world: World) -> None:
    stop = world.act("stop", ends=True, outward=False)
    world.run(("one", (A,), (stop,)), ("two", (A, B), (world.act("two"),)))
    assert [entry[:3] for entry in world.diary] == [("stop", "one", (A,)), ("two", "two", (B,))]


def test_actions_share_one_budget(world: World) -> None:
    hang = world.act("call", perform_it=_hangs)
    delivery = world.run(("one", (A,), (hang,)), budget=0.05)
    assert delivery.reply == NOT_DONE
    assert delivery.ran[0].detail["reason"] == "out of time"


def test_a_function_that_is_waited_for_may_outlast_the_budget(world: World) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.1)

    delivery = world.run(("one", (A,), (world.act("call", perform_it=slow, patience=5.0),)), budget=0.01)
    assert delivery.reply == OK


def test_when_the_ledger_cannot_be_written_the_message_is_deferred_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SqliteLedger, "remember", full)
    delivery = world.run(("one", (A,), (world.act("store"), world.act("call", perform_it=_fails))))
    assert delivery.reply == NOT_DONE
