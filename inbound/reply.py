"""The SMTP reply: one type that cannot lie.

A `Reply` refuses to be built with a code and an enhanced status code of different classes (550 with 4.7.1), with
CR, LF or non-ASCII text, or longer than a reply line may be.
"""

import functools
import re
from dataclasses import dataclass, field

from inbound.errors import InboundError

LONGEST = 512 - 2  # RFC 5321 4.5.3.1.5: 512 octets with the CRLF

_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")  # RFC 3463 2
_TEXT = re.compile(r"[ -~]+")


class ReplyError(InboundError):
    """A reply that no SMTP server may send."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One single-line SMTP reply with its enhanced status code (RFC 5321 4.2, RFC 2034, RFC 3463).

    `reason` says in a few words that never change why it is no yes; it is for the log and is not sent.
    """

    code: int
    enhanced: str
    text: str
    reason: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not (200 <= self.code < 300 or 400 <= self.code < 600):  # noqa: PLR2004 - the classes of RFC 5321 4.2.1
            raise ReplyError(f"{self.code} is not a final reply code (2xx, 4xx or 5xx)")
        if not _ENHANCED.fullmatch(self.enhanced):
            raise ReplyError(f"{self.enhanced!r} is not an enhanced status code such as 5.7.1")
        if self.enhanced[0] != str(self.code)[0]:
            raise ReplyError(f"{self.code} and {self.enhanced} are of different classes")
        if not _TEXT.fullmatch(self.text):
            raise ReplyError(f"{self.text!r} has no text or characters other than printable ASCII")
        if len(str(self)) > LONGEST:
            raise ReplyError(f"a reply line has {len(str(self))} octets, the longest allowed has {LONGEST}")

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}"

    @property
    def accepts(self) -> bool:
        """2xx: it is done, or parked durably."""
        return self.code < 300  # noqa: PLR2004

    @property
    def defers(self) -> bool:
        """4xx: nothing was promised, send again."""
        return 400 <= self.code < 500  # noqa: PLR2004

    @property
    def refuses(self) -> bool:
        """5xx: refused, and the text says why."""
        return self.code >= 500  # noqa: PLR2004


@functools.lru_cache(maxsize=64)  # the rules say it, and delivery does
def accepted(message_id: str) -> Reply:
    """The reply that promises: done. SES answers with the id as well."""
    return Reply(250, "2.0.0", f"OK {message_id}")
