"""The parts of a message, whatever its octets are."""

import base64
import email
import sysconfig
import time
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inbound import mime
from inbound.mail import Mail
from inbound.mime import Part, parts
from tests.stages.builders import mail_from
from tests.suites.fetch import sdist

TOP = b"From: a@sender.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"


def mail(raw: bytes) -> Mail:
    return mail_from(raw=raw)


def mixed(*entities: bytes) -> bytes:
    return TOP + b"".join(b"--b\r\n" + entity + b"\r\n" for entity in entities) + b"--b--\r\n"


def only(header: bytes, body: bytes = b"x") -> Part:
    (part,) = parts(mail(header + b"\r\n\r\n" + body)).parts
    return part


def contents(raw: bytes) -> list[bytes]:
    return [part.content(1_000_000) for part in parts(mail(raw))]


def test_mail_without_mime_is_one_text_part() -> None:
    part = only(b"From: a@sender.example", b"hello\r\n")
    assert (part.declared, part.type, part.name, part.text(100)) == ("text/plain", "text/plain", "", "hello\r\n")


def test_parts_come_in_order_with_what_is_around_them() -> None:
    inner = (
        b"Content-Type: multipart/alternative; boundary=c\r\n\r\n"
        b"--c\r\n\r\nplain\r\n--c\r\nContent-Type: text/html\r\n\r\n<p>\r\n--c--"
    )
    found = parts(mail(mixed(inner, b"Content-Type: application/pdf; name=a.pdf\r\n\r\n%PDF-1.7")))
    assert found.readable
    assert [(part.type, part.within) for part in found] == [
        ("text/plain", ("multipart/mixed", "multipart/alternative")),
        ("text/html", ("multipart/mixed", "multipart/alternative")),
        ("application/pdf", ("multipart/mixed",)),
    ]


def test_an_outer_delimiter_ends_what_is_open_inside() -> None:
    unclosed = b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\none"
    assert contents(mixed(unclosed, b"\r\ntwo")) == [b"one", b"two"]


def test_parts_of_an_attached_message_are_found_under_it() -> None:
    inner = (
        b"Content-Type: message/rfc822\r\n\r\n"
        b"Subject: x\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\none\r\n--c--"
    )
    found = parts(mail(mixed(inner, b"\r\ntwo")))
    assert [(part.content(9), part.within) for part in found] == [
        (b"one", ("multipart/mixed", "message/rfc822", "multipart/mixed")),
        (b"two", ("multipart/mixed",)),
    ]


def test_an_attached_message_in_base64_is_opened() -> None:
    message = b"Content-Type: application/x-thing; name=evil.exe\r\n\r\nMZ\x90\x00"
    entity = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(message)
    (part,) = parts(mail(mixed(entity)))
    assert (part.name, part.within) == ("evil.exe", ("multipart/mixed", "message/rfc822"))


