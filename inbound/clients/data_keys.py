"""Data keys that seal several objects, each within its limits; what AWS's encryption SDK calls a caching materials manager.

1. A key is shared by what has the same KMS key, encryption context, role, scope and limits. It is used up when it has sealed
   so many objects or octets, or is so old. Who asks for one that is being made waits for that one.
2. It lives in memory only. Everybody gets a copy to overwrite; the kept one is overwritten once it is used up, at its age at
   the latest, whether anybody asks or not.
3. An object larger than all that a key may seal gets a key of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from inbound.clients import DataKey, Sharing

Name = Hashable


@dataclass(slots=True, kw_only=True)
class Counters:
    """What became of data keys so far: made for sharing, used again, and overwritten."""

    data_keys_made: int = 0
    data_keys_used_again: int = 0
    data_keys_forgotten: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class _Kept:
    data_key: DataKey
    messages: int
    octets: int
    end: asyncio.TimerHandle


class DataKeys:
    """The keys of one process."""

    def __init__(self) -> None:
        self.counters = Counters()
        self._kept: dict[Name, _Kept] = {}
        self._made: dict[Name, asyncio.Task[None]] = {}

    async def get(
        self, name: Name, sharing: Sharing | None, octets: int, make: Callable[[], Awaitable[DataKey]]
    ) -> DataKey:
        """A key for an object of so many octets; `name` says who may share it. Raises what `make` raises."""
        if sharing is None:
            return await make()
        if octets > sharing.octets:
            self.counters.data_keys_made += 1
            return await make()
        name = (name, sharing)
        while (kept := self._fitting(name, octets)) is None:
            making = self._made.get(name)
            if making is None:
                making = asyncio.ensure_future(self._make(name, sharing, make))
                self._made[name] = making
                making.add_done_callback(lambda _: self._made.pop(name, None))
            await asyncio.shield(making)
        self.counters.data_keys_used_again += kept.messages < sharing.messages
        kept.messages -= 1
        kept.octets -= octets
        own = DataKey(
            plaintext=kept.data_key.plaintext[:], wrapped=kept.data_key.wrapped, key_arn=kept.data_key.key_arn
        )
        if not kept.messages:
            self._forget(name)
        return own

    def close(self) -> None:
        """Overwrite all of them."""
        for name in tuple(self._kept):
            self._forget(name)

    def _fitting(self, name: Name, octets: int) -> _Kept | None:
        kept = self._kept.get(name)
        if kept is None:
            return None
        if kept.octets < octets:
            self._forget(name)
            return None
        return kept

    async def _make(self, name: Name, sharing: Sharing, make: Callable[[], Awaitable[DataKey]]) -> None:
        data_key = await make()
        self._forget(name)
        self.counters.data_keys_made += 1
        end = asyncio.get_running_loop().call_later(sharing.seconds, self._forget, name)
        self._kept[name] = _Kept(data_key=data_key, messages=sharing.messages, octets=sharing.octets, end=end)

    def _forget(self, name: Name) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            kept.end.cancel()
            kept.data_key.forget()
            self.counters.data_keys_forgotten += 1
