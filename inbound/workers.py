"""Workers: several processes behind one port, and the supervisor that keeps them there.

1. The supervisor does no work of its own. Workers are forked from it when everything is loaded, with its listening sockets:
   they share one queue of connections, which outlives any of them, so whoever is free takes the next one.
2. A worker that ends by itself is replaced: at once the first time, then after pauses that double up to `LONGEST_PAUSE`. One
   that ends before any was ever ready ends the supervisor too: what is wrong then is wrong for all.
3. SIGHUP: the supervisor takes the new rules first, and the workers only if it could; who is started later gets them too.
   SIGUSR1 is handed on: each worker tells its own counters.
4. SIGTERM or SIGINT: every worker is told, finishes what is in flight, and is waited for; who outstays that is killed.
5. A worker whose supervisor is gone stops in the same way: it holds one end of a pipe (`lifeline`) that ends with it.
"""

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

STARTED_WELL = 60.0  # seconds after which an end is no longer a failure to start
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds; as systemd's RestartSec and RestartMaxDelaySec would have it
WELL, UNABLE = 0, 2
CRASHED = 70  # sysexits.h: EX_SOFTWARE

_LOOK_SECONDS = 0.05  # how soon a worker that has come up is seen
_TOLD = {signal.SIGTERM, signal.SIGINT}
_SIGNALS = _TOLD | {signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """What a worker is given: its number, and its end of the lifeline (point 5).

    It calls `ready` when it listens and has its signal handlers: no signal reaches it before.
    """

    number: int
    ready: Callable[[], None]
    lifeline: int


@dataclass(slots=True, kw_only=True)
class _Seat:
    """One worker's place: who is on it, since when, and how often it failed."""

    number: int
    pid: int = 0
    news: int = -1  # the pipe on which it says that it is ready; -1 when it has, or is not there
    since: float = 0.0
    failures: int = 0
    due: float = 0.0  # when the next one is to be started, while there is none


class Supervisor:
    """Runs `work` in `count` processes until it is told to stop.

    `work` returns an exit code, in a process of its own. `reload` takes changed rules in force and says whether it could.
    `buried` is told the number of a worker that has ended, before another one is started in its place. `grace` is the seconds
    that a worker may take to finish. Call `run` in the main thread, with no other thread there.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[Post], int],
        *,
        reload: Callable[[], bool],
        grace: float,
        buried: Callable[[int], None] = lambda _number: None,
    ) -> None:
        self._seats = [_Seat(number=number) for number in range(count)]
        self._work = work
        self._reload = reload
        self._grace = grace
        self._buried = buried
        self._was_ready = False

    def run(self) -> int:
        """Returns an exit code: WELL when it was told to stop."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._lifeline, kept = os.pipe()
        self._kept = kept
        gc.freeze()  # what is loaded by now is nobody's garbage, and stays shared between the processes
        try:
            return self._supervise()
        finally:
            os.close(self._lifeline)
            os.close(kept)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _supervise(self) -> int:
        while True:
            now = time.monotonic()
            for seat in self._seats:
                if not seat.pid and seat.due <= now:
                    self._start(seat)
            told = signal.sigtimedwait(_SIGNALS, self._pause(now))
            self._hear()
            match told.si_signo if told else None:
                case signal.SIGTERM | signal.SIGINT:
                    notify("STOPPING=1")
                    log.info("stopping: messages in flight are finished first")
                    self._stop()
                    return WELL
                case signal.SIGHUP:
                    if self._reload():
                        self._tell(signal.SIGHUP)
                case signal.SIGUSR1:
                    self._tell(signal.SIGUSR1)
                case signal.SIGCHLD if not self._bury():
                    self._stop()
                    return UNABLE

    def _pause(self, now: float) -> float:
        """Seconds until there is something to do that no signal tells."""
        if any(seat.news >= 0 for seat in self._seats):
            return _LOOK_SECONDS
        return max(min((seat.due - now for seat in self._seats if not seat.pid), default=3600.0), 0.0)

    def _start(self, seat: _Seat) -> None:
        seat.news, say = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        seat.pid = os.fork()
        if not seat.pid:
            self._be(seat, say)  # does not return
        os.close(say)
        seat.since = time.monotonic()

    def _be(self, seat: _Seat, say: int) -> None:
        """Become a worker."""
        code = CRASHED
        try:
            os.close(self._kept)
            for other in self._seats:
                if other.news >= 0:
                    os.close(other.news)

            def ready() -> None:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
                os.write(say, b"+")
                os.close(say)

            code = self._work(Post(number=seat.number, ready=ready, lifeline=self._lifeline))
        except BaseException:
            log.exception("worker %d crashed", seat.number)
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _hear(self) -> None:
        """See who has said that it is ready."""
        for seat in self._seats:
            if seat.news >= 0 and select.select([seat.news], [], [], 0)[0]:
                said = os.read(seat.news, 1)
                os.close(seat.news)
                seat.news = -1
                if said and not self._was_ready:
                    self._was_ready = True
                    notify("READY=1")

    def _bury(self) -> bool:
        """See who has ended, and when another one is due. False: it cannot go on."""
        for seat, status in self._ended():
            code = os.waitstatus_to_exitcode(status)
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
            now = time.monotonic()
            if not self._was_ready:
                log.error("worker %d ended %s before it was ready", seat.number, how)
                return False
            seat.failures = 0 if now - seat.since >= STARTED_WELL else seat.failures
            pause = min(FIRST_PAUSE * 2 ** (seat.failures - 1), LONGEST_PAUSE) if seat.failures else 0.0
            seat.failures += 1
            seat.due = now + pause
            log.error("worker %d ended %s, another one follows in %.1f s", seat.number, how, pause)
        return True

    def _ended(self) -> list[tuple[_Seat, int]]:
        ended = []
        for seat in self._seats:
            if not seat.pid:
                continue
            pid, status = os.waitpid(seat.pid, os.WNOHANG)
            if pid:
                seat.pid = 0
                if seat.news >= 0:
                    os.close(seat.news)
                    seat.news = -1
                self._buried(seat.number)
                ended.append((seat, status))
        return ended

    def _tell(self, what: signal.Signals) -> None:
        for seat in self._seats:
            if seat.pid:
                os.kill(seat.pid, what)  # not reaped yet, so it is nobody else's number

    def _stop(self) -> None:
        self._tell(signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        while any(seat.pid for seat in self._seats):
            left = deadline - time.monotonic()
            if left <= 0:
                log.error("killing the workers that have not ended within %g s", self._grace)
                self._tell(signal.SIGKILL)
                deadline += self._grace
                continue
            signal.sigtimedwait({signal.SIGCHLD}, min(left, 1.0))
            self._ended()


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), if it has started us and wants to know."""
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(state.encode(), "\0" + where[1:] if where.startswith("@") else where)
