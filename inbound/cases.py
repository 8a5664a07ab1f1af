"""A test of the rules, as it is written in `tests:` of a rule file: a given mail, and what is expected to come of it."""

import ipaddress
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from inbound.schema import Place, keys

LARGEST = 50 * 1024 * 1024  # octets that a given mail may be filled up to


def _lower(word: object) -> object:
    return word.lower() if isinstance(word, str) else word


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None
    return text


def _one_line(text: str) -> str:
    if "\r" in text or "\n" in text:
        raise ValueError("a header field of a given mail is one line")
    return text


_AnyCase = BeforeValidator(_lower)
_Status = Literal["pass", "fail", "gray", "processing_failed", "disabled"]
_Line = Annotated[str, AfterValidator(_one_line)]


@keys
class Attachment:
    """One attachment: its file name, and the type that its octets would show."""

    name: str = ""
    type: str = "application/octet-stream"


@keys
class Found:
    """What the checks found: status words, or the field's own result words."""

    spf: Annotated[_Status | Literal["softfail", "neutral", "none", "permerror", "temperror"], _AnyCase] = "pass"
    dkim: Annotated[_Status | Literal["policy", "neutral", "none", "permerror", "temperror"], _AnyCase] = "pass"
    dmarc: Annotated[_Status | Literal["none", "permerror", "temperror"], _AnyCase] = "pass"
    dmarc_policy: Annotated[Literal["none", "quarantine", "reject"], _AnyCase] = "none"
    spam: Annotated[_Status, _AnyCase] = "pass"
    spam_score: float = 0.0
    virus: Annotated[_Status, _AnyCase] = "pass"
    arc: Annotated[Literal["pass", "fail", "none", "temperror"], _AnyCase] = "none"
    upstream: Annotated[Literal["pass", "fail", "none", "temperror"], _AnyCase] = "none"
    iprev: Annotated[Literal["pass", "fail", "permerror", "temperror"], _AnyCase] = "pass"


@keys
class Given:
    """The mail that a test is about. What is left out is an ordinary mail that passed every check."""

    to: str | tuple[str, ...]  # the envelope recipients
    mail_from: str = "sender@example.net"  # the envelope sender, "" for the null reverse-path
    from_: _Line = "Sender <sender@example.net>"  # the From field
    subject: _Line = "Hello"
    headers: dict[str, _Line | tuple[_Line, ...]] = field(default_factory=dict)  # they replace fields of the same name
    helo: str = "mail.example.net"
    client_ip: Annotated[str, AfterValidator(_address)] = "192.0.2.1"
    tls: Annotated[Literal["yes", "no", "tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3"], _AnyCase] = "yes"
    blocked: bool = False
    dnsbl: tuple[str, ...] = ()  # zones that list the client
    size: Annotated[int, Field(ge=0, le=LARGEST)] = 0  # octets that it is filled up to
    attachments: tuple[Attachment, ...] = ()
    verdicts: Found = Found()


@keys
class Expect:
    """What must come of it. What is left out is not looked at."""

    rules: tuple[str, ...] | None = None  # that are met, in order
    actions: tuple[str, ...] | None = None  # that would run, by their keys, in order
    reply: str | None = None  # how it begins: `250`, `554 5.7.1`, or the whole of it
    at: Literal["rcpt", "data"] | None = None  # when it is answered


@keys
class Form:
    """One entry of `tests:`; `it` ends the sentence that the rules do what is expected."""

    it: str
    given: Given
    expect: Expect


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test and its place."""

    form: Form
    place: Place
