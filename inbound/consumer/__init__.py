"""For programs that take mail: from an event to a typed message, in one call.

    import inbound

    message = inbound.consume(event, bucket="mail-support", prefix="in")

    for message in inbound.consume_queue("https://sqs.eu-west-1.amazonaws.com/111122223333/mail"):
        ...                                     # deleted from the queue once the loop goes on

    for message in inbound.consume_bucket("mail-support", "in"):
        ...

1. The plain names are for synchronous programs. `aconsume`, `aconsume_queue` and `aconsume_bucket` are the same for programs that
   run on asyncio.
2. `what` may be: SES's event of a Lambda function, an SNS notification (as Lambda, HTTP or SQS hand it out, raw delivery too,
   parsed or as text), what boto3's `receive_message` gives, S3's notification or EventBridge's event of a new object, the body of
   our webhook, `s3://BUCKET/KEY`, or the octets of a message.
3. The answer is None where there is nothing to consume: the setup notification, an SNS subscription to confirm, S3's test event
   and its removals.
4. What is wrong is a `Failure` (`inbound.errors`): `Unconsumable` and what is below it never gets better, `TemporaryFailure` may.
5. Importing this patches nothing; boto3 and the settings are loaded when they are needed.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from inbound.consumer.consuming import Wish, consumed
from inbound.consumer.events import records
from inbound.consumer.forms import Address, AddressGroup
from inbound.consumer.limits import Limits
from inbound.consumer.message import BodyPart, BodyValue, Header, Message, Provenance, Verdicts, safe_name
from inbound.consumer.places import cloud_of
from inbound.consumer.queues import blocking, of_bucket, of_queue
from inbound.consumer.webhooks import verify_webhook
from inbound.errors import Failure

if TYPE_CHECKING:
    from inbound.settings import Settings

__all__ = [
    "Address",
    "AddressGroup",
    "BodyPart",
    "BodyValue",
    "Header",
    "Limits",
    "Message",
    "Provenance",
    "Verdicts",
    "aconsume",
    "aconsume_bucket",
    "aconsume_queue",
    "consume",
    "consume_bucket",
    "consume_queue",
    "records",
    "safe_name",
    "verify_webhook",
]

Result = TypeVar("Result")


class How(TypedDict, total=False):
    """The keywords that all of them take; `consume` says what they mean."""

    limits: Limits
    sealed: bool
    unauthenticated: bool
    authserv_ids: Collection[str]


async def aconsume(
    what: object,
    *,
    bucket: str | None = None,
    prefix: str = "",
    cloud: Any = None,
    settings: "Settings | Path | str | None" = None,
    **how: Unpack[How],
) -> Message | None:
    """`consume` for programs that run on asyncio."""
    return await consumed(what, Wish(bucket=bucket, prefix=prefix, **how), cloud=cloud, settings=settings)


def consume(
    what: object,
    *,
    bucket: str | None = None,
    prefix: str = "",
    cloud: Any = None,
    settings: "Settings | Path | str | None" = None,
    **how: Unpack[How],
) -> Message | None:
    """The message that `what` is about, None where it is about none.

    `bucket` and `prefix` are the rule's: where messages are that the event names no place of, and the only place that is fetched
    from, whatever an event says. `cloud` is `"aws"`, `"local"`, or a cloud; otherwise `settings` say it (Settings, or the path
    of their file; without, as `inbound` itself finds them). `sealed`: an object in clear is refused. `unauthenticated`: one in
    AES-CBC, as AWS's first encryption clients wrote, is read, though never trusted. `authserv_ids`: the receivers whose header
    block is believed, any when empty; octets without an event are believed only if it is given. `limits` are how much of a
    message is taken.

    Raises Unconsumable (NotAMailEvent, NotAllowed, NotFound, TooBig, Undecryptable, NotSealedForUs, AnotherMessage),
    TemporaryFailure, PermanentFailure of the cloud (rights, credentials), ConfigurationError. In a running event loop it
    raises RuntimeError: `aconsume` is for that.
    """
    return _run(aconsume(what, bucket=bucket, prefix=prefix, cloud=cloud, settings=settings, **how))


def aconsume_queue(
    queue_url: str,
    *,
    bucket: str | None = None,
    prefix: str = "",
    wait: float = 20.0,
    hidden: float = 60.0,
    work_seconds: float = 3600.0,
    tries: int = 5,
    dead_letter: str | None = None,
    until_empty: bool = False,
    cloud: Any = None,
    settings: "Settings | Path | str | None" = None,
    **how: Unpack[How],
) -> AsyncGenerator[Message, None]:
    """`consume_queue` for programs that run on asyncio. Close it (`contextlib.aclosing`) where the loop may end early."""
    return of_queue(
        cloud_of(cloud, settings),
        queue_url,
        Wish(bucket=bucket, prefix=prefix, **how),
        wait=wait,
        hidden=hidden,
        work_seconds=work_seconds,
        tries=tries,
        dead_letter=dead_letter,
        until_empty=until_empty,
    )


def consume_queue(
    queue_url: str,
    *,
    bucket: str | None = None,
    prefix: str = "",
    wait: float = 20.0,
    hidden: float = 60.0,
    work_seconds: float = 3600.0,
    tries: int = 5,
    dead_letter: str | None = None,
    until_empty: bool = False,
    cloud: Any = None,
    settings: "Settings | Path | str | None" = None,
    **how: Unpack[How],
) -> Iterator[Message]:
    """The messages that a queue tells of, one after another, for ever; or `until_empty`.

    A message is deleted from the queue when the loop goes on behind it; otherwise it comes again (at least once: `Message.id`
    and `provenance.recipients` tell that it is the same). `wait`: seconds of long polling. `hidden`: seconds for which others do
    not get a message, prolonged while the loop's body works, up to `work_seconds`. What cannot be consumed, or was handed
    out more than `tries` times, goes to the queue `dead_letter`; without, it stays and comes again later each time.
    The other keywords are those of `consume`. Raises Failure when the queue is not there or the credentials are not accepted.
    """
    return blocking(
        aconsume_queue(
            queue_url,
            bucket=bucket,
            prefix=prefix,
            wait=wait,
            hidden=hidden,
            work_seconds=work_seconds,
            tries=tries,
            dead_letter=dead_letter,
            until_empty=until_empty,
            cloud=cloud,
            settings=settings,
            **how,
        )
    )


def aconsume_bucket(
    bucket: str,
    prefix: str = "",
    *,
    after: str = "",
    broken: Callable[[str, Failure], None] | None = None,
    cloud: Any = None,
    settings: "Settings | Path | str | None" = None,
    **how: Unpack[How],
) -> AsyncGenerator[Message, None]:
    """`consume_bucket` for programs that run on asyncio."""
    wish = Wish(bucket=bucket, prefix=prefix, **how)
    return of_bucket(cloud_of(cloud, settings), bucket, wish, after=after, broken=broken)


def consume_bucket(
    bucket: str,
    prefix: str = "",
    *,
    after: str = "",
    broken: Callable[[str, Failure], None] | None = None,
    cloud: Any = None,
    settings: "Settings | Path | str | None" = None,
    **how: Unpack[How],
) -> Iterator[Message]:
    """The messages in a bucket below a prefix, in the order of their keys, those behind the key `after` only.

    `Message.provenance.key` is where to go on from. Keys are in no order of time. `broken` is told key and failure of what
    cannot be consumed, and the rest goes on; without it, the failure is raised. The other keywords are those of `consume`.
    """
    return blocking(aconsume_bucket(bucket, prefix, after=after, broken=broken, cloud=cloud, settings=settings, **how))


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise RuntimeError("an event loop runs in this thread: use the function whose name begins with `a`")
