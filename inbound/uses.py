"""What a rule set uses in the world: buckets, keys, topics, queues, functions and services, and which rules use them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from inbound.actions import Action
from inbound.actions.keep import Form
from inbound.clients import USUAL, Terms
from inbound.rules import Rule, RuleSet

What = Literal["bucket", "key", "topic", "queue", "function", "webhook"]

_KEYS: Mapping[str, What] = {  # the key of an action that names one
    "bucket": "bucket",
    "kms_key": "key",
    "topic_arn": "topic",
    "queue_url": "queue",
    "function": "function",
    "url": "webhook",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One thing that one action of a rule uses. `role` is the role that is assumed for it, "" for our own."""

    what: What
    name: str
    rule: Rule
    action: Action
    role: str = ""

    @property
    def prefix(self) -> str:
        """Of a bucket, that of the keys there."""
        prefix: str = getattr(self.action, "prefix", "")
        return prefix

    @property
    def form(self) -> Form:
        """Of a key, the form that is sealed in."""
        form: Form = getattr(self.action, "format", "ses")
        return form

    @property
    def terms(self) -> Terms:
        """Of a bucket, how mail is stored there."""
        terms: Terms = getattr(self.action, "terms", USUAL)
        return terms

    @property
    def shared(self) -> bool:
        """Of a key, its data keys seal several messages and name none."""
        return getattr(self.action, "cache_data_keys", None) is not None

    @property
    def held(self) -> bool:
        """Mail is held there, to be opened, listed and deleted later."""
        return self.action.kind == "quarantine"


def uses(ruleset: RuleSet) -> tuple[Use, ...]:
    """Everything that the enabled rules use, in their order."""
    return tuple(
        Use(what=what, name=name, rule=rule, action=action, role=getattr(action, "role_arn", None) or "")
        for rule in ruleset.rules
        if rule.enabled
        for action in rule.course()
        for key, what in _KEYS.items()
        if (name := getattr(action, key, None))
    )
