"""The header block is SES's, true, parseable by others, and nobody outside can write in it."""

import base64
import email
import email.policy
import string
from dataclasses import replace
from ipaddress import ip_address

import authres
import authres.arc
import authres.dmarc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.mail import Client, Headers, Mail, Tls
from inbound.trace import claimed_authserv_id, header_block, protocol, stamped
from inbound.verdicts import (
    ALL_PASSED,
    ArcVerdict,
    DkimSignature,
    DkimVerdict,
    DmarcVerdict,
    IprevVerdict,
    SpamVerdict,
    SpfVerdict,
    Status,
    Verdicts,
    VirusVerdict,
)

ID = "12csr1bfnadh642g2d8jhjc7onii4boa0pbriho1"
RAW = b'From: "Pat Sender" <pat@sender.example>\r\nTo: support@example.com\r\nSubject: Order\r\n\r\nHello\r\n'
SIGNATURE = DkimSignature(
    domain="sender.example", selector="k1", algorithm="rsa-sha256", key_bits=2048, aligned=True, result="pass"
)
VERDICTS = replace(
    ALL_PASSED,
    spf=SpfVerdict(status=Status.PASS, result="pass", domain="sender.example"),
    dkim=DkimVerdict(status=Status.PASS, result="pass", signatures=(SIGNATURE,)),
    dmarc=DmarcVerdict(status=Status.PASS, result="pass", from_domain="sender.example"),
    iprev=IprevVerdict(result="pass", name="mail.sender.example"),
)
CLIENT = Client(ip=ip_address("192.0.2.10"), helo="mail.sender.example")


def mail(raw: bytes = RAW, **more: object) -> Mail:
    given = Mail(
        raw=raw,
        headers=Headers.of(raw),
        client=CLIENT,
        mail_from="bounce+42@sender.example",
        rcpt_to=("support@example.com",),
        received_at=1791278102.118,
        message_id=ID,
    )
    return replace(given, **more)  # type: ignore[arg-type]


def block(letter: Mail, verdicts: Verdicts = VERDICTS) -> bytes:
    return header_block(letter, verdicts, hostname="mx.example.com", authserv_id="mx.example.com")


def authentication_results(letter: Mail, verdicts: Verdicts = VERDICTS) -> authres.AuthenticationResultsHeader:
    field = Headers.of(block(letter, verdicts)).first("Authentication-Results")
    assert field
    features = authres.FeatureContext(authres.dmarc, authres.arc)
    return features.parse(f"Authentication-Results: {field.value}")


def test_the_block_is_what_ses_writes_in_its_order_with_true_words() -> None:
    spf = "pass (spfCheck: domain of sender.example designates 192.0.2.10 as permitted sender)"
    pairs = "client-ip=192.0.2.10; envelope-from=bounce+42@sender.example; helo=mail.sender.example;"
    lines = block(mail()).decode("ascii").split("\r\n")
    assert [
        "Return-Path: <bounce+42@sender.example>",
        "Received: from mail.sender.example (mail.sender.example [192.0.2.10])",
        f" by mx.example.com with ESMTP id {ID}",
        " for support@example.com;",
        " Tue, 06 Oct 2026 09:15:02 +0000 (UTC)",
        "X-SES-Spam-Verdict: PASS",
        "X-SES-Virus-Verdict: PASS",
        f"Received-SPF: {spf} {pairs}",
        "Authentication-Results: mx.example.com;",
        f" spf={spf}",
        f" ( {pairs}) smtp.mailfrom=bounce+42@sender.example smtp.helo=mail.sender.example;",
        " dkim=pass header.i=@sender.example header.s=k1 header.a=rsa-sha256;",
        " dmarc=pass header.from=sender.example;",
        " iprev=pass (mail.sender.example) policy.iprev=192.0.2.10",
    ] == lines[:14]
    assert (len(lines), lines[14].startswith("X-SES-RECEIPT: "), lines[15]) == (16, True, "")


def test_the_receipt_token_has_the_form_of_the_real_ones_and_stays_the_same_on_a_retry() -> None:
    field = Headers.of(block(mail())).first("X-SES-RECEIPT")
    assert field
    outer = base64.b64decode(field.value, validate=True)
    inner = base64.b64decode(outer[1:], validate=True)
    assert (0, bytes(7) + b"\x01", 240) == (outer[0], inner[:8], len(inner))
    assert block(mail()) == block(mail())


