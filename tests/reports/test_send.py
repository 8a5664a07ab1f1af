"""Reports are mailed in RFC 9990's form, to who may have them, and once."""

import asyncio
import email.policy
import functools
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

from inbound.app import send_reports
from inbound.errors import ConfigurationError
from inbound.reports import DAY
from inbound.reports.read import report_of
from inbound.reports.send import LOCK, Mailing, alone
from inbound.reports.store import Store
from inbound.reports.tables import mailed
from inbound.settings import Relay, Reports, Settings
from inbound.testing import DnsServer
from tests.harness import receiver
from tests.next_hop import Says, Scripted, next_hop
from tests.reports.test_write import row
from tests.servers import free_port
from tests.test_cli import inbound

TODAY = int(time.time() // DAY)
YESTERDAY = (TODAY - 1,)
ZONE = {
    "_dmarc.a.example": {"TXT": ["v=DMARC1; p=none"]},
    "_dmarc.b.example": {"TXT": ["v=DMARC1; p=none"]},
    "a.example._report._dmarc.watcher.test": {"TXT": ["v=DMARC1"]},
}
TO_TWO = "v=DMARC1; p=none; rua=mailto:r@a.example,mailto:s@a.example"


def collect(directory: Path, **records: str) -> Settings:
    """Days of mail from each domain, today's included; settings to report them by."""
    store = Store(directory / "data" / "reports.sqlite")
    for name, record in records.items():
        domain = f"{name}.example"
        for day in (TODAY - 2, TODAY - 1, TODAY):
            store.add({row(day=day, domain=domain, header_from=domain): 3}, {(day, domain): record})
    store.close()
    return Settings(
        data_dir=directory / "data",
        hostname="mx.example.com",
        reports=Reports(org_name="Exämple, Ltd.", email="dmarc@example.com"),
    )


def run(
    settings: Settings, says: Mapping[str, Says] | None = None, days: tuple[int, ...] = YESTERDAY, *, dry: bool = False
) -> tuple[list[Mailing], Scripted]:
    """What one run does with a next hop that says so."""

    async def story() -> tuple[list[Mailing], Scripted]:
        dns = await DnsServer(ZONE).start()
        try:
            async with next_hop(says) as hop:
                relay = Relay(host="127.0.0.1", port=hop.port, command_seconds=2.0)
                used = replace(settings, relay=relay, resolver=dns.address)
                return await send_reports(used, days, dry=dry), hop
        finally:
            await dns.stop()

    return asyncio.run(story())


def told(found: list[Mailing]) -> list[str]:
    return [f"{one.outcome} {one.address}" for one in found]


def asked(hop: Scripted) -> list[str]:
    return [line[9:-1] for line in hop.commands if line.startswith("RCPT")]


def parsed(wire: bytes) -> EmailMessage:
    """A message as it came over the wire."""
    octets = wire.removesuffix(b".\r\n").replace(b"\r\n.", b"\r\n")
    return BytesParser(policy=email.policy.default).parsebytes(octets)


def test_a_report_goes_out_in_the_form_of_the_rfc(tmp_path: Path) -> None:
    (mailing,), hop = run(collect(tmp_path, a="v=DMARC1; p=none; rua=mailto:r@a.example"))
    mail = parsed(hop.messages[0])
    name = f"mx.example.com!a.example!{(TODAY - 1) * DAY}!{TODAY * DAY - 1}.xml.gz"
    assert (mailing.outcome, mailing.messages) == ("sent", 3)
    assert hop.commands[1].split()[:2] == ["MAIL", "FROM:<dmarc@example.com>"]
    assert mail["From"] == '"Exämple, Ltd." <dmarc@example.com>'
    assert mail["To"] == "r@a.example"
    assert mail["Subject"] == f"Report Domain: a.example Submitter: mx.example.com Report-ID: <{mailing.report_id}>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@mx.example.com>")
    assert hop.messages[0].isascii()
    text, attached = mail.iter_parts()
    assert (attached.get_content_type(), attached.get_filename()) == ("application/gzip", name)
    assert "a.example" in text.get_content()
    report = report_of(attached.get_content())
    assert (report.report_id, report.domain) == (mailing.report_id, "a.example")
    assert (report.begin, report.end) == ((TODAY - 1) * DAY, TODAY * DAY - 1)
    assert [one.count for one in report.rows] == [3]
    assert report_of(hop.messages[0].removesuffix(b".\r\n")) == report


def test_nobody_is_sent_a_report_twice(tmp_path: Path) -> None:
    settings = collect(tmp_path, a=TO_TWO)
    first, hop = run(settings)
    assert told(first) == ["sent r@a.example", "sent s@a.example"]
    assert asked(hop) == ["r@a.example", "s@a.example"]
    again, hop = run(settings)
    assert told(again) == ["sent before r@a.example", "sent before s@a.example"]
    assert hop.commands == []
    other_days, hop = run(settings, days=(TODAY - 2, TODAY - 1))
    assert told(other_days)[:2] == ["sent r@a.example", "sent s@a.example"]
    assert len(hop.messages) == 2


