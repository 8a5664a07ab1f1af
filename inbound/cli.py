"""The command line: `inbound serve | check | rules | get | reports | doctor | demo`.

Exit codes: 0 it went well, 1 it found what it looks for (a refusal, a failing test, a mistake in a file), 2 it could not
be done as asked.
"""

import argparse
import asyncio
import contextlib
import contextvars
import json
import logging
import os
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import uvloop

from inbound import __version__, doctor, ruletest, settings
from inbound.actions.s3 import open_object
from inbound.app import STAGES, Judge, clamd_of, cloud_of, collected, rules_of, warnings_of, write_reports
from inbound.check import Request, RequestError, in_order, mail_of, octets_of, request_of
from inbound.demo import Demo, Outcome, differences, without_scanner
from inbound.errors import ConfigurationError, Failure, Problem
from inbound.journal import Journal, printable
from inbound.record import Record
from inbound.reports import DAY
from inbound.reports.read import ReportError, read
from inbound.reports.tables import day_of, issues, received, summaries
from inbound.reports.write import Period
from inbound.samples import Sample, sample_of
from inbound.serve import announce, serve, until_told
from inbound.settings import Settings
from inbound.testing import DnsServer
from inbound.verdicts import Status

log = logging.getLogger("inbound")

WELL, FOUND, UNABLE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("mail").setLevel(logging.WARNING)  # aiosmtpd tells every line of every session
    try:
        code: int = options.run(options)
    except ConfigurationError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return UNABLE
    except Failure as failure:
        print(f"inbound: {failure}", file=sys.stderr)
        return FOUND
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WELL
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inbound", description="Inbound mail: receive, judge, and do as the rules say."
    )
    parser.add_argument("--version", action="version", version=f"inbound {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    serve = _command(commands, "serve", _serve, "Receive mail until SIGTERM; SIGHUP takes changed rules into force.")
    serve.add_argument(
        "--with-samples", action="store_true", help="with DNS for the samples, and a first message through it"
    )
    _add_check(commands)
    _add_rules(_group(commands, "rules", "Look at the rule files."))
    get = _command(commands, "get", _get, "Fetch a stored object, and decrypt it when it is sealed.")
    get.add_argument("object", help="s3://BUCKET/KEY")
    get.add_argument("--output", "-o", type=Path, help="a file, which must not exist; standard output otherwise")
    _add_reports(_group(commands, "reports", "DMARC aggregate reports (RFC 9990)."))
    looking = _command(
        commands,
        "doctor",
        _doctor,
        "Say what is wrong with the MX, SPF and DMARC records of domains; without any, of ours.",
    )
    looking.add_argument("domains", nargs="*", metavar="DOMAIN")
    looking.add_argument("--resolver", metavar="IP:PORT", help="the DNS resolver to ask")
    looking.add_argument("--json", action="store_true", help="print one JSON document a line")
    _command(commands, "demo", _demo, "Send every sample through a receiver by SMTP and print what became of it.")
    return parser


def _group(commands: Any, name: str, text: str) -> Any:
    """Commands under a common word."""
    return commands.add_parser(name, help=text, description=text).add_subparsers(metavar="COMMAND", required=True)


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument(
        "--config", type=Path, help="the settings file (or INBOUND_CONFIG); without it, the embedded defaults"
    )
    command.set_defaults(run=run)
    return command


def _add_check(commands: Any) -> None:
    check = _command(
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


def _add_rules(commands: Any) -> None:
    for name, run, text in (
        ("check", _rules_check, "Say everything that is wrong with the rule files, and what looks wrong."),
        ("test", _rules_test, "Run the tests that stand in the rule files."),
    ):
        _command(commands, name, run, text).add_argument(
            "dir", nargs="?", type=Path, help="the rule files; as the settings say"
        )


def _add_reports(commands: Any) -> None:
    show = _command(commands, "show", _reports_show, "Say what is collected, for each day and domain.")
    write = _command(
        commands,
        "write",
        _reports_write,
        "Write a report for each domain that asks for one; without days, yesterday's.",
    )
    write.add_argument("dir", type=Path, help="where the files go")
    for sub in (show, write):
        sub.add_argument("--since", type=_day, metavar="DAY", help="the first day (UTC), as 2026-11-24")
        sub.add_argument("--until", type=_day, metavar="DAY", help="the last day, itself included")
    write.add_argument("--resolver", metavar="IP:PORT", help="the DNS resolver to ask who may have a report")
    reading = _command(commands, "read", _reports_read, "Show reports that were received.")
    reading.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help=".xml, .xml.gz, .zip or a message with one"
    )
    for sub in (show, write, reading):
        sub.add_argument("--json", action="store_true", help="print one JSON document a line")


def _settings(options: argparse.Namespace, **more: Any) -> Settings:
    loaded = settings.load(options.config, os.environ)
    return replace(loaded, **{key: value for key, value in more.items() if value is not None})


def _serve(options: argparse.Namespace) -> int:
    loaded = _settings(options)
    if not options.with_samples:
        return serve(loaded)
    logging.getLogger("inbound.receive").setLevel(logging.WARNING)  # who comes and goes is not what is shown
    uvloop.run(_serve_with_samples(loaded, Journal("text" if loaded.log == "auto" else loaded.log)))
    return WELL


async def _serve_with_samples(loaded: Settings, journal: Journal) -> None:
    async with Demo(loaded, note=journal) as demo:
        await announce(demo.app, demo.addresses)
        first = next(message for message in demo.samples if message.stem == "good")
        print(f"\nA first message, {first}: what was found, which rules were met, what was done\n", flush=True)
        outcome = await demo.send(first)
        print(_WHAT_NEXT.format(**_next_steps(demo, first, outcome)), flush=True)
        await until_told(demo.app)


_WHAT_NEXT = """
Send one yourself, from another terminal; what becomes of it appears here:
    swaks --server {address} --helo laptop.example --from you@laptop.example --to support@example.com
or without swaks:
    curl --crlf smtp://{address}/laptop.example --mail-from you@laptop.example --mail-rcpt support@example.com -T {by_hand}
A forgery comes out otherwise: say --from pat@sender.example, whose domain does not allow this machine.
All samples, each with its story in a YAML file beside it, through a receiver of their own:
    {program} demo
What would become of a message, without sending it:
    {program} check {first}
What was stored is in {data}/s3. The first message was sealed there; this opens it:
    {program} get s3://{stored}
The names of the samples and all reserved ones are answered here, others by this machine's resolver. Ctrl-C stops it.
"""


def _next_steps(demo: Demo, first: Path, outcome: Outcome) -> dict[str, object]:
    ran = outcome.record.ran if outcome.record else ()
    program = Path(sys.argv[0])
    return {
        "address": demo.addresses[0],
        "by_hand": first.with_stem("by-hand"),
        "program": program if program.name == "inbound" else "inbound",
        "first": first,
        "data": demo.app.settings.data_dir,
        "stored": next((one.detail["object"] for one in ran if "object" in one.detail), "BUCKET/KEY"),
    }


def _check(options: argparse.Namespace) -> int:
    sample = None if options.batch or options.file == "-" else sample_of(Path(options.file))
    loaded = _settings(options, resolver=options.resolver, rules=options.rules)
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
            judging = _Judging(Judge(used, now=lambda: clock.get() or time.time(), only=only), clock, as_is=options.raw)
            if options.batch:
                return await _check_batch(judging, jobs=max(options.jobs, 1))
            return await _check_one(judging, _request(options, sample), as_json=options.json)

    return uvloop.run(run())


class _Judging:
    """Requests in, documents out."""

    def __init__(self, judge: Judge, clock: contextvars.ContextVar[float | None], *, as_is: bool) -> None:
        self._judge = judge
        self._clock = clock
        self._as_is = as_is

    async def record(self, request: Request) -> Record:
        """Judge one message. Raises RequestError."""
        self._clock.set(request.now)
        raw = await asyncio.to_thread(octets_of, request, as_is=self._as_is, stdin=sys.stdin.buffer.read)
        domains, secret = self._judge.settings.domains, self._judge.sight.secret
        mail = mail_of(request, raw, secret=secret, domains=domains, now=time.time())
        return await self._judge.judge(mail)

    async def document(self, line: str) -> dict[str, Any]:
        """Judge what one line asks for; whatever is wrong with it is a document too."""
        path = None
        try:
            request = request_of(line)
            path = request.path
            return (await self.record(request)).judgement(path)
        except RequestError as error:
            return {"path": path, "error": str(error)}
        except Exception as error:  # a batch goes on, whatever one line brings
            log.exception("a message could not be judged")
            return {"path": path, "error": f"could not be judged ({type(error).__name__})"}


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
            print(json.dumps({"path": request.path, "error": str(error)}, ensure_ascii=False))
        else:
            print(f"inbound: {error}", file=sys.stderr)
        return UNABLE
    if as_json:
        print(json.dumps(record.judgement(request.path), ensure_ascii=False, indent=2))
    else:
        print(printable("\n".join(record.lines())))
    return WELL


async def _check_batch(judging: _Judging, *, jobs: int) -> int:
    async def lines() -> AsyncIterator[str]:
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line.strip():
                yield line

    async for document in in_order(lines(), judging.document, jobs=jobs):
        print(json.dumps(document, ensure_ascii=False, separators=(",", ":")), flush=True)
    return WELL


def _rules_check(options: argparse.Namespace) -> int:
    loaded = _settings(options, rules=options.dir)
    rules = rules_of(loaded)
    warnings = warnings_of(loaded, rules)
    for warning in warnings:
        print(warning)
    print(f"{len(rules.rules)} rules, {len(rules.tests)} tests, {len(warnings)} warnings")
    return WELL


def _rules_test(options: argparse.Namespace) -> int:
    loaded = _settings(options, rules=options.dir)
    results = ruletest.run(rules_of(loaded), loaded.domains)
    for result in results:
        print(f"{'ok    ' if result.passed else 'FAILED'} {result.name}")
        if result.problem:
            print(f"    {result.problem}")
    failed = sum(not result.passed for result in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return FOUND if failed else WELL


def _get(options: argparse.Namespace) -> int:
    loaded = _settings(options)
    bucket, slash, key = options.object.removeprefix("s3://").partition("/")
    if not options.object.startswith("s3://") or not bucket or not slash or not key:
        print(f"inbound: {options.object!r} is not of the form s3://BUCKET/KEY", file=sys.stderr)
        return UNABLE

    async def run() -> bytes:
        async with cloud_of(loaded) as place:
            return await open_object(place, bucket, key)

    content = asyncio.run(run())
    if options.output:
        with options.output.open("xb") as file:
            file.write(content)
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    return WELL


def _day(text: str) -> int:
    try:
        return day_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no day such as 2026-11-24") from error


def _shown(documents: Iterable[Any], lines: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        for document in documents:
            print(json.dumps(asdict(document), ensure_ascii=False, separators=(",", ":")))
    else:
        print(printable("\n".join(lines)))


def _reports_show(options: argparse.Namespace) -> int:
    with contextlib.closing(collected(_settings(options))) as store:
        found = list(store.summaries(options.since or 0, options.until or day_of("9999-12-31")))
    _shown(found, summaries(found), as_json=options.json)
    return WELL


def _reports_write(options: argparse.Namespace) -> int:
    yesterday = int(time.time() // DAY) - 1
    since = options.until if options.since is None else options.since
    period = Period(
        since=yesterday if since is None else since,
        until=max(yesterday, since or 0) if options.until is None else options.until,
    )
    written = uvloop.run(write_reports(_settings(options, resolver=options.resolver), options.dir, period))
    _shown(written, issues(written), as_json=options.json)
    return WELL


def _reports_read(options: argparse.Namespace) -> int:
    code = WELL
    for path in options.files:
        try:
            report = read(path)
        except ReportError as error:
            print(f"inbound: {path}: {error}", file=sys.stderr)
            code = UNABLE
        else:
            _shown((report,), received(report), as_json=options.json)
    return code


def _doctor(options: argparse.Namespace) -> int:
    loaded = _settings(options, resolver=options.resolver)
    code = WELL
    for domain in options.domains or [one for one in loaded.domains if not one.startswith(".")]:
        try:
            findings = doctor.look_at(domain, loaded.resolver)
        except ValueError as error:
            print(f"inbound: {error}", file=sys.stderr)
            return UNABLE
        code = FOUND if any(one.error for one in findings) else code
        if options.json:
            document: dict[str, Any] = {"domain": domain, **{str(one.check): asdict(one) for one in findings}}
            print(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
        else:
            print(printable("\n".join(doctor.lines(domain, findings))))
    return code


def _demo(options: argparse.Namespace) -> int:
    loaded = _settings(options)
    # Of the settings nothing else: the samples are about the shipped rules, and must touch nobody's store.
    return uvloop.run(_send_all(Settings(listen=("127.0.0.1:0",), clamd=clamd_of(loaded), resolver=loaded.resolver)))


async def _send_all(loaded: Settings) -> int:
    """Every sample through one receiver. A sample that comes out otherwise than it says is shown, and counts."""
    logging.getLogger().setLevel(logging.ERROR)
    amiss, unscanned = 0, []
    with tempfile.TemporaryDirectory(prefix="inbound-demo-") as directory:
        async with Demo(replace(loaded, data_dir=Path(directory))) as demo:
            print(_ROW.format("SAMPLE", "SPF", "DKIM", "DMARC", "SPAM", "VIRUS", "RULES MET", "REPLY"))
            for message, sample in demo.samples.items():
                outcome = await demo.send(message)
                print(printable(_row(message.stem, outcome)), flush=True)
                expected = sample if loaded.clamd else without_scanner(sample)
                if expected is None:
                    unscanned.append(message.stem)
                    continue
                otherwise = differences(expected, outcome)
                amiss += bool(otherwise)
                for difference in otherwise:
                    print(f"    expected otherwise: {difference}")
            where = next(iter(demo.samples)).parent
    print(f"\n{len(demo.samples) - amiss - len(unscanned)} came out as their stories say, {amiss} otherwise.")
    print(f"The stories are in {where}/NAME.yaml; why one came out so: inbound check {where}/NAME.eml")
    if not loaded.clamd:
        opaque = [at.stem for at, one in demo.samples.items() if one.expect.verdicts.get("virus") == Status.GRAY]
        print(_NO_SCANNER.format(", ".join(unscanned), ", ".join(opaque)))
    return FOUND if amiss else WELL


_NO_SCANNER = """
VIRUS is off: no clamd is set, and none listens at its usual place. So {} was taken, and nobody looked into {}.
On Debian `apt-get install clamav-daemon` brings it; elsewhere name it in INBOUND_CLAMD, as unix:/PATH or tcp:HOST:PORT."""

_ROW = "{:<21} {:<5} {:<5} {:<5} {:<5} {:<5} {:<20} {}"
_REPLY = 47  # characters of a reply, so that a row fits into 120 columns
_SHORT = {"PROCESSING_FAILED": "ERROR", "DISABLED": "off"}


def _row(name: str, outcome: Outcome) -> str:
    record = outcome.record
    if record is None:
        return _ROW.format(name, *("-" * 5), "at RCPT", _cut(outcome.told))
    verdicts = record.verdicts
    words = (verdicts.spf, verdicts.dkim, verdicts.dmarc, verdicts.spam, verdicts.virus)
    met = dict.fromkeys(trace.name for walk in record.walks for trace in walk.traces if trace.met)
    told = outcome.told.removesuffix(f" {record.message_id}")
    told += "".join(f"; {who} {reply}" for who, reply in outcome.refused.items())
    return _ROW.format(
        name, *(_SHORT.get(word.status, word.status) for word in words), ", ".join(met) or "-", _cut(told)
    )


def _cut(text: str) -> str:
    return textwrap.shorten(text, _REPLY, placeholder=" ...")
