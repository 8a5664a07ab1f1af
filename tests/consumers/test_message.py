"""A stored message is read into JMAP's names (RFC 8621 4); only the receiver's own block is believed."""

import json
from dataclasses import replace
from typing import Any

import pytest

import inbound
from inbound.consumer import Address, AddressGroup, BodyPart, Limits, Message
from inbound.consumer.block import block_of
from inbound.consumer.message import safe_name
from inbound.consumer.reading import PREVIEW, parse
from inbound.errors import TooBig
from inbound.mail import Headers
from inbound.trace import header_block
from inbound.verdicts import Status
from tests.actions.letters import ID, VERDICTS, letter
from tests.consumers.stored import OURS, SES_BLOCK

PDF = (
    b'Content-Type: application/octet-stream; name="../../a.pdf"\r\nContent-Disposition: attachment\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQK\r\n"
)
MIXED = (
    b"From: =?utf-8?q?P=C3=A4t?= <pat@sender.example>\r\nSender: desk@sender.example\r\nReply-To: r@sender.example\r\n"
    b"To: Help <help@example.com>, b@example.com\r\nCc: c@example.com\r\nBcc: d@example.com\r\n"
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Tue, 6 Oct 2026 11:15:00 +0200\r\nMessage-ID: <1@sender.example>\r\n"
    b"In-Reply-To: <0@example.com>\r\nReferences: <a@example.com>\r\n <0@example.com>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=m\r\n\r\n"
    b"--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n"
    b"--a\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\nSch\xf6n,\r\n  wie geht es?\r\n"
    b"--a\r\nContent-Type: text/html\r\nContent-Language: de, en\r\n\r\n<p>Hello</p>\r\n--a--\r\n"
    b"--m\r\n" + PDF + b"--m\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nInner text\r\n--m--\r\n"
)


def believed(raw: bytes) -> Message:
    message = inbound.consume(raw, authserv_ids=["mx.example.com", "amazonses.com"])
    assert message is not None
    return message


def test_a_message_has_jmap_s_names() -> None:
    message = believed(OURS + MIXED)
    assert message.messageId == ("1@sender.example",)
    assert (message.inReplyTo, message.references) == (("0@example.com",), ("a@example.com", "0@example.com"))
    assert message.from_ == (Address("Pät", "pat@sender.example"),)
    assert message.to == (Address("Help", "help@example.com"), Address("", "b@example.com"))
    assert [one[0].email for one in (message.cc, message.bcc, message.sender, message.replyTo)] == [
        "c@example.com",
        "d@example.com",
        "desk@sender.example",
        "r@sender.example",
    ]
    assert (message.subject, message.sentAt) == ("Grüße", "2026-10-06T11:15:00+02:00")
    assert (message.receivedAt, message.size) == ("2026-10-06T09:15:02Z", len(OURS + MIXED))
    assert (message.text, message.html) == ("Schön,\n  wie geht es?", "<p>Hello</p>")
    assert message.preview == "Schön, wie geht es?"
    assert (message.id, message.hasAttachment, message.problems) == (ID, True, ())


def test_the_tree_stays_a_tree_and_messages_inside_stay_closed() -> None:
    def outline(part: BodyPart) -> Any:
        return (part.type, [outline(one) for one in part.subParts]) if part.subParts is not None else part.type

    message = parse(MIXED)
    assert outline(message.bodyStructure) == (
        "multipart/mixed",
        [
            ("multipart/alternative", ["text/plain", "text/html"]),
            "application/octet-stream",
            "message/rfc822",
        ],
    )
    pdf, inner = message.attachments
    assert (pdf.name, pdf.safe_name, pdf.size, pdf.content()) == ("../../a.pdf", "a.pdf", 9, b"%PDF-1.4\n")
    assert (pdf.type, pdf.sniffedType) == ("application/octet-stream", "application/pdf")
    assert parse(inner.content()).subject == "inner"
    assert message.part("2").language == ("de", "en")
    assert message.part(pdf.blobId or "") is pdf
    with pytest.raises(KeyError):
        message.part("9")
    with pytest.raises(TooBig):
        pdf.content(limit=8)


