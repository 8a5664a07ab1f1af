"""The header block that goes on top of a message, in SES's order and words, and the message under it.

1. Return-Path, Received, X-SES-Spam-Verdict, X-SES-Virus-Verdict, Received-SPF, Authentication-Results, X-SES-RECEIPT:
   what SES writes, less X-SES-DKIM-SIGNATURE, which would be a signature that nobody made.
2. Received has the `with` keyword that is true (RFC 3848, 6531), and `for` only when there is one recipient, so that no
   recipient learns of another. Authentication-Results is in RFC 8601's syntax, which SES's is not.
3. Whatever a stranger chose (HELO, addresses, domains of signatures) is written only where it has the form that belongs
   there; otherwise it is quoted, replaced or left out. Nothing in it can end a field, a clause or a comment.
4. Fields that claim to be ours are taken out of the message, and nothing else is. A first line that is the continuation
   of no field is hung under a field of its own, so that it cannot become part of one of ours.
"""

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from inbound.addresses import a_labels, printable
from inbound.mail import Client, HeaderField, Mail
from inbound.verdicts import DkimSignature, DkimVerdict, DmarcVerdict, IprevVerdict, SpfVerdict, Verdicts

CLAUSES = 20  # dkim clauses in Authentication-Results; more signatures than that are nobody's
LONGEST_VALUE = 320  # octets of one value from outside: an address is at most 64 + 1 + 255 (RFC 5321 4.5.3.1)

# Fields that only we may have written. Authentication-Results is ours only under our own authserv-id.
OURS = frozenset({"x-ses-spam-verdict", "x-ses-virus-verdict", "x-ses-receipt", "x-ses-dkim-signature"})

_MAYBE_FORGED = OURS | {"authentication-results", ""}  # "": a line that is no field may be read as one

_FOLD = "\r\n "
_PIECE = 1 << 18  # octets that are copied at a time
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_LITERAL = re.compile(r"\[(?:IPv6:)?[0-9A-Fa-f:.]+\]", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+")  # RFC 2045 5.1
_HOST = re.compile(r"[A-Za-z0-9_\x80-\U0010ffff-]+(?:\.[A-Za-z0-9_\x80-\U0010ffff-]+)*")
_TOKEN_OR_UTF8 = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~\x80-\U0010ffff-]+")
_NOT_IN_COMMENTS = re.compile(r"[^A-Za-z0-9._:@+=\x80-\U0010ffff-]")


def header_block(mail: Mail, verdicts: Verdicts, *, hostname: str, authserv_id: str) -> bytes:
    """The fields of ours, each with its CRLF, no empty line behind them."""
    ip, sender = str(mail.client.ip), path_of(mail.mail_from)
    spf = _spf_text(verdicts.spf, ip)
    mailfrom = f" smtp.mailfrom={sender}" if sender and verdicts.spf.identity == "mailfrom" else ""
    results = (
        _spf_clause(mail, spf, ip, mailfrom),
        *_dkim_clauses(verdicts.dkim),
        _dmarc_clause(verdicts.dmarc),
        *([_iprev_clause(verdicts.iprev, ip)] if verdicts.iprev.result != "none" else []),
        *([f"arc={verdicts.arc.result}"] if verdicts.arc.result != "none" else []),
    )
    lines = (
        f"Return-Path: <{sender}>",
        _received(mail, verdicts, hostname, ip),
        f"X-SES-Spam-Verdict: {verdicts.spam.status}",
        f"X-SES-Virus-Verdict: {verdicts.virus.status}",
        f"Received-SPF: {spf} {_received_spf_pairs(mail, ip)}",
        f";{_FOLD}".join((f"Authentication-Results: {_token(authserv_id)}", *results)),
        f"X-SES-RECEIPT: {_receipt(mail.message_id)}\r\n",
    )
    text = "\r\n".join(lines)
    # UTF-8 in header fields is for messages that came with SMTPUTF8 only (RFC 6532, RFC 8616).
    return text.encode("utf-8", "replace") if mail.smtputf8 else text.encode("ascii", "replace")


def stamped(mail: Mail, block: bytes, added: bytes = b"") -> bytes:
    """The message as it is stored and handed on: `block`, the fields that rules `added`, and the original under them.

    Left out of the original are fields that claim to be ours: `OURS`, and Authentication-Results with the authserv-id
    that stands in `block` (RFC 8601 5). Linear in the header block; the body is never looked at.
    """
    fields = mail.headers.fields
    kept = [field.raw for field in fields]
    if not _MAYBE_FORGED.isdisjoint(mail.headers.by_name):
        _, begins, ours = (b"\r\n" + block).partition(b"\r\nAuthentication-Results:")
        authserv_id = claimed_authserv_id(HeaderField("-", b"-:" + ours.partition(b"\r\n")[0])) if begins else ""
        kept = [field.raw for field in fields if not _forged(field, authserv_id)]
    stray = b"X-Inbound-Stray:\r\n" if kept and kept[0][:1] in (b" ", b"\t") else b""
    if len(kept) == len(fields):
        return b"".join((block, added, stray, mail.raw))
    read = sum(len(field.raw) for field in fields)
    whole = io.BytesIO()  # it hands out what it holds without another copy
    whole.write(b"".join((block, added, stray, *kept)))
    rest = memoryview(mail.raw)[read:]
    for at in range(0, len(rest), _PIECE):  # other threads have their turn in between
        whole.write(rest[at : at + _PIECE])
    return whole.getvalue()


