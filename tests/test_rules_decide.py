"""Which rules a recipient meets, and the one reply that follows."""

from pathlib import Path

import pytest

from inbound.reply import Reply
from inbound.rules import DIFFERENT_ANSWERS, NO_RULE_TOOK_IT, SEPARATE, UNDECIDED, UNTAKEN, Decision, decide
from inbound.verdicts import DmarcVerdict, Status
from tests.ruling import PASSED, mail, rules, verdicts

SET = """
rules:
  - name: refuse-malware
    when: {virus: fail}
    actions:
      - bounce: {smtp_reply_code: 554, status_code: 5.7.1, message: Message contains malware}
  - name: support
    recipients: [support@example.com]
    unless: {any: [{spam: fail}, {all: [{dmarc: fail}, {dmarc_policy: reject}]}]}
    actions:
      - add_header: {name: X-Queue, value: support}
      - s3: {bucket: mail-support}
      - stop
  - name: archive
    recipients: [example.com]
    actions: [{s3: {bucket: archive}}]
  - name: off
    enabled: no
    actions: [drop]
"""


def traces(decision: Decision, recipient: int = 0) -> list[tuple[str, bool | None, str]]:
    return [(trace.name, trace.met, trace.why) for trace in decision.walks[recipient].traces]


def test_a_recipient_meets_rules_from_top_to_bottom_until_one_ends_the_walk(tmp_path: Path) -> None:
    decision = decide(rules(tmp_path, SET), mail("support@example.com"), PASSED)
    assert [step.rule.name for step in decision.steps] == ["support"]
    assert decision.walks[0].actions == ("add_header", "s3", "stop")
    assert Reply(250, "2.0.0", "OK " + "0" * 40) == decision.reply
    assert traces(decision) == [
        ("refuse-malware", False, "virus is PASS, not fail"),
        ("support", True, "spam is PASS, not fail; dmarc is PASS (pass), not fail"),
    ]


def test_every_rule_says_why_it_was_not_met(tmp_path: Path) -> None:
    failed = DmarcVerdict(status=Status.FAIL, result="fail", applied_policy="reject")
    decision = decide(rules(tmp_path, SET), mail("support@example.com"), verdicts(dmarc=failed))
    assert traces(decision) == [
        ("refuse-malware", False, "virus is PASS, not fail"),
        ("support", False, "unless: dmarc is FAIL (fail); dmarc_policy is reject"),
        ("archive", True, "it has no condition"),
        ("off", False, "it is disabled"),
    ]


def test_a_refusal_has_the_reply_of_its_rule(tmp_path: Path) -> None:
    decision = decide(rules(tmp_path, SET), mail("support@example.com"), verdicts(virus=Status.FAIL))
    assert Reply(554, "5.7.1", "Message contains malware") == decision.reply
    assert [step.rule.name for step in decision.steps] == ["refuse-malware"]
    assert decision.walks[0].actions == ("bounce",)
    assert decision.reason == ""


def test_recipients_that_meet_the_same_rule_share_one_step(tmp_path: Path) -> None:
    decision = decide(rules(tmp_path, SET), mail("a@example.com", "support@example.com", "b@example.com"), PASSED)
    assert [(step.rule.name, step.recipients) for step in decision.steps] == [
        ("support", ("support@example.com",)),
        ("archive", ("a@example.com", "b@example.com")),
    ]


def test_a_recipient_given_twice_walks_once(tmp_path: Path) -> None:
    decision = decide(rules(tmp_path, SET), mail("a@example.com", "a@example.com"), PASSED)
    assert [walk.recipient for walk in decision.walks] == ["a@example.com"]


def test_a_broken_check_defers_everything_and_does_nothing(tmp_path: Path) -> None:
    decision = decide(
        rules(tmp_path, SET), mail("a@example.com", "b@example.com"), verdicts(virus=Status.PROCESSING_FAILED)
    )
    assert Reply(451, "4.7.0", "The virus check could not be completed, please try again later") == decision.reply
    assert decision.steps == ()
    assert traces(decision) == [("refuse-malware", None, "virus is PROCESSING_FAILED")]
    assert decision.reason == UNDECIDED


def test_one_undecided_recipient_defers_the_others_too(tmp_path: Path) -> None:
    decision = decide(
        rules(tmp_path, SET), mail("a@example.com", "support@example.com"), verdicts(spam=Status.PROCESSING_FAILED)
    )
    assert [str(walk.reply)[:3] for walk in decision.walks] == ["250", "451"]
    assert decision.reply.text == "The spam check could not be completed, please try again later"
    assert decision.steps == ()


