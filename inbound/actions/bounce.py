"""`bounce`: refuse the message, with the reply that the rule names: in the SMTP session, or by a notification of that reply."""

import functools
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, model_validator

from inbound.actions import Cloud, Done, Letter, OnFailure, Onward, Usual
from inbound.actions.notice import TopicArn, announce
from inbound.recipients import sender
from inbound.reply import Reply, ReplyError
from inbound.schema import keys

REFUSED = "refused by a rule"

Sender = Annotated[str, AfterValidator(sender)]


@keys
class Bounce(Usual):
    """Refuse. `sender` is told to consumers, and is From of a notification (DSN); for a reply in the session nobody sends any."""

    kind: ClassVar[str] = "bounce"
    takes: ClassVar[bool] = False
    outward: ClassVar[bool] = True  # its notification is not published twice

    smtp_reply_code: int = 550
    status_code: str = ""
    message: str
    sender: Sender = ""
    topic_arn: TopicArn | None = None
    then: Literal["stop", "continue"] = "stop"
    on_failure: OnFailure = "retry"

    @model_validator(mode="after")
    def _is_a_refusal(self) -> Self:
        try:
            reply = self.refusal
        except ReplyError as error:
            raise ValueError(str(error)) from error
        if reply.accepts:
            raise ValueError(f"{reply.code} accepts the message; a bounce needs 4xx or 5xx")
        return self

    @property
    def ends(self) -> bool:
        """SES goes on after a bounce; here that is `then: continue`."""
        return self.then == "stop"

    @property
    def refusal(self) -> Reply:
        """The reply. Without `status_code` it has the class of its code and no more (RFC 3463 3.1)."""
        return _reply(self.smtp_reply_code, self.status_code or f"{self.smtp_reply_code // 100}.0.0", self.message)

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Say so on the topic and answer. Raises Failure."""
        action = {
            "type": "Bounce",
            "topicArn": self.topic_arn,
            "smtpReplyCode": str(self.smtp_reply_code),
            "statusCode": self.refusal.enhanced,
            "message": self.message,
            "sender": self.sender,
        }
        await announce(letter, cloud, action)
        return Done(
            onward=Onward.STOP_RULE_SET if self.ends else Onward.CONTINUE,
            reply=self.refusal,
            detail={"reply": str(self.refusal)},
        )


@functools.lru_cache(256)  # asked about for every recipient of every message
def _reply(code: int, enhanced: str, text: str) -> Reply:
    return Reply(code, enhanced, text, REFUSED)
