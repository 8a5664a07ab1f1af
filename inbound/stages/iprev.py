"""iprev (RFC 8601 2.7.3): whether the client's name in reverse DNS leads back to its address."""

from ipaddress import IPv6Address

from inbound.errors import TemporaryFailure
from inbound.mail import IPAddress, Mail
from inbound.stages import Resolver
from inbound.verdicts import IprevVerdict

MOST_NAMES = 10  # as RFC 7208 4.6.4 has it for the same question


class Iprev:
    """The stage."""

    name = "iprev"

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def broken(self, reason: str) -> IprevVerdict:
        """The check failed, not the client."""
        return IprevVerdict(result="temperror", reason=reason)

    async def __call__(self, mail: Mail) -> IprevVerdict:
        """Follow the names to their addresses, the first that leads back wins."""
        client = _unmapped(mail.client.ip)
        try:
            names = (await self._resolver.query(client.reverse_pointer, "PTR")).records[:MOST_NAMES]
        except TemporaryFailure as failure:
            return self.broken(str(failure))
        if not names:
            return IprevVerdict(result="permerror", reason="the address has no name")
        trouble = ""
        for name in names:
            try:
                addresses = (await self._resolver.query(name, "A" if client.version == 4 else "AAAA")).records  # noqa: PLR2004
            except TemporaryFailure as failure:
                trouble = str(failure)
                continue
            if str(client) in addresses:
                return IprevVerdict(result="pass", name=name)
        if trouble:
            return self.broken(trouble)
        return IprevVerdict(result="fail", reason=f"{names[0]} does not lead back")


def _unmapped(address: IPAddress) -> IPAddress:
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
