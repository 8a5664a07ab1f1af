"""What has come from a client and was not read yet: bounded, and never waited for without a deadline.

1. The socket is not read while `HIGH_WATER` octets lie here, so a client cannot make us hold more than that and one read.
2. A deadline runs only while somebody waits for octets. There is one timer for all of them: what it was set for has mostly come
   when it rings, and it is set again for what is waited for then, if anything is.
3. When the connection is lost, what was not read is forgotten: its sender will never see a reply to it.
"""

import asyncio
from collections import deque
from typing import cast

HIGH_WATER = 32 * 1024  # octets; uvloop reads up to 256 KiB at once
_TICK = 0.001  # seconds; uvloop's timers know no less


class GoneError(Exception):
    """The client has closed its side, and everything it sent has been read."""


class SilentError(Exception):
    """The client did not send within the time it has."""


class CrowdedError(Exception):
    """There was no room for the message within the time it could wait."""


class StoppingError(Exception):
    """The server is stopping; who waits for a command is told to."""


class OverlongError(Exception):
    """A command line beyond the limit. It has been read to its end and dropped, but for its `start`, four octets.

    `bare`: its end was an LF without a CR.
    """

    def __init__(self, start: bytes, *, bare: bool) -> None:
        self.start = start
        self.bare = bare
        super().__init__()


