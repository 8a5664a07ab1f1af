"""`lambda`: call a function with SES's event; one that is waited for may steer the walk, or refuse the message."""

import json
import logging
from typing import Annotated, Any, ClassVar, Literal

from pydantic import StringConstraints

from inbound.actions import Cloud, Done, Letter, OnFailure, Onward, Usual
from inbound.actions.notice import TopicArn, announce, written
from inbound.errors import TemporaryFailure
from inbound.event import lambda_event
from inbound.reply import Reply, ReplyError
from inbound.schema import keys

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds that a RequestResponse function has (SES's limit)
REFUSED = "refused by a function"
ANSWER_UNUSABLE = "function's answer cannot be used"

FunctionName = Annotated[
    str,
    StringConstraints(
        pattern=r"^(arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:)?[A-Za-z0-9_-]{1,64}(:[A-Za-z0-9$_-]{1,128})?$"
    ),
]

_INVOCATIONS = {"event": "Event", "request_response": "RequestResponse"}


@keys
class Invoke(Usual):
    """Call a function. `event`: once it is queued the action is done. `request_response`: its answer is waited for."""

    kind: ClassVar[str] = "lambda"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True

    function: FunctionName
    invocation: Literal["event", "request_response"] = "event"
    topic_arn: TopicArn | None = None
    on_failure: OnFailure = "retry"

    @property
    def patience(self) -> float:
        """A function that is waited for has its 30 s even when the delivery's own budget is spent."""
        return PATIENCE if self.invocation == "request_response" else 0.0

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Call it, say so on the topic, and do what it answers. Raises Failure; a function error is a TemporaryFailure."""
        action = {
            "type": "Lambda",
            "topicArn": self.topic_arn,
            "functionArn": self._arn(letter),
            "invocationType": _INVOCATIONS[self.invocation],
        }
        wait = self.invocation == "request_response"
        answer = await cloud.invoke(self.function, await written(lambda_event, letter, action), wait=wait)
        done = disposition(answer) if wait else Done()
        await announce(letter, cloud, action)
        return done

    def _arn(self, letter: Letter) -> str:
        if self.function.startswith("arn:"):
            return self.function
        return f"arn:aws:lambda:{letter.region}:{letter.account}:function:{self.function}"


def disposition(answer: bytes) -> Done:
    """What a function's answer means (AWS: "Lambda function action"); anything that SES would not know is CONTINUE.

    `BOUNCE` is ours: the message is refused in the session with `smtp_reply_code`, `status_code` and `message`. Raises
    TemporaryFailure when that makes no reply: the function wants to refuse, so the message must not be accepted.
    """
    try:
        told = json.loads(answer)
    except ValueError:
        return Done()
    wish = str(told.get("disposition", "")).upper() if isinstance(told, dict) else ""
    if wish == "BOUNCE":
        reply = _reply(told)
        return Done(onward=Onward.STOP_RULE_SET, reply=reply, detail={"disposition": wish, "reply": str(reply)})
    if wish not in set(Onward):
        return Done()
    return Done(onward=Onward(wish), detail={"disposition": wish})


def _reply(told: dict[str, Any]) -> Reply:
    try:
        code = int(told.get("smtp_reply_code", 550))
        reply = Reply(
            code,
            str(told.get("status_code", f"{code // 100}.7.1")),
            str(told.get("message", "Message refused")),
            REFUSED,
        )
    except (ReplyError, ValueError, TypeError) as error:
        raise TemporaryFailure(ANSWER_UNUSABLE, str(error)) from error
    if reply.accepts:
        raise TemporaryFailure(ANSWER_UNUSABLE, f"a bounce with {reply}")
    return reply
