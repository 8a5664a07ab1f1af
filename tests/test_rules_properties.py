"""Random rule sets against a second, naive reading of the same YAML, and the promises that RCPT makes about DATA."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from inbound.actions.kinds import ACTIONS
from inbound.cases import Found
from inbound.conditions import ALWAYS, NEVER, All, Condition, Not, Test
from inbound.conditions import Any as AnyOf
from inbound.facts import Facts
from inbound.grammar import Lists, condition
from inbound.mail import Client, Mail, Tls
from inbound.rules import UNTAKEN, RuleSet, decide, outlook
from inbound.ruleset import loaded
from inbound.ruletest import verdicts_of
from inbound.schema import Node, parse
from inbound.verdicts import BlockVerdict, Verdicts
from tests.ruling import mail

RECIPIENTS = ("a@example.com", "b@example.com", "a+x@example.com")
REPLIES: tuple[dict[str, object], ...] = (
    {"smtp_reply_code": 550, "status_code": "5.7.1", "message": "One"},
    {"message": "Two"},
)
DISPOSITIONS = ("CONTINUE", "STOP_RULE", "STOP_RULE_SET", "BOUNCE")

tests = st.one_of(
    st.fixed_dictionaries({"virus": st.sampled_from(["fail", "pass", ["fail", "processing_failed"]])}),
    st.fixed_dictionaries({"dmarc": st.sampled_from(["fail", "temperror", ["fail", "none"]])}),
    st.fixed_dictionaries({"dmarc_policy": st.sampled_from(["reject", ["none", "quarantine"]])}),
    st.fixed_dictionaries({"tls": st.sampled_from(["yes", "no"])}),
    st.fixed_dictionaries({"client_ip": st.sampled_from(["192.0.2.0/24", "198.51.100.1"])}),
    st.fixed_dictionaries({"blocked": st.just("yes")}),
    st.fixed_dictionaries({"mail_from": st.sampled_from(["", "x@example.net"])}),
    st.fixed_dictionaries({"recipient": st.sampled_from(["a@example.com", ["b@example.com", "a+x@example.com"]])}),
    st.fixed_dictionaries({"subject": st.sampled_from(["one", {"contains": "o"}, {"starts_with": ["t", "x"]}])}),
    st.fixed_dictionaries({"recipient_count": st.just({"above": "1"})}),
)

conditions = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=4,
)

endings = st.one_of(
    st.just("stop"),
    st.just("drop"),
    st.sampled_from(REPLIES).map(lambda keys: {"bounce": keys}),
)
steps = st.one_of(
    st.sampled_from(["one", "two"]).map(lambda bucket: {"s3": {"bucket": bucket}}),
    st.just({"add_header": {"name": "X-Seen", "value": "yes"}}),
    st.sampled_from(["event", "request_response"]).map(lambda how: {"lambda": {"function": "f", "invocation": how}}),
    st.sampled_from(REPLIES).map(lambda keys: {"bounce": keys | {"then": "continue"}}),
)
actions = st.tuples(st.lists(steps, max_size=2), st.lists(endings, max_size=1)).map(lambda two: two[0] + two[1])

rule = st.fixed_dictionaries(
    {"actions": actions.filter(len)},
    optional={
        "enabled": st.sampled_from(["yes", "no"]),
        "recipients": st.lists(st.sampled_from([*RECIPIENTS, "example.com"]), min_size=1, max_size=2),
        "when": conditions,
        "unless": conditions,
        "undecided": st.sampled_from(["defer", "skip"]),
    },
)
written = st.lists(rule, min_size=1, max_size=5).map(
    lambda rules: [{"name": f"rule-{at}"} | one for at, one in enumerate(rules)]
)

clients = st.builds(
    Client,
    ip=st.sampled_from(["192.0.2.1", "198.51.100.1"]).map(ip_address),
    tls=st.sampled_from([None, Tls(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384")]),
)
mails = st.builds(
    lambda subject, client, mail_from: mail(
        RECIPIENTS[0], header=f"Subject: {subject}\r\n", client=client, mail_from=mail_from
    ),
    st.sampled_from(["one", "two", "x"]),
    clients,
    st.sampled_from(["", "x@example.net", "y@example.net"]),
)
blocks = st.builds(BlockVerdict, blocked=st.booleans())
found = st.builds(
    Found,
    virus=st.sampled_from(["pass", "fail", "gray", "processing_failed", "disabled"]),
    dmarc=st.sampled_from(["pass", "fail", "none", "temperror"]),
    dmarc_policy=st.sampled_from(["none", "quarantine", "reject"]),
)
dispositions = st.dictionaries(st.sampled_from([f"rule-{at}" for at in range(5)]), st.sampled_from(DISPOSITIONS))


def ruleset(rules: list[dict[str, Any]]) -> RuleSet:
    return loaded(json.dumps({"rules": rules}), ACTIONS)


# --- The naive reading: the YAML as it is written, in three values, with nothing prepared and nothing left out.


@dataclass
class Naive:
    """One recipient's message, as plain words."""

    recipient: str
    mail: Mail
    block: BlockVerdict
    found: Found
    dispositions: Mapping[str, str]

    def holds(self, tree: Mapping[str, Any]) -> bool | None:
        values = [self.one(name, wanted) for name, wanted in tree.items()]
        return False if False in values else None if None in values else True

    def one(self, name: str, wanted: Any) -> bool | None:
        if name == "not":
            inner = self.holds(wanted)
            return None if inner is None else not inner
        if name in ("all", "any"):
            values = [self.holds(part) for part in wanted]
            deciding = name == "any"
            return deciding if deciding in values else None if None in values else not deciding
        operator, words = next(iter(wanted.items())) if isinstance(wanted, dict) else ("is", wanted)
        words = words if isinstance(words, list) else [words]
        if name in ("virus", "dmarc"):
            value = getattr(self.found, name)
            if value in ("temperror", "processing_failed"):
                return True if {"temperror", "processing_failed"} & set(words) else None
            return value in words
        if name == "dmarc_policy":
            if self.found.dmarc == "temperror":
                return None
            return self.found.dmarc in ("pass", "fail") and self.found.dmarc_policy in words
        value = {
            "tls": "yes" if self.mail.client.tls else "no",
            "client_ip": str(self.mail.client.ip),
            "blocked": "yes" if self.block.blocked else "no",
            "mail_from": self.mail.mail_from,
            "recipient": self.recipient,
            "subject": self.mail.headers.fields[0].value,
            "recipient_count": "1",
        }[name]
        if operator == "contains":
            return any(word in value for word in words)
        if operator == "starts_with":
            return any(value.startswith(word) for word in words)
        if operator == "above":
            return int(value) > int(words[0])
        return value.startswith("192.0.2.") if words == ["192.0.2.0/24"] else value in words

    def is_for(self, rule: Mapping[str, Any]) -> bool:
        mine = {self.recipient, self.recipient.replace("+x", ""), "example.com"}
        return "recipients" not in rule or bool(mine & set(rule["recipients"]))

    def answer(self, rules: list[dict[str, Any]]) -> str:
        """`later`, `taken`, or the reply that refuses; a function that refuses says so by the name of its rule."""
        taken, refusal = False, ""
        for rule in rules:
            if rule.get("enabled") == "no" or not self.is_for(rule):
                continue
            when = self.holds(rule["when"]) if "when" in rule else True
            unless = self.holds(rule["unless"]) if "unless" in rule else False
            met = False if when is False or unless is True else None if None in (when, unless) else True
            if met is None and rule.get("undecided") != "skip":
                return "later"
            for action in rule["actions"] if met else ():
                kind, keys = next(iter(action.items())) if isinstance(action, dict) else (action, {})
                taken = taken or kind in ("s3", "lambda", "drop")
                if kind == "bounce":
                    refusal = f"{keys.get('smtp_reply_code', 550)} {keys.get('status_code', '5.0.0')} {keys['message']}"
                wish = self.disposition(rule["name"], kind, keys)
                if wish == "BOUNCE":
                    return f"refused by {rule['name']}"
                if wish == "STOP_RULE_SET":
                    return refusal or ("taken" if taken else str(UNTAKEN))
                if wish == "STOP_RULE":
                    break
        return refusal or ("taken" if taken else str(UNTAKEN))

    def disposition(self, rule: str, kind: str, keys: Mapping[str, str]) -> str:
        """How the walk goes on behind an action."""
        if kind in ("stop", "drop") or (kind == "bounce" and keys.get("then") != "continue"):
            return "STOP_RULE_SET"
        waited_for = kind == "lambda" and keys["invocation"] == "request_response"
        return self.dispositions.get(rule, "CONTINUE") if waited_for else "CONTINUE"