@pytest.mark.parametrize("refusal", [b"450 4.2.1 later\r\n", b"550 5.1.1 nobody\r\n"])
def test_what_failed_is_sent_by_a_later_run(refusal: bytes, tmp_path: Path) -> None:
    settings = collect(tmp_path, a=TO_TWO)
    found, _ = run(settings, {"RCPT r@a.example": refusal})
    assert told(found) == ["failed r@a.example", "sent s@a.example"]
    found, hop = run(settings)
    assert told(found) == ["sent r@a.example", "sent before s@a.example"]
    assert asked(hop) == ["r@a.example"]


def test_when_the_next_hop_is_not_there_the_run_ends(tmp_path: Path) -> None:
    found, hop = run(collect(tmp_path, a=TO_TWO, b=TO_TWO.replace("a.example", "b.example")), {"greeting": b""})
    assert told(found) == ["failed r@a.example"]
    assert len(hop.sessions) == 1


def test_a_dry_run_tells_and_does_nothing(tmp_path: Path) -> None:
    settings = collect(tmp_path, a=TO_TWO)
    found, hop = run(settings, dry=True)
    assert told(found) == ["to be sent r@a.example", "to be sent s@a.example"]
    assert hop.commands == []
    assert told(run(settings)[0]) == ["sent r@a.example", "sent s@a.example"]


def test_who_may_not_have_it_or_takes_less_gets_nothing(tmp_path: Path) -> None:
    record = (
        "v=DMARC1; p=none; rua=mailto:x@victim.test,mailto:w@watcher.test!1m,mailto:t@a.example!1k,https://a.example/r"
    )
    found, hop = run(collect(tmp_path, a=record, b="v=DMARC1; p=none"))
    assert asked(hop) == ["w@watcher.test"]
    assert list(mailed(found)) == [
        f"{_yesterday()} a.example: not sent to x@victim.test: victim.test has not agreed to reports about a.example",
        f"{_yesterday()} a.example: sent to w@watcher.test, 3 messages",
        f"{_yesterday()} a.example: not sent to t@a.example: {found[2].reason}",
        f"{_yesterday()} b.example: not sent: it asks for no report",
    ]
    assert found[2].reason.endswith("octets, the address takes 1024")


def _yesterday() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime((TODAY - 1) * DAY))


def test_only_one_run_goes_at_a_time(tmp_path: Path) -> None:
    settings = collect(tmp_path, a=TO_TWO)
    with alone(tmp_path / "data" / LOCK), pytest.raises(ConfigurationError, match="another run is sending reports"):
        run(settings)
    assert told(run(settings)[0]) == ["sent r@a.example", "sent s@a.example"]


def test_without_a_next_hop_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"relay.host: reports are sent through a next hop"):
        asyncio.run(send_reports(collect(tmp_path, a=TO_TWO), YESTERDAY, dry=False))


RULES = """
rules:
  - name: reports
    recipients: [example.com]
    actions: [{s3: {bucket: reports}}]
"""


def test_the_command_sends_through_a_receiver_of_ours_that_reads_it_back(tmp_path: Path) -> None:
    """Three days are looked after; today's is not over."""
    collect(tmp_path, a="v=DMARC1; p=none; rua=mailto:dmarc@example.com")
    zone = ZONE | {"a.example._report._dmarc.example.com": {"TXT": ["v=DMARC1"]}}

    async def story() -> tuple[list[bytes], list[int], list[str]]:
        port = free_port()
        (tmp_path / "mx").mkdir()
        async with receiver(tmp_path / "mx", rules=RULES, plain_port=port) as mx:
            with DnsServer(zone) as dns:
                given: dict[str, Any] = {
                    "INBOUND_RELAY__HOST": "127.0.0.1",
                    "INBOUND_RELAY__PORT": str(port),
                    "INBOUND_HOSTNAME": "other.example.net",
                }
                arguments = ("reports", "send", "--json", "--resolver", dns.address)
                command = functools.partial(inbound, *arguments, cwd=tmp_path, **given)
                done = [await asyncio.to_thread(command) for _ in range(2)]
            outcomes = [json.loads(line)["outcome"] for one in done for line in one.stdout.splitlines()]
            return list(mx.objects("reports").values()), [one.returncode for one in done], outcomes

    stored, codes, outcomes = asyncio.run(story())
    assert codes == [0, 0]
    assert outcomes == ["sent", "sent", "sent before", "sent before"]
    assert [report_of(one).domain for one in stored] == ["a.example", "a.example"]
    (tmp_path / "received.eml").write_bytes(stored[0])
    read = inbound("reports", "read", "received.eml", "--json", cwd=tmp_path)
    assert json.loads(read.stdout)["rows"][0]["count"] == 3
