"""Events are SES's: every name, every place, every form; ours stands last and apart, and no sender can make one too big."""

import base64
import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.event import Event, address_list, lambda_event, notification, timestamp
from inbound.mail import Client, HeaderField, Headers, Mail
from inbound.verdicts import (
    ALL_PASSED,
    DkimSignature,
    DkimVerdict,
    DmarcVerdict,
    IprevVerdict,
    SpamVerdict,
    SpfVerdict,
    Status,
    Symbol,
    Verdicts,
)

# In the shape of captured SES payloads; the data are invented.
SAMPLES = Path(__file__).parent / "ses"
PASSED = replace(
    ALL_PASSED,
    spf=SpfVerdict(status=Status.PASS, result="pass", domain="sender.example"),
    dmarc=DmarcVerdict(status=Status.PASS, result="pass", policy="reject", applied_policy="reject"),
    iprev=IprevVerdict(result="pass", name="mail.sender.example"),
)
REFUSED = replace(
    PASSED,
    spf=SpfVerdict(status=Status.FAIL, result="fail", domain="sender.example"),
    dkim=DkimVerdict(status=Status.GRAY, result="none"),
    dmarc=DmarcVerdict(status=Status.FAIL, result="fail", policy="reject", applied_policy="reject"),
)


def event(content: bytes, verdicts: Verdicts = PASSED, **more: Any) -> Event:
    mail = Mail(
        raw=content,
        headers=Headers.of(content),
        client=Client(ip=ip_address("192.0.2.10"), helo="mail.sender.example"),
        mail_from="bounce+42@sender.example",
        rcpt_to=("support@example.com",),
        received_at=1791278102.118,
        message_id="12csr1bfnadh642g2d8jhjc7onii4boa0pbriho1",
    )
    told = Event(
        mail=mail,
        verdicts=verdicts,
        recipients=("support@example.com",),
        rule="support",
        content=content,
        action={"type": "Stop", "topicArn": "arn:aws:sns:eu-west-1:111122223333:t"},
        now=1791278102.118 + 0.412,
    )
    return replace(told, **more)


def sample(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text())


def as_received(ses: Any, verdicts: Verdicts, body: bytes = b"") -> Event:
    """The event on a message whose header fields are the sample's."""
    lines = "".join(f"{field['name']}: {field['value']}\r\n" for field in ses["mail"]["headers"]).encode()
    took = ses["receipt"]["processingTimeMillis"] / 1000
    return event(lines + b"\r\n" + body, verdicts, action=ses["receipt"]["action"], now=1791278102.118 + took)


def test_a_lambda_event_is_ses_s_to_the_letter_and_the_order_with_ours_last() -> None:
    expected = sample("lambda-event.json")
    ours = json.loads(lambda_event(as_received(expected["Records"][0]["ses"], PASSED)))
    assert list(ours["Records"][0]["ses"]) == ["mail", "receipt", "inbound"]
    del ours["Records"][0]["ses"]["inbound"]
    assert json.dumps(expected, indent=1) == json.dumps(ours, indent=1)


@pytest.mark.parametrize(
    ("name", "verdicts"),
    [("sns-message-s3-action.json", PASSED), ("sns-message-bounce-action.json", REFUSED)],
)
def test_a_notification_is_ses_s_to_the_letter_and_the_order_with_ours_last(name: str, verdicts: Verdicts) -> None:
    expected = sample(name)
    ours = json.loads(notification(as_received(expected, verdicts)))
    assert list(ours)[-1] == "inbound"
    del ours["inbound"]
    assert json.dumps(expected, indent=1) == json.dumps(ours, indent=1)


def test_a_notification_with_content_has_it_in_its_place() -> None:
    expected = sample("sns-message-sns-action-base64.json")
    body = b"Hello,\r\nplease check order 1234.\r\n"
    told = as_received(expected, PASSED, body)
    ours = json.loads(notification(told, content=base64.b64encode(told.content).decode()))
    del ours["inbound"]
    assert json.dumps(expected, indent=1) == json.dumps(ours, indent=1)


