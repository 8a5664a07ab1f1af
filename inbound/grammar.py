"""How conditions are written: from the YAML of `when` and `unless` to a tree, with every mistake at its place.

    {virus: fail}                                  an attribute and its value
    {spam: [gray, fail], tls: no}                  several values: one of them; several attributes: all of them
    {subject: {starts_with: "[ticket"}}            an operator
    {any: [{spam: fail}, {not: {dmarc: pass}}]}    all, any and not build trees

Text is compared case folded, addresses with their domains as A-labels.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import re2

from inbound.conditions import All, Any, Condition, Not, Test
from inbound.errors import Problem
from inbound.facts import ANY_HEADER, ATTRIBUTES, Attribute, Judged, Kind, Value, listed, normal, tls_number
from inbound.schema import Node, found, unknown

MOST_WORDS = 1000  # values of one comparison; longer lists belong into files
LONGEST_WORD = 4096  # characters; SES Mail Manager's bound

OPERATORS: Mapping[str, frozenset[Kind]] = {
    "is": frozenset({"verdict", "word", "text", "address", "number", "version", "flag", "network"}),
    "glob": frozenset({"text", "address"}),
    "regex": frozenset({"text", "address"}),
    "starts_with": frozenset({"text", "address"}),
    "ends_with": frozenset({"text", "address"}),
    "contains": frozenset({"text", "address"}),
    "in": frozenset({"address"}),
    "above": frozenset({"number", "version"}),
    "below": frozenset({"number", "version"}),
    "present": frozenset({"text", "address"}),
}

_TREES = ("all", "any", "not")
_FLAGS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
_UNITS = {"kib": 1024.0, "mib": 1024.0 * 1024, "kb": 1000.0, "mb": 1e6}

Fits = Callable[[Value], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """The named address lists of the rule set, and `read`, which reads a list file by its path as written."""

    named: Mapping[str, frozenset[str]]
    read: Callable[[Node], frozenset[str]]


def condition(node: Node, lists: Lists, problems: list[Problem]) -> Condition | None:
    """The tree that a node says; None when `problems` has grown."""
    if not node.entries:
        hint = "; write all: or any: before a list" if node.items else ""
        problems.append(node.problem(f"expected a condition such as {{virus: fail}}, found {found(node)}{hint}"))
        return None
    parts = [_part(name, value, lists, problems) for name, value in node.entries.items()]
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        return None
    return whole[0] if len(whole) == 1 else All(tuple(whole))


def _part(name: str, value: Node, lists: Lists, problems: list[Problem]) -> Condition | None:
    if name == "not":
        part = condition(value, lists, problems)
        return None if part is None else Not(part)
    if name in _TREES:
        if not value.items:
            problems.append(value.problem(f"{name} needs a list of conditions, found {found(value)}"))
            return None
        parts = [condition(item, lists, problems) for item in value.items]
        whole = tuple(part for part in parts if part is not None)
        if len(whole) < len(parts):
            return None
        return All(whole) if name == "all" else Any(whole)
    attribute, argument = _attribute(name)
    if attribute is None:
        problems.append(value.key.problem(unknown("attribute", name, [*ATTRIBUTES, *_TREES])))
        return None
    if value.entries is None:
        return _test(attribute, argument, "in" if attribute.name == "list" else "is", value, lists, problems)
    tests = [
        _test(attribute, argument, operator, wanted, lists, problems) for operator, wanted in value.entries.items()
    ]
    if not tests:
        problems.append(value.problem(f"{name} is compared with nothing"))
    whole = tuple(test for test in tests if test is not None)
    if len(whole) < len(tests) or not tests:
        return None
    return whole[0] if len(whole) == 1 else All(whole)


def _attribute(name: str) -> tuple[Attribute | None, str]:
    if name.lower().startswith(ANY_HEADER):
        argument = name[len(ANY_HEADER) :]
        valid = argument and all(33 <= ord(char) <= 126 and char != ":" for char in argument)  # noqa: PLR2004 - RFC 5322 3.6.8
        return (ATTRIBUTES["header.<Name>"] if valid and argument != "<Name>" else None), argument
    return ATTRIBUTES.get(name), ""


def _test(
    attribute: Attribute, argument: str, operator: str, value: Node, lists: Lists, problems: list[Problem]
) -> Condition | None:
    kinds = OPERATORS.get(operator)
    usable = [name for name, of in OPERATORS.items() if attribute.kind in of]
    if kinds is None:
        problems.append(value.key.problem(unknown("operator", operator, usable)))
        return None
    if attribute.kind not in kinds or (attribute.name == "list" and operator != "in"):
        problems.append(
            value.key.problem(
                f"{attribute.name} cannot be compared with {operator!r}; there are {', '.join(sorted(usable))}"
            )
        )
        return None
    nodes = value.items if value.items is not None else (value,)
    if not nodes:
        problems.append(value.problem("an empty list fits nothing"))
        return None
    if len(nodes) > MOST_WORDS:
        problems.append(value.problem(f"{len(nodes)} values; more than {MOST_WORDS} belong into a list file"))
        return None
    before = len(problems)
    made = [_fitting(attribute, operator, node, lists, problems) for node in nodes]
    if len(problems) > before:
        return None
    words = tuple(word for word, _ in made)
    return Test(attribute.name, argument.lower(), operator, words, _one_of(attribute, operator, made))


def _one_of(attribute: Attribute, operator: str, made: list[tuple[str, Fits]]) -> Fits:
    """One function for all the values: a set where equality is asked of text, so that long lists cost no more."""
    if operator == "is" and attribute.kind in ("text", "address", "word"):
        words = frozenset(word.casefold() for word, _ in made)
        return lambda value: isinstance(value, str) and value.casefold() in words
    if len(made) == 1:
        return made[0][1]
    tests = tuple(fits for _, fits in made)
    return lambda value: any(fits(value) for fits in tests)


def _fitting(
    attribute: Attribute, operator: str, node: Node, lists: Lists, problems: list[Problem]
) -> tuple[str, Fits]:
    """The value as it is shown, and the function that compares with it."""
    if operator == "in":
        return _listed(node, lists, problems)
    if node.text is None:
        problems.append(node.problem(f"expected a value, found {found(node)}" + _write_empty(node)))
    elif len(node.text) > LONGEST_WORD:
        problems.append(node.problem(f"longer than {LONGEST_WORD} characters"))
    else:
        try:
            return _compare(attribute, operator, node.text)
        except ValueError as error:
            problems.append(node.problem(str(error)))
    return "", lambda _: False


def _write_empty(node: Node) -> str:
    return '; write "" for the empty text' if node.items is None and node.entries is None else ""


def _compare(attribute: Attribute, operator: str, text: str) -> tuple[str, Fits]:
    """Raises ValueError that says what is wrong with the value."""
    if operator == "present":
        return ("yes" if _flag(text) else "no"), lambda _: True
    match attribute.kind:
        case "verdict":
            return _verdict(attribute, text)
        case "word":
            return _word(attribute, text), lambda value: value == text.lower()
        case "flag":
            wanted = _flag(text)
            return ("yes" if wanted else "no"), lambda value: value is wanted
        case "network":
            return _network(text)
        case "number" | "version":
            return _number(attribute, operator, text)
        case "text" | "address":
            return _text(attribute.kind, operator, text)


def _word(attribute: Attribute, text: str) -> str:
    word = text.strip().lower()
    if word not in attribute.words:
        raise ValueError(unknown(f"value for {attribute.name}", text, attribute.words))
    return word


def _verdict(attribute: Attribute, text: str) -> tuple[str, Fits]:
    word = _word(attribute, text)
    statuses = ATTRIBUTES["virus"].words

    def fits(value: Value) -> bool:
        if not isinstance(value, Judged):
            return False
        return word == (value.status if value.status and word in statuses else value.result)

    return word, fits


def _flag(text: str) -> bool:
    try:
        return _FLAGS[text.strip().lower()]
    except KeyError:
        raise ValueError(f"expected yes or no, found {text!r}") from None


def _network(text: str) -> tuple[str, Fits]:
    try:
        network = ipaddress.ip_network(text.strip(), strict=True)
    except ValueError as error:
        try:
            meant = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is no IP address and no CIDR network") from error
        raise ValueError(f"{text!r} has bits behind its prefix, did you mean {str(meant)!r}?") from error
    return str(network), lambda value: ipaddress.ip_address(str(value)) in network


def _number(attribute: Attribute, operator: str, text: str) -> tuple[str, Fits]:
    wanted = tls_number(text) if attribute.kind == "version" else _amount(attribute, text)
    shown = text.strip()
    if operator == "above":
        return shown, lambda value: isinstance(value, float) and value > wanted
    if operator == "below":
        return shown, lambda value: isinstance(value, float) and value < wanted
    return shown, lambda value: value == wanted


def _amount(attribute: Attribute, text: str) -> float:
    number, unit = text.strip().lower(), 1.0
    if attribute.name == "size":
        for name, factor in _UNITS.items():
            if number.endswith(name):
                number, unit = number[: -len(name)].strip(), factor
                break
    try:
        if set(number) <= set("0123456789.-"):  # float() also reads nan, inf, 1e9 and 1_000
            return float(number) * unit
    except ValueError:
        pass
    raise ValueError(f"expected a number, found {text!r}")


def _text(kind: Kind, operator: str, text: str) -> tuple[str, Fits]:
    if operator in ("glob", "regex"):
        return text, _pattern(_from_glob(text) if operator == "glob" else text)
    word = (normal(text) if kind == "address" else text).casefold()
    match operator:
        case "starts_with":
            return text, lambda value: str(value).casefold().startswith(word)
        case "ends_with":
            return text, lambda value: str(value).casefold().endswith(word)
        case "contains":
            return text, lambda value: word in str(value).casefold()
        case _:
            return (normal(text) if kind == "address" else text), lambda value: str(value).casefold() == word


def _from_glob(text: str) -> str:
    r"""`*` is any text, `?` one character, everything else itself: as a regular expression for the whole value."""
    parts = (".*" if char == "*" else "." if char == "?" else str(re2.escape(char)) for char in text)
    return rf"(?s)\A{''.join(parts)}\z"


def _pattern(text: str) -> Fits:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.never_capture = True
    options.max_mem = 1 << 20
    try:
        # Octets on both sides: text of a message may hold characters that cannot be encoded.
        compiled = re2.compile(text.encode("utf-8"), options)
    except re2.error as error:
        detail = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"no regular expression of RE2: {detail}") from error
    return lambda value: compiled.search(str(value).encode("utf-8", "replace")) is not None


def _listed(node: Node, lists: Lists, problems: list[Problem]) -> tuple[str, Fits]:
    if node.entries is not None and list(node.entries) == ["file"] and node.entries["file"].text:
        file = node.entries["file"]
        patterns = lists.read(file)
        return str(file.text), lambda value: listed(str(value), patterns)
    if node.text is None:
        problems.append(node.problem(f"expected the name of a list or {{file: path}}, found {found(node)}"))
    elif node.text not in lists.named:
        problems.append(node.problem(unknown("list", node.text, lists.named)))
    else:
        patterns = lists.named[node.text]
        return node.text, lambda value: listed(str(value), patterns)
    return "", lambda _: False