def test_a_rule_may_say_that_it_is_passed_over_while_undecided(tmp_path: Path) -> None:
    text = SET.replace("    when: {virus: fail}", "    when: {virus: fail}\n    undecided: skip")
    decision = decide(rules(tmp_path, text), mail("a@example.com"), verdicts(virus=Status.PROCESSING_FAILED))
    assert decision.reply.accepts
    assert traces(decision)[0] == (
        "refuse-malware",
        None,
        "virus is PROCESSING_FAILED; passed over, as it says undecided: skip",
    )


def test_a_condition_that_names_the_status_is_decided(tmp_path: Path) -> None:
    text = SET.replace("{virus: fail}", "{virus: [fail, processing_failed]}")
    decision = decide(rules(tmp_path, text), mail("a@example.com"), verdicts(virus=Status.PROCESSING_FAILED))
    assert Reply(554, "5.7.1", "Message contains malware") == decision.reply


def test_a_disabled_check_is_decided(tmp_path: Path) -> None:
    decision = decide(rules(tmp_path, SET), mail("a@example.com"), verdicts(virus=Status.DISABLED))
    assert decision.reply.accepts
    assert traces(decision)[0] == ("refuse-malware", False, "virus is DISABLED, not fail")


def test_a_walk_in_which_nothing_is_done_with_the_mail_is_refused(tmp_path: Path) -> None:
    text = "rules: [{name: mark, actions: [{add_header: {name: X-Seen, value: x}}]}]"
    decision = decide(rules(tmp_path, text), mail("a@example.com"), PASSED)
    assert decision.reply is UNTAKEN
    assert decision.steps == ()
    assert decision.walks[0].actions == ()
    assert traces(decision)[-1] == ("", False, NO_RULE_TOOK_IT)
    assert decision.reason == NO_RULE_TOOK_IT


def test_stop_alone_takes_nothing(tmp_path: Path) -> None:
    decision = decide(rules(tmp_path, "rules: [{name: s, actions: [stop]}]"), mail("a@example.com"), PASSED)
    assert decision.reply is UNTAKEN


def test_drop_is_an_end(tmp_path: Path) -> None:
    decision = decide(rules(tmp_path, "rules: [{name: d, actions: [drop]}]"), mail("a@example.com"), PASSED)
    assert decision.reply.accepts


def test_the_walk_goes_on_behind_a_bounce_that_says_so(tmp_path: Path) -> None:
    text = SET.replace("malware}", "malware, then: continue}")
    decision = decide(rules(tmp_path, text), mail("a@example.com"), verdicts(virus=Status.FAIL))
    assert [step.rule.name for step in decision.steps] == ["refuse-malware", "archive"]
    assert decision.walks[0].actions == ("bounce", "s3")
    assert Reply(554, "5.7.1", "Message contains malware") == decision.reply


def test_different_answers_in_one_message_defer_it(tmp_path: Path) -> None:
    text = SET.replace("    when: {virus: fail}", "    recipients: [a@example.com]\n    when: {virus: fail}")
    decision = decide(rules(tmp_path, text), mail("a@example.com", "b@example.com"), verdicts(virus=Status.FAIL))
    assert decision.reply == SEPARATE
    assert decision.reason == DIFFERENT_ANSWERS
    assert decision.steps == ()
    assert [str(walk.reply)[:3] for walk in decision.walks] == ["554", "250"]


@pytest.mark.parametrize("address", ["nobody", "a@", "@example.com", "a@[192.0.2.1]", "a@exa mple.com"])
def test_what_is_no_address_is_covered_by_nothing_that_names_recipients(tmp_path: Path, address: str) -> None:
    text = "rules: [{name: all, recipients: [example.com, .example.com], actions: [drop]}]"
    assert not rules(tmp_path, text).covers(address)


def test_a_condition_on_the_recipient_is_asked_for_each_and_others_once_for_all(tmp_path: Path) -> None:
    text = """
rules:
  - {name: a, when: {any: [{virus: fail}, {recipient: a@example.com}]}, actions: [{s3: {bucket: only-a}}, stop]}
  - {name: not-b, unless: {recipient: b@example.com}, actions: [{s3: {bucket: not-b}}]}
  - {name: rest, when: {subject: hello}, actions: [{s3: {bucket: rest}}]}
"""
    decision = decide(rules(tmp_path, text), mail("a@example.com", "b@example.com", "c@example.com"), PASSED)
    assert [(step.rule.name, step.recipients) for step in decision.steps] == [
        ("a", ("a@example.com",)),
        ("not-b", ("c@example.com",)),
        ("rest", ("b@example.com", "c@example.com")),
    ]
