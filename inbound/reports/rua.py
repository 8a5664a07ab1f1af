"""Who gets a domain's aggregate reports: the `mailto:` addresses of its record's `rua`, and of others only who agreed to it.

An address outside of the organizational domain counts when its domain publishes `<policy domain>._report._dmarc.<its domain>`
with v=DMARC1 (RFC 9990, "Verifying External Destinations"). That record may name another address at the same host.
"""

import re
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
    """One address that the record names. `refused` says why it gets nothing, "" when it may have the report.

    `most` is the octets it takes, 0 when it does not say.
    """

    address: str
    refused: str = ""
    most: int = 0


async def destinations(domain: str, record: str, resolver: Resolver) -> tuple[Destination, ...]:
    """The addresses in the record found at `domain`, in its order. DNS trouble refuses an address for this time."""
    found = []
    for address, most in _addresses(dict(reversed(tags_of(record))).get("rua", "")).items():
        destination = Destination(address=address, most=most)
        try:
            found.append(await _verified(domain, destination, resolver))
        except TemporaryFailure as failure:
            found.append(replace(destination, refused=failure.reason))
    return tuple(found)


async def _verified(domain: str, destination: Destination, resolver: Resolver) -> Destination:
    host = _host(destination.address)
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
    return replace(destination, address=others[0]) if others else destination


def _addresses(rua: str) -> dict[str, int]:
    """The addresses, and the octets each takes: RFC 7489 6.4 let a size stand behind `!`, and many records still have one.

    Other schemes than mailto are passed over (RFC 9989 4.7).
    """
    found: dict[str, int] = {}
    for uri in rua[:8192].split(","):
        scheme, _, rest = uri.strip(" \t").partition(":")
        address = unquote(rest.partition("!")[0].partition("?")[0]).strip()
        local, _, written = address.rpartition("@")
        usable = local.isascii() and local.isprintable() and not set(local) & set(' "(),:;<>@[\\]')
        if scheme.lower() == "mailto" and usable and local and a_labels(written) and len(address) <= LONGEST_ADDRESS:
            found.setdefault(f"{local}@{a_labels(written)}", _octets(rest.rpartition("!")[2] if "!" in rest else ""))
    return dict(list(found.items())[:MOST_ADDRESSES])


def _octets(size: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})([kmgt]?)", size.strip(), re.IGNORECASE | re.ASCII)
    return int(match[1]) << _SHIFTS[match[2].lower()] if match else 0


_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def _host(address: str) -> str:
    return address.rpartition("@")[2]
