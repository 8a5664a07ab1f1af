"""How many messages come from one place in a minute."""

import time
from collections.abc import Callable

from inbound.receive.census import Place

MINUTE = 60.0
REMEMBERED = 10_000  # places; beyond that, those are forgotten that have their whole allowance back


class Rates:
    """An allowance of messages for each place, which comes back evenly over a minute. 0 allows everything."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._full_again: dict[Place, float] = {}  # when the place has its whole allowance back
        self._sweep_at = REMEMBERED

    def admits(self, at: Place) -> bool:
        """Count one message, if there is an allowance for it."""
        if not self._per_minute:
            return True
        now = self._clock()
        full_again = max(self._full_again.get(at, now), now) + MINUTE / self._per_minute
        if full_again - now > MINUTE + 1e-6:  # the sum of many shares of a minute is not quite a minute
            return False
        self._full_again[at] = full_again
        if len(self._full_again) > self._sweep_at:
            self._full_again = {place: when for place, when in self._full_again.items() if when > now}
            self._sweep_at = max(REMEMBERED, 2 * len(self._full_again))
        return True
