"""Greylisting: who is new waits once and not for long, and who is known not at all."""

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest

from inbound.examine import NOT_SCANNED
from inbound.greylist import PER_CLIENT, SWEPT_AT_MOST, SWEPT_EVERY, Greylist, come_again
from inbound.mail import Client
from inbound.settings import BlockList
from inbound.settings import Greylist as Settings
from inbound.transaction import Refusal
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
from tests.harness import Receiver, mail, receiver

DELAY = 60.0
HOUR = 3600.0
DAY = 24 * HOUR
NO_SPF = SpfVerdict(status=Status.GRAY, result="none", domain="sender.example")
NO_ANSWER = SpfVerdict(status=Status.PROCESSING_FAILED, result="temperror", domain="sender.example")


def spf_of(domain: str) -> SpfVerdict:
    return SpfVerdict(status=Status.PASS, result="pass", domain=domain)


def verdicts(spf: SpfVerdict = NO_SPF, *, spam: Status = Status.PASS, virus: Status = Status.PASS) -> Verdicts:
    return Verdicts(
        spf=spf,
        dkim=DkimVerdict(status=Status.GRAY, result="none"),
        dmarc=DmarcVerdict(status=Status.GRAY, result="none"),
        arc=ArcVerdict(result="none"),
        iprev=IprevVerdict(result="none"),
        spam=SpamVerdict(status=spam, reason=NOT_SCANNED),
        virus=VirusVerdict(status=virus),
    )


@dataclass
class World:
    """A greylist, and a clock that the test moves."""

    path: Path
    settings: Settings
    at: float = 1_790_000_000.0
    lists: list[Greylist] = field(default_factory=list)

    def open(self) -> Greylist:
        """Another worker with the same file."""
        self.lists.append(Greylist(self.settings, self.path, now=lambda: self.at))
        return self.lists[-1]

    def waits(
        self,
        ip: str,
        *,
        sender: str = "pat@sender.example",
        to: str = "support@example.com",
        spf: SpfVerdict = NO_SPF,
        worker: int = 0,
    ) -> float:
        """One try: the seconds that are left to wait."""

        async def answer() -> float:
            found: asyncio.Future[SpfVerdict] = asyncio.get_running_loop().create_future()
            found.set_result(spf)
            reply = await self.lists[worker].answer(Client(ip=ip_address(ip)), sender, to, found)
            if reply is None:
                return 0.0
            assert (reply.code, reply.enhanced) == (451, "4.7.1")
            return float(reply.text.split()[-2])

        return asyncio.run(answer())

    def takes(self, ip: str, found: Verdicts) -> None:
        asyncio.run(self.lists[0].learn(Client(ip=ip_address(ip)), found))

    def entries(self) -> int:
        with closing(sqlite3.connect(self.path)) as file:
            return int(file.execute("SELECT COUNT(*) FROM seen").fetchone()[0])


@pytest.fixture(name="world")
def _world(tmp_path: Path) -> Iterator[World]:
    with world_of(tmp_path) as made:
        yield made


@contextmanager
def world_of(directory: Path, settings: Settings | None = None) -> Iterator[World]:
    made = World(directory / "greylist.sqlite", settings or Settings(enabled=True, delay_seconds=DELAY))
    made.open()
    try:
        yield made
    finally:
        for one in made.lists:
            one.close()


def test_a_first_contact_waits_and_its_retry_is_taken(world: World) -> None:
    assert world.waits("192.0.2.1") == DELAY
    world.at += DELAY
    assert world.waits("192.0.2.1") == 0


def test_a_retry_that_is_too_early_does_not_begin_the_wait_anew(world: World) -> None:
    left = []
    for _ in range(7):
        left.append(world.waits("192.0.2.1"))
        world.at += 10
    assert left == [60, 50, 40, 30, 20, 10, 0]


def test_a_retry_from_a_neighbour_counts(world: World) -> None:
    assert [world.waits("192.0.2.1"), world.waits("2001:db8::1")] == [DELAY, DELAY]
    world.at += DELAY
    assert [world.waits("192.0.2.254"), world.waits("2001:db8::ffff:1")] == [0, 0]
    assert [world.waits("192.0.3.1"), world.waits("2001:db8:0:1::1")] == [DELAY, DELAY]


def test_a_retry_from_anywhere_counts_where_spf_passes(world: World) -> None:
    assert world.waits("192.0.2.1", spf=spf_of("Sender.example")) == DELAY
    world.at += DELAY
    assert world.waits("198.51.100.1", spf=NO_SPF) == DELAY
    assert world.waits("203.0.113.1", spf=spf_of("sender.example")) == 0


