"""Loading rule files: what they may say, and every mistake at its place, all at once."""

from pathlib import Path

import pytest

from inbound.actions.kinds import ACTIONS
from inbound.conditions import ALWAYS, NEVER
from inbound.errors import ConfigurationError
from inbound.rules import decide
from inbound.ruleset import MOST_ACTIONS, MOST_RECIPIENTS, MOST_RULES, load
from tests.ruling import PASSED, mail, mistakes, rules

NAME = "letters, digits, _ - and . with a letter or digit first and last, at most 64"
WORKMAIL = "WorkMail is AWS's own mailbox service; hand the mail on by relay, s3, lambda or sns"


def test_the_files_of_a_directory_are_one_set_in_name_order(tmp_path: Path) -> None:
    (tmp_path / "20-b.yml").write_text("rules: [{name: b, actions: [drop]}]", encoding="utf-8")
    (tmp_path / "10-a.yaml").write_text("\ufeffrules: [{name: a, actions: [drop]}]", encoding="utf-8")
    (tmp_path / "15-empty.yaml").write_text("# nothing yet\n", encoding="utf-8")
    for other in ("05-c.yaml.bak", ".10-hidden.yaml", "notes.txt"):
        (tmp_path / other).write_text("rules: [{name: never, actions: [drop]}]", encoding="utf-8")
    assert [rule.name for rule in load(tmp_path, ACTIONS).rules] == ["a", "b"]


def test_a_rule_left_short_has_the_defaults(tmp_path: Path) -> None:
    (rule,) = rules(tmp_path, "rules: [{name: a, actions: [stop]}]").rules
    assert (rule.why, rule.enabled, rule.recipients, rule.tls, rule.scan) == ("", True, None, "optional", True)
    assert (rule.when, rule.unless, rule.undecided) == (ALWAYS, NEVER, "defer")


