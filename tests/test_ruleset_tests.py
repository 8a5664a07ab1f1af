"""The tests that stand beside the rules: what is given, what is told when one fails."""

from pathlib import Path

import pytest

from inbound.cases import Found, Given
from inbound.ruletest import Outcome, Result, came_of, run
from tests.ruling import mistakes, rules

SET = """
rules:
  - name: gone
    recipients: [gone@example.com]
    actions: [{bounce: {smtp_reply_code: 550, status_code: 5.1.6, message: Gone}}]
  - name: sealed
    recipients: [tls@example.com]
    tls: require
    actions: [{s3: {bucket: sealed}}, stop]
  - name: refuse-malware
    when: {virus: fail}
    actions: [{bounce: {smtp_reply_code: 554, status_code: 5.7.1, message: Message contains malware}}]
  - name: alone
    recipients: [alone@example.com]
    when: {spam: pass}
    actions: [{s3: {bucket: alone}}]
  - name: support
    recipients: [support@example.com, sales@example.com]
    actions: [{add_header: {name: X-Queue, value: support}}, {s3: {bucket: support}}]
"""


def results(tmp_path: Path, tests: str, text: str = SET, domains: tuple[str, ...] = ()) -> tuple[Result, ...]:
    return run(rules(tmp_path, f"{text}\ntests:\n{tests}"), domains)


def outcome(tmp_path: Path, when: str, **given: object) -> Outcome:
    """What comes of a mail to a rule set that drops what fits and stores the rest."""
    text = f"rules:\n  - {{name: fits, when: {when}, actions: [drop]}}\n  - {{name: rest, actions: [{{s3: {{bucket: rest}}}}]}}"
    return came_of(rules(tmp_path, text), Given(to="you@example.com", **given))  # type: ignore[arg-type]


def test_a_test_that_is_right_passes(tmp_path: Path) -> None:
    tests = """
  - it: stores what is for support
    given: {to: support@example.com}
    expect: {rules: [support], actions: [add_header, s3], reply: "250", at: data}
"""
    (result,) = results(tmp_path, tests)
    assert result.passed
    assert result.problem is None
    assert result.name == "stores what is for support"


def test_a_test_that_fails_says_what_was_expected_what_was_found_and_how_each_rule_fared(tmp_path: Path) -> None:
    tests = """
  - it: refuses malware
    given: {to: support@example.com}
    expect: {rules: [refuse-malware], actions: [bounce], reply: 554 5.7.1, at: rcpt}
"""
    (result,) = results(tmp_path, tests)
    assert not result.passed
    assert result.problem is not None
    assert str(result.problem).partition("rules.yaml:")[2] == (
        "23:5: failed: it refuses malware\n"
        "    expected rules: [refuse-malware], met: [support]\n"
        "    expected actions: [bounce], found: [add_header, s3]\n"
        f"    expected reply: 554 5.7.1, found: 250 2.0.0 OK {'0' * 40}\n"
        "    expected at RCPT, answered at DATA\n"
        "    support@example.com: gone not met, support@example.com is none of its recipients\n"
        "    support@example.com: sealed not met, support@example.com is none of its recipients\n"
        "    support@example.com: refuse-malware not met, virus is PASS, not fail\n"
        "    support@example.com: alone not met, support@example.com is none of its recipients\n"
        "    support@example.com: support met, it has no condition"
    )


@pytest.mark.parametrize(
    ("given", "expect", "passes"),
    [
        ("to: gone@example.com", "rules: [gone], actions: [bounce], reply: 550 5.1.6 Gone, at: rcpt", True),
        ("to: gone@example.com", "at: data", False),
        ("to: nobody@example.com", "rules: [], actions: [], reply: 550 5.1.1, at: rcpt", True),
        ("to: tls@example.com", "rules: [sealed], at: data", True),
        ("to: tls@example.com, tls: no", "reply: 530 5.7.0, at: rcpt", True),
        ("to: support@example.com, tls: no", "reply: '250'", True),
        ("to: support@example.com, verdicts: {virus: FAIL}", "reply: '554', rules: [refuse-malware]", True),
        (
            "to: support@example.com, verdicts: {virus: processing_failed}",
            "reply: 451 4.7.0, rules: [], actions: []",
            True,
        ),
        ("to: alone@example.com, verdicts: {spam: gray}", "reply: 550 5.7.1, rules: [], actions: []", True),
        ("to: [support@example.com, sales@example.com]", "rules: [support], actions: [add_header, s3]", True),
        ("to: [gone@example.com, gone+x@example.com]", "reply: 550 5.1.6, at: rcpt, rules: [gone]", True),
        ("to: [support@example.com, gone@example.com]", "reply: 452 4.5.3, at: rcpt", True),
        ("to: [support@example.com, alone@example.com]", "reply: 452 4.5.3, at: rcpt", True),
        ("to: support@example.com", "reply: 250 2.0.0 OK", True),
        ("to: support@example.com", "reply: '25'", False),
        ("to: support@example.com", "{}", True),
    ],
)
def test_a_given_mail_goes_the_way_of_a_real_one(tmp_path: Path, given: str, expect: str, passes: bool) -> None:
    expect = expect if expect == "{}" else f"{{{expect}}}"
    (result,) = results(tmp_path, f"  - {{it: x, given: {{{given}}}, expect: {expect}}}")
    assert result.passed is passes, result.problem


