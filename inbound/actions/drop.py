"""`drop`: accept the message and keep nothing of it, on purpose."""

from typing import ClassVar

from inbound.actions import Cloud, Done, Letter, OnFailure, Onward, Usual
from inbound.actions.notice import TopicArn, announce
from inbound.schema import keys


@keys
class Drop(Usual):
    """Answer 250, keep nothing, end the walk."""

    kind: ClassVar[str] = "drop"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True  # its notification is not sent twice

    topic_arn: TopicArn | None = None
    on_failure: OnFailure = "retry"

    @property
    def ends(self) -> bool:
        """There is nothing left to walk with."""
        return True

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Nothing is done, and the record and the topic say so. Raises Failure."""
        await announce(letter, cloud, {"type": "Drop", "topicArn": self.topic_arn})
        return Done(onward=Onward.STOP_RULE_SET)
