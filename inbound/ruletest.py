"""Running the tests that stand beside the rules, without a message, a network or a cloud.

Each test makes the mail that is given and takes it the way of a real one: is the recipient covered, does it need TLS, is
it refused at RCPT; then the rules decide, with the verdicts that are given. What failed is a Problem at the test's place:
expected, found, and how each rule fared.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inbound.cases import Case, Expect, Found, Given
from inbound.errors import Problem
from inbound.mail import Client, Headers, Mail, Tls
from inbound.recipients import POSTMASTER, forms
from inbound.record import Walk
from inbound.reply import Reply
from inbound.rules import RuleSet, decide, outlook
from inbound.verdicts import (
    ArcVerdict,
    BlockVerdict,
    DkimVerdict,
    DmarcVerdict,
    IprevVerdict,
    Listing,
    SpamVerdict,
    SpfVerdict,
    Status,
    UpstreamVerdict,
    Verdicts,
    VirusVerdict,
)

NOT_OURS = Reply(550, "5.7.1", "No mail is taken for this domain")
NOT_COVERED = Reply(550, "5.1.1", "No such recipient here")
NEEDS_TLS = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
OF_ITS_OWN = Reply(452, "4.5.3", "This recipient may need another answer, send it separately")

_NOW = 1_790_000_000.0  # 2026-09-21
_ID = "0" * 40
_SCORES = {"pass": 0.0, "gray": 4.0, "fail": 10.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a given mail."""

    rules: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    reply: Reply
    at: str
    walks: tuple[Walk, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One test that was run; `problem` says what was not as expected."""

    case: Case
    outcome: Outcome
    problem: Problem | None

    @property
    def name(self) -> str:
        """What it says of the rules."""
        return self.case.form.it

    @property
    def passed(self) -> bool:
        """Everything was as expected."""
        return self.problem is None


def run(ruleset: RuleSet, domains: Sequence[str] = (), *, split: bool = True) -> tuple[Result, ...]:
    """Run every test of a rule set. With `domains`, the settings', recipients elsewhere are refused as in earnest.

    `split` is `split_recipients` of the settings.
    """
    return tuple(_run(ruleset, case, domains, split=split) for case in ruleset.tests)


def _run(ruleset: RuleSet, case: Case, domains: Sequence[str], *, split: bool) -> Result:
    outcome = came_of(ruleset, case.form.given, domains, split=split)
    differences = list(_differences(case.form.expect, outcome))
    if not differences:
        return Result(case=case, outcome=outcome, problem=None)
    told = [f"failed: it {case.form.it}", *differences, *_walked(outcome)]
    return Result(case=case, outcome=outcome, problem=case.place.problem("\n    ".join(told)))


def came_of(ruleset: RuleSet, given: Given, domains: Sequence[str] = (), *, split: bool = True) -> Outcome:
    """Take a given mail the way of a real one."""
    mail, block = _mail(given), _block(given)
    at_rcpt: list[Reply] = []
    answers: set[object] = set()
    admitted: list[str] = []
    for recipient in mail.rcpt_to:
        ahead = outlook(ruleset, recipient, client=mail.client, mail_from=mail.mail_from, block=block)
        if domains and recipient.lower() != POSTMASTER and not set(domains).intersection(forms(recipient)):
            return Outcome(reply=NOT_OURS, at="rcpt")
        if not ruleset.covers(recipient):
            return Outcome(reply=NOT_COVERED, at="rcpt")
        if mail.client.tls is None and ruleset.requires_tls(recipient):
            return Outcome(reply=NEEDS_TLS, at="rcpt")
        if ahead.refusal is not None:
            at_rcpt.append(ahead.refusal)
        else:
            admitted.append(recipient)
            answers.add(ahead.answers)
    if split and (len(answers) > 1 or (at_rcpt and admitted)):
        return Outcome(reply=OF_ITS_OWN, at="rcpt")
    if admitted and at_rcpt:
        at_rcpt, mail = [], replace(mail, rcpt_to=tuple(admitted))
    verdicts = verdicts_of(given.verdicts, block, scan=ruleset.wants_scan(mail.rcpt_to))
    decision = decide(ruleset, mail, verdicts, parts=lambda _: given.attachments, split=split)
    met = {trace.name for walk in decision.walks for trace in walk.traces if trace.met}
    return Outcome(
        rules=tuple(rule.name for rule in ruleset.rules if rule.name in met),
        actions=tuple(action.kind for step in decision.steps for action in step.rule.course()),
        reply=at_rcpt[0] if at_rcpt else decision.reply,
        at="rcpt" if at_rcpt else "data",
        walks=decision.walks,
    )


def _differences(expect: Expect, outcome: Outcome) -> Iterable[str]:
    if expect.rules is not None and expect.rules != outcome.rules:
        yield f"expected rules: {_listed(expect.rules)}, met: {_listed(outcome.rules)}"
    if expect.actions is not None and expect.actions != outcome.actions:
        yield f"expected actions: {_listed(expect.actions)}, found: {_listed(outcome.actions)}"
    if expect.reply is not None and not f"{outcome.reply} ".startswith(f"{expect.reply.strip()} "):
        yield f"expected reply: {expect.reply}, found: {outcome.reply}"
    if expect.at is not None and expect.at != outcome.at:
        yield f"expected at {expect.at.upper()}, answered at {outcome.at.upper()}"


def _listed(words: tuple[str, ...]) -> str:
    return f"[{', '.join(words)}]"


def _walked(outcome: Outcome) -> Iterable[str]:
    if not outcome.walks:
        yield f"answered at {outcome.at.upper()}: {outcome.reply}"
    for walk in outcome.walks:
        for trace in walk.traces:
            fared = {True: "met", False: "not met", None: "undecided"}[trace.met]
            yield f"{walk.recipient}: {f'{trace.name} {fared}, ' if trace.name else ''}{trace.why}"


def _mail(given: Given) -> Mail:
    recipients = (given.to,) if isinstance(given.to, str) else given.to
    fields: dict[str, tuple[str, tuple[str, ...]]] = {
        name.lower(): (name, (value,))
        for name, value in {
            "From": given.from_,
            "To": ", ".join(recipients),
            "Subject": given.subject,
            "Date": "Mon, 21 Sep 2026 14:13:20 +0000",
            "Message-ID": "<given@example.net>",
        }.items()
    }
    for name, values in given.headers.items():
        fields[name.lower()] = (name, (values,) if isinstance(values, str) else values)
    head = "".join(f"{name}: {value}\r\n" for name, values in fields.values() for value in values)
    raw = f"{head}\r\nHello.\r\n".encode()
    raw += b"." * max(0, given.size - len(raw))
    version = {"yes": "TLSv1.3", "no": ""}.get(given.tls, given.tls.replace("tls", "TLS"))
    return Mail(
        raw=raw,
        headers=Headers.of(raw),
        client=Client(
            ip=ipaddress.ip_address(given.client_ip),
            helo=given.helo,
            tls=Tls(version=version, cipher="TLS_AES_256_GCM_SHA384") if version else None,
        ),
        mail_from=given.mail_from,
        rcpt_to=recipients,
        received_at=_NOW,
        message_id=_ID,
    )


def _block(given: Given) -> BlockVerdict:
    listings = tuple(Listing(list=zone, entry="127.0.0.2") for zone in given.dnsbl)
    return BlockVerdict(blocked=given.blocked, listings=listings)


def verdicts_of(found: Found, block: BlockVerdict, *, scan: bool) -> Verdicts:
    """The verdicts that the checks would have; without a scan, spam and virus are DISABLED whatever is given."""
    spam = found.spam if scan else "disabled"
    failing = found.dmarc in ("pass", "fail")
    return Verdicts(
        spf=SpfVerdict(status=_status(found.spf), result=_result(found.spf), domain="example.net"),
        dkim=DkimVerdict(status=_status(found.dkim), result=_result(found.dkim)),
        dmarc=DmarcVerdict(
            status=_status(found.dmarc),
            result=_result(found.dmarc),
            from_domain="example.net",
            policy=found.dmarc_policy if failing else "",
            applied_policy=found.dmarc_policy if failing else "",
        ),
        arc=ArcVerdict(result=found.arc),
        iprev=IprevVerdict(result=found.iprev),
        spam=SpamVerdict(status=_status(spam), score=found.spam_score or _SCORES.get(spam, 0.0)),
        virus=VirusVerdict(status=_status(found.virus if scan else "disabled")),
        block=block,
        upstream=UpstreamVerdict(result=found.upstream),
    )


def _status(word: str) -> Status:
    """The status of a result (design 4): one table for the three fields, whose words do not contradict each other."""
    if word == "softfail":
        return Status.FAIL
    if word in ("none", "neutral", "policy", "permerror"):
        return Status.GRAY
    return Status.PROCESSING_FAILED if word == "temperror" else Status(word.upper())


def _result(word: str) -> Any:
    """The result that stands behind a status word."""
    return {"gray": "none", "processing_failed": "temperror", "disabled": "none"}.get(word, word)
