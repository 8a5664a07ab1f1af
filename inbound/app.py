"""The program put together: the only module that knows every concrete class."""

import contextlib
import hmac
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from ipaddress import ip_address
from pathlib import Path as FilePath
from types import TracebackType
from typing import TYPE_CHECKING, Self

from inbound import rulecheck, ruleset, ruletest
from inbound.actions import Cloud
from inbound.actions.kinds import ACTIONS
from inbound.actions.relay import Relay
from inbound.addresses import a_labels
from inbound.backscatter import Rates
from inbound.bounces import Bounces, Postman
from inbound.clients.clamd import Clamd
from inbound.clients.dns import Resolver as Dns
from inbound.clients.invoke import Runner
from inbound.clients.local import LocalCloud
from inbound.clients.outbox import Outbox
from inbound.clients.relay import Relays
from inbound.clients.ses import Ses
from inbound.deliver import Means
from inbound.errors import ConfigurationError, Failure, Problem
from inbound.examine import Stages
from inbound.gate import Gate
from inbound.greylist import Greylist
from inbound.mail import Client, Mail
from inbound.offload import offload
from inbound.parking import NoParking, SqliteLedger
from inbound.receive import Rebuff
from inbound.receive.edge import host_and_port
from inbound.recipients import Domains
from inbound.record import Record
from inbound.reports.collect import Collector
from inbound.reports.send import LOCK, Mailing, alone, mailings
from inbound.reports.store import FILE as REPORTS
from inbound.reports.store import Store
from inbound.reports.write import Issue, Period, Reporter, issued
from inbound.rules import Rule, RuleSet
from inbound.samples import shipped
from inbound.schema import Place
from inbound.settings import Settings, contradictions
from inbound.srs import Srs
from inbound.stages import Resolver
from inbound.stages.arc import Arc
from inbound.stages.dkim import Dkim
from inbound.stages.dmarc import Dmarc, load_parser
from inbound.stages.iprev import Iprev
from inbound.stages.skipped import SKIPPED
from inbound.stages.spam import Spam
from inbound.stages.spf import Spf
from inbound.stages.upstream import Upstream
from inbound.stages.virus import NO_SCANNER, Virus
from inbound.transaction import Path, Refusal, Sight, Transaction, judge

if TYPE_CHECKING:
    from inbound.clients.aws import AwsCloud

log = logging.getLogger(__name__)

DEBIAN_CLAMD = FilePath("/run/clamav/clamd.ctl")

FUNCTION_SECONDS = 30.0  # that a command waits for the functions it has queued, with cloud: local

STAGES = tuple(SKIPPED)


class Judge:
    """Everything that it takes to say what would become of a mail, and nothing that acts."""

    makes_secret = False

    def __init__(
        self,
        settings: Settings,
        *,
        rules: RuleSet | None = None,
        now: Callable[[], float] = time.time,
        only: Collection[str] = STAGES,
    ) -> None:
        """Raises ConfigurationError when settings or rules cannot be used; the rules must pass their own tests.

        `rules` are those in force already; without them the settings say where they are. `now` gives seconds since the
        epoch; only the stages named in `only` look at a message.
        """
        at_odds = [
            Problem(file=".".join(keys), line=0, column=0, message=said) for keys, said in contradictions(settings)
        ]
        if at_odds:
            raise ConfigurationError(at_odds)
        self.settings = settings
        self.resolver = resolver_of(settings)
        self.ruleset = rules or rules_in_force(settings)
        secret = _secret(settings, make=self.makes_secret)
        self.srs = srs_of(settings, secret, now)
        self.sight = Sight(
            gate=Gate(settings.block_list, settings.domains, self.resolver, srs=self.srs),
            stages=_stages(settings, self.resolver, now, only),
            secret=secret,
            now=now,
            split=settings.split_recipients,
        )

    async def judge(self, mail: Mail) -> Record:
        """Say what would be found, met, done and answered."""
        return await judge(self.sight, self.ruleset, mail)


