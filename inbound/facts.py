"""What a rule can ask about a mail: the attributes, each with its kind, when it is known, and how it is read.

A reading is the values that the mail has for an attribute (none, one or several: a condition is true when one of them
fits), or `Undecided` with the reason. At RCPT everything that only the message can tell is undecided.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from inbound.addresses import Mailbox, a_labels
from inbound.mail import Client, Mail
from inbound.recipients import forms
from inbound.verdicts import BlockVerdict, Status, Verdicts

Kind = Literal["verdict", "word", "text", "address", "number", "version", "flag", "network"]
Known = Literal["RCPT", "DATA"]

TEMPERROR = "temperror"


class Part(Protocol):
    """One part of the message: its file name ("" if none) and the type its octets show."""

    @property
    def name(self) -> str:
        """The file name."""
        ...

    @property
    def type(self) -> str:
        """The media type as sniffed, not as declared."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a mail for one recipient. Without `mail` and `verdicts` it is RCPT; `parts` is asked when needed."""

    recipient: str
    client: Client
    mail_from: str
    block: BlockVerdict
    mail: Mail | None = None
    verdicts: Verdicts | None = None
    parts: Callable[[], Sequence[Part]] | None = None
    readings: "dict[tuple[str, str], Reading]" = field(default_factory=dict, compare=False)

    def read(self, attribute: "Attribute", argument: str) -> "Reading":
        """The values of an attribute. What the message tells is read once for all recipients."""
        if attribute.known == "RCPT":
            return attribute.read(self, argument)
        key = (attribute.name, argument)
        if key not in self.readings:
            self.readings[key] = attribute.read(self, argument)
        return self.readings[key]


@dataclass(frozen=True, slots=True)
class Undecided:
    """No value yet, or none to be had: why, and the check to blame where it is not the attribute itself."""

    why: str
    check: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict as conditions see it: SES's status word and the field's result, both in lower case, "" where there is none."""

    status: str
    result: str
    reason: str = ""

    def __str__(self) -> str:
        if not self.status:
            return self.result
        return f"{self.status.upper()} ({self.result})" if self.result else self.status.upper()


Value = str | float | bool | Judged
Reading = tuple[Value, ...] | Undecided


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute. `words` are the values it can have, where they are few; `about` is its line in the reference."""

    name: str
    kind: Kind
    known: Known
    read: Callable[[Facts, str], Reading]
    words: frozenset[str] = frozenset()
    about: str


NOT_YET = Undecided("only the message can tell")

_STATUSES = frozenset(status.value.lower() for status in Status)
_POLICIES = frozenset({"none", "quarantine", "reject"})


def _message(read: Callable[[Mail, str], tuple[Value, ...]]) -> Callable[[Facts, str], Reading]:
    return lambda facts, argument: NOT_YET if facts.mail is None else read(facts.mail, argument)


def _verdict(read: Callable[[Verdicts], Judged]) -> Callable[[Facts, str], Reading]:
    return lambda facts, _: NOT_YET if facts.verdicts is None else (read(facts.verdicts),)


def _dmarc_policy(facts: Facts, _: str) -> Reading:
    if facts.verdicts is None:
        return NOT_YET
    dmarc = facts.verdicts.dmarc
    if dmarc.status is Status.PROCESSING_FAILED:
        return Undecided(f"dmarc is {Judged(dmarc.status, dmarc.result)}", "dmarc")
    return (dmarc.applied_policy,) if dmarc.applied_policy else ()


def _spam_score(facts: Facts, _: str) -> Reading:
    if facts.verdicts is None:
        return NOT_YET
    spam = facts.verdicts.spam
    if spam.status is Status.PROCESSING_FAILED:
        return Undecided("spam is PROCESSING_FAILED", "spam")
    return () if spam.status is Status.DISABLED else (spam.score,)


def _parts(read: Callable[[Part], str]) -> Callable[[Facts, str], Reading]:
    def values(facts: Facts, _: str) -> Reading:
        return NOT_YET if facts.parts is None else tuple(read(part) for part in facts.parts() if read(part))

    return values


