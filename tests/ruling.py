"""What the tests of rules are made of: an ordinary mail, verdicts that all pass, and loading from text."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from inbound.actions.kinds import ACTIONS
from inbound.errors import ConfigurationError
from inbound.mail import Client, Headers, Mail, Tls
from inbound.rules import RuleSet
from inbound.ruleset import load
from inbound.verdicts import ALL_PASSED, DmarcVerdict, IprevVerdict, SpamVerdict, SpfVerdict, Status, Verdicts

PASSED = replace(
    ALL_PASSED,
    spf=SpfVerdict(status=Status.PASS, result="pass", domain="example.net"),
    dmarc=DmarcVerdict(
        status=Status.PASS, result="pass", from_domain="example.net", policy="reject", applied_policy="reject"
    ),
    iprev=IprevVerdict(result="pass", name="mail.example.net"),
    spam=SpamVerdict(status=Status.PASS, score=0.5),
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
    return load(file, ACTIONS)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    """The problems of one rule file, without its directory."""
    try:
        rules(tmp_path, text)
    except ConfigurationError as error:
        return [str(problem).replace(f"{tmp_path}/", "") for problem in error.problems]
    return []
