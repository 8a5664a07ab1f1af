"""The program put together: the only module that knows every concrete class."""

import logging
import os
import secrets
import time
from collections.abc import Callable, Collection
from pathlib import Path as FilePath
from typing import Generic, TypeVar

from inbound import ruleset, ruletest
from inbound.actions import Cloud
from inbound.actions.kinds import ACTIONS
from inbound.clients.clamd import Clamd
from inbound.clients.dns import DnsResolver
from inbound.clients.local import LocalCloud
from inbound.deliver import Means
from inbound.examine import Stages
from inbound.gate import Gate
from inbound.mail import Client, Mail
from inbound.parking import NoParking, SqliteLedger
from inbound.record import Record
from inbound.rules import RuleSet
from inbound.settings import Settings
from inbound.stages import Resolver, Stage
from inbound.stages.arc import Arc
from inbound.stages.dkim import Dkim
from inbound.stages.dmarc import Dmarc
from inbound.stages.iprev import Iprev
from inbound.stages.spam import Spam
from inbound.stages.spf import Spf
from inbound.stages.virus import NoVirusScan, Virus
from inbound.transaction import Path, Refusal, Transaction
from inbound.verdicts import (
    ArcVerdict,
    DkimVerdict,
    DmarcVerdict,
    IprevVerdict,
    SpamVerdict,
    SpfVerdict,
    Status,
    VirusVerdict,
)

log = logging.getLogger(__name__)

DEBIAN_CLAMD = "/run/clamav/clamd.ctl"
STAGES = ("iprev", "spf", "dkim", "arc", "dmarc", "virus", "spam")

Verdict = TypeVar("Verdict")


class Judge:
    """Everything that it takes to say what would become of a mail, and nothing that acts."""

    def __init__(
        self, settings: Settings, *, now: Callable[[], float] = time.time, only: Collection[str] = STAGES
    ) -> None:
        """Raises ConfigurationError when settings or rules cannot be used; the rules must pass their own tests.

        `now` gives seconds since the epoch; only the stages named in `only` look at a message.
        """
        self.settings = settings
        self.clamd = settings.clamd or _usual_clamd()
        self.resolver = DnsResolver(settings.resolver, deadline=settings.deadlines.dns_query)
        self.ruleset = rules_in_force(settings)
        self.sight = Sight(
            gate=Gate(settings.block_list, settings.domains, self.resolver),
            stages=_stages(settings, self.resolver, self.clamd, now, only),
            secret=_secret(settings),
            now=now,
        )

    async def judge(self, mail: Mail) -> Record:
        """Say what would be found, met, done and answered."""
        return await judge(self.sight, self.ruleset, mail)


class App(Judge):
    """One receiver: fulfils `receive.Door`, and tells `note` what became of each mail. An async context."""

    def __init__(
        self, settings: Settings, *, note: Callable[[Record | Refusal], None], now: Callable[[], float] = time.time
    ) -> None:
        """Raises ConfigurationError as `Judge` does."""
        super().__init__(settings, now=now)
        self._note = note
        self._cloud = cloud(settings)
        self._ledger = SqliteLedger(settings.data_dir / "ledger.sqlite")
        self._path = Path(
            sight=self.sight,
            means=Means(
                cloud=self._cloud,
                ledger=self._ledger,
                parking=NoParking(),
                budget=settings.deadlines.deliver,
                account=settings.account,
                region=settings.region,
            ),
            hostname=settings.hostname,
            authserv_id=settings.authserv_id or settings.hostname,
        )

    async def __aenter__(self) -> Self:
        await self._cloud.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._cloud.__aexit__(kind, error, at)
        self._ledger.close()

    def open(self, client: Client, mail_from: str, *, smtputf8: bool) -> Transaction:
        """Begin a transaction under the rule set in force now."""
        return Transaction(self._path, self.ruleset, client, mail_from, smtputf8=smtputf8, note=self._note)

    def reload(self) -> None:
        """Take the rule files into force as they are now. Raises ConfigurationError; then nothing has changed."""
        self.ruleset = rules_in_force(self.settings)


def rules_in_force(settings: Settings) -> RuleSet:
    """The rule set of the settings, when it parses and passes its own tests. Raises ConfigurationError."""
    loaded = ruleset.load(settings.rules, ACTIONS)
    failed = [result for result in ruletest.run(loaded, settings.domains) if not result.passed]
    if failed:
        raise ConfigurationError([result.problem for result in failed])
    return loaded


class Skipped(Generic[Verdict]):
    """A stage that was not asked for: it looks at nothing and says so."""

    def __init__(self, name: str, verdict: Verdict) -> None:
        self.name = name
        self._verdict = verdict

    def broken(self, reason: str) -> Verdict:  # noqa: ARG002
        """It cannot break."""
        return self._verdict

    async def __call__(self, mail: Mail, *evidence: object) -> Verdict:  # noqa: ARG002
        """Nothing was looked at."""
        return self._verdict


def _stages(settings: Settings, resolver: Resolver, now: Callable[[], float], only: Collection[str]) -> Stages:
    skipped, off = "not asked for", Status.DISABLED
    clamd = clamd_address(settings)
    stages = Stages(
        iprev=Iprev(resolver),
        spf=Spf(resolver, hostname=settings.hostname),
        dkim=Dkim(resolver, now=now),
        arc=Arc(resolver),
        dmarc=Dmarc(resolver),
        virus=Virus(Clamd(clamd)) if clamd else NoVirusScan(),
        spam=Spam(settings.spam, hostname=settings.hostname, now=now),
        deadlines={"default": settings.deadlines.stage, "virus": settings.deadlines.virus},
    )
    return replace(stages, **{name: Skipped(name, verdict) for name, verdict in not_asked.items() if name not in only})
