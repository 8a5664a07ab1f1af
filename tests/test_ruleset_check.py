"""What `rules check` warns of."""

from pathlib import Path
from typing import Literal

import pytest

from inbound.actions.kinds import ACTIONS
from inbound.rulecheck import warnings
from inbound.ruleset import load
from inbound.settings import Dsn, Relay, Settings, Trusted
from tests.ruling import rules

CLAMD = "unix:/run/clamav/clamd.ctl"
SERVED = "  - {name: admin, recipients: [postmaster@example.com, abuse@example.com], actions: [{s3: {bucket: admin}}, stop]}\n"
BOUNCE = "[{bounce: {smtp_reply_code: 550, status_code: 5.7.1, message: No}}]"


def told(
    tmp_path: Path, text: str, domains: tuple[str, ...] = ("example.com",), *, virus_scan: bool = True
) -> list[str]:
    ruleset = rules(tmp_path, "rules:\n" + SERVED + text)
    return [
        problem.message for problem in warnings(ruleset, Settings(domains=domains, clamd=CLAMD if virus_scan else ""))
    ]


HERE = Relay(host="127.0.0.1", port=10025)
NOWHERE = Relay()
SEVERAL = (
    "warning: rule 'r' relays for several recipients, and the settings have neither `relay` nor `dsn`: when the next hop "
    "refuses one of a message's recipients and takes another, the sender is answered 451 until it gives up"
)


@pytest.mark.parametrize(
    ("rule", "relay", "dsn", "warned"),
    [
        ("actions: [{relay: {host: 127.0.0.1}}]", NOWHERE, "relay", [SEVERAL]),
        ("actions: [{relay: {host: 127.0.0.1}}]", NOWHERE, "outbox", []),
        ("actions: [relay]", HERE, "relay", []),
        ("actions: [{relay: {host: 127.0.0.1, on_failure: continue}}, {s3: {bucket: kept}}]", NOWHERE, "relay", []),
        ("recipients: [x@example.com], actions: [relay]", HERE, "relay", []),
        ("recipients: [x@example.com], actions: [relay]", Relay(host="::1"), "relay", []),
        ("recipients: [x@example.com], actions: [relay]", Relay(host="localhost"), "relay", []),
        (
            "recipients: [x@example.com], actions: [relay]",
            Relay(host="in.example"),
            "relay",
            ["warning: rule 'r' relays to in.example:25 with tls: opportunistic, so others may read it on the way"],
        ),
        ("recipients: [x@example.com], actions: [relay]", Relay(host="in.example", tls="require"), "relay", []),
        (
            "recipients: [x@example.com], actions: [{relay: {host: 192.0.2.1, tls: none}}]",
            HERE,
            "relay",
            ["warning: rule 'r' relays to 192.0.2.1:25 with tls: none, so others may read it on the way"],
        ),
        (
            "recipients: [x@example.com], actions: [{relay: {host: MX.example.com, tls: verify}}]",
            HERE,
            "relay",
            ["warning: rule 'r' relays to mx.example.com:25, which is our own hostname"],
        ),
    ],
)
def test_mail_that_is_handed_on_where_it_should_not(
    tmp_path: Path, rule: str, relay: Relay, dsn: Literal["relay", "outbox"], warned: list[str]
) -> None:
    ruleset = rules(tmp_path, f"rules:\n{SERVED}  - {{name: r, {rule}}}\n")
    settings = Settings(
        domains=("example.com",), clamd=CLAMD, hostname="mx.example.com", relay=relay, dsn=Dsn(through=dsn)
    )
    assert [problem.message for problem in warnings(ruleset, settings)] == warned


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("recipients: [a@example.com], actions: [drop]", "recipients: [a@example.com], actions: [drop]"),
        ("recipients: [a@example.com], actions: [drop]", "recipients: [a+b@example.com], actions: [drop]"),
        ("recipients: [example.com], actions: [drop]", "recipients: [a@example.com, b@example.com], actions: [drop]"),
        ("recipients: [.com], actions: [drop]", "recipients: [example.com, .example.com], actions: [drop]"),
        ("actions: [drop]", "recipients: [a@example.com], when: {spam: fail}, actions: [drop]"),
        ("actions: [drop]", "actions: [drop]"),
        ("recipients: [example.com, .example.com], actions: [drop]", "actions: [drop]"),
        ("when: {spam: fail}, actions: [drop]", "recipients: [a@example.com], when: {spam: fail}, actions: [drop]"),
        (f"when: {{spam: fail}}, actions: {BOUNCE}", "when: {spam: fail}, actions: [drop]"),
    ],
)
def test_a_rule_that_is_never_met(tmp_path: Path, first: str, second: str) -> None:
    text = f"  - {{name: first, {first}}}\n  - {{name: second, {second}}}\n"
    assert [one for one in told(tmp_path, text, ("example.com", ".example.com")) if "never met" in one] == [
        "warning: rule 'second' is never met: first before it ends the walk of all its recipients"
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("recipients: [a@example.com], actions: [drop]", "recipients: [b@example.com], actions: [drop]"),
        ("recipients: [a+b@example.com], actions: [drop]", "recipients: [a@example.com], actions: [drop]"),
        ("recipients: [a@example.com], actions: [drop]", "recipients: [a@example.com, b@example.com], actions: [drop]"),
        ("recipients: [.example.com], actions: [drop]", "recipients: [example.com], actions: [drop]"),
        ("recipients: [sub.example.com], actions: [drop]", "recipients: [.example.com], actions: [drop]"),
        ("when: {spam: fail}, actions: [drop]", "actions: [drop]"),
        ("when: {spam: fail}, actions: [drop]", "when: {spam: gray}, actions: [drop]"),
        ("unless: {spam: fail}, actions: [drop]", "actions: [drop]"),
        ("enabled: no, actions: [drop]", "actions: [drop]"),
        (f"actions: {BOUNCE.replace('No}', 'No, then: continue}')}", "actions: [drop]"),
    ],
)
def test_a_rule_that_is_met_by_some_mail(tmp_path: Path, first: str, second: str) -> None:
    text = f"  - {{name: first, {first}}}\n  - {{name: second, {second}}}\n"
    assert [one for one in told(tmp_path, text, ("example.com", ".example.com")) if "never met" in one] == []


