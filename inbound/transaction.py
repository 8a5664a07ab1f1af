"""One mail's way, from MAIL FROM to the reply after its end of data.

    recipient   who is it, is it ours, may it share this transaction? (gate, and the rules as far as they are certain)
    message     examine, decide, deliver, write the record, reply

The rule set in force at MAIL FROM is the one used to the end. Look-ups about the client start there too.
"""

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from inbound.deliver import Means, deliver
from inbound.examine import Stages, begin, examine
from inbound.gate import Gate
from inbound.greylist import Greylist
from inbound.mail import BIG, Client, Headers, Mail, message_id
from inbound.mime import attachments
from inbound.offload import offload
from inbound.record import Record, Walk
from inbound.reply import Reply
from inbound.rules import Decision, RuleSet, decide, outlook
from inbound.trace import header_block
from inbound.verdicts import BlockVerdict, Verdicts

TAKEN = Reply(250, "2.1.5", "Recipient ok")
# SES: "mailbox unavailable"; RFC 3463 5.1.1
NO_SUCH_RECIPIENT = Reply(550, "5.1.1", "No such recipient here", "no such recipient")
NEEDS_TLS = Reply(530, "5.7.0", "Must issue a STARTTLS command first", "TLS required")  # RFC 3207 4
NEEDS_ITS_OWN_TRANSACTION = Reply(
    452, "4.5.3", "This recipient may need another answer, send it separately", "recipients need different answers"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What it takes to judge a mail. `secret` is the installation's, behind message ids; `now` gives epoch seconds.

    `split`: recipients that could need different answers get a transaction each.
    """

    gate: Gate
    stages: Stages
    secret: bytes
    now: Callable[[], float] = time.time
    split: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Everything a message meets on its way: the parts that `app` has put together."""

    sight: Sight
    means: Means
    hostname: str
    authserv_id: str
    greylist: Greylist | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What was answered at RCPT instead of yes, for the log: nobody else tells the operator whose mail it was."""

    client: Client
    mail_from: str
    recipient: str
    reply: Reply


class Transaction:
    """Fulfils `receive.Transaction`. `note` is told each record and each refusal."""

    def __init__(
        self,
        path: Path,
        ruleset: RuleSet,
        client: Client,
        mail_from: str,
        *,
        smtputf8: bool,
        note: Callable[[Record | Refusal], None],
    ) -> None:
        self._path = path
        self._ruleset = ruleset
        self._client = client
        self._mail_from = mail_from
        self._smtputf8 = smtputf8
        self._note = note
        self._party: Party | None = None
        # RSET or a lost client leaves these two alone: they are short, and end by themselves.
        self._block = asyncio.ensure_future(path.sight.gate.look_up(client.ip))
        self._begun = begin(self._mail(b"", (), ""), path.sight.stages)

    async def recipient(self, address: str) -> Reply:
        """Answer RCPT TO."""
        if self._party is None:
            envelope = Envelope(client=self._client, mail_from=self._mail_from, block=await self._block)
            sight = self._path.sight
            self._party = Party(sight.gate, self._ruleset, envelope, split=sight.split)
        refusal = self._party.join(address) or await self._wait(self._party, address)
        if refusal is None:
            return TAKEN
        self._note(Refusal(client=self._client, mail_from=self._mail_from, recipient=address, reply=refusal))
        return refusal

    async def _wait(self, party: "Party", address: str) -> Reply | None:
        """Who is on the operator's `allow` list never waits, and who must is not in the party."""
        greylist = self._path.greylist
        if greylist is None or (await self._block).allowed:
            return None
        later = await greylist.answer(self._client, self._mail_from, address, self._begun.spf)
        if later is not None:
            party.part(address)
        return later

    async def message(self, raw: bytes) -> Reply:
        """The path of a message: examine, decide, deliver, and say so."""
        started = time.perf_counter()
        path, sight, rcpt_to = self._path, self._path.sight, tuple(self._party.members) if self._party else ()
        mail = self._mail(raw, rcpt_to, await _named(sight, self._mail_from, rcpt_to, raw))
        scan = self._ruleset.wants_scan(rcpt_to)
        verdicts = await examine(mail, sight.stages, await self._block, scan=scan, begun=self._begun)
        decision = await _decided(self._ruleset, mail, verdicts, split=sight.split)
        block = header_block(mail, verdicts, hostname=path.hostname, authserv_id=path.authserv_id)
        delivery = await deliver(mail, verdicts, decision, block, path.means)
        if path.greylist is not None and delivery.reply.accepts:
            await path.greylist.learn(mail.client, verdicts)
        self._note(
            Record(
                message_id=mail.message_id,
                client=mail.client,
                mail_from=mail.mail_from,
                rcpt_to=rcpt_to,
                size=len(raw),
                verdicts=verdicts,
                walks=decision.walks,
                ran=delivery.ran,
                reply=delivery.reply,
                ruleset=self._ruleset.version,
                milliseconds=round((time.perf_counter() - started) * 1000, 3),
                by_dmarc=decision.by_dmarc,
            )
        )
        return delivery.reply

    def _mail(self, raw: bytes, rcpt_to: tuple[str, ...], message_id: str) -> Mail:
        return Mail(
            raw=raw,
            headers=Headers.of(raw),
            client=self._client,
            mail_from=self._mail_from,
            rcpt_to=rcpt_to,
            received_at=self._path.sight.now(),
            message_id=message_id,
            smtputf8=self._smtputf8,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What is known of a mail at RCPT, beside the recipient."""

    client: Client
    mail_from: str
    block: BlockVerdict


class Party:
    """The recipients of one transaction: those that can never need different answers, if they are `split` by them."""

    def __init__(self, gate: Gate, ruleset: RuleSet, envelope: Envelope, *, split: bool) -> None:
        self.members: dict[str, None] = {}  # in the order they came
        self._gate = gate
        self._ruleset = ruleset
        self._envelope = envelope
        self._split = split
        self._answers: Hashable = None

    def join(self, recipient: str) -> Reply | None:
        """Take the recipient in, or say why not with everything that is certain by now."""
        known = self._envelope
        refusal = self._gate.answer(known.block, recipient)
        if refusal is not None:
            return refusal
        if not self._ruleset.covers(recipient):
            return NO_SUCH_RECIPIENT
        if known.client.tls is None and self._ruleset.requires_tls(recipient):
            return NEEDS_TLS
        ahead = outlook(self._ruleset, recipient, client=known.client, mail_from=known.mail_from, block=known.block)
        if ahead.refusal is not None:
            return ahead.refusal
        if self._split and self.members and ahead.answers != self._answers:
            return NEEDS_ITS_OWN_TRANSACTION
        self._answers = ahead.answers
        self.members[recipient] = None
        return None

    def part(self, recipient: str) -> None:
        """Let the recipient go again."""
        del self.members[recipient]


async def _named(sight: Sight, mail_from: str, rcpt_to: tuple[str, ...], raw: bytes) -> str:
    """Our id for the message. Hashing a big one is work for a thread."""
    named = (sight.secret, mail_from, rcpt_to, raw)
    return await offload(message_id, *named) if len(raw) > BIG else message_id(*named)


async def _decided(ruleset: RuleSet, mail: Mail, verdicts: Verdicts, *, split: bool) -> Decision:
    """What the rules say. They may look at attachments: with a big message that is work for a thread."""
    if mail.is_big:
        return await offload(decide, ruleset, mail, verdicts, parts=attachments, split=split)
    return decide(ruleset, mail, verdicts, parts=attachments, split=split)


async def judge(sight: Sight, ruleset: RuleSet, mail: Mail) -> Record:
    """The same path without side effects: what is found, which rules are met, what would run and be answered.

    The mail needs no id: it gets the one that it would have had.
    Recipients that RCPT would refuse have that reply; the others are decided as one transaction.
    """
    started = time.perf_counter()
    envelope = Envelope(client=mail.client, mail_from=mail.mail_from, block=await sight.gate.look_up(mail.client.ip))
    party = Party(sight.gate, ruleset, envelope, split=sight.split)
    refused = {who: party.join(who) for who in mail.rcpt_to}
    admitted = tuple(party.members)
    rcpt_to = admitted or mail.rcpt_to
    mail = replace(mail, rcpt_to=rcpt_to, message_id=await _named(sight, mail.mail_from, rcpt_to, mail.raw))
    verdicts = await examine(mail, sight.stages, envelope.block, scan=ruleset.wants_scan(mail.rcpt_to))
    decision = await _decided(ruleset, mail, verdicts, split=sight.split)
    decided = {walk.recipient: walk for walk in decision.walks}
    walks = tuple(
        Walk(recipient=who, traces=(), actions=(), reply=refusal) if refusal else decided[who]
        for who, refusal in refused.items()
    )
    return Record(
        message_id=mail.message_id,
        client=mail.client,
        mail_from=mail.mail_from,
        rcpt_to=tuple(refused),
        size=len(mail.raw),
        verdicts=verdicts,
        walks=walks,
        reply=decision.reply if admitted else walks[0].reply,
        ruleset=ruleset.version,
        milliseconds=round((time.perf_counter() - started) * 1000, 3),
        by_dmarc=decision.by_dmarc,
    )
