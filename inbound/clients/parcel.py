"""A message made ready for the wire, with what the next hop must have to take it."""

import re
from dataclasses import dataclass

from inbound.addresses import a_labels
from inbound.errors import PermanentFailure

NOT_AN_ADDRESS = "address cannot be sent to"

# RFC 5321 4.1.2, and no more than what can neither end a path nor a command.
_PATH = re.compile(r'(?:[^\x00-\x20\x7f<>"\\@]+|"(?:[^\x00-\x1f\x7f"\\]|\\[ -~])*")(?:@[^\x00-\x20\x7f<>"\\@]+)?')


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A message ready for the wire: CRLF line ends, dots stuffed, the end of data behind it. `size` is without those."""

    content: bytes
    size: int
    mail_from: str
    rcpt_to: tuple[str, ...]
    eight_bit: bool
    utf8_header: bool

    @property
    def utf8_address(self) -> bool:
        """An address has a local part that is not ASCII; domains become A-labels."""
        return not all(path_of(address).isascii() for address in (self.mail_from, *self.rcpt_to))


def parcel_of(raw: bytes, mail_from: str, rcpt_to: tuple[str, ...], *, smtputf8: bool) -> Parcel:
    """Make a message ready for the wire. Linear, but work for a thread when it is big.

    `smtputf8`: it came with SMTPUTF8, so a header that is not ASCII is meant so (RFC 6532), and no relic of old programs.
    Raises PermanentFailure for an address that no command could carry.
    """
    for address in (mail_from, *rcpt_to):
        path = path_of(address)
        if path and not (_PATH.fullmatch(path) and path.isprintable()):
            raise PermanentFailure(NOT_AN_ADDRESS, f"{address!r} cannot stand in a command")
    if not raw.count(b"\r\n") == raw.count(b"\n") == raw.count(b"\r"):
        raw = re.sub(rb"\r\n|\r|\n", b"\r\n", raw)  # RFC 5321 2.3.8: none of them alone
    if not raw.endswith(b"\r\n"):
        raw += b"\r\n"
    header = raw[: raw.find(b"\r\n\r\n") + 1]
    stuffed = (b"." if raw.startswith(b".") else b"") + raw.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    return Parcel(
        content=stuffed,
        size=len(raw),
        mail_from=mail_from,
        rcpt_to=rcpt_to,
        eight_bit=not raw.isascii(),
        utf8_header=smtputf8 and not header.isascii(),
    )


def path_of(address: str) -> str:
    """The address as it stands in a command, its domain in A-labels where it is a domain name."""
    local, at, domain = address.rpartition("@")
    return f"{local}@{a_labels(domain) or domain}" if at and not domain.isascii() else address
