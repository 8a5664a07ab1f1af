"""Mail that leaves: messages are sent on to a next hop by SMTP, over sessions that are used again.

1. `NextHop.send` says of each recipient whether the next hop took the message. When nobody has it, or when that cannot be
   known, it raises a Failure. What is not known can come twice: RFC 1047.
2. One deadline holds for a whole message, from the wait for a free session to the last reply; each reply has its own.
3. Each next hop has at most `connections` sessions at a time. One that is idle is kept for a few seconds and closed.
4. A session that was idle may be gone. As long as no MAIL was answered on it, another one is opened.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from inbound.clients.hop import Hop, Ourselves
from inbound.clients.parcel import Parcel, parcel_of
from inbound.clients.reasons import TIMED_OUT
from inbound.clients.smtp import REFUSED, DeferredError, NoHandshakeError, RefusedError, Session, StaleError
from inbound.errors import PermanentFailure, TemporaryFailure
from inbound.mail import BIG
from inbound.offload import offload
from inbound.reply import Reply
from inbound.settings import Relay
from inbound.srs import Srs

__all__ = ["DeferredError", "Handed", "Hop", "NextHop", "Ourselves", "RefusedError", "Relays", "hop_of"]

MOST_MESSAGES = 100  # over one session; postfix counts 300 seconds

BUSY = "next hop busy"
NOT_SET = "no next hop set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What the next hop took: its reply, and who it did not take it for."""

    reply: Reply
    refusals: Mapping[str, Reply]


class Relays:
    """All next hops, each with its pool. An async context: leaving it closes what is idle."""

    def __init__(
        self,
        settings: Relay,
        *,
        hostname: str,
        listening: frozenset[tuple[str, int]] = frozenset(),
        srs: Srs | None = None,
    ) -> None:
        """`hostname` is told in EHLO; it and where we listen (addresses and ports) say who we are: nothing is sent there."""
        self.hostname = hostname
        self.srs = srs
        self.most_received = settings.received
        self._settings = settings
        self._ourselves = Ourselves(hostname=hostname, listening=listening)
        self._hops: dict[Hop, NextHop] = {}
        self._default = NextHop(hop_of(settings), settings, self._ourselves)

    @classmethod
    def nowhere(cls) -> Self:
        """Without a next hop of the settings."""
        return cls(Relay(), hostname="localhost")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(hop.close() for hop in (self._default, *self._hops.values())))

    def to(self, hop: Hop | None = None) -> "NextHop":
        """The next hop that is named, or that of the settings."""
        if hop is None:
            return self._default
        known = self._hops.get(hop)
        if known is None:
            known = self._hops[hop] = NextHop(hop, self._settings, self._ourselves)
        return known


