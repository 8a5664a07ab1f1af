"""Every reply that the source can make, provoked on a real socket.

The table below has one transcript for each place in the source that makes a `Reply`: a constant by its name, a function or
method by its name. A place without a transcript fails the last test, and so does a transcript without a place.

`>` is said and `<` expected, `…` at its end standing for anything; a number before it is that connection's instead of the
first's; `=` lines are done by the test: `LF` (a command with an LF in it), `tls` (the handshake), `held` (until the server
holds octets of a message), `stop` (the server is told to), `large` (octets of a message beyond any action's limit).
"""

import ast
import importlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import inbound
from inbound.reply import Reply
from inbound.settings import BlockList, DnsblZone, Greylist, Limits, Tls
from tests.harness import DNS, receiver
from tests.receive.talk import FakeDoor, Served, Talk, run, served, until

HERE = "> HELO mx.sender.example\n< 250 …\n"
FROM = HERE + "> MAIL FROM:<pat@sender.example>\n< 250 2.1.0 OK\n"
READY = FROM + "> RCPT TO:<support@example.com>\n< 250 …\n"
DATA = READY + "> DATA\n< 354 go on, CRLF . CRLF ends it\n"
NO_RECIPIENT = Reply(550, "5.1.1", "no such user")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A transcript, and the server it is played against: the edge alone, or with `rules` everything behind it."""

    text: str
    greeted: bool = True
    limits: Mapping[str, Any] = field(default_factory=dict)
    edge: Mapping[str, Any] = field(default_factory=dict)
    door: FakeDoor = field(default_factory=FakeDoor)
    tls: bool = False
    rules: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    dns: Mapping[str, Any] = field(default_factory=dict)


def _broken(_address: str) -> Reply:
    raise RuntimeError("a secret")


EDGE = {
    "receive.replies.OK": Case(text="> NOOP\n< 250 2.0.0 OK"),
    "receive.replies.SENDER_OK": Case(text=FROM),
    "receive.replies.BYE": Case(text="> QUIT\n< 221 2.0.0 bye\n< (closed)"),
    "receive.replies.CANNOT_VERIFY": Case(text="> VRFY postmaster\n< 252 2.1.5 not verified; send the mail and see"),
    "receive.replies.HELP": Case(text="> HELP MAIL\n< 214 2.0.0 see RFC 5321"),
    "receive.replies.BROKEN": Case(
        text=FROM + "> RCPT TO:<b@ours.test>\n< 451 4.3.0 something went wrong here, try again later",
        door=FakeDoor(recipient_reply=_broken),
    ),
    "receive.replies.SILENT": Case(
        text=DATA + "> Subject: and no more\n< 421 4.4.2 you took too long, goodbye\n< (closed)",
        limits={"data_idle_seconds": 0.1},
    ),
    "receive.replies.STOPPING": Case(text=FROM + "= stop\n< 421 4.3.2 stopping, try again later\n< (closed)"),
    "receive.replies.CROWDED": Case(
        text=DATA
        + "2< 220 mx.test ESMTP\n"
        + "".join(f"2{line}\n" for line in DATA.splitlines())
        + "> a line to fill the house with\n= held\n2> and another\n"
        "2< 421 4.3.1 too much mail at the moment, try again later\n2< (closed)",
        limits={"bytes_in_flight": 20, "data_idle_seconds": 0.3},
    ),
    "receive.replies.BUSY": Case(
        text=DATA
        + "> a line to fill the house with\n= held\n2< 220 mx.test ESMTP\n"
        + "".join(f"2{line}\n" for line in READY.splitlines())
        + "2> DATA\n2< 452 4.3.1 too much mail at the moment, try again later\n> .\n< 250 2.6.0 taken",
        limits={"bytes_in_flight": 20},
    ),
    "receive.replies.TOO_MANY_ERRORS": Case(
        text="> A\n< 500 …\n> B\n< 500 …\n< 421 4.7.0 too many errors, goodbye\n< (closed)", limits={"errors": 2}
    ),
    "receive.replies.TOO_IDLE": Case(
        text="> NOOP\n< 250 …\n> RSET\n< 250 …\n> NOOP\n< 421 4.7.0 too many commands without mail, goodbye\n< (closed)",
        limits={"idle_commands": 2},
    ),
    "receive.replies.TOO_MANY_COMMANDS": Case(
        text=READY + "> RCPT TO:<c@d.test>\n< 421 4.7.0 too many commands, goodbye\n< (closed)", limits={"commands": 3}
    ),
    "receive.replies.TOO_MANY_MESSAGES": Case(
        text=DATA
        + "> .\n< 250 …\n> MAIL FROM:<>\n< 421 4.7.0 enough messages for one connection, make another\n< (closed)",
        limits={"messages_per_connection": 1},
    ),
    "receive.replies.TOO_MANY_RECIPIENTS": Case(
        text=READY + "> RCPT TO:<c@d.test>\n< 452 4.5.3 too many recipients, send the rest separately",
        limits={"recipients": 1},
    ),
    "receive.replies.TOO_MANY_REFUSED": Case(
        text=FROM
        + "> RCPT TO:<b@ours.test>\n< 550 5.1.1 no such user\n"
        + "< 421 4.7.0 too many recipients were refused, goodbye\n< (closed)",
        limits={"refused_recipients": 1},
        door=FakeDoor(recipient_reply=lambda _address: NO_RECIPIENT),
    ),
    "receive.replies.TOO_FAST": Case(
        text=FROM
        + "> RSET\n< 250 …\n> MAIL FROM:<a@b.test>\n< 450 4.7.1 too many messages from your address, try again later",
        limits={"messages_per_minute": 1},
    ),
    "receive.replies.NOT_TRUSTED": Case(
        text="> PROXY TCP4 192.0.2.10 127.0.0.1 40000 25\n"
        "< 421 4.7.0 PROXY headers are not taken from your address\n< (closed)",
        edge={"proxy": True, "proxy_from": ["192.0.2.0/24"]},
        greeted=False,
    ),
    "receive.replies.LINE_TOO_LONG": Case(
        text=f"> NOOP {'x' * 60}\n< 500 5.5.2 the command line is too long\n> NOOP\n< 250 2.0.0 OK",
        limits={"command_bytes": 50},
    ),
    "receive.replies.BAD_LINE": Case(
        text="> NOOP \0\n< 500 5.5.2 a command is one line of printable characters that ends in CRLF"
    ),
    "receive.replies.BARE_LF": Case(
        text="= LF\n< 500 …\n< 421 4.7.0 a bare LF ends no command (RFC 5321 2.3.8), goodbye\n< (closed)"
    ),
    "receive.replies.UNKNOWN": Case(text="> XCLIENT ADDR=192.0.2.1\n< 500 5.5.1 unknown command"),
    "receive.replies.NOT_DONE": Case(text="> AUTH LOGIN\n< 502 5.5.1 this command is not offered here"),
    "receive.replies.NO_ARGUMENT": Case(text="> RSET all\n< 501 5.5.4 this command has no argument"),
    "receive.replies.BAD_HELO": Case(text="> EHLO a b\n< 501 5.5.4 syntax: EHLO hostname or EHLO [address]"),
    "receive.replies.HELO_FIRST": Case(text="> MAIL FROM:<>\n< 503 5.5.1 say EHLO first"),
    "receive.replies.NESTED_MAIL": Case(
        text=FROM + "> MAIL FROM:<>\n< 503 5.5.1 there is a sender already, RSET first"
    ),
    "receive.replies.MAIL_FIRST": Case(text=HERE + "> RCPT TO:<a@b.test>\n< 503 5.5.1 MAIL FROM first"),
    "receive.replies.NO_RECIPIENTS": Case(text=FROM + "> DATA\n< 554 5.5.1 no valid recipients"),
    "receive.replies.NO_TLS": Case(text="> STARTTLS\n< 502 5.5.1 TLS is not offered here"),
    "receive.replies.TLS_ALREADY": Case(
        text="> STARTTLS\n< 220 2.0.0 begin TLS\n= tls\n> STARTTLS\n< 503 5.5.1 TLS is on already", tls=True
    ),
    "receive.replies.UNKNOWN_PARAMETER": Case(
        text=HERE + "> MAIL FROM:<a@b.test> RET=FULL\n< 555 5.5.4 a parameter is not known here"
    ),
    "receive.replies.BAD_VALUE": Case(
        text="> EHLO x\n" + "< 250-…\n" * 7 + "< 250 …\n"
        "> MAIL FROM:<a@b.test> SIZE=1k\n< 501 5.5.4 a parameter has a value that it cannot have"
    ),
    "receive.replies.BAD_CHUNK": Case(
        text=READY + "> BDAT 5 FIRST\n< 501 5.5.4 syntax: BDAT octets [LAST]\n< 421 …\n< (closed)"
    ),
    "receive.replies.LOST_COUNT": Case(
        text=READY + "> BDAT\n< 501 …\n< 421 4.7.0 what follows cannot be told from content, goodbye\n< (closed)"
    ),
    "receive.replies.CHUNKS_BEGUN": Case(
        text=READY + "> BDAT 3\n> a\n< 250 2.0.0 3 octets\n> DATA\n< 503 5.5.1 BDAT has begun this message, RSET first"
    ),
    "receive.replies.CHUNKS_FAILED": Case(
        text=FROM
        + "> BDAT 3\n> a\n< 554 …\n> BDAT 3 LAST\n> a\n< 503 5.5.1 thrown away behind an earlier error, RSET first"
    ),
    "receive.replies.SPOKE_FIRST": Case(
        text="> EHLO x\n< 554 5.5.1 a client waits for the greeting (RFC 5321 3.1)\n< (closed)",
        limits={"greet_seconds": 5.0},
        greeted=False,
    ),
    "receive.replies.WRONG_PROTOCOL": Case(
        text="> POST / HTTP/1.1\n< 421 4.7.0 this is an SMTP server, goodbye\n< (closed)"
    ),
    "receive.census.FULL": Case(
        text="2< 421 4.3.2 too many connections at the moment, try again later\n2< (closed)", limits={"connections": 1}
    ),
    "receive.census.TOO_MANY": Case(
        text="2< 421 4.7.0 too many connections from your address, try again later\n2< (closed)",
        limits={"connections_per_ip": 1},
    ),
    "receive.data.BARE": Case(
        text=DATA + "> a\rb\n> .\n< 550 5.6.11 bare CR, bare LF and NUL are not taken in a message (RFC 5321 2.3.8)"
    ),
    "receive.data.too_large": Case(
        text="> EHLO x\n" + "< 250-…\n" * 7 + "< 250 …\n"
        "> MAIL FROM:<a@b.test> SIZE=1001\n< 552 5.3.4 the message is larger than 1000 octets",
        limits={"message_bytes": 1000},
    ),
    "receive.data.line_too_long": Case(
        text=DATA + f"> {'x' * 100}\n> .\n< 554 5.6.0 a line is longer than 99 octets", limits={"line_bytes": 99}
    ),
    "receive.data.header_too_large": Case(
        text=DATA + f"> X: {'x' * 100}\n> .\n< 552 5.3.4 the header is larger than 99 octets",
        limits={"header_bytes": 99},
    ),
    "receive.data.too_many_fields": Case(
        text=DATA + "> A: 1\n> B: 2\n> .\n< 554 5.6.0 the header has more than 1 fields", limits={"header_fields": 1}
    ),
    "receive.paths.SYNTAX_MAIL": Case(
        text=HERE + "> MAIL <a@b.test>\n< 501 5.5.4 syntax: MAIL FROM:<address> [parameters]"
    ),
    "receive.paths.SYNTAX_RCPT": Case(text=FROM + "> RCPT\n< 501 5.5.4 syntax: RCPT TO:<address> [parameters]"),
    "receive.paths.BAD_SENDER": Case(
        text=HERE + "> MAIL FROM:a@b.test\n< 501 5.1.7 that is not the address of a sender (RFC 5321 4.1.2)"
    ),
    "receive.paths.BAD_RECIPIENT": Case(
        text=FROM + "> RCPT TO:<>\n< 501 5.1.3 that is not the address of a recipient (RFC 5321 4.1.2)"
    ),
    "receive.paths.LITERAL_RECIPIENT": Case(
        text=FROM + "> RCPT TO:<a@[127.0.0.1]>\n< 550 5.7.1 mail for address literals is not taken here"
    ),
    "receive.paths.NEEDS_SMTPUTF8": Case(
        text=HERE + "> MAIL FROM:<jörg@b.test>\n< 553 5.6.7 an address that is not ASCII needs SMTPUTF8 (RFC 6531)"
    ),
    "receive.paths.BAD_PARAMETER": Case(
        text=HERE + "> MAIL FROM:<a@b.test> SIZE=1 SIZE=2\n< 501 5.5.4 a parameter is malformed or given twice"
    ),
    "receive.session.Session.smtp_BDAT": Case(text=READY + "> BDAT 4\n> ab\n< 250 2.0.0 4 octets"),
}

STORE = "rules: [{name: store, recipients: [example.com], actions: [{s3: {bucket: mail}}]}]"
TELL = "rules: [{name: tell, recipients: [example.com], actions: [{%s}]}]"
TOPIC = "sns: {topic_arn: 'arn:aws:sns:us-east-1:000000000000:mail'}"
QUEUE = "sqs: {queue_url: 'https://sqs.us-east-1.amazonaws.com/000000000000/mail', content: base64}"
BOUNCE = "bounce: {smtp_reply_code: 550, status_code: 5.7.1, message: Not today}"
CALL = "lambda: {function: answer, invocation: request_response}"
NO_TIME = "rules: [{name: x, recipients: [example.com], when: {dmarc: fail}, actions: [drop]}]"
SAYS_NO = '{"disposition": "BOUNCE", "smtp_reply_code": 552, "status_code": "5.2.2", "message": "Full"}'
LARGE = DATA + "= large\n> .\n< 552 5.2.3 Message length exceeds limit set by recipient"
STRICT = """
rules:
  - name: strict
    recipients: [strict@example.com]
    when: {spf: fail}
    actions: [{bounce: {smtp_reply_code: 550, status_code: 5.7.1, message: Not today}}]
  - name: store
    recipients: [example.com]
    actions: [{s3: {bucket: mail}}]