def _forged(field: HeaderField, authserv_id: str) -> bool:
    # Readers that join folded lines first see a name in front of a colon that was folded away from it.
    name = field.name.lower() or field.raw.partition(b":")[0].rstrip(b" \t\r\n").decode("latin-1").lower()
    if name == "authentication-results":
        return bool(authserv_id) and claimed_authserv_id(field) == authserv_id
    return name in OURS


def claimed_authserv_id(field: HeaderField) -> str:
    """The authserv-id an Authentication-Results field claims (RFC 8601 2.2), lower case, A-labels; "" if there is none."""
    text = field.value if field.name else HeaderField("-", field.raw).value
    at = _past_blanks_and_comments(text)
    if text[at : at + 1] == '"':
        claimed = "".join(_quoted(text, at + 1))
    else:
        match = _TOKEN_OR_UTF8.match(text, at)
        claimed = match.group() if match else ""
    return a_labels(claimed) or claimed.lower()


def _past_blanks_and_comments(text: str) -> int:
    depth, at = 0, 0
    while at < len(text):
        char = text[at]
        if char == "(":
            depth += 1
        elif depth and char == ")":
            depth -= 1
        elif depth and char == "\\":
            at += 1
        elif not depth and char not in " \t\r\n":
            break
        at += 1
    return at


def _quoted(text: str, at: int) -> Iterator[str]:
    while at < len(text) and text[at] != '"':
        if text[at] == "\\":
            at += 1
        yield text[at : at + 1]
        at += 1


def _received(mail: Mail, verdicts: Verdicts, hostname: str, ip: str) -> str:
    """RFC 5321 4.4, folded as SES folds it."""
    client = mail.client
    name = _host(verdicts.iprev.name) if verdicts.iprev.result == "pass" else ""
    literal = f"[{ip}]" if client.ip.version == 4 else f"[IPv6:{ip}]"  # noqa: PLR2004 - IPv4
    recipient = f"{_FOLD}for {path_of(mail.rcpt_to[0])}" if len(mail.rcpt_to) == 1 else ""
    when = datetime.fromtimestamp(mail.received_at, UTC).strftime("%a, %d %b %Y %H:%M:%S +0000 (UTC)")
    return (
        f"Received: from {_host(client.helo) or 'unknown'} ({name or 'unknown'} {literal}){_FOLD}"
        f"by {_host(hostname) or 'localhost'} with {protocol(client, smtputf8=mail.smtputf8)} id {mail.message_id}"
        f"{recipient};{_FOLD}{when}"
    )


def protocol(client: Client, *, smtputf8: bool) -> str:
    """The `with` keyword: SMTP, ESMTP, ESMTPS (RFC 3848), UTF8SMTP, UTF8SMTPS (RFC 6531)."""
    if not client.esmtp and client.tls is None:
        return "SMTP"
    return ("UTF8SMTP" if smtputf8 else "ESMTP") + ("S" if client.tls else "")


_SPF_WORDING = {
    "pass": "domain of {domain} designates {ip} as permitted sender",
    "fail": "domain of {domain} does not designate {ip} as permitted sender",
    "softfail": "domain of transitioning {domain} does not designate {ip} as permitted sender",
    "neutral": "{ip} is neither permitted nor denied by domain of {domain}",
    "none": "{ip} is neither permitted nor denied by domain of {domain}",
    "temperror": "error in processing during lookup of {domain}",
    "permerror": "domain of {domain} has a record that cannot be evaluated",
}


def _spf_text(spf: SpfVerdict, ip: str) -> str:
    """The result with its reason in a comment, as SES words it (`spfCheck`)."""
    wording = _SPF_WORDING[spf.result].format(domain=_comment(spf.domain) or "unknown", ip=ip)
    return f"{spf.result} (spfCheck: {wording})"


def _received_spf_pairs(mail: Mail, ip: str) -> str:
    """RFC 7208 9.1 key-value pairs. A plain address stands without quotes, as SES writes it."""
    sender = mail.mail_from if _is_address(mail.mail_from) else _quote(mail.mail_from or "<>")
    helo = mail.client.helo
    helo = helo if _is(_DOT_ATOM, helo) else _quote(helo)
    return f"client-ip={ip}; envelope-from={sender}; helo={helo};"


