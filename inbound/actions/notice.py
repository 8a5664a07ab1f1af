"""The notification that an action publishes once it was performed, and the event an action tells of itself.

Every action has the key `topic_arn`. Its `receipt.action` is SES's where SES has the action; the others have the same
shape: `type`, `topicArn`, then its own keys in camel case.
"""

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import StringConstraints

from inbound.actions import Letter, Topics
from inbound.event import SUBJECT, Event, notification
from inbound.offload import offload

Told = TypeVar("Told", str, bytes)

TopicArn = Annotated[str, StringConstraints(pattern=r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$")]
RoleArn = Annotated[str, StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$", max_length=2048)]


def event(letter: Letter, action: Mapping[str, Any]) -> Event:
    """What is told of an action on this letter. `action` is SES's `receipt.action`; a topic that is None is left out."""
    return Event(
        mail=letter.mail,
        verdicts=letter.verdicts,
        recipients=letter.recipients,
        rule=letter.rule,
        content=letter.content,
        action={key: value for key, value in action.items() if value is not None},
        now=time.time(),
        ours=letter.ours,
    )


async def written(writes: Callable[..., Told], letter: Letter, action: Mapping[str, Any], **more: Any) -> Told:
    """What `writes` (`notification`, `lambda_event`) makes of the event; of a big header that takes a while, in a thread."""
    told = event(letter, action)
    return await offload(writes, told, **more) if letter.mail.is_big else writes(told, **more)


async def announce(letter: Letter, cloud: Topics, action: Mapping[str, Any], *, role_arn: str | None = None) -> None:
    """Publish that an action was performed, if it has a `topicArn`. Raises Failure."""
    topic = action.get("topicArn")
    if topic:
        told = await written(notification, letter, action)
        await cloud.publish(topic, SUBJECT, told, role_arn=role_arn)
