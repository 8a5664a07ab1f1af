"""`stop`: no further rule for these recipients."""

from typing import ClassVar

from inbound.actions import Cloud, Done, Letter, OnFailure, Onward, Usual
from inbound.actions.notice import TopicArn, announce
from inbound.schema import keys


@keys
class Stop(Usual):
    """End the walk of these recipients."""

    kind: ClassVar[str] = "stop"
    takes: ClassVar[bool] = False
    outward: ClassVar[bool] = True  # its notification is not sent twice

    topic_arn: TopicArn | None = None
    on_failure: OnFailure = "retry"

    @property
    def ends(self) -> bool:
        """That is what it is for."""
        return True

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Say so on the topic. Raises Failure."""
        await announce(letter, cloud, {"type": "Stop", "topicArn": self.topic_arn})
        return Done(onward=Onward.STOP_RULE_SET)
