"""What a consumer is handed, read down to one mail: where it is or what it is, and what was said of it. Pure.

1. Envelopes are taken off until a mail is told of: Lambda's `Records`, SQS's `body` (`Body` from boto3), SNS's `Message`,
   EventBridge's `detail`. No more of them than `ENVELOPES`, so that events inside of events have an end.
2. At the bottom is SES's notification (`mail` and `receipt`), S3's `ObjectCreated`, a place (`s3://BUCKET/KEY`), or octets.
3. What is about mail but brings none is no error: the setup notification, a subscription to confirm, S3's test event and
   removals. It is told as nothing.
4. Nothing here is verified. Whoever calls vouches for the transport: SNS's signature over HTTP, the webhook's HMAC, IAM.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from inbound.consumer.message import CHECKS, Verdicts, policy_of, status_of
from inbound.errors import NotAMailEvent

SETUP = "AMAZON_SES_SETUP_NOTIFICATION"
NO_EVENT = "no event of a mail"
SEVERAL = "several mails in one event"
ENVELOPES = 8  # around one another
MOST_RECORDS = 10_000  # SQS hands a function at most that many

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One mail as it was told of. `bucket` and `key` are "" where the event names no place, `content` None where it brings none.

    `message_id`, `recipients`, `received_at` and `verdicts` come from the event and are empty where it has none of it;
    `mail_from` is None then. `content_is_text` says that the octets went through text, which not all survive.
    """

    kind: str
    bucket: str = ""
    key: str = ""
    content: bytes | None = None
    content_is_text: bool = False
    message_id: str = ""
    mail_from: str | None = None
    recipients: tuple[str, ...] = ()
    received_at: str = ""
    rule: str = ""
    verdicts: Verdicts | None = None


def told(what: object) -> Told | None:
    """The one mail that is told of, None where there is none. Raises NotAMailEvent."""
    events = list(_unwrapped(what, 0))
    if len(events) > 1:
        raise NotAMailEvent(SEVERAL, f"{len(events)} records; take them one by one with `inbound.records`")
    return _told(events[0]) if events else None


def records(what: object) -> tuple[Any, ...]:
    """A batch as events of one mail each; what brings no mail is left out. Raises NotAMailEvent."""
    return tuple(_unwrapped(what, 0))


def place_of(text: str) -> tuple[str, str]:
    """Bucket and key of `s3://BUCKET/KEY`. Raises NotAMailEvent."""
    bucket, slash, key = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not bucket or not slash or not key:
        raise NotAMailEvent(NO_EVENT, f"{text[:200]!r} is not of the form s3://BUCKET/KEY")
    return bucket, key


def _unwrapped(what: object, depth: int) -> Iterator[Any]:
    """The events inside of the envelopes, each about one mail."""
    if depth > ENVELOPES:
        raise NotAMailEvent(NO_EVENT, "too many envelopes around it")
    match what:
        case bytes() | bytearray() | memoryview():
            yield from _in_octets(bytes(what))
        case str() if what.startswith("s3://"):
            yield from _place(*place_of(what))
        case str():
            yield from _unwrapped(_json(what), depth)
        case Mapping():
            yield from _in_mapping(what, depth + 1)
        case list() | tuple() if depth == 0:
            yield from _in_records(list(what), depth + 1)
        case _:
            raise NotAMailEvent(NO_EVENT, f"a {type(what).__name__} is none")


def _in_octets(octets: bytes) -> Iterator[Any]:
    """JSON or a place in octets, or a message. There are none inside of an event."""
    begin = octets[:64].lstrip()
    if begin.startswith(b"s3://"):
        yield from _unwrapped(octets.decode("utf-8", "replace").strip(), 0)
    elif begin.startswith((b"{", b"[")):
        try:
            event = json.loads(octets)
        except (ValueError, RecursionError):
            yield octets
        else:
            yield from _unwrapped(event, 0)
    else:
        yield octets


def _in_mapping(event: Json, depth: int) -> Iterator[Any]:
    if isinstance(event.get("Records"), list):
        yield from _in_records(event["Records"], depth)
    elif "mail" in event and "receipt" in event:
        yield from () if _is_setup(event) else (event,)
    elif isinstance(event.get("ses"), Mapping):
        yield from () if _is_setup(event["ses"]) else ({"ses": event["ses"]},)
    elif isinstance(event.get("Sns"), Mapping):
        yield from _in_mapping(event["Sns"], depth + 1)
    elif isinstance(event.get("s3"), Mapping):
        yield from _in_s3_record(event)
    elif "detail-type" in event and isinstance(event.get("detail"), Mapping):
        yield from _in_eventbridge(event)
    elif event.get("Event") != "s3:TestEvent" and event.get("Type") not in _ABOUT_SUBSCRIPTIONS:
        yield from _in_text(event, depth)


_ABOUT_SUBSCRIPTIONS = ("SubscriptionConfirmation", "UnsubscribeConfirmation")


def _in_text(event: Json, depth: int) -> Iterator[Any]:
    """What an envelope carries as text: SNS's `Message`, the `body` of SQS or HTTP."""
    inner = next((event[name] for name in ("Message", "body", "Body") if isinstance(event.get(name), str)), None)
    if inner is None:
        raise NotAMailEvent(NO_EVENT, _what_it_is(event))
    yield from _unwrapped(_from_base64(inner) if event.get("isBase64Encoded") is True else inner, depth)


