"""Write: one domain's report over a period as gzip'd XML, in RFC 9990's schema and under its file name.

The same rows make the same octets under the same name and id, so a report that is sent again is seen to be the same.
"""

import asyncio
import gzip
import hashlib
import io
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from inbound import __version__
from inbound.reports import DAY, NAME, Row
from inbound.reports.rua import Destination, destinations
from inbound.reports.store import Store
from inbound.stages import Resolver
from inbound.stages.alignment import Published, tags_of
from inbound.stages.dmarc import Policy, parse

PATIENCE = 60.0  # seconds for the questions about one domain
NAMESPACE = "urn:ietf:params:xml:ns:dmarc-2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Who reports. `receiver` is the domain in file names and report ids."""

    receiver: str
    org_name: str
    email: str
    extra_contact_info: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Whole days, both included, as days since 1970."""

    since: int
    until: int

    @property
    def begin(self) -> int:
        """Its first second since 1970."""
        return self.since * DAY

    @property
    def end(self) -> int:
        """Its last second."""
        return (self.until + 1) * DAY - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """What became of one domain's report: the file, or "" and why not; and the addresses that may have it, or not."""

    domain: str
    file: str = ""
    messages: int = 0
    report_id: str = ""
    reason: str = ""
    to: tuple[Destination, ...] = ()


async def issued(
    store: Store, reporter: Reporter, period: Period, directory: Path, resolver: Resolver
) -> AsyncIterator[Issue]:
    """Write the report of each domain that asks for one. Raises OSError when the directory takes no file."""
    for domain, record in store.policies(period.since, period.until).items():
        try:
            async with asyncio.timeout(PATIENCE):
                to = await destinations(domain, record, resolver)
        except TimeoutError:
            yield Issue(domain=domain, reason="DNS takes too long")
            continue
        if all(one.refused for one in to):
            yield Issue(domain=domain, to=to, reason="no address may have it" if to else "it asks for no report")
            continue
        try:
            name = file_name(reporter, domain, period)
            rows = store.rows(domain, period.since, period.until)
            written = await report(reporter, domain, record, period, rows)
        except ValueError as error:
            yield Issue(domain=domain, to=to, reason=str(error))
            continue
        if written.messages:
            save(directory, name, written.content)
            file, messages, ident = str(directory / name), written.messages, written.report_id
            yield Issue(domain=domain, file=file, messages=messages, report_id=ident, to=to)


def file_name(reporter: Reporter, domain: str, period: Period) -> str:
    """RFC 9990 gives the form. Raises ValueError for a domain that cannot stand in a file's name."""
    if not NAME.fullmatch(domain) or not NAME.fullmatch(reporter.receiver):
        raise ValueError(f"{domain!r} and {reporter.receiver!r} must be domain names")
    return f"{reporter.receiver}!{domain}!{period.begin}!{period.end}.xml.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A compressed report, the number of messages in it, and its id."""

    content: bytes
    messages: int
    report_id: str


async def report(
    reporter: Reporter, domain: str, record: str, period: Period, rows: Iterable[tuple[Row, int]]
) -> Written:
    """Raises ValueError when the record is none that applies."""
    policy = await parse(Published(domain=domain, text=record, psd="u"))
    if policy is None:
        raise ValueError("the record cannot be used")
    digest, messages, records = hashlib.sha256(), 0, []
    for row, count in rows:
        records.append("".join(_record(row, count)))
        digest.update(records[-1].encode())
        messages += count
    ident = f"{domain}.{period.begin}.{digest.hexdigest()[:16]}@{reporter.receiver}"
    text = [
        '<?xml version="1.0" encoding="UTF-8"?>\n',
        f'<feedback xmlns="{NAMESPACE}">\n  <version>1.0</version>\n',
        *_metadata(reporter, period, ident),
        *_published(domain, policy, record),
        *records,
        "</feedback>\n",
    ]
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as file:
        for piece in text:
            file.write(piece.encode())
    return Written(content=packed.getvalue(), messages=messages, report_id=ident)


def save(directory: Path, name: str, content: bytes) -> None:
    """Write the file so that nobody ever sees half of it. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(directory / name)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _metadata(reporter: Reporter, period: Period, report_id: str) -> Iterator[str]:
    yield "  <report_metadata>\n"
    yield _element("org_name", reporter.org_name, 4)
    yield _element("email", reporter.email, 4)
    if reporter.extra_contact_info:
        yield _element("extra_contact_info", reporter.extra_contact_info, 4)
    yield _element("report_id", report_id, 4)
    yield "    <date_range>\n"
    yield _element("begin", str(period.begin), 6)
    yield _element("end", str(period.end), 6)
    yield "    </date_range>\n"
    yield _element("generator", f"inbound {__version__}", 4)
    yield "  </report_metadata>\n"


def _published(domain: str, policy: Policy, record: str) -> Iterator[str]:
    fo = dict(reversed(tags_of(record))).get("fo", "0").lower().replace(" ", "")
    yield "  <policy_published>\n"
    yield _element("domain", domain, 4)
    yield _element("discovery_method", "treewalk", 4)
    for name in ("p", "sp", "np"):
        yield _element(name, getattr(policy, name), 4)
    yield _element("fo", fo if fo and set(fo.split(":")) <= {"0", "1", "d", "s"} else "0", 4)
    yield _element("adkim", "s" if policy.strict_dkim else "r", 4)
    yield _element("aspf", "s" if policy.strict_spf else "r", 4)
    yield _element("testing", "y" if policy.testing else "n", 4)
    yield "  </policy_published>\n"


def _record(row: Row, count: int) -> Iterator[str]:
    yield "  <record>\n    <row>\n"
    yield _element("source_ip", row.source_ip, 6)
    yield _element("count", str(count), 6)
    yield "      <policy_evaluated>\n"
    yield _element("disposition", row.disposition, 8)
    yield _element("dkim", "pass" if row.dkim else "fail", 8)
    yield _element("spf", "pass" if row.spf else "fail", 8)
    if row.override:
        yield f"        <reason>\n{_element('type', row.override, 10)}        </reason>\n"
    yield "      </policy_evaluated>\n    </row>\n    <identifiers>\n"
    yield _element("header_from", row.header_from, 6)
    yield _element("envelope_from", row.envelope_from, 6)
    yield "    </identifiers>\n    <auth_results>\n"
    for signature in row.signatures:
        yield "      <dkim>\n"
        yield _element("domain", signature.domain, 8)
        yield _element("selector", signature.selector, 8)
        yield _element("result", signature.result, 8)
        yield "      </dkim>\n"
    if row.spf_domain:
        yield "      <spf>\n"
        yield _element("domain", row.spf_domain, 8)
        yield _element("scope", "mfrom", 8)
        yield _element("result", row.spf_result, 8)
        yield "      </spf>\n"
    yield "    </auth_results>\n  </record>\n"


def _element(name: str, text: str, indent: int) -> str:
    """Control characters can stand in no XML at all, not even escaped."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return f"{' ' * indent}<{name}>{escape(clean)}</{name}>\n"