def test_as_json_it_has_the_same_names_and_no_octets() -> None:
    document = json.loads(believed(OURS + MIXED).to_json())
    assert document["from"] == [{"name": "Pät", "email": "pat@sender.example"}]
    assert document["to"][1] == {"name": None, "email": "b@example.com"}
    assert [one["name"] for one in document["attachments"]] == ["../../a.pdf", None]
    assert document["attachments"][0]["sniffedType"] == "application/pdf"
    assert document["bodyStructure"]["subParts"][0]["subParts"][0]["partId"] == "1"
    assert document["bodyValues"]["1"] == {
        "value": "Schön,\n  wie geht es?",
        "isEncodingProblem": False,
        "isTruncated": False,
    }
    words = {"spam": "PASS", "virus": "PASS", "spf": "PASS", "dkim": "GRAY", "dmarc": "PASS"}
    assert document["verdicts"] == {**words, "dmarc_policy": "", "source": "header"}
    assert document["provenance"]["trusted"] is True
    assert json.loads(parse(b"\r\n").to_json())["from"] is None


# --- RFC 8621 4.1.4: what is text, what is HTML, what is attached


def part(kind: str, *inside: bytes, name: str = "", disposition: str = "") -> bytes:
    """A part as it stands in a multipart, for `whole`."""
    head = f"Content-Type: {kind}" + (f"; name={name}" if name else "")
    head += f"\r\nContent-Disposition: {disposition}" if disposition else ""
    if not inside:
        return f"{head}\r\n\r\n{kind}\r\n".encode()
    boundary = f"{kind.replace('/', '-')}-{len(b''.join(inside))}"
    body = b"".join(f"--{boundary}\r\n".encode() + one for one in inside)
    return f"{head}; boundary={boundary}\r\n\r\n".encode() + body + f"--{boundary}--\r\n".encode()


# The example of RFC 8621 4.1.4: A is text/plain, and so on.
RFC_EXAMPLE = part(
    "multipart/mixed",
    part("text/plain; x=A", disposition="inline"),
    part(
        "multipart/mixed",
        part(
            "multipart/alternative",
            part(
                "multipart/mixed",
                part("text/plain; x=B", disposition="inline"),
                part("image/jpeg; x=C", disposition="inline"),
                part("text/plain; x=D", disposition="inline"),
            ),
            part("multipart/related", part("text/html; x=E"), part("image/jpeg; x=F")),
        ),
        part("image/jpeg; x=G", disposition="attachment"),
        part("application/x-excel; x=H"),
        part("message/rfc822; x=J"),
    ),
    part("text/plain; x=K", disposition="inline"),
)


@pytest.mark.parametrize(
    ("raw", "text", "html", "attached"),
    [
        (RFC_EXAMPLE, "ABCDK", "AEK", "CFGHJ"),
        (part("text/plain; x=A"), "A", "A", ""),
        (part("text/html; x=A"), "A", "A", ""),
        (part("application/pdf; x=A"), "", "", "A"),
        (part("image/png; x=A"), "A", "A", ""),
        (part("text/plain; x=A", name="a.txt"), "A", "A", ""),
        (part("text/plain; x=A", disposition="attachment"), "", "", "A"),
        (part("text/calendar; x=A"), "", "", "A"),
        (part("multipart/alternative", part("text/plain; x=A"), part("text/html; x=B")), "A", "B", ""),
        (part("multipart/alternative", part("text/html; x=A"), part("text/calendar; x=B")), "A", "A", "B"),
        (part("multipart/alternative", part("text/plain; x=A")), "A", "A", ""),
        (
            part(
                "multipart/alternative", part("multipart/alternative", part("text/html; x=A")), part("text/plain; x=B")
            ),
            "AB",
            "A",
            "",
        ),
        (part("multipart/related", part("text/html; x=A"), part("image/png; x=B")), "A", "A", "B"),
        (part("multipart/mixed", part("text/plain; x=A"), part("text/plain; x=B", name="b.txt")), "A", "A", "B"),
        (part("multipart/mixed", part("image/png; x=A"), part("text/plain; x=B")), "AB", "AB", ""),
        (part("multipart/digest", b"\r\nSubject: A\r\n\r\n"), "", "", "?"),
    ],
)
def test_bodies_are_found_as_the_rfc_says(raw: bytes, text: str, html: str, attached: str) -> None:
    def letters(parts: tuple[BodyPart, ...]) -> str:
        given = [(one.header("Content-Type") or "").partition("x=")[2][:1] for one in parts]
        return "".join(letter or "?" for letter in given)

    message = parse(raw)
    assert (letters(message.textBody), letters(message.htmlBody), letters(message.attachments)) == (
        text,
        html,
        attached,
    )


