"""The gate: who may speak to us, and for whom. Answered at RCPT, before there is a message.

1. The operator's `allow` comes before `deny` and before every DNSBL: an allowed client is asked about nowhere.
2. The zones are asked all at once. One that does not answer, or answers with what is no listing (RFC 5782 2.1, 2.3), lists
   nobody; its name stands in the verdict.
3. `record_only` leaves a listing to the rules: the verdict says it, the gate lets it pass.
4. Mail is taken for our `domains` and for bare `postmaster` (RFC 5321 4.5.1), whatever the rules say: never a relay. An SRS
   address at the domain where senders are rewritten must be genuine.
"""

import logging
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from inbound.addresses import a_labels
from inbound.errors import TemporaryFailure
from inbound.mail import IPAddress
from inbound.offload import side_by_side
from inbound.recipients import Domains
from inbound.reply import Reply
from inbound.settings import BlockList, DnsblZone
from inbound.srs import Srs, SrsError
from inbound.stages import Resolver
from inbound.verdicts import BlockVerdict, Listing

log = logging.getLogger(__name__)

NOT_OURS = Reply(550, "5.7.1", "not relaying: that domain does not receive its mail here", "not our domain")
DENIED = Reply(554, "5.7.1", "your address is on the deny list of this server", "on the deny list")

_LISTINGS = IPv4Network("127.0.0.0/8")  # RFC 5782 2.1
_USUAL = IPv4Network("127.0.0.0/24")
_NOT_LISTED = {IPv4Address("127.0.0.0"), IPv4Address("127.0.0.1")}  # RFC 5782 5: 127.0.0.1 must not be listed
_ERRORS = IPv4Network("127.255.255.0/24")  # how DNSBLs say "you may not ask", "not through this resolver"

Network = IPv4Network | IPv6Network


class Gate:
    """Who may speak to us and for whom, by settings whose networks, zones and domains are known to be such."""

    def __init__(
        self, block_list: BlockList, domains: Iterable[str], resolver: Resolver, *, srs: Srs | None = None
    ) -> None:
        self._allow = _Networks(block_list.allow)
        self._deny = _Networks(block_list.deny)
        self._zones = tuple(_Zone(zone, resolver) for zone in block_list.dnsbl)
        self._record_only = block_list.record_only
        self._srs = srs
        self._domains = Domains(domains)

    async def look_up(self, ip: IPAddress) -> BlockVerdict:
        """What the operator's lists say of this client. Never raises: a zone in trouble is `unanswered`."""
        ip = _unmapped(ip)
        allowed = self._allow.around(ip)
        if allowed:
            return BlockVerdict(listings=(Listing(list="allow", entry=str(allowed)),))
        denied = self._deny.around(ip)
        if denied:
            return BlockVerdict(blocked=True, listings=(Listing(list="deny", entry=str(denied)),))
        found = await side_by_side(zone.look_up(ip) for zone in self._zones)
        listings = tuple(listing for listing in found if isinstance(listing, Listing))
        return BlockVerdict(
            blocked=bool(listings),
            listings=listings,
            unanswered=tuple(
                zone.name for zone, answer in zip(self._zones, found, strict=True) if answer is _NO_ANSWER
            ),
        )

    def answer(self, block: BlockVerdict, recipient: str) -> Reply | None:
        """The refusal of this recipient for a client with this verdict, or None: it may pass."""
        if block.blocked and not self._record_only:
            return _blocked(block.listings)
        return self._returned(recipient) if self.is_ours(recipient) else NOT_OURS

    def _returned(self, recipient: str) -> Reply | None:
        """An SRS address must be one that we gave out, not long ago: otherwise anybody could have mail sent on to anybody."""
        if self._srs is None or not self._srs.claims(recipient):
            return None
        try:
            self._srs.reverse(recipient)
        except SrsError as error:
            return Reply(550, "5.1.1", "This return address is not valid here, or not any more", str(error))
        return None

    def is_ours(self, recipient: str) -> bool:
        """The address is bare `postmaster`, or its domain is among our `domains`."""
        _, at, domain = recipient.rpartition("@")
        if not at:
            return recipient.lower() == "postmaster"
        return self._domains.include(domain)


