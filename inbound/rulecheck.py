"""What is allowed in a rule set and hardly meant: rules that are never met, addresses that nobody serves.

Every warning is certain, none is a guess: a rule is called unreachable only when some rule before it ends the walk of every
mail that could meet it.
"""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from inbound.actions.relay import Relay
from inbound.addresses import a_labels
from inbound.clients.relay import hop_of
from inbound.conditions import ALWAYS, NEVER
from inbound.errors import Problem
from inbound.recipients import forms
from inbound.rules import Rule, RuleSet
from inbound.schema import Place
from inbound.settings import ENCRYPTED, Settings

_MOST_NAMED = 3  # recipients in one warning
_MUST_EXIST = ("postmaster", "abuse")  # RFC 5321 4.5.1, RFC 2142


def warnings(ruleset: RuleSet, settings: Settings) -> tuple[Problem, ...]:
    """Everything that is odd under these settings (their `domains`, and `clamd`: there is a scanner), in the order of rules."""
    domains = settings.domains
    rules = [rule for rule in ruleset.rules if rule.enabled]
    found: list[Problem] = []
    for position, rule in enumerate(rules):
        found += _unreachable(rule, rules[:position], domains)
        found += _elsewhere(rule, domains)
        found += _stored_twice(rule, rules[:position])
        found += _handed_on(rule, settings)
        if not settings.clamd and "virus" in rule.asks:
            found.append(_about(rule, "asks about viruses, but there is no scanner: the verdict is always DISABLED"))
        trusted = settings.trusted.authserv_ids and settings.trusted.forwarders
        if not trusted and "upstream" in rule.asks:
            found.append(
                _about(rule, "asks about an upstream, but the settings trust none: the verdict is always none")
            )
        if not rule.scan and {"virus", "spam", "spam_score"} & rule.asks:
            found.append(
                _about(rule, "asks about spam or viruses and says scan: no; only another rule's scan can answer it")
            )
        found += _without_s3(rule, settings)
    return (*found, *_unserved(ruleset, domains))


def impossible(ruleset: RuleSet, settings: Settings) -> tuple[Problem, ...]:
    """What a rule set asks for that cannot be had under these settings, and must not be left out silently."""
    return tuple(
        rule.place.problem(f"rule {rule.name!r} {_NOT_ENCRYPTED}")
        for rule in ruleset.rules
        if settings.cloud == "local" and rule.enabled and _asked_of_s3(rule, _ENCRYPTION)
    )


_ENCRYPTION = ("server_side_encryption",)
_KEPT_BY_S3 = ("storage_class", "tags", "content_type")
_NOT_ENCRYPTED = (
    "asks for server_side_encryption, which is S3's own: with cloud: local nothing would be encrypted. "
    "Seal with kms_key, or encrypt the disk, and leave it out"
)


def _without_s3(rule: Rule, settings: Settings) -> Iterator[Problem]:
    if settings.cloud != "local":
        return
    if _asked_of_s3(rule, _ENCRYPTION):
        yield _about(rule, f"{_NOT_ENCRYPTED}; it is refused when mail is to be received")
    kept = _asked_of_s3(rule, _KEPT_BY_S3)
    if kept:
        yield _about(rule, f"sets {' and '.join(kept)}, which a directory does not have (cloud: local)")


def _asked_of_s3(rule: Rule, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if any(getattr(action, key, None) for action in rule.actions if action.kind == "s3")]


def _about(rule: Rule, message: str) -> Problem:
    return rule.place.problem(f"warning: rule {rule.name!r} {message}")


def _unreachable(rule: Rule, before: Sequence[Rule], domains: Sequence[str]) -> Iterator[Problem]:
    """Rules before it end the walk of everything that could meet it: for all of its recipients, and as often."""
    ending = [one for one in before if any(action.ends for action in one.actions) and _as_often(one, rule)]
    blocking: dict[str, None] = {}
    for pattern in sorted(domains if rule.recipients is None else rule.recipients):
        by = next((one.name for one in ending if _includes(one.recipients, pattern)), None)
        if by is None:
            return
        blocking[by] = None
    if blocking:
        yield _about(rule, f"is never met: {' and '.join(blocking)} before it ends the walk of all its recipients")


