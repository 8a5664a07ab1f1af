"""Which rules a recipient meets: pure decisions, no effects.

1. Each envelope recipient walks the rules from top to bottom. A disabled rule, or one whose `recipients` do not match, is
   passed over. `when` must be true and `unless` must not be (Kleene logic over true, false and undecided).
2. A condition on a check that broke (PROCESSING_FAILED) is undecided unless it names that status. An undecided rule
   defers the message, or is passed over if it says `undecided: skip`.
3. `stop`, `drop`, `quarantine` and `bounce` end the walk. A walk that did nothing with the mail is refused, 550 5.7.1.
4. All recipients are decided before any action runs. Recipients that meet the same rule share one run of its actions.
5. At RCPT the walk is tried with what is known by then (`outlook`): a certain refusal is answered right there, and
   recipients that could need different answers after DATA do not share a transaction.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from inbound.actions import Action
from inbound.mail import Client, Mail
from inbound.record import Walk
from inbound.reply import Reply
from inbound.verdicts import BlockVerdict, Verdicts

NO_RULE_TOOK_IT = "no rule took it"
UNDECIDED = "a rule could not be decided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule as loaded."""

    name: str
    actions: tuple[Action, ...]
    why: str = ""
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """The rules in order. `version` is a digest of the files they came from."""

    rules: tuple[Rule, ...]
    version: str

    def covers(self, recipient: str) -> bool:
        """Some enabled rule covers this recipient (otherwise 550 5.1.1 at RCPT)."""
        raise NotImplementedError

    def requires_tls(self, recipient: str) -> bool:
        """Some enabled rule that covers this recipient says `tls: require` (530 5.7.0 outside TLS)."""
        raise NotImplementedError

    def wants_scan(self, recipients: tuple[str, ...]) -> bool:
        """Some enabled rule that covers one of them asks for spam and virus checks."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One run of a rule's actions for the recipients that met it."""

    rule: Rule
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What will be done. `steps` is empty when `reply` defers: nothing may be done while one recipient is undecided."""

    walks: tuple[Walk, ...]
    steps: tuple[Step, ...]
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What RCPT can know: a `refusal` that is certain, and `answers`, equal for recipients that may share a transaction."""

    refusal: Reply | None
    answers: Hashable


def decide(ruleset: RuleSet, mail: Mail, verdicts: Verdicts, lists: Mapping[str, object] | None = None) -> Decision:
    """Decide every recipient of the message."""
    raise NotImplementedError


def outlook(ruleset: RuleSet, recipient: str, *, client: Client, mail_from: str, block: BlockVerdict) -> Outlook:
    """Try the walk at RCPT: everything that only the message can tell is undecided."""
    raise NotImplementedError