def _blocked(listings: tuple[Listing, ...]) -> Reply:
    first = listings[0]
    if first.list == "deny":
        return DENIED
    why = f" ({first.meaning})" if first.meaning else ""
    text = f"your address is listed by {first.list}{why}"
    return Reply(554, "5.7.1", "".join(char if " " <= char <= "~" else "?" for char in text)[:400], "on a DNSBL")


def _unmapped(ip: IPAddress) -> IPAddress:
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


class _Networks:
    """Networks by prefix length, so that a list of any size costs one look for each length that occurs in it."""

    def __init__(self, texts: Iterable[str]) -> None:
        by_prefix: dict[tuple[int, int], dict[int, Network]] = {}
        for network in map(_network, texts):
            shift = network.max_prefixlen - network.prefixlen
            by_prefix.setdefault((network.version, shift), {})[int(network.network_address) >> shift] = network
        self._by_prefix = dict(sorted(by_prefix.items()))

    def around(self, ip: IPAddress) -> Network | None:
        """The smallest of the networks that the address lies in."""
        for (version, shift), networks in self._by_prefix.items():
            found = networks.get(int(ip) >> shift) if version == ip.version else None
            if found:
                return found
        return None


def _network(text: str) -> Network:
    network = ip_network(text.strip(), strict=False)
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:  # noqa: PLR2004
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


class _Nothing:
    """Neither a listing nor an answer."""


_NO_ANSWER = _Nothing()


class _Zone:
    """One DNSBL, and what its return codes mean."""

    def __init__(self, settings: DnsblZone, resolver: Resolver) -> None:
        self.name = a_labels(settings.zone)
        self._resolver = resolver
        self._codes = {IPv4Network(code): meaning for code, meaning in settings.codes.items()}

    async def look_up(self, ip: IPAddress) -> Listing | _Nothing | None:
        """The listing, None when there is none, `_NO_ANSWER` when the zone cannot be asked."""
        name = f"{_reversed(ip)}.{self.name}"
        try:
            answer = await self._resolver.query(name, "A")
        except TemporaryFailure as failure:
            log.warning("DNSBL %s did not answer: %s", self.name, failure)
            return _NO_ANSWER
        except Exception:
            log.exception("DNSBL %s could not be asked", self.name)
            return _NO_ANSWER
        codes = sorted({code for code in map(_code, answer.records) if code})
        counting = [(code, self._meaning(code)) for code in codes]
        meanings = [(code, meaning) for code, meaning in counting if meaning is not None]
        if meanings:
            entry = ", ".join(str(code) for code, _ in meanings)
            meaning = ", ".join(dict.fromkeys(meaning for _, meaning in meanings if meaning))
            return Listing(list=self.name, entry=entry, meaning=meaning)
        if any(code in _ERRORS for code in codes) or (answer.records and not codes):
            log.warning("DNSBL %s answers with an error: %s", self.name, ", ".join(answer.records))
            return _NO_ANSWER
        return None

    def _meaning(self, code: IPv4Address) -> str | None:
        """What the code means, "" when nothing is said of it, None when it is no listing."""
        if code in _ERRORS or code not in _LISTINGS:
            return None
        if self._codes:
            return next((meaning for network, meaning in self._codes.items() if code in network), None)
        return "" if code in _USUAL and code not in _NOT_LISTED else None


def _code(record: str) -> IPv4Address | None:
    """The address, if it is one that a DNSBL can mean something by: a wildcard of a dead zone's new owner is not."""
    try:
        code = IPv4Address(record)
    except ValueError:
        return None
    return code if code in _LISTINGS else None


def _reversed(ip: IPAddress) -> str:
    """RFC 5782 2.1 and 2.4: the octets, or the nibbles, from the last to the first."""
    return ip.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