def _field(mail: Mail, name: str) -> tuple[Value, ...]:
    return tuple(field.decoded for field in mail.headers.all(name))


def _mailboxes(name: str) -> Callable[[Facts, str], Reading]:
    return _message(lambda mail, _: tuple(_written(box) for box in mail.headers.mailboxes(name)))


def _written(box: Mailbox) -> str:
    return normal(box.address)


def normal(address: str) -> str:
    """An address with its domain as lower-case A-labels, where it is a domain; otherwise as it is."""
    local, at, domain = address.rpartition("@")
    name = a_labels(domain) if at else ""
    return f"{local}@{name}" if name else address


def _zones(facts: Facts, _: str) -> Reading:
    return tuple(one.list for one in facts.block.listings if one.list not in ("allow", "deny"))


def _client_ip(facts: Facts, _: str) -> Reading:
    return (str(getattr(facts.client.ip, "ipv4_mapped", None) or facts.client.ip),)


def _tls_version(facts: Facts, _: str) -> Reading:
    return (tls_number(facts.client.tls.version),) if facts.client.tls else ()


def tls_number(text: str) -> float:
    """`TLSv1.3`, `TLS1_3` or `1.3` as 1.3. Raises ValueError."""
    number = text.strip().lower().removeprefix("tls").removeprefix("v").replace("_", ".")
    if number not in ("1", "1.0", "1.1", "1.2", "1.3"):
        raise ValueError(f"{text!r} is no TLS version such as TLSv1.2")
    return float(number)