def test_two_rules_may_block_a_third_together(tmp_path: Path) -> None:
    text = (
        "  - {name: one, recipients: [a@example.com], actions: [drop]}\n"
        "  - {name: two, recipients: [b@example.com], actions: [drop]}\n"
        "  - {name: three, recipients: [a@example.com, b@example.com], actions: [drop]}\n"
    )
    assert told(tmp_path, text) == [
        "warning: rule 'three' is never met: one and two before it ends the walk of all its recipients"
    ]


def test_a_question_about_viruses_without_a_scanner(tmp_path: Path) -> None:
    text = f"  - {{name: v, when: {{any: [{{not: {{virus: pass}}}}, {{spam: fail}}]}}, actions: {BOUNCE}}}\n"
    assert told(tmp_path, text) == []
    assert told(tmp_path, text, virus_scan=False) == [
        "warning: rule 'v' asks about viruses, but there is no scanner: the verdict is always DISABLED"
    ]


def test_a_question_about_an_upstream_where_none_is_trusted(tmp_path: Path) -> None:
    text = f"  - {{name: u, unless: {{upstream: pass}}, actions: {BOUNCE}}}\n"
    assert told(tmp_path, text) == [
        "warning: rule 'u' asks about an upstream, but the settings trust none: the verdict is always none"
    ]
    trusted = Trusted(authserv_ids=("mx.forwarder.example",), forwarders=("192.0.2.1",))
    ruleset = rules(tmp_path, "rules:\n" + SERVED + text)
    assert warnings(ruleset, Settings(domains=("example.com",), clamd=CLAMD, trusted=trusted)) == ()