def _from_base64(body: str) -> str:
    """A body as API Gateway hands it to a function."""
    try:
        return base64.b64decode(body, validate=True).decode("utf-8")
    except ValueError as error:
        raise NotAMailEvent(NO_EVENT, "a body that is not the base64 it is said to be") from error


def _what_it_is(event: Json) -> str:
    kind = event.get("notificationType", event.get("eventType"))
    if isinstance(kind, str) and "mail" in event:
        return f"a notification of SES about mail that was sent ({kind[:40]}), not received"
    return f"JSON with {', '.join(sorted(str(key)[:40] for key in event)[:10]) or 'nothing in it'}"


def _in_records(found: list[Any], depth: int) -> Iterator[Any]:
    if not found or len(found) > MOST_RECORDS:
        raise NotAMailEvent(NO_EVENT, f"{len(found)} records")
    for record in found:
        if not isinstance(record, Mapping):
            raise NotAMailEvent(NO_EVENT, "a record that is no object")
        yield from _in_mapping(record, depth + 1)


def _in_s3_record(record: Json) -> Iterator[Any]:
    """S3's own notification; keys in it are written as in a form's URL."""
    name = _text(record, "eventName")
    if name and "ObjectCreated" not in name:
        return
    bucket, key = _text(_object(record["s3"], "bucket"), "name"), _text(_object(record["s3"], "object"), "key")
    yield from _place(bucket, unquote_plus(key, errors="replace"))


def _in_eventbridge(event: Json) -> Iterator[Any]:
    """EventBridge writes keys as they are."""
    kind = event["detail-type"]
    if event.get("source") != "aws.s3":
        raise NotAMailEvent(NO_EVENT, f"{str(kind)[:80]} of {str(event.get('source'))[:80]}")
    if kind == "Object Created":
        yield from _place(
            _text(_object(event["detail"], "bucket"), "name"), _text(_object(event["detail"], "object"), "key")
        )


def _place(bucket: str, key: str) -> Iterator[Any]:
    if not bucket or not key:
        raise NotAMailEvent(NO_EVENT, "an event of S3 without bucket or key")
    if key.rpartition("/")[2] != SETUP:
        yield f"s3://{bucket}/{key}"


def _is_setup(event: Json) -> bool:
    return _text(_object(event, "mail"), "messageId") == SETUP


def _told(event: Any) -> Told:
    """One event as it comes out of its envelopes."""
    if isinstance(event, bytes):
        return Told(kind="octets", content=event)
    if isinstance(event, str):
        bucket, key = place_of(event)
        return Told(kind="place", bucket=bucket, key=key)
    kind = "lambda" if "ses" in event else "notification"
    event = event.get("ses", event)
    mail, receipt = _object(event, "mail"), _object(event, "receipt")
    if _text(event, "notificationType") not in ("", "Received") or not mail or not receipt:
        raise NotAMailEvent(NO_EVENT, _what_it_is(event))
    action = _object(receipt, "action")
    content, is_text = _content(event, _text(action, "encoding"))
    pointed = bool(_text(action, "bucketName") and _text(action, "objectKey"))
    return Told(
        kind=kind,
        bucket=_text(action, "bucketName") if pointed else "",
        key=_text(action, "objectKey") if pointed else "",
        content=content,
        content_is_text=is_text,
        message_id=_text(mail, "messageId"),
        mail_from=_text(mail, "source") if isinstance(mail.get("source"), str) else None,
        recipients=tuple(one for one in _list(receipt, "recipients") if isinstance(one, str)),
        received_at=_text(mail, "timestamp"),
        rule=_text(_object(event, "inbound"), "rule"),
        verdicts=_verdicts(receipt),
    )


_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def _content(event: Json, encoding: str) -> tuple[bytes | None, bool]:
    """The message in a notification. Which encoding it has is told by the SNS action; elsewhere text has a colon in it."""
    content = event.get("content")
    if not isinstance(content, str):
        return None, False
    is_base64 = encoding.upper() == "BASE64" or (not encoding and ":" not in content[:1000] and _BASE64.match(content))
    if is_base64:
        try:
            return base64.b64decode("".join(content.split()), validate=True), False
        except ValueError as error:
            raise NotAMailEvent(NO_EVENT, "the content is not the base64 it is said to be") from error
    return content.encode("utf-8", "replace"), True


def _verdicts(receipt: Json) -> Verdicts:
    return Verdicts(
        **{check: status_of(_text(_object(receipt, f"{check}Verdict"), "status")) for check in CHECKS},
        dmarc_policy=policy_of(_text(receipt, "dmarcPolicy")),
        source="event",
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotAMailEvent(
            NO_EVENT, f"neither JSON nor s3://BUCKET/KEY: {text[:80]!r}; octets are a message"
        ) from error


def _object(event: Json, name: str) -> Json:
    found = event.get(name)
    return found if isinstance(found, Mapping) else {}


def _list(event: Json, name: str) -> list[Any]:
    found = event.get(name)
    return found if isinstance(found, list) else []


def _text(event: Json, name: str) -> str:
    found = event.get(name)
    return found if isinstance(found, str) else ""