def test_a_digest_holds_messages_without_saying_so() -> None:
    raw = TOP.replace(b"mixed", b"digest") + b"--b\r\n\r\nSubject: x\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b--\r\n"
    assert [part.declared for part in parts(mail(raw))] == ["text/html"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (TOP + b"--b\r\n\r\none\r\n", [b"one\r\n"]),  # never closed
        (TOP + b"--b \t\r\n\r\none\r\n--b-- \r\nepilogue\r\n", [b"one"]),
        (TOP + b"preamble\r\n--bc\r\n--b\r\n\r\none\r\n--bc\r\ntwo\r\n--b--", [b"one\r\n--bc\r\ntwo"]),
        (
            TOP + b"--b\n\none\n--b\n\ntwo\n--b--\n",
            [b"one", b"two"],
        ),
        (TOP + b"--b\r\nno header field here\r\n--b--", [b"no header field here"]),
        (TOP + b"--b\r\nContent-Type: text/html\r\n--b--", [b""]),
        (
            TOP.replace(b"=b", b'="\x8a\xe2\x82"') + b"--\x8a\xe2\x82\r\n\r\none\r\n--\x8a\xe2\x82--",
            [b"one"],
        ),  # octets, not letters
        (TOP + b"--b\r\n\r\none\r\n--b--\r\n--b\r\n\r\ntwo\r\n--b--", [b"one"]),  # what follows the close is epilogue
    ],
)
def test_delimiters_as_readers_see_them(raw: bytes, expected: list[bytes]) -> None:
    assert contents(raw) == expected


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (b"Content-Disposition: attachment; filename=a.txt", "a.txt"),
        (b'Content-Disposition: attachment; filename="a b;c.txt"; size=3', "a b;c.txt"),
        (b'Content-Disposition: attachment; filename="a\\"b.txt"', 'a"b.txt'),
        (b"Content-Disposition: attachment; filename=a b.exe ; x=y", "a b.exe"),
        (b"Content-Disposition: attachment;\r\n filename*=UTF-8''%e2%82%ac%20.exe", "\u20ac .exe"),
        (
            b"Content-Disposition: attachment;\r\n filename*0*=UTF-8''%e2%82;\r\n filename*1*=%ac;\r\n filename*2=.exe",
            "\u20ac.exe",
        ),
        (b"Content-Disposition: attachment; filename*1=b.exe; filename*0=a", "ab.exe"),
        (b"Content-Disposition: attachment; filename*0=a; filename*2=b.exe", "a"),
        (b'Content-Disposition: attachment; filename="=?UTF-8?Q?=E2=82=AC.exe?="', "\u20ac.exe"),
        (b'Content-Type: application/x; name="=?utf-8?B?YQ==?= =?utf-8?B?Yg==?="', "ab"),
        (b"Content-Type: application/x; NAME=a.exe", "a.exe"),
        ("Content-Disposition: attachment; filename=\u20ac.exe".encode(), "\u20ac.exe"),
        (b"Content-Disposition: attachment; filename=\xe9.exe", "\u00e9.exe"),
        ("Content-Disposition: attachment; filename=voil\u00e0".encode(), "voil\u00e0"),
        (b"Content-Disposition: attachment; filename*=utf-7''%2B2AA-.exe", "\ufffd.exe"),
        (b"Content-Disposition: attachment; filename*0*=''%C3; filename*1=\xa9.exe", "\u00e9.exe"),
        (b'Content-Disposition: attachment; filename="a.exe. . "', "a.exe"),
        (b'Content-Disposition: attachment; filename="a\x00\x1b.exe"', "a.exe"),
        (b"Content-Disposition: attachment; filename*=punycode''a-b", "a-b"),
        (b'Content-Disposition: attachment; filename="C:\\dir\\a.exe"', "C:\\dir\\a.exe"),
        (b"Content-Disposition: attachment; filename", ""),
        (b"Content-Disposition: attachment; filename=", ""),
    ],
)
def test_file_names_in_every_way_they_are_written(field: bytes, name: str) -> None:
    assert only(field).name == name


def test_every_name_that_a_reader_could_take_is_kept() -> None:
    header = b"Content-Type: image/png; name=c.exe\r\nContent-Disposition: attachment; filename=a.txt; filename*=''b.js"
    assert only(header).names == ("b.js", "a.txt", "c.exe")


def test_rules_see_an_attachment_under_each_of_its_names_and_no_text_of_the_letter() -> None:
    named = b"Content-Type: image/png; name=c.exe\r\nContent-Disposition: attachment; filename=a.png\r\n\r\nx"
    raw = mixed(b"\r\nhello", b"Content-Type: text/html\r\n\r\n<p>", named, b"Content-Type: image/gif\r\n\r\nGIF89a")
    assert [(part.name, part.type) for part in mime.attachments(mail(raw))] == [
        ("a.png", "text/plain"),
        ("c.exe", "text/plain"),
        ("", "image/gif"),
    ]


