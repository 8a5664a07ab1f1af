"""What can go wrong, as a tree.

    InboundError
    ├── ConfigurationError    settings or rules that cannot be used: every Problem found, each with its place
    └── Failure               something we asked for did not happen; `reason` is a stable constant
        ├── TemporaryFailure  a later try can differ: DNS or a service down, a deadline over
        └── PermanentFailure  it will not, until somebody changes something: no such bucket, access denied

A `Failure` never leaves the program with its text: replies to senders carry the reason's own wording only.
"""

from collections.abc import Sequence
from dataclasses import dataclass


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


class TemporaryFailure(Failure):
    """A later try can differ."""


class PermanentFailure(Failure):
    """Trying again will not help until somebody changes something."""
