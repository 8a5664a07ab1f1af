"""`inbound reports`, run as a program."""

import gzip
import json
import time
from pathlib import Path

import pytest

from inbound.reports import DAY
from inbound.reports.store import Store
from inbound.testing import DnsServer
from tests.reports.test_read import message, xml
from tests.reports.test_write import row
from tests.test_cli import inbound

TODAY = int(time.time() // DAY)
ZONE = {"_dmarc.a.example": {"TXT": ["v=DMARC1; p=none"]}}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    store = Store(tmp_path / "data" / "reports.sqlite")
    record = "v=DMARC1; p=none; rua=mailto:r@a.example,mailto:x@victim.test"
    for day in (TODAY - 1, TODAY):
        store.add({row(day=day): 3, row(day=day, dkim=True): 2}, {(day, "a.example"): record})
    store.close()
    return tmp_path


def test_show_has_a_line_for_each_day_and_domain(place: Path) -> None:
    done = inbound("reports", "show", cwd=place)
    head, *rows = done.stdout.decode().splitlines()
    assert head.split() == ["DAY", "DOMAIN", "MESSAGES", "PASSED", "FAILED", "PUT", "APART", "REFUSED", "CLIENTS"]
    assert [line.split()[1:] for line in rows] == [["a.example", "5", "2", "3", "0", "0", "1"]] * 2
    one = inbound("reports", "show", "--since", rows[1].split()[0], "--json", cwd=place)
    assert [json.loads(line)["day"] for line in one.stdout.splitlines()] == [TODAY]


def test_write_and_read_what_was_collected_yesterday(place: Path) -> None:
    with DnsServer(ZONE) as dns:
        done = inbound(
            "reports", "write", "out", "--resolver", dns.address, cwd=place, INBOUND_HOSTNAME="mx.example.com"
        )
    name = f"mx.example.com!a.example!{(TODAY - 1) * DAY}!{TODAY * DAY - 1}.xml.gz"
    assert (done.returncode, done.stdout.decode().splitlines()) == (
        0,
        [
            f"a.example: 5 messages in out/{name}",
            "    to r@a.example",
            "    not to x@victim.test: victim.test has not agreed to reports about a.example",
        ],
    )
    read = inbound("reports", "read", f"out/{name}", "--json", cwd=place)
    document = json.loads(read.stdout)
    assert (document["domain"], document["org_name"], [one["count"] for one in document["rows"]]) == (
        *("a.example", "mx.example.com"),
        [3, 2],
    )


def test_read_prints_a_table_and_goes_on_behind_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(message(gzip.compress(xml()), "application/gzip", "r.xml.gz"))
    (tmp_path / "b").write_bytes(b"\0")
    (tmp_path / "c.xml").write_bytes(xml().replace(b"Receiver", "R\u202e\n250 OK".encode()))
    done = inbound("reports", "read", "b", "a.eml", "c.xml", cwd=tmp_path)
    assert (done.returncode, done.stderr.decode()) == (
        2,
        "inbound: b: neither XML, nor gzip, nor zip, nor a message\n",
    )
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "a.example: 2023-11-14 22:13:20 to 2023-11-15 22:13:19, by Receiver <x@r.example>"
    assert lines[2] == "2 messages, 2 passed, 0 failed"
    assert " ".join(lines[4].split()) == ("192.0.2.1 2 none fail pass a.example - spf=pass a.example, (forwarded c)")
    assert "by R\\u202e 250 OK <x@r.example>" in lines[5]  # nobody steers the terminal


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show",), "data/reports.sqlite: nothing was collected yet"),
        (("write", "out"), "data/reports.sqlite: nothing was collected yet"),
        (("show", "--since", "yesterday"), "'yesterday' is no day such as 2026-11-24"),
    ],
)
def test_what_cannot_be_shown_is_told(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = inbound("reports", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert not (tmp_path / "data").exists()
