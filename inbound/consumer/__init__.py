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
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from inbound.consumer.consuming import Wish, consumed
from inbound.consumer.events import records
from inbound.consumer.forms import Address, AddressGroup
from inbound.consumer.limits import Limits
from inbound.consumer.message import BodyPart, BodyValue, Header, Message, Provenance, Verdicts, safe_name

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
    "consume",
    "records",
    "safe_name",
]

Result = TypeVar("Result")

_LIMITS = Limits()


async def aconsume(
    what: object,
    *,
    bucket: str | None = None,
    prefix: str = "",
    cloud: Any = None,
    settings: "Settings | Path | str | None" = None,
    limits: Limits = _LIMITS,
    sealed: bool = False,
    authserv_ids: Collection[str] = (),
) -> Message | None:
    """`consume` for programs that run on asyncio."""
    wish = Wish(bucket=bucket, prefix=prefix, limits=limits, sealed=sealed, authserv_ids=tuple(authserv_ids))
    return await consumed(what, wish, cloud=cloud, settings=settings)


def consume(
    what: object,
    *,
    bucket: str | None = None,
    prefix: str = "",
    cloud: Any = None,
    settings: "Settings | Path | str | None" = None,
    limits: Limits = _LIMITS,
    sealed: bool = False,
    authserv_ids: Collection[str] = (),
) -> Message | None:
    """The message that `what` is about, None where it is about none.

    `bucket` and `prefix` are the rule's: where messages are that the event names no place of, and the only place that is fetched
    from, whatever an event says. `cloud` is `"aws"`, `"local"`, or a cloud; otherwise `settings` say it (Settings, or the path
    of their file; without, as `inbound` itself finds them). `sealed`: an object in clear is refused. `authserv_ids`: the
    receivers whose header block is believed, any when empty; octets without an event are believed only if it is given.

    Raises Unconsumable (NotAMailEvent, NotAllowed, NotFound, TooBig, Undecryptable, NotSealedForUs, AnotherMessage),
    TemporaryFailure, PermanentFailure of the cloud (rights, credentials), ConfigurationError. In a running event loop it
    raises RuntimeError: `aconsume` is for that.
    """
    return _run(
        aconsume(
            what,
            bucket=bucket,
            prefix=prefix,
            cloud=cloud,
            settings=settings,
            limits=limits,
            sealed=sealed,
            authserv_ids=authserv_ids,
        )
    )


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise RuntimeError("an event loop runs in this thread: use the function whose name begins with `a`")
