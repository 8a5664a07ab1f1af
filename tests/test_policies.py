"""The least that a rule set needs: exactly what its actions ask for, and a mail that goes through needs nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inbound.actions.keep import encryption_context
from inbound.actions.kinds import ACTIONS
from inbound.cli import main
from inbound.policies import Home, policies
from inbound.ruleset import loaded
from inbound.uses import uses
from tests.actions.letters import ACCOUNT, REGION, letter

STORE = ["s3:PutObject", "s3:AbortMultipartUpload"]
HOME = Home(
    account=ACCOUNT,
    region=REGION,
    receiver=f"arn:aws:iam::{ACCOUNT}:role/inbound",
    operator=f"arn:aws:iam::{ACCOUNT}:role/inbound-operator",
)


def told(*actions: str, home: Home = HOME) -> Any:
    """The policies of a rule with each action."""
    rules = "".join(
        f"  - {{name: rule{at}, recipients: [a{at}@example.com], actions: [{action}]}}\n"
        for at, action in enumerate(actions)
    )
    return policies(uses(loaded(f"rules:\n{rules}", ACTIONS)), home)


def test_notifications_through_ses_may_come_from_their_senders_only() -> None:
    found = told("s3: {bucket: mail}", home=replace(HOME, senders=("b@example.com", "a@example.com")))
    assert found["receiver"]["Statement"][1] == {
        "Sid": "TellSenders",
        "Effect": "Allow",
        "Action": "ses:SendRawEmail",
        "Resource": f"arn:aws:ses:{REGION}:{ACCOUNT}:identity/*",
        "Condition": {"StringEquals": {"ses:FromAddress": ["a@example.com", "b@example.com"]}},
    }


def test_setup_names_the_senders_of_bounces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.yaml").write_text(
        "rules:\n  - name: no\n    recipients: [example.com]\n"
        "    actions: [{bounce: {message: No, sender: bounces@example.com}}]\n"
    )
    config = tmp_path / "inbound.yaml"
    config.write_text("hostname: mx.example.com\ncloud: aws\nrules: rules.yaml\ndsn: {through: ses}\n")
    assert main(["setup", "--policies", "--config", str(config)]) == 0
    (statement,) = json.loads(capsys.readouterr().out)["receiver"]["Statement"]
    assert statement["Condition"]["StringEquals"]["ses:FromAddress"] == [
        "MAILER-DAEMON@mx.example.com",
        "bounces@example.com",
    ]


def rights(policy: Any) -> list[tuple[Any, Any]]:
    return [(one["Action"], one["Resource"]) for one in policy["Statement"]]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("s3: {bucket: mail}", (STORE, "arn:aws:s3:::mail/*")),
        ("s3: {bucket: mail, prefix: in/}", (STORE, "arn:aws:s3:::mail/in/*")),
        ("s3: {bucket: mail, prefix: /in}", (STORE, "arn:aws:s3:::mail//in/*")),
        ("s3: {bucket: mail, prefix: 'a*b?c$d'}", (STORE, "arn:aws:s3:::mail/a${*}b${?}c${$}d/*")),
        ("lambda: {function: f}", ("lambda:InvokeFunction", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f")),
        (
            f"lambda: {{function: 'arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f:1'}}",
            ("lambda:InvokeFunction", f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f:1"),
        ),
        (f"stop: {{topic_arn: 'arn:aws:sns:x:{ACCOUNT}:t'}}", ("sns:Publish", f"arn:aws:sns:x:{ACCOUNT}:t")),
        (
            "sqs: {queue_url: 'https://sqs.eu-west-1.amazonaws.com/111122223333/q.fifo'}",
            ("sqs:SendMessage", "arn:aws:sqs:eu-west-1:111122223333:q.fifo"),
        ),
        ("sqs: {queue_url: 'http://localhost:4566/q'}", ("sqs:SendMessage", f"arn:aws:sqs:{REGION}:{ACCOUNT}:q")),
    ],
)
def test_an_action_needs_one_right_on_one_thing(action: str, expected: tuple[str, str]) -> None:
    found = told(action)
    assert rights(found["receiver"]) == [expected]
    assert set(found) <= {"receiver", "buckets"}


def test_what_needs_nothing_of_aws_has_no_policy() -> None:
    assert told("drop", "{webhook: {url: 'https://a.example/', secret_env: X}}", "{bounce: {message: No}}") == {}


def test_a_role_has_what_is_done_as_it_and_ours_may_assume_it() -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/store"
    found = told(f"s3: {{bucket: mail, kms_key: alias/mail, role_arn: '{role}'}}", "s3: {bucket: mail, prefix: ours}")
    assert rights(found["receiver"]) == [(STORE, "arn:aws:s3:::mail/ours/*"), ("sts:AssumeRole", role)]
    assert [action for action, _ in rights(found["roles"][role])] == [STORE, "kms:GenerateDataKey"]
    assert found["trust"][role]["Statement"][0]["Principal"] == {"AWS": HOME.receiver}
    assert [one["Principal"]["AWS"] for one in found["buckets"]["mail"]["Statement"]] == [role, HOME.receiver]
    assert [one["Principal"]["AWS"] for one in found["keys"]["alias/mail"]["Statement"]] == [role]


def test_terms_of_storing_ask_for_their_rights_and_shared_data_keys_name_no_message() -> None:
    sealed, at_rest = "kms_key: alias/mail, cache_data_keys: {messages: 2}", "sse_kms_key: alias/rest"
    found = told(f"s3: {{bucket: mail, {sealed}, tags: {{a: b}}, server_side_encryption: aws:kms, {at_rest}}}")
    assert rights(found["receiver"]) == [
        (STORE, "arn:aws:s3:::mail/*"),
        ("s3:PutObjectTagging", "arn:aws:s3:::mail/*"),
        (["kms:Decrypt", "kms:GenerateDataKey"], f"arn:aws:kms:{REGION}:{ACCOUNT}:key/*"),
        ("kms:GenerateDataKey", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/*"),
    ]
    assert rights(found["buckets"]["mail"]) == [([*STORE, "s3:PutObjectTagging"], "arn:aws:s3:::mail/*")]
    resting, sealing = (one["Condition"] for one in found["receiver"]["Statement"][2:])
    assert resting["ForAnyValue:StringEquals"] == {"kms:ResourceAliases": "alias/rest"}
    assert resting["StringEquals"]["kms:ViaService"] == f"s3.{REGION}.amazonaws.com"
    assert "Null" not in sealing
    (asked,) = found["keys"]["alias/mail"]["Statement"]
    assert "Null" not in asked["Condition"]


@pytest.mark.parametrize(
    ("key", "resource", "alias"),
    [
        ("alias/mail", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/*", "alias/mail"),
        ("arn:aws:kms:eu-west-1:111122223333:alias/a/b", "arn:aws:kms:eu-west-1:111122223333:key/*", "alias/a/b"),
        ("arn:aws:kms:eu-west-1:111122223333:key/k", "arn:aws:kms:eu-west-1:111122223333:key/k", None),
        ("mrk-11111111111111111111", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/mrk-11111111111111111111", None),
    ],
)
@pytest.mark.parametrize("form", ["ses", "s3ec"])
def test_data_keys_are_made_in_the_context_that_a_mail_is_sealed_in(
    key: str, resource: str, alias: str | None, form: Any
) -> None:
    found = told(f"s3: {{bucket: mail, kms_key: '{key}', format: {form}}}")
    statement = found["receiver"]["Statement"][1]
    assert (statement["Action"], statement["Resource"]) == ("kms:GenerateDataKey", resource)
    condition = statement["Condition"]
    context = encryption_context(letter(rule="rule0"), key, form)
    assert sorted(condition["ForAllValues:StringEquals"]["kms:EncryptionContextKeys"]) == sorted(context)
    asked = {
        f"kms:EncryptionContext:{name}": value for name, value in context.items() if name != "aws:ses:message-id"
    } | ({"kms:RequestAlias": alias} if alias else {})
    allowed = {
        name: [values] if isinstance(values, str) else values for name, values in condition["StringEquals"].items()
    }
    assert allowed == {name: [value] for name, value in asked.items()}
    assert condition["Null"] == {"kms:EncryptionContext:aws:ses:message-id": "false"}
    assert found["keys"][key]["Statement"][0]["Condition"] == condition


def test_who_works_with_quarantine_opens_what_any_rule_has_held_and_who_receives_opens_nothing() -> None:
    found = told("quarantine: {bucket: held, prefix: q}", "quarantine: {bucket: held, prefix: r}", "s3: {bucket: mail}")
    assert rights(found["operator"]) == [
        (["s3:DeleteObject", "s3:GetObject"], ["arn:aws:s3:::held/q/*", "arn:aws:s3:::held/r/*"]),
        ("s3:PutObject", ["arn:aws:s3:::held/q/*.release.json", "arn:aws:s3:::held/r/*.release.json"]),
        ("s3:ListBucket", "arn:aws:s3:::held"),
        ("kms:Decrypt", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/*"),
    ]
    listing, opening = found["operator"]["Statement"][2:]
    assert listing["Condition"] == {"StringEquals": {"s3:prefix": ["q/", "r/"]}}
    assert opening["Condition"]["ForAnyValue:StringEquals"] == {"kms:ResourceAliases": "alias/quarantine"}
    assert not [name for name in opening["Condition"]["StringEquals"] if "rule-name" in name]
    assert "Decrypt" not in json.dumps(found["receiver"])
    assert [one["Principal"]["AWS"] for one in found["keys"]["alias/quarantine"]["Statement"]] == [
        HOME.receiver,
        HOME.operator,
    ]


@pytest.mark.parametrize(
    ("region", "partition"), [("us-east-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_arns_are_of_the_region_s_partition(region: str, partition: str) -> None:
    home = Home(account=ACCOUNT, region=region, receiver="", operator="")
    assert rights(told("s3: {bucket: mail}", home=home)["receiver"]) == [(STORE, f"arn:{partition}:s3:::mail/*")]


def test_rules_that_are_not_enabled_need_nothing() -> None:
    ruleset = loaded("rules:\n  - {name: a, enabled: no, actions: [{s3: {bucket: mail}}]}\n", ACTIONS)
    assert uses(ruleset) == ()


def test_the_names_of_statements_are_different_in_each_policy() -> None:
    found = told(
        "s3: {bucket: one, kms_key: alias/a}",
        "s3: {bucket: two, kms_key: alias/b}",
        "s3: {bucket: one, kms_key: alias/a, prefix: x, format: s3ec}",
        "quarantine: {bucket: one, prefix: q, kms_key: alias/a}",
    )
    every = [found["receiver"], found["operator"], *found["buckets"].values(), *found["keys"].values()]
    for policy in every:
        names = [one["Sid"] for one in policy["Statement"]]
        assert len(names) == len(set(names))
        assert all(name.isalnum() for name in names)
