"""Stages find: each looks at a message one way and returns a verdict. A stage refuses nothing and names no consequence."""

from typing import ParamSpec, Protocol, TypeVar

from inbound.clients import Answer, RecordType
from inbound.mail import Mail

Evidence = ParamSpec("Evidence")
Verdict = TypeVar("Verdict", covariant=True)  # noqa: PLC0105 - the name is the field's


class Stage(Protocol[Evidence, Verdict]):
    """One check. What it needs beside the message stands in its signature: DMARC asks for SPF's and DKIM's verdicts.

    A stage may raise or never end: `examine` gives it a deadline and takes `broken` for its verdict then.
    """

    @property
    def name(self) -> str:
        """The word for it in records, timings and rules."""
        ...

    def broken(self, reason: str) -> Verdict:
        """The verdict when the check itself failed: PROCESSING_FAILED, never a pass."""
        ...

    async def __call__(self, mail: Mail, *evidence: Evidence.args, **more: Evidence.kwargs) -> Verdict:
        """Look at the message."""
        ...


class Resolver(Protocol):
    """DNS, injected. Answers come from one shared cache; a deadline is kept for each question."""

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        """Ask. Raises TemporaryFailure when there is no answer to be had (SERVFAIL, REFUSED, timeout)."""
        ...
