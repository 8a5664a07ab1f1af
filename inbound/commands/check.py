"""`inbound check`: one message, or a batch of them."""

import argparse
import asyncio
import contextlib
import contextvars
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import uvloop

from inbound.app import STAGES, Judge, counted
from inbound.check import (
    LONGEST_LINE,
    ROOM,
    Request,
    RequestError,
    Room,
    in_order,
    mail_of,
    octets_of,
    request_of,
    size_of,
)
from inbound.commands import UNABLE, WELL, command, put, settings_of
from inbound.errors import ConfigurationError, Problem
from inbound.journal import printable
from inbound.receive.memory import keep_large_blocks_apart
from inbound.record import Record
from inbound.samples import Sample, sample_of
from inbound.testing import DnsServer

log = logging.getLogger("inbound")


def add(commands: Any) -> None:
    """Tell the parser."""
    check = command(
        commands,
        "check",
        _check,
        "Judge a message without doing anything: what would be found, met, done and answered.",
    )
    check.add_argument("file", nargs="?", default="-", help="the message, or - for standard input")
    check.add_argument("--client-ip")
    check.add_argument("--helo")
    check.add_argument("--mail-from", help='the reverse-path; "" is the null one')
    check.add_argument("--rcpt", action="append", help="a recipient; may be given several times")
    check.add_argument("--tls", action="store_true", help="as if it had come by STARTTLS")
    check.add_argument("--now", type=float, metavar="EPOCH", help="the time of receipt")
    check.add_argument("--resolver", metavar="IP:PORT", help="the DNS resolver to ask")
    check.add_argument("--rules", type=Path, metavar="DIR", help="the rule files")
    check.add_argument("--stages", metavar="A,B", help=f"only these checks, of {','.join(STAGES)}")
    check.add_argument("--raw", action="store_true", help="take the file as it is; otherwise LF becomes CRLF first")
    check.add_argument("--json", action="store_true", help="print one JSON document")
    check.add_argument(
        "--batch", action="store_true", help="read requests from standard input, one JSON document a line"
    )
    check.add_argument("--jobs", type=int, default=8, metavar="N", help="of a batch, how many at a time (8)")


def _check(options: argparse.Namespace) -> int:
    sample = None if options.batch or options.file == "-" else sample_of(Path(options.file))
    loaded = settings_of(options, resolver=options.resolver, rules=options.rules)
    clock: contextvars.ContextVar[float | None] = contextvars.ContextVar("clock", default=None)
    only = options.stages.split(",") if options.stages else STAGES
    if unknown := sorted(set(only) - set(STAGES)):
        text = f"unknown stage {unknown[0]!r}; there are {', '.join(STAGES)}"
        raise ConfigurationError([Problem(file="--stages", line=0, column=0, message=text)])

    async def run() -> int:
        async with contextlib.AsyncExitStack() as around:
            used = loaded
            if sample is not None and options.resolver is None:
                dns = await DnsServer(sample.dns).start()
                around.push_async_callback(dns.stop)
                used = replace(loaded, resolver=dns.address)
            judge = Judge(used, now=lambda: clock.get() or time.time(), only=only)
            stdin = _taken if options.batch else sys.stdin.buffer.read
            judging = _Judging(judge, clock, as_is=options.raw, stdin=stdin)
            if options.batch:
                return await _check_batch(judging, jobs=max(options.jobs, 1))
            return await _check_one(judging, _request(options, sample), as_json=options.json)

    return uvloop.run(run())


def _taken() -> bytes:
    raise RequestError("standard input is where the requests come from, it can be no message")


class _Judging:
    """Requests in, documents out."""

    def __init__(
        self, judge: Judge, clock: contextvars.ContextVar[float | None], *, as_is: bool, stdin: Callable[[], bytes]
    ) -> None:
        self._judge = judge
        self._clock = clock
        self._as_is = as_is
        self._stdin = stdin
        self.room = Room(ROOM)

    async def record(self, request: Request) -> Record:
        """Judge one message. Raises RequestError."""
        self._clock.set(request.now)
        raw = await asyncio.to_thread(octets_of, request, as_is=self._as_is, stdin=self._stdin)
        mail = mail_of(request, raw, domains=self._judge.settings.domains, now=time.time())
        del request  # it may hold the message once more, in base64
        return await self._judge.judge(mail)

    @property
    def counters(self) -> str:
        """What the resolver did so far."""
        return counted(asdict(self._judge.resolver.counters))

    async def document(self, line: bytes) -> dict[str, Any]:
        """Judge what one line asks for, which has its room already; whatever is wrong with it is a document too."""
        path, held = None, len(line)
        try:
            request = request_of(line)
            del line  # of a large message it is half of all that is held
            path = request.path
            if request.raw is None:  # it is the file that needs room
                await self.room.leave(held)
                held = 0
                held = await self.room.take(size_of(request))
            judging = self.record(request)
            del request
            return (await judging).judgement(path)
        except RequestError as error:
            return {"path": path or error.path, "error": str(error)}
        except Exception as error:  # a batch goes on, whatever one line brings
            log.exception("a message could not be judged")
            return {"path": path, "error": f"could not be judged ({type(error).__name__})"}
        finally:
            await self.room.leave(held)


def _request(options: argparse.Namespace, sample: Sample | None) -> Request:
    """What the options say, and where they are silent what the sample says that lies beside the message."""
    said = {
        "client_ip": options.client_ip,
        "helo": options.helo,
        "mail_from": options.mail_from,
        "rcpt_to": tuple(options.rcpt) if options.rcpt else None,
        "tls": options.tls or None,
        "now": options.now,
    }
    if sample is not None:
        told = {
            "client_ip": sample.client.ip,
            "helo": sample.client.helo,
            "mail_from": sample.envelope.mail_from,
            "rcpt_to": sample.envelope.rcpt_to,
            "tls": sample.client.tls,
            "now": sample.now,
        }
        said = {name: told[name] if value is None else value for name, value in said.items()}
    return Request(path=options.file, **{name: value for name, value in said.items() if value is not None})


async def _check_one(judging: _Judging, request: Request, *, as_json: bool) -> int:
    try:
        record = await judging.record(request)
    except RequestError as error:
        if as_json:
            put({"path": request.path, "error": str(error)}, indent=2)
        else:
            print(f"inbound: {error}", file=sys.stderr)
        return UNABLE
    if as_json:
        put(record.judgement(request.path), indent=2)
    else:
        print(printable("\n".join(record.lines())))
    return WELL


async def _check_batch(judging: _Judging, *, jobs: int) -> int:
    keep_large_blocks_apart()

    async def lines() -> AsyncIterator[bytes]:
        while line := await asyncio.to_thread(sys.stdin.buffer.readline, LONGEST_LINE):
            if line.strip():
                await judging.room.take(len(line))
                yield line
            del line  # it may be a large message's
            await judging.room.vacancy()

    started, judged, unjudged = time.monotonic(), 0, 0
    async for document in in_order(lines(), judging.document, jobs=jobs):
        put(document)
        judged += document["error"] is None
        unjudged += document["error"] is not None
    seconds = max(time.monotonic() - started, 0.001)
    rate = f"{seconds:.1f} s, {(judged + unjudged) * 60 / seconds:,.0f} a minute"
    print(f"inbound: {judged} judged, {unjudged} not: {rate}; dns: {judging.counters}", file=sys.stderr)
    return WELL
