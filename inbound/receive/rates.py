"""How many messages come from one place in a minute."""

import time
from collections.abc import Callable

from inbound.receive.board import Place, Seat

MINUTE = 60.0


class Rates:
    """An allowance of messages for each place, over all workers, which comes back evenly over a minute. 0 allows everything."""

    def __init__(self, per_minute: int, seat: Seat, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._seat = seat
        self._clock = clock  # the same for all processes, as CLOCK_MONOTONIC is

    def admits(self, at: Place) -> bool:
        """Count one message, if there is an allowance for it."""
        if not self._per_minute:
            return True
        now = self._clock()
        full_again = max(self._seat.full_again(at), now) + MINUTE / self._per_minute
        if full_again - now > MINUTE + 1e-6:  # the sum of many shares of a minute is not quite a minute
            return False
        self._seat.use(at, full_again)
        return True
