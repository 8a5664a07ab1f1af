"""Run in an environment with aws-lambda-powertools: validates the Lambda event on stdin, prints what it read of it."""

import json
import sys

from aws_lambda_powertools.utilities.parser.models import SesModel  # type: ignore[import-not-found]

event = SesModel.model_validate(json.load(sys.stdin))
mail, receipt = event.Records[0].ses.mail, event.Records[0].ses.receipt
json.dump(
    [mail.messageId, mail.commonHeaders.subject, mail.destination, receipt.recipients, receipt.action.functionArn],
    sys.stdout,
)
