"""What all sessions of a server share."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from inbound.receive import Door
from inbound.receive.census import Census
from inbound.receive.inflow import Budget
from inbound.receive.rates import Rates
from inbound.receive.tls import Certificates
from inbound.reply import Reply
from inbound.settings import Limits

if TYPE_CHECKING:
    from inbound.receive.wire import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """The door and the limits; who is here; and `at_work`, the messages that are being worked on."""

    door: Door
    hostname: str
    limits: Limits
    certificates: Certificates | None
    proxy_from: Collection[IPv4Network | IPv6Network]
    census: Census
    budget: Budget
    rates: Rates
    at_work: set["asyncio.Task[Reply]"] = field(default_factory=set)
    sessions: set["Wire"] = field(default_factory=set)
