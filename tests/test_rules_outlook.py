"""What RCPT can know: refusals that are certain, and which recipients may share a transaction."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from inbound.actions.kinds import ACTIONS
from inbound.reply import Reply
from inbound.rules import UNTAKEN, Outlook, RuleSet, outlook
from inbound.ruleset import load
from inbound.verdicts import BlockVerdict
from tests.ruling import CLIENT, rules

GONE = "{bounce: {smtp_reply_code: 550, status_code: 5.1.6, message: Gone}}"
TOPIC = "arn:aws:sns:us-east-1:000000000000:t"
TELLING = GONE.replace("Gone}", f"Gone, topic_arn: '{TOPIC}'}}")
LATER = "{bounce: {smtp_reply_code: 450, status_code: 4.2.1, message: Later}}"
GONE_REPLY = Reply(550, "5.1.6", "Gone")
STORE = "{s3: {bucket: bucket}}"


def ahead(ruleset: RuleSet, recipient: str = "a@example.com", **known: Any) -> Outlook:
    client = replace(CLIENT, ip=ip_address(str(known.get("ip", "192.0.2.1"))))
    block = BlockVerdict(blocked=bool(known.get("blocked", False)))
    return outlook(
        ruleset, recipient, client=client, mail_from=str(known.get("mail_from", "s@example.net")), block=block
    )


def refusal(tmp_path: Path, text: str, **known: Any) -> Reply | None:
    return ahead(rules(tmp_path, f"rules:\n{text}"), **known).refusal


def rule(name: str, keys: str) -> str:
    return f"  - {{name: {name}, {keys}}}\n"


@pytest.mark.parametrize(
    ("first", "refused"),
    [
        (f"actions: [{GONE}]", GONE_REPLY),
        (f"recipients: [a@example.com], actions: [{GONE}]", GONE_REPLY),
        (f"recipients: [b@example.com], actions: [{GONE}]", None),
        (f"enabled: no, actions: [{GONE}]", None),
        (f"when: {{client_ip: 192.0.2.0/24}}, actions: [{GONE}]", GONE_REPLY),
        (f"when: {{client_ip: 10.0.0.0/8}}, actions: [{GONE}]", None),
        (f"unless: {{client_ip: 192.0.2.0/24}}, actions: [{GONE}]", None),
        (f"unless: {{tls: no}}, actions: [{GONE}]", GONE_REPLY),
        (f"when: {{mail_from: s@example.net, helo: mail.example.net}}, actions: [{GONE}]", GONE_REPLY),
        (f"when: {{spam: fail}}, actions: [{GONE}]", None),
        (f"when: {{any: [{{spam: fail}}, {{tls: yes}}]}}, actions: [{GONE}]", GONE_REPLY),
        (f"when: {{all: [{{spam: fail}}, {{tls: no}}]}}, actions: [{GONE}]", None),
        (f"undecided: skip, when: {{spam: fail}}, actions: [{GONE}]", None),
        # A header field is no effect in the world; a stored message, a call and a notification are.
        (f"actions: [{{add_header: {{name: X-A, value: b}}}}, {GONE}]", GONE_REPLY),
        (f"actions: [{STORE}, {GONE}]", None),
        (f"actions: [{{lambda: {{function: f}}}}, {GONE}]", None),
        (f"actions: [{GONE.replace('Gone}', 'Gone, then: continue}')}]", None),
        # What has a topic to tell needs the message to tell of.
        (f"actions: [{TELLING}]", None),
        (f"actions: [{{add_header: {{name: X-A, value: b, topic_arn: '{TOPIC}'}}}}, {GONE}]", None),
        (
            f"actions: [{LATER}]",
            Reply(450, "4.2.1", "Later"),
        ),
        ("actions: [stop]", None),
        ("actions: [drop]", None),
    ],
)
def test_a_refusal_is_given_at_rcpt_when_it_is_certain_and_nothing_is_done_before_it(
    tmp_path: Path, first: str, refused: Reply | None
) -> None:
    assert refusal(tmp_path, rule("first", first) + rule("rest", f"actions: [{STORE}]")) == refused


def test_an_undecided_rule_before_it_makes_a_refusal_uncertain(tmp_path: Path) -> None:
    text = rule("maybe", f"when: {{spam: fail}}, actions: [{STORE}, stop]") + rule("gone", f"actions: [{GONE}]")
    assert refusal(tmp_path, text) is None


def test_a_rule_that_cannot_be_met_does_not(tmp_path: Path) -> None:
    text = rule("never", f"when: {{spam: fail, tls: no}}, actions: [{STORE}, stop]") + rule(
        "gone", f"actions: [{GONE}]"
    )
    assert refusal(tmp_path, text) == GONE_REPLY


def test_a_walk_that_is_sure_to_end_in_nothing_is_refused_at_rcpt(tmp_path: Path) -> None:
    text = rule("partners", f"recipients: [a@example.com], when: {{client_ip: 10.0.0.0/8}}, actions: [{STORE}]")
    assert refusal(tmp_path, text) == UNTAKEN
    assert refusal(tmp_path, text, ip="10.1.1.1") is None
    assert refusal(tmp_path, rule("marks", "actions: [{add_header: {name: X-A, value: b}}]")) == UNTAKEN


def test_a_blocked_client_can_be_refused_by_a_rule(tmp_path: Path) -> None:
    text = rule("blocked", f"when: {{blocked: yes}}, actions: [{GONE}]") + rule("rest", f"actions: [{STORE}]")
    assert refusal(tmp_path, text, blocked=True) == GONE_REPLY
    assert refusal(tmp_path, text) is None


SHARED = {
    "both are stored, each its own way": (
        rule("a", f"recipients: [a@example.com], actions: [{STORE}]")
        + rule("b", "recipients: [b@example.com], actions: [{s3: {bucket: other}}, {lambda: {function: f}}, stop]"),
        True,
    ),
    "both are stored, one of them unless it is spam, which another rule stores": (
        rule("a", f"recipients: [a@example.com], unless: {{spam: fail}}, actions: [{STORE}, stop]")
        + rule("rest", f"actions: [{STORE}]"),
        True,
    ),
    "one is dropped": (
        rule("a", "recipients: [a@example.com], actions: [drop]")
        + rule("b", f"recipients: [b@example.com], actions: [{STORE}]"),
        True,
    ),
    "a rule for both may refuse": (
        rule("virus", f"when: {{virus: fail}}, actions: [{GONE}]") + rule("rest", f"actions: [{STORE}]"),
        True,
    ),
    "the same refusal stands in two rules": (
        rule("a", f"recipients: [a@example.com], when: {{virus: fail}}, actions: [{GONE}]")
        + rule("b", f"recipients: [b@example.com], when: {{virus: fail}}, actions: [{GONE}]")
        + rule("rest", f"actions: [{STORE}]"),
        True,
    ),
    "one may be refused": (
        rule("a", f"recipients: [a@example.com], when: {{virus: fail}}, actions: [{GONE}]")
        + rule("rest", f"actions: [{STORE}]"),
        False,
    ),
    "they may be refused for different reasons": (
        rule("a", f"recipients: [a@example.com], when: {{virus: fail}}, actions: [{GONE}]")
        + rule("b", f"recipients: [b@example.com], when: {{spam: fail}}, actions: [{GONE}]")
        + rule("rest", f"actions: [{STORE}]"),
        False,
    ),
    "they may be refused with different words": (
        rule("a", f"recipients: [a@example.com], when: {{virus: fail}}, actions: [{GONE}]")
        + rule("b", f"recipients: [b@example.com], when: {{virus: fail}}, actions: [{GONE.replace('Gone', 'Went')}]")
        + rule("rest", f"actions: [{STORE}]"),
        False,
    ),
    "one may be refused, but what is known rules it out": (
        rule("a", f"recipients: [a@example.com], when: {{virus: fail, tls: no}}, actions: [{GONE}]")
        + rule("rest", f"actions: [{STORE}]"),
        True,
    ),
    "one may end in no rule taking it": (
        rule("a", f"recipients: [a@example.com], when: {{spam: pass}}, actions: [{STORE}]")
        + rule("b", f"recipients: [b@example.com], actions: [{STORE}]"),
        False,
    ),
    "one is stored before the refusal that both may meet": (
        rule("a", f"recipients: [a@example.com], actions: [{STORE}]")
        + rule("virus", f"when: {{virus: fail}}, actions: [{GONE}]")
        + rule("rest", f"actions: [{STORE}]"),
        True,
    ),
    "one has ended before the refusal that the other may meet": (
        rule("a", f"recipients: [a@example.com], when: {{spam: gray}}, actions: [{STORE}, stop]")
        + rule("virus", f"when: {{virus: fail}}, actions: [{GONE}]")
        + rule("rest", f"actions: [{STORE}]"),
        False,
    ),
    "a function that is waited for answers for one": (
        rule("a", "recipients: [a@example.com], actions: [{lambda: {function: f, invocation: request_response}}]")
        + rule("b", f"recipients: [b@example.com], actions: [{STORE}]"),
        False,
    ),
    "a function that is waited for answers for both": (
        rule("ab", "actions: [{lambda: {function: f, invocation: request_response}}]"),
        True,
    ),
    "the function of each answers for itself": (
        rule("a", "recipients: [a@example.com], actions: [{lambda: {function: f, invocation: request_response}}]")
        + rule("b", "recipients: [b@example.com], actions: [{lambda: {function: f, invocation: request_response}}]"),
        False,
    ),
    "a topic takes no large message": (
        rule("a", "recipients: [a@example.com], actions: [{sns: {topic_arn: 'arn:aws:sns:us-east-1:000000000000:t'}}]")
        + rule("b", f"recipients: [b@example.com], actions: [{STORE}]"),
        False,
    ),
    "a topic takes no large message of either": (
        rule("a", "recipients: [a@example.com], actions: [{sns: {topic_arn: 'arn:aws:sns:us-east-1:000000000000:t'}}]")
        + rule(
            "b", "recipients: [b@example.com], actions: [{sns: {topic_arn: 'arn:aws:sns:us-east-1:000000000000:u'}}]"
        ),
        True,
    ),
}


@pytest.mark.parametrize(("text", "shared"), SHARED.values(), ids=SHARED)
def test_recipients_share_a_transaction_when_they_can_never_need_different_answers(
    tmp_path: Path, text: str, shared: bool
) -> None:
    ruleset = rules(tmp_path, f"rules:\n{text}")
    answers = [ahead(ruleset, recipient).answers for recipient in ("a@example.com", "b@example.com")]
    assert (answers[0] == answers[1]) is shared
    assert (len(set(answers)) == 1) is shared


def test_what_nothing_can_refuse_has_one_answer_whatever_the_rules(tmp_path: Path) -> None:
    one = ahead(rules(tmp_path, f"rules:\n{rule('a', f'actions: [{STORE}]')}"))
    other = ahead(
        rules(tmp_path, f"rules:\n{rule('b', 'when: {spam: fail}, actions: [drop]')}{rule('c', 'actions: [drop]')}")
    )
    assert one.answers == other.answers == "taken"


def test_the_addresses_of_the_shipped_rules_share_transactions() -> None:
    ruleset = load(Path("rules"), ACTIONS)
    people = ["support@example.com", "orders@example.com", "payroll@example.com", "support+x@example.com"]
    admins = ["postmaster@example.com", "abuse@example.com", "postmaster"]
    assert len({ahead(ruleset, recipient).answers for recipient in people}) == 1
    assert len({ahead(ruleset, recipient).answers for recipient in admins}) == 1
    assert ahead(ruleset, "old-shop@example.com").refusal is not None


def test_two_hundred_rules_with_doubtful_answers_are_no_work(tmp_path: Path) -> None:
    text = "".join(
        rule(
            f"r{at}", f"when: {{subject: s{at}}}, actions: [{{bounce: {{message: No {at}, then: continue}}}}, {STORE}]"
        )
        for at in range(200)
    )
    assert ahead(rules(tmp_path, f"rules:\n{text}")).refusal is None