def test_recipients_may_be_one_a_list_and_files(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("c@example.com\n.example.org\n", encoding="utf-8")
    text = """
rules:
  - {name: a, recipients: A@example.com, actions: [drop]}
  - {name: b, recipients: [b@example.com, {file: more.txt}], actions: [drop]}
  - {name: c, recipients: {file: more.txt}, actions: [drop]}
"""
    assert [set(rule.recipients or ()) for rule in rules(tmp_path, text).rules] == [
        {"a@example.com"},
        {"b@example.com", "c@example.com", ".example.org"},
        {"c@example.com", ".example.org"},
    ]


def test_named_lists_are_known_in_all_files(tmp_path: Path) -> None:
    (tmp_path / "friends.txt").write_text("sender@example.net\n", encoding="utf-8")
    (tmp_path / "a.yaml").write_text(
        "rules: [{name: a, when: {list: friends, mail_from: {in: friends}}, actions: [drop]}]", encoding="utf-8"
    )
    (tmp_path / "b.yaml").write_text(
        "lists: {friends: friends.txt}\nrules: [{name: b, when: {from: {in: {file: friends.txt}}}, actions: [drop]}]",
        encoding="utf-8",
    )
    ruleset = load(tmp_path, ACTIONS)
    (walk,) = decide(ruleset, mail(), PASSED).walks
    assert [(trace.name, trace.met, trace.why) for trace in walk.traces] == [
        (
            "a",
            True,
            'list is "sender@example.net", which is on friends; mail_from is "sender@example.net", which is on friends',
        )
    ]
    stranger = mail(header="From: Stranger <stranger@example.net>\r\n")
    (walk,) = decide(ruleset, stranger, PASSED).walks
    assert [(trace.name, trace.met) for trace in walk.traces] == [("a", False), ("b", False), ("", False)]
    assert walk.traces[0].why == 'list is "stranger@example.net", which is not on friends'
    assert walk.traces[1].why == 'from is "stranger@example.net", which is not on friends.txt'


def test_the_version_follows_from_the_files_and_the_lists_they_name(tmp_path: Path) -> None:
    text = "rules: [{name: a, recipients: {file: who.txt}, actions: [drop]}]"
    who = tmp_path / "who.txt"
    who.write_text("a@example.com\nb@example.com\n", encoding="utf-8")
    first = rules(tmp_path, text).version
    assert rules(tmp_path, text).version == first
    who.write_text("b@example.com\na@example.com # the same\n", encoding="utf-8")
    assert rules(tmp_path, text).version == first
    who.write_text("b@example.com\n", encoding="utf-8")
    assert rules(tmp_path, text).version != first
    assert rules(tmp_path, text + " ").version != rules(tmp_path, text).version


def test_ten_mistakes_are_told_at_once_each_at_its_place(tmp_path: Path) -> None:
    text = """rules:
  - name: refuse malware
    when: {virsu: fail}
    actons: [stop]
  - name: twice
    recipients: ["*@x.example"]
    unless: {client_ip: 10.0.0.1/8}
    tls: required
    actions:
      - s3: {bukcet: mail}
      - stop
      - drop
  - name: twice
    enabled: perhaps
    when: {subject: {regex: "(?=x)"}}
    actions: [workmail, stopp]
tests:
  - {it: says, given: {to: a@example.com, verdicts: {spam: maybe}}, expect: {repli: x}}
ruls: []
"""
    assert mistakes(tmp_path, text) == [
        "rules.yaml:2:5: a rule needs a list of actions; what is to be done with the mail?",
        f"rules.yaml:2:11: 'refuse malware' is no rule name: {NAME}",
        "rules.yaml:3:12: unknown attribute 'virsu', did you mean 'virus'?",
        "rules.yaml:4:5: unknown key 'actons', did you mean 'actions'?",
        "rules.yaml:6:18: '*@x.example': there are no wildcards; write x.example for all addresses at the domain",
        "rules.yaml:7:25: '10.0.0.1/8' has bits behind its prefix, did you mean '10.0.0.0/8'?",
        "rules.yaml:8:10: expected 'optional' or 'require', found 'required', did you mean 'require'?",
        "rules.yaml:10:14: unknown key 'bukcet', did you mean 'bucket'?",
        "rules.yaml:12:9: never reached: the stop before it ends the walk",
        "rules.yaml:13:11: the rule name 'twice' was there before, at rules.yaml:5",
        "rules.yaml:14:14: expected yes or no, found 'perhaps'",
        "rules.yaml:15:29: no regular expression of RE2: invalid perl operator: (?=",
        f"rules.yaml:16:15: there is no action 'workmail': {WORKMAIL}",
        "rules.yaml:16:25: unknown action 'stopp', did you mean 'stop'?",
        "rules.yaml:18:60: expected 'pass', 'fail', 'gray', 'processing_failed' or 'disabled', found 'maybe'",
        "rules.yaml:18:78: unknown key 'repli', did you mean 'reply'?",
        "rules.yaml:19:1: unknown key 'ruls', did you mean 'rules'?",
    ]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("name: a", "a rule needs a list of actions"),
        ("name: a, actions: []", "a rule needs a list of actions"),
        ("name: a, actions: stop", "a rule needs a list of actions"),
        ("name: a, actions: [{}]", "expected one action such as `stop` or {s3: {bucket: …}}, found 0 keys"),
        ("name: a, actions: [{stop: {}, drop: {}}]", "found 2 keys"),
        ("name: a, actions: [[stop]]", "found a list"),
        ("name: a, actions: [~]", "found nothing"),
        ("name: a, actions: [s3]", "the key 'bucket' is missing"),
        ("name: a, actions: [{s3: }]", "the key 'bucket' is missing"),
        ("name: a, actions: [{s3: bucket}]", "s3 has keys of its own, found 'bucket'"),
        ("name: a, actions: [{stop: {after: all}}]", "unknown key 'after'; there are on_failure, topic_arn"),
        ("name: a, actions: [{bounce: {smtp_reply_code: 250, message: x}}]", "250 accepts the message"),
        ("name: a, actions: [{bounce: {status_code: 4.7.1, message: x}}]", "are of different classes"),
        ("name: a, actions: [{WorkmailAction: {}}]", "WorkMail is AWS's own mailbox service"),
        ("name: a, actions: [{connect_action: {}}]", "Amazon Connect is reached by a Lambda function"),
        ("name: a, actions: [bounc]", "unknown action 'bounc', did you mean 'bounce'?"),
        ("name: a, actions: [drop, stop]", "never reached: the drop before it ends the walk"),
        ("name: a, actions: [drop], recipients: []", "nobody is named; leave the key out for every recipient"),
        ("name: a, actions: [drop], recipients: ", "nobody is named; leave the key out for every recipient"),
        ("name: a, actions: [drop], recipients: [~]", "expected an address, a domain or {file: path}, found nothing"),
        ("name: a, actions: [drop], recipients: [[a@b.example]]", "expected an address, a domain or {file: path}"),
        ("name: a, actions: [drop], recipients: {fil: x}", "expected an address, a domain or {file: path}"),
        ("name: a, actions: [drop], recipients: {file: }", "expected the path of a list file, found nothing"),
        (
            "name: a, actions: [drop], recipients: {file: none.txt}",
            "none.txt cannot be read: No such file or directory",
        ),
        ("actions: [drop]", "the key 'name' is missing"),
        ("name: [a], actions: [drop]", "expected text, found a list"),
        ("name: -a, actions: [drop]", "is no rule name"),
        ("name: a., actions: [drop]", "is no rule name"),
        ("name: '', actions: [drop]", "is no rule name"),
        (f"name: {'a' * 65}, actions: [drop]", "is no rule name"),
        ("name: a/b, actions: [drop]", "is no rule name"),
        ("name: ä, actions: [drop]", "is no rule name"),
        ('name: "a\\n", actions: [drop]', "is no rule name"),
        (f"name: a, actions: [{', '.join(['{s3: {bucket: bucket}}'] * (MOST_ACTIONS + 1))}]", "at most 50 are taken"),
        (f"name: a, recipients: [{', '.join(['a.example'] * (MOST_RECIPIENTS + 1))}], actions: [drop]", "list file"),
    ],
)
def test_a_mistake_in_a_rule_is_told_once(tmp_path: Path, rule: str, says: str) -> None:
    (problem,) = mistakes(tmp_path, f"rules: [{{{rule}}}]")
    assert says in problem
    assert problem.startswith("rules.yaml:1:")


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "0", "a" * 64])
def test_a_rule_name_of_ses_is_taken(tmp_path: Path, name: str) -> None:
    assert mistakes(tmp_path, f"rules: [{{name: {name}, actions: [drop]}}]") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there are no rules, so no mail would be taken"),
        ("rules: []", "there are no rules, so no mail would be taken"),
        ("rules: ", "there are no rules, so no mail would be taken"),
        ("rules: {name: a}", "expected a list of rules, found a mapping"),
        ("rules: [a]", "expected a mapping of keys, found 'a'"),
        ("- name: a", "expected the keys lists, rules, tests, found a list"),
        ("tests: x\nrules: [{name: a, actions: [drop]}]", "expected a list of tests, found 'x'"),
        ("lists: [x]\nrules: [{name: a, actions: [drop]}]", "expected names and their files, found a list"),
        ("lists: {x: none.txt}\nrules: [{name: a, actions: [drop]}]", "none.txt cannot be read"),
        ("lists: {x: [a]}\nrules: [{name: a, actions: [drop]}]", "expected the path of a list file, found a list"),
        (f"rules: [{', '.join(['{name: a, actions: [drop]}'] * (MOST_RULES + 1))}]", f"at most {MOST_RULES} are taken"),
    ],
)
def test_a_mistake_in_a_file_is_told(tmp_path: Path, text: str, says: str) -> None:
    assert any(says in problem for problem in mistakes(tmp_path, text))