def test_with_the_domains_of_the_settings_others_are_refused_as_in_earnest(tmp_path: Path) -> None:
    test = "  - {it: x, given: {to: support@example.com}, expect: {reply: 550 5.7.1, at: rcpt}}"
    assert [result.passed for result in results(tmp_path, test, domains=("example.org", ".example.com"))] == [True]
    assert [result.passed for result in results(tmp_path, test, domains=("example.org", "example.com"))] == [False]
    post = "  - {it: x, given: {to: postmaster}, expect: {reply: '250'}}"
    text = "rules: [{name: r, recipients: [postmaster@example.com], actions: [drop]}]"
    assert [result.passed for result in results(tmp_path, post, text, domains=("example.com",))] == [True]


ORDINARY = (
    "{spf: pass, dkim: pass, dmarc: pass, spam: pass, virus: pass, arc: none, iprev: pass, blocked: no, tls: yes,"
    " dnsbl: {present: no}, mail_from: sender@example.net, from: sender@example.net, to: you@example.com,"
    " subject: hello, helo: mail.example.net, client_ip: 192.0.2.1, tls_version: TLSv1.3, size: {below: 1 KiB},"
    " recipient_count: 1, header.Date: {present: yes}, header.Message-ID: {present: yes}, dmarc_policy: none,"
    " spam_score: 0, attachment.type: {present: no}, cc: {present: no}}"
)


def test_what_is_left_out_is_an_ordinary_mail_that_passed_every_check(tmp_path: Path) -> None:
    assert outcome(tmp_path, ORDINARY).rules == ("fits",)


@pytest.mark.parametrize(
    ("given", "when"),
    [
        ({"mail_from": ""}, "{mail_from: ''}"),
        ({"from_": "Boss <boss@example.com>"}, "{from: boss@example.com}"),
        ({"subject": "Grüße"}, "{subject: grüße}"),
        ({"headers": {"X-A": ("b", "c"), "subject": "Other"}}, "{header.X-A: c, subject: other}"),
        ({"headers": {"List-Id": "<a.example>"}}, "{header.list-id: {present: yes}}"),
        ({"helo": "[192.0.2.1]"}, "{helo: '[192.0.2.1]'}"),
        ({"client_ip": "2001:db8::1"}, "{client_ip: '2001:db8::/32'}"),
        ({"tls": "no"}, "{tls: no}"),
        ({"tls": "TLSv1.2"}, "{tls_version: TLSv1.2}"),
        ({"blocked": True}, "{blocked: yes}"),
        ({"dnsbl": ("zen.example",)}, "{dnsbl: zen.example}"),
        ({"size": 5000}, "{size: 5000}"),
        ({"attachments": ({"name": "a.exe", "type": "application/x-dosexec"},)}, "{attachment.name: a.exe}"),
        (
            {"attachments": ({"name": "a.exe", "type": "application/x-dosexec"},)},
            "{attachment.type: {ends_with: exec}}",
        ),
        ({"verdicts": {"spf": "softfail"}}, "{spf: fail}"),
        ({"verdicts": {"spf": "softfail"}}, "{spf: softfail}"),
        ({"verdicts": {"spf": "neutral"}}, "{spf: gray}"),
        ({"verdicts": {"dkim": "policy"}}, "{dkim: gray}"),
        ({"verdicts": {"dmarc": "none"}}, "{dmarc: gray, not: {dmarc_policy: none}}"),
        ({"verdicts": {"dmarc": "FAIL", "dmarc_policy": "Reject"}}, "{dmarc: fail, dmarc_policy: reject}"),
        ({"verdicts": {"dkim": "temperror"}}, "{dkim: processing_failed}"),
        ({"verdicts": {"dkim": "processing_failed"}}, "{dkim: temperror}"),
        ({"verdicts": {"spf": "disabled"}}, "{spf: disabled}"),
        ({"verdicts": {"arc": "pass", "iprev": "permerror"}}, "{arc: pass, iprev: permerror}"),
        ({"verdicts": {"spam": "gray"}}, "{spam: gray, spam_score: {above: 3}}"),
        ({"verdicts": {"spam_score": "7.5"}}, "{spam_score: 7.5}"),
        ({"verdicts": {"virus": "gray"}}, "{virus: gray}"),
    ],
)
def test_everything_can_be_given(tmp_path: Path, given: dict[str, object], when: str) -> None:
    assert outcome(tmp_path, when, **given).rules == ("fits",)
    assert outcome(tmp_path, when).rules == ("rest",)