def test_html_alone_is_read_as_it_is_shown() -> None:
    page = parse(
        b"Content-Type: text/html\r\n\r\n<style>p{}</style><p>Hello&amp;<b>more</b><script>x</script>"
        b"<div style='display:none'>hidden</div><p>Second"
    )
    assert page.text == "Hello&more\nSecond"
    assert page.preview == "Hello&more Second"
    assert page.html.startswith("<style>")


def test_a_preview_has_an_end() -> None:
    assert len(parse(b"\r\n" + b"word " * 10_000).preview) == PREVIEW


def test_text_is_cut_at_the_limit_and_never_in_a_character() -> None:
    message = parse("Content-Type: text/plain; charset=utf-8\r\n\r\näää".encode(), Limits(text_bytes=3))
    (value,) = message.bodyValues.values()
    assert (value.value, value.isTruncated, value.isEncodingProblem) == ("ä", True, False)
    bad = parse(b"Content-Type: text/plain; charset=utf-16\r\n\r\n\x00\xd8")
    assert [one.isEncodingProblem for one in bad.bodyValues.values()] == [True]


# --- RFC 8621 4.1.2: the forms of header fields

GROUPS = (
    '"  James Smythe" <james@example.com>, Friends:\r\n jane@example.com, =?UTF-8?Q?John_Sm=C3=AEth?=\r\n'
    " <john@example.com>;"
)
JAMES = Address("James Smythe", "james@example.com")
FRIENDS = (Address("", "jane@example.com"), Address("John Smîth", "john@example.com"))


@pytest.mark.parametrize(
    ("field", "wanted", "expected"),
    [
        (f"To: {GROUPS}", "To:asAddresses", (JAMES, *FRIENDS)),
        (
            f"To: {GROUPS}",
            "header:to:asGroupedAddresses",
            (AddressGroup("", (JAMES,)), AddressGroup("Friends", FRIENDS)),
        ),
        ("To: undisclosed-recipients:;", "To:asGroupedAddresses", (AddressGroup("undisclosed-recipients", ()),)),
        ("To: a@b (Ann Bee)", "To:asAddresses", (Address("Ann Bee", "a@b"),)),
        ('To: "a@b" <c@d>', "To:asAddresses", (Address("a@b", "c@d"),)),
        ('To: "q r"@d', "To:asAddresses", (Address("", '"q r"@d'),)),
        ("To: <@x,@y:a@b>", "To:asAddresses", (Address("", "a@b"),)),
        ("To: nobody", "To:asAddresses", (Address("", "nobody"),)),
        ("To: a@[IPv6:::1]", "To:asAddresses", (Address("", "a@[IPv6:::1]"),)),
        ("To: Pat O'Neil, a@b", "To:asAddresses", (Address("", "Pat O'Neil"), Address("", "a@b"))),
        ("To:", "To:asAddresses", ()),
        ("Subject: =?utf-8?q?a?=\r\n =?utf-8?q?b?=", "Subject:asText", "ab"),
        ("Subject:  x ", "Subject", "  x "),
        ("Subject: e\u0301", "Subject:asText", "é"),
        ("Subject: =?utf-8?q?a=00=0D=0AX:_b?=", "Subject:asText", "aX: b"),
        ("Subject: =?x-unknown?q?a?=", "Subject:asText", "=?x-unknown?q?a?="),
        ("X-A: 1", "X-A:asText:all", ("1",)),
        ("X-A: 1\r\nX-A: 2", "X-A:asText", "2"),
        ("X-A: 1\r\nX-A: 2", "X-A:all", (" 1", " 2")),
        ("X-A: 1", "X-B", None),
        ("X-A: 1", "X-B:asText:all", ()),
        ("References: <a@b> (x) <c@d>", "References:asMessageIds", ("a@b", "c@d")),
        ("References: a@b", "References:asMessageIds", None),
        ("Date: Thu, 30 Oct 2014 14:12:00 +0800", "Date:asDate", "2014-10-30T14:12:00+08:00"),
        ("Date: 30 Oct 2014 14:12 GMT", "Date:asDate", "2014-10-30T14:12:00Z"),
        ("Date: 30 Oct 2014 14:12:00 -0000", "Date:asDate", "2014-10-30T14:12:00Z"),
        ("Date: yesterday", "Date:asDate", None),
        (
            "List-Unsubscribe: (x) <mailto:a@b>,\r\n <https://x/\r\n y>",
            "List-Unsubscribe:asURLs",
            ("mailto:a@b", "https://x/y"),
        ),
        ("List-Post: NO", "List-Post:asURLs", None),
    ],
)
def test_a_header_field_is_read_in_the_form_that_is_asked_for(field: str, wanted: str, expected: Any) -> None:
    assert expected == parse(f"{field}\r\n\r\n".encode()).header(wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        "Subject:asDate",
        "From:asText",
        "Date:asAddresses",
        "Received:asText",
        "X:asHtml",
        "",
        ":asText",
        "X:asText:asText",
        "X:some",
    ],
)
def test_a_form_that_the_rfc_does_not_allow_is_refused(wanted: str) -> None:
    with pytest.raises(ValueError, match="is not a header property"):
        parse(b"Subject: x\r\n\r\n").header(wanted)


