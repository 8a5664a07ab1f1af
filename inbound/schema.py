"""From YAML text to frozen records whose fields are the keys, with every mistake found at its line and column.

1. What a value is follows from the key it stands at, never from how it looks: every scalar is read as text, and the
   record's field makes a number, a yes/no or a path of it. So `no`, `on`, `12:30`, `010` and `2026-01-01` stay what was
   written wherever text is wanted. Only an unquoted `null`, `~` or nothing at all is no value.
2. Anchors, aliases, tags, merge keys and second documents are refused: a file is what it shows. Size, depth and number
   of values are capped.
3. Mistakes are collected, not raised one by one: each function adds to a list of Problems and goes on.
"""

import difflib
import functools
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, cast, dataclass_transform

import pydantic
import pydantic.dataclasses
import yaml

from inbound.errors import InboundError, Problem

LARGEST_FILE = 1024 * 1024  # octets
DEEPEST = 32  # levels of nesting
MOST_VALUES = 100_000

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def keys(cls: type[T]) -> type[T]:
    """Make a class whose fields are the keys of a YAML mapping: frozen, keyword-only, no unknown key, values checked.

    Values come as text: a field's type must be one that text turns into (`int`, `float`, `bool`, `Path`, `Literal` of
    words, …), a record made by this, or a tuple or dict of such. `__post_init__` may raise ValueError. A key that is a
    word of Python's has a field with `_` behind it: `from_`.
    """
    config = pydantic.ConfigDict(
        extra="forbid",
        alias_generator=_key_of,
        validate_by_alias=True,
        validate_by_name=True,
        arbitrary_types_allowed=True,
    )
    make = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, slots=True, config=config)
    return cast("type[T]", make(cls))


