"""Run in an environment with django-anymail: anymail.py KMS_KEY reads an SNS message as SNS posts it, says what came in."""

import json
import sys

import django  # type: ignore[import-not-found]
from django.conf import settings  # type: ignore[import-not-found]

sys.path.pop(0)  # this file is not the package
settings.configure(
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["anymail"],
    ROOT_URLCONF="anymail.urls",
    SECRET_KEY="x",
    ANYMAIL={
        "AMAZON_SES_INBOUND_KMS_KEY_ID": sys.argv[1] or None,
        "AMAZON_SES_CLIENT_PARAMS": {"region_name": "us-east-1"},
    },
)
django.setup()

from anymail.signals import inbound  # type: ignore[import-not-found] # noqa: E402
from django.test import Client  # type: ignore[import-not-found] # noqa: E402


def told(sender: object, event: object, esp_name: str, **more: object) -> None:  # noqa: ARG001
    """Say what anymail made of it."""
    message = event.message  # type: ignore[attr-defined]
    found = [message.subject, message.envelope_sender, message.envelope_recipient, message.spam_detected]
    json.dump([event.event_id, *found, len(message.text)], sys.stdout)  # type: ignore[attr-defined]


inbound.connect(told)
body = sys.stdin.read()
answer = Client(raise_request_exception=True).post(
    "/amazon_ses/inbound/",
    data=body,
    content_type="text/plain; charset=UTF-8",
    headers={"x-amz-sns-message-type": "Notification", "x-amz-sns-message-id": json.loads(body)["MessageId"]},
)
sys.exit(0 if answer.status_code == 200 else 1)
