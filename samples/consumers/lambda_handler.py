"""A Lambda function for received mail, behind SES or behind `inbound`: the event says what came, `consume` brings the message.

The rule stores the message (`s3`), then calls this function (`lambda`). MAIL_BUCKET and MAIL_PREFIX are the rule's; nothing
else is ever fetched, whatever an event says. In AWS it needs s3:GetObject there and kms:Decrypt for the rule's key. Where the
receiver runs with `cloud: local`, MAIL_SETTINGS is the path of its inbound.yaml.
"""

import logging
import os
from typing import Any

import inbound

logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger(__name__)

PLACE = {"bucket": os.environ["MAIL_BUCKET"], "prefix": os.environ.get("MAIL_PREFIX", "")}
CLOUD: dict[str, Any] = {"settings": os.environ["MAIL_SETTINGS"]} if "MAIL_SETTINGS" in os.environ else {"cloud": "aws"}


def handler(event: dict[str, Any], context: Any) -> dict[str, str]:  # noqa: ARG001 - Lambda calls it with both
    """Open a ticket for each message. A failure is raised, so that the mail is tried again."""
    for one in inbound.records(event):
        message = inbound.consume(one, **PLACE, **CLOUD)
        if message is not None:
            ticket(message)
    return {"disposition": "CONTINUE"}


def ticket(message: Any) -> None:
    """What the program is for. `message.id` is the same when the same mail is delivered again."""
    author = message.from_[0] if message.from_ else "nobody"
    known = "" if message.passed("dmarc") else ", who may be somebody else"
    log.info("ticket %s from %s%s: %s", message.id, author, known, message.subject)
    for part in message.attachments:
        log.info("  with %s (%s), %d octets", part.safe_name, part.sniffedType, part.size)
