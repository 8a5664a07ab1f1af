"""Which rules a recipient meets: pure decisions, no effects.

1. Each envelope recipient walks the rules from top to bottom. A disabled rule, or one whose `recipients` do not match, is
   passed over. `when` must be true and `unless` must not be (Kleene logic over true, false and undecided).
2. A condition on a check that broke (PROCESSING_FAILED) is undecided unless it names that status. An undecided rule
   defers the message, or is passed over if it says `undecided: skip`.
3. `stop`, `drop`, `quarantine` and `bounce` end the walk. A walk that did nothing with the mail is refused, 550 5.7.1.
4. All recipients are decided before any action runs. Recipients that meet the same rule share one run of its actions.
5. At RCPT the walk is tried with what is known by then (`outlook`): a certain refusal is answered right there, and
   recipients that could need different answers after DATA do not share a transaction. A deferral is not such an answer:
   it is true for every recipient, since nothing is done for any of them. Where recipients are not split, they share it.
"""

import functools
import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from inbound.actions import Action
from inbound.cases import Case
from inbound.conditions import ALWAYS, NEVER, All, Condition, Finding, Not, attributes_of
from inbound.facts import ATTRIBUTES, Facts, Part
from inbound.mail import Client, Mail
from inbound.recipients import POSTMASTER, forms
from inbound.record import RuleTrace, Walk
from inbound.reply import Reply, accepted
from inbound.schema import Place
from inbound.verdicts import BlockVerdict, Status, Verdicts

NO_RULE_TOOK_IT = "no rule took it"
UNDECIDED = "a rule could not be decided"
DIFFERENT_ANSWERS = "recipients need different answers"

REMEMBERED = 1024  # recipients of a rule set