def _key_of(field: str) -> str:
    return field.removesuffix("_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands: line and column count from 1, 0 where a file has no lines (the environment)."""

    file: str
    line: int = 0
    column: int = 0

    def problem(self, message: str) -> Problem:
        """A mistake at this place."""
        return Problem(file=self.file, line=self.line, column=self.column, message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One value of a file: a `text` (None is no value), a list of `items` or a mapping of `entries`.

    `place` is the value's, `key` that of the key it stands at (the value's own where there is none).
    """

    place: Place
    key: Place
    text: str | None = None
    items: "tuple[Node, ...] | None" = None
    entries: "Mapping[str, Node] | None" = None

    def plain(self) -> Any:
        """The value without its places: text, None, list or dict."""
        if self.items is not None:
            return [item.plain() for item in self.items]
        if self.entries is not None:
            return {name: entry.plain() for name, entry in self.entries.items()}
        return self.text

    def problem(self, message: str) -> Problem:
        """A mistake in this value."""
        return self.place.problem(message)


def parse(text: str, file: str, problems: list[Problem]) -> Node | None:
    """Read one YAML document. None when it is empty or cannot be read; `problems` says why."""
    if len(text) > LARGEST_FILE:
        problems.append(Place(file=file).problem(f"has {len(text)} characters, at most {LARGEST_FILE} are read"))
        return None
    try:
        return _Composer(text, file, problems).document()
    except _Unreadable as error:
        problems.append(error.place.problem(str(error)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file=file, line=mark.line + 1, column=mark.column + 1) if mark else Place(file=file)
        problems.append(place.problem(f"cannot be read as YAML: {error.problem or error.context}"))
    except (yaml.YAMLError, UnicodeError) as error:
        first = str(error).partition("\n")[0]
        problems.append(Place(file=file, line=1, column=1).problem(f"cannot be read as YAML: {first}"))
    return None


class _Unreadable(Exception):
    def __init__(self, place: Place, message: str) -> None:
        self.place = place
        super().__init__(message)


class _Composer:
    """Makes nodes of the parser's events: unlike the library's own composer it knows limits and keeps every place."""

    def __init__(self, text: str, file: str, problems: list[Problem]) -> None:
        self._events = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._file = file
        self._problems = problems
        self._count = 0

    def document(self) -> Node | None:
        node: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent) and node is not None:
                raise _Unreadable(self._place(event), "a second document; one file holds one")
            if isinstance(event, yaml.NodeEvent):
                node = self._node(event, None, 0)
        empty = node is not None and node.items is None and node.entries is None and node.text is None
        return None if empty else node

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(file=self._file, line=mark.line + 1, column=mark.column + 1) if mark else Place(file=self._file)

    def _node(self, event: yaml.Event, key: Place | None, depth: int) -> Node:
        place = self._place(event)
        self._count += 1
        if self._count > MOST_VALUES:
            raise _Unreadable(place, f"more than {MOST_VALUES} values")
        if depth > DEEPEST:
            raise _Unreadable(place, f"nested deeper than {DEEPEST} levels")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Unreadable(place, "anchors and aliases are not taken: write the value out")
        tag = getattr(event, "tag", None)
        if tag:
            raise _Unreadable(place, f"the tag {tag} is not taken: the key says what its value is")
        if isinstance(event, yaml.ScalarEvent):
            nothing = event.implicit[0] and event.value in ("", "~", "null", "Null", "NULL")  # implicit: unquoted
            return Node(place=place, key=key or place, text=None if nothing else event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(item, None, depth + 1))
            return Node(place=place, key=key or place, items=tuple(items))
        return Node(place=place, key=key or place, entries=self._entries(depth))

    def _entries(self, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, None, depth + 1)
            value = self._node(next(self._events), key.place, depth + 1)
            if key.text is None:
                self._problems.append(key.problem("a key must be text"))
            elif key.text in entries:
                first = entries[key.text].key
                self._problems.append(key.problem(f"the key {key.text!r} was there before, at line {first.line}"))
            else:
                entries[key.text] = value
        return entries


def near(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'bucket'?` when one of the known words is near, else nothing."""
    folded = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return f", did you mean {folded[found[0]]!r}?" if found else ""


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """`unknown key 'bukcet', did you mean 'bucket'?`, with all there are when none is near and they are few."""
    known = sorted(known)
    hint = near(word, known)
    few = f"; there are {', '.join(known)}" if not hint and 0 < len(known) <= 12 else ""  # noqa: PLR2004
    return f"unknown {what} {word!r}{hint or few}"


def build(node: Node, wanted: type[T], problems: list[Problem]) -> T | None:
    """A record (or any type pydantic knows) of the node's value; None when `problems` has grown."""
    try:
        return cast("T", _adapter(cast("Hashable", wanted)).validate_python(node.plain()))
    except pydantic.ValidationError as error:
        problems += _told(error, node, wanted)
    except InboundError as error:
        problems.append(node.problem(str(error)))
    return None


@functools.lru_cache(maxsize=256)
def _adapter(wanted: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(wanted)


def _told(error: pydantic.ValidationError, root: Node, wanted: Any) -> list[Problem]:
    """What pydantic found, each at its place and in plain words, one for each value even where a choice of types failed."""
    told: dict[tuple[int, int, str], Problem] = {}
    details = error.errors(include_url=False)
    chosen = [_at(root, detail["loc"])[0] for detail in details if not detail["type"].endswith("_type")]
    misspelt = {
        near(str(detail["loc"][-1]), _fields(wanted, detail["loc"][:-1])) for detail in details if _is_unknown(detail)
    }
    for detail in details:
        node, missing = _at(root, detail["loc"])
        missing = missing if detail["type"].startswith("missing") else ""
        if detail["type"].endswith("_type") and node.entries is not None and any(_within(node, at) for at in chosen):
            continue  # the other branch of a union, which says it better
        if _is_unknown(detail):
            problem = node.key.problem(unknown("key", str(detail["loc"][-1]), _fields(wanted, detail["loc"][:-1])))
        elif missing and f", did you mean {missing!r}?" in misspelt:
            continue  # it is there, under the misspelt name
        elif missing:
            problem = node.problem(f"the key {missing!r} is missing")
        else:
            problem = node.problem(_plain_words(detail, node))
        told.setdefault((problem.line, problem.column, missing), problem)
    return list(told.values())


def _is_unknown(detail: Any) -> bool:
    return detail["type"] in ("unexpected_keyword_argument", "extra_forbidden")


def _within(node: Node, inner: Node) -> bool:
    if node is inner:
        return True
    return any(_within(child, inner) for child in (*(node.items or ()), *(node.entries or {}).values()))


def _at(root: Node, loc: tuple[int | str, ...]) -> tuple[Node, str]:
    """The node that an error's path leads to, and the key that is missing there. Names of union branches are passed over."""
    node, missing = root, ""
    for step in loc:
        if node.entries is not None and step in node.entries:
            node = node.entries[cast("str", step)]
            missing = ""
        elif node.items is not None and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            missing = ""
        else:
            missing = str(step)
    return node, missing


def _fields(wanted: Any, loc: tuple[int | str, ...]) -> set[str]:
    """The keys of the record that a path leads to."""
    here = [wanted]
    for step in loc:
        here = [inner for kind in here for inner in _inner(kind, step)] or here
    records = [one for kind in here for one in _branches(kind) if is_dataclass(one)]
    return {_key_of(field.name) for record in records for field in fields(record)}


def _branches(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _inner(kind: Any, step: int | str) -> list[Any]:
    found: list[Any] = []
    for branch in _branches(kind):
        if is_dataclass(branch) and isinstance(step, str):
            hints = typing.get_type_hints(branch)
            found += [hints[step]] if step in hints else []
        elif typing.get_origin(branch) in (tuple, list) and isinstance(step, int):
            found.append(typing.get_args(branch)[0])
        elif typing.get_origin(branch) is dict:
            found.append(typing.get_args(branch)[1])
    return found


_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "yes or no",
    "bool_type": "yes or no",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of keys",
    "dataclass_type": "a mapping of keys",
}


def _plain_words(detail: Any, node: Node) -> str:
    kind: str = detail["type"]
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "literal_error":
        words = detail["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        hint = near(node.text or "", words)
        return f"expected {detail['ctx']['expected']}, found {found(node)}{hint}"
    if kind == "string_pattern_mismatch":
        return f"{found(node)} has not the form {detail['ctx']['pattern']}"
    if kind in _EXPECTED:
        hint = f": write [{node.text}]" if kind in ("tuple_type", "list_type") and node.text else ""
        return f"expected {_EXPECTED[kind]}, found {found(node)}{hint}"
    message: str = detail["msg"]
    return message[:1].lower() + message[1:]


def found(node: Node) -> str:
    """What stands there, in a word: `'abc'`, a list, a mapping, nothing."""
    if node.items is not None:
        return "a list"
    if node.entries is not None:
        return "a mapping"
    return "nothing" if node.text is None else repr(node.text[:60])