def test_what_is_ours_says_which_rule_and_on_what_the_verdicts_rest() -> None:
    signature = DkimSignature(domain="sender.example", selector="k1", aligned=True, result="pass")
    found = replace(
        PASSED,
        dkim=DkimVerdict(status=Status.PASS, result="pass", signatures=(signature,)),
        spam=SpamVerdict(status=Status.GRAY, score=3.5, symbols=(Symbol(name="NO_DATE", weight=1.5, evidence="x"),)),
    )
    ours = json.loads(lambda_event(event(b"From: a@b.example\r\n\r\n", found)))["Records"][0]["ses"]["inbound"]
    assert ours == {
        "rule": "support",
        "client_ip": "192.0.2.10",
        "helo": "mail.sender.example",
        "tls": "",
        "spf": {"result": "pass", "domain": "sender.example", "identity": "mailfrom"},
        "dkim": {
            "result": "pass",
            "signatures": [{"domain": "sender.example", "selector": "k1", "aligned": True, "result": "pass"}],
        },
        "dmarc": {
            "result": "pass",
            "from_domain": "",
            "policy": "reject",
            "applied_policy": "reject",
            "aligned": [],
        },
        "arc": {"result": "none"},
        "iprev": {"result": "pass", "name": "mail.sender.example"},
        "spam": {"score": 3.5, "symbols": [{"name": "NO_DATE", "weight": 1.5}]},
        "virus": {"signature": "", "reason": ""},
        "blocked": False,
    }


def told(content: bytes, **more: Any) -> Any:
    return json.loads(notification(event(content, **more)))["mail"]


@pytest.mark.parametrize(
    ("status", "policy", "expected"),
    [
        (Status.FAIL, "quarantine", "quarantine"),
        (Status.FAIL, "", None),
        (Status.PASS, "reject", None),
        (Status.GRAY, "none", None),
        (Status.PROCESSING_FAILED, "reject", None),
    ],
)
def test_dmarc_policy_is_told_only_when_dmarc_failed(status: Status, policy: Any, expected: str | None) -> None:
    dmarc = DmarcVerdict(status=status, result="fail", applied_policy=policy)
    receipt = json.loads(notification(event(b"\r\n", replace(PASSED, dmarc=dmarc))))["receipt"]
    assert expected == receipt.get("dmarcPolicy")


def test_folded_fields_are_unfolded_and_keep_their_case_and_order() -> None:
    content = b"RECEIVED: from a\r\n\t \tby b;\r\n Tue\r\nSubject:x\r\nReceived: 2\r\nno field\r\n\r\n"
    assert told(content)["headers"] == [
        {"name": "RECEIVED", "value": "from a by b; Tue"},
        {"name": "Subject", "value": "x"},
        {"name": "Received", "value": "2"},
    ]


@pytest.mark.parametrize(
    ("size", "truncated", "names"),
    [(10 * 1024 - 60, False, ["Return-Path", "Big", "Subject"]), (10 * 1024, True, ["Return-Path"])],
)
def test_ten_kilobytes_of_headers_are_told_and_common_headers_stay_whole(
    size: int, truncated: bool, names: list[str]
) -> None:
    content = b"Return-Path: <a@b.example>\r\nBig: " + b"x" * size + b"\r\nSubject: Last\r\n\r\n"
    mail = told(content)
    assert (truncated, names) == (mail["headersTruncated"], [field["name"] for field in mail["headers"]])
    assert mail["commonHeaders"]["subject"] == "Last"


def test_common_headers_are_those_that_are_there_in_the_observed_order() -> None:
    content = (
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nCc: c@x.example\r\nBcc: b@x.example\r\nTo: t@x.example\r\n"
        b"Sender: s@x.example\r\nMessage-ID: <1@x>\r\nDate: Tue, 6 Oct 2026 11:15:00 +0200 (CEST)\r\n"
        b"Reply-To: r@x.example\r\nFrom: =?utf-8?q?J=C3=B6rg=2C_M=C3=BCller?= <f@x.example>\r\n\r\n"
    )
    common = told(content)["commonHeaders"]
    assert list(common.items()) == [
        ("returnPath", "bounce+42@sender.example"),
        ("from", ['"Jörg, Müller" <f@x.example>']),
        ("replyTo", ["r@x.example"]),
        ("date", "Tue, 6 Oct 2026 11:15:00 +0200 (CEST)"),
        ("to", ["t@x.example"]),
        ("cc", ["c@x.example"]),
        ("bcc", ["b@x.example"]),
        ("sender", "s@x.example"),
        ("messageId", "<1@x>"),
        ("subject", "Grüße"),
    ]