def decided(rules: RuleSet, message: Mail, verdicts: Verdicts) -> str:
    (walk,) = decide(rules, message, verdicts).walks
    return "later" if walk.reply.defers else "taken" if walk.reply.accepts else str(walk.reply)


quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(written, mails, blocks, found)
def test_a_decision_is_what_the_yaml_says(
    rules: list[dict[str, Any]], message: Mail, block: BlockVerdict, verdicts: Found
) -> None:
    naive = Naive(RECIPIENTS[0], message, block, verdicts, {})
    assert naive.answer(rules) == decided(ruleset(rules), message, verdicts_of(verdicts, block, scan=True))


@quick
@given(written, mails, blocks, found, dispositions)
def test_recipients_with_equal_answers_never_need_different_ones(
    rules: list[dict[str, Any]], message: Mail, block: BlockVerdict, verdicts: Found, told: dict[str, str]
) -> None:
    whole = ruleset(rules)
    by_answers: dict[Any, set[str]] = {}
    for recipient in RECIPIENTS:
        ahead = outlook(whole, recipient, client=message.client, mail_from=message.mail_from, block=block)
        answer = Naive(recipient, message, block, verdicts, told).answer(rules)
        if answer != "later":  # true for all recipients of a message, whoever brings it about
            by_answers.setdefault(ahead.answers, set()).add(answer)
    assert all(len(answers) == 1 for answers in by_answers.values())