def test_where_no_rule_wants_a_scan_spam_and_virus_are_disabled_whatever_is_given(tmp_path: Path) -> None:
    text = """
rules:
  - {name: v, scan: no, recipients: [a@example.com], when: {virus: disabled, spam: disabled}, actions: [drop]}
  - {name: w, scan: no, recipients: [a@example.com], when: {virus: fail}, actions: [{bounce: {message: No}}]}
"""
    test = "  - {it: x, given: {to: a@example.com, verdicts: {virus: fail, spam: fail}}, expect: {rules: [v]}}"
    assert [result.passed for result in results(tmp_path, test, text)] == [True]


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ("{given: {to: a}, expect: {}}", "the key 'it' is missing"),
        ("{it: x, expect: {}}", "the key 'given' is missing"),
        ("{it: x, given: {to: a}}", "the key 'expect' is missing"),
        ("{it: x, given: {to: a, form: b}, expect: {}}", "unknown key 'form', did you mean 'from'?"),
        ("{it: x, given: {to: {}}, expect: {}}", "expected text, found a mapping"),
        ("{it: x, given: {to: a, client_ip: 192.0.2.0/24}, expect: {}}", "'192.0.2.0/24' is no IP address"),
        ("{it: x, given: {to: a, tls: maybe}, expect: {}}", "expected 'yes', 'no', 'tlsv1'"),
        ('{it: x, given: {to: a, subject: "a\\r\\nX-B: c"}, expect: {}}', "a header field of a given mail is one line"),
        ("{it: x, given: {to: a, size: 9999999999}, expect: {}}", "less than or equal to"),
        ("{it: x, given: {to: a, size: -1}, expect: {}}", "greater than or equal to 0"),
        ("{it: x, given: {to: a, verdicts: {spf: fial}}, expect: {}}", "did you mean 'fail'?"),
        ("{it: x, given: {to: a, verdicts: {spff: fail}}, expect: {}}", "unknown key 'spff', did you mean 'spf'?"),
        ("{it: x, given: {to: a}, expect: {at: mail}}", "expected 'rcpt' or 'data', found 'mail'"),
        ("{it: x, given: {to: a}, expect: {rules: a}}", "expected a list, found 'a': write [a]"),
    ],
)
def test_a_mistake_in_a_test_is_told_with_those_in_the_rules(tmp_path: Path, test: str, says: str) -> None:
    (problem, *_) = mistakes(tmp_path, f"rules: [{{name: a, actions: [drop]}}]\ntests:\n  - {test}")
    assert says in problem
    assert problem.startswith("rules.yaml:3:")


@pytest.mark.parametrize(
    ("recipients", "spam", "split", "reply", "actions"),
    [
        ("support@example.com, alone@example.com", "fail", True, "452 4.5.3", ()),
        ("support@example.com, alone@example.com", "fail", False, "250 2.0.0", ("add_header", "s3")),
        ("support@example.com, alone@example.com", "pass", False, "250 2.0.0", ("s3", "add_header", "s3")),
        ("alone@example.com", "fail", False, "550 5.7.1", ()),
        ("support@example.com, gone@example.com", "pass", True, "452 4.5.3", ()),
        ("support@example.com, gone@example.com", "pass", False, "250 2.0.0", ("add_header", "s3")),
    ],
)
def test_recipients_share_a_transaction_where_the_settings_let_them(
    tmp_path: Path, recipients: str, spam: str, split: bool, reply: str, actions: tuple[str, ...]
) -> None:
    given = Given(to=tuple(recipients.split(", ")), verdicts=Found(spam=spam))  # type: ignore[arg-type]
    came = came_of(rules(tmp_path, SET), given, split=split)
    assert (str(came.reply)[:9], came.actions) == (reply, actions)
