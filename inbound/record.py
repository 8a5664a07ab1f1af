"""What became of one message and why: the record that the log, `inbound check` and every refusal are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any

from inbound.mail import Client
from inbound.reply import Reply
from inbound.verdicts import Verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTrace:
    """How one rule fared with one recipient. `met` is None when undecided; `why` names the condition and the values."""

    name: str
    met: bool | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One recipient's way through the rules. `actions` are the kinds that will run, `reply` the answer if all of them work."""

    recipient: str
    traces: tuple[RuleTrace, ...]
    actions: tuple[str, ...]
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One action that was reached: `outcome` is done, already done (before a deferral) or failed, with the reason."""

    rule: str
    action: str
    recipients: tuple[str, ...]
    outcome: str
    detail: Mapping[str, str] = field(default_factory=dict)
    milliseconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One message, whole: who brought it, what was found, how each recipient walked the rules, what ran, what was said."""

    message_id: str
    client: Client
    mail_from: str
    rcpt_to: tuple[str, ...]
    size: int
    verdicts: Verdicts
    walks: tuple[Walk, ...]
    ran: tuple[Ran, ...] = ()
    reply: Reply
    ruleset: str = ""
    milliseconds: float = 0.0

    def judgement(self, path: str) -> dict[str, Any]:
        """The document of `inbound check --json` (design 11)."""
        verdicts = self.verdicts
        return {
            "path": path,
            "message_id": self.message_id,
            "spf": _plain(verdicts.spf),
            "dkim": _plain(verdicts.dkim),
            "dmarc": _plain(verdicts.dmarc),
            "arc": _plain(verdicts.arc),
            "iprev": _plain(verdicts.iprev),
            "spam": _plain(verdicts.spam),
            "virus": _plain(verdicts.virus),
            "block": _plain(verdicts.block),
            "recipients": {
                walk.recipient: {
                    "rules": [_plain(trace) for trace in walk.traces],
                    "actions": list(walk.actions),
                    "reply": f"{walk.reply.code} {walk.reply.enhanced}",
                }
                for walk in self.walks
            },
            "reply": _plain(self.reply),
            "timings_ms": dict(verdicts.timings_ms),
            "error": None,
        }

    def document(self) -> dict[str, Any]:
        """The record as the JSON log has it: a judgement, and what the session and the actions add to it."""
        judged = self.judgement("")
        del judged["path"], judged["error"]
        client = self.client
        return {
            "message_id": judged.pop("message_id"),
            "client": {
                "ip": str(client.ip),
                "helo": client.helo,
                "tls": client.tls.version if client.tls else None,
            },
            "mail_from": self.mail_from,
            "rcpt_to": list(self.rcpt_to),
            "size": self.size,
            "ruleset": self.ruleset,
            **judged,
            "ran": [_plain(ran) for ran in self.ran],
            "milliseconds": self.milliseconds,
        }

    def lines(self) -> list[str]:
        """The record for a person: one line for each check, rule and action, the reply last."""
        verdicts = self.verdicts
        origin = f"{self.client.helo or '?'} [{self.client.ip}] <{self.mail_from}>"
        lines = [
            f"{self.message_id}  from {origin} to {', '.join(self.rcpt_to)}  {self.size:,} octets",
        ]
        lines += [f"  block  {listing.list}: {listing.entry} {listing.meaning}" for listing in verdicts.block.listings]
        spf, dkim, dmarc = verdicts.spf, verdicts.dkim, verdicts.dmarc
        lines.append(
            _line("spf", spf.status, f"{spf.result}, {spf.identity} domain {spf.domain or '(none)'}", spf.reason)
        )
        lines.append(_line("dkim", dkim.status, dkim.result, dkim.reason))
        lines += [
            f"           d={signature.domain or '?'} s={signature.selector or '?'} {signature.algorithm}"
            f" {signature.result}{' (aligned)' if signature.aligned else ''}{_because(signature.reason)}"
            for signature in dkim.signatures
        ]
        policy = f", {dmarc.record_domain} says {dmarc.applied_policy}" if dmarc.record_domain else ""
        lines.append(
            _line("dmarc", dmarc.status, f"{dmarc.result} for {dmarc.from_domain or '(none)'}{policy}", dmarc.reason)
        )
        symbols = ", ".join(f"{symbol.name} {symbol.weight:+.1f}" for symbol in verdicts.spam.symbols)
        lines.append(
            _line(
                "spam",
                verdicts.spam.status,
                f"{verdicts.spam.score:.1f}",
                symbols and f"{symbols}",
                verdicts.spam.reason,
            )
        )
        lines.append(_line("virus", verdicts.virus.status, verdicts.virus.signature, verdicts.virus.reason))
        for walk in self.walks:
            for trace in walk.traces:
                met = {True: "met", False: "not met", None: "UNDECIDED"}[trace.met]
                about = f"rule {trace.name} {met}: " if trace.name else ""
                lines.append(f"  {walk.recipient}: {about}{trace.why}")
            lines.append(f"  {walk.recipient}: {', '.join(walk.actions) or 'no action'} -> {walk.reply}")
        for ran in self.ran:
            detail = " ".join(f"{name}={value}" for name, value in ran.detail.items())
            lines.append(f"  {ran.outcome}: {ran.action} of {ran.rule} in {ran.milliseconds:.1f} ms {detail}".rstrip())
        lines.append(f"  {self.reply}")
        return lines


def _line(name: str, status: str, *facts: str) -> str:
    return f"  {name:<6} {status:<5} {'; '.join(fact for fact in facts if fact)}".rstrip()


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _plain(value: Any) -> Any:
    """Records as dicts, at any depth; `asdict` does the same and copies every string on its way."""
    kind: type = type(value)
    names = _names(kind)
    if names:
        return {name: _plain(getattr(value, name)) for name in names}
    return tuple(_plain(one) for one in value) if isinstance(value, tuple) else value


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a record; none for anything else."""
    return tuple(one.name for one in fields(kind)) if is_dataclass(kind) else ()