def test_of_several_fields_the_last_counts_as_the_rfc_says_and_it_is_told() -> None:
    message = parse(b"From: a@b\r\nFrom: c@d\r\nSubject: 1\r\n\r\n")
    assert (message.from_, message.problems) == ((Address("", "c@d"),), ("several from fields",))


# --- the header block


def block(raw: bytes) -> Any:
    return block_of(Headers.of(raw).fields)


def test_our_own_block_is_read() -> None:
    found = block(OURS + MIXED)
    assert (found.whole, found.id, found.received_by, found.authserv_id) == (
        True,
        ID,
        "mx.example.com",
        "mx.example.com",
    )
    assert (found.mail_from, found.recipient) == ("pat@sender.example", "support@example.com")
    assert found.results == ("spf=pass", "dkim=pass", "dmarc=pass", "iprev=pass")
    assert (found.verdicts.spf, found.verdicts.dmarc) == (Status.PASS, Status.PASS)


def test_our_block_of_a_message_for_several_names_none_of_them_and_is_believed() -> None:
    several = replace(letter().mail, rcpt_to=("support@example.com", "sales@example.com"))
    found = block(header_block(several, VERDICTS, hostname="mx.example.com", authserv_id="mx.example.com") + MIXED)
    assert (found.whole, found.id, found.received_by, found.recipient) == (True, ID, "mx.example.com", "")
    assert (found.received, found.verdicts.dmarc) == (block(OURS).received, Status.PASS)


def without(*names: str) -> bytes:
    return b"".join(one.raw for one in Headers.of(SES_BLOCK).fields if one.name not in names)


FORGED = SES_BLOCK.replace(b"sender.example", b"bank.example").replace(ID.encode(), b"0" * 40)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (SES_BLOCK + FORGED + MIXED, "sender.example"),  # only the topmost counts
        (b"Subject: x\r\n" + SES_BLOCK + MIXED, None),  # not on top
        (b"Received: from x; y\r\n" + SES_BLOCK + MIXED, None),
        (b"\r\n" + SES_BLOCK + MIXED, None),
        (b" \r\n" + SES_BLOCK + MIXED, None),
        (MIXED, None),
        (b"", None),
    ],
)
def test_only_the_block_on_top_is_believed(stored: bytes, expected: str | None) -> None:
    message = believed(stored)
    domain = (message.provenance.mail_from or "").partition("@")[2] or None
    assert (domain, message.passed("spam", "spf", "dkim", "dmarc")) == (expected, expected is not None)