UNTAKEN = Reply(550, "5.7.1", "No rule here takes this message", NO_RULE_TOOK_IT)
SEPARATE = Reply(
    451,
    "4.5.3",
    "Recipients of this message need different answers, please send to each of them on its own",
    DIFFERENT_ANSWERS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule as loaded. `recipients` are patterns in normal form, None for every recipient of our domains."""

    name: str
    actions: tuple[Action, ...]
    why: str = ""
    enabled: bool = True
    recipients: frozenset[str] | None = None
    tls: Literal["optional", "require"] = "optional"
    scan: bool = True
    when: Condition = ALWAYS
    unless: Condition = NEVER
    undecided: Literal["defer", "skip"] = "defer"
    place: Place = field(default=Place(file=""), compare=False)
    asks: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """The attributes that its conditions ask for."""
        object.__setattr__(self, "asks", attributes_of(self.when) | attributes_of(self.unless))

    @property
    def same_for_all(self) -> bool:
        """Its conditions are true of all recipients of a message or of none."""
        return "recipient" not in self.asks

    def is_for(self, forms_of_recipient: Sequence[str]) -> bool:
        """One of its patterns matches a recipient, given by its `forms`."""
        return self.recipients is None or not self.recipients.isdisjoint(forms_of_recipient)

    def weigh(self, facts: Facts) -> Finding:
        """`when` is true and `unless` is not."""
        if self.unless is NEVER:
            return _UNCONDITIONAL if self.when is ALWAYS else self.when.weigh(facts)
        when = self.when.weigh(facts)
        if when.truth is False:
            return when
        unless = self.unless.weigh(facts)
        if unless.truth is True:
            return Finding(False, f"unless: {unless.why}")
        findings = [unless] if self.when is ALWAYS else [when, unless]
        open_ones = [found for found in findings if found.truth is None]
        return Finding(
            None if open_ones else True,
            "; ".join(found.why for found in open_ones or findings),
            tuple(check for found in open_ones for check in found.checks),
        )

    def rest(self, facts: Facts) -> Condition:
        """What of its conditions is left to be found out: ALWAYS and NEVER are decided."""
        if self.unless == NEVER:
            return self.when.rest(facts)
        return All((self.when, Not(self.unless))).rest(facts)

    @property
    def takes(self) -> bool:
        """One of its actions stores the mail, hands it on or drops it on purpose."""
        return any(action.takes for action in self.actions)

    def course(self) -> Iterator[Action]:
        """Its actions as far as the one that ends the walk."""
        for action in self.actions:
            yield action
            if action.ends:
                return


_UNCONDITIONAL = Finding(True, "it has no condition")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """The rules in order. `version` is a digest of the files they came from, `tests` are written beside them."""

    rules: tuple[Rule, ...]
    version: str
    tests: tuple[Case, ...] = ()
    coverage: "Callable[[str], Coverage]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Remember the recipients that were asked for lately: each is asked for several times in a transaction alone."""
        object.__setattr__(self, "coverage", functools.lru_cache(maxsize=REMEMBERED)(self._coverage))

    @property
    def asks_for_dmarc(self) -> bool:
        """Some enabled rule turns on DMARC."""
        return any(_OF_DMARC & rule.asks for rule in self.rules if rule.enabled)

    def forms(self, recipient: str) -> tuple[str, ...]:
        """The patterns that a recipient meets. Bare `postmaster` meets what postmaster at any domain named here meets."""
        if recipient.lower() != POSTMASTER:
            return forms(recipient)
        patterns = {pattern for rule in self.rules for pattern in rule.recipients or ()}
        return tuple(pattern for pattern in patterns if "@" not in pattern or pattern.startswith(f"{POSTMASTER}@"))

    def _coverage(self, recipient: str) -> "Coverage":
        known = self.forms(recipient)
        rules = [rule for rule in self.rules if rule.enabled and rule.is_for(known)]
        return Coverage(
            rules={rule.name: rule for rule in rules},
            exists=any(rule.recipients is not None or rule.takes for rule in rules),
            requires_tls=any(rule.tls == "require" for rule in rules),
            wants_scan=any(rule.scan for rule in rules),
        )

    def covers(self, recipient: str) -> bool:
        """Some enabled rule names this recipient, or would take its mail (otherwise 550 5.1.1 at RCPT).

        A rule for everybody that takes no mail, such as one that refuses malware, makes no address exist.
        """
        return self.coverage(recipient).exists

    def requires_tls(self, recipient: str) -> bool:
        """Some enabled rule that covers this recipient says `tls: require` (530 5.7.0 outside TLS)."""
        return self.coverage(recipient).requires_tls

    def wants_scan(self, recipients: tuple[str, ...]) -> bool:
        """Some enabled rule that covers one of them asks for spam and virus checks."""
        return any(self.coverage(recipient).wants_scan for recipient in recipients)


@dataclass(slots=True, kw_only=True)
class Coverage:
    """What a rule set has for one recipient, whatever the message: the enabled rules that are for it by name, in order.

    `outlook` is found when it is first asked for, and kept where no client and no sender can change it.
    """

    rules: Mapping[str, Rule]
    exists: bool
    requires_tls: bool
    wants_scan: bool
    outlook: "Outlook | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One run of a rule's actions for the recipients that met it."""

    rule: Rule
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What will be done. `steps` is empty when `reply` defers: nothing may be done while one recipient is undecided.

    It is empty too when no rule took the mail for any recipient; then `reply` refuses. `reason` is a stable constant when
    the answer is not a rule's own: UNDECIDED, NO_RULE_TOOK_IT, DIFFERENT_ANSWERS, else "". `by_dmarc`: DMARC failed, and had
    it passed, the mail would have been refused or put apart where it is not, or the other way round. `ruleset` is its version.
    """

    walks: tuple[Walk, ...]
    steps: tuple[Step, ...]
    reply: Reply
    reason: str = ""
    by_dmarc: bool = False
    ruleset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What RCPT can know: a `refusal` that is certain, and `answers`, equal for recipients that may share a transaction."""

    refusal: Reply | None
    answers: Hashable


def decide(
    ruleset: RuleSet,
    mail: Mail,
    verdicts: Verdicts,
    *,
    parts: Callable[[Mail], Sequence[Part]] | None = None,
    split: bool = True,
) -> Decision:
    """Decide every recipient of the message. `parts` finds its attachments, and is called only where a rule asks for them.

    Unless recipients are `split` by their answers, the message is taken when it is for one of them: who is refused is told
    of it later (`deliver`).
    """
    facts = _facts(mail, verdicts, parts)
    courses = _courses(ruleset, facts)
    walks = tuple(course.walk(mail.message_id) for course in courses)
    reply = _common([walk.reply for walk in walks], split=split)
    reasons = {SEPARATE: DIFFERENT_ANSWERS, UNTAKEN: NO_RULE_TOOK_IT}
    reason = UNDECIDED if any(course.deferral for course in courses) else reasons.get(reply, "")
    return Decision(
        walks=walks,
        steps=() if reply.defers else _steps(ruleset, courses),
        reply=reply,
        reason=reason,
        by_dmarc=_by_dmarc(ruleset, facts, courses),
        ruleset=ruleset.version,
    )


def _facts(mail: Mail, verdicts: Verdicts, parts: Callable[[Mail], Sequence[Part]] | None) -> Facts:
    """All that is known, for the first of the recipients."""
    return Facts(
        recipient=mail.rcpt_to[0] if mail.rcpt_to else "",
        client=mail.client,
        mail_from=mail.mail_from,
        block=verdicts.block,
        mail=mail,
        verdicts=verdicts,
        parts=None if parts is None else lambda: parts(mail),
    )


def _courses(ruleset: RuleSet, facts: Facts) -> "list[_Course]":
    mail = facts.mail
    found: dict[str, Finding] = {}
    recipients = dict.fromkeys(mail.rcpt_to if mail else ())
    return [
        _walk(ruleset, facts if facts.recipient == one else replace(facts, recipient=one), found) for one in recipients
    ]


def _by_dmarc(ruleset: RuleSet, facts: Facts, courses: "list[_Course]") -> bool:
    """Try the walks as if DMARC had passed; only where some rule asks for it."""
    verdicts = facts.verdicts
    if verdicts is None or verdicts.dmarc.result != "fail" or not ruleset.asks_for_dmarc:
        return False
    passed = replace(verdicts, dmarc=replace(verdicts.dmarc, status=Status.PASS, result="pass"))
    readings = {key: reading for key, reading in facts.readings.items() if key[0] not in _OF_DMARC}
    others = _courses(ruleset, replace(facts, verdicts=passed, readings=readings))
    return [course.severity for course in courses] != [course.severity for course in others]


_OF_DMARC = frozenset({"dmarc", "dmarc_policy"})


def _common(replies: list[Reply], *, split: bool) -> Reply:
    """The one reply after DATA that is true for all recipients."""
    deferral = next((reply for reply in replies if reply.defers), None)
    if deferral is not None:
        return deferral
    taken = next((reply for reply in replies if reply.accepts), None)
    if taken is None or all(reply.accepts for reply in replies):
        return replies[0]
    return SEPARATE if split else taken


def _steps(ruleset: RuleSet, courses: "list[_Course]") -> tuple[Step, ...]:
    who: dict[str, list[str]] = {}
    for course in courses:
        for rule in course.met if course.taken or course.refusal else ():
            who.setdefault(rule.name, []).append(course.recipient)
    return tuple(Step(rule=rule, recipients=tuple(who[rule.name])) for rule in ruleset.rules if rule.name in who)


@dataclass(slots=True, kw_only=True)
class _Course:
    """One recipient's walk while it is being walked."""

    recipient: str
    traces: list[RuleTrace] = field(default_factory=list)
    met: list[Rule] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    taken: bool = False
    refusal: Reply | None = None
    deferral: Reply | None = None

    def note(self, rule: Rule, met: bool | None, why: str) -> None:
        self.traces.append(RuleTrace(name=rule.name, met=met, why=why))

    def meet(self, rule: Rule) -> bool:
        """Take the rule's actions in; true when they end the walk."""
        self.met.append(rule)
        for action in rule.course():
            self.actions.append(action.kind)
            self.taken = self.taken or action.takes
            self.refusal = action.refusal or self.refusal
            if action.ends:
                return True
        return False

    @property
    def severity(self) -> tuple[bool, bool]:
        """It is refused; it is put apart."""
        return self.refusal is not None or not self.taken, "quarantine" in self.actions

    def walk(self, message_id: str) -> Walk:
        reply = self.deferral or self.refusal or (accepted(message_id) if self.taken else UNTAKEN)
        actions = () if reply.defers or reply is UNTAKEN else tuple(self.actions)
        return Walk(recipient=self.recipient, traces=tuple(self.traces), actions=actions, reply=reply)


def _walk(ruleset: RuleSet, facts: Facts, found: dict[str, Finding]) -> _Course:
    """Walk the rules. `found` keeps what was found of the rules that are the same for all recipients of the message."""
    course = _Course(recipient=facts.recipient)
    covering = ruleset.coverage(facts.recipient).rules
    for rule in ruleset.rules:
        if not rule.enabled:
            course.note(rule, False, "it is disabled")
        elif rule.name not in covering:
            course.note(rule, False, f"{facts.recipient} is none of its recipients")
        else:
            finding = found.get(rule.name) or rule.weigh(facts)
            if rule.same_for_all:
                found[rule.name] = finding
            if finding.truth is None and rule.undecided == "skip":
                course.note(rule, None, f"{finding.why}; passed over, as it says undecided: skip")
                continue
            course.note(rule, finding.truth, finding.why)
            if finding.truth is None:
                course.deferral = _deferral(finding)
                return course
            if finding.truth and course.meet(rule):
                return course
    if not course.taken and course.refusal is None:
        note_end = RuleTrace(name="", met=False, why=NO_RULE_TOOK_IT)
        course.traces.append(note_end)
    return course


def _deferral(finding: Finding) -> Reply:
    """RFC 3463 X.7.0: no code says more truly that a check of ours, or DNS behind it, gave no answer."""
    checks = " and ".join(dict.fromkeys(finding.checks))
    return Reply(451, "4.7.0", f"The {checks} check could not be completed, please try again later", UNDECIDED)


def outlook(ruleset: RuleSet, recipient: str, *, client: Client, mail_from: str, block: BlockVerdict) -> Outlook:
    """Try the walk at RCPT: everything that only the message can tell is undecided."""
    coverage = ruleset.coverage(recipient)
    if coverage.outlook is not None:
        return coverage.outlook
    facts = Facts(recipient=recipient, client=client, mail_from=mail_from, block=block)
    ahead = [(rule, rest) for rule in coverage.rules.values() if (rest := rule.rest(facts)) != NEVER]
    found = Outlook(refusal=_certain_refusal(ahead), answers=_answers(ahead))
    if not any(_CHANGING & rule.asks for rule in coverage.rules.values()):
        coverage.outlook = found
    return found


# What is known at RCPT and another at the next, but for the recipient.
_CHANGING = frozenset(name for name, one in ATTRIBUTES.items() if one.known == "RCPT") - {"recipient"}
_Ahead = list[tuple[Rule, Condition]]  # the rules that can still be met, and what is left of their conditions


def _certain_refusal(ahead: _Ahead) -> Reply | None:
    """The refusal that the walk surely ends in, when nothing would be done in the world before it."""
    for rule, rest in ahead:
        if rest != ALWAYS:
            return None
        for action in rule.course():
            if getattr(action, "topic_arn", None) is not None:  # it needs the message to tell of
                return None
            if action.refusal is not None and action.ends:
                return action.refusal
            if action.outward or action.takes or action.refusal is not None:
                return None
            if action.ends:
                return UNTAKEN
    return UNTAKEN


def _answers(ahead: _Ahead) -> Hashable:
    """A digest of the decision diagram from what is not known yet to the answer.

    Its leaves are the answers: taken, or the reply of a refusal. Built from the last rule to the first, for each state
    that a walk can arrive in. A question whose two sides are the same is left out, so a recipient that nothing ahead can
    refuse has the one answer `taken`, and equal questions in rules of different names are equal.
    """
    refused = {
        str(action.refusal) for rule, _ in ahead for action in rule.course() if action.refusal and not action.ends
    }
    after = {state: state for state in {_TAKEN, _UNTAKEN} | refused}
    for rule, rest in reversed(ahead):
        question = _question(rest)
        now: dict[str, str] = {}
        for state, unmet in after.items():
            met = _through(rule, 0, state, after)
            now[state] = met if rest == ALWAYS or met == unmet else _node(question, met, unmet)
        after = now
    return after[_UNTAKEN]


_TAKEN = "taken"
_UNTAKEN = str(UNTAKEN)


@functools.lru_cache(maxsize=4096)
def _question(rest: Condition) -> str:
    return repr(rest)


def _through(rule: Rule, position: int, state: str, after: dict[str, str]) -> str:
    """Where the rule's actions from `position` lead. A function that is waited for can end the rule or the walk, or refuse.

    Its question has the rule's name: recipients of one rule share one run of it and so its answer, those of two do not.
    Another action that may refuse by what the message is (`may_refuse`) asks one question wherever it stands.
    """
    for at in range(position, len(rule.actions)):
        action = rule.actions[at]
        if action.refusal is not None:
            state = str(action.refusal)
        elif action.takes and state == _UNTAKEN:
            state = _TAKEN
        if action.ends:
            return state
        doubt = f"{rule.name}/{at}" if action.patience > 0 else action.may_refuse
        if doubt:
            return _node(doubt, _through(rule, at + 1, state, after), after[state], state)
    return after[state]


@functools.lru_cache(maxsize=4096)
def _node(question: str, *ways: str) -> str:
    return hashlib.blake2b(repr((question, ways)).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
