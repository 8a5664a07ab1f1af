"""What the workers behind one port count together: who is connected, and who has sent how much of late.

1. One piece of memory, shared by being there before the workers are forked, of a fixed size. There is no lock: a worker that
   is killed, wherever it was, leaves nothing held.
2. Connections: each worker has a part that nobody else writes, and all parts are added up. Who ends a worker's seat clears its
   part, so that what a killed worker had counted is not counted for ever.
3. Allowances: one table for all. An entry is a moment, eight aligned octets that are written by one store. When two workers
   admit a message of one place within the same microsecond, one of the two goes uncounted; nothing else can come of it. What
   a place has used up outlasts the worker that counted it.
4. A place has two entries, found by a keyed hash, and the lesser one counts: who shares one entry with a busy place is not
   taken for it, and nobody can choose to.
"""

import hashlib
import mmap
import os

ENTRIES = 1 << 14  # in each of the two rows; with 1,000 places one in 270 shares both its entries with others
Place = bytes  # see `census.place`

_ROWS = 2


class Board:
    """The memory. Make it before the workers are forked."""

    def __init__(self, seats: int = 1) -> None:
        self._part = _ROWS * ENTRIES + 1  # a count for each entry, and one for all
        counts = mmap.mmap(-1, 4 * self._part * seats)  # untouched pages take no memory
        moments = mmap.mmap(-1, 8 * _ROWS * ENTRIES)
        self._counts = memoryview(counts).cast("I")
        self._moments = memoryview(moments).cast("d")
        self._key = os.urandom(16)
        self._seats = seats

    def seat(self, number: int) -> "Seat":
        """What the worker with this number writes to."""
        parts = [self._counts[at * self._part : (at + 1) * self._part] for at in range(self._seats)]
        return Seat(parts, number, self._moments, self._key)

    def clear(self, number: int) -> None:
        """The worker with this number has ended, and its connections with it."""
        start = 4 * number * self._part
        self._counts.cast("B")[start : start + 4 * self._part] = bytes(4 * self._part)


class Seat:
    """One worker's view of the board: it writes its own part, and reads all."""

    def __init__(self, parts: "list[memoryview[int]]", number: int, moments: "memoryview[float]", key: bytes) -> None:
        self._parts = parts
        self._own = parts[number]
        self._moments = moments
        self._key = key

    def arrive(self) -> int:
        """Count one connection more. How many there are, over all workers."""
        self._own[-1] += 1
        return self.connections

    def depart(self) -> None:
        """Count one connection less."""
        self._own[-1] -= 1

    @property
    def connections(self) -> int:
        """How many connections are open, over all workers."""
        return sum(part[-1] for part in self._parts)

    def settle(self, at: Place) -> int:
        """Count one connection of this place. How many it has, over all workers."""
        entries = self._entries(at)
        for entry in entries:
            self._own[entry] += 1
        return min(sum(part[entry] for part in self._parts) for entry in entries)

    def unsettle(self, at: Place) -> None:
        """Count one connection of this place less."""
        for entry in self._entries(at):
            self._own[entry] -= 1

    def full_again(self, at: Place) -> float:
        """When the place has its whole allowance back; in the past or 0 when it has."""
        return min(self._moments[entry] for entry in self._entries(at))

    def use(self, at: Place, full_again: float) -> None:
        """Say when the place has its whole allowance back."""
        for entry in self._entries(at):
            self._moments[entry] = max(self._moments[entry], full_again)

    def _entries(self, at: Place) -> tuple[int, int]:
        digest = hashlib.blake2b(at, key=self._key, digest_size=8).digest()
        first, other = int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")
        return first % ENTRIES, ENTRIES + other % ENTRIES