def test_a_rule_that_asks_about_spam_and_wants_no_scan(tmp_path: Path) -> None:
    text = f"  - {{name: s, scan: no, unless: {{spam_score: {{below: 3}}}}, actions: {BOUNCE}}}\n"
    assert told(tmp_path, text) == [
        "warning: rule 's' asks about spam or viruses and says scan: no; only another rule's scan can answer it"
    ]


def test_postmaster_and_abuse_of_every_domain(tmp_path: Path) -> None:
    text = "  - {name: a, recipients: [postmaster@example.org], actions: [drop]}\n"
    assert told(tmp_path, text, ("example.com", "example.org", ".example.org")) == [
        "warning: no rule covers abuse@example.org (RFC 5321 4.5.1, RFC 2142)",
        "warning: no rule covers postmaster@any.example.org and abuse@any.example.org (RFC 5321 4.5.1, RFC 2142)",
    ]


@pytest.mark.parametrize(
    ("recipient", "domains", "elsewhere"),
    [
        ("a@example.net", ("example.com",), True),
        ("example.net", ("example.com",), True),
        (".example.net", ("example.com",), True),
        ("a@sub.example.com", ("example.com",), True),
        ("a@sub.example.com", ("example.com", ".example.com"), False),
        (".example.com", ("example.com", "sub.example.com"), False),
        (".com", ("example.com",), False),
        ("example.com", ("example.com",), False),
    ],
)
def test_recipients_that_are_not_ours(
    tmp_path: Path, recipient: str, domains: tuple[str, ...], elsewhere: bool
) -> None:
    found = told(
        tmp_path, f"  - {{name: r, recipients: ['{recipient}'], actions: [{{s3: {{bucket: bucket}}}}]}}\n", domains
    )
    assert any(f"names {recipient}, not at one of our domains" in one for one in found) is elsewhere


def test_many_recipients_that_are_not_ours_are_told_in_one_line(tmp_path: Path) -> None:
    recipients = ", ".join(f"u{at}@example.net" for at in range(9))
    (warning,) = told(tmp_path, f"  - {{name: r, recipients: [{recipients}], actions: [{{s3: {{bucket: bucket}}}}]}}\n")
    named = "u0@example.net, u1@example.net, u2@example.net and 6 more"
    assert warning == f"warning: rule 'r' names {named}, not at one of our domains (example.com)"


@pytest.mark.parametrize(
    ("first", "second", "twice"),
    [
        ("recipients: [example.com], actions: [{s3: {bucket: bucket, prefix: in/}}]", "prefix: in", True),
        ("actions: [{s3: {bucket: bucket, prefix: in}}]", "prefix: in", True),
        ("recipients: [other@example.com], actions: [{s3: {bucket: bucket, prefix: in}}]", "prefix: in", False),
        ("recipients: [example.com], actions: [{s3: {bucket: bucket, prefix: in}}]", "prefix: out", False),
        ("recipients: [example.com], actions: [{s3: {bucket: other, prefix: in}}]", "prefix: in", False),
        (
            "recipients: [example.com], when: {spam: fail}, actions: [{s3: {bucket: bucket, prefix: in}}, stop]",
            "prefix: in",
            False,
        ),
    ],
)
def test_one_message_stored_under_one_key_by_two_rules(tmp_path: Path, first: str, second: str, twice: bool) -> None:
    text = (
        f"  - {{name: first, {first}}}\n"
        f"  - {{name: second, recipients: [a@example.com], actions: [{{s3: {{bucket: bucket, {second}}}}}]}}\n"
    )
    message = "warning: rule 'second' stores in bucket/in where 'first' has stored the message already; only the first is kept"
    assert told(tmp_path, text) == ([message] if twice else [])


def test_the_shipped_rules_give_no_warning() -> None:
    assert warnings(load(Path("rules"), ACTIONS), Settings(clamd=CLAMD)) == ()