@pytest.mark.parametrize(
    ("encoding", "body", "content"),
    [
        (b"base64", b"aGVsbG8=\r\n", b"hello"),
        (b"BASE64 (really)", b"aGVs\r\nbG8", b"hello"),
        (b"base64", b"aG!Vs*bG8=\r\n\r\nnot this", b"hello" + base64.b64decode("notthis=")[:5]),
        (b"base64", b"aGVsbG8=IHlvdQ==", b"hello you"),
        (b"base64", b"=====", b""),
        (b"quoted-printable", b"a=\r\nb=3D=zz", b"ab==zz"),
        (b"x-uuencode", b"begin 644 f\r\n%:&5L;&\\ \r\n`\r\nend\r\n", b"hello"),
        (b"8bit", b"\xff=3D", b"\xff=3D"),
        (b"none such", b"=3D", b"=3D"),
    ],
)
def test_content_is_decoded_as_far_as_it_goes(encoding: bytes, body: bytes, content: bytes) -> None:
    assert only(b"Content-Transfer-Encoding: " + encoding, body).content(1000) == content


def test_no_more_is_decoded_than_is_asked_for() -> None:
    part = only(b"Content-Transfer-Encoding: base64", base64.encodebytes(b"abc" * 100_000))
    assert part.content(4) == b"abca"


def test_junk_in_front_of_base64_hides_nothing() -> None:
    part = only(b"Content-Transfer-Encoding: base64", b"!" * 100_000 + base64.b64encode(b"MZ\x90\x00" + b"\0" * 100))
    assert part.type == "application/vnd.microsoft.portable-executable"


@pytest.mark.parametrize(
    ("charset", "octets", "text"),
    [
        (b"utf-8", "\u20ac".encode(), "\u20ac"),
        (b"windows-1252", b"\x80", "\u20ac"),
        (b"ISO-2022-JP", "\u65e5\u672c".encode("iso2022_jp"), "\u65e5\u672c"),
        (b"gb2312", "\u4e2d\u9555".encode("gbk"), "\u4e2d\u9555"),
        (b"us-ascii", b"\xe9", "\u00e9"),
        (b"nonsense", "\u20ac".encode(), "\u20ac"),
        (b"zlib", b"abc", "abc"),
        (b"utf-8", b"\xff", "\ufffd"),
        (b"utf-16", b"\x00", "\ufffd"),
    ],
)
def test_text_by_its_charset_or_the_likeliest(charset: bytes, octets: bytes, text: str) -> None:
    assert only(b"Content-Type: text/plain; charset=" + charset, octets).text(100) == text


