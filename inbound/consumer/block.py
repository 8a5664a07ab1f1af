"""The header block that the receiver put on top of a message, ours or SES's, and nothing that stands below it.

1. The fields stand in SES's order: Return-Path, Received, X-SES-Spam-Verdict, X-SES-Virus-Verdict, Received-SPF,
   Authentication-Results, X-SES-RECEIPT. The run begins at the first octet of the message and ends with X-SES-RECEIPT. Whatever
   comes after that was there when the message came, so a sender may have written it, whatever it is called.
2. Of SES's blocks the two scan verdicts may be missing (no scan). Until 2016 a block was Return-Path and Received alone: below
   such a one stand the sender's fields, so it names the message and has no verdicts.
3. Received is read by its lines, as it is folded: what the client said of itself is on the first one only.
4. A method that says two things (`spf`, `dmarc`) says nothing. A `dkim` result counts where its domain is the author's, or one
   is a parent of the other: which domains belong together otherwise, only DNS knows.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from inbound.addresses import a_labels
from inbound.consumer import forms
from inbound.consumer.message import Verdicts
from inbound.mail import HeaderField
from inbound.stages.upstream import Result, results
from inbound.trace import claimed_authserv_id
from inbound.verdicts import Status

SINCE = datetime(2017, 1, 1, tzinfo=UTC)  # from here on SES's blocks are whole
NO_VERDICTS = Verdicts()
LONGEST_FIELD = 65_536  # octets of Authentication-Results that are read

_ORDER = (
    "return-path",
    "received",
    "x-ses-spam-verdict",
    "x-ses-virus-verdict",
    "received-spf",
    "authentication-results",
    "x-ses-receipt",
)
_MAY_LACK = frozenset({"x-ses-spam-verdict", "x-ses-virus-verdict"})
_BY = re.compile(r" by (\S{1,255}) with [A-Za-z0-9]{1,20} id ([0-9a-v]{40});?")  # without `for`, the date follows
_FOR = re.compile(r" for (.{1,1000});")
_WORDS: dict[str, dict[str, Status]] = {
    "spf": {
        "pass": Status.PASS,
        "fail": Status.FAIL,
        "softfail": Status.FAIL,
        "neutral": Status.GRAY,
        "none": Status.GRAY,
        "permerror": Status.GRAY,
        "temperror": Status.PROCESSING_FAILED,
    },
    "dmarc": {
        "pass": Status.PASS,
        "fail": Status.FAIL,
        "none": Status.GRAY,
        "permerror": Status.GRAY,
        "temperror": Status.PROCESSING_FAILED,
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What the block says. `recipient` is "" where there were several; `received` is None where the date is none.

    `whole`: it is all there, so verdicts are the receiver's. `results` are the words of Authentication-Results.
    """

    id: str
    received_by: str
    mail_from: str
    recipient: str = ""
    received: datetime | None = None
    authserv_id: str = ""
    results: tuple[str, ...] = ()
    verdicts: Verdicts = NO_VERDICTS
    whole: bool = False


def block_of(fields: Sequence[HeaderField]) -> Block | None:
    """The block on top of these fields, or None: then nobody has said anything about this message."""
    if [one.name.lower() for one in fields[:2]] != ["return-path", "received"]:
        return None
    lines = fields[1].raw.decode("utf-8", "replace").splitlines()
    by = _BY.fullmatch(lines[1]) if len(lines) > 1 else None
    if by is None:
        return None
    wanted = _FOR.fullmatch(lines[2]) if len(lines) > 3 else None  # noqa: PLR2004 - from, by, for, date
    received = forms.date(lines[-1])
    known = Block(
        received_by=by.group(1),
        id=by.group(2),
        mail_from=_path(fields[0].value),
        recipient=_path(wanted.group(1)) if wanted else "",
        received=received,
    )
    found = _run(fields)
    whole = found.keys() | _MAY_LACK == frozenset(_ORDER) and received is not None and received >= SINCE
    return _with_results(known, found, fields) if whole else known


def _run(fields: Sequence[HeaderField]) -> dict[str, HeaderField]:
    """The fields of the block by name, as far as they stand in its order."""
    found: dict[str, HeaderField] = {}
    left = list(_ORDER)
    for one in fields[: len(_ORDER)]:
        name = one.name.lower()
        while left and left[0] != name and left[0] in _MAY_LACK:
            left.pop(0)
        if not left or left[0] != name:
            break
        found[left.pop(0)] = one
    return found


def _with_results(known: Block, found: dict[str, HeaderField], fields: Sequence[HeaderField]) -> Block:
    stamp = found["authentication-results"]
    clauses = results(stamp) if len(stamp.raw) <= LONGEST_FIELD else []
    spf, dmarc = _only(clauses, "spf"), _only(clauses, "dmarc")
    policy = dmarc.properties.get("policy.dmarc", "").lower() if dmarc and dmarc.result == "fail" else ""
    told = tuple(f"{one.method}={one.result}" for one in clauses if one.method in _METHODS)
    return Block(
        id=known.id,
        received_by=known.received_by,
        mail_from=known.mail_from,
        recipient=known.recipient,
        received=known.received,
        authserv_id=claimed_authserv_id(stamp),
        results=told,
        verdicts=Verdicts(
            spam=_status(found.get("x-ses-spam-verdict")),
            virus=_status(found.get("x-ses-virus-verdict")),
            spf=_WORDS["spf"].get(spf.result) if spf else None,
            dkim=_dkim(clauses, fields),
            dmarc=_WORDS["dmarc"].get(dmarc.result) if dmarc else None,
            dmarc_policy=policy if policy in ("none", "quarantine", "reject") else "",
            source="header",
        ),
        whole=True,
    )


_METHODS = frozenset(
    {"spf", "dkim", "dmarc", "iprev", "arc"}
)  # SES's clauses are no RFC 8601: `helo=…` stands among them


def _path(value: str) -> str:
    """An address without the angle brackets of a path."""
    return value.strip().removeprefix("<").removesuffix(">")


def _status(field: HeaderField | None) -> Status | None:
    word = field.value.upper() if field else ""
    return Status(word) if word in set(Status) else None


def _only(clauses: Iterable[Result], method: str) -> Result | None:
    """The result of that method, if there is one."""
    found = [one for one in clauses if one.method == method]
    return found[0] if len(found) == 1 else None


def _dkim(clauses: Iterable[Result], fields: Sequence[HeaderField]) -> Status | None:
    """As design 4 has it: over the results whose domain is aligned with the one author's."""
    found = [one for one in clauses if one.method == "dkim"]
    if not found:
        return None
    authors = [box for one in fields if one.name.lower() == "from" for box in forms.mailboxes(forms.raw(one.raw[5:]))]
    domain = a_labels(authors[0].email.rpartition("@")[2]) if len(authors) == 1 else ""
    aligned = {one.result for one in found if domain and _related(_signer(one), domain)}
    if "pass" in aligned:
        return Status.PASS
    if "temperror" in aligned:
        return Status.PROCESSING_FAILED
    return Status.FAIL if aligned - {"none"} else Status.GRAY


def _signer(result: Result) -> str:
    named = result.properties.get("header.d") or result.properties.get("header.i", "").rpartition("@")[2]
    return a_labels(named)


def _related(one: str, other: str) -> bool:
    return bool(one) and (one == other or one.endswith(f".{other}") or other.endswith(f".{one}"))
