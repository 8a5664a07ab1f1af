"""Actions act: each does one thing with a message in the world. Only actions touch it; only rules choose them.

An action is a frozen record whose fields are its YAML keys (`schema.keys`). What it needs of the world is declared here
as small protocols; `clients.local` and `clients.aws` both fulfil them, so the same rule files run in either place.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal, Protocol

from inbound.clients import USUAL, Body, DataKey, Listed, Sharing, StoredObject, Terms
from inbound.clients.relay import Relays
from inbound.mail import Mail
from inbound.record import Walk
from inbound.reply import Reply
from inbound.verdicts import Verdicts

OnFailure = Literal["retry", "continue", "defer"]


class Onward(StrEnum):
    """How the walk goes on behind an action."""

    CONTINUE = "CONTINUE"
    STOP_RULE = "STOP_RULE"  # the rest of this rule is skipped, the next rules run
    STOP_RULE_SET = "STOP_RULE_SET"  # nothing more for these recipients


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What an action is given: the message, what was found, and just the recipients that met the rule.

    `content` is what is stored or handed on: the header block of ours, fields added by rules (these two are `head`), the
    message without forged copies of our fields. `received_at` in `mail` is the time on it; `account` and `region` are for
    the ARNs in events. `ours` says that events have our own key beside SES's. `walks` are those of its recipients, under
    the rule set whose version is `ruleset`. `reached` is what `Done.reached` said of an earlier try.
    """

    mail: Mail
    verdicts: Verdicts
    recipients: tuple[str, ...]
    rule: str
    content: bytes
    account: str
    region: str
    ours: bool = True
    reached: frozenset[str] = frozenset()
    head: bytes = b""
    walks: tuple[Walk, ...] = ()
    ruleset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of an action. `added` is a header field for later actions, `detail` goes into the record.

    `refusals` are the recipients it was not done for, each with the reply that says why; `by` is the next hop (HOST:PORT)
    whose replies they are. `reached` names whom it has reached
    and who must not have it twice: this is written down at once, not only when the message is deferred, and a retry's letter
    has it.
    """

    onward: Onward = Onward.CONTINUE
    reply: Reply | None = None
    added: bytes = b""
    detail: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[str, Reply] = field(default_factory=dict)
    reached: tuple[str, ...] = ()
    by: str = ""


class ObjectStore(Protocol):
    """Buckets. Every method raises TemporaryFailure or PermanentFailure, within its own deadline."""

    async def put(
        self,
        bucket: str,
        key: str,
        body: bytes | Body,
        *,
        metadata: Mapping[str, str],
        terms: Terms = USUAL,
        role_arn: str | None = None,
    ) -> bool:
        """Store unless something is there already (first write wins). False: it was there, and stays as it was.

        Terms that say so have it replaced.
        """
        ...

    async def get(self, bucket: str, key: str) -> StoredObject:
        """Fetch an object whole."""
        ...

    def list_objects(self, bucket: str, prefix: str) -> AsyncIterator[Listed]:
        """The objects whose keys begin with `prefix` ("" is all), in the order of their keys, as they are asked for."""
        ...

    async def delete_object(self, bucket: str, key: str) -> None:
        """Remove an object. One that is not there is removed already."""
        ...


class KeyService(Protocol):
    """KMS keys."""

    async def generate_data_key(
        self,
        key: str,
        context: Mapping[str, str],
        *,
        role_arn: str | None = None,
        sharing: Sharing | None = None,
        octets: int = 0,
    ) -> DataKey:
        """A 256-bit data key under `key` (id, ARN or `alias/…`), bound to the encryption context. Overwrite it after use.

        It is new, unless it may be shared: then it has sealed no more than that, with the `octets` that it is wanted for.
        """
        ...

    async def decrypt_data_key(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key in clear. Fails when the context is not the one it was made with."""
        ...


class Functions(Protocol):
    """Lambda functions."""

    async def invoke(self, function: str, payload: bytes, *, wait: bool) -> bytes:
        """Call a function (name or ARN) with a JSON event. `wait`: its answer, within 30 s; otherwise b"" once queued."""
        ...


class Topics(Protocol):
    """SNS topics."""

    async def publish(self, topic_arn: str, subject: str, message: str, *, role_arn: str | None = None) -> None:
        """Publish one notification."""
        ...


class Queues(Protocol):
    """SQS queues."""

    async def send(self, queue_url: str, message: str, *, once: str, role_arn: str | None = None) -> None:
        """Put one message in a queue. `once` is the same for every try: a FIFO queue drops what it has seen already."""
        ...


class Hops(Protocol):
    """Where mail is sent on to."""

    @property
    def relays(self) -> Relays:
        """The next hops, by name or that of the settings."""
        ...


class Cloud(ObjectStore, KeyService, Functions, Topics, Queues, Hops, Protocol):
    """Everything that actions use of the world."""


class Action(Protocol):
    """One action of a rule, as written. `takes`: the mail is stored, handed on or dropped by it on purpose."""

    kind: ClassVar[str]  # the YAML key
    takes: ClassVar[bool]
    outward: ClassVar[bool]  # it changes the world, so a retry must know that it was done

    @property
    def on_failure(self) -> OnFailure:
        """What its failing means for the message (design 5, rule 5)."""
        ...

    @property
    def patience(self) -> float:
        """Seconds it may take even when the delivery's own budget is spent: 30 for a function that is waited for, else 0."""
        ...

    @property
    def ends(self) -> bool:
        """It ends the walk of its recipients when it is reached (`stop`, `drop`, `bounce` unless `then: continue`)."""
        ...

    @property
    def refusal(self) -> Reply | None:
        """The reply that it refuses with: `bounce` only."""
        ...

    @property
    def may_refuse(self) -> str:
        """Why it may refuse by what the message is ("" if it may not): the same reason, the same answer at RCPT."""
        ...

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Do it. Raises Failure."""
        ...


class Usual:
    """What most actions are like: the walk goes on behind them, they refuse nothing, the delivery's budget is enough."""

    @property
    def patience(self) -> float:
        """It keeps to the delivery's budget."""
        return 0.0

    @property
    def ends(self) -> bool:
        """The walk goes on."""
        return False

    @property
    def refusal(self) -> Reply | None:
        """It refuses nothing."""
        return None

    @property
    def may_refuse(self) -> str:
        """It refuses nothing."""
        return ""
