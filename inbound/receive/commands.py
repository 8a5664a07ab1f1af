"""Command lines taken apart: the verb, and what each verb's argument says."""

import re
from dataclasses import dataclass

from inbound.addresses import printable
from inbound.receive.paths import NEEDS_SMTPUTF8, RefusedError, forward_path, reverse_path
from inbound.receive.replies import BAD_LINE, BAD_VALUE, UNKNOWN_PARAMETER

HELO_NAME = re.compile(
    r"[A-Za-z0-9._:\[\]-]{1,255}"
)  # whatever else a client calls itself could mislead a reader of Received

IDLE = {"HELO", "EHLO", "RSET", "NOOP", "HELP", "VRFY", "EXPN"}
NOT_OFFERED = {"EXPN", "AUTH", "TURN", "ETRN", "ATRN", "SEND", "SOML", "SAML", "BURL"}

# A browser that was made to speak to us: what it sends behind such a line may be somebody's commands (postfix
# smtpd_forbidden_commands).
WEB = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}

_CHUNK_SIZE = re.compile(r"(?P<octets>[0-9]{1,20})(?P<last> +LAST)?", re.IGNORECASE | re.ASCII)
_SIZE = re.compile(r"[0-9]{1,20}", re.ASCII)  # RFC 1870 3
_MAIL_PARAMETERS = {"SIZE", "BODY", "SMTPUTF8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """What MAIL says: the reverse-path ("" for the null one), the size declared (0 if none), and whether it is SMTPUTF8."""

    address: str
    size: int
    smtputf8: bool


def command(line: bytes) -> tuple[str, str | None]:
    """The verb in upper case and the rest of a line that ends in CRLF, None if there is none. Raises RefusedError."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError(BAD_LINE) from None
    if not printable(text[:-2].rstrip(" \t")):
        raise RefusedError(BAD_LINE)
    verb, _, argument = text[:-2].partition(" ")
    return _capitals(verb.rstrip("\t")), argument.strip(" \t") or None


def _capitals(word: str) -> str:
    # Some letters beyond ASCII have a capital within it: U+017F an S, U+0131 an I. They are no letters of a keyword.
    return word.upper() if word.isascii() else word


def mail_from(argument: str, *, esmtp: bool) -> Sender:
    """Read MAIL's argument with SIZE (RFC 1870), BODY (RFC 6152) and SMTPUTF8 (RFC 6531). Raises RefusedError."""
    path = reverse_path(argument)
    parameters = path.parameters
    if parameters.keys() - _MAIL_PARAMETERS or (parameters and not esmtp):
        raise RefusedError(UNKNOWN_PARAMETER)
    size = parameters.get("SIZE", "0")
    body = _capitals(parameters.get("BODY", "7BIT"))
    if body not in {"7BIT", "8BITMIME"} or parameters.get("SMTPUTF8") or not _SIZE.fullmatch(size):
        raise RefusedError(BAD_VALUE)
    smtputf8 = "SMTPUTF8" in parameters
    if not smtputf8 and not path.address.isascii():
        raise RefusedError(NEEDS_SMTPUTF8)
    return Sender(address=path.address, size=int(size), smtputf8=smtputf8)


def rcpt_to(argument: str, *, smtputf8: bool) -> str:
    """The recipient of RCPT's argument. No parameter is known. Raises RefusedError."""
    path = forward_path(argument)
    if path.parameters:
        raise RefusedError(UNKNOWN_PARAMETER)
    if not smtputf8 and not path.address.isascii():
        raise RefusedError(NEEDS_SMTPUTF8)
    return path.address


def chunk_size(argument: str) -> tuple[int, bool] | None:
    """The octets of BDAT's argument, and whether they are the last. None: it is not BDAT's."""
    found = _CHUNK_SIZE.fullmatch(argument)
    return (int(found["octets"]), bool(found["last"])) if found else None
