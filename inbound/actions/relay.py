"""`relay`: hand the message on to a mail server by SMTP, while its sender waits; what that answers, the sender is told.

1. What is handed on is what is stored: our header block, then the message as it came, so DKIM signatures hold. Only Return-Path
   stays here, which is for the last server to write (RFC 5321 4.4).
2. A recipient that the next hop refuses is refused in the session, with the next hop's own code. One that it defers makes the
   message wait at its sender; who has it by then is written down, and not sent it again.
3. A message that has been here too often, or anywhere, is a loop: 554 5.4.6.
4. The null reverse-path stays null, whatever `mail_from` says. The opposite would make bounces of bounces.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from inbound.actions import Cloud, Done, Hops, Letter, OnFailure, Onward, Usual
from inbound.actions.notice import TopicArn, announce
from inbound.addresses import a_labels
from inbound.clients.relay import DeferredError, Handed, Hop, NextHop, RefusedError, Relays
from inbound.errors import Failure, PermanentFailure
from inbound.mail import Mail
from inbound.offload import offload
from inbound.recipients import pattern
from inbound.reply import Reply
from inbound.schema import keys
from inbound.settings import ENCRYPTED, LONGEST_DELAY, USER_IN_CLEAR, Host, Port, TlsPolicy
from inbound.settings import Relay as RelaySettings
from inbound.srs import SrsError

PATIENCE = LONGEST_DELAY + 60.0  # seconds; the client has a deadline of its own, by the settings, and so has the topic
PASSAGES = 3  # times that we stand in Received already, then it is a loop: lists and forwards pass twice at most
IMPLICIT_PORT = 465  # RFC 8314 3.3

LOOP = Reply(554, "5.4.6", "Routing loop: this message has been here, or on its way, too often", "routing loop")
PARTLY = Reply(451, "4.3.5", "Not everybody who was to have this could be given it", "not everybody reached")
UNTOLD = Reply(
    451, "4.3.0", "Not everything could be done with this message yet, please try again later", "topic not told"
)
NO_RETURN = Reply(550, "5.1.1", "This return address is not valid", "SRS address not valid")
NO_SRS = "no srs_domain set"


def _address(text: str) -> str:
    """An address, its domain in A-labels."""
    local, _, domain = text.strip().rpartition("@")
    if "@" not in pattern(text):
        raise ValueError(f"{text!r} is no address")
    return f"{local}@{a_labels(domain)}"


def _sender(text: str) -> str:
    if text in ("keep", "srs", "null"):
        return text
    if "@" not in text:
        raise ValueError(f"expected keep, srs, null or an address, found {text!r}")
    return _address(text)


Address = Annotated[str, AfterValidator(_address)]
Sender = Annotated[str, AfterValidator(_sender)]
Addresses = Annotated[tuple[Address, ...], Field(min_length=1, max_length=100)]
Variable = Annotated[str, StringConstraints(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")]


@keys
class Relay(Usual):
    """Hand the message on. Without a `host` it goes to the next hop of the settings.

    `mail_from`: `keep` is the sender as it is, `srs` rewrites it into `relay.srs_domain`, `null` takes it away. `to` are other
    recipients; `srs` the senders whose SRS addresses the recipients are.
    """

    kind: ClassVar[str] = "relay"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True

    host: Host = ""
    port: Port | None = None
    tls: TlsPolicy | None = None
    ca_file: Path | None = None
    user: str = ""
    password_env: Variable = ""
    password_file: Path | None = None
    mail_from: Sender | None = "keep"
    to: Addresses | Literal["srs"] | None = None
    topic_arn: TopicArn | None = None
    on_failure: OnFailure = "retry"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        how = (self.port, self.tls, self.ca_file, self.user, self.password_env, self.password_file)
        if not self.host and any(how):
            raise ValueError("how the next hop is spoken to belongs to a host, which is missing")
        if self.user and self.tls not in ENCRYPTED:
            raise ValueError(USER_IN_CLEAR)
        if bool(self.user) != bool(self.password_env or self.password_file):
            raise ValueError("user and password_env or password_file belong together")
        if any(file is not None and not file.is_absolute() for file in (self.ca_file, self.password_file)):
            raise ValueError("ca_file and password_file are absolute paths")
        return self

    @property
    def patience(self) -> float:
        """The next hop may take longer than the delivery's budget, as its client's deadline says."""
        return PATIENCE

    @property
    def hop(self) -> Hop | None:
        """The next hop that it names, None for that of the settings."""
        if not self.host:
            return None
        tls = self.tls or "opportunistic"
        return Hop(
            host=self.host,
            port=self.port or (IMPLICIT_PORT if tls == "implicit" else 25),
            tls=tls,
            ca_file=self.ca_file,
            user=self.user,
            password_env=self.password_env,
            password_file=self.password_file,
        )

    def flaw(self, settings: RelaySettings) -> str:
        """What it needs of the settings and they do not have, "" when they have it."""
        if not self.host and not settings.host:
            return "relays to nowhere: neither it nor the settings (relay) name a host"
        if "srs" in (self.mail_from, self.to) and not settings.srs_domain:
            return "says srs, and the settings have no relay.srs_domain"
        return ""

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:
        """Hand it on, and say so on the topic. Raises Failure when nobody has it, or when that is not known."""
        relays = cloud.relays
        if loops(letter.mail, hostname=relays.hostname, most=relays.most_received):
            return Done(onward=Onward.STOP_RULE_SET, reply=LOOP, detail={"note": LOOP.reason})
        sender, routes = self._sender(letter, relays), self._routes(letter, cloud)
        targets = tuple(dict.fromkeys(target for several in routes.values() for target in several))
        missing = tuple(target for target in targets if target not in letter.reached)
        next_hop = relays.to(self.hop)
        handed = await _hand_on(letter, next_hop, sender, missing) if missing else Handed(reply=_HAD, refusals={})
        reached = tuple(target for target in targets if target not in handed.refusals)
        detail = {"next_hop": next_hop.name, "reply": str(handed.reply)} | _refused(handed.refusals)
        refusals = {who: _answer(several, handed.refusals) for who, several in routes.items()}
        left = {who: reply for who, reply in refusals.items() if not reply.accepts}
        if len(left) < len(routes):
            left |= await self._untold(letter, cloud, detail)
        return Done(detail=detail, refusals=left, reached=reached, by=next_hop.name)

    async def _untold(self, letter: Letter, cloud: Cloud, detail: dict[str, str]) -> dict[str, Reply]:
        """Tell the topic. When that fails the message waits at its sender, whatever became of it: it is not sent on again."""
        action = {"type": "Relay", "topicArn": self.topic_arn, "nextHop": detail["next_hop"]}
        try:
            await announce(letter, cloud, action)
        except Failure as failure:
            detail["note"] = f"{failure.reason}: {failure.detail}"
            if self.on_failure != "continue":
                return dict.fromkeys(letter.recipients, UNTOLD)
        return {}

    def _sender(self, letter: Letter, relays: Relays) -> str:
        sender = letter.mail.mail_from
        match self.mail_from if sender else "keep":
            case "keep":
                return sender
            case "null" | None:  # YAML's null is no text
                return ""
            case "srs":
                if relays.srs is None:
                    raise PermanentFailure(NO_SRS, "mail_from: srs needs relay.srs_domain in the settings")
                return relays.srs.forward(sender)
            case address:
                return address

    def _routes(self, letter: Letter, hops: Hops) -> dict[str, tuple[str, ...]]:
        """Who gets it for each recipient; nobody where an SRS address has become invalid."""
        if self.to is None:
            return {who: (who,) for who in letter.recipients}
        if self.to != "srs":
            return dict.fromkeys(letter.recipients, self.to)
        if hops.relays.srs is None:
            raise PermanentFailure(NO_SRS, "to: srs needs relay.srs_domain in the settings")
        routes: dict[str, tuple[str, ...]] = {}
        for who in letter.recipients:
            try:
                routes[who] = (hops.relays.srs.reverse(who),)
            except SrsError:
                routes[who] = ()
        return routes


async def _hand_on(letter: Letter, next_hop: NextHop, sender: str, to: tuple[str, ...]) -> Handed:
    """What the next hop answers. A Failure is raised only where it is not known who has it."""
    mail, content = letter.mail, letter.content
    raw = await offload(without_return_path, content) if mail.is_big else without_return_path(content)
    try:
        return await next_hop.hand_on(raw, mail_from=sender, rcpt_to=to, smtputf8=mail.smtputf8)
    except (RefusedError, DeferredError) as nobody:
        return Handed(reply=next(iter(nobody.replies.values())), refusals=nobody.replies)


_HAD = Reply(250, "2.0.0", "everybody has it already")


def _answer(targets: Iterable[str], refusals: Mapping[str, Reply]) -> Reply:
    """What is true for a recipient in whose stead these were to have it."""
    found = [refusals.get(target, _HAD) for target in targets] or [NO_RETURN]
    deferral = next((reply for reply in found if reply.defers), None)
    refused = [reply for reply in found if reply.refuses]
    return deferral or (found[0] if len(refused) in (0, len(found)) else PARTLY)


def _refused(refusals: Mapping[str, Reply]) -> dict[str, str]:
    return {"refused": "; ".join(f"{who}: {reply}" for who, reply in refusals.items())[:1000]} if refusals else {}


_RETURN_PATH = b"Return-Path:"


def without_return_path(content: bytes) -> bytes:
    """The message less the Return-Path that our header block begins with."""
    return content[content.find(b"\n") + 1 :] if content.startswith(_RETURN_PATH) else content


def loops(mail: Mail, *, hostname: str, most: int) -> bool:
    """More Received fields than any way needs (RFC 5321 6.3), or ours among them too often.

    A hostname of `localhost` is nobody's own.
    """
    received = mail.headers.all("received")
    if len(received) > most:
        return True
    name = a_labels(hostname)
    ours = sum(1 for field in received if (by := _BY.search(field.value)) and a_labels(by.group(1)) == name)
    return name not in ("", "localhost") and ours >= PASSAGES


_BY = re.compile(r"\bby\s+([^\s;()]{1,255})", re.IGNORECASE)
