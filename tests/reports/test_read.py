"""Reports as received: in every wrapping, of both schemas, and hostile ones within bounds."""

import base64
import gzip
import io
import re
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from inbound.reports import read as reading
from inbound.reports.read import ReportError, report_of

RECORD = """<record><row><source_ip>192.0.2.1</source_ip><count>2</count><policy_evaluated>
<disposition>none</disposition><dkim>fail</dkim><spf>pass</spf><reason><type>forwarded</type><comment>c</comment></reason>
</policy_evaluated></row><identifiers><header_from>a.example</header_from></identifiers>
<auth_results><spf><domain>a.example</domain><result>pass</result></spf></auth_results></record>"""


def xml(records: str = RECORD, *, opening: str = "<feedback>", before: str = "") -> bytes:
    return f"""{before}{opening}<report_metadata><org_name>Receiver</org_name><email>x@r.example</email>
<report_id>1</report_id><date_range><begin>1700000000</begin><end>1700086399</end></date_range></report_metadata>
<policy_published><domain>a.example</domain><p>none</p><pct>100</pct></policy_published>{records}</feedback>""".encode()


def zipped(content: bytes, name: str = "r!a.example!1!2.xml", how: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", how) as archive:
        archive.writestr("__MACOSX/._x.xml", b"x")
        archive.writestr(name, content)
    return packed.getvalue()


def marked(at: int, octet: int) -> bytes:
    """An archive whose directory says something else of each file (APPNOTE 4.3.12)."""
    packed = bytearray(zipped(xml()))
    for found in [one.start() for one in re.finditer(rb"PK\x01\x02", packed)]:
        packed[found + at] = octet
    return bytes(packed)


def message(content: bytes, kind: str, name: str, end: bytes = b"\r\n") -> bytes:
    text = f"""From: r@r.example
To: d@a.example
Subject: Report Domain: a.example
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

A report
--b
Content-Type: {kind}
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename="{name}"

{base64.encodebytes(content).decode()}--b--
"""
    return end.join(text.encode().split(b"\n"))


NAMESPACES = (
    "<feedback>",
    '<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">',
    '<feedback xmlns="http://dmarc.org/dmarc-xml/0.1">',
)


QUALIFIED = (
    xml(opening='<f:feedback xmlns:f="urn:ietf:params:xml:ns:dmarc-2.0" xmlns:e="urn:e">')
    .replace(b"</feedback>", b"</f:feedback>")
    .replace(b"<report_m", b"<e:x><deep><record/></deep></e:x><report_m")
)
EXTENDED = (
    xml(opening='<feedback xmlns:e="urn:e">')
    .replace(b"</auth_results>", b"</auth_results><e:row><count>9</count></e:row>")
    .replace(b"<record>", b"<extension><record/></extension><record>")
)


@pytest.mark.parametrize(
    "content",
    [
        *(xml(opening=opening) for opening in NAMESPACES),
        QUALIFIED,
        EXTENDED,
        xml(before='\ufeff<?xml version="1.0" encoding="UTF-8"?>'),
        xml(before='<?xml version="1.0" encoding="windows-1252"?>'),
        xml(before='<?xml version="1.0" encoding="utf-16"?>').decode().encode("utf-16"),
        gzip.compress(xml()),
        gzip.compress(xml()[:100]) + gzip.compress(xml()[100:]),
        zipped(xml()),
        zipped(xml(), "report"),
        message(gzip.compress(xml()), "application/gzip", "r.xml.gz"),
        message(gzip.compress(xml()), "application/octet-stream", "r.xml.gz", b"\n"),
        message(zipped(xml()), "application/zip", "r.zip"),
        message(xml(), "text/xml", "r.xml"),
    ],
)
def test_a_report_is_read_in_every_wrapping(content: bytes) -> None:
    report = report_of(content)
    assert (report.org_name, report.domain, report.begin, report.end) == (
        "Receiver",
        "a.example",
        1700000000,
        1700086399,
    )
    assert report.policy == {"p": "none", "pct": "100"}
    (row,) = report.rows
    assert (row.source_ip, row.count, row.disposition, row.dkim, row.spf) == ("192.0.2.1", 2, "none", "fail", "pass")
    assert row.reasons == ("forwarded c",)
    assert [(one.mechanism, one.domain, one.result) for one in row.auth_results] == [("spf", "a.example", "pass")]


def test_a_large_report_is_read() -> None:
    records = (RECORD.replace("192.0.2.1", f"2001:db8::{number:x}") for number in range(5_000))
    report = report_of(gzip.compress(xml("".join(records))))
    assert sum(row.count for row in report.rows) == 10_000


LAUGHS = '<!DOCTYPE f [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
EXTERNAL = '<!DOCTYPE f [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (xml(before=LAUGHS).replace(b"Receiver", b"&b;"), "a document type stands in it"),
        (xml(before=EXTERNAL).replace(b"Receiver", b"&x;"), "a document type stands in it"),
        (xml(before='<!DOCTYPE f SYSTEM "http://127.0.0.1/x">'), "a document type stands in it"),
        (xml().replace(b"Receiver", b"&x;"), "cannot be read as XML"),
        (gzip.compress(b"<feedback>" + b" " * 40_000_000), "unpacks to more"),
        (zipped(b"<feedback>" + b" " * 40_000_000), "unpacks to more"),
        (zipped(xml()).replace(b"PK\1\2", b"PK\1\2" * 200, 1), "files in the archive"),
        (gzip.compress(xml())[:-20], "cut off"),
        (zipped(xml())[:-30], "cannot be unpacked"),
        (zipped(xml(), how=zipfile.ZIP_LZMA), "packed in a way that no report is"),
        (zipped(xml(), how=zipfile.ZIP_BZIP2), "packed in a way that no report is"),
        (marked(10, 99), "packed in a way that no report is"),
        (marked(6, 255), "cannot be unpacked: zip file version 25.5"),
        (marked(8, 0x20), "cannot be unpacked: compressed patched data"),
        (marked(8, 0x40), "cannot be unpacked: strong encryption"),
        (marked(8, 0x01), "cannot be unpacked: .* password required"),
        (b"\x1f\x8b" + b"\0" * 50, "cannot be unpacked"),
        (b"<a>" * 100, "the outermost element is 'a'"),
        (b"<feedback>" + b"<a>" * 100, "nested deeper"),
        (xml(before='<?xml version="1.0" encoding="nonsense"?>'), "cannot be read as XML"),
        (xml("<record>" + "<row/>" * 5000 + "</record>"), "more values"),
        (xml(RECORD.replace("<count>2", "<count>-2")), "count is no number"),
        (xml(RECORD.replace("<count>2", "<count>" + "9" * 99)), "count is no number"),
        (xml(""), "no record"),
        (b"<html></html>", "the outermost element is 'html'"),
        (b"", "neither XML"),
        (b"\0" * 100, "neither XML"),
        (message(b"hello", "text/plain", "r.txt"), "no report in the message"),
        (b"\1" * (reading.LARGEST_FILE + 1), "octets"),
    ],
)
def test_what_is_no_report_is_told(content: bytes, says: str) -> None:
    with pytest.raises(ReportError, match=says):
        report_of(content)


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(gzip.compress(b"\0" * 20_000_000)),
        gzip.compress(b"<feedback>" * 500_000),
        gzip.compress(b"<feedback><record>" + b"<x/>" * 3_000_000),
        b"<feedback " + b" ".join(b"a%d='x'" % number for number in range(200_000)) + b">",
        b"PK\3\4" + b"PK\5\6" * 1_000_000,
        b"a:b\n" * 1_000_000,
        b"\x1f\x8b" * 1_000_000,
    ],
    ids=["twice", "deep", "many", "attributes", "PK", "fields", "gzip"],
)
def test_hostile_octets_take_little_time_and_memory(content: bytes) -> None:
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(ReportError):
            report_of(content)
        assert tracemalloc.get_traced_memory()[1] < 150_000_000
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 20


def test_records_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_RECORDS", 100)
    assert len(report_of(xml(RECORD * 100)).rows) == 100
    with pytest.raises(ReportError, match="more than 100 records"):
        report_of(xml(RECORD * 101))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="No such file"):
        reading.read(tmp_path / "missing")
    with pytest.raises(ReportError, match="directory"):
        reading.read(tmp_path)
