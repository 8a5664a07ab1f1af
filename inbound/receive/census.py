"""Who is connected: how many in all, and how many from one place."""

from collections import Counter
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from inbound.mail import IPAddress
from inbound.reply import Reply

FULL = Reply(421, "4.3.2", "too many connections at the moment, try again later", "too many connections")
TOO_MANY = Reply(
    421, "4.7.0", "too many connections from your address, try again later", "too many connections of one client"
)

Place = IPv4Address | IPv6Network


def place(ip: IPAddress) -> Place:
    """What counts as one place: an IPv4 address, or the /64 that one IPv6 host can choose its address in (RFC 6177)."""
    return ip if isinstance(ip, IPv4Address) else IPv6Network((int(ip) >> 64 << 64, 64))


def unmapped(ip: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 socket shows as ::ffff:a.b.c.d, or the address as it is."""
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


class Census:
    """Counts of the connections that are open."""

    def __init__(self, *, in_all: int, per_place: int) -> None:
        self._in_all = in_all
        self._per_place = per_place
        self._connections = 0
        self._places: Counter[Place] = Counter()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._connections

    @property
    def crowded(self) -> bool:
        """Three quarters of the connections are taken."""
        return self._connections * 4 >= self._in_all * 3

    def arrive(self) -> Reply | None:
        """Count a connection; the reply refuses it. It must `depart` in either case."""
        self._connections += 1
        return FULL if self._connections > self._in_all else None

    def settle(self, at: Place) -> Reply | None:
        """Count it for its place; the reply refuses it. It must `unsettle` in either case."""
        self._places[at] += 1
        return TOO_MANY if self._places[at] > self._per_place else None

    def unsettle(self, at: Place) -> None:
        """Take it off its place."""
        self._places[at] -= 1
        if not self._places[at]:
            del self._places[at]

    def depart(self) -> None:
        """The connection is closed."""
        self._connections -= 1
