"""Who gets a domain's aggregate reports: the `mailto:` addresses of its record's `rua`, and of others only who agreed to it.

An address outside of the organizational domain counts when its domain publishes `<policy domain>._report._dmarc.<its domain>`
with v=DMARC1 (RFC 9990, "Verifying External Destinations"). That record may name another address at the same host.
"""

from dataclasses import dataclass, replace
from urllib.parse import unquote

from inbound.addresses import a_labels
from inbound.errors import TemporaryFailure
from inbound.stages import Resolver
from inbound.stages.alignment import is_record, tags_of, walk

MOST_ADDRESSES = 10  # of one record; RFC 7489 12.1 wants two at least
LONGEST_ADDRESS = 320  # octets


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One address that the record names. `refused` says why it gets nothing, "" when it may have the report."""

    address: str
    refused: str = ""


async def destinations(domain: str, record: str, resolver: Resolver) -> tuple[Destination, ...]:
    """The addresses in the record found at `domain`, in its order. DNS trouble refuses an address for this time."""
    found = []
    for address in _addresses(dict(reversed(tags_of(record))).get("rua", "")):
        try:
            found.append(await _verified(domain, address, resolver))
        except TemporaryFailure as failure:
            found.append(Destination(address=address, refused=failure.reason))
    return tuple(found)


async def _verified(domain: str, address: str, resolver: Resolver) -> Destination:
    destination = Destination(address=address)
    host = _host(address)
    if host == domain:
        return destination
    ours, theirs = await walk(domain, resolver), await walk(host, resolver)
    if ours.organizational_domain == theirs.organizational_domain:
        return destination
    answer = await resolver.query(f"{domain}._report._dmarc.{host}", "TXT")  # too long a name does not exist
    records = [text for text in answer.records if is_record(text)]
    if not records:
        return replace(destination, refused=f"{host} has not agreed to reports about {domain}")
    others = [other for text in records for other in _addresses(dict(reversed(tags_of(text))).get("rua", ""))]
    if any(_host(other) != host for other in others):
        return replace(destination, refused=f"{host} hands reports on to another host")
    return Destination(address=others[0]) if others else destination


def _addresses(rua: str) -> list[str]:
    """Other schemes than mailto are passed over (RFC 9989 4.7), and so is the size that used to stand behind `!`."""
    found = []
    for uri in rua[:8192].split(","):
        scheme, _, rest = uri.strip(" \t").partition(":")
        address = unquote(rest.partition("!")[0].partition("?")[0]).strip()
        local, _, written = address.rpartition("@")
        usable = local.isascii() and local.isprintable() and not set(local) & set(' "(),:;<>@[\\]')
        if scheme.lower() == "mailto" and usable and local and a_labels(written) and len(address) <= LONGEST_ADDRESS:
            found.append(f"{local}@{a_labels(written)}")
    return list(dict.fromkeys(found))[:MOST_ADDRESSES]


def _host(address: str) -> str:
    return address.rpartition("@")[2]