def test_spf_that_has_no_answer_at_the_retry_starts_no_second_wait(world: World) -> None:
    assert world.waits("192.0.2.1", spf=spf_of("sender.example")) == DELAY
    world.at += DELAY
    assert world.waits("192.0.2.2", spf=NO_ANSWER) == 0


@pytest.mark.parametrize(
    "other", [{"sender": "eve@sender.example"}, {"sender": ""}, {"to": "sales@example.com"}], ids=str
)
def test_another_envelope_is_another_contact(world: World, other: dict[str, str]) -> None:
    world.waits("192.0.2.1")
    world.at += DELAY
    assert world.waits(
        "192.0.2.1", sender=other.get("sender", "pat@sender.example"), to=other.get("to", "support@example.com")
    )


def test_the_null_reverse_path_waits_once_like_any_other(world: World) -> None:
    assert world.waits("192.0.2.1", sender="") == DELAY
    world.at += DELAY
    assert world.waits("192.0.2.1", sender="") == 0


def test_who_brought_good_mail_never_waits_again(world: World) -> None:
    world.takes("192.0.2.1", verdicts(spf_of("sender.example")))
    assert world.waits("192.0.2.77", sender="new@elsewhere.example", to="other@example.com") == 0
    assert (
        world.waits("203.0.113.9", sender="new@sender.example", to="other@example.com", spf=spf_of("sender.example"))
        == 0
    )
    assert world.waits("203.0.113.9", sender="new@sender.example", to="other@example.com") == DELAY


@pytest.mark.parametrize(
    ("bad", "waits"),
    [
        (verdicts(spam=Status.FAIL), DELAY),
        (verdicts(virus=Status.FAIL), DELAY),
        (verdicts(spam=Status.GRAY), 0),
        (verdicts(spam=Status.DISABLED, virus=Status.DISABLED), 0),
    ],
)
def test_spam_and_viruses_make_nobody_known(world: World, bad: Verdicts, waits: float) -> None:
    world.takes("192.0.2.1", bad)
    assert world.waits("192.0.2.1") == waits


def test_a_late_retry_is_a_first_contact_again(world: World) -> None:
    world.waits("192.0.2.1")
    world.at += DAY + 1
    assert world.waits("192.0.2.1") == DELAY


def test_who_writes_once_a_month_stays_known_and_who_falls_silent_is_forgotten(world: World) -> None:
    world.takes("192.0.2.1", verdicts())
    waited = []
    for days in (30, 30, 30, 30, 37):
        world.at += days * DAY
        waited.append(world.waits("192.0.2.1", to=f"r{world.at:.0f}@example.com"))
    assert waited == [0, 0, 0, 0, DELAY]


def test_a_clock_that_is_set_back_makes_nobody_wait_for_ever(world: World) -> None:
    world.waits("192.0.2.1")
    world.at -= 30 * DAY
    assert world.waits("192.0.2.1") == DELAY
    world.at += DELAY
    assert world.waits("192.0.2.1") == 0


def test_workers_share_what_they_know_and_it_outlives_them(world: World) -> None:
    world.open()
    world.waits("192.0.2.1", worker=0)
    world.at += DELAY
    assert world.waits("192.0.2.1", worker=1) == 0
    world.open()
    assert world.waits("192.0.2.1", worker=2) == 0


