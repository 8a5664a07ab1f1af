"""Read: an aggregate report that was received, as .xml, .xml.gz, .zip, or the message that carried it.

1. Anybody can send one. What is read is bounded in octets, in its ratio to what was sent, in depth and in records; a document
   type, and with it every entity, is refused.
2. Both schemas are read: RFC 9990's and the one before it, with and without a namespace. Elements of others are passed over.
3. What is missing is empty: reports in the wild leave out much. What is no aggregate report at all is a ReportError.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from xml.parsers import expat

from inbound.mail import Client, Headers, Mail
from inbound.mime import parts
from inbound.samples import crlf

LARGEST_FILE = 25 * 1024 * 1024  # octets as received; most receivers take no larger message
LARGEST_XML = 32 * 1024 * 1024  # octets unpacked
RATIO = 200  # times the packed size; honest reports have 10 to 60
ALWAYS = 1024 * 1024  # octets that are unpacked whatever the ratio
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of an archive; others raise what they like and may ask for 4 GB
MOST_FILES = 20  # in one archive, and parts of one message that could be a report
LONGEST_HEADER = 256 * 1024  # octets of a message's
MOST_RECORDS = 50_000
DEEPEST = 20  # levels of elements
LONGEST_TEXT = 2000  # characters of one value
MOST_ELEMENTS = 1_500_000  # of the whole document; a record has about 25
MOST_KEPT = 2000  # elements of one record, and of all that is no record


class ReportError(ValueError):
    """What was given is no report that can be read: the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthResult:
    """One raw result: `selector` is DKIM's, `scope` SPF's."""

    mechanism: str
    domain: str
    result: str
    selector: str = ""
    scope: str = ""
    human_result: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRow:
    """One record of a report. Texts are as the reporter wrote them."""

    source_ip: str
    count: int
    disposition: str
    dkim: str
    spf: str
    reasons: tuple[str, ...]
    header_from: str
    envelope_from: str
    envelope_to: str
    auth_results: tuple[AuthResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report. `policy` has the tags of policy_published; `begin` and `end` are seconds since 1970."""

    org_name: str
    email: str
    report_id: str
    begin: int
    end: int
    domain: str
    policy: dict[str, str]
    generator: str
    errors: tuple[str, ...]
    rows: tuple[ReportedRow, ...]


def read(path: Path) -> Report:
    """The report in a file. Raises ReportError."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise ReportError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return report_of(content)


def report_of(content: bytes) -> Report:
    """The report in these octets, whatever it is wrapped in. Raises ReportError."""
    if len(content) > LARGEST_FILE:
        raise ReportError(f"more than {LARGEST_FILE} octets")
    xml = _unpacked(content)
    return _parsed(_attached(content) if xml is None else xml)


def _unpacked(content: bytes) -> bytes | None:
    """The XML in it; None when it is neither an archive nor XML."""
    if content.startswith(b"\x1f\x8b"):
        return _gunzipped(content)
    if content.startswith(b"PK"):
        return _unzipped(content)
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    return content if start.startswith((b"<", b"\xff\xfe<", b"\xfe\xff\0<")) else None


def _allowed(size: int) -> int:
    return min(max(size * RATIO, ALWAYS), LARGEST_XML)


def _gunzipped(content: bytes) -> bytes:
    unpacked, rest, limit = [], content, _allowed(len(content))
    try:
        for _ in range(MOST_FILES):  # RFC 1952 2.2: a file may have several members
            member = zlib.decompressobj(wbits=31)
            unpacked.append(member.decompress(rest, limit + 1))
            limit -= len(unpacked[-1])
            if limit < 0:
                raise ReportError("unpacks to more than a report can be")
            if not member.eof:
                raise ReportError("the archive is cut off")
            rest = member.unused_data
            if not rest.startswith(b"\x1f\x8b"):
                break
    except zlib.error as error:
        raise ReportError(f"cannot be unpacked: {error}") from error
    return b"".join(unpacked)


def _unzipped(content: bytes) -> bytes:
    if content.count(b"PK\1\2") > MOST_FILES:  # of each file in it; zipfile would make an object for each
        raise ReportError(f"more than {MOST_FILES} files in the archive")
    limit = _allowed(len(content))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(_report_in(archive)) as file:
            unpacked = file.read(limit + 1)
    except ReportError:
        raise
    # zipfile says RuntimeError of a password, NotImplementedError (one of these) of a version or an encryption that it does not
    # know, ValueError of names, EOFError and OSError of what is cut off.
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ReportError(f"cannot be unpacked: {error}") from error
    if len(unpacked) > limit:
        raise ReportError("unpacks to more than a report can be")
    return unpacked


def _report_in(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    inside = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX")]
    named = [one for one in inside if one.filename.lower().endswith(".xml")] or inside
    if not named:
        raise ReportError("there is nothing in the archive")
    if named[0].compress_type not in _METHODS:
        raise ReportError("the archive is packed in a way that no report is")
    return named[0]


def _attached(content: bytes) -> bytes:
    """The report in a message."""
    end = min((at for at in (content.find(b"\n\n"), content.find(b"\r\n\r\n")) if at >= 0), default=len(content))
    if end > LONGEST_HEADER:
        raise ReportError("neither XML, nor gzip, nor zip, and no message has such a header")
    raw = crlf(content)
    headers = Headers.of(raw)
    if not any(one.name for one in headers.fields[:1]):
        raise ReportError("neither XML, nor gzip, nor zip, nor a message")
    mail = Mail(raw=raw, headers=headers, client=_NOBODY, mail_from="", rcpt_to=(), received_at=0.0, message_id="")
    for part in parts(mail).parts[:MOST_FILES]:
        if part.declared in _TYPES or part.name.lower().endswith((".xml", ".gz", ".zip")):
            xml = _unpacked(part.content(LARGEST_FILE))
            if xml is not None:
                return xml
    raise ReportError("no report in the message")


_TYPES = frozenset(
    {
        *("application/gzip", "application/x-gzip", "application/zip", "application/x-zip-compressed"),
        *("text/xml", "application/xml", "application/octet-stream"),
    }
)
_NOBODY = Client(ip=IPv4Address(0))
_NAMESPACES = frozenset({"", "http://dmarc.org/dmarc-xml/0.1", "http://dmarc.org/dmarc-xml/0.2"})


@dataclass(slots=True)
class _Element:
    name: str
    text: str = ""
    inner: "list[_Element]" = field(default_factory=list)

    def all(self, *path: str) -> "list[_Element]":
        found = [self]
        for name in path:
            found = [child for one in found for child in one.inner if child.name == name]
        return found

    @property
    def line(self) -> str:
        return " ".join(self.text.split())

    def value(self, *path: str) -> str:
        return next((one.line for one in self.all(*path)), "")

    def number(self, *path: str) -> int:
        text = self.value(*path)
        if not text.isdecimal() or not text.isascii() or len(text) > 15:  # noqa: PLR2004 - seconds, messages
            raise ReportError(f"{path[-1]} is no number: {text[:40]!r}")
        return int(text)


def _parsed(xml: bytes) -> Report:
    if len(xml) > LARGEST_XML:
        raise ReportError(f"more than {LARGEST_XML} octets of XML")
    reader = _Reader()
    try:
        reader.parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise ReportError(f"cannot be read as XML: {error}") from error
    except (LookupError, UnicodeError) as error:  # a charset that Python does not know
        raise ReportError(f"cannot be read as XML: {error}") from error
    return reader.report()


class _Reader:
    """Takes the document as it goes by, and keeps of each record what a row needs."""

    def __init__(self) -> None:
        self.parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        self._root = _Element("")
        self._open = [self._root]
        self._namespace = ""
        self._foreign = 0  # levels of an element that is not ours
        self._elements = 0
        self._kept = 0  # of them, since the last record
        self._rows: list[ReportedRow] = []

    def _doctype(self, *_: object) -> None:
        raise ReportError("a document type stands in it, which no report has")

    def _start(self, qualified: str, _: dict[str, str]) -> None:
        namespace, _space, name = qualified.rpartition(" ")
        if len(self._open) == 1 and not self._foreign:
            if name != "feedback":
                raise ReportError(f"no aggregate report: the outermost element is {name[:40]!r}")
            self._namespace = namespace
        if len(self._open) + self._foreign > DEEPEST:
            raise ReportError(f"nested deeper than {DEEPEST} levels")
        if self._foreign or namespace not in _NAMESPACES | {self._namespace} or name == "extension":
            self._foreign += 1
            return
        self._elements += 1
        self._kept += 1
        if self._elements > MOST_ELEMENTS or self._kept > MOST_KEPT:
            raise ReportError("more values than a report can have")
        element = _Element(name)
        self._open[-1].inner.append(element)
        self._open.append(element)

    def _end(self, _: str) -> None:
        if self._foreign:
            self._foreign -= 1
            return
        element = self._open.pop()
        if element.name == "record" and len(self._open) == 2:  # noqa: PLR2004 - in feedback
            if len(self._rows) >= MOST_RECORDS:
                raise ReportError(f"more than {MOST_RECORDS} records")
            self._rows.append(_row(element))
            self._open[-1].inner.pop()
            self._kept = 0

    def _characters(self, text: str) -> None:
        element = self._open[-1]
        if not self._foreign and len(element.text) < LONGEST_TEXT:
            element.text += text[: LONGEST_TEXT - len(element.text)]

    def report(self) -> Report:
        feedback = self._root.inner[0]
        metadata = next(iter(feedback.all("report_metadata")), _Element(""))
        published = next(iter(feedback.all("policy_published")), _Element(""))
        if not self._rows or not published.value("domain"):
            raise ReportError("no aggregate report: it has no policy_published, or no record")
        return Report(
            org_name=metadata.value("org_name"),
            email=metadata.value("email"),
            report_id=metadata.value("report_id"),
            begin=metadata.number("date_range", "begin"),
            end=metadata.number("date_range", "end"),
            domain=published.value("domain"),
            policy={one.name: one.line for one in published.inner if one.name != "domain"},
            generator=metadata.value("generator"),
            errors=tuple(one.line for one in metadata.all("error")),
            rows=tuple(self._rows),
        )


def _row(record: _Element) -> ReportedRow:
    evaluated = ("row", "policy_evaluated")
    return ReportedRow(
        source_ip=record.value("row", "source_ip"),
        count=record.number("row", "count"),
        disposition=record.value(*evaluated, "disposition"),
        dkim=record.value(*evaluated, "dkim"),
        spf=record.value(*evaluated, "spf"),
        reasons=tuple(
            " ".join(filter(None, (one.value("type"), one.value("comment"))))
            for one in record.all(*evaluated, "reason")
        ),
        header_from=record.value("identifiers", "header_from"),
        envelope_from=record.value("identifiers", "envelope_from"),
        envelope_to=record.value("identifiers", "envelope_to"),
        auth_results=tuple(
            AuthResult(
                mechanism=one.name,
                domain=one.value("domain"),
                result=one.value("result"),
                selector=one.value("selector"),
                scope=one.value("scope"),
                human_result=one.value("human_result"),
            )
            for mechanism in ("dkim", "spf")
            for one in record.all("auth_results", mechanism)
            if one.value("domain") and one.value("result")
        ),
    )