def zipped(*names: str) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"application/vnd.oasis.opendocument.text" if name == "mimetype" else b"x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("declared", "octets", "kind"),
    [
        ("image/png", b"MZ\x90\x00\x03" + b"\0" * 60, "application/vnd.microsoft.portable-executable"),
        ("text/plain", b"MZ is a place in the sun, and this is a text about it, which goes on for long", "text/plain"),
        ("application/pdf", b"\x7fELF\x02\x01", "application/x-executable"),
        ("application/octet-stream", b"%PDF-1.4", "application/pdf"),
        ("application/octet-stream", zipped("a.txt"), "application/zip"),
        ("application/zip", zipped("META-INF/MANIFEST.MF"), "application/java-archive"),
        (
            "application/zip",
            zipped("[Content_Types].xml", "word/document.xml"),
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        ("application/zip", zipped("mimetype"), "application/vnd.oasis.opendocument.text"),
        ("application/msword", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
        ("text/plain", b"#!/bin/sh\n", "text/x-script"),
        ("text/plain", b"\r\n <!DOCTYPE html><p>", "text/html"),
        ("image/png", b"<html>", "text/html"),
        ("image/png", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("image/png", b"\x00\x01\x02", "application/octet-stream"),
        ("application/pkcs7-signature", b"0\x82\x01", "application/pkcs7-signature"),
        ("text/calendar", b"BEGIN:VCALENDAR", "text/calendar"),
        ("image/jpeg", b"hello", "text/plain"),
        ("text/html", "\ufeffhello".encode("utf-16"), "text/html"),
        ("application/x", b"\xca\xfe\xba\xbe\x00\x00\x00\x34", "application/java-vm"),
        ("application/x", b"\xca\xfe\xba\xbe\x00\x00\x00\x02", "application/x-mach-binary"),
        ("application/pdf", b"", "application/pdf"),
    ],
)
def test_the_type_is_what_the_first_octets_show(declared: str, octets: bytes, kind: str) -> None:
    header = f"Content-Type: {declared}\r\nContent-Transfer-Encoding: base64".encode()
    assert only(header, base64.encodebytes(octets).replace(b"\n", b"\r\n")).type == kind


def _nested(levels: int) -> bytes:
    opened = [b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (at, at) for at in range(levels)]
    return b"From: a@sender.example\r\n" + b"".join(opened) + b"\r\ndeep\r\n"


ENCODED = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"


def _encoded(levels: int) -> bytes:
    message = b"Subject: x\r\n\r\nx"
    for _ in range(levels):
        message = ENCODED + base64.encodebytes(message).replace(b"\n", b"\r\n")
    return message


@pytest.mark.parametrize(
    ("raw", "reason", "found"),
    [
        (TOP + b"no delimiter\r\n", "the boundary of a multipart/mixed never comes", 1),
        (b"Content-Type: multipart/mixed\r\n\r\nx", "multipart/mixed without a boundary", 1),
        (b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nx", "several content-type fields", 1),
        (mixed(*[b"\r\nx"] * 10_000), "more than 1000 parts", 1000),
        (_nested(200), "nested deeper than 100", 1),
        (b"Content-Type: message/rfc822\r\n\r\n" * 1000, "nested deeper than 100", 1),
        (_encoded(5), "more than 3 encoded messages inside", 1),
        (mixed(b"X: " + b"x" * 70_000), "the header of a part is longer than 65536 octets", 1),
        (mixed(*[b"X: y\r\n" * 5000 + b"\r\nx"] * 5), "more than 20000 header lines in the parts", 5),
        (b"Content-Type: multipart/mixed; boundary=" + b"b" * 300 + b"\r\n\r\nx", "a boundary longer than 250 octets", 1),
        (b"Content-Type: text/plain; a=" + b"b" * 9000 + b"\r\n\r\nx", "a content-type field longer than 8192 octets", 1),
        (mixed(*[b"Content-Type: text/plain; a=" + b"b" * 8000 + b"\r\n\r\nx"] * 80),
         "more than 524288 octets of fields that describe parts", 80),
        (TOP.replace(b"=b", b'="-"') + b"---x\r\n" * 120_000, "more than 100000 lines that look like delimiters", 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_beyond_its_caps_a_message_is_not_readable_and_what_was_found_is_there(
    raw: bytes, reason: str, found: int
) -> None:
    result = parts(mail(raw))
    assert (result.readable, result.reason, len(result)) == (False, reason, found)


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "delimiters of nobody": lambda n: TOP + b"--x\r\n" * n,
    "delimiters": lambda n: TOP + b"--b\r\n" * n,
    "nested": lambda n: _nested(n // 50),
    "prefixes of a boundary": lambda n: TOP.replace(b"=b", b"=" + b"a" * 70) + (b"\r\n--" + b"a" * 69) * (n // 10),
    "parameters": lambda n: mixed(*[b"Content-Type: a/b" + b";x*1=y" * 1300 + b"\r\n\r\n"] * (n // 1500)),
    "encoded words": lambda n: mixed(*[b"Content-Type: a/b; name=" + b"=?a?q? " * 1100 + b"\r\n\r\n"] * (n // 1500)),
    "folded": lambda n: mixed(*[b"Content-Type: a/b\r\n" + b" ;\r\n" * 15_000 + b"\r\n"] * (n // 12_000)),
    "junk base64": lambda n: mixed(b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=A" * (4 * n)),
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_time_grows_with_the_message_and_no_faster(shape: str) -> None:
    """Process time, the best of three, of a message against one four times as long: four times, with room for noise."""

    def cost(n: int) -> float:
        message = mail(HOSTILE[shape](n))
        best = 9.0
        for _ in range(3):
            started = time.process_time()
            for part in parts(message):
                part.content(100_000)
            best = min(best, time.process_time() - started)
        return best

    small, large = cost(60_000), cost(240_000)
    assert large < 12 * small + 0.02


FRAGMENTS = st.sampled_from(
    [b"--b", b"--b--", b"--c", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"Content-Type: multipart/mixed; boundary=c\r\n",
     b"Content-Type: message/rfc822\r\n", b"Content-Transfer-Encoding: base64\r\n", b"x", b"aGVsbG8=", b'name="', b"filename*0*=",
     b"\x8a\xe9",
     b"=?utf-8?q?", b"?=", b"\x00\xff", b"Content-Disposition:", b":", b";", b"boundary="]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(FRAGMENTS, max_size=40).map(b"".join), st.booleans())
@example(b"--b", True)
@example(b"", False)
def test_no_octets_make_it_raise_and_none_of_them_is_read_twice(body: bytes, inside: bool) -> None:
    raw = (TOP if inside else b"") + body
    found = parts(mail(raw))
    for part in found:
        part.text(1000)
    unencoded = [part for part in found if not any(kind in _ENCODABLE for kind in part.within)]
    assert sum(part.size for part in unencoded) <= len(raw)


_ENCODABLE = frozenset({"message/rfc822"})


# What the standard library's parser sees otherwise, and why ours is right for us.
OTHERWISE = {
    "msg_15.txt": "the same boundary inside and outside: we see the parts, it does not",
    "msg_16.txt": "delivery-status is one part of ours, and a tree of its",
    "msg_19.txt": "a line in the message's header that is none: the header goes on, as it did for the MTAs on the way",
    "msg_35.txt": "the same",
    "msg_36.txt": "external-body is a part of ours, and a message of its",
    "msg_37.txt": "delimiters in a row: we count the empty parts between",
    "msg_39.txt": "as msg_15",
    "msg_43.txt": "as msg_16",
    "mail_malformed_1": "parts behind a nested multipart of the same boundary: we see the attachment",
    "mail_malformed_2": "as msg_16",
    "mail_outlook_1": "an OLE file, no mail",
}


def _by_stdlib(raw: bytes) -> Iterator[tuple[str, object]]:
    for part in email.message_from_bytes(raw).walk():
        if not part.is_multipart():
            yield part.get_content_type(), part.get_payload(decode=True)


def _differing(files: list[Path]) -> set[str]:
    differing = set()
    for file in files:
        raw = file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        raw = raw.partition(b"\n")[2] if raw.startswith(b"From ") else raw
        ours = [(part.declared, part.content(len(raw))) for part in parts(mail(raw))]
        if ours != list(_by_stdlib(raw)):
            differing.add(file.name)
    return differing


def test_the_standard_library_sees_the_same_parts_in_its_own_test_mails() -> None:
    folder = Path(sysconfig.get_path("stdlib")) / "test" / "test_email" / "data"
    files = sorted(folder.glob("*.txt"))
    if not files:
        pytest.skip("this Python comes without its tests")
    assert _differing(files) == {name for name in OTHERWISE if name.startswith("msg_")}


@pytest.mark.timeout(300)
def test_the_standard_library_sees_the_same_parts_in_the_mails_of_mail_parser() -> None:
    folder = sdist("mail_parser", "4.8.0") / "tests" / "mails"
    files = sorted(file for file in folder.iterdir() if file.is_file())
    assert len(files) > 20
    assert _differing(files) == {name for name in OTHERWISE if name.startswith("mail_")}