def test_a_file_that_cannot_be_used_makes_nobody_wait(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.lists[0]._book._connection.execute("DROP TABLE seen")
    assert world.waits("192.0.2.1") == 0
    world.takes("192.0.2.1", verdicts())
    assert [record.message for record in caplog.records] == [
        "the greylist cannot be used, nobody waits",
        "the greylist cannot be written",
    ]


def test_a_file_that_is_locked_by_another_process_makes_nobody_wait(world: World) -> None:
    world.lists[0]._book._connection.execute("PRAGMA busy_timeout = 20")
    with closing(sqlite3.connect(world.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert world.waits("192.0.2.1") == 0


def test_one_network_cannot_fill_it(world: World) -> None:
    waits = world.lists[0]._book.seconds_left
    for number in range(PER_CLIENT + 500):
        world.at += 0.001
        waits(("4:c00002",), f"spam{number}@bot.example\0support@example.com")
    assert world.entries() == PER_CLIENT


def test_all_networks_together_cannot_fill_it_and_who_is_known_stays(tmp_path: Path) -> None:
    settings = Settings(enabled=True, delay_seconds=DELAY, entries=500)
    with world_of(tmp_path, settings) as world:
        world.takes("198.51.100.1", verdicts())
        most = 0
        for number in range(6 * SWEPT_EVERY):
            world.at += 0.001
            world.lists[0]._book.seconds_left((f"4:{number:x}",), "spam@bot.example\0support@example.com")
            most = max(most, world.entries()) if number % 64 == 0 else most
        assert most <= settings.entries + SWEPT_EVERY < settings.entries + SWEPT_AT_MOST
        assert world.waits("198.51.100.1") == 0


def test_what_is_over_is_swept_out(world: World) -> None:
    waits = world.lists[0]._book.seconds_left
    for number in range(SWEPT_EVERY - 1):
        waits((f"4:{number:x}",), "a\0b")
    world.at += 2 * DAY
    waits(("4:ffffff",), "a\0b")
    assert world.entries() == 1


# How senders try again, in seconds from the first try: by their manuals' defaults.
SCHEDULES = {
    "postfix": [300, 600, 1200, 2400, 4800],
    "exim": [900, 1800, 2700, 3600],
    "sendmail": [3600, 7200],
    "qmail": [400, 1600, 3600],
    "eager": [5, 15, 45, 90, 180],
    "on the dot": [60],
    "a long queue": [4 * 3600],
}
POOLS: dict[str, tuple[Callable[[int], str], SpfVerdict]] = {
    "one host": (lambda _: "192.0.2.1", NO_SPF),
    "a /24": (lambda attempt: f"192.0.2.{attempt * 17 % 256}", NO_SPF),
    "a /64": (lambda attempt: f"2001:db8::{attempt:x}", NO_SPF),
    "a cloud with SPF": (lambda attempt: f"198.{attempt % 250}.100.1", spf_of("sender.example")),
}


@pytest.mark.parametrize(("schedule", "pool"), list(itertools.product(SCHEDULES, POOLS)))
def test_a_sender_that_tries_again_is_taken_at_its_first_try_behind_the_delay(
    world: World, schedule: str, pool: str
) -> None:
    host, spf = POOLS[pool]
    start = world.at
    tries = [0, *SCHEDULES[schedule]]
    for attempt, seconds in enumerate(tries):
        world.at = start + seconds
        if not world.waits(host(attempt), spf=spf):
            break
    assert seconds == min(when for when in tries if when >= DELAY)


def test_a_bot_that_never_comes_again_gets_nothing_in(world: World) -> None:
    got_in = []
    for number in range(2000):
        world.at += 1.0
        got_in.append(
            world.lists[0]._book.seconds_left((f"4:{number % 50:x}",), f"{number}@bot.example\0support@example.com")
            == 0
        )
    assert not any(got_in)


def test_the_reply_says_when_to_come_again() -> None:
    assert str(come_again(0.2)).endswith("please try again in 1 seconds")


ON = Settings(enabled=True)


def clock_of(mx: Receiver) -> list[float]:
    """The greylist's clock, for the test to move."""
    assert mx.app._greylist is not None
    clock = [mx.app.sight.now()]
    mx.app._greylist._book._now = lambda: clock[0]
    return clock


def test_a_stranger_waits_at_rcpt_and_is_known_when_its_mail_was_taken(tmp_path: Path) -> None:
    async def run() -> None:
        async with receiver(tmp_path, greylist=ON) as mx:
            clock = clock_of(mx)
            first = await mx.send(mail())
            assert str(first["support@example.com"]).startswith("451 4.7.1 Greylisted")
            (note,) = mx.notes
            assert isinstance(note, Refusal)
            assert note.recipient == "support@example.com"
            unknown = await mx.send(mail(), "nobody@example.com")
            assert unknown["nobody@example.com"].code == 550  # nothing that is refused anyway waits first
            clock[0] += ON.delay_seconds
            assert (await mx.reply(mail()))[:3] == "250"
            assert len(mx.objects("mail-support")) == 1
            other = await mx.send(mail(), "sales@example.com", mail_from="else@sender.example", client_ip="192.0.2.99")
            assert other["sales@example.com"].code != 451

    asyncio.run(run())


def test_who_is_on_the_allow_list_never_waits(tmp_path: Path) -> None:
    async def run() -> None:
        lists = BlockList(allow=("192.0.2.0/24",))
        async with receiver(tmp_path, greylist=ON, block_list=lists) as mx:
            assert (await mx.reply(mail()))[:3] == "250"

    asyncio.run(run())


def test_a_recipient_that_waits_is_not_in_the_message_of_one_that_need_not(tmp_path: Path) -> None:
    async def run() -> None:
        async with receiver(tmp_path, greylist=ON, rules=EVERYBODY) as mx:
            clock = clock_of(mx)
            await mx.send(mail(), "old@example.com")
            clock[0] += ON.delay_seconds
            answers = await mx.send(mail(), "new@example.com", "old@example.com")
            assert (answers["new@example.com"].code, answers[""].code) == (451, 250)
            assert mx.record.rcpt_to == ("old@example.com",)

    asyncio.run(run())


EVERYBODY = """
rules:
  - name: store
    recipients: [example.com]
    actions: [s3: {bucket: mail-all}]
"""