class Inflow:
    """The octets of one connection, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._held = bytearray()
        self._transport: asyncio.ReadTransport | None = None
        self._paused = False
        self._ended = False
        self._stopping = False
        self._waiter: asyncio.Future[None] | None = None
        self._line_since: float | None = None  # when who waits began to, if it is for a line
        self._deadline = 0.0  # of who waits
        self._timer: asyncio.TimerHandle | None = None
        self._rings = 0.0  # when the timer does

    @property
    def pending(self) -> int:
        """Octets that have come and nobody has read."""
        return len(self._held)

    @property
    def has_line(self) -> bool:
        """A whole line is there: the next `line` will not wait."""
        return b"\n" in self._held

    def attach(self, transport: asyncio.BaseTransport | None) -> None:
        """Say whose reading is to be paused: at the start, and when TLS has begun; nobody's while it begins."""
        self._transport = cast("asyncio.ReadTransport | None", transport)
        self._paused = False

    def feed(self, data: bytes) -> None:
        """Take what the socket gave."""
        self._held += data
        if len(self._held) > HIGH_WATER and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def end(self) -> None:
        """The client will send nothing more. What is held can still be read."""
        self._ended = True
        self._wake()

    def lose(self) -> None:
        """The connection is gone, and what was not read with it."""
        if self._timer:
            self._timer.cancel()
        self._transport = None
        self._held.clear()
        self.end()

    def stop(self) -> None:
        """Let nobody wait for another command."""
        self._stopping = True
        self._wake()

    def hurry(self, seconds: float) -> None:
        """Let who waits for a line since `seconds` wait no longer."""
        if self._waiter and self._line_since is not None and self._loop.time() - self._line_since >= seconds:
            self._expire(self._waiter)

    def discard(self) -> bool:
        """Forget what is held. True: there was something."""
        found = bool(self._held)
        self._held.clear()
        self._resume()
        return found

    def unread(self, data: bytes) -> None:
        """Give back what was read too much."""
        self._held[:0] = data

    async def quiet(self, seconds: float) -> bool:
        """Wait. False as soon as something comes. Raises GoneError, StoppingError."""
        try:
            if not self._held and seconds > 0:
                await self._more(self._loop.time() + seconds)
        except SilentError:
            return True
        if self._stopping:
            raise StoppingError
        if self._ended and not self._held:
            raise GoneError
        return not self._held

    async def line(self, seconds: float, longest: int) -> bytes:
        """One line with its LF, as a whole within `seconds`. Raises OverlongError, GoneError, SilentError, StoppingError."""
        since = self._loop.time()
        searched = 0
        start = b""  # of a line that is overlong
        while True:
            if self._stopping:
                raise StoppingError
            end = self._held.find(b"\n", searched) + 1
            if end:
                line = self._taken(end)
                if start or end > longest:
                    raise OverlongError(start or line[:4], bare=not line.endswith(b"\r\n"))
                return line
            searched = len(self._held)
            if searched > longest:
                start = start or bytes(self._held[:4])
                searched = 1
                del self._held[:-1]  # a CR may be the last
                self._resume()
            await self._more(since + seconds, line_since=since)

    async def chunk(self, seconds: float, most: int = -1) -> bytes:
        """All that is there, up to `most` octets; waits when there is nothing. Raises GoneError, SilentError."""
        while not self._held:
            await self._more(self._loop.time() + seconds)
        held = len(self._held)
        return self._taken(most if 0 <= most < held else held)

    def _taken(self, octets: int) -> bytes:
        taken = bytes(memoryview(self._held)[:octets])
        del self._held[:octets]
        self._resume()
        return taken

    def _more(self, deadline: float, line_since: float | None = None) -> asyncio.Future[None]:
        """What to wait for until there is more. Raises GoneError, SilentError, as waiting does."""
        if self._ended:
            raise GoneError
        if deadline <= self._loop.time():
            raise SilentError
        self._line_since = line_since
        self._deadline = deadline
        if self._timer is None or self._rings > deadline:
            self._set_timer()
        self._waiter = self._loop.create_future()
        return self._waiter

    def _set_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._rings = self._deadline
        self._timer = self._loop.call_at(self._rings, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiter and not self._waiter.done():
            if self._loop.time() > self._deadline - _TICK:
                self._expire(self._waiter)
            else:
                self._set_timer()

    def _expire(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_exception(SilentError())

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _resume(self) -> None:
        if self._paused and self._transport and len(self._held) <= HIGH_WATER:
            self._paused = False
            self._transport.resume_reading()


class ProxyReader:
    """The three reads that aiosmtpd's PROXY header parser asks for, bounded in octets and time."""

    def __init__(self, inflow: Inflow, seconds: float) -> None:
        self._inflow = inflow
        self._seconds = seconds

    async def read(self, n: int = -1) -> bytes:
        """Up to `n` octets."""
        return await self._inflow.chunk(self._seconds, n)

    async def readexactly(self, n: int) -> bytes:
        """Just `n` octets."""
        octets = b""
        while len(octets) < n:
            octets += await self.read(n - len(octets))
        return octets

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """One line: a PROXY v1 header has 107 octets at most."""
        assert separator == b"\n"  # noqa: S101 - what the parser asks for
        line = await self._inflow.line(self._seconds, 107)
        if b"\r" in line[:-2]:  # the parser would take it for the end of a port
            raise ValueError("a CR within a PROXY header")
        return line


class Budget:
    """Octets of messages in flight over all connections.

    When it is spent, nobody reads on but the one that began first: so there is always one that comes to its end and
    gives back what it held, and two messages can never wait for each other.
    """

    def __init__(self, octets: int) -> None:
        self._octets = octets
        self._spent = 0
        self._holds: dict[Hold, None] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def spent(self) -> bool:
        """There is no room for another octet."""
        return self._spent >= self._octets

    @property
    def in_flight(self) -> int:
        """Octets held now."""
        return self._spent

    def hold(self) -> "Hold":
        """Begin to hold octets for one message."""
        hold = Hold(self)
        self._holds[hold] = None
        return hold

    def take(self, octets: int) -> None:
        """Count octets that are held from now on; negative gives them back."""
        self._spent += octets
        if octets < 0:
            self._wake()

    def leave(self, hold: "Hold") -> None:
        """The message is done with."""
        self._holds.pop(hold, None)
        self._wake()

    def may_go_on(self, hold: "Hold") -> bool:
        """There is room, or this message is the oldest."""
        return not self.spent or next(iter(self._holds)) is hold

    async def changed(self, seconds: float) -> None:
        """Wait until octets were given back. Raises CrowdedError."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            raise CrowdedError from None

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)


class Hold:
    """What one message holds of the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._octets = 0

    def set(self, octets: int) -> None:
        """Say how many octets the message holds now."""
        self._budget.take(octets - self._octets)
        self._octets = octets

    async def room(self, seconds: float) -> None:
        """Wait until it may hold more. Raises CrowdedError."""
        while not self._budget.may_go_on(self):
            await self._budget.changed(seconds)

    def release(self) -> None:
        """Give everything back."""
        self.set(0)
        self._budget.leave(self)