def _spf_clause(mail: Mail, text: str, ip: str, mailfrom: str) -> str:
    """RFC 8601's clause. SES writes the pairs of Received-SPF in it, and consumers cut them out: they stand in a comment."""
    helo = f" smtp.helo={_token(mail.client.helo)}" if mail.client.helo else ""
    sender, name = _comment(mail.mail_from).replace("=", "?"), _comment(mail.client.helo).replace("=", "?")
    pairs = f"client-ip={ip}; envelope-from={sender}; helo={name};"
    return f"spf={text}{_FOLD}( {pairs}){mailfrom}{helo}"


def _dkim_clauses(dkim: DkimVerdict) -> tuple[str, ...]:
    """One clause for each signature, in header order. Over the cap, those that passed are the ones to keep."""
    signatures = dkim.signatures
    if len(signatures) > CLAUSES:
        signatures = tuple(sorted(signatures, key=lambda signature: signature.result != "pass"))[:CLAUSES]
    return tuple(_dkim_clause(signature) for signature in signatures) or (f"dkim={dkim.result}",)


def _dkim_clause(signature: DkimSignature) -> str:
    domain = a_labels(signature.domain)
    identity = signature.identity if _identity_of(signature.identity, domain) else f"@{domain}"
    properties = [f"header.i={identity}"] if domain else []
    for name, value in (("s", signature.selector), ("a", signature.algorithm)):
        if _is(_TOKEN, value):
            properties.append(f"header.{name}={value}")
    return " ".join([f"dkim={signature.result}", *properties])


def _identity_of(identity: str, domain: str) -> bool:
    """The `i=` is an address at the signing domain or below it (RFC 6376 3.5), in a form that needs no quotes."""
    local, _, host = identity.rpartition("@")
    known = a_labels(host) == domain or a_labels(host).endswith(f".{domain}")
    return bool(domain) and known and _is(_HOST, host) and (not local or _is(_DOT_ATOM, local))


def _dmarc_clause(dmarc: DmarcVerdict) -> str:
    author = a_labels(dmarc.from_domain)
    policy = f" policy.dmarc={dmarc.applied_policy}" if dmarc.applied_policy else ""
    return f"dmarc={dmarc.result}" + (f" header.from={author}" if author else "") + policy


def _iprev_clause(iprev: IprevVerdict, ip: str) -> str:
    name = f" ({_comment(iprev.name)})" if iprev.name else ""
    return f"iprev={iprev.result}{name} policy.iprev={_token(ip)}"


def _token(text: str) -> str:
    """A `value` of RFC 8601 2.2: a token, or quoted."""
    return text if _is(_TOKEN, text) else _quote(text)


def _receipt(message_id: str) -> str:
    """SES's form of an opaque token: a zero octet, then base64 of 7 zeros, a one, and octets that mean nothing."""
    opaque = bytes(7) + b"\x01" + hashlib.shake_256(f"receipt {message_id}".encode()).digest(232)
    return base64.b64encode(b"\0" + base64.b64encode(opaque)).decode("ascii")


def _is(pattern: re.Pattern[str], text: str) -> bool:
    """The text has that form, and nothing in it that a lenient reader could take for a line end."""
    return len(text) <= LONGEST_VALUE and printable(text) and pattern.fullmatch(text) is not None


def _is_address(text: str) -> bool:
    local, _, domain = text.rpartition("@")
    return _is(_DOT_ATOM, local) and _is(_HOST, domain)


def _host(text: str) -> str:
    """A domain name or address literal as it is, anything else as ""."""
    name = text.rstrip(".")
    return name if _is(_HOST, name) or _is(_LITERAL, name) else ""


def path_of(address: str) -> str:
    """An address as RFC 5321 writes it in a path: a local part that is no dot-string is quoted. "" stays ""."""
    if not address or _is_address(address) or _is(_DOT_ATOM, address):
        return address
    local, at, domain = address.rpartition("@")
    if not at:
        return _quote(address)
    if len(local) > 1 and local[0] == local[-1] == '"':
        local = "".join(_quoted(local, 1))
    return f"{_quote(local)}@{_host(domain) or 'invalid'}"  # RFC 6761 6.4


def _quote(text: str) -> str:
    """A quoted-string (RFC 5322 3.2.4). Control characters become `?`; it is cut where no honest value reaches."""
    safe = _printable(text[:LONGEST_VALUE])
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _comment(text: str) -> str:
    """What may stand inside a comment without ending it."""
    return _printable(_NOT_IN_COMMENTS.sub("?", text[:LONGEST_VALUE]))


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join([char if printable(char) else "?" for char in text])
