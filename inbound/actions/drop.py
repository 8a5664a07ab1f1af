"""`drop`: accept the message and keep nothing of it, on purpose."""

from typing import ClassVar

from inbound.actions import Cloud, Done, Letter, OnFailure, Onward, Usual
from inbound.schema import keys


@keys
class Drop(Usual):
    """Answer 250, keep nothing, end the walk."""

    kind: ClassVar[str] = "drop"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = False

    @property
    def on_failure(self) -> OnFailure:
        """It cannot fail."""
        return "defer"

    @property
    def ends(self) -> bool:
        """There is nothing left to walk with."""
        return True

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:  # noqa: ARG002
        """Nothing is done, and the record says so."""
        return Done(onward=Onward.STOP_RULE_SET)