@pytest.mark.parametrize(
    "missing", ["Received-SPF", "Authentication-Results", "X-SES-RECEIPT", "Received", "Return-Path"]
)
def test_a_block_that_is_not_whole_has_no_verdicts_whatever_the_sender_wrote_below(missing: str) -> None:
    whole = b"".join(one.raw for one in Headers.of(FORGED).fields if one.name == missing)
    message = believed(without(missing) + whole + MIXED)
    assert [getattr(message.verdicts, one) for one in ("spam", "virus", "spf", "dkim", "dmarc")] == [None] * 5
    assert not message.passed("dmarc")


def test_below_a_block_of_ses_s_first_years_nothing_is_believed() -> None:
    old = b"".join(one.raw for one in Headers.of(SES_BLOCK.replace(b"2026", b"2016")).fields[:2])
    forged = b"".join(one.raw for one in Headers.of(FORGED).fields[2:])
    message = believed(old + forged + MIXED)
    assert (message.provenance.id, message.verdicts.dmarc, message.provenance.trusted) == (ID, None, False)


def test_without_a_scan_the_block_may_lack_its_verdicts() -> None:
    forged = b"X-SES-Spam-Verdict: PASS\r\n"
    found = believed(without("X-SES-Spam-Verdict", "X-SES-Virus-Verdict") + forged + MIXED).verdicts
    assert (found.spam, found.virus, found.spf) == (None, None, Status.PASS)


@pytest.mark.parametrize(
    ("results", "spf", "dkim", "dmarc", "policy"),
    [
        ("spf=softfail; dkim=none; dmarc=fail header.from=a policy.dmarc=reject", "FAIL", "GRAY", "FAIL", "reject"),
        ("spf=permerror; dkim=pass header.i=@other.example; dmarc=none", "GRAY", "GRAY", "GRAY", ""),
        ("spf=temperror; dkim=temperror header.i=@sender.example; dmarc=temperror", *["PROCESSING_FAILED"] * 3, ""),
        ("spf=none; dkim=fail header.i=x@m.sender.example; dmarc=permerror", "GRAY", "FAIL", "GRAY", ""),
        ("spf=pass; dmarc=fail; dmarc=pass", "PASS", None, None, ""),
        (
            'spf=fail (a; dmarc=pass) smtp.mailfrom="x; dkim=pass header.i=@sender.example"@y; dmarc=fail',
            *("FAIL", None, "FAIL", ""),
        ),
        ('spf=fail smtp.helo="a\\"; dmarc=pass"; dmarc=fail', "FAIL", None, "FAIL", ""),
    ],
)
def test_results_become_ses_s_words(results: str, spf: str, dkim: str | None, dmarc: str, policy: str) -> None:
    fields = [
        b"Authentication-Results: mx.example.com; " + results.encode() + b"\r\n"
        if one.name == "Authentication-Results"
        else one.raw
        for one in Headers.of(SES_BLOCK).fields
    ]
    found = believed(b"".join(fields) + b"From: pat@sender.example\r\n\r\n").verdicts
    assert (found.spf, found.dkim, found.dmarc, found.dmarc_policy) == (spf, dkim, dmarc, policy)


# --- names of files


@pytest.mark.parametrize(
    ("written", "safe"),
    [
        ("a.pdf", "a.pdf"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/", "attachment"),
        ("..", "attachment"),
        (".bashrc", "bashrc"),
        ("", "attachment"),
        ("CON", "_CON"),
        ("com1.txt", "_com1.txt"),
        ("a\0b\nc.txt", "abc.txt"),
        ("\u202egpj.exe", "gpj.exe"),
        ("a:b*c?.txt ", "a_b_c_.txt"),
        ("-rf", "rf"),
        ("ä" * 300 + ".pdf", "ä" * 73 + ".pdf"),
        ("a." + "x" * 300, ("a." + "x" * 300)[:150]),
        ("\ud800.txt", "txt"),
        ("名前.txt", "名前.txt"),
    ],
)
def test_a_file_name_is_made_safe(written: str, safe: str) -> None:
    assert safe == safe_name(written)