class App(Judge):
    """One receiver: fulfils `receive.Door`, and tells `note` what became of each mail. An async context."""

    makes_secret = True

    def __init__(
        self,
        settings: Settings,
        *,
        note: Callable[[Record | Refusal | Rebuff], None],
        rules: RuleSet | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigurationError as `Judge` does."""
        super().__init__(settings, rules=rules, now=now)
        self._note = note
        self._collector = Collector(_reports(settings), now=now) if settings.reports.collect else None
        self._relays = relays_of(settings, self.srs)
        self._cloud = cloud_of(settings, self._relays)
        self._ledger = _ledger(settings)
        self._greylist = _greylist(settings, now)
        self._bounces = _bounces(settings, self._cloud, self._relays)
        self._running = contextlib.AsyncExitStack()
        self._path = Path(
            sight=self.sight,
            means=_means(settings, self._cloud, self._ledger, self._bounces),
            hostname=settings.hostname,
            authserv_id=settings.authserv_id or settings.hostname,
            greylist=self._greylist,
        )

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as running:
            for file in (self._greylist, self._bounces, self._ledger):
                if file is not None:
                    running.callback(file.close)
            await load_parser()
            await running.enter_async_context(self._cloud)
            await running.enter_async_context(self._relays)
            if self._collector:
                await running.enter_async_context(self._collector)
            self._running = running.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._running.__aexit__(kind, error, at)

    def open(self, client: Client, mail_from: str, *, smtputf8: bool) -> Transaction:
        """Begin a transaction under the rule set in force now."""
        return Transaction(self._path, self.ruleset, client, mail_from, smtputf8=smtputf8, note=self._noted)

    def _noted(self, note: Record | Refusal) -> None:
        if self._collector and isinstance(note, Record):
            self._collector.note(note)
        self._note(note)

    def tell(self) -> None:
        """Log what the resolver and the cloud did so far."""
        for name, counters in (("dns", self.resolver.counters), ("cloud", self._cloud.counters)):
            log.info("%s: %s", name, counted(asdict(counters)))

    def rebuffed(self, rebuff: Rebuff) -> None:
        """Note what the edge has refused by itself."""
        self._note(rebuff)

    def reload(self) -> None:
        """Take the rule files into force as they are now. Raises ConfigurationError; then nothing has changed."""
        self.ruleset = rules_in_force(self.settings)


def counted(counters: Mapping[str, int]) -> str:
    """What was counted, in words."""
    return ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counters.items())


def prepare(settings: Settings) -> None:
    """Make what several workers share, before there are any. Raises ConfigurationError."""
    try:
        _secret(settings, make=True)
        _ledger(settings).close()
        if settings.tells:
            _rates(settings).close()
        if settings.reports.collect:
            _reports(settings).close()
        greylist = _greylist(settings, time.time)
        if greylist is not None:
            greylist.close()
    except (OSError, sqlite3.Error) as error:
        message = f"cannot be used: {getattr(error, 'strerror', None) or error}"
        raise ConfigurationError([Problem(file=str(settings.data_dir), line=0, column=0, message=message)]) from error


def rules_of(settings: Settings) -> RuleSet:
    """The rule set as it is written, tested or not, and what the settings add to it. Raises ConfigurationError."""
    loaded = ruleset.load(settings.rules or shipped("rules"), ACTIONS)
    impossible = [
        rule.place.problem(f"rule {rule.name!r} {flaw}")
        for rule in loaded.rules
        for action in rule.actions
        if isinstance(action, Relay) and (flaw := action.flaw(settings.relay))
    ]
    if impossible:
        raise ConfigurationError(impossible)
    if not settings.relay.srs_domain:
        return loaded
    ours = returns(settings.relay.srs_domain)
    alike = [
        rule.place.problem(f"{ours.name!r} is the rule of relay.srs_domain")
        for rule in loaded.rules
        if rule.name == ours.name
    ]
    if alike:
        raise ConfigurationError(alike)
    return replace(loaded, rules=(*loaded.rules, ours))


def returns(domain: str) -> Rule:
    """The rule behind all others that hands on what comes back to senders whom `mail_from: srs` has rewritten."""
    return Rule(
        name="srs-returns",
        why="What comes back to a rewritten sender is for the sender.",
        recipients=frozenset({f"srs0=@{domain}", f"srs1=@{domain}"}),
        actions=(Relay(mail_from="srs", to="srs"),),
        place=Place(file="relay.srs_domain"),
    )


def rules_in_force(settings: Settings) -> RuleSet:
    """The rule set of the settings, when it passes its own tests and can be carried out. Raises ConfigurationError."""
    loaded = rules_of(settings)
    impossible = rulecheck.impossible(loaded, settings)
    if impossible:
        raise ConfigurationError(impossible)
    failed = [
        result.problem
        for result in ruletest.run(loaded, settings.domains, split=settings.split_recipients)
        if result.problem
    ]
    if failed:
        raise ConfigurationError(failed)
    return loaded


def warnings_of(settings: Settings, loaded: RuleSet) -> tuple[Problem, ...]:
    """What is odd about a rule set under these settings."""
    return rulecheck.warnings(loaded, replace(settings, clamd=clamd_of(settings)))


def cloud_of(settings: Settings, relays: Relays | None = None) -> "LocalCloud | AwsCloud":
    """Where buckets, keys, functions and topics are, and mail is sent on through; an async context."""
    if settings.cloud == "aws":
        from inbound.clients.aws import AwsCloud  # noqa: PLC0415 - boto3 takes long to import, and not all need it

        return AwsCloud(region=settings.region, endpoint_url=settings.endpoint_url, relays=relays)
    runner = Runner(settings.functions, account=settings.account, region=settings.region)
    return LocalCloud(settings.data_dir, account=settings.account, region=settings.region, runner=runner, relays=relays)


@contextlib.asynccontextmanager
async def means_of(settings: Settings) -> AsyncIterator[Means]:
    """What deliveries work with outside of a receiver: nobody is told of refusals. Raises ConfigurationError.

    At the end it waits for functions that nobody waits for.
    """
    with contextlib.closing(_ledger(settings)) as ledger:
        srs = own_srs(settings) if settings.relay.srs_domain else None
        async with relays_of(settings, srs) as relays, cloud_of(settings, relays) as cloud:
            yield _means(settings, cloud, ledger)
            if isinstance(cloud, LocalCloud):
                await cloud.idle(FUNCTION_SECONDS)


def _means(settings: Settings, cloud: Cloud, ledger: SqliteLedger, bounces: Bounces | None = None) -> Means:
    return Means(
        cloud=cloud,
        ledger=ledger,
        parking=NoParking(),
        budget=settings.deadlines.deliver,
        account=settings.account,
        region=settings.region,
        ours=settings.events == "inbound",
        bounces=bounces,
    )


def srs_of(settings: Settings, secret: bytes, now: Callable[[], float] = time.time) -> Srs | None:
    """What rewrites senders, None without `relay.srs_domain`. Its key is made of the installation's secret."""
    if not settings.relay.srs_domain:
        return None
    domains = Domains(settings.domains)
    key = hmac.digest(secret, b"srs", "sha256").hex().encode("ascii")
    return Srs(key, settings.relay.srs_domain, days=settings.relay.srs_days, ours=domains.include, now=now)


def own_srs(settings: Settings) -> Srs:
    """The same for who asks outside of a receiver. Raises ConfigurationError when there is none, or no secret yet."""
    secret = _secret(settings, make=False)
    srs = srs_of(settings, secret)
    if srs is None or not secret:
        message = "is not set" if srs is None else "has no secret yet: the receiver makes one when it starts"
        raise ConfigurationError([Problem(file="relay.srs_domain", line=0, column=0, message=message)])
    return srs


def relays_of(settings: Settings, srs: Srs | None = None) -> Relays:
    """Where mail that leaves goes; an async context. Raises ConfigurationError."""
    addresses = (one if isinstance(one, str) else one.address for one in settings.listen)
    listening = frozenset((_address(host or ""), port) for host, port in map(host_and_port, addresses))
    return Relays(settings.relay, hostname=settings.hostname, listening=listening, srs=srs)


def _address(host: str) -> str:
    """An address that is listened on; "" for a name, which may have any."""
    try:
        return str(ip_address(host))
    except ValueError:
        return ""


def clamd_of(settings: Settings) -> str:
    """Where clamd listens: as the settings say, else where Debian puts its socket if it is there, else ""."""
    return settings.clamd or (f"unix:{DEBIAN_CLAMD}" if DEBIAN_CLAMD.is_socket() else "")


async def scanner_of(settings: Settings) -> tuple[str, str]:
    """Where clamd listens ("" when nowhere), and its version or why it does not answer."""
    where = clamd_of(settings)
    if not where:
        return "", "no clamd is set and none listens at its usual place"
    try:
        return where, await offload(Clamd(where).version)
    except Failure as failure:
        return where, f"does not answer, so mail that rules look at for viruses waits at its sender ({failure})"


def _stages(settings: Settings, resolver: Resolver, now: Callable[[], float], only: Collection[str]) -> Stages:
    clamd = clamd_of(settings)
    stages = Stages(
        iprev=Iprev(resolver),
        spf=Spf(resolver, receiver=settings.hostname, now=now),
        dkim=Dkim(resolver, now=now),
        arc=Arc(resolver, now=now),
        dmarc=Dmarc(resolver),
        virus=Virus(Clamd(clamd)) if clamd else NO_SCANNER,
        spam=Spam(settings.spam, hostname=settings.hostname, now=now),
        upstream=_upstream(settings),
        deadlines={"default": settings.deadlines.stage, "virus": settings.deadlines.virus},
    )
    return replace(stages, **{name: stage for name, stage in SKIPPED.items() if name not in only})


def _upstream(settings: Settings) -> Upstream | None:
    trusted = settings.trusted
    return Upstream(trusted.authserv_ids, trusted.forwarders) if trusted.authserv_ids and trusted.forwarders else None


def resolver_of(settings: Settings) -> Dns:
    """The resolver of the settings. Raises ConfigurationError."""
    try:
        return Dns(settings.resolver, deadline=settings.deadlines.dns_query, dnssec=settings.dnssec)
    except ValueError as error:
        problem = Problem(file="resolver", line=0, column=0, message=f"{error}; it is IP or IP:PORT, several by commas")
        raise ConfigurationError([problem]) from error


def _ledger(settings: Settings) -> SqliteLedger:
    return SqliteLedger(settings.data_dir / "ledger.sqlite")


def collected(settings: Settings) -> Store:
    """What the receiver has collected for reports. Raises ConfigurationError when there is nothing, or it cannot be read."""
    file = settings.data_dir / REPORTS
    message = "nothing was collected yet; `reports: {collect: yes}` in the settings begins it"
    if file.is_file():
        try:
            return _reports(settings)
        except (OSError, sqlite3.Error) as error:
            message = f"cannot be used: {error}"
    raise ConfigurationError([Problem(file=str(file), line=0, column=0, message=message)])


async def write_reports(settings: Settings, directory: FilePath, period: Period) -> list[Issue]:
    """Write the report of each domain that asks for one. Raises ConfigurationError."""
    async with _reporting(settings) as (store, resolver):
        with _writable(directory):
            return [issue async for issue in issued(store, _reporter(settings), period, directory, resolver)]


async def send_reports(settings: Settings, days: Sequence[int], *, dry: bool) -> list[Mailing]:
    """Send the reports of these days through the next hop; `dry` tells what would be sent. Raises ConfigurationError."""
    if not settings.relay.host and not dry:
        message = "reports are sent through a next hop: `relay: {host: …}` names it"
        raise ConfigurationError([Problem(file="relay.host", line=0, column=0, message=message)])
    lock = settings.data_dir / LOCK
    async with _reporting(settings) as (store, resolver), relays_of(settings) as relays:
        with _writable(lock), alone(lock):
            postman = None if dry else relays.to()
            return [one async for one in mailings(store, _reporter(settings), days, resolver, postman)]


@contextlib.asynccontextmanager
async def _reporting(settings: Settings) -> AsyncIterator[tuple[Store, Dns]]:
    """What is collected, and the resolver that knows who may have a report of it. Raises ConfigurationError."""
    with contextlib.closing(collected(settings)) as store:
        resolver = resolver_of(settings)
        try:
            yield store, resolver
        finally:
            await resolver.close()


@contextlib.contextmanager
def _writable(place: FilePath) -> Iterator[None]:
    """Why it cannot be written there is a ConfigurationError."""
    try:
        yield
    except OSError as error:
        message = f"cannot be written to: {error.strerror or error}"
        raise ConfigurationError([Problem(file=str(place), line=0, column=0, message=message)]) from error


def _reporter(settings: Settings) -> Reporter:
    ours = settings.reports
    return Reporter(
        receiver=a_labels(settings.hostname) or "localhost",
        org_name=ours.org_name or settings.hostname,
        email=ours.email or f"postmaster@{settings.domains[0].lstrip('.') if settings.domains else settings.hostname}",
        extra_contact_info=ours.extra_contact_info,
    )


def _reports(settings: Settings) -> Store:
    return Store(settings.data_dir / REPORTS, keep_days=settings.reports.keep_days)


def _greylist(settings: Settings, now: Callable[[], float]) -> Greylist | None:
    if not settings.greylist.enabled:
        return None
    return Greylist(settings.greylist, settings.data_dir / "greylist.sqlite", now=now)


def _bounces(settings: Settings, cloud: "LocalCloud | AwsCloud", relays: Relays) -> Bounces | None:
    """How senders are told of what could not be refused in the session; None where they cannot be."""
    if not settings.tells:
        return None
    postman: Postman = relays.to()
    if settings.dsn.through == "outbox":
        postman = Outbox(settings.data_dir / "outbox")
    elif settings.dsn.through == "ses" and not isinstance(cloud, LocalCloud):  # it has cloud: aws
        postman = Ses(cloud)
    return Bounces(postman=postman, rates=_rates(settings), hostname=settings.hostname, sender=settings.dsn.sender)


def _rates(settings: Settings) -> Rates:
    return Rates(settings.data_dir / "dsn.sqlite", per_hour=settings.dsn.per_hour)


def _secret(settings: Settings, *, make: bool) -> bytes:
    """The installation's secret: of the settings, else of `data_dir`, made there when it is missing and may be made."""
    if settings.secret:
        return settings.secret.encode()
    file = settings.data_dir / "secret"
    if make:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(made, "w", encoding="ascii") as new:
                new.write(secrets.token_hex(32))
    try:
        return file.read_bytes()
    except OSError as error:
        if not make and isinstance(error, FileNotFoundError):
            return b""
        problem = Problem(file=str(file), line=0, column=0, message=f"the secret cannot be read: {error.strerror}")
        raise ConfigurationError([problem]) from error
