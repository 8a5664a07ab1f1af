"""Whose mail is it, and who may speak for it: author domain, tree walk, organizational domain, alignment (RFC 9989).

1. The author domain is the domain of the one From field. Where a reader could see another one, there is none.
2. The tree walk (4.10) asks for DMARC records at a name and above it, at most 8 times, and ends at a record with psd=y or
   psd=n. What is no DMARC record, or no valid one, or is there several times, is passed over.
3. The organizational domain (4.10.2) follows from the records found. Two names are in relaxed alignment when theirs is the
   same; where no record exists at all, when they are equal or one is the other's parent.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from inbound.addresses import parse_mailboxes
from inbound.errors import TemporaryFailure
from inbound.mail import HeaderField, Mail
from inbound.stages import Resolver

LONGEST_WALK = 8  # queries

# RFC 9989 4.8: "v" *WSP "=" *WSP "DMARC1", the value case sensitive, then the end or a semicolon
_VERSION = re.compile(r"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """The author domain in A-labels; or "" and why there is none."""

    domain: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A DMARC record as found in DNS. `psd` is y, n or u (RFC 9989 4.7)."""

    domain: str
    text: str
    psd: str
    authenticated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """The records on the way from `start` to its top-level domain, longest name first. It ends early at `trouble`."""

    start: str
    found: tuple[Published, ...]
    trouble: TemporaryFailure | None = None

    @property
    def organizational_domain(self) -> str:
        """RFC 9989 4.10.2. Raises TemporaryFailure when a record that was not seen could change it."""
        if self.trouble:
            raise self.trouble.again()
        for published in self.found:
            if published.psd == "n":
                return published.domain
            if published.psd == "y" and published.domain != self.start:
                labels = published.domain.count(".") + 2
                return ".".join(self.start.split(".")[-labels:])
        return self.found[-1].domain if self.found else self.start

    @property
    def policy(self) -> Published | None:
        """Whose policy applies (RFC 9989 4.10.1): the author domain's own, else its organizational domain's, else its suffix's.

        Raises TemporaryFailure when a record that was not seen could change it.
        """
        own = self.at(self.start)
        if own:
            return own
        suffix = next((published for published in self.found if published.psd == "y"), None)
        return self.at(self.organizational_domain) or suffix

    def at(self, domain: str) -> Published | None:
        """The record found at that name."""
        return next((published for published in self.found if published.domain == domain), None)


def author_of(mail: Mail) -> Author:
    """The author domain (RFC 9989 4.3.1). Several From fields, several domains or what cannot be read leave none."""
    return _author_of(mail.raw[: mail.headers.size], mail.headers.all("from"))


@functools.lru_cache(32)  # DKIM and DMARC ask of the same message
def _author_of(header: bytes, fields: tuple[HeaderField, ...]) -> Author:
    if not fields:
        return Author(domain="", reason="no From field")
    if len(fields) > 1 or _seen_as_from(header) > 1:
        return Author(domain="", reason="several From fields")
    field = fields[0]
    mailboxes = parse_mailboxes(field.value)
    if not mailboxes:
        return Author(domain="", reason="no author in From")
    if _DECEPTIVE.search(field.raw) or not all(_one_address(mailbox.address) for mailbox in mailboxes):
        return Author(domain="", reason="From cannot be read")
    domains = {mailbox.domain for mailbox in mailboxes}
    if "" in domains:
        return Author(domain="", reason="From cannot be read")
    if len(domains) > 1:
        return Author(domain="", reason="several author domains in From")
    return Author(domain=domains.pop())


# What some reader takes for the start of a From field: blanks before the first field, a name folded away from its colon or
# with something unprintable in it, a bare CR, LF or NUL for a line end. Looked for in small letters, with one character
# each for all line ends and for all that is unprintable: six times as fast as by the whole classes.
_ALIKE = bytes(
    10 if octet in b"\r\n\0" else octet if octet in b" \t" or 33 <= octet <= 126 else 1  # noqa: PLR2004
    for octet in bytes(range(256)).lower()
)
_SEEN_AS_FROM = re.compile(rb"\n\x01*from[ \t\n\x01]*:")

# Control characters, at which some readers stop reading; a source route, which some take for the address.
_DECEPTIVE = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|<[ \t\r\n]*@|\r(?!\n)|(?<!\r)\n")


def _seen_as_from(header: bytes) -> int:
    return len(_SEEN_AS_FROM.findall((b"\n" + header.lstrip(b" \t")).translate(_ALIKE)))


def _one_address(address: str) -> bool:
    """No second @ that a reader could stop at, unless it is quoted."""
    return address.startswith('"') or address.count("@") == 1


def tags_of(record: str) -> list[tuple[str, str]]:
    """The tags of a DMARC record in order, names lower case. What is no tag is left out (RFC 9989 4.8)."""
    pairs = (part.partition("=") for part in record.split(";"))
    return [(name.strip(" \t").lower(), value.strip(" \t")) for name, equals, value in pairs if equals]


def is_record(text: str) -> bool:
    """It is a DMARC record, whatever else stands in it."""
    return _VERSION.match(text) is not None


async def walk(start: str, resolver: Resolver) -> Walk:
    """Walk from a name up."""
    found: list[Published] = []
    for domain in _names(start):
        try:
            answer = await resolver.query(f"_dmarc.{domain}", "TXT")
        except TemporaryFailure as failure:
            return Walk(start=start, found=tuple(found), trouble=failure.again())
        records = [record for record in answer.records if is_record(record)]
        if len(records) != 1:  # RFC 9989 4.10: several are all discarded
            continue
        psd = _psd(records[0])
        if psd is None:
            continue
        found.append(Published(domain=domain, text=records[0], psd=psd, authenticated=answer.authenticated))
        if psd in ("y", "n"):
            break
    return Walk(start=start, found=tuple(found))


@functools.lru_cache(maxsize=256)
def _psd(record: str) -> str | None:
    """What the record's psd= says; None for a list in which a tag stands twice, which is invalid as a whole (RFC 6376 3.2)."""
    pairs = tags_of(record)
    tags = dict(pairs)
    return tags.get("psd", "u").lower() if len(tags) == len(pairs) else None


def _names(start: str) -> Iterator[str]:
    labels = start.split(".")
    yield start
    for size in range(min(len(labels) - 1, LONGEST_WALK - 1), 0, -1):
        yield ".".join(labels[-size:])


async def aligned(identifier: str, author_domain: str, resolver: Resolver) -> bool:
    """Relaxed alignment (RFC 9989 4.4). Raises TemporaryFailure."""
    if identifier == author_domain:
        return True
    if identifier.rpartition(".")[2] != author_domain.rpartition(".")[2]:
        return False
    one, other = await walk(identifier, resolver), await walk(author_domain, resolver)
    same = one.organizational_domain == other.organizational_domain
    if one.found or other.found:
        return same
    return identifier.endswith(f".{author_domain}") or author_domain.endswith(f".{identifier}")
