"""What can go wrong, as a tree.

    InboundError
    ├── ConfigurationError    settings or rules that cannot be used: every Problem found, each with its place
    └── Failure               something we asked for did not happen; `reason` is a stable constant
        ├── TemporaryFailure  a later try can differ: DNS or a service down, a deadline over
        └── PermanentFailure  it will not, until somebody changes something: no such bucket, access denied
            └── Unconsumable  a consumer was given what is no message for it
                ├── NotAMailEvent     no event, notification or place of a mail
                ├── NotAllowed        the event points to where the caller said it may not
                ├── NotFound          no such bucket, no such object
                ├── TooBig            more octets than the limits allow
                ├── Undecryptable     sealed, and changed, cut off, or under another context or key
                │   └── NotSealedForUs  the key is not one that we may use, or the form is not read here
                ├── NotSigned         a webhook call whose signature is not ours, or too old
                └── AnotherMessage    the object is not the message that the event tells of

A `Failure` never leaves the program with its text: replies to senders carry the reason's own wording only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


class InboundError(Exception):
    """The root: everything this package raises on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in a file: `file:line:column: message`. Line and column count from 1; 0 where there is no place."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}"


class ConfigurationError(InboundError):
    """Settings or rules that cannot be used. `problems` holds every one that was found, in the order of the files."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Failure(InboundError):
    """Something we asked for did not happen. `reason` is a short stable constant, `detail` is for the log only."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)

    def again(self) -> Self:
        """Another one that says the same, to raise what was kept.

        An exception keeps the frames it went through, and whole messages in them.
        """
        other = self.__new__(type(self))
        other.args = self.args
        vars(other).update(vars(self))
        return other


class TemporaryFailure(Failure):
    """A later try can differ."""


class PermanentFailure(Failure):
    """Trying again will not help until somebody changes something."""


class Unconsumable(PermanentFailure):
    """What a consumer was given is no message for it, and will not be one the next time."""


class NotAMailEvent(Unconsumable):
    """No event, notification, place or octets of a mail."""


class NotAllowed(Unconsumable):
    """The event points to a bucket or key outside of those that the caller named."""


class NotFound(Unconsumable):
    """There is no such bucket or no such object."""


class TooBig(Unconsumable):
    """There are more octets than the limits allow."""


class Undecryptable(Unconsumable):
    """The object is sealed and does not open: changed, cut off, or its key was made for another context."""


class NotSealedForUs(Undecryptable):
    """The object is sealed under a key that we may not use or that is not there, or in a form that is not read here."""


class NotSigned(Unconsumable):
    """The webhook call was not signed with our secret, or long ago."""


class AnotherMessage(Unconsumable):
    """The object is a message, and not the one that the event tells of."""
