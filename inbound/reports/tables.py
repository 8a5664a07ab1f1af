"""What the command line shows of reports, as lines of text."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

from inbound.reports.read import Report, ReportedRow
from inbound.reports.send import Mailing
from inbound.reports.store import Summary
from inbound.reports.write import Issue

_FIRST = date(1970, 1, 1)


def day_of(text: str) -> int:
    """`2026-11-24` as days since 1970. Raises ValueError."""
    return (date.fromisoformat(text) - _FIRST).days


def day_text(day: int) -> str:
    """The other way round."""
    return (_FIRST + timedelta(days=day)).isoformat()


def summaries(found: Iterable[Summary]) -> Iterator[str]:
    """What is collected, one line for each day and domain."""
    rows = [
        (
            day_text(one.day),
            one.domain,
            *map(
                str, (one.messages, one.passed, one.messages - one.passed, one.quarantined, one.rejected, one.sources)
            ),
        )
        for one in found
    ]
    yield from _table(("DAY", "DOMAIN", "MESSAGES", "PASSED", "FAILED", "PUT APART", "REFUSED", "CLIENTS"), rows)


def issues(found: Iterable[Issue]) -> Iterator[str]:
    """What was written, and who may have it; and what was not."""
    for one in found:
        yield f"{one.domain}: {f'{one.messages} messages in {one.file}' if one.file else f'not written, {one.reason}'}"
        for destination in one.to:
            yield f"    {'not to' if destination.refused else 'to'} {destination.address}" + (
                f": {destination.refused}" if destination.refused else ""
            )


def mailed(found: Iterable[Mailing]) -> Iterator[str]:
    """What was sent to whom, one line for each address."""
    for one in found:
        told = f" to {one.address}" if one.address else ""
        why = f": {one.reason}" if one.reason else ""
        count = f", {one.messages} messages" if one.outcome in ("sent", "to be sent") else ""
        yield f"{day_text(one.day)} {one.domain}: {one.outcome}{told}{why}{count}"


def received(report: Report) -> Iterator[str]:
    """A report that was received: whose it is, and one line for each of its rows, most messages first."""
    policy = " ".join(f"{name}={value}" for name, value in report.policy.items() if value)
    messages = sum(row.count for row in report.rows)
    passed = sum(row.count for row in report.rows if "pass" in (row.dkim, row.spf))
    yield f"{report.domain}: {_time(report.begin)} to {_time(report.end)}, by {report.org_name} <{report.email}>"
    yield f"report {report.report_id}; {policy}"
    yield from (f"error: {error}" for error in report.errors)
    yield f"{messages} messages, {passed} passed, {messages - passed} failed"
    rows = [
        (
            row.source_ip,
            str(row.count),
            row.disposition,
            row.dkim,
            row.spf,
            row.header_from,
            row.envelope_from or "-",
            _raw(row),
        )
        for row in sorted(report.rows, key=lambda row: -row.count)
    ]
    yield from _table(("CLIENT", "COUNT", "DONE", "DKIM", "SPF", "FROM", "MAIL FROM", "RESULTS"), rows)


def _raw(row: ReportedRow) -> str:
    results = [
        f"{one.mechanism}={one.result} {one.domain}{f'/{one.selector}' if one.selector else ''}"
        for one in row.auth_results
    ]
    return ", ".join([*results, *(f"({reason})" for reason in row.reasons)])


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [min(max(map(len, column)), 60) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        yield "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
