"""Run in an environment with other people's consumers: consumers.py NAME [ARGUMENT...], the event as JSON on stdin."""

import json
import sys
from collections.abc import Callable
from typing import Any

sys.path.pop(0)  # this file is not the package


def sesforwader(event: Any, bucket: str) -> Any:
    """A Lambda function that forwards: what it fetched and what it sent."""
    from sesforwader.sesforwader import handler  # type: ignore[import-not-found] # noqa: PLC0415

    mapping = {"support@example.com": ["pat@elsewhere.example"]}
    more = {"from_email": "noreply@example.com", "subject_prefix": "[fwd] ", "ses_region": "us-east-1"}
    _, sent = handler(event, None, forward_mapping=mapping, ses_incoming_bucket=bucket, s3_key_prefix="in/", **more)
    return sent.decode()


def sesparser(event: Any) -> Any:
    """A Lambda function behind the topic of an S3 action: it reads SES's header block itself."""
    from sesparser.main import online  # type: ignore[import-not-found] # noqa: PLC0415

    return online(event)


def django_email_gateway(event: Any) -> Any:
    """A web service that SNS calls with the content of the SNS action."""
    from django_email_gateway.receiving_mail import sns_notification  # type: ignore[import-not-found] # noqa: PLC0415

    return sns_notification(json.dumps(event).encode())


def data_classes(event: Any) -> Any:
    """The other half of aws-lambda-powertools: its SESEvent, not its model."""
    from aws_lambda_powertools.utilities.data_classes import SESEvent  # type: ignore[import-not-found] # noqa: PLC0415

    ses = SESEvent(event)
    mail, receipt, common = ses.mail, ses.receipt, ses.mail.common_headers
    headers = [[one.name, one.value] for one in mail.headers]
    verdicts = [getattr(receipt, f"{name}_verdict").status for name in ("spam", "virus", "spf", "dkim", "dmarc")]
    return [
        *(mail.message_id, mail.source, mail.destination, mail.headers_truncated, mail.timestamp, len(headers)),
        *(common.return_path, common.get_from, common.to, common.subject, common.message_id, common.date),
        *(receipt.recipients, receipt.processing_time_millis > 0, verdicts),
        *(receipt.action.get_type, receipt.action.function_arn, receipt.action.invocation_type),
    ]


def sns_in_queue(event: Any) -> Any:
    """The model of aws-lambda-powertools for SNS's notifications in a queue."""
    from aws_lambda_powertools.utilities.parser.models.sns import (  # type: ignore[import-not-found] # noqa: PLC0415
        SnsNotificationModel,
    )

    return json.loads(SnsNotificationModel.model_validate(event).Message)["mail"]["messageId"]


def lambda_app_common(event: Any) -> Any:
    """A middleware that tells events apart."""
    from lambda_app_common.events.middleware import classify_event  # type: ignore[import-not-found] # noqa: PLC0415

    found = classify_event(event)
    return [found.kind, found.ses_message_id, found.ses_source, found.ses_destination, found.ses_subject]


CONSUMERS: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (sesforwader, sesparser, django_email_gateway, data_classes, sns_in_queue, lambda_app_common)
}

if __name__ == "__main__":
    answer = CONSUMERS[sys.argv[1]](json.load(sys.stdin), *sys.argv[2:])
    json.dump(answer, sys.stdout, default=lambda octets: octets.decode("latin-1"))