def _as_often(one: Rule, other: Rule) -> bool:
    """The first is met whenever the other is, as far as conditions go: it has none, or the same."""
    return (one.when, one.unless) in ((ALWAYS, NEVER), (other.when, other.unless))


def _includes(patterns: frozenset[str] | None, pattern: str) -> bool:
    """Every address that the pattern stands for meets one of the patterns."""
    if patterns is None:
        return True
    if "@" in pattern:
        return bool(patterns.intersection(forms(pattern)))
    name = pattern.removeprefix(".")
    above = {f".{name.split('.', depth)[depth]}" for depth in range(1, name.count(".") + 1)}
    return bool(patterns & (above | {pattern}))


def _elsewhere(rule: Rule, domains: Sequence[str]) -> Iterator[Problem]:
    """Recipients at domains that are not ours."""
    ours = frozenset(domains)
    strangers = sorted(pattern for pattern in rule.recipients or () if not _is_ours(pattern.rpartition("@")[2], ours))
    if strangers:
        names = ", ".join(strangers[:_MOST_NAMED])
        more = f" and {len(strangers) - _MOST_NAMED} more" if len(strangers) > _MOST_NAMED else ""
        yield _about(rule, f"names {names}{more}, not at one of our domains ({', '.join(domains)})")


def _is_ours(domain: str, ours: frozenset[str]) -> bool:
    below = domain.startswith(".") and any(our.removeprefix(".").endswith(domain) for our in ours)
    return below or _includes(ours, domain)


def _stored_twice(rule: Rule, before: Sequence[Rule]) -> Iterator[Problem]:
    """Two rules that store one message under one key: the first write stays, the second changes nothing."""
    for one in before:
        twice = _stores(one) & _stores(rule)
        if not twice or any(action.ends for action in one.actions) or not _overlap(one.recipients, rule.recipients):
            continue
        for where in sorted(twice):
            yield _about(
                rule, f"stores in {where} where {one.name!r} has stored the message already; only the first is kept"
            )


def _handed_on(rule: Rule, settings: Settings) -> Iterator[Problem]:
    """Mail that goes on where it can be read, where it comes from, or where one refusal keeps others waiting."""
    relays = [action for action in rule.actions if isinstance(action, Relay)]
    for hop in dict.fromkeys(action.hop or hop_of(settings.relay) for action in relays):
        if hop is None:
            continue
        if hop.tls not in ENCRYPTED and not _is_here(hop.host):
            yield _about(rule, f"relays to {hop.name} with tls: {hop.tls}, so others may read it on the way")
        if hop.host == a_labels(settings.hostname) != "localhost":
            yield _about(rule, f"relays to {hop.name}, which is our own hostname")
    alone = rule.recipients is not None and len(rule.recipients) == 1 and "@" in next(iter(rule.recipients))
    if any(action.to is None and action.on_failure != "continue" for action in relays) and not (
        alone or settings.tells
    ):
        yield _about(
            rule,
            "relays for several recipients, and the settings have neither `relay` nor `dsn`: when the next hop refuses one of "
            "a message's recipients and takes another, the sender is answered 451 until it gives up",
        )


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 6.3


def _stores(rule: Rule) -> set[str]:
    # What is held has keys that name the rule.
    actions = [action for action in rule.actions if action.kind != "quarantine"]
    places = [(getattr(action, "bucket", None), getattr(action, "prefix", "")) for action in actions]
    return {f"{bucket}/{prefix}".rstrip("/") for bucket, prefix in places if bucket}


def _overlap(one: frozenset[str] | None, other: frozenset[str] | None) -> bool:
    if one is None or other is None:
        return True
    return any(_includes(one, pattern) for pattern in other) or any(_includes(other, pattern) for pattern in one)


def _unserved(ruleset: RuleSet, domains: Sequence[str]) -> Iterator[Problem]:
    """Addresses that must exist at every domain (a subdomain entry `.d` is asked about one below it) and do not."""
    place = Place(file=ruleset.rules[0].place.file)
    for domain in domains:
        name = f"any{domain}" if domain.startswith(".") else domain
        missing = [f"{local}@{name}" for local in _MUST_EXIST if not ruleset.covers(f"{local}@{name}")]
        if missing:
            yield place.problem(f"warning: no rule covers {' and '.join(missing)} (RFC 5321 4.5.1, RFC 2142)")
