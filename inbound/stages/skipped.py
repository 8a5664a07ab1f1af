"""Stages that were not asked for: each looks at nothing and says so."""

from typing import Any, Generic, TypeVar

from inbound.mail import Mail
from inbound.verdicts import (
    ArcVerdict,
    DkimVerdict,
    DmarcVerdict,
    IprevVerdict,
    SpamVerdict,
    SpfVerdict,
    Status,
    VirusVerdict,
)

Verdict = TypeVar("Verdict")

NOT_ASKED = "this check was not asked for"


class Skipped(Generic[Verdict]):
    """A stage that always says the same."""

    def __init__(self, name: str, verdict: Verdict) -> None:
        self.name = name
        self._verdict = verdict

    def broken(self, reason: str) -> Verdict:  # noqa: ARG002 - it cannot break
        """What it always says."""
        return self._verdict

    async def __call__(self, mail: Mail, *evidence: object) -> Verdict:  # noqa: ARG002 - it looks at nothing
        """What it always says."""
        return self._verdict


# By the names that `examine.Stages` has for them. Their kinds differ, so a dict of them has none.
SKIPPED: dict[str, Any] = {
    name: Skipped(name, verdict)
    for name, verdict in {
        "iprev": IprevVerdict(result="none", reason=NOT_ASKED),
        "spf": SpfVerdict(status=Status.DISABLED, result="none", reason=NOT_ASKED),
        "dkim": DkimVerdict(status=Status.DISABLED, result="none", reason=NOT_ASKED),
        "arc": ArcVerdict(result="none", reason=NOT_ASKED),
        "dmarc": DmarcVerdict(status=Status.DISABLED, result="none", reason=NOT_ASKED),
        "virus": VirusVerdict(status=Status.DISABLED, reason=NOT_ASKED),
        "spam": SpamVerdict(status=Status.DISABLED, reason=NOT_ASKED),
    }.items()
}
