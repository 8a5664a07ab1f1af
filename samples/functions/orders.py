"""The function behind orders@, written for SES as it stands: AWS Lambda would run this file unchanged.

The event is the one of "Invoke Lambda function action" in the SES developer guide. The message itself is not in it; a function
that wants it fetches it from the bucket, under the message id.
"""

import logging
from typing import Any

CHECKS = ("spf", "dkim", "dmarc", "spam", "virus")

log = logging.getLogger()
logging.basicConfig(level=logging.INFO, format="%(message)s")


def handler(event: dict[str, Any], context: Any) -> dict[str, str]:  # noqa: ARG001 - Lambda calls it with both
    """Note the order and let the rule set go on."""
    for record in event["Records"]:
        mail, receipt = record["ses"]["mail"], record["ses"]["receipt"]
        verdicts = ", ".join(f"{check} {receipt[f'{check}Verdict']['status']}" for check in CHECKS)
        log.info(
            "order %s from %s: %s (%s)",
            mail["messageId"],
            mail["source"],
            mail["commonHeaders"].get("subject", "no subject"),
            verdicts,
        )
    return {"disposition": "CONTINUE"}
