"""The arguments of MAIL FROM and RCPT TO: paths (RFC 5321 4.1.2, RFC 6531 3.3) and ESMTP parameters, strictly.

Two things are taken that the grammar does not have, because real senders have them and neither can be misread: dots at the
ends of a local part and in a row (addresses of Japanese mobile carriers), and underscores in a domain (hosts of Windows
networks; DNS holds them). Postfix takes both too.

Every pattern here is read from left to right once: no two alternatives can begin with the same character.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from inbound.addresses import a_labels, printable
from inbound.reply import Reply

LONGEST_LOCAL_PART = 256  # octets; RFC 5321 4.5.3.1.1 says 64, but VERP and SRS make longer ones

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]"
_LABEL = r"[A-Za-z0-9_\u0080-\U0010ffff](?:[A-Za-z0-9_\u0080-\U0010ffff-]*)"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[[!-Z^-~]+\]"
_QUOTED = r'"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"'
_LOCAL_PART = rf"(?:\.*{_ATEXT}(?:{_ATEXT}|\.)*|{_QUOTED})"
_ROUTE = rf"@{_DOMAIN}(?:,@{_DOMAIN})*:"
_PATH = re.compile(rf"<(?:{_ROUTE})?(?P<local>{_LOCAL_PART})@(?:(?P<domain>{_DOMAIN})|(?P<literal>{_LITERAL}))>")
_POSTMASTER = re.compile(r"<(?P<local>postmaster)>", re.IGNORECASE | re.ASCII)
_PARAMETER = re.compile(r"(?P<keyword>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[!-<>-~\u0080-\U0010ffff]+))?")
_FROM = re.compile(r"from: *", re.IGNORECASE)
_TO = re.compile(r"to: *", re.IGNORECASE)

SYNTAX_MAIL = Reply(501, "5.5.4", "syntax: MAIL FROM:<address> [parameters]", "malformed command")
SYNTAX_RCPT = Reply(501, "5.5.4", "syntax: RCPT TO:<address> [parameters]", "malformed command")
BAD_SENDER = Reply(501, "5.1.7", "that is not the address of a sender (RFC 5321 4.1.2)", "malformed address")
BAD_RECIPIENT = Reply(501, "5.1.3", "that is not the address of a recipient (RFC 5321 4.1.2)", "malformed address")
LITERAL_RECIPIENT = Reply(550, "5.7.1", "mail for address literals is not taken here", "address literal")
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "an address that is not ASCII needs SMTPUTF8 (RFC 6531)", "SMTPUTF8 needed")
BAD_PARAMETER = Reply(501, "5.5.4", "a parameter is malformed or given twice", "malformed parameter")


class RefusedError(Exception):
    """A command that is answered with `reply`, and nothing done."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(str(reply))


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """An address as written, without brackets and source route; its parameters by upper-case keyword, values as written."""

    address: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def reverse_path(argument: str) -> Path:
    """Read the argument of MAIL. The null reverse-path has the address "". Raises RefusedError."""
    start = _FROM.match(argument)
    if not start:
        raise RefusedError(SYNTAX_MAIL)
    rest = argument[start.end() :]
    if rest.startswith("<>"):
        return Path(address="", parameters=_parameters(rest[2:], SYNTAX_MAIL))
    address, rest = _address(rest, BAD_SENDER)
    return Path(address=address, parameters=_parameters(rest, BAD_SENDER))


def forward_path(argument: str) -> Path:
    """Read the argument of RCPT: a mailbox, or `<postmaster>` without a domain. Raises RefusedError."""
    start = _TO.match(argument)
    if not start:
        raise RefusedError(SYNTAX_RCPT)
    rest = argument[start.end() :]
    bare = _POSTMASTER.match(rest)
    if bare:
        return Path(address=bare["local"], parameters=_parameters(rest[bare.end() :], SYNTAX_RCPT))
    address, rest = _address(rest, BAD_RECIPIENT)
    path = Path(address=address, parameters=_parameters(rest, BAD_RECIPIENT))
    if address.endswith("]"):
        raise RefusedError(LITERAL_RECIPIENT)
    return path


def _address(text: str, refusal: Reply) -> tuple[str, str]:
    found = _PATH.match(text)
    if not found or not printable(found.group()):  # no C1 controls, no U+2028: some take them for line ends
        raise RefusedError(refusal)
    local = found["local"]
    if len(local.encode()) > LONGEST_LOCAL_PART:
        raise RefusedError(refusal)
    if found["literal"]:
        if not _is_address(found["literal"][1:-1]):
            raise RefusedError(refusal)
        return f"{local}@{found['literal']}", text[found.end() :]
    if not _is_domain(found["domain"]):
        raise RefusedError(refusal)
    return f"{local}@{found['domain']}", text[found.end() :]


@functools.lru_cache(maxsize=4096)
def _is_domain(domain: str) -> bool:
    # A label neither begins nor ends with a hyphen (RFC 5321 4.1.2); the rest is what DNS can hold.
    return bool(a_labels(domain)) and not any(label.endswith("-") for label in domain.split("."))


def _is_address(literal: str) -> bool:
    try:
        if literal[:5].lower() == "ipv6:":
            IPv6Address(literal[5:])
        else:
            IPv4Address(literal)
    except ValueError:
        return False
    return "%" not in literal


def _parameters(text: str, refusal: Reply) -> dict[str, str]:
    if text and not text.startswith(" "):
        raise RefusedError(refusal)
    parameters: dict[str, str] = {}
    for word in text.split(" "):
        if not word:
            continue
        found = _PARAMETER.fullmatch(word)
        if not found or found["keyword"].upper() in parameters:
            raise RefusedError(BAD_PARAMETER)
        parameters[found["keyword"].upper()] = found["value"] or ""
    return parameters
