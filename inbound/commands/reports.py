"""`inbound reports show | write | send | read`."""

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from inbound.app import collected, send_reports, write_reports
from inbound.commands import FOUND, UNABLE, WELL, command, group, settings_of, shown
from inbound.reports import DAY
from inbound.reports.read import ReportError, read
from inbound.reports.send import RECENT
from inbound.reports.tables import day_of, issues, mailed, received, summaries
from inbound.reports.write import Period


def add(commands: Any) -> None:
    """Tell the parser."""
    under = group(commands, "reports", "DMARC aggregate reports (RFC 9990).")
    show = command(under, "show", _show, "Say what is collected, for each day and domain.")
    write = command(
        under,
        "write",
        _write,
        "Write a report for each domain that asks for one; without days, yesterday's.",
    )
    write.add_argument("dir", type=Path, help="where the files go")
    send = command(
        under,
        "send",
        _send,
        "Mail the reports of each day to who asks for them, through the next hop; without days, the last three "
        "that are over. Nobody is sent one twice.",
    )
    send.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    for sub in (show, write, send):
        sub.add_argument("--since", type=_day, metavar="DAY", help="the first day (UTC), as 2026-11-24")
        sub.add_argument("--until", type=_day, metavar="DAY", help="the last day, itself included")
    for sub in (write, send):
        sub.add_argument("--resolver", metavar="IP:PORT", help="the DNS resolver to ask who may have a report")
    reading = command(under, "read", _read, "Show reports that were received.")
    reading.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help=".xml, .xml.gz, .zip or a message with one"
    )
    for sub in (show, write, send, reading):
        sub.add_argument("--json", action="store_true", help="print one JSON document a line")


def _day(text: str) -> int:
    try:
        return day_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no day such as 2026-11-24") from error


def _show(options: argparse.Namespace) -> int:
    with contextlib.closing(collected(settings_of(options))) as store:
        found = list(store.summaries(options.since or 0, options.until or day_of("9999-12-31")))
    shown(found, summaries(found), as_json=options.json)
    return WELL


def _write(options: argparse.Namespace) -> int:
    yesterday = int(time.time() // DAY) - 1
    since = options.until if options.since is None else options.since
    period = Period(
        since=yesterday if since is None else since,
        until=max(yesterday, since or 0) if options.until is None else options.until,
    )
    written = uvloop.run(write_reports(settings_of(options, resolver=options.resolver), options.dir, period))
    shown(written, issues(written), as_json=options.json)
    return WELL


def _send(options: argparse.Namespace) -> int:
    today = int(time.time() // DAY)
    since = today - RECENT if options.since is None else options.since
    until = min(today - 1 if options.until is None else options.until, today - 1)
    sending = send_reports(
        settings_of(options, resolver=options.resolver), range(since, until + 1), dry=options.dry_run
    )
    found = uvloop.run(sending)
    shown(found, mailed(found), as_json=options.json)
    return FOUND if any(one.outcome == "failed" for one in found) else WELL


def _read(options: argparse.Namespace) -> int:
    code = WELL
    for path in options.files:
        try:
            report = read(path)
        except ReportError as error:
            print(f"inbound: {path}: {error}", file=sys.stderr)
            code = UNABLE
        else:
            shown((report,), received(report), as_json=options.json)
    return code
