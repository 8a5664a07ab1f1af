"""From an event to the message: fetched, opened, checked against everything that names it, and parsed.

1. The event says which message it is about; so do the key's tail, the context that the object was sealed under, and the header
   block on top of it. All that are there must name the same message, or it is AnotherMessage. Where an event names one and
   an object is fetched for it, at least the seal or the block must confirm it.
2. Only places that the caller allows are fetched from: with `bucket`, that one; with `prefix`, keys below it.
3. Verdicts and envelope are the event's where it has them, else the block's. They are trusted unless something speaks against it:
   octets that came without an event and from no bucket, no block where one must be, a receiver that the caller did not name,
   an event that contradicts the object.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inbound.addresses import a_labels
from inbound.consumer import events, forms
from inbound.consumer.block import Block, block_of
from inbound.consumer.events import Told
from inbound.consumer.limits import Limits
from inbound.consumer.message import TOO_BIG, Message, Provenance, Verdicts
from inbound.consumer.objects import UNAUTHENTICATED, Opened, opened
from inbound.consumer.places import cloud_of
from inbound.consumer.reading import parse
from inbound.errors import AnotherMessage, NotAllowed, NotAMailEvent, TooBig
from inbound.mail import Headers
from inbound.offload import offload

if TYPE_CHECKING:
    from inbound.settings import Settings

NO_PLACE = "event does not say where the message is"
ELSEWHERE = "event points to another place than allowed"
ANOTHER = "object is another message"

_ID_LENGTH = 40
_ID_LETTERS = frozenset("0123456789abcdefghijklmnopqrstuv")
_LONGEST_HEAD = 512 * 1024  # octets that the block is looked for in


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a consumer wants: see `inbound.consumer`."""

    bucket: str | None = None
    prefix: str = ""
    sealed: bool = False
    unauthenticated: bool = False
    authserv_ids: Collection[str] = ()
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        ids = self.authserv_ids
        object.__setattr__(self, "authserv_ids", (ids,) if isinstance(ids, str) else tuple(ids))


async def consumed(what: object, wish: Wish, *, cloud: Any, settings: "Settings | Path | str | None") -> Message | None:
    """The message, None where what was given brings none. Raises Failure."""
    if isinstance(what, str | bytes | bytearray | memoryview) and len(what) > 2 * wish.limits.message_bytes:
        raise TooBig(TOO_BIG, f"what was given has {len(what)} octets")
    told = events.told(what)
    if told is None:
        return None
    if told.content is not None:
        return await offload(_read, told, Opened(content=told.content), wish)
    bucket, key = _place(told, wish)
    found = await opened(
        cloud_of(cloud, settings),
        bucket,
        key,
        limit=wish.limits.message_bytes,
        sealed=wish.sealed,
        unauthenticated=wish.unauthenticated,
    )
    return await offload(_read, replace(told, bucket=bucket, key=key), found, wish)


def _place(told: Told, wish: Wish) -> tuple[str, str]:
    """Where the message is, if it may be fetched from there."""
    if told.key:
        if wish.bucket is not None and told.bucket != wish.bucket:
            raise NotAllowed(ELSEWHERE, f"bucket {told.bucket[:100]!r}")
        if wish.prefix and not told.key.startswith(below(wish.prefix)):
            raise NotAllowed(ELSEWHERE, f"key {told.key[:200]!r}")
        return told.bucket, told.key
    if wish.bucket is None:
        raise NotAMailEvent(NO_PLACE, "name the bucket, and the prefix, of the rule that stores it")
    if not _is_id(told.message_id):
        raise NotAMailEvent(NO_PLACE, f"{told.message_id[:80]!r} is no message id")
    return wish.bucket, f"{below(wish.prefix)}{told.message_id}"


def below(prefix: str) -> str:
    """What keys under this prefix begin with: the receiver puts exactly one slash behind it."""
    return f"{prefix.removesuffix('/')}/" if prefix else ""


def _is_id(text: str) -> bool:
    return len(text) == _ID_LENGTH and _ID_LETTERS.issuperset(text)


def _read(told: Told, found: Opened, wish: Wish) -> Message:
    """Check and parse. Takes a processor."""
    block = block_of(Headers.of(_head(found.content)).fields)
    ident = _identified(told, found, block)
    message = parse(found.content, wish.limits)
    heard = told.verdicts or Verdicts()
    seen = block.verdicts if block else Verdicts()
    reason = _doubt(told, found, block, heard, seen, wish) or (
        "" if told.verdicts or seen.source else "no header block on top"
    )
    problems = ("octets that are no UTF-8 were replaced on the way",) if _was_replaced(told) else ()
    return replace(
        message,
        id=ident or message.id,
        receivedAt=_received_at(told, block),
        verdicts=heard if told.verdicts else seen,
        provenance=Provenance(
            kind=told.kind,
            id=ident,
            mail_from=told.mail_from if told.mail_from is not None else block.mail_from if block else None,
            recipients=told.recipients or ((block.recipient,) if block and block.recipient else ()),
            rule=found.context.get("aws:ses:rule-name", "") or told.rule,
            bucket=told.bucket,
            key=told.key,
            sealed=found.form,
            received_by=block.received_by if block else "",
            authserv_id=block.authserv_id if block else "",
            results=block.results if block else (),
            trusted=not reason,
            reason=reason,
        ),
        problems=(*message.problems, *problems),
    )


def _head(content: bytes) -> bytes:
    """The header fields that a block can be in, and what it takes to judge it."""
    end = content.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
    return content[: end + 4 if end >= 0 else _LONGEST_HEAD] if content.startswith(b"Return-Path:") else b"\r\n"


def _identified(told: Told, found: Opened, block: Block | None) -> str:
    """The one id that everything agrees on. Raises AnotherMessage."""
    tail = told.key.rpartition("/")[2]
    named = {
        "the event": told.message_id,
        "its key": tail if _is_id(tail) else "",
        "its seal": found.context.get("aws:ses:message-id", ""),
        "its header block": block.id if block else "",
    }
    ids = {source: ident for source, ident in named.items() if ident}
    if len(set(ids.values())) > 1:
        raise AnotherMessage(ANOTHER, ", ".join(f"{source} says {ident[:60]}" for source, ident in ids.items()))
    if told.key and told.message_id and not ("its seal" in ids or "its header block" in ids):
        raise AnotherMessage(ANOTHER, "it has neither seal nor header block that says which message it is")
    return next(iter(ids.values()), "")


def _doubt(told: Told, found: Opened, block: Block | None, heard: Verdicts, seen: Verdicts, wish: Wish) -> str:
    """Why verdicts and envelope are not to be trusted, "" where nothing speaks against it."""
    named = {a_labels(one) or one.lower() for one in wish.authserv_ids}
    if named and (block is None or block.authserv_id not in named):
        return "the header block is of none of the receivers that were named"
    if found.form == UNAUTHENTICATED:
        return "sealed in a form that hides what is in it and protects nothing from change"
    if told.kind == "octets" and not named:
        return "octets can come from anybody: name the receiver with authserv_ids"
    for check in ("spam", "virus"):
        one, other = getattr(heard, check), getattr(seen, check)
        if one and other and one is not other:
            return f"the event says {check} {one}, the header block {other}"
    return ""


def _received_at(told: Told, block: Block | None) -> str | None:
    try:
        when: datetime | None = datetime.fromisoformat(told.received_at)
    except ValueError:
        when = block.received if block else None
    if when is None:
        return None
    return forms.written((when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC))


def _was_replaced(told: Told) -> bool:
    return told.content_is_text and told.content is not None and b"\xef\xbf\xbd" in told.content
