"""What a trusted upstream found: the Authentication-Results (RFC 8601) of a forwarder that the operator has named.

1. Forwarding breaks SPF and often DKIM, so the verdicts of ours fail for mail that was genuine when the forwarder took it. Its
   own verdict stands in the message, where anybody can write. It is read when the client is one of `forwarders`, and when
   the topmost Authentication-Results field of the message carries one of `authserv_ids`. Both or nothing; off by default.
2. Only the topmost field counts. A forwarder puts its own on top and removes forged ones (RFC 8601 5); one that does not must
   not be listed.
3. `pass` is a dmarc=pass, `fail` a dmarc=fail, for the author domain that we see ourselves: header.from must be the same.
   Several that differ are a fail. Everything else is `none`, with the reason.
4. It is evidence beside our own verdicts and changes none of them. A rule may ask for it: `upstream: pass`.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from inbound.addresses import a_labels
from inbound.mail import HeaderField, IPAddress, Mail
from inbound.trace import claimed_authserv_id
from inbound.verdicts import DmarcVerdict, UpstreamResult, UpstreamVerdict

LONGEST_FIELD = 16_384  # octets
MOST_RESULTS = 20  # kept as evidence

_WORD = re.compile(r"[A-Za-z0-9-]{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One clause of the field: `dmarc`, `pass`, `{"header.from": "a.example"}`; method, result and names lower case."""

    method: str
    result: str
    properties: dict[str, str]


class Upstream:
    """The stage. `forwarders` are addresses and CIDR networks."""

    name = "upstream"

    def __init__(self, authserv_ids: Collection[str], forwarders: Collection[str]) -> None:
        self._authserv_ids = frozenset(a_labels(one) or one.lower() for one in authserv_ids)
        self._forwarders = tuple(ip_network(one, strict=False) for one in forwarders)

    def broken(self, reason: str) -> UpstreamVerdict:
        """The check failed, not the upstream."""
        return UpstreamVerdict(result="temperror", reason=reason)

    async def __call__(self, mail: Mail, dmarc: DmarcVerdict) -> UpstreamVerdict:
        """Read the upstream's verdict, where there is one to be trusted."""
        if not self._is_forwarder(mail.client.ip):
            return UpstreamVerdict(result="none")
        field = mail.headers.first("authentication-results")
        claimed = claimed_authserv_id(field) if field and len(field.raw) <= LONGEST_FIELD else ""
        if field is None or claimed not in self._authserv_ids:
            return UpstreamVerdict(result="none", reason="the forwarder has put no results of a trusted name on top")
        found = results(field)
        words = tuple(f"{one.method}={one.result}" for one in found[:MOST_RESULTS])
        theirs = {
            one.result
            for one in found
            if one.method == "dmarc"
            and dmarc.from_domain
            and a_labels(one.properties.get("header.from", "")) == dmarc.from_domain
        }
        if "fail" in theirs or theirs == {"pass"}:
            result: UpstreamResult = "fail" if "fail" in theirs else "pass"
            return UpstreamVerdict(result=result, authserv_id=claimed, results=words)
        reason = f"no DMARC result for {dmarc.from_domain or 'an author domain that is none'}"
        return UpstreamVerdict(result="none", authserv_id=claimed, results=words, reason=reason)

    def _is_forwarder(self, ip: IPAddress) -> bool:
        client = getattr(ip, "ipv4_mapped", None) or ip
        return any(client in network for network in self._forwarders)


def results(field: HeaderField) -> list[Result]:
    """The clauses behind the authserv-id (RFC 8601 2.2). A clause that cannot be read is left out. Linear."""
    clauses: list[list[str]] = [[]]
    for piece in _pieces(field.value):
        if piece == ";":
            clauses.append([])
        else:
            clauses[-1].append(piece)
    return [found for clause in clauses[1:] if (found := _result(clause))]


def _result(clause: list[str]) -> Result | None:
    """`method = result`, then any number of `name = value`, each value one piece; blanks may stand around every piece."""
    pairs: list[tuple[str, str]] = []
    key = ""
    pieces = iter(clause)
    for piece in pieces:
        if piece == "=":
            value = next(pieces, "=")
            if value == "=" or not key:
                return None
            pairs.append((key.lower(), value.removeprefix('"')))
            key = ""
        else:
            key += piece
    if not pairs or key:
        return None
    (method, result), *properties = pairs
    method, result = method.partition("/")[0], result.lower()
    if not _WORD.fullmatch(method) or not _WORD.fullmatch(result):
        return None
    return Result(method=method, result=result, properties=dict(reversed(properties)))


_PIECE = re.compile(r'"((?:[^"\\]|\\.)*)"?(@[^\s;="()]+)?|[;=]|[^\s;="()]+|\)')


def _pieces(text: str) -> Iterator[str]:
    """Words, `;` and `=`; what was quoted has a quote in front, so that it is never `;` or `=`. Comments are left out."""
    depth, at = 0, 0
    while at < len(text):
        if depth or text[at] == "(":
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 2 if text[at] == "\\" else 1
            continue
        match = _PIECE.match(text, at)
        if match is None:
            at += 1
            continue
        quoted = match.group(1)
        # A quoted local part and its domain are one piece.
        yield match.group() if quoted is None else '"' + re.sub(r"\\(.)", r"\1", quoted) + (match.group(2) or "")
        at = match.end()
