"""What a rule set uses in the world: buckets, keys, topics, queues, functions, services, next hops; and which rules do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from inbound.actions import Action
from inbound.actions.keep import Form
from inbound.actions.relay import Relay
from inbound.clients import USUAL, Terms
from inbound.rules import Rule, RuleSet

What = Literal["bucket", "key", "topic", "queue", "function", "webhook", "next hop"]

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
    return tuple(_uses(ruleset))


def _uses(ruleset: RuleSet) -> Iterator[Use]:
    for rule in ruleset.rules:
        for action in rule.course() if rule.enabled else ():
            role = getattr(action, "role_arn", None) or ""
            for key, what in _KEYS.items():
                name = getattr(action, key, None)
                if name:
                    yield Use(what=what, name=name, rule=rule, action=action, role=role)
            if isinstance(action, Relay):
                hop = action.hop
                yield Use(what="next hop", name=hop.name if hop else "of the settings", rule=rule, action=action)