class NextHop:
    """One next hop with its sessions."""

    def __init__(self, hop: Hop | None, settings: Relay, ourselves: Ourselves) -> None:
        self.hop = hop
        self._settings = settings
        self._ourselves = ourselves
        self._free = asyncio.Semaphore(settings.connections)
        self._idle: list[tuple[float, Session]] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """HOST:PORT, as records have it; "" when the settings name none."""
        return self.hop.name if self.hop else ""

    async def send(
        self, raw: bytes, *, mail_from: str, rcpt_to: tuple[str, ...], smtputf8: bool = False
    ) -> Mapping[str, Reply]:
        """Send a message on: the refusals by recipient, none when all were taken. Raises Failure when nobody has it.

        RefusedError and DeferredError have the next hop's `replies` by recipient; after any other TemporaryFailure it is
        not known who has it. `mail_from` is "" for the null reverse-path. `smtputf8`: the message came with SMTPUTF8.
        """
        handed = await self.hand_on(raw, mail_from=mail_from, rcpt_to=rcpt_to, smtputf8=smtputf8)
        return handed.refusals

    async def hand_on(self, raw: bytes, *, mail_from: str, rcpt_to: tuple[str, ...], smtputf8: bool = False) -> Handed:
        """The same, with the reply that took the message. Raises Failure."""
        if self.hop is None:
            raise TemporaryFailure(NOT_SET, "the settings have no relay: {host: …}")
        rcpt_to = tuple(dict.fromkeys(rcpt_to))
        if not rcpt_to:
            raise PermanentFailure(REFUSED, "there is no recipient")
        seconds = self._settings.seconds
        try:
            async with asyncio.timeout(seconds):
                if len(raw) > BIG:
                    parcel = await offload(parcel_of, raw, mail_from, rcpt_to, smtputf8=smtputf8)
                else:
                    parcel = parcel_of(raw, mail_from, rcpt_to, smtputf8=smtputf8)
                return await self._turn(parcel)
        except TimeoutError as error:
            raise TemporaryFailure(TIMED_OUT, f"{self.hop.name}: not done within {seconds:g} s") from error

    async def greet(self) -> None:
        """Open a session as for a message, TLS, password and all, and end it. Raises Failure."""
        if self.hop is None:
            raise TemporaryFailure(NOT_SET, "the settings have no relay: {host: …}")
        try:
            async with asyncio.timeout(self._settings.seconds):
                session = await self._open()
                await session.quit()
        except TimeoutError as error:
            raise TemporaryFailure(TIMED_OUT, f"{self.hop.name}: {self._settings.seconds:g} s are over") from error

    async def _turn(self, parcel: Parcel) -> Handed:
        assert self.hop is not None  # noqa: S101 - asked before
        try:
            async with asyncio.timeout(self._settings.command_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            count = self._settings.connections
            raise TemporaryFailure(BUSY, f"{self.hop.name}: all {count} sessions are in use") from error
        try:
            return await self._exchange(parcel)
        finally:
            self._free.release()

    async def _exchange(self, parcel: Parcel) -> Handed:
        while session := self._take():
            with contextlib.suppress(StaleError):
                return await self._over(session, parcel)
        return await self._over(await self._open(), parcel)

    async def _over(self, session: Session, parcel: Parcel) -> Handed:
        """One message over this session, which is kept when it is good for another."""
        good = False
        try:
            reply, refusals = await session.transact(parcel)
            good = True
        except (RefusedError, DeferredError):
            good = await session.reset()
            raise
        finally:
            if good and session.open_still and session.sent < MOST_MESSAGES and not self._closed:
                self._keep(session)
            else:
                session.abort()
        return Handed(reply=reply, refusals=refusals)

    async def _open(self) -> Session:
        assert self.hop is not None  # noqa: S101 - asked before
        seconds = self._settings.command_seconds
        try:
            return await Session.open(self.hop, self._ourselves, seconds=seconds)
        except NoHandshakeError:  # RFC 7435 3: opportunistic TLS that fails is better left
            return await Session.open(self.hop, self._ourselves, seconds=seconds, clear=True)

    def _take(self) -> Session | None:
        while self._idle:
            _, session = self._idle.pop()
            if session.open_still:
                return session
            session.abort()
        return None

    def _keep(self, session: Session) -> None:
        self._idle.append((time.monotonic(), session))
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        """Close what has been idle for too long, until nothing is left."""
        while self._idle:
            wait = self._idle[0][0] + self._settings.idle_seconds - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            _, session = self._idle.pop(0)
            await session.quit()

    async def close(self) -> None:
        """Close what is idle, and keep nothing from now on."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        idle, self._idle = self._idle, []
        await asyncio.gather(*(session.quit() for _, session in idle))


def hop_of(settings: Relay) -> Hop | None:
    """The next hop of the settings, None when there is none."""
    if not settings.host:
        return None
    return Hop(
        host=settings.host,
        port=settings.port,
        tls=settings.tls,
        ca_file=settings.ca_file,
        user=settings.user,
        password=settings.password,
        password_file=settings.password_file,
    )