@quick
@given(written, mails, blocks, found, dispositions)
def test_a_refusal_at_rcpt_is_what_data_would_have_answered_and_nothing_was_to_be_done(
    rules: list[dict[str, Any]], message: Mail, block: BlockVerdict, verdicts: Found, told: dict[str, str]
) -> None:
    whole = ruleset(rules)
    ahead = outlook(whole, RECIPIENTS[0], client=message.client, mail_from=message.mail_from, block=block)
    assume(ahead.refusal is not None)
    assert str(ahead.refusal) == Naive(RECIPIENTS[0], message, block, verdicts, told).answer(rules)
    decision = decide(whole, message, verdicts_of(verdicts, block, scan=True))
    reached = [action for step in decision.steps for action in step.rule.course()]
    assert not any(action.takes or (action.outward and action.refusal is None) for action in reached)
    assert not any(getattr(action, "topic_arn", None) for action in reached)


def tree(written_tree: dict[str, Any]) -> Condition:
    node = parse(json.dumps(written_tree), "tree", [])
    assert isinstance(node, Node)
    problems: list[Any] = []
    built = condition(node, Lists(named={}, read=lambda _: frozenset()), problems)
    assert problems == []
    assert built is not None
    return built


def facts(message: Mail, block: BlockVerdict, verdicts: Found) -> Facts:
    return Facts(
        recipient=RECIPIENTS[0],
        client=message.client,
        mail_from=message.mail_from,
        block=block,
        mail=message,
        verdicts=verdicts_of(verdicts, block, scan=True),
    )


def at_rcpt(message: Mail, block: BlockVerdict) -> Facts:
    return Facts(recipient=RECIPIENTS[0], client=message.client, mail_from=message.mail_from, block=block)


@quick
@given(conditions, conditions, mails, blocks, found)
def test_the_laws_of_three_values_hold(
    one: dict[str, Any], other: dict[str, Any], message: Mail, block: BlockVerdict, verdicts: Found
) -> None:
    a, b, known = tree(one), tree(other), facts(message, block, verdicts)

    def truth(condition: Condition) -> bool | None:
        return condition.weigh(known).truth

    assert truth(Not(Not(a))) is truth(a)
    assert truth(Not(All((a, b)))) is truth(AnyOf((Not(a), Not(b))))
    assert truth(Not(AnyOf((a, b)))) is truth(All((Not(a), Not(b))))
    assert truth(All((a, b))) is truth(All((b, a)))
    assert truth(AnyOf((a, b))) is truth(AnyOf((b, a)))
    assert truth(AnyOf((a, All((a, b))))) is truth(a)
    assert truth(All((a, ALWAYS))) is truth(a)
    assert truth(AnyOf((a, NEVER))) is truth(a)
    assert truth(All((a, NEVER))) is False
    assert truth(AnyOf((a, ALWAYS))) is True


@quick
@given(conditions, mails, blocks, found)
def test_what_is_left_at_rcpt_comes_to_the_same_after_data(
    written_tree: dict[str, Any], message: Mail, block: BlockVerdict, verdicts: Found
) -> None:
    whole, known = tree(written_tree), facts(message, block, verdicts)
    rest = whole.rest(at_rcpt(message, block))
    assert rest.weigh(known).truth is whole.weigh(known).truth
    assert rest in (ALWAYS, NEVER) or whole.weigh(at_rcpt(message, block)).truth is None
    assert not any(test.about.known == "RCPT" for test in leaves(rest))


@quick
@given(conditions, mails, blocks, found)
def test_every_finding_says_why(
    written_tree: dict[str, Any], message: Mail, block: BlockVerdict, verdicts: Found
) -> None:
    finding = tree(written_tree).weigh(facts(message, block, verdicts))
    assert finding.why
    assert bool(finding.checks) is (finding.truth is None)


def leaves(condition: Condition) -> list[Test]:
    match condition:
        case All(parts) | AnyOf(parts):
            return [leaf for part in parts for leaf in leaves(part)]
        case Not(part):
            return leaves(part)
        case Test():
            return [condition]
        case _:
            return []
