"""A test of the rules, as it is written in `tests:` of a rule file."""

from dataclasses import dataclass, field
from typing import Literal

from inbound.schema import Place, keys


@keys
class Attachment:
    """One attachment of a given mail."""

    name: str = ""
    type: str = "application/octet-stream"


@keys
class Given:
    """The mail that a test is about. What is left out is an ordinary mail that passed every check."""

    to: str | tuple[str, ...]
    mail_from: str = "sender@example.net"
    from_: str = "Sender <sender@example.net>"  # the From field; `headers` can set it too
    helo: str = "mail.example.net"
    client_ip: str = "192.0.2.1"
    tls: str = "TLSv1.3"  # the version, or `no`
    blocked: bool = False
    dnsbl: tuple[str, ...] = ()
    headers: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    subject: str = "Hello"
    size: int = 0  # octets; filled up to them
    attachments: tuple[Attachment, ...] = ()
    verdicts: dict[str, str] = field(default_factory=dict)


@keys
class Expect:
    """What must come of it. What is left out is not looked at."""

    rules: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    reply: str | None = None
    at: Literal["rcpt", "data"] | None = None


@keys
class Form:
    """One entry of `tests:`."""

    it: str
    given: Given
    expect: Expect


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test with its place."""

    form: Form
    place: Place
