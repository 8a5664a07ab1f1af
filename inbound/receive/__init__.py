"""The SMTP edge: session, data reader, TLS, limits. aiosmtpd is met in this package only.

What lies behind the edge is given to it: a `Door` that opens a `Transaction` at MAIL FROM. The edge answers for
everything that is SMTP; the transaction answers for everything that is policy, and its replies are sent as they are.
"""

from dataclasses import dataclass
from typing import Protocol

from inbound.mail import Client
from inbound.reply import Reply


class Transaction(Protocol):
    """From MAIL FROM to the reply after the end of data. The rule set in force when it was opened is the one it uses."""

    async def recipient(self, address: str) -> Reply:
        """Answer RCPT TO. 2xx: the recipient is taken into the transaction, which keeps it itself."""
        ...

    async def message(self, raw: bytes) -> Reply:
        """Answer the end of data: the whole message, CRLF line ends, dot-stuffing undone. Runs to its end, always."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuff:
    """What the edge has refused or deferred by itself: the reply, to whom, and to which command ("" where it came unasked).

    `mail_from` is None outside a transaction; `rcpt_to` are the recipients that it had by then.
    """

    ip: str
    helo: str
    command: str
    reply: Reply
    mail_from: str | None = None
    rcpt_to: tuple[str, ...] = ()


class Door(Protocol):
    """What the edge opens for each MAIL FROM, and whom it tells of what it answered by itself."""

    def rebuffed(self, rebuff: Rebuff) -> None:
        """Take note. Called for every refusal and deferral that is the edge's own."""
        ...

    def open(self, client: Client, mail_from: str, *, smtputf8: bool) -> Transaction:
        """Begin a transaction. `mail_from` is "" for the null reverse-path."""
        ...