_ALL = (
    Attribute(
        name="spf",
        kind="verdict",
        known="DATA",
        words=_STATUSES | {"softfail", "neutral", "none", "permerror", "temperror"},
        read=_verdict(lambda found: Judged(found.spf.status.lower(), found.spf.result, found.spf.reason)),
        about="SPF of the MAIL FROM domain (HELO's for a null reverse-path)",
    ),
    Attribute(
        name="dkim",
        kind="verdict",
        known="DATA",
        words=_STATUSES | {"policy", "neutral", "none", "permerror", "temperror"},
        read=_verdict(lambda found: Judged(found.dkim.status.lower(), found.dkim.result, found.dkim.reason)),
        about="the DKIM signatures aligned with From (a status word), or the best result over all of them (another word)",
    ),
    Attribute(
        name="dmarc",
        kind="verdict",
        known="DATA",
        words=_STATUSES | {"none", "permerror", "temperror"},
        read=_verdict(lambda found: Judged(found.dmarc.status.lower(), found.dmarc.result, found.dmarc.reason)),
        about="DMARC of the From domain",
    ),
    Attribute(
        name="spam",
        kind="verdict",
        known="DATA",
        words=_STATUSES,
        read=_verdict(lambda found: Judged(found.spam.status.lower(), "", found.spam.reason)),
        about="the spam check: `gray` between the low and the high mark",
    ),
    Attribute(
        name="virus",
        kind="verdict",
        known="DATA",
        words=_STATUSES,
        read=_verdict(
            lambda found: Judged(found.virus.status.lower(), "", found.virus.signature or found.virus.reason)
        ),
        about="the virus scan: `gray` when the engine could not look inside",
    ),
    Attribute(
        name="dmarc_policy",
        kind="word",
        known="DATA",
        words=_POLICIES,
        read=_dmarc_policy,
        about="what the From domain asks for mail that fails DMARC, as applied (after `t=y`)",
    ),
    Attribute(
        name="spam_score",
        kind="number",
        known="DATA",
        read=_spam_score,
        about="the spam score; no value when the check was off",
    ),
    Attribute(
        name="arc",
        kind="verdict",
        known="DATA",
        words=frozenset({"pass", "fail", "none", TEMPERROR}),
        read=_verdict(lambda found: Judged("", found.arc.result, found.arc.reason)),
        about="the ARC chain: evidence only, anybody can seal a chain",
    ),
    Attribute(
        name="upstream",
        kind="verdict",
        known="DATA",
        words=frozenset({"pass", "fail", "none", TEMPERROR}),
        read=_verdict(lambda found: Judged("", found.upstream.result, found.upstream.reason)),
        about="the DMARC result of a forwarder that the settings trust (`trusted`), for the same From domain; else `none`",
    ),
    Attribute(
        name="iprev",
        kind="verdict",
        known="DATA",
        words=frozenset({"pass", "fail", "permerror", TEMPERROR}),
        read=_verdict(lambda found: Judged("", found.iprev.result, found.iprev.reason)),
        about="does the client's reverse name lead back to its address",
    ),
    Attribute(
        name="blocked",
        kind="flag",
        known="RCPT",
        read=lambda facts, _: (facts.block.blocked,),
        about="the operator's lists block this client (only seen with `block_list: {record_only: yes}`)",
    ),
    Attribute(
        name="dnsbl",
        kind="text",
        known="RCPT",
        read=_zones,
        about="the DNSBL zones that list the client; one that did not answer lists nobody",
    ),
    Attribute(
        name="client_ip",
        kind="network",
        known="RCPT",
        read=_client_ip,
        about="the client's address, as addresses and CIDR networks, IPv4 or IPv6",
    ),
    Attribute(
        name="helo",
        kind="text",
        known="RCPT",
        read=lambda facts, _: (facts.client.helo,),
        about="the name given in HELO or EHLO",
    ),
    Attribute(
        name="tls",
        kind="flag",
        known="RCPT",
        read=lambda facts, _: (facts.client.tls is not None,),
        about="the mail came over TLS",
    ),
    Attribute(
        name="tls_version",
        kind="version",
        known="RCPT",
        read=_tls_version,
        about="the TLS version; no value without TLS",
    ),
    Attribute(
        name="mail_from",
        kind="address",
        known="RCPT",
        read=lambda facts, _: (normal(facts.mail_from),),
        about='the envelope sender, `""` for the null reverse-path',
    ),
    Attribute(
        name="recipient",
        kind="address",
        known="RCPT",
        read=lambda facts, _: (normal(facts.recipient),),
        about="the envelope recipient whose walk it is",
    ),
    Attribute(name="from", kind="address", known="DATA", read=_mailboxes("from"), about="the addresses of From"),
    Attribute(name="to", kind="address", known="DATA", read=_mailboxes("to"), about="the addresses of To"),
    Attribute(name="cc", kind="address", known="DATA", read=_mailboxes("cc"), about="the addresses of Cc"),
    Attribute(name="sender", kind="address", known="DATA", read=_mailboxes("sender"), about="the address of Sender"),
    Attribute(
        name="list",
        kind="address",
        known="DATA",
        read=_mailboxes("from"),
        about="a named list that an address of From is on: short for `from: {in: NAME}`",
    ),
    Attribute(
        name="subject",
        kind="text",
        known="DATA",
        read=_message(lambda mail, _: _field(mail, "subject")),
        about="Subject, encoded words decoded",
    ),
    Attribute(
        name="header.<Name>",
        kind="text",
        known="DATA",
        read=_message(_field),
        about="any header field, every one of that name, encoded words decoded",
    ),
    Attribute(
        name="attachment.name",
        kind="text",
        known="DATA",
        read=_parts(lambda part: part.name),
        about="the attachments' file names, every one that a reader could take",
    ),
    Attribute(
        name="attachment.type",
        kind="text",
        known="DATA",
        read=_parts(lambda part: part.type),
        about="the attachments' media types as their octets show them, not as declared",
    ),
    Attribute(
        name="size",
        kind="number",
        known="DATA",
        read=_message(lambda mail, _: (float(len(mail.raw)),)),
        about="octets of the message; `KiB` and `MiB` may be written",
    ),
    Attribute(
        name="recipient_count",
        kind="number",
        known="DATA",
        read=_message(lambda mail, _: (float(len(mail.rcpt_to)),)),
        about="recipients of the transaction",
    ),
)

ATTRIBUTES: Mapping[str, Attribute] = {attribute.name: attribute for attribute in _ALL}

ANY_HEADER = "header."


def listed(address: str, patterns: frozenset[str]) -> bool:
    """The address, or its domain, is on the list."""
    return any(form in patterns for form in forms(address))
