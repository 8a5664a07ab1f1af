"""A stage that crashes or hangs is PROCESSING_FAILED; the others are not harmed by it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest

from inbound.examine import NOT_SCANNED, Stages, examine
from inbound.mail import Client, Headers, Mail
from inbound.verdicts import (
    ArcVerdict,
    BlockVerdict,
    DkimVerdict,
    DmarcVerdict,
    IprevVerdict,
    SpamVerdict,
    SpfVerdict,
    Status,
    VirusVerdict,
)

RAW = b"From: a@x.example\r\n\r\nhello\r\n"
MAIL = Mail(
    raw=RAW,
    headers=Headers.of(RAW),
    client=Client(ip=ip_address("192.0.2.7")),
    mail_from="a@x.example",
    rcpt_to=("b@y.example",),
    received_at=0.0,
    message_id="0" * 40,
)


@dataclass
class Look:
    """A stage that does what the test says."""

    name: str
    verdict: Any
    failed: Any
    act: Callable[..., Awaitable[None]]

    def broken(self, reason: str) -> Any:
        return self.failed(reason)

    async def __call__(self, mail: Mail, *evidence: Any) -> Any:
        assert mail is MAIL
        await self.act(*evidence)
        return self.verdict


async def _nothing(*_: Any) -> None:
    return None


def stages(**acts: Callable[..., Awaitable[None]]) -> Stages:
    def look(name: str, kind: Any, good: dict[str, Any], bad: dict[str, Any]) -> Any:
        return Look(name, kind(**good), lambda reason: kind(**bad, reason=reason), acts.get(name, _nothing))

    good, bad = {"status": Status.PASS}, {"status": Status.PROCESSING_FAILED}
    result, error = {"result": "pass"}, {"result": "temperror"}
    return Stages(
        iprev=look("iprev", IprevVerdict, result, error),
        spf=look("spf", SpfVerdict, good | result, bad | error),
        dkim=look("dkim", DkimVerdict, good | result, bad | error),
        arc=look("arc", ArcVerdict, result, error),
        dmarc=look("dmarc", DmarcVerdict, good | result, bad | error),
        virus=look("virus", VirusVerdict, good, bad),
        spam=look("spam", SpamVerdict, good, bad),
        deadlines={"default": 5.0, "virus": 0.05},
    )


async def _crash(*_: Any) -> None:
    raise ZeroDivisionError("the text of an exception stays in the log")


async def _hang(*_: Any) -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize("name", ["spf", "dkim", "dmarc", "spam", "virus"])
def test_a_stage_that_crashes_is_processing_failed_and_harms_no_other(name: str) -> None:
    found = asyncio.run(examine(MAIL, stages(**{name: _crash}), BlockVerdict(), scan=True))
    statuses = {stage: getattr(found, stage).status for stage in ("spf", "dkim", "dmarc", "spam", "virus")}
    assert statuses == dict.fromkeys(statuses, Status.PASS) | {name: Status.PROCESSING_FAILED}
    assert getattr(found, name).reason == "the check crashed (ZeroDivisionError)"


def test_a_stage_that_hangs_is_processing_failed_after_its_deadline() -> None:
    found = asyncio.run(examine(MAIL, stages(virus=_hang), BlockVerdict(), scan=True))
    assert found.virus == VirusVerdict(status=Status.PROCESSING_FAILED, reason="no verdict within 0.05 s")
    assert found.spf.status is Status.PASS


def test_a_stage_s_own_timeout_error_is_not_mistaken_for_a_verdict() -> None:
    async def times_out(*_: Any) -> None:
        raise TimeoutError

    found = asyncio.run(examine(MAIL, stages(spf=times_out), BlockVerdict(), scan=True))
    assert found.spf.status is Status.PROCESSING_FAILED


def test_without_a_scan_spam_and_virus_are_disabled_and_not_asked() -> None:
    found = asyncio.run(examine(MAIL, stages(spam=_crash, virus=_crash), BlockVerdict(), scan=False))
    assert (found.spam.status, found.spam.reason) == (Status.DISABLED, NOT_SCANNED)
    assert (found.virus.status, found.virus.reason) == (Status.DISABLED, NOT_SCANNED)
    assert sorted(found.timings_ms) == ["arc", "dkim", "dmarc", "iprev", "spf"]


def test_dmarc_is_given_what_spf_and_dkim_found_and_spam_all_of_it() -> None:
    seen: dict[str, tuple[Any, ...]] = {}

    def see(name: str) -> Callable[..., Awaitable[None]]:
        async def act(*evidence: Any) -> None:
            seen[name] = tuple(type(one).__name__ for one in evidence)

        return act

    asyncio.run(examine(MAIL, stages(dmarc=see("dmarc"), spam=see("spam")), BlockVerdict(), scan=True))
    assert seen == {
        "dmarc": ("SpfVerdict", "DkimVerdict"),
        "spam": ("SpfVerdict", "DkimVerdict", "DmarcVerdict", "IprevVerdict", "BlockVerdict"),
    }
