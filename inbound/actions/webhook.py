"""`webhook`: POST the notification of a message to an HTTPS service, signed, so that it knows who speaks and when.

The signature is that of the Standard Webhooks specification (https://www.standardwebhooks.com), which libraries in many
languages check: `webhook-id`, `webhook-timestamp`, and `webhook-signature: v1,` with the base64 of HMAC-SHA-256 over
`ID.TIMESTAMP.BODY`. The id is the same for every try of a step, so a receiver can tell a retry from a new message.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import time
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import StringConstraints, model_validator

from inbound.actions import Cloud, Done, Letter, OnFailure, Usual
from inbound.actions.keep import BucketName, KeyName, Prefix, keep
from inbound.actions.notice import TopicArn, announce, event
from inbound.clients.web import place_of, post
from inbound.errors import PermanentFailure
from inbound.event import notification
from inbound.mime import attachments, parts
from inbound.offload import offload
from inbound.schema import keys

SECONDS = 10.0  # for one call
LONGEST_TEXT = 256 * 1024  # octets of the plain and of the HTML text in a parsed payload
SECRET_MISSING = "webhook secret missing"  # noqa: S105 - a reason
LEAST_SECRET = 24  # octets (Standard Webhooks: 24 to 64)


@keys
class Webhook(Usual):
    """POST the notification, signed.

    `payload`: `event` is the notification alone; `content` has the message in base64 with it, `parsed` its texts and the
    list of its attachments; `raw` posts the message itself (message/rfc822). With `bucket` the message is kept there first,
    and `receipt.action` points to it. `secret_env` names the environment variable that holds the secret (`whsec_…`, or at
    least 24 characters). Private addresses and plain HTTP need `allow_private`.
    """

    kind: ClassVar[str] = "webhook"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True

    url: Annotated[str, StringConstraints(max_length=2048)]
    secret_env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    payload: Literal["event", "content", "parsed", "raw"] = "event"
    bucket: BucketName | None = None
    prefix: Prefix = ""
    kms_key: KeyName | None = None
    allow_private: bool = False
    topic_arn: TopicArn | None = None
    on_failure: OnFailure = "retry"

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        if not place_of(self.url).tls and not self.allow_private:
            raise ValueError("a webhook is called by https; plain http needs allow_private")
        if self.bucket is None and (self.prefix or self.kms_key):
            raise ValueError("prefix and kms_key say how a message is kept in `bucket`, which is missing")
        return self

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Call it. Raises Failure."""
        secret = secret_of(os.environ.get(self.secret_env, ""))
        url = self.url.partition("?")[0]
        action: dict[str, Any] = {"type": "Webhook", "topicArn": self.topic_arn, "url": url}
        if self.bucket:
            kept = await keep(letter, cloud, bucket=self.bucket, prefix=self.prefix, kms_key=self.kms_key)
            action |= {"bucketName": kept.bucket, "objectKeyPrefix": self.prefix, "objectKey": kept.key}
        body = await offload(self._body, letter, action)
        fields = signed(secret, _id(letter, self.url), int(time.time()), body)
        kind = "message/rfc822" if self.payload == "raw" else "application/json"
        fields |= {"Content-Type": kind, "User-Agent": "inbound", "X-Inbound-Message-Id": letter.mail.message_id}
        status = await post(self.url, body, fields, allow_private=self.allow_private, seconds=SECONDS)
        await announce(letter, cloud, action)
        return Done(detail={"status": str(status)})

    def _body(self, letter: Letter, action: dict[str, Any]) -> bytes:
        match self.payload:
            case "raw":
                return letter.content
            case "content":
                content = base64.b64encode(letter.content).decode("ascii")
                return notification(event(letter, action), content=content).encode("utf-8")
            case "parsed":
                told = json.loads(notification(event(letter, action)))
                ours = {"inbound": told.pop("inbound")} if letter.ours else {}
                return json.dumps(told | {"parsed": parsed(letter)} | ours).encode("ascii")
            case _:
                return notification(event(letter, action)).encode("utf-8")


def parsed(letter: Letter) -> dict[str, Any]:
    """The first plain and the first HTML text, and what is attached; `readable` is false where readers could differ."""
    found = parts(letter.mail)
    texts = {
        kind: next((it.text(LONGEST_TEXT) for it in found if it.declared == kind and not it.name), None)
        for kind in ("text/plain", "text/html")
    }
    attached = [
        {"name": it.name, "type": it.type, "declared": it.declared, "size": it.size} for it in attachments(letter.mail)
    ]
    return {
        "text": texts["text/plain"],
        "html": texts["text/html"],
        "attachments": attached,
        "readable": found.readable,
    }


def secret_of(text: str) -> bytes:
    """The secret's octets: what is behind `whsec_` is base64, anything else is taken as it is."""
    try:
        secret = base64.b64decode(text[6:], validate=True) if text.startswith("whsec_") else text.encode("utf-8")
    except binascii.Error as error:
        raise PermanentFailure(SECRET_MISSING, "what is behind whsec_ is not base64") from error
    if len(secret) < LEAST_SECRET:
        raise PermanentFailure(SECRET_MISSING, f"it is not set, or has fewer than {LEAST_SECRET} octets")
    return secret


def signed(secret: bytes, ident: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three fields of Standard Webhooks. `timestamp` is seconds since the epoch."""
    digest = hmac.digest(secret, f"{ident}.{timestamp}.".encode("ascii") + body, "sha256")
    return {
        "webhook-id": ident,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode('ascii')}",
    }


def _id(letter: Letter, url: str) -> str:
    step = "\0".join((letter.mail.message_id, letter.rule, url, *sorted(letter.recipients)))
    return f"{letter.mail.message_id}-{hashlib.sha256(step.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
