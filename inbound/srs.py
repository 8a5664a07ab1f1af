"""SRS, the Sender Rewriting Scheme: a sender's address at a domain of ours, so that SPF passes behind us and bounces find back.

    SRS0=HASH=TT=sender.example=pat@srs.example.com              for pat@sender.example
    SRS1=HASH=first.example==HASH=TT=sender.example=pat@srs.…    for an SRS0 address of first.example, which knows the rest

1. `HASH` is the start of an HMAC with the installation's secret over the rest, `TT` the day in base 32, so that nobody can have
   mail sent on to an address that never wrote to us, nor for longer than `days`. Both are compared without regard to case:
   local parts are folded on the way. The form and the HMAC (SHA-1) are those of Mail::SRS, libsrs2 and postsrsd.
2. A chain of forwarders grows no further than SRS1: who forwards an SRS1 address keeps the first one's part and signs anew.
3. The null reverse-path stays null, and our own senders stay as they are: what is theirs to say, our SPF record says.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable

from inbound.addresses import a_labels
from inbound.errors import InboundError

HASH = 6  # characters; without case 31 bits. postsrsd has 4, which is 20
SLOTS = 1024  # days until TT begins anew

FORGED = "SRS address not from here"
EXPIRED = "SRS address too old"

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_DAY = 86_400
_TAG = re.compile(r"SRS([01])[-+=]", re.IGNORECASE)
_DOT_ATOM = re.compile(r"[^\x00-\x20\x7f()<>@,;:\\\".\[\]]+(?:\.[^\x00-\x20\x7f()<>@,;:\\\".\[\]]+)*")


class SrsError(InboundError):
    """An SRS address that leads nowhere: FORGED or EXPIRED."""


class Srs:
    """Rewrites senders into `domain` and back. `secret` is the key, `ours` says of a domain that its mail is ours."""

    def __init__(
        self,
        secret: bytes,
        domain: str,
        *,
        days: int = 21,
        ours: Callable[[str], bool] = lambda _: False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.domain = a_labels(domain)
        self._secret = secret
        self._days = days
        self._ours = ours
        self._now = now

    def forward(self, sender: str) -> str:
        """The address to send with: rewritten, unless it is null or ours."""
        local, at, domain = sender.rpartition("@")
        name = a_labels(domain)
        if not at or name == self.domain or self._ours(name):
            return sender
        local = _bare(local)
        tag = _TAG.match(local)
        if tag is None:
            stamp = _stamp(self._today())
            return self._at_ours("SRS0", self._hash(stamp, name or domain, local), stamp, name or domain, local)
        rest = local[len("SRS0") :]
        if tag.group(1) == "1":
            _, _, inner = rest[1:].partition("=")
            first, behind, rest = inner.partition("=")
            if behind and a_labels(first):
                return self._at_ours("SRS1", self._hash(first, rest), first, rest)
            rest = local[len("SRS1") :]
        return self._at_ours("SRS1", self._hash(name or domain, rest), name or domain, rest)

    def claims(self, address: str) -> bool:
        """An SRS address at our domain, genuine or not."""
        local, _, domain = address.rpartition("@")
        return a_labels(domain) == self.domain and _TAG.match(_bare(local)) is not None

    def reverse(self, address: str) -> str:
        """Where mail to an SRS address of ours goes: its sender, or the first forwarder. Raises SrsError."""
        local = _bare(address.rpartition("@")[0])
        tag = _TAG.match(local)
        if tag is None or not self.claims(address):
            raise SrsError(FORGED)
        given, _, rest = local[tag.end() :].partition("=")
        if tag.group(1) == "1":
            first, _, behind = rest.partition("=")
            self._must_be_genuine(given, first, behind)
            return f"{_written(f'SRS0{behind}')}@{first}"
        stamp, _, named = rest.partition("=")
        domain, _, user = named.partition("=")
        self._must_be_genuine(given, stamp, domain, user)
        age = (self._today() - _day(stamp)) % SLOTS
        if self._days < age < SLOTS - 1:  # another machine of ours may be in tomorrow already
            raise SrsError(EXPIRED)
        return f"{_written(user)}@{domain}"

    def _must_be_genuine(self, given: str, *parts: str) -> None:
        domain = parts[-2]
        known = hmac.compare_digest(given.lower().encode(), self._hash(*parts).lower().encode())
        if not known or not parts[-1] or not a_labels(domain):
            raise SrsError(FORGED)

    def _hash(self, *parts: str) -> str:
        digest = hmac.new(self._secret, "".join(parts).lower().encode("utf-8", "surrogateescape"), hashlib.sha1)
        return base64.b64encode(digest.digest()).decode("ascii")[:HASH]

    def _at_ours(self, *parts: str) -> str:
        return f"{_written('='.join(parts))}@{self.domain}"

    def _today(self) -> int:
        return int(self._now() // _DAY)


def _stamp(day: int) -> str:
    return _DIGITS[day // 32 % 32] + _DIGITS[day % 32]


def _day(stamp: str) -> int:
    high, low = (_DIGITS.find(char) for char in stamp.upper()) if len(stamp) == 2 else (-1, -1)  # noqa: PLR2004
    if high < 0 or low < 0:
        raise SrsError(FORGED)
    return high * 32 + low


def _bare(local: str) -> str:
    """A local part without its quotes (RFC 5321 4.1.2)."""
    if len(local) > 2 and local[0] == local[-1] == '"':  # noqa: PLR2004 - quotes with something inside
        return re.sub(r"\\(.)", r"\1", local[1:-1])
    return local


def _written(local: str) -> str:
    """A local part with quotes where it needs them."""
    if _DOT_ATOM.fullmatch(local):
        return local
    quoted = re.sub(r'(["\\])', r"\\\1", local)
    return f'"{quoted}"'
