"""`stop`: no further rule for these recipients."""

from typing import ClassVar

from inbound.actions import Cloud, Done, Letter, OnFailure, Onward
from inbound.actions.notice import TopicArn, announce
from inbound.reply import Reply
from inbound.schema import keys


@keys
class Stop:
    """End the walk of these recipients."""

    kind: ClassVar[str] = "stop"
    takes: ClassVar[bool] = False
    outward: ClassVar[bool] = True  # its notification is not sent twice

    topic_arn: TopicArn | None = None
    on_failure: OnFailure = "retry"

    @property
    def patience(self) -> float:
        """Nothing to wait for."""
        return 0.0

    @property
    def ends(self) -> bool:
        """That is what it is for."""
        return True

    @property
    def refusal(self) -> Reply | None:
        """It refuses nothing."""
        return None

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Say so on the topic. Raises Failure."""
        await announce(letter, cloud, {"type": "Stop", "topicArn": self.topic_arn})
        return Done(onward=Onward.STOP_RULE_SET)