"""

BEHIND = {
    "gate.NOT_OURS": Case(
        text=FROM
        + "> RCPT TO:<a@elsewhere.test>\n< 550 5.7.1 not relaying: that domain does not receive its mail here",
        rules=STORE,
    ),
    "gate.DENIED": Case(
        text=FROM + "> RCPT TO:<support@example.com>\n< 554 5.7.1 your address is on the deny list of this server",
        rules=STORE,
        settings={"block_list": BlockList(deny=("192.0.2.0/24",))},
    ),
    "gate._blocked": Case(
        text=FROM + "> RCPT TO:<support@example.com>\n< 554 5.7.1 your address is listed by bl.example (a bot)",
        rules=STORE,
        settings={"block_list": BlockList(dnsbl=(DnsblZone(zone="bl.example", codes={"127.0.0.2": "a bot"}),))},
        dns={"10.2.0.192.bl.example": {"A": ["127.0.0.2"]}},
    ),
    "greylist.come_again": Case(
        text=FROM
        + "> RCPT TO:<support@example.com>\n"
        + "< 451 4.7.1 Greylisted: we do not know you yet, please try again in 60 seconds",
        rules=STORE,
        settings={"greylist": Greylist(enabled=True)},
    ),
    "transaction.TAKEN": Case(text=FROM + "> RCPT TO:<a@example.com>\n< 250 2.1.5 Recipient ok", rules=STORE),
    "transaction.NO_SUCH_RECIPIENT": Case(
        text=FROM + "> RCPT TO:<a@example.com>\n< 550 5.1.1 No such recipient here",
        rules=STORE.replace("[example.com]", "[b@example.com]"),
    ),
    "transaction.NEEDS_TLS": Case(
        text=FROM + "> RCPT TO:<a@example.com>\n< 530 5.7.0 Must issue a STARTTLS command first",
        rules=STORE.replace("name:", "tls: require, name:"),
    ),
    "transaction.NEEDS_ITS_OWN_TRANSACTION": Case(
        text=READY
        + "> RCPT TO:<strict@example.com>\n< 452 4.5.3 This recipient may need another answer, send it separately",
        rules=STRICT,
    ),
    "rules.UNTAKEN": Case(
        text=DATA + "> .\n< 550 5.7.1 No rule here takes this message",
        rules=TELL.replace("name:", "when: {subject: other}, name:") % "drop: {}",
    ),
    "rules._deferral": Case(
        text=DATA
        + "> From: pat@sender.example\n> \n> .\n"
        + "< 451 4.7.0 The dmarc check could not be completed, please try again later",
        rules=NO_TIME,
        dns={"_dmarc.sender.example": "SERVFAIL"},
    ),
    "reply.accepted": Case(text=DATA + "> .\n< 250 2.0.0 OK …", rules=STORE),
    "deliver.NOT_DONE": Case(
        text=DATA + "> .\n< 451 4.3.0 Not everything could be done with this message yet, please try again later",
        rules=TELL % CALL,
        settings={"functions": {"answer": ("/bin/false",)}},
    ),
    "actions.sns.REFUSED": Case(text=LARGE, rules=TELL % TOPIC),
    "actions.sqs.REFUSED": Case(text=LARGE, rules=TELL % QUEUE),
    "actions.bounce._reply": Case(
        text=DATA + "> .\n< 550 5.7.1 Not today",
        rules=TELL.replace("name:", "unless: {subject: other}, name:") % BOUNCE,
    ),
    "actions.invoke._reply": Case(
        text=DATA + "> .\n< 552 5.2.2 Full",
        rules=TELL % CALL,
        settings={"functions": {"answer": ("/bin/sh", "-c", f"cat >/dev/null; echo '{SAYS_NO}'")}},
    ),
}

# Made, but sent to no client.
UNSENT = {
    "ruletest": "what `tests:` of rule files are told",
    **dict.fromkeys(
        (
            "actions.relay.LOOP",
            "actions.relay.NO_RETURN",
            "actions.relay.PARTLY",
            "actions.relay.UNTOLD",
            "actions.relay._HAD",
        ),
        "what a next hop brings about is in tests/test_relaying.py",
    ),
    **dict.fromkeys(
        (
            "clients.smtp.NO_EIGHT_BIT",
            "clients.smtp.NO_UTF8_ADDRESS",
            "clients.smtp.NO_UTF8_HEADER",
            "clients.smtp.Session._able",
            "clients.smtp.Session._reply",
            "gate.Gate._returned",
        ),
        "what a next hop brings about, and what comes back from it, is in tests/test_relaying.py and tests/clients",
    ),
    "clients.ses.NEEDS_SMTPUTF8": "a notification's, which its record tells",
    "deliver._remembered": "what an action has answered before the message was deferred",
    "rules.SEPARATE": "recipients that could get different answers share no transaction, so this is the rule set's last resort",
}


@dataclass
class Stage:
    """What a transcript is played on."""

    server: Served
    trusting: ssl.SSLContext
    preamble: bytes = b""

    async def play(self, case: Case) -> tuple[list[str], list[str]]:
        """The lines as they were to be, and as they were."""
        text = ("< 220 …\n" if case.greeted else "") + case.text
        expected = [line for line in text.split("\n") if line]
        async with AsyncExitStack() as stack:
            talks: dict[str, Talk] = {}
            actual = []
            for line in expected:
                number, (kind, rest) = line[0] if line[0].isdigit() else "", line.lstrip("0123456789").split(" ", 1)
                if number not in talks:
                    talks[number] = talk = await Talk.to(self.server)
                    stack.push_async_callback(talk.close)
                    talk.send(self.preamble)
                actual.append(await self._one(talks[number], kind, rest, line))
            return expected, actual

    async def _one(self, talk: Talk, kind: str, rest: str, line: str) -> str:
        match kind, rest:
            case "<", _:
                heard = await talk.line()
                wanted = rest.removesuffix("…")
                return line if wanted != rest and heard.startswith(wanted) else line.replace(rest, heard)
            case ">", _:
                talk.send(rest.encode() + b"\r\n")
            case "=", "LF":
                talk.send(b"NOOP one\nRCPT TO:<two@ours.test>\r\n")
            case "=", "tls":
                await talk.start_tls(self.trusting)
            case "=", "stop":
                await self.server.edge.stop(0.1)  # so the client is still there when the grace is over
            case "=", "held":
                await until(lambda: self.server.edge.bytes_in_flight > 20)
            case "=", "large":
                talk.send(b"\r\n" + (b"x" * 998 + b"\r\n") * 300)
            case _:
                raise AssertionError(line)
        return line


@asynccontextmanager
async def _stage(case: Case, tls: Tls, trusting: ssl.SSLContext, directory: Path) -> AsyncIterator[Stage]:
    if not case.rules:
        limits = Limits(**{"tarpit_seconds": 0.0, **case.limits})
        async with served(case.door, limits=limits, tls=tls if case.tls else None, **case.edge) as server:
            yield Stage(server, trusting)
        return
    async with receiver(directory, rules=case.rules, dns={**DNS, **case.dns}, **case.settings) as mx:
        host, _, port = mx.address.rpartition(":")
        yield Stage(Served(mx.edge, host, int(port)), trusting, b"PROXY TCP4 192.0.2.10 127.0.0.1 40000 25\r\n")


@pytest.mark.parametrize(("place", "case"), (EDGE | BEHIND).items(), ids=EDGE | BEHIND)
def test_the_reply_is_heard(place: str, case: Case, tls: Tls, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    async def story() -> None:
        async with _stage(case, tls, trusting, tmp_path) as stage:
            expected, actual = await stage.play(case)
        assert actual == expected

    run(story())
    module, name = place.rsplit(".", 1)
    if name.isupper():  # a constant: its transcript has it word for word
        constant = getattr(importlib.import_module(f"inbound.{module}"), name)
        assert f"< {constant}" in [line.lstrip("2") for line in case.text.split("\n")]


class _Places(ast.NodeVisitor):
    """Where a module makes replies: names of constants, and of functions and methods."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._within: list[str] = []

    def visit_Assign(self, node: ast.Assign) -> None:
        self._enter(ast.unparse(node.targets[0]) if not self._within else "", node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._enter(node.name, node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._enter(node.name, node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._enter(node.name, node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "Reply":
            self.found.add(".".join(self._within))
        self.generic_visit(node)

    def _enter(self, name: str, node: ast.AST) -> None:
        self._within += [name] if name else []
        self.generic_visit(node)
        del self._within[len(self._within) - bool(name) :]


def places() -> set[str]:
    """Every place of the source that makes a reply."""
    root = Path(inbound.__path__[0])
    found = set()
    for path in root.rglob("*.py"):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        visitor = _Places()
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        found |= {f"{module}.{place}" for place in visitor.found}
    return found


def test_every_place_that_makes_a_reply_has_its_transcript() -> None:
    sent = {place for place in places() if not {place, place.partition(".")[0]} & UNSENT.keys()}
    assert sorted(sent) == sorted(EDGE | BEHIND)
