"""Reports as written: valid by a schema of RFC 9990's tables, under its file names, the same for the same rows."""

import asyncio
import gzip
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inbound.reports import DAY, Row, Signature
from inbound.reports.read import Report, read
from inbound.reports.store import Store
from inbound.reports.write import Issue, Period, Reporter, issued
from inbound.testing import FakeResolver
from tests.interop.environments import python_with
from tests.suites.fetch import sdist

XSD = Path(__file__).with_name("aggregate.xsd")
REPORTER = Reporter(receiver="mx.example.com", org_name="Ex & Co <\0>", email="postmaster@example.com")
RECORD = "v=DMARC1; p=quarantine; sp=reject; adkim=s; fo=1:d; t=y; rua=mailto:r@a.example"


def row(**more: Any) -> Row:
    usual: dict[str, Any] = {
        "day": 20_000,
        "domain": "a.example",
        "source_ip": "192.0.2.1",
        "disposition": "none",
        "dkim": False,
        "spf": False,
        "override": "local_policy",
        "header_from": "a.example",
        "envelope_from": "b.example",
        "spf_domain": "b.example",
        "spf_result": "softfail",
    }
    return Row(**usual | more)


SIGNED = (Signature(domain="c.example", selector="<&>", result="fail"),)
MANY = tuple(Signature(domain=f"{number}.example", selector="s", result="permerror") for number in range(10))
ROWS = {
    row(): 3,
    row(day=20_001): 4,
    row(source_ip="2001:db8::1", disposition="pass", dkim=True, spf=True, override=None, envelope_from=""): 1,
    row(override="policy_test_mode", spf_domain="", signatures=SIGNED): 2,
    row(disposition="reject", override=None, signatures=MANY): 1,
    row(domain="none.example"): 1,
    row(domain="unasked.example"): 1,
    row(domain="foreign.example"): 1,
}
POLICIES = {
    "a.example": RECORD,
    "none.example": "v=DMARC1; p=bogus; rua=mailto:r@none.example",
    "unasked.example": "v=DMARC1; p=none",
    "foreign.example": "v=DMARC1; p=none; rua=mailto:r@victim.test",
}


BOTH_DAYS = Period(since=20_000, until=20_001)


def written(directory: Path, period: Period = BOTH_DAYS) -> list[Issue]:
    directory.mkdir(exist_ok=True)
    store = Store(directory / "reports.sqlite")
    if not store.policies(0, 10**6):
        store.add(ROWS, {(day, domain): record for domain, record in POLICIES.items() for day in (20_000, 20_001)})

    async def story() -> list[Issue]:
        zone = FakeResolver({"_dmarc.a.example": {"TXT": [RECORD]}})
        return [one async for one in issued(store, REPORTER, period, directory / "out", zone)]

    try:
        return asyncio.run(story())
    finally:
        store.close()


def test_each_domain_that_asks_for_a_report_has_one(tmp_path: Path) -> None:
    found = {one.domain: one for one in written(tmp_path)}
    name = f"mx.example.com!a.example!{20_000 * DAY}!{20_002 * DAY - 1}.xml.gz"
    assert {domain: (Path(one.file).name, one.messages, one.reason) for domain, one in found.items()} == {
        "a.example": (name, 11, ""),
        "foreign.example": ("", 0, "no address may have it"),
        "none.example": (f"mx.example.com!none.example!{20_000 * DAY}!{20_002 * DAY - 1}.xml.gz", 1, ""),
        "unasked.example": ("", 0, "it asks for no report"),
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        Path(one.file).name for one in found.values() if one.file
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("whose", ["RFC 9990's own", "the stricter one beside"])
def test_a_report_is_valid_by_the_schema(tmp_path: Path, whose: str) -> None:
    """PyPI's `dmarc` carries the schema as the RFC has published it."""
    published = Path("dmarc", "report", "schemas", "dmarc-2.0.xsd")
    schema = sdist("dmarc", "1.2.1") / published if whose.startswith("RFC") else XSD
    files = []
    for one in written(tmp_path):
        if one.file:
            files.append(tmp_path / f"{one.domain}.xml")
            files[-1].write_bytes(gzip.decompress(Path(one.file).read_bytes()))
    wrong = tmp_path / "wrong.xml"
    wrong.write_bytes(files[0].read_bytes().replace(b"<scope>mfrom</scope>", b"<scope>helo</scope>"))
    python = python_with("xmlschema==4.3.2")
    command = [str(python), str(Path(__file__).with_name("validate.py")), str(schema), *map(str, files), str(wrong)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *said, of_wrong = done.stdout.splitlines()
    assert said == [f"{file} valid" for file in files]
    assert "scope" in of_wrong


def test_the_sample_of_the_schemas_package_is_read() -> None:
    report = read(sdist("dmarc", "1.2.1") / "dmarc" / "tests" / "report" / "data" / "samplereport-2.0.xml")
    assert (report.domain, report.policy["p"], report.policy["np"]) == ("example.com", "quarantine", "none")
    assert [(one.source_ip, one.count, one.disposition) for one in report.rows] == [("192.0.2.123", 123, "pass")]


def a_report(directory: Path) -> Report:
    (file,) = [one.file for one in written(directory) if one.domain == "a.example"]
    return read(Path(file))


def test_our_own_reader_reads_it_back(tmp_path: Path) -> None:
    report = a_report(tmp_path)
    assert (report.org_name, report.email) == ("Ex & Co <?>", "postmaster@example.com")
    assert (report.begin, report.end) == (20_000 * DAY, 20_002 * DAY - 1)
    assert report.policy == {
        "discovery_method": "treewalk",
        "p": "quarantine",
        "sp": "reject",
        "np": "reject",
        "fo": "1:d",
        "adkim": "s",
        "aspf": "r",
        "testing": "y",
    }
    counts = [one.count for one in report.rows]
    assert (counts[0], sorted(counts)) == (7, [1, 1, 2, 7])  # both days together, most messages first
    (signed,) = [one for one in report.rows if one.count == 2]
    assert signed.reasons == ("policy_test_mode",)
    assert [(one.mechanism, one.domain, one.selector) for one in signed.auth_results] == [("dkim", "c.example", "<&>")]
    (null,) = [one for one in report.rows if one.source_ip == "2001:db8::1"]
    assert (null.disposition, null.dkim, null.spf, null.envelope_from) == ("pass", "pass", "pass", "")


def test_the_same_rows_make_the_same_file_again(tmp_path: Path) -> None:
    files = [Path(one.file) for one in written(tmp_path) if one.file]
    before = [file.read_bytes() for file in files]
    assert written(tmp_path)
    assert [file.read_bytes() for file in files] == before


def test_another_period_has_another_id(tmp_path: Path) -> None:
    whole = a_report(tmp_path)
    (one,) = [one for one in written(tmp_path, Period(since=20_001, until=20_001)) if one.domain == "a.example"]
    day = read(Path(one.file))
    assert (one.messages, day.report_id == whole.report_id) == (4, False)
