"""Who is connected: how many in all, and how many from one place."""

from ipaddress import IPv4Address, IPv6Address

from inbound.mail import IPAddress
from inbound.receive.board import Place, Seat
from inbound.reply import Reply

FULL = Reply(421, "4.3.2", "too many connections at the moment, try again later", "too many connections")
TOO_MANY = Reply(
    421, "4.7.0", "too many connections from your address, try again later", "too many connections of one client"
)


def place(ip: IPAddress) -> Place:
    """What counts as one place: an IPv4 address, or the /64 that one IPv6 host can choose its address in (RFC 6177)."""
    return ip.packed if isinstance(ip, IPv4Address) else ip.packed[:8]


def unmapped(ip: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 socket shows as ::ffff:a.b.c.d, or the address as it is."""
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


class Census:
    """Counts of the connections that are open, over all workers."""

    def __init__(self, *, in_all: int, per_place: int, seat: Seat) -> None:
        self._in_all = in_all
        self._per_place = per_place
        self._seat = seat
        self._connections = 0

    @property
    def connections(self) -> int:
        """How many connections this worker has."""
        return self._connections

    @property
    def crowded(self) -> bool:
        """Three quarters of the connections are taken."""
        return self._seat.connections * 4 >= self._in_all * 3

    def arrive(self) -> Reply | None:
        """Count a connection; the reply refuses it. It must `depart` in either case."""
        self._connections += 1
        return FULL if self._seat.arrive() > self._in_all else None

    def settle(self, at: Place) -> Reply | None:
        """Count it for its place; the reply refuses it. It must `unsettle` in either case."""
        return TOO_MANY if self._seat.settle(at) > self._per_place else None

    def unsettle(self, at: Place) -> None:
        """Take it off its place."""
        self._seat.unsettle(at)

    def depart(self) -> None:
        """The connection is closed."""
        self._connections -= 1
        self._seat.depart()