def test_a_list_that_is_wrong_is_told_once_however_often_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "who.txt").write_text("no address\n", encoding="utf-8")
    text = "rules: [{name: a, recipients: {file: who.txt}, unless: {from: {in: {file: who.txt}}}, actions: [drop]}]"
    assert mistakes(tmp_path, text) == ["who.txt:1:1: 'no address' is no address and no domain"]


def test_names_are_unique_over_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lists: {x: x.txt}\nrules: [{name: a, actions: [drop]}]", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("lists: {x: x.txt}\nrules: [{name: a, actions: [drop]}]", encoding="utf-8")
    (tmp_path / "x.txt").write_text("a@example.com", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, ACTIONS)
    assert [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [
        "b.yaml:1:9: the list 'x' is named twice",
        "b.yaml:2:16: the rule name 'a' was there before, at a.yaml:2",
    ]


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (b"rules:\n  - name: \xff\n", "bad.yaml:2:11: is not UTF-8 text"),
        (b"rules: [\n", "bad.yaml:2:1: cannot be read as YAML: did not find expected node content"),
        (b"#" * (1024 * 1024 + 1), "bad.yaml: has 1048577 characters, at most 1048576 are read"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_beside_the_mistakes_of_the_others(
    tmp_path: Path, octets: bytes, says: str
) -> None:
    (tmp_path / "bad.yaml").write_bytes(octets)
    (tmp_path / "worse.yaml").write_text("rules: [{name: a, actions: [none]}]", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, ACTIONS)
    first, second = (str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems)
    assert first == says
    assert second.startswith("worse.yaml:1:29: unknown action 'none'")


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the rules cannot be read: No such file or directory"):
        load(tmp_path / "none", ACTIONS)


def test_a_directory_without_rule_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there are no rules, so no mail would be taken"):
        load(tmp_path, ACTIONS)
