"""Conditions: trees over attributes of a mail, in Kleene's three values.

1. A condition is true, false or undecided. `not` turns true and false; `all` is false as soon as one part is; `any` is
   true as soon as one part is; otherwise what is undecided stays undecided.
2. A test on a verdict that is PROCESSING_FAILED is undecided, unless it names that status or the field's `temperror`.
3. A word that is a status (`pass`, `fail`, `gray`, …) means the status, any other the field's own result. So `dkim: pass`
   never means a signature that is not aligned.
4. What an attribute does not have (no such header field) fits nothing. Of several values one that fits is enough.
5. Every finding says why, in the words of the condition and with the values that made it so.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from inbound.facts import ATTRIBUTES, TEMPERROR, Attribute, Facts, Judged, Undecided, Value

BROKEN = "processing_failed"

_SHOWN = 80  # characters of a value in an explanation
_MOST_SHOWN = 3  # values of an attribute in an explanation


@dataclass(frozen=True, slots=True)
class Finding:
    """The truth of a condition, None when undecided, and why; `checks` are the ones that left it so."""

    truth: bool | None
    why: str
    checks: tuple[str, ...] = ()


class Condition(Protocol):
    """One node of a tree. Equal trees are equal conditions."""

    def __hash__(self) -> int: ...

    def weigh(self, facts: Facts) -> Finding:
        """Whether it is true of this mail, and why."""
        ...

    def rest(self, facts: Facts) -> "Condition":
        """What is left to be found out when these facts are known: `ALWAYS`, `NEVER` or a smaller tree."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Decided already: there are ALWAYS and NEVER, and no other."""

    truth: bool

    def weigh(self, facts: Facts) -> Finding:  # noqa: ARG002
        """As it is."""
        return Finding(self.truth, "always" if self.truth else "never")

    def rest(self, facts: Facts) -> Condition:  # noqa: ARG002
        """Nothing is left."""
        return self


ALWAYS = Constant(truth=True)
NEVER = Constant(truth=False)


@dataclass(frozen=True, slots=True)
class All:
    """True when every part is."""

    parts: tuple[Condition, ...]

    def weigh(self, facts: Facts) -> Finding:
        """False at the first false part."""
        return _joined(self.parts, facts, ends_at=False)

    def rest(self, facts: Facts) -> Condition:
        """The parts that are not known to be true."""
        parts = _open(self.parts, facts, ends_at=NEVER)
        if parts == self.parts or len(parts) == 1:
            return self if len(parts) > 1 else parts[0]
        return All(parts) if parts else ALWAYS


@dataclass(frozen=True, slots=True)
class Any:
    """True when one part is."""

    parts: tuple[Condition, ...]

    def weigh(self, facts: Facts) -> Finding:
        """True at the first true part."""
        return _joined(self.parts, facts, ends_at=True)

    def rest(self, facts: Facts) -> Condition:
        """The parts that are not known to be false."""
        parts = _open(self.parts, facts, ends_at=ALWAYS)
        if parts == self.parts or len(parts) == 1:
            return self if len(parts) > 1 else parts[0]
        return Any(parts) if parts else NEVER


def _open(parts: tuple[Condition, ...], facts: Facts, *, ends_at: Constant) -> tuple[Condition, ...]:
    """The parts that are still to be found out; only the deciding one when it is among them."""
    rests: list[Condition] = []
    for part in parts:
        rest = part.rest(facts)
        if rest is ends_at:
            return (rest,)
        if not isinstance(rest, Constant):
            rests.append(rest)
    return tuple(rests)


def _joined(parts: tuple[Condition, ...], facts: Facts, *, ends_at: bool) -> Finding:
    others: list[Finding] = []
    undecided: list[Finding] = []
    for part in parts:
        finding = part.weigh(facts)
        if finding.truth is ends_at:
            return finding
        (undecided if finding.truth is None else others).append(finding)
    return Finding(
        None if undecided else not ends_at,
        "; ".join(finding.why for finding in undecided or others),
        tuple(check for finding in undecided for check in finding.checks),
    )


@dataclass(frozen=True, slots=True)
class Not:
    """True when the part is false."""

    part: Condition

    def weigh(self, facts: Facts) -> Finding:
        """The other way round; undecided stays undecided."""
        finding = self.part.weigh(facts)
        return finding if finding.truth is None else Finding(not finding.truth, finding.why)

    def rest(self, facts: Facts) -> Condition:
        """The other way round."""
        part = self.part.rest(facts)
        if isinstance(part, Constant):
            return NEVER if part.truth else ALWAYS
        return self if part is self.part else Not(part)


