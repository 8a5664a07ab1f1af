"""A message on its way in: what has come of it, what it holds of the budget, and when it must be here."""

import asyncio

from inbound.receive.data import Chunked, Content, DotStuffed
from inbound.receive.inflow import Budget, Inflow, SilentError
from inbound.settings import Limits


class Incoming:
    """One message, from DATA or the first BDAT to its last octet. `release` gives its share of the budget back."""

    def __init__(self, inflow: Inflow, budget: Budget, limits: Limits) -> None:
        self.content = Content(limits)
        self._inflow = inflow
        self._hold = budget.hold()
        self._idle = limits.data_idle_seconds
        self._clock = asyncio.get_running_loop().time
        self._deadline = self._clock() + limits.data_seconds
        self._chunks = Chunked(self.content)

    async def data(self) -> None:
        """Read to the end of DATA. Raises GoneError, SilentError, CrowdedError."""
        data = DotStuffed(self.content)
        behind = None
        while behind is None:
            behind = data.feed(await self._octets())
            self._hold.set(self.content.octets)
        self._inflow.unread(behind)

    async def chunk(self, octets: int, *, last: bool) -> None:
        """Read the octets of one BDAT. Raises GoneError, SilentError, CrowdedError."""
        self.content.expect(octets)
        while octets:
            piece = await self._octets(octets)
            octets -= len(piece)
            self._chunks.feed(piece)
            self._hold.set(self.content.octets)
        if last:
            self._chunks.end()

    def release(self) -> None:
        """The message is done with."""
        self._hold.release()

    async def _octets(self, most: int = -1) -> bytes:
        await self._hold.room(self._idle)
        left = self._deadline - self._clock()
        if left <= 0:
            raise SilentError
        return await self._inflow.chunk(min(left, self._idle), most)


async def skip(inflow: Inflow, limits: Limits, octets: int) -> None:
    """Read the octets of a chunk that nobody wants. Raises GoneError, SilentError."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + limits.data_seconds
    while octets:
        left = deadline - clock()
        if left <= 0:
            raise SilentError
        octets -= len(await inflow.chunk(min(left, limits.data_idle_seconds), octets))