def test_no_signature_is_claimed_that_nobody_made() -> None:
    assert Headers.of(block(mail())).first("X-SES-DKIM-SIGNATURE") is None


@pytest.mark.parametrize(
    ("expected", "client", "smtputf8"),
    [
        ("SMTP", replace(CLIENT, esmtp=False), False),
        ("ESMTP", CLIENT, False),
        ("ESMTPS", replace(CLIENT, tls=Tls(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384")), False),
        ("UTF8SMTP", CLIENT, True),
        ("UTF8SMTPS", replace(CLIENT, tls=Tls(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384")), True),
    ],
)
def test_received_says_how_the_message_came(expected: str, client: Client, smtputf8: bool) -> None:
    assert expected == protocol(client, smtputf8=smtputf8)


def received(letter: Mail, verdicts: Verdicts = VERDICTS) -> str:
    field = Headers.of(block(letter, verdicts)).first("Received")
    assert field
    return field.value


def test_the_joiners_of_an_address_stay_in_what_is_written_of_it() -> None:
    address = "\u0646\u0627\u0645\u0647\u200c\u0627\u06cc@\u0915\u094d\u200d\u0937.test"
    letter = mail(mail_from=address, rcpt_to=(address,), smtputf8=True)
    assert block(letter).startswith(f"Return-Path: <{address}>\r\n".encode())
    assert f" for {address};" in received(letter)


def test_for_stands_only_where_there_is_one_recipient() -> None:
    assert " for " not in received(mail(rcpt_to=("a@example.com", "b@example.com")))


@pytest.mark.parametrize(
    ("expected", "ip", "helo", "iprev"),
    [
        (
            "from a.example (unknown [192.0.2.1])",
            "192.0.2.1",
            "a.example",
            IprevVerdict(result="fail", name="x.example"),
        ),
        (
            "from a.example (b.example [IPv6:2001:db8::1])",
            "2001:db8::1",
            "a.example",
            IprevVerdict(result="pass", name="b.example"),
        ),
        ("from [192.0.2.1] (unknown [192.0.2.1])", "192.0.2.1", "[192.0.2.1]", IprevVerdict(result="temperror")),
        ("from unknown (unknown [192.0.2.1])", "192.0.2.1", "", IprevVerdict(result="permerror")),
        ("from unknown (unknown [192.0.2.1])", "192.0.2.1", "a) by mx.example.com", IprevVerdict(result="permerror")),
    ],
)
def test_received_names_the_client_by_what_is_known_of_it(
    expected: str, ip: str, helo: str, iprev: IprevVerdict
) -> None:
    letter = mail(client=Client(ip=ip_address(ip), helo=helo))
    assert expected == received(letter, replace(VERDICTS, iprev=iprev)).partition(" by ")[0]


def test_a_check_that_is_switched_off_says_disabled() -> None:
    off = replace(VERDICTS, spam=SpamVerdict(status=Status.DISABLED), virus=VirusVerdict(status=Status.DISABLED))
    text = block(mail(), off)
    assert b"X-SES-Spam-Verdict: DISABLED\r\nX-SES-Virus-Verdict: DISABLED\r\n" in text


@pytest.mark.parametrize("result", ["pass", "fail", "softfail", "neutral", "none", "permerror", "temperror"])
def test_authres_reads_every_spf_result(result: str) -> None:
    spf = SpfVerdict(status=Status.GRAY, result=result, domain="sender.example")  # type: ignore[arg-type]
    first = authentication_results(mail(), replace(VERDICTS, spf=spf)).results[0]
    assert ("spf", result, "bounce+42@sender.example") == (first.method, first.result, first.smtp_mailfrom)


def test_authres_reads_one_clause_for_each_signature_and_all_the_others() -> None:
    second = replace(SIGNATURE, domain="list.example", identity="bob@mail.list.example", result="fail", aligned=False)
    broken = DkimSignature(result="permerror")
    found = replace(
        VERDICTS,
        dkim=DkimVerdict(status=Status.PASS, result="pass", signatures=(SIGNATURE, second, broken)),
        arc=ArcVerdict(result="pass", sets=1),
        dmarc=replace(VERDICTS.dmarc, result="fail", policy="reject", applied_policy="quarantine"),
    )
    results = authentication_results(mail(client=Client(ip=ip_address("2001:db8::7"), helo="h.example")), found).results
    assert [(it.method, it.result, {each.name: each.value for each in it.properties}) for it in results] == [
        ("spf", "pass", {"mailfrom": "bounce+42@sender.example", "helo": "h.example"}),
        ("dkim", "pass", {"i": "@sender.example", "s": "k1", "a": "rsa-sha256"}),
        ("dkim", "fail", {"i": "bob@mail.list.example", "s": "k1", "a": "rsa-sha256"}),
        ("dkim", "permerror", {}),
        ("dmarc", "fail", {"from": "sender.example", "dmarc": "quarantine"}),
        ("iprev", "pass", {"iprev": "2001:db8::7"}),
        ("arc", "pass", {}),
    ]


def test_a_null_reverse_path_has_no_mailfrom_and_spf_speaks_of_helo() -> None:
    spf = SpfVerdict(status=Status.PASS, result="pass", domain="mail.sender.example", identity="helo")
    letter = mail(mail_from="")
    first = authentication_results(letter, replace(VERDICTS, spf=spf)).results[0]
    assert {each.name: each.value for each in first.properties} == {"helo": "mail.sender.example"}
    assert block(letter).startswith(b"Return-Path: <>\r\n")


def test_a_thousand_signatures_make_twenty_clauses_and_the_one_that_passed_is_among_them() -> None:
    many = (*[replace(SIGNATURE, result="fail")] * 999, SIGNATURE)
    dkim = DkimVerdict(status=Status.PASS, result="pass", signatures=many)
    results = [
        it.result for it in authentication_results(mail(), replace(VERDICTS, dkim=dkim)).results if it.method == "dkim"
    ]
    assert (len(results), results.count("pass")) == (20, 1)


NASTY = st.text(
    st.sampled_from(string.ascii_letters + "\r\n\0\t ;,:()<>[]@\\\"=.'\x7f\x85\u200d\u2028é\udc80"), max_size=60
) | st.text(max_size=400)


@given(NASTY, NASTY, NASTY, NASTY, st.booleans())
def test_nothing_from_outside_can_write_a_field_a_clause_or_a_comment(
    sender: str, helo: str, domain: str, name: str, smtputf8: bool
) -> None:
    letter = mail(mail_from=sender, rcpt_to=(name,), client=Client(ip=CLIENT.ip, helo=helo), smtputf8=smtputf8)
    signature = replace(SIGNATURE, domain=domain, selector=name, algorithm=helo, identity=sender)
    found = replace(
        VERDICTS,
        spf=SpfVerdict(status=Status.PASS, result="pass", domain=domain),
        dkim=DkimVerdict(status=Status.FAIL, result="fail", signatures=(replace(signature, result="fail"),)),
        dmarc=DmarcVerdict(status=Status.FAIL, result="fail", from_domain=domain),
        iprev=IprevVerdict(result="pass", name=name),
    )
    text = block(letter, found)
    names = ["Return-Path", "Received", "X-SES-Spam-Verdict", "X-SES-Virus-Verdict", "Received-SPF",
             "Authentication-Results", "X-SES-RECEIPT"]  # fmt: skip
    assert names == [field.name for field in Headers.of(text).fields]
    assert names == [key for key, _ in email.message_from_bytes(text + b"\r\n").raw_items()]
    assert len(text.decode("utf-8").splitlines()) == text.count(b"\r\n") == text.count(b"\n") == text.count(b"\r")
    assert max(map(len, text.split(b"\r\n"))) <= 998
    field = Headers.of(text).first("Authentication-Results")
    assert field
    clauses = outside_of_quotes_and_comments(field.value).split(";")
    assert [clause.split("=")[0].strip() for clause in clauses[1:]] == ["spf", "dkim", "dmarc", "iprev"]


def outside_of_quotes_and_comments(text: str) -> str:
    kept, depth, quoted, escaped = [], 0, False, False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\" and (quoted or depth):
            escaped = True
        elif char == '"' and not depth:
            quoted = not quoted
        elif quoted:
            pass
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            assert depth >= 0
        elif not depth:
            kept.append(char)
    assert (depth, quoted) == (0, False)
    return "".join(kept)


OURS = b"Return-Path: <>\r\nAuthentication-Results: mx.example.com;\r\n spf=pass\r\n"


@pytest.mark.parametrize(
    "forged",
    [
        b"X-SES-Spam-Verdict: PASS\r\n",
        b"x-ses-VIRUS-verdict: PASS\r\n",
        b"X-SES-RECEIPT:\r\n AAAA\r\n\tBBBB\r\n",
        b"X-SES-DKIM-SIGNATURE \t: a=rsa-sha256;\r\n b=x\r\n",
        b"X-SES-Spam-Verdict\r\n : PASS\r\n",
        b"Authentication-Results: mx.example.com; spf=pass\r\n",
        b"AUTHENTICATION-RESULTS  :MX.Example.COM;\r\n dkim=pass header.d=x\r\n",
        b"Authentication-Results:\r\n mx.example.com 1; none\r\n",
        b'Authentication-Results: (a (nested \\) comment) ) "mx.example.com"; spf=pass\r\n',
        b"Authentication-Results: mx.example.com(c); spf=pass\r\n",
        b"Authentication-Results: mx.example.com.; spf=pass\r\n",
        b"Authentication-Results\r\n : mx.example.com; spf=pass\r\n",
    ],
)
def test_forged_copies_of_our_fields_are_taken_out_and_nothing_else(forged: bytes) -> None:
    top, rest = b"From: a@b.example\r\n", b"Subject: x\r\n\r\nX-SES-Spam-Verdict: in the body\r\n"
    assert OURS + top + rest == stamped(mail(top + forged + rest), OURS)
    assert OURS + top + rest == stamped(mail(forged + top + rest), OURS)


@pytest.mark.parametrize(
    "foreign",
    [
        b"Authentication-Results: mx.other.example; spf=pass\r\n",
        b"Authentication-Results: other.example (mx.example.com); spf=pass\r\n",
        b"Authentication-Results: sub.mx.example.com; spf=pass\r\n",
        b"Authentication-Results:\r\n",
        b"ARC-Authentication-Results: i=1; mx.example.com; spf=pass\r\n",
        b"X-SES-Spam-Verdict-Copy: PASS\r\n",
        b"Return-Path: <a@b.example>\r\n",
        b"Received-SPF: pass\r\n",
        b"this line is no field at all\r\n",
    ],
)
def test_what_only_looks_like_ours_stays(foreign: bytes) -> None:
    raw = b"From: a@b.example\r\n" + foreign + b"Subject: x\r\n\r\nbody\r\n"
    assert OURS + raw == stamped(mail(raw), OURS)


def test_fields_added_by_rules_stand_between_ours_and_the_original() -> None:
    assert stamped(mail(), OURS, b"X-Queue: support\r\n") == OURS + b"X-Queue: support\r\n" + RAW


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"\r\nbody only\r\n", b"no header and no end", b"Subject: x\r\n"])
def test_a_message_without_a_proper_header_block_is_kept_whole(raw: bytes) -> None:
    assert OURS + raw == stamped(mail(raw), OURS)


def test_a_first_line_that_continues_nothing_does_not_become_part_of_a_field_of_ours() -> None:
    raw = b" forged: yes\r\nX-SES-Spam-Verdict: PASS\r\nFrom: a@b.example\r\n\r\nbody\r\n"
    text = stamped(mail(raw), OURS, b"X-Queue: support\r\n")
    assert text == OURS + b"X-Queue: support\r\nX-Inbound-Stray:\r\n forged: yes\r\nFrom: a@b.example\r\n\r\nbody\r\n"


def test_ten_thousand_nested_comments_are_read_in_one_pass() -> None:
    hostile = b"Authentication-Results: " + b"(" * 200_000 + b"mx.example.com; spf=pass\r\n"
    field = Headers.of(hostile).fields[0]
    assert claimed_authserv_id(field) == ""
    assert OURS + hostile + b"\r\n" == stamped(mail(hostile + b"\r\n"), OURS)


@pytest.mark.parametrize(
    "evil", ["a);dkim=pass header.i=@b.example", "dkim=pass", "x\\)", "(", "a;b", '"a) dmarc=pass"']
)
def test_what_a_client_says_ends_no_comment_and_adds_no_result(evil: str) -> None:
    letter = mail(mail_from=f"{evil}@sender.example", client=replace(CLIENT, helo=evil))
    found = authentication_results(letter)
    assert [one.method for one in found.results] == ["spf", "dkim", "dmarc", "iprev"]
    comment = Headers.of(block(letter)).first("Authentication-Results").value.split("( client-ip=")[1]  # type: ignore[union-attr]
    assert "dkim=pass" not in comment.split(")")[0]
