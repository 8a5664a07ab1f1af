"""One SMTP session with a next hop, on aiosmtplib: connect, greet, TLS, AUTH, and then one transaction after the other.

1. aiosmtplib has the connection and the replies (`smtp_wire`; 32 KiB at most), STARTTLS and AUTH. Its `sendmail` is not used: it
   works on the whole message on the event loop, twice, parses addresses as if they stood in a header, and keeps no deadline
   for all.
2. Replies count by their class. One that comes before it was asked for, or has no place in SMTP, ends the session: whatever
   came next would be taken for the answer to something else.
3. Where the message itself could not be at fault (greeting, EHLO, TLS, AUTH, "you may not send here"), a 5xx is our trouble
   with the next hop, and temporary.
4. Nothing that the next hop says in answer to AUTH is told anywhere: it may repeat the password.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import aiosmtplib

from inbound.addresses import a_labels
from inbound.clients.hop import NOT_TRUSTED, OURSELVES, UNREACHABLE, Hop, Ourselves, connect, is_here, trust
from inbound.clients.parcel import Parcel, path_of
from inbound.clients.reasons import TIMED_OUT
from inbound.clients.smtp_wire import Replies, Wire
from inbound.errors import Failure, PermanentFailure, TemporaryFailure
from inbound.offload import aside, offload
from inbound.reply import Reply

PIECE = 64 * 1024  # octets of content between two looks at how the next hop keeps up
FAREWELL = 2.0  # seconds for the answer to QUIT
LONGEST_TEXT = 400  # characters of a next hop's reply that are told on

NO_SMTP = "next hop does not speak SMTP"
LEFT = "next hop closed the connection"
UNWILLING = "next hop does not serve us"
NO_TLS = "next hop has no TLS"
NO_AUTH = "next hop does not take our password"
NO_PASSWORD = "password missing"  # noqa: S105 - a reason
REFUSED = "refused by the next hop"
DEFERRED = "deferred by the next hop"

NO_EIGHT_BIT = Reply(554, "5.6.3", "The next server takes no 8-bit content, and it is not converted", REFUSED)
NO_UTF8_ADDRESS = Reply(553, "5.6.7", "The next server takes no address that is not ASCII", REFUSED)
NO_UTF8_HEADER = Reply(554, "5.6.9", "The next server takes no header that is not ASCII", REFUSED)

_ENHANCED = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?= |$)")
_OURS_TO_MEND = frozenset({503, 530, 534, 535, 538})  # not the message: AUTH or TLS wanted (RFC 3207, 4954)
_NO_EHLO = frozenset({500, 501, 502, 504, 550})  # RFC 5321 4.1.1.1

Result = TypeVar("Result")


class RefusedError(PermanentFailure):
    """Nobody has it, and trying again will not help. `replies` by recipient."""

    def __init__(self, replies: Mapping[str, Reply]) -> None:
        self.replies = dict(replies)
        super().__init__(REFUSED, _told(replies))


class DeferredError(TemporaryFailure):
    """Nobody has it, as far as is known. `replies` by recipient: 4xx, and 5xx beside them."""

    def __init__(self, replies: Mapping[str, Reply]) -> None:
        self.replies = dict(replies)
        super().__init__(DEFERRED, _told(replies))


class StaleError(TemporaryFailure):
    """The session was over before the transaction had begun, so another one can be tried."""

    def __init__(self) -> None:
        super().__init__(LEFT, "before MAIL")


class NoHandshakeError(TemporaryFailure):
    """STARTTLS was offered and came to nothing."""


class Session:
    """An open session, and how many messages were `sent` over it."""

    def __init__(self, hop: Hop, smtp: Wire, seconds: float) -> None:
        self.hop = hop
        self.sent = 0
        self._smtp = smtp
        self._seconds = seconds
        self._here = False  # it is on this machine, so its address alone says whether it is us

    @classmethod
    async def open(cls, hop: Hop, ourselves: Ourselves, *, seconds: float, clear: bool = False) -> "Session":
        """Connect, greet, and go into TLS as the hop's policy says; `clear` passes an optional STARTTLS by.

        `seconds` is for each reply. Raises Failure.
        """
        trusted = await offload(trust, hop)
        connection = await connect(hop, ourselves, seconds)
        smtp = Wire(
            hostname=hop.host,
            sock=connection,
            local_hostname=a_labels(ourselves.hostname) or "localhost",
            timeout=seconds,
            use_tls=hop.tls == "implicit",
            start_tls=False,
            tls_context=trusted,
        )
        session = cls(hop, smtp, seconds)
        session._here = is_here(connection)
        try:
            await session._begin(ourselves, clear=clear)
        except BaseException:
            session.abort()
            raise
        return session

    async def _begin(self, ourselves: Ourselves, *, clear: bool) -> None:
        await self._plainly(self._smtp.connect())
        await self._greet(ourselves)
        if self.hop.tls in ("require", "verify") or (self.hop.tls == "opportunistic" and not clear):
            await self._start_tls(ourselves)
        if self.hop.user:
            await self._authenticate()

    async def _greet(self, ourselves: Ourselves) -> None:
        greeted = await self._plainly(self._hello())
        name = greeted.message.partition("\n")[0].partition(" ")[0]
        # On this machine it is known what we listen on; elsewhere it is not, behind a translated address for instance.
        if not self._here and ourselves.goes_by(name, self.hop.port):
            raise PermanentFailure(OURSELVES, f"{self.hop.name} answers EHLO with our own name, {printable(name)}")

    async def _hello(self) -> aiosmtplib.SMTPResponse:
        try:
            return await self._smtp.ehlo()
        except aiosmtplib.SMTPHeloError as error:
            if error.code not in _NO_EHLO:
                raise
            return await self._smtp.helo()

    async def _start_tls(self, ourselves: Ourselves) -> None:
        if not self._smtp.supports_extension("starttls"):
            if self.hop.tls != "opportunistic":
                raise TemporaryFailure(NO_TLS, f"{self.hop.name} offers no STARTTLS, and tls: {self.hop.tls} wants it")
            return
        try:
            await self._plainly(self._smtp.starttls(server_hostname=self.hop.host))
        except Failure as failure:
            if self.hop.tls == "opportunistic":
                raise NoHandshakeError(failure.reason, failure.detail) from failure
            raise
        await self._greet(ourselves)

    async def _authenticate(self) -> None:
        if self._smtp.get_transport_info("sslcontext") is None:
            raise PermanentFailure(NO_TLS, "no password is told outside of TLS")
        methods = self._smtp.server_auth_methods
        tell = self._smtp.auth_plain if "plain" in methods else self._smtp.auth_login if "login" in methods else None
        if tell is None:
            raise TemporaryFailure(NO_AUTH, f"{self.hop.name} offers neither AUTH PLAIN nor LOGIN")
        try:
            password = await aside(self.hop.secret)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or (error if type(error) is ValueError else type(error).__name__)
            raise TemporaryFailure(NO_PASSWORD, f"for {self.hop.user} at {self.hop.name}: {why}") from None
        try:
            await tell(self.hop.user, password)
        except aiosmtplib.SMTPResponseException as error:
            raise TemporaryFailure(NO_AUTH, f"{self.hop.name} answers AUTH with {error.code}") from None
        except (aiosmtplib.SMTPException, OSError) as error:
            raise TemporaryFailure(NO_AUTH, f"{self.hop.name}: {type(error).__name__} at AUTH") from None
        self._in_step()

    async def _plainly(self, step: Coroutine[Any, Any, Result]) -> Result:
        """One step of the beginning; whatever goes wrong in it is not the message's fault."""
        try:
            result = await step
        except aiosmtplib.SMTPTimeoutError as error:
            raise TemporaryFailure(TIMED_OUT, f"{self.hop.name}: {error.message}") from error
        except aiosmtplib.SMTPResponseException as error:
            reason = UNWILLING if 400 <= error.code < 600 else NO_SMTP  # noqa: PLR2004 - the classes of RFC 5321 4.2.1
            raise TemporaryFailure(reason, f"{self.hop.name}: {error.code} {printable(error.message)}") from error
        except (aiosmtplib.SMTPException, OSError) as error:
            cause = error if isinstance(error, ssl.SSLError) else error.__cause__
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise TemporaryFailure(NOT_TRUSTED, f"{self.hop.name}: {cause.verify_message}") from error
            raise TemporaryFailure(UNREACHABLE, f"{self.hop.name}: {printable(str(error))}") from error
        self._in_step()
        return result

    def _in_step(self) -> Replies:
        """Nothing is left of what was said. Otherwise the next hop says more than it is asked."""
        protocol = self._smtp.protocol
        if protocol is None:
            raise TemporaryFailure(LEFT, self.hop.name)
        if protocol.has_more:  # it would be the next command's answer
            raise TemporaryFailure(NO_SMTP, f"{self.hop.name} says more than it is asked")
        return protocol

    async def transact(self, parcel: Parcel) -> tuple[Reply, dict[str, Reply]]:
        """One message: the reply that took it, and the refusals by recipient. Raises Failure; then the session is over.

        RefusedError and DeferredError are the next hop's own word that nobody has it; after another Failure that is unknown.
        """
        self._able(parcel)
        opened = await self._command(f"MAIL FROM:<{path_of(parcel.mail_from)}>{self._parameters(parcel)}", first=True)
        if not opened.accepts:
            raise _nobody(dict.fromkeys(parcel.rcpt_to, opened))
        answers = {who: await self._command(f"RCPT TO:<{path_of(who)}>") for who in parcel.rcpt_to}
        refusals = {who: answer for who, answer in answers.items() if not answer.accepts}
        if len(refusals) == len(answers):
            raise _nobody(refusals)
        ready = await self._say("DATA")
        if ready.code != 354:  # noqa: PLR2004 - RFC 5321 4.1.1.4
            raise _nobody(dict.fromkeys(parcel.rcpt_to, self._refusal(ready)) | refusals)
        taken = await self._content(parcel.content)
        if not taken.accepts:
            raise _nobody(dict.fromkeys(parcel.rcpt_to, taken) | refusals)
        self.sent += 1
        return taken, refusals

    def _able(self, parcel: Parcel) -> None:
        """What the message needs, the next hop has. Asked before MAIL, so the session stays good."""
        offered = self._smtp.esmtp_extensions
        utf8 = "smtputf8" in offered
        flaw = None
        limit = offered.get("size", "").strip()
        if parcel.utf8_address and not utf8:
            flaw = NO_UTF8_ADDRESS
        elif parcel.utf8_header and not utf8:
            flaw = NO_UTF8_HEADER
        elif parcel.eight_bit and "8bitmime" not in offered:
            flaw = NO_EIGHT_BIT
        elif limit.isascii() and limit.isdecimal() and 0 < int(limit[:20]) < parcel.size:  # RFC 1870 3: 0 is no limit
            text = f"The next server takes messages of {limit[:20]} octets at most, this one has {parcel.size}"
            flaw = Reply(552, "5.3.4", text, REFUSED)
        if flaw is not None:
            raise RefusedError(dict.fromkeys(parcel.rcpt_to, flaw))

    def _parameters(self, parcel: Parcel) -> str:
        offered = self._smtp.esmtp_extensions
        size = f" SIZE={parcel.size}" if "size" in offered else ""
        body = " BODY=8BITMIME" if parcel.eight_bit else ""
        return size + body + (" SMTPUTF8" if parcel.utf8_address or parcel.utf8_header else "")

    async def _command(self, line: str, *, first: bool = False) -> Reply:
        return self._reply(await self._say(line, first=first))

    async def _say(self, line: str, *, first: bool = False) -> aiosmtplib.SMTPResponse:
        """A command and its answer. `first`: a session that is over already, or just then, was stale."""
        if self._smtp.protocol is None or not self._smtp.is_connected:
            raise StaleError if first else TemporaryFailure(LEFT, self.hop.name)
        self._in_step()
        try:
            answer = await self._smtp.execute_command(line.encode("utf-8"))
        except aiosmtplib.SMTPServerDisconnected as error:
            raise (StaleError() if first else TemporaryFailure(LEFT, f"{self.hop.name}: at {line[:4]}")) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise self._garbled(error, line[:4]) from error
        if first and answer.code == 421:  # noqa: PLR2004 - RFC 5321 3.8: it was about to close
            raise StaleError
        if self._smtp.protocol is not None:
            self._in_step()
        return answer

    def _garbled(self, error: Exception, at: str) -> Failure:
        if isinstance(error, aiosmtplib.SMTPTimeoutError):
            return TemporaryFailure(TIMED_OUT, f"{self.hop.name}: at {at}")
        if isinstance(error, aiosmtplib.SMTPResponseException):
            return TemporaryFailure(NO_SMTP, f"{self.hop.name}: at {at}: {printable(error.message)}")
        return TemporaryFailure(LEFT, f"{self.hop.name}: at {at}: {printable(str(error))}")

    async def _content(self, content: bytes) -> Reply:
        """Send the content piece by piece. The answer has no deadline of its own, but the one for the whole message.

        A next hop may answer in the middle and close: what it said counts, unless it says that it has what it has not.
        """
        protocol = self._in_step()
        answer = asyncio.ensure_future(protocol.read_response())
        try:
            await asyncio.sleep(0)  # aiosmtplib drops an answer that comes before it is read for; uvloop is so quick
            for at in range(0, len(content), PIECE):
                if answer.done():
                    break
                async with asyncio.timeout(self._seconds):
                    protocol.write(content[at : at + PIECE])
                    await protocol.drain()
            else:
                at = len(content)
            early = answer.done() and at < len(content)
            reply = (self._refusal if early else self._reply)(await answer)
        except TimeoutError as error:
            raise TemporaryFailure(TIMED_OUT, f"{self.hop.name} does not take the content") from error
        except (aiosmtplib.SMTPException, OSError) as error:
            await asyncio.wait([answer], timeout=1.0)  # what was said last may just have come
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                return self._refusal(answer.result())
            raise self._garbled(error, "the content") from error
        finally:
            answer.cancel()
        return reply

    def _refusal(self, answer: aiosmtplib.SMTPResponse) -> Reply:
        """What can only be a refusal, since the next hop has not seen the whole message."""
        reply = self._reply(answer)
        if reply.accepts:
            raise TemporaryFailure(NO_SMTP, f"{self.hop.name} says yes before the end of the content")
        return reply

    def _reply(self, answer: aiosmtplib.SMTPResponse) -> Reply:
        """The next hop's reply as one of ours: its code, its enhanced code if it is of that class, its text in ASCII."""
        code, lines = answer.code, printable(answer.message).split("\n")
        if not (200 <= code < 300 or 400 <= code < 600):  # noqa: PLR2004
            raise TemporaryFailure(NO_SMTP, f"{self.hop.name} answers {code} {lines[0]}")
        known = _ENHANCED.match(lines[0])
        enhanced = known.group() if known and known.group(1) == str(code)[0] else f"{code // 100}.0.0"
        if code in _OURS_TO_MEND:
            raise TemporaryFailure(UNWILLING, f"{self.hop.name}: {code} {lines[0]}")
        text = " ".join(line[_code_end(line) :].strip() for line in lines).strip()[:LONGEST_TEXT].strip()
        return Reply(code, enhanced, text or "no reason given", "" if code < 300 else _why(code))  # noqa: PLR2004

    async def reset(self) -> bool:
        """RSET, before another message. False: the session is over."""
        try:
            return (await self._command("RSET")).accepts
        except Failure:
            return False

    @property
    def open_still(self) -> bool:
        """The next hop has not closed it, as far as is known."""
        return self._smtp.is_connected

    async def quit(self) -> None:
        """End it politely, without waiting for long."""
        try:
            with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
                async with asyncio.timeout(min(self._seconds, FAREWELL)):
                    await self._smtp.quit()
        finally:
            self.abort()

    def abort(self) -> None:
        """End it at once: what is written and not taken yet goes nowhere."""
        transport = self._smtp.transport
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
        self._smtp.close()


def printable(text: str) -> str:
    """Printable ASCII and line feeds."""
    return "".join(char if " " <= char <= "~" or char == "\n" else "?" for char in text)


def _code_end(line: str) -> int:
    known = _ENHANCED.match(line)
    return known.end() if known else 0


def _told(replies: Mapping[str, Reply]) -> str:
    return "; ".join(f"{who}: {reply}" for who, reply in list(replies.items())[:5])


def _why(code: int) -> str:
    return DEFERRED if code < 500 else REFUSED  # noqa: PLR2004


def _nobody(replies: Mapping[str, Reply]) -> Failure:
    """Nobody has it: for good when all say so."""
    return RefusedError(replies) if all(reply.refuses for reply in replies.values()) else DeferredError(replies)
