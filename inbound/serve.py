"""`inbound serve`: one receiver in this process, or several workers under a supervisor; how each is told to stop and reload."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace

import uvloop

from inbound.actions.invoke import PATIENCE
from inbound.app import App, prepare, rules_in_force, scanner_of
from inbound.bounces import PATIENCE as TO_TELL
from inbound.errors import ConfigurationError
from inbound.journal import Journal
from inbound.receive.board import Board, Seat
from inbound.receive.edge import Bound, Edge
from inbound.rules import RuleSet
from inbound.samples import shipped
from inbound.settings import Settings
from inbound.sockets import become, bind, close, handed_over
from inbound.stages import dmarc
from inbound.workers import UNABLE, WELL, Post, Supervisor, notify

log = logging.getLogger("inbound")

SLACK = 5.0  # seconds beyond its own deadlines that a worker may take to end
GARBAGE = 10_000  # objects between two looks for cycles, of which a message leaves few; at Python's 700 they took 4 % of the time


def serve(settings: Settings) -> int:
    """Receive until SIGTERM; returns an exit code. Raises ConfigurationError."""
    bound = bind(settings.listen, handed_over(os.environ))
    if settings.user:
        become(settings.user)
    count = (os.cpu_count() or 1) if settings.workers == "auto" else settings.workers
    if count == 1:
        uvloop.run(_receive(settings, Journal(settings.log), bound, rules=None, ready=lambda: notify("READY=1")))
        return WELL
    return _Several(settings, bound, count).run()


class _Several:
    """What the supervisor knows: the rules in force, which every worker starts with."""

    def __init__(self, settings: Settings, bound: Sequence[Bound], count: int) -> None:
        self._settings = settings
        self._bound = bound
        self._count = count
        self._journal = Journal(settings.log, shared=True)
        self._board = Board(count)
        self._rules = rules_in_force(settings)
        prepare(settings)
        dmarc.preload()  # once, for all workers

    def run(self) -> int:
        log.info("%d workers", self._count)
        return Supervisor(
            self._count,
            self._work,
            reload=self._reload,
            grace=grace(self._settings) + SLACK,
            buried=self._board.clear,
        ).run()

    def _work(self, post: Post) -> int:
        """In a process of its own."""
        try:
            uvloop.run(
                _receive(
                    _share(self._settings, self._count),
                    self._journal,
                    self._bound,
                    rules=self._rules,
                    ready=post.ready,
                    first=post.number == 0,
                    lifeline=post.lifeline,
                    seat=self._board.seat(post.number),
                )
            )
        except ConfigurationError as error:
            log.error("worker %d cannot start:\n%s", post.number, error)  # noqa: TRY400 - the problems say it all
            return UNABLE
        return WELL

    def _reload(self) -> bool:
        try:
            self._rules = rules_in_force(self._settings)
        except ConfigurationError as error:
            log.error("the rules stay as they were:\n%s", error)  # noqa: TRY400
            return False
        return True


def _share(settings: Settings, count: int) -> Settings:
    """The settings of one of `count` workers: the memory for messages is divided, never below one message."""
    limits = settings.limits
    octets = max(limits.bytes_in_flight // count, limits.message_bytes)
    return replace(settings, limits=replace(limits, bytes_in_flight=octets))


async def _receive(
    settings: Settings,
    journal: Journal,
    bound: Sequence[Bound],
    *,
    rules: RuleSet | None,
    ready: Callable[[], None],
    first: bool = True,
    lifeline: int = -1,
    seat: Seat | None = None,
) -> None:
    async with App(settings, note=journal, rules=rules) as app:
        edge = Edge(
            app,
            hostname=settings.hostname,
            limits=settings.limits,
            tls=settings.tls,
            proxy_from=settings.proxy_from,
            seat=seat,
        )
        addresses = await edge.start(bound)
        gc.freeze()
        gc.set_threshold(GARBAGE, *gc.get_threshold()[1:])
        if first:
            await announce(app, addresses)
        await until_told(app, also=edge.reload_certificates, ready=ready, lifeline=lifeline)
        if lifeline < 0:
            notify("STOPPING=1")
        await edge.stop(grace=grace(settings))
        for one in bound:
            close(one)


def grace(settings: Settings) -> float:
    """Seconds that a message in flight may need to its end: checks, actions, a function or a next hop, telling its sender."""
    waiting = max(PATIENCE, settings.relay.seconds)
    return max(settings.deadlines.stage, settings.deadlines.virus) + settings.deadlines.deliver + waiting + TO_TELL


async def announce(app: App, addresses: Sequence[str]) -> None:
    """Tell the operator what is in force."""
    loaded = app.settings
    rules = ", ".join(rule.name for rule in app.ruleset.rules if rule.enabled)
    log.info("listening on %s for %s", ", ".join(addresses), ", ".join(loaded.domains))
    log.info("rules from %s: %s", loaded.rules or shipped("rules"), rules)
    log.info("cloud: %s%s", loaded.cloud, f" in {loaded.data_dir}" if loaded.cloud == "local" else "")
    where, said = await scanner_of(loaded)
    if where:
        log.log(logging.WARNING if "does not answer" in said else logging.INFO, "virus: clamd at %s: %s", where, said)
    else:
        log.warning("virus: DISABLED - %s; no message is scanned", said)
    if loaded.tls is None:
        log.warning("tls: no certificate is set, STARTTLS is not offered")


async def until_told(
    app: App,
    *,
    also: Callable[[], None] = lambda: None,
    ready: Callable[[], None] = lambda: None,
    lifeline: int = -1,
) -> None:
    """Wait for SIGTERM, SIGINT, or the end of the lifeline; SIGHUP takes the rules in force anew, or says why not.

    `also` is what else SIGHUP takes in force; `ready` is called when signals are taken.
    SIGUSR1 tells what the resolver and the cloud did so far, as the end does.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def take() -> None:
        try:
            app.reload()
        except ConfigurationError as error:
            log.error("the rules stay as they were:\n%s", error)  # noqa: TRY400 - the problems say it all
        else:
            log.info("rules taken in force: %s", ", ".join(rule.name for rule in app.ruleset.rules))
        try:
            also()
        except ConfigurationError as error:
            log.error("the certificates stay as they were:\n%s", error)  # noqa: TRY400

    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, told.set)
    loop.add_signal_handler(signal.SIGHUP, take)
    loop.add_signal_handler(signal.SIGUSR1, app.tell)
    if lifeline >= 0:
        loop.add_reader(lifeline, told.set)
    ready()
    await told.wait()
    if lifeline >= 0:
        loop.remove_reader(lifeline)
    app.tell()
    log.info("stopping: messages in flight are finished first")
