"""What became of one message and why: the record that the log, `inbound check` and every refusal are made of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any

from inbound.mail import Client
from inbound.reply import Reply
from inbound.verdicts import DkimVerdict, Verdicts


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
    by_dmarc: bool = False  # DMARC failed, and only so it was refused or put apart

    def judgement(self, path: str) -> dict[str, Any]:
        """The document of `inbound check --json` (design 11)."""
        judged = {name: plain(value) for name, value in self._judged().items()}
        return {"path": path, "message_id": self.message_id, **judged, "error": None}

    def document(self) -> dict[str, Any]:
        """The record as the JSON log has it: a judgement, and what the session and the actions add to it.

        The records in it are as they are: `plain` makes dicts of them, and some encoders of JSON take them so.
        """
        client = self.client
        return {
            "message_id": self.message_id,
            "client": {
                "ip": str(client.ip),
                "helo": client.helo,
                "tls": client.tls.version if client.tls else None,
            },
            "mail_from": self.mail_from,
            "rcpt_to": list(self.rcpt_to),
            "size": self.size,
            "ruleset": self.ruleset,
            **self._judged(),
            "ran": self.ran,
            "milliseconds": self.milliseconds,
        }

    def _judged(self) -> dict[str, Any]:
        """What the log and `inbound check` have in common."""
        verdicts = self.verdicts
        return {
            "spf": verdicts.spf,
            "dkim": verdicts.dkim,
            "dmarc": verdicts.dmarc,
            "arc": verdicts.arc,
            "iprev": verdicts.iprev,
            "spam": verdicts.spam,
            "virus": verdicts.virus,
            "block": verdicts.block,
            "upstream": verdicts.upstream,
            "recipients": {
                walk.recipient: {
                    "rules": walk.traces,
                    "actions": walk.actions,
                    "reply": f"{walk.reply.code} {walk.reply.enhanced}",
                }
                for walk in self.walks
            },
            "reply": self.reply,
            "timings_ms": verdicts.timings_ms,
        }

    def lines(self) -> list[str]:
        """The record for a person, from the envelope to the reply: one line for each check, rule and action.

        Rules that are for other recipients are left out. The first line is the message id.
        """
        return [
            self.message_id,
            *heading(self.client, self.mail_from, ", ".join(self.rcpt_to), f", {self.size:,} octets"),
            *_checks(self.verdicts),
            *(told for walk in self.walks for told in _rules(walk)),
            *(line(ran.outcome, _told(ran)) for ran in self.ran),
            *([line("time", _times(self.verdicts.timings_ms, self.milliseconds))] if self.milliseconds else ()),
            line("reply", str(self.reply)),
        ]


_MET = {True: "met", False: "not met", None: "UNDECIDED"}
_NOT_FOR_IT = "is none of its recipients"


def heading(client: Client, mail_from: str, to: str, more: str = "") -> list[str]:
    """Who brings it, and for whom."""
    wire = client.tls.version if client.tls else "in clear"
    return [
        line("from", f"<{mail_from}> by {client.helo or '?'} [{client.ip}], {wire}{more}"),
        line("to", to),
    ]


def line(name: str, *texts: str) -> str:
    """One line of a record, its name in front."""
    return f"  {name:<10} {' '.join(texts)}".rstrip()


def _checks(found: Verdicts) -> Iterator[str]:
    """What each check found, its evidence under it."""
    spf, dkim, dmarc, spam, virus = found.spf, found.dkim, found.dmarc, found.spam, found.virus
    width = max(len(verdict.status) for verdict in (spf, dkim, dmarc, spam, virus))
    for listing in found.block.listings:
        yield line("block", f"{listing.list} {listing.entry} {listing.meaning}")
    for zone in found.block.unanswered:
        yield line("block", f"{zone} did not answer")
    identity = {"mailfrom": "MAIL FROM", "helo": "HELO"}[spf.identity]
    whose = f"for {spf.domain} ({identity})" if spf.domain else ""
    yield line("spf", f"{spf.status:<{width}}", _joined(f"{spf.result} {whose}", spf.reason))
    for at, text in enumerate(_signatures(dkim)):
        yield line("dkim" if at == 0 else "", f"{'' if at else dkim.status:<{width}}", text)
    asks = f", {dmarc.record_domain} asks for {dmarc.applied_policy}" if dmarc.applied_policy else ""
    by = f" by {' and '.join(dmarc.aligned)}" if dmarc.aligned else ""
    whose = f"for {dmarc.from_domain}" if dmarc.from_domain else ""
    yield line("dmarc", f"{dmarc.status:<{width}}", _joined(f"{dmarc.result} {whose}{by}{asks}", dmarc.reason))
    if found.arc.result != "none":
        sets = f"{found.arc.sets} {'set' if found.arc.sets == 1 else 'sets'}"
        yield line("arc", f"{found.arc.result:<{width}}", _joined(sets, found.arc.reason))
    if found.upstream.result != "none" or found.upstream.reason:
        said = " ".join((found.upstream.authserv_id, *found.upstream.results))
        yield line("upstream", f"{found.upstream.result:<{width}}", _joined(said, found.upstream.reason))
    if found.iprev.result != "none":
        yield line("iprev", f"{found.iprev.result:<{width}}", _joined(found.iprev.name, found.iprev.reason))
    score = "" if spam.status in ("DISABLED", "PROCESSING_FAILED") else f"score {spam.score:.1f}"
    yield line("spam", f"{spam.status:<{width}}", _joined(score, spam.reason))
    for symbol in spam.symbols:
        yield line("", " " * width, f"{symbol.weight:+.1f} {symbol.name}: {symbol.evidence}")
    yield line("virus", f"{virus.status:<{width}}", _joined(virus.signature, virus.reason))


def _signatures(dkim: DkimVerdict) -> Iterator[str]:
    """Why there is no better verdict, unless a signature says so itself, and each signature."""
    if dkim.reason not in ("", *(signature.reason for signature in dkim.signatures)) or not dkim.signatures:
        yield dkim.reason
    for signature in dkim.signatures:
        whose = f"{signature.domain or '?'} ({signature.algorithm or '?'}, {signature.selector or '?'})"
        aligned = ", aligned" if signature.aligned else ""
        yield _joined(f"{signature.result} for {whose}{aligned}", signature.reason)


def _rules(walk: Walk) -> Iterator[str]:
    """One recipient's walk: the rules that are for it, and where they lead. Without any it was answered at RCPT."""
    yield line("rules", f"for {walk.recipient}")
    traces = [trace for trace in walk.traces if not trace.why.endswith(_NOT_FOR_IT)]
    width = max((len(trace.name) for trace in traces), default=0)
    for trace in traces:
        yield f"    {_MET[trace.met] if trace.name else '':<9}  {trace.name:<{width}}  {trace.why}"
    done = ", ".join(walk.actions) or ("nothing is done" if traces else "at RCPT, before any message")
    yield f"    {'so':<9}  {done}: {walk.reply.code} {walk.reply.enhanced}"


def _told(ran: Ran) -> str:
    detail = ", ".join(f"{name} {value}" for name, value in ran.detail.items())
    return f"{_joined(f'{ran.action} of {ran.rule}', detail)} ({ran.milliseconds:.1f} ms)"


def _times(timings_ms: Mapping[str, float], whole: float) -> str:
    each = ", ".join(f"{name} {took:.1f}" for name, took in sorted(timings_ms.items(), key=lambda one: -one[1]))
    return f"{whole:.1f} ms: {each}"


def _joined(*texts: str) -> str:
    return ": ".join(text.strip() for text in texts if text.strip())


def plain(value: Any) -> Any:
    """Records as dicts, at any depth; `asdict` does the same and copies every string on its way."""
    kind: type = type(value)
    names = _names(kind)
    if names:
        return {name: plain(getattr(value, name)) for name in names}
    if kind is dict:
        return {name: plain(one) for name, one in value.items()}
    return tuple(plain(one) for one in value) if isinstance(value, tuple) else value


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a record; none for anything else."""
    return tuple(one.name for one in fields(kind)) if is_dataclass(kind) else ()
