"""What the tests of rules are made of: action doubles, an ordinary mail, verdicts that all pass, and loading from text."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, Literal

from inbound.actions import Action, Cloud, Done, Letter, OnFailure
from inbound.errors import ConfigurationError
from inbound.mail import Client, Headers, Mail, Tls
from inbound.reply import Reply
from inbound.rules import RuleSet
from inbound.ruleset import load
from inbound.schema import keys
from inbound.verdicts import (
    ArcVerdict,
    DkimVerdict,
    DmarcVerdict,
    IprevVerdict,
    SpamVerdict,
    SpfVerdict,
    Status,
    Verdicts,
    VirusVerdict,
)


class _Double:
    """What an action is beside its keys."""

    takes: ClassVar[bool] = False
    outward: ClassVar[bool] = False
    on_failure: OnFailure = "retry"

    @property
    def patience(self) -> float:
        return 0.0

    @property
    def ends(self) -> bool:
        return False

    @property
    def refusal(self) -> Reply | None:
        return None

    async def perform(self, letter: Letter, cloud: Cloud) -> Done:  # noqa: ARG002
        raise AssertionError("deciding performs nothing")


@keys
class Store(_Double):
    kind: ClassVar[str] = "s3"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True
    bucket: str
    prefix: str = ""
    kms_key: str | None = None


@keys
class Invoke(_Double):
    kind: ClassVar[str] = "lambda"
    takes: ClassVar[bool] = True
    outward: ClassVar[bool] = True
    function: str
    invocation: Literal["event", "request_response"] = "event"

    @property
    def patience(self) -> float:
        return 30.0 if self.invocation == "request_response" else 0.0


@keys
class Notify(_Double):
    kind: ClassVar[str] = "sns"
    outward: ClassVar[bool] = True
    takes: ClassVar[bool] = True
    topic_arn: str


@keys
class Bounce(_Double):
    kind: ClassVar[str] = "bounce"
    smtp_reply_code: int
    status_code: str
    message: str
    topic_arn: str | None = None
    then: Literal["stop", "continue"] = "stop"

    @property
    def ends(self) -> bool:
        return self.then == "stop"

    @property
    def refusal(self) -> Reply:
        return Reply(self.smtp_reply_code, self.status_code, self.message)


@keys
class AddHeader(_Double):
    kind: ClassVar[str] = "add_header"
    name: str
    value: str


@keys
class Stop(_Double):
    kind: ClassVar[str] = "stop"

    @property
    def ends(self) -> bool:
        return True


@keys
class Drop(_Double):
    kind: ClassVar[str] = "drop"
    takes: ClassVar[bool] = True

    @property
    def ends(self) -> bool:
        return True


KINDS: Mapping[str, type[Action]] = {kind.kind: kind for kind in (Store, Invoke, Notify, Bounce, AddHeader, Stop, Drop)}

PASSED = Verdicts(
    spf=SpfVerdict(status=Status.PASS, result="pass", domain="example.net"),
    dkim=DkimVerdict(status=Status.PASS, result="pass"),
    dmarc=DmarcVerdict(
        status=Status.PASS, result="pass", from_domain="example.net", policy="reject", applied_policy="reject"
    ),
    arc=ArcVerdict(result="none"),
    iprev=IprevVerdict(result="pass", name="mail.example.net"),
    spam=SpamVerdict(status=Status.PASS, score=0.5),
    virus=VirusVerdict(status=Status.PASS),
)

CLIENT = Client(
    ip=ip_address("192.0.2.1"),
    helo="mail.example.net",
    tls=Tls(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384"),
)


def mail(
    *rcpt_to: str, header: str = "From: Sender <sender@example.net>\r\nSubject: Hello\r\n", **envelope: Any
) -> Mail:
    raw = (header + "\r\nHello.\r\n").encode("utf-8", "surrogateescape")
    whole = Mail(
        raw=raw,
        headers=Headers.of(raw),
        client=CLIENT,
        mail_from="sender@example.net",
        rcpt_to=rcpt_to or ("you@example.com",),
        received_at=1_790_000_000.0,
        message_id="0" * 40,
    )
    return replace(whole, **envelope)


def verdicts(**found: Any) -> Verdicts:
    """All passed, but for the statuses (or whole verdicts) given by name."""
    changed = {
        name: replace(getattr(PASSED, name), status=value) if isinstance(value, Status) else value
        for name, value in found.items()
    }
    return replace(PASSED, **changed)


def rules(tmp_path: Path, text: str) -> RuleSet:
    """A rule set from the text of one file."""
    file = tmp_path / "rules.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, KINDS)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    """The problems of one rule file, without its directory."""
    try:
        rules(tmp_path, text)
    except ConfigurationError as error:
        return [str(problem).replace(f"{tmp_path}/", "") for problem in error.problems]
    return []
