"""`add_header`: a header field on top of the message, for the actions behind it."""

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, StringConstraints

from inbound.actions import Cloud, Done, Letter, OnFailure, Onward, Usual
from inbound.actions.notice import TopicArn, announce
from inbound.schema import keys

LINE = 78  # RFC 5322 2.1.1: lines should be no longer
LONGEST_LINE = 998  # and must not be longer than this


def _can_stand_in_a_header(value: str) -> str:
    if not re.fullmatch(r"[ -~]*", value):
        raise ValueError("a header value has printable ASCII characters only")
    if value != value.strip():
        raise ValueError("a header value neither begins nor ends with a space")
    if max(map(len, value.split(" "))) > LONGEST_LINE - 52:
        raise ValueError(f"a header line is at most {LONGEST_LINE} characters long; put spaces where it may be folded")
    return value


@keys
class AddHeader(Usual):
    """Put `name: value` under the fields of ours, above the sender's. SES's limits hold."""

    kind: ClassVar[str] = "add_header"
    takes: ClassVar[bool] = False
    outward: ClassVar[bool] = False  # it is done again for the actions behind it

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,50}$")]
    value: Annotated[str, StringConstraints(min_length=1, max_length=2047), AfterValidator(_can_stand_in_a_header)]
    topic_arn: TopicArn | None = None
    on_failure: OnFailure = "retry"

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """The field, folded where it is long. Raises Failure, if there is a topic to tell."""
        action = {
            "type": "AddHeader",
            "topicArn": self.topic_arn,
            "headerName": self.name,
            "headerValue": self.value,
        }
        await announce(letter, cloud, action)
        return Done(onward=Onward.CONTINUE, added=folded(self.name, self.value))


def folded(name: str, value: str) -> bytes:
    """The field with its CRLF, folded so that unfolding gives back the value: only at a single space (RFC 5322 2.2.3)."""
    lines, line = [], f"{name}:"
    # Runs of spaces stay inside a piece: a reader may collapse what stands around a fold.
    for piece in re.split(r"(?<! ) (?! )", value):
        if len(line) + 1 + len(piece) > LINE and line.strip() and not line.endswith(":"):
            lines.append(line)
            line = ""
        line += f" {piece}"
    return ("\r\n".join([*lines, line]) + "\r\n").encode("ascii")
