"""One SMTP session: the commands, what they need, and what comes of them (RFC 5321 4.1).

1. Every reply has an enhanced status code, but for the greeting, the answers to EHLO and HELO, and 354 (RFC 2034 4).
2. A message that has come to its end is worked on by a task of its own (`House.work`). No timer runs meanwhile, and that
   task ends by itself even when the client is gone.
3. An exception that nobody expected is logged and answered `451 4.3.0`; its text stays here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import ClassVar

from inbound.mail import Client
from inbound.receive import Rebuff, Transaction
from inbound.receive.commands import HELO_NAME, IDLE, NOT_OFFERED, WEB, chunk_size, command, mail_from, rcpt_to
from inbound.receive.conduct import Conduct
from inbound.receive.data import Content, too_large
from inbound.receive.house import House
from inbound.receive.incoming import Incoming, skip
from inbound.receive.inflow import CrowdedError, GoneError, OverlongError, SilentError, StoppingError
from inbound.receive.paths import RefusedError
from inbound.receive.replies import (
    BAD_CHUNK,
    BAD_HELO,
    BAD_LINE,
    BARE_LF,
    BROKEN,
    BUSY,
    BYE,
    CANNOT_VERIFY,
    CHUNKS_BEGUN,
    CHUNKS_FAILED,
    HELO_FIRST,
    HELP,
    LINE_TOO_LONG,
    LOST_COUNT,
    MAIL_FIRST,
    NESTED_MAIL,
    NO_ARGUMENT,
    NO_RECIPIENTS,
    NO_TLS,
    NOT_DONE,
    OK,
    SENDER_OK,
    SPOKE_FIRST,
    TLS_ALREADY,
    TOO_FAST,
    TOO_MANY_RECIPIENTS,
    UNKNOWN,
    WRONG_PROTOCOL,
)
from inbound.receive.wire import LeavingError, Wire
from inbound.reply import Reply

log = logging.getLogger(__name__)


TURN = 32  # pipelined commands of one client, then others have theirs


class Session(Wire):
    """What is said on one connection, in order."""

    def __init__(self, house: House, *, behind_proxy: bool, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(house, behind_proxy=behind_proxy, loop=loop)
        self._helo = ""
        self._esmtp = False
        self._transaction: Transaction | None = None
        self._incoming: Incoming | None = None
        self._chunks_failed = False  # what comes of this message can only be thrown away
        self._within_content = False  # what comes next is no command
        self._smtputf8 = False
        self._verb = ""
        self._mail_from: str | None = None
        self._rcpt_to: list[str] = []
        self._conduct = Conduct(house.limits)

    async def greet(self) -> None:
        """RFC 5321 4.2, to a client that waits for it if it is made to wait at all."""
        if not await self._inflow.quiet(self._limits.greet_seconds):
            log.warning("%s spoke before the greeting", self.peer)
            if self._limits.greet_seconds:
                raise LeavingError(SPOKE_FIRST)
        log.info("%s connected", self.peer)
        self.send_later(f"220 {self._house.hostname} ESMTP")

    async def one_command(self) -> None:
        """Read one command and answer it."""
        if not self._inflow.has_line:
            await self.flush()
        elif self.unsent >= TURN:
            await self.flush()
            await asyncio.sleep(0)
        try:
            line = await self._inflow.line(self._limits.command_seconds, self._limits.command_bytes)
            await self._obey(line)
        except OverlongError as overlong:
            await self._refuse(LINE_TOO_LONG)
            _leave(BARE_LF if overlong.bare else LOST_COUNT if _is_bdat(overlong.start) else None)
        except RefusedError as refused:
            await self._refuse(refused.reply)
        except (LeavingError, GoneError, SilentError, CrowdedError, StoppingError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            await self.push(await self.handle_exception(error))
            _leave(LOST_COUNT if self._within_content else None)

    async def _obey(self, line: bytes) -> None:
        _leave(self._conduct.says())
        self._verb = ""
        if not line.endswith(b"\r\n"):
            # For a client that ends lines as RFC 5321 2.3.8 says it was within a command: it may be somebody's who had only
            # an argument to give, and what follows is not a command.
            await self._refuse(BAD_LINE)
            raise LeavingError(BARE_LF)
        try:
            verb, argument = command(line)
        except RefusedError as refused:
            if not _is_bdat(line):
                raise
            await self._refuse(refused.reply)
            raise LeavingError(LOST_COUNT) from None
        self._verb = verb if verb in self._VERBS or verb in NOT_OFFERED else "?"
        if verb in WEB:
            raise LeavingError(WRONG_PROTOCOL)
        if verb in IDLE:
            _leave(self._conduct.idles())
        method = self._VERBS.get(verb)
        if method is None:
            raise RefusedError(NOT_DONE if verb in NOT_OFFERED else UNKNOWN)
        await method(self, argument)

    def _answer(self, reply: Reply) -> None:
        self.send_later(str(reply))

    async def _refuse(self, reply: Reply) -> None:
        self.note(reply)
        farewell = self._conduct.errs(reply)
        await self._hold_back()
        self._answer(reply)
        _leave(farewell)

    async def _hold_back(self) -> None:
        """An offender's reply waits, and with it whatever it wants to try next."""
        if self._conduct.offends and self._limits.tarpit_seconds:
            await self.flush()
            await asyncio.sleep(self._limits.tarpit_seconds)

    def rebuff(self, reply: Reply) -> Rebuff:
        """With the command it answers, and whose mail it is about."""
        return Rebuff(
            ip=self.address,
            helo=self._helo,
            command=self._verb,
            reply=reply,
            mail_from=self._mail_from,
            rcpt_to=tuple(self._rcpt_to),
        )

    def _client(self) -> Client:
        assert self._client_ip is not None  # noqa: S101 - known before the greeting
        return Client(ip=self._client_ip, port=self._client_port, helo=self._helo, esmtp=self._esmtp, tls=self._tls)

    async def smtp_HELO(self, argument: str | None) -> None:  # noqa: N802 - aiosmtpd's name for it
        """RFC 5321 4.1.1.1."""
        self._meet(argument, esmtp=False)
        self.send_later(f"250 {self._house.hostname}")

    async def smtp_EHLO(self, argument: str | None) -> None:  # noqa: N802
        """RFC 5321 4.1.1.1, in one write."""
        self._meet(argument, esmtp=True)
        if self._inflow.pending:  # RFC 2920 3.1: EHLO is the last of a group
            log.warning("%s went on before the answer to EHLO", self.peer)
        lines = [
            self._house.hostname,
            "PIPELINING",
            f"SIZE {self._limits.message_bytes}",
            "8BITMIME",
            "SMTPUTF8",
            "CHUNKING",
            "ENHANCEDSTATUSCODES",
            f"LIMITS MAILMAX={self._limits.messages_per_connection} RCPTMAX={self._limits.recipients}",  # RFC 9422
        ]
        if self._house.certificates and not self._tls:
            lines.append("STARTTLS")
        self.send_later("".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}")

    def _meet(self, argument: str | None, *, esmtp: bool) -> None:
        if not argument or not HELO_NAME.fullmatch(argument):
            raise RefusedError(BAD_HELO)
        self._helo = argument
        self._esmtp = esmtp
        self._forget_transaction()

    def _forget_transaction(self) -> None:
        self._transaction = None
        self._smtputf8 = False
        self._mail_from = None
        self._rcpt_to.clear()
        self._chunks_failed = False
        self.drop_message()

    def drop_message(self) -> None:
        """Forget what has come of a message."""
        if self._incoming:
            self._incoming.release()
            self._incoming = None

    async def smtp_MAIL(self, argument: str | None) -> None:  # noqa: N802
        """RFC 5321 4.1.1.2, with SIZE (RFC 1870), BODY (RFC 6152) and SMTPUTF8 (RFC 6531)."""
        if not self._helo:
            raise RefusedError(HELO_FIRST)
        if self._transaction:
            raise RefusedError(NESTED_MAIL)
        sender = mail_from(argument or "", esmtp=self._esmtp)
        if sender.size > self._limits.message_bytes:
            raise RefusedError(too_large(self._limits))
        _leave(self._conduct.begins_message())
        if self._place and not self._house.rates.admits(self._place):
            raise RefusedError(TOO_FAST)
        self._chunks_failed = False
        self._transaction = self._house.door.open(self._client(), sender.address, smtputf8=sender.smtputf8)
        self._mail_from = sender.address
        self._smtputf8 = sender.smtputf8
        self._answer(SENDER_OK)

    async def smtp_RCPT(self, argument: str | None) -> None:  # noqa: N802
        """RFC 5321 4.1.1.3. The transaction answers."""
        if not self._transaction:
            raise RefusedError(MAIL_FIRST if self._helo else HELO_FIRST)
        if self._incoming or self._chunks_failed:
            raise RefusedError(CHUNKS_BEGUN)
        address = rcpt_to(argument or "", smtputf8=self._smtputf8)
        if len(self._rcpt_to) >= self._limits.recipients:
            self.note(TOO_MANY_RECIPIENTS)
            self._answer(TOO_MANY_RECIPIENTS)
            return
        reply = await self._transaction.recipient(address)
        if reply.accepts:
            self._rcpt_to.append(address)
        farewell = self._conduct.names_recipient(reply)
        if reply.refuses:
            await self._hold_back()
        self._answer(reply)
        _leave(farewell)

    async def smtp_DATA(self, argument: str | None) -> None:  # noqa: N802
        """RFC 5321 4.1.1.4."""
        if argument:
            raise RefusedError(NO_ARGUMENT)
        if self._incoming or self._chunks_failed:
            raise RefusedError(CHUNKS_BEGUN)
        refusal = self._content_refusal()
        if refusal or self._house.budget.spent:
            raise RefusedError(refusal or BUSY)
        await self.push("354 go on, CRLF . CRLF ends it")
        self._incoming = Incoming(self._inflow, self._house.budget, self._limits)
        self._within_content = True
        await self._incoming.data()
        self._within_content = False
        await self._hand_over(self._incoming)

    async def smtp_BDAT(self, argument: str | None) -> None:  # noqa: N802
        """RFC 3030. The octets are read whatever the answer is, so that they can never be taken for commands."""
        size = chunk_size(argument or "")
        if not size:  # how much is content and where commands begin cannot be known
            self._answer(BAD_CHUNK)
            raise LeavingError(LOST_COUNT)
        octets, last = size
        self._within_content = True
        refusal = self._chunk_refusal()
        if refusal:
            self._chunks_failed = True
            await self._before_reading(octets)
            await skip(self._inflow, self._limits, octets)
            self._within_content = False
            if last:
                self._forget_transaction()
            raise RefusedError(refusal)
        self._incoming = self._incoming or Incoming(self._inflow, self._house.budget, self._limits)
        await self._before_reading(octets)
        await self._incoming.chunk(octets, last=last)
        self._within_content = False
        if last:
            await self._hand_over(self._incoming)
        elif flaw := self._incoming.content.flaw:
            self._chunks_failed = True
            self.drop_message()
            raise RefusedError(flaw)
        else:
            self._answer(Reply(250, "2.0.0", f"{octets} octets"))

    def _chunk_refusal(self) -> Reply | None:
        if self._chunks_failed:
            return CHUNKS_FAILED
        if not self._incoming and self._house.budget.spent:
            return BUSY
        return self._content_refusal()

    def _content_refusal(self) -> Reply | None:
        if not self._transaction:
            return MAIL_FIRST if self._helo else HELO_FIRST
        return None if self._rcpt_to else NO_RECIPIENTS

    async def _before_reading(self, octets: int) -> None:
        """A client that is waited for must have its replies."""
        if self._inflow.pending < octets:
            await self.flush()

    async def _hand_over(self, incoming: Incoming) -> None:
        transaction = self._transaction
        assert transaction is not None  # noqa: S101 - or there is no content
        self._incoming = None
        try:
            reply = await self._judged(transaction, incoming.content)
            if reply is BROKEN or reply is incoming.content.flaw:
                self.note(reply)
        finally:
            self._forget_transaction()
            incoming.release()
        self._conduct.brings_message(reply)
        self._answer(reply)
        await self.flush()  # the next command may take its time

    async def _judged(self, transaction: Transaction, content: Content) -> Reply:
        raw = content.finish()
        if content.flaw:
            return content.flaw
        await self.flush()
        return await self._house.work(transaction, raw, self.peer)

    async def smtp_RSET(self, argument: str | None) -> None:  # noqa: N802
        """RFC 5321 4.1.1.5."""
        if argument:
            raise RefusedError(NO_ARGUMENT)
        self._forget_transaction()
        self._answer(OK)

    async def smtp_NOOP(self, argument: str | None) -> None:  # noqa: ARG002, N802
        """RFC 5321 4.1.1.9."""
        self._answer(OK)

    async def smtp_HELP(self, argument: str | None) -> None:  # noqa: ARG002, N802
        """RFC 5321 4.1.1.8, telling nothing."""
        self._answer(HELP)

    async def smtp_VRFY(self, argument: str | None) -> None:  # noqa: ARG002, N802
        """RFC 5321 7.3: who is here is nobody's business."""
        self._answer(CANNOT_VERIFY)

    async def smtp_QUIT(self, argument: str | None) -> None:  # noqa: N802
        """RFC 5321 4.1.1.10."""
        if argument:
            raise RefusedError(NO_ARGUMENT)
        raise LeavingError(BYE)

    async def smtp_STARTTLS(self, argument: str | None) -> None:  # noqa: N802
        """RFC 3207. What was sent in clear behind the command is dropped, and the session begins anew."""
        if argument:
            raise RefusedError(NO_ARGUMENT)
        if self._tls:
            raise RefusedError(TLS_ALREADY)
        if not self._house.certificates:
            raise RefusedError(NO_TLS)
        await self.push("220 2.0.0 begin TLS")
        if self._inflow.discard():
            log.warning("%s sent commands in clear behind STARTTLS", self.peer)
        await self.begin_tls()
        self._helo = ""
        self._forget_transaction()

    _VERBS: ClassVar[dict[str, Callable[["Session", str | None], Awaitable[None]]]] = {
        "HELO": smtp_HELO,
        "EHLO": smtp_EHLO,
        "MAIL": smtp_MAIL,
        "RCPT": smtp_RCPT,
        "DATA": smtp_DATA,
        "BDAT": smtp_BDAT,
        "RSET": smtp_RSET,
        "NOOP": smtp_NOOP,
        "HELP": smtp_HELP,
        "VRFY": smtp_VRFY,
        "QUIT": smtp_QUIT,
        "STARTTLS": smtp_STARTTLS,
    }


def _is_bdat(line: bytes) -> bool:
    """What follows is the content of a chunk, however much, though the line cannot be read."""
    return line[:4].upper() == b"BDAT"


def _leave(farewell: Reply | None) -> None:
    if farewell:
        raise LeavingError(farewell)