def test_a_message_without_any_header_has_empty_lists_and_no_made_up_values() -> None:
    mail = told(b"\r\nbody\r\n")
    assert (
        mail["destination"],
        mail["headers"],
        mail["commonHeaders"],
    ) == ([], [], {"returnPath": "bounce+42@sender.example"})


def test_destination_comes_from_the_header_and_recipients_from_the_envelope() -> None:
    content = b'To: "A, B" <list@other.example>, b@x.example\r\nCc: c@x.example\r\nBcc: d@x.example\r\n\r\n'
    ours = json.loads(notification(event(content)))
    assert ours["mail"]["destination"] == ["list@other.example", "b@x.example", "c@x.example"]
    assert ours["receipt"]["recipients"] == ["support@example.com"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@x.example, b@y.example", ["a@x.example", "b@y.example"]),
        ('"A, B" <a@x.example>,C <c@x.example>,', ['"A, B" <a@x.example>', "C <c@x.example>"]),
        ("Norton I., Emperor <n@x.example>, b@y.example", ["Norton I., Emperor <n@x.example>", "b@y.example"]),
        ("Team: a@x.example, B <b@y.example>;, c@z.example", ["a@x.example", "B <b@y.example>", "c@z.example"]),
        ("undisclosed-recipients:;", ["undisclosed-recipients:;"]),
        ("a@x.example (one, two: three), b@[IPv6:2001:db8::1]", ["a@x.example (one, two: three)", "b@[IPv6:2001:db8::1]"]),
        ("=?utf-8?q?J=C3=B6rg?= <j@x.example>", ["Jörg <j@x.example>"]),
        ("=?utf-8?q?=22=2C_=3Cevil=40y=3E?= <j@x.example>", ['"\\", <evil@y>" <j@x.example>']),
        ("Nobody", ["Nobody"]),
        ("", []),
        (" , ,", []),
    ],
)  # fmt: skip
def test_entries_of_an_address_list_are_told_as_they_are_written(text: str, expected: list[str]) -> None:
    assert expected == list(address_list(HeaderField("To", b"To: " + text.encode() + b"\r\n")))


def test_eight_bit_text_is_told_as_text_and_octets_that_are_no_text_do_no_harm() -> None:
    mail = told(b"Subject: Gr\xc3\xbc\xc3\x9fe\r\nX-A: \xff\xfe\r\nX-B: \xef\xbf\xbf\r\n\r\n", recipients=("\udc80@x",))
    assert (mail["commonHeaders"]["subject"], mail["headers"][1]["value"]) == ("Grüße", "ÿþ")
    assert "\uffff" not in notification(event(b"X-B: \xef\xbf\xbf\r\n\r\n"))


NAMES = st.sampled_from(["To", "Cc", "From", "Subject", "X"])
UNITS = st.sampled_from(["\x01", "a@b.example,", '"', "=?utf-8?q?=01?= <a@b>,", "é", "\\", "(", "x:"])


@given(st.lists(st.tuples(NAMES, UNITS, st.integers(1, 40_000)), max_size=6))
def test_no_header_makes_an_event_larger_than_sns_takes_without_content(fields: list[tuple[str, str, int]]) -> None:
    content = b"".join(f"{name}: {unit * (count // len(unit))}\r\n".encode() for name, unit, count in fields) + b"\r\n"
    assert len(notification(event(content)).encode()) < 200 * 1024


def test_times_are_in_milliseconds_and_utc() -> None:
    assert timestamp(1791278102.118) == "2026-10-06T09:15:02.118Z"
    assert timestamp(1791278102) == "2026-10-06T09:15:02.000Z"
