"""Send: the report of each domain and day, mailed to every address that asked for it and may have it, and never twice.

1. One message for each address, in the form of RFC 9990: the gzip'd XML under its file name, the subject with domain, submitter
   and report id, and a line for a person. It comes from the address in the report, so that SPF can pass in alignment.
2. What an address was sent is written down as soon as the next hop has taken it. What failed is tried again by the next run.
3. When nothing is known of what the next hop did, or it is not there, the run ends: all others would fare alike.
4. A size behind `!` in the record's URI is RFC 7489's. RFC 9990 has it no more; who still writes it does not get more than that.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Literal

from inbound.bounces import Postman
from inbound.clients.relay import DeferredError, RefusedError
from inbound.errors import Failure
from inbound.reports.rua import Destination
from inbound.reports.store import Store
from inbound.reports.write import Issue, Period, Reporter, issued
from inbound.stages import Resolver

RECENT = 3  # days before today that a run looks after: what failed on one day is tried again on the next
LOCK = "reports.lock"  # in data_dir

Outcome = Literal["sent", "to be sent", "sent before", "failed", "not sent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailing:
    """What became of one address's report of a day (days since 1970), and why. Without an address nobody is to have one."""

    day: int
    domain: str
    outcome: Outcome
    address: str = ""
    reason: str = ""
    messages: int = 0
    report_id: str = ""


async def mailings(
    store: Store, reporter: Reporter, days: Sequence[int], resolver: Resolver, postman: Postman | None
) -> AsyncIterator[Mailing]:
    """Send the reports of these days. Without a postman nothing is sent, and nothing written down."""
    for day in days:
        with tempfile.TemporaryDirectory(prefix="inbound-reports-") as directory:
            period = Period(since=day, until=day)
            async for issue in issued(store, reporter, period, Path(directory), resolver):
                if not issue.file:
                    yield Mailing(day=day, domain=issue.domain, outcome="not sent", reason=issue.reason)
                    continue
                sending = _Sending(store=store, reporter=reporter, day=day, issue=issue, postman=postman)
                for to in issue.to:
                    yield await sending.to(to)
                    if sending.stopped:
                        return


@dataclass(slots=True, kw_only=True)
class _Sending:
    """One domain's report of a day on its way to several addresses."""

    store: Store
    reporter: Reporter
    day: int
    issue: Issue
    postman: Postman | None
    stopped: bool = False

    async def to(self, destination: Destination) -> Mailing:
        if destination.refused:
            return self._mailing(destination, "not sent", destination.refused)
        if destination.address in self.store.sent(self.day, self.issue.domain):
            return self._mailing(destination, "sent before")
        raw = message(self.reporter, self.issue, Period(since=self.day, until=self.day), destination.address)
        if destination.most and len(raw) > destination.most:
            why = f"the message has {len(raw)} octets, the address takes {destination.most}"
            return self._mailing(destination, "not sent", why)
        if self.postman is None:
            return self._mailing(destination, "to be sent")
        try:
            await self.postman.send(raw, mail_from=self.reporter.email, rcpt_to=(destination.address,))
        except Failure as failure:
            self.stopped = not isinstance(failure, RefusedError | DeferredError)
            return self._mailing(destination, "failed", str(failure))
        self.store.was_sent(self.day, self.issue.domain, destination.address)
        return self._mailing(destination, "sent")

    def _mailing(self, destination: Destination, outcome: Outcome, reason: str = "") -> Mailing:
        return Mailing(
            day=self.day,
            domain=self.issue.domain,
            address=destination.address,
            outcome=outcome,
            reason=reason,
            messages=self.issue.messages,
            report_id=self.issue.report_id,
        )


def message(reporter: Reporter, issue: Issue, period: Period, to: str) -> bytes:
    """The report in a message for one address. The same report has the same Message-ID there."""
    file = Path(issue.file)
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (period.begin, period.end))
    mail = EmailMessage(policy=SMTP)
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["From"] = Address(display_name=_line(reporter.org_name), addr_spec=reporter.email)
    mail["To"] = Address(addr_spec=to)
    mail["Subject"] = f"Report Domain: {issue.domain} Submitter: {reporter.receiver} Report-ID: <{issue.report_id}>"
    digest = hashlib.sha256(f"{issue.report_id}\0{to}".encode()).hexdigest()[:32]
    mail["Message-ID"] = f"<dmarc.{digest}@{reporter.receiver}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834 5
    mail.set_content(
        f"This is a DMARC aggregate report (RFC 9990) about mail from {issue.domain}\n"
        f"that was received by {reporter.receiver} between {begin:%Y-%m-%d %H:%M:%S} and {end:%Y-%m-%d %H:%M:%S} UTC:\n"
        f"{issue.messages} messages. It is meant for a program; the file is gzip'd XML.\n"
    )
    mail.add_attachment(file.read_bytes(), maintype="application", subtype="gzip", filename=file.name)
    mail.set_boundary(f"report-{digest}")
    return mail.as_bytes()


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """One run at a time. Raises BlockingIOError when there is another."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, "another run is sending reports") from error
        yield
    finally:
        os.close(handle)