@dataclass(frozen=True, slots=True)
class Test:
    """One attribute compared. `wanted` are the values as written; `fits` compares one value and follows from the others."""

    attribute: str
    argument: str
    operator: str
    wanted: tuple[str, ...]
    fits: Callable[[Value], bool] = field(compare=False, repr=False)
    about: Attribute = field(init=False, compare=False, repr=False)  # the attribute that is compared
    name: str = field(init=False, compare=False, repr=False)  # as it is written in a rule
    said: str = field(init=False, compare=False, repr=False)  # what is wanted, in an explanation

    __test__ = False  # for pytest, which takes the name for its own

    def __post_init__(self) -> None:
        """What every finding needs."""
        object.__setattr__(self, "about", ATTRIBUTES[self.attribute])
        object.__setattr__(self, "name", self.attribute.replace("<Name>", self.argument))
        object.__setattr__(self, "said", self._said())

    def weigh(self, facts: Facts) -> Finding:
        """Read the attribute and compare."""
        reading = facts.read(self.about, self.argument)
        if isinstance(reading, Undecided):
            return Finding(None, f"{self.name} is not known: {reading.why}", (reading.check or self.name,))
        for value in reading:
            if isinstance(value, Judged) and _broken(value):
                named = bool({BROKEN, TEMPERROR} & set(self.wanted))
                reason = f": {_cut(value.reason)}" if value.reason else ""
                return Finding(
                    True if named else None, f"{self.name} is {value}{reason}", () if named else (self.name,)
                )
        if self.operator == "present":
            return Finding(
                (self.wanted == ("yes",)) is bool(reading), f"{self.name} is {'present' if reading else 'absent'}"
            )
        fitting = next((value for value in reading if self.fits(value)), None)
        if fitting is not None:
            return Finding(True, f"{self.name} is {self._shown(fitting)}{self._that_fits()}")
        return Finding(False, self._misfit(reading))

    def rest(self, facts: Facts) -> Condition:
        """A constant when the attribute is known."""
        if facts.mail is None and self.about.known == "DATA":
            return self
        finding = self.weigh(facts)
        return self if finding.truth is None else ALWAYS if finding.truth else NEVER

    def _that_fits(self) -> str:
        return "" if self.operator == "is" else f", {_FITS[self.operator][0]} {self.said}"

    @property
    def _quoted(self) -> bool:
        return self.about.kind in ("text", "address")

    def _shown(self, value: Value) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return f"{value:g}" if value < 1e6 else f"{value:.0f}"  # noqa: PLR2004
        if isinstance(value, str):
            return f'"{_cut(value)}"' if self._quoted else _cut(value)
        return str(value)

    def _misfit(self, reading: tuple[Value, ...]) -> str:
        if not reading:
            return f"{self.name} is absent"
        values = " and ".join(self._shown(value) for value in reading[:_MOST_SHOWN])
        more = f" and {len(reading) - _MOST_SHOWN} more" if len(reading) > _MOST_SHOWN else ""
        says = "not" if self.operator == "is" else _FITS[self.operator][1]
        return f"{self.name} is {values}{more}, {says} {self.said}"

    def _said(self) -> str:
        words = [
            f'"{_cut(word)}"' if self._quoted and self.operator != "in" else _cut(word)
            for word in self.wanted[:_MOST_SHOWN]
        ]
        more = f" or {len(self.wanted) - _MOST_SHOWN} more" if len(self.wanted) > _MOST_SHOWN else ""
        return " or ".join(words) + more


_FITS = {
    "glob": ("which fits", "which does not fit"),
    "regex": ("which matches", "which does not match"),
    "starts_with": ("which starts with", "which does not start with"),
    "ends_with": ("which ends with", "which does not end with"),
    "contains": ("which contains", "which does not contain"),
    "above": ("above", "not above"),
    "below": ("below", "not below"),
    "in": ("which is on", "which is not on"),
}


def _broken(value: Judged) -> bool:
    return value.status == BROKEN or (not value.status and value.result == TEMPERROR)


def _cut(text: str) -> str:
    if len(text) <= _SHOWN and text.isprintable():
        return text
    clean = "".join(char if char.isprintable() else "?" for char in text[: _SHOWN + 1])
    return clean if len(text) <= _SHOWN else f"{clean[:_SHOWN]}…"


def attributes_of(condition: Condition) -> frozenset[str]:
    """The names of all attributes that a condition asks for."""
    match condition:
        case All(parts) | Any(parts):
            return frozenset().union(*(attributes_of(part) for part in parts))
        case Not(part):
            return attributes_of(part)
        case Test():
            return frozenset({condition.attribute})
        case _:
            return frozenset()
