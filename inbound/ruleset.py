"""Loading the rule files: a directory of YAML in name order becomes one rule set, or a list of everything wrong with it.

    lists:  {partners: partners.txt}      named address lists, files relative to the rule file
    rules:  [...]                         see `RuleForm`
    tests:  [...]                         see `cases`

Names of rules and lists are known in all files. Nothing is taken over when there is one mistake.
"""

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inbound.actions import Action
from inbound.cases import Case, Form
from inbound.conditions import ALWAYS, NEVER, Condition
from inbound.errors import ConfigurationError, Problem
from inbound.grammar import Lists, condition
from inbound.recipients import pattern, read_list
from inbound.rules import Rule, RuleSet
from inbound.schema import Node, Place, build, found, keys, parse, unknown

MOST_FILES = 200
MOST_RULES = 1000  # SES: 200
MOST_ACTIONS = 50  # of one rule; SES: 10
MOST_RECIPIENTS = 10_000  # written out in one rule; longer lists belong into files

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")  # SES's rule names
_NAME_IN_WORDS = "letters, digits, _ - and . with a letter or digit first and last, at most 64"

_ELSEWHERE = {
    "workmail": "WorkMail is AWS's own mailbox service; hand the mail on by relay, s3, lambda or sns",
    "connect": "Amazon Connect is reached by a Lambda function; use lambda",
    "archive": "there is no archive of its own; use s3 with a bucket that has a retention",
    "send": "SES sends to the internet by itself; here use relay, with a next hop that does",
    "deliver_to_mailbox": "there are no mailboxes here; hand the mail on by relay, s3, lambda or sns",
    "deliver_to_q_business": "Q Business is reached by a Lambda function; use lambda",
    "replace_recipient": "the envelope is not changed for the rules; relay hands on to other recipients with its `to`",
}


@keys
class RuleForm:
    """The keys of one entry of `rules:`."""

    name: str
    why: str = ""
    enabled: bool = True
    recipients: Any = None
    tls: Literal["optional", "require"] = "optional"
    scan: bool = True
    when: Any = None
    unless: Any = None
    undecided: Literal["defer", "skip"] = "defer"
    actions: Any = ()


_FILE_KEYS = ("lists", "rules", "tests")


def load(path: Path, kinds: Mapping[str, type[Action]]) -> RuleSet:
    """Load a directory of `*.yaml` and `*.yml`, or one file. `kinds` are the actions by their YAML key.

    Raises ConfigurationError with every problem found.
    """
    loading = _Loading(kinds=kinds)
    for file in _files(path, loading.problems):
        loading.read(file)
    return loading.ruleset(path)


def loaded(text: str, kinds: Mapping[str, type[Action]], file: str = "rules.yaml") -> RuleSet:
    """The same of the text of one file, whose lists are relative to where `file` would be."""
    loading = _Loading(kinds=kinds)
    loading.take(Path(file), text)
    return loading.ruleset(Path(file))


def _files(path: Path, problems: list[Problem]) -> list[Path]:
    if path.is_file():
        return [path]
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        problems.append(Place(file=str(path)).problem(f"the rules cannot be read: {error.strerror}"))
        return []
    files = [entry for entry in entries if entry.suffix in (".yaml", ".yml") and not entry.name.startswith(".")]
    if len(files) > MOST_FILES:
        problems.append(Place(file=str(path)).problem(f"{len(files)} rule files; at most {MOST_FILES} are read"))
    return files[:MOST_FILES]


@dataclass(slots=True, kw_only=True)
class _Loading:
    """What has been read so far, and what was wrong with it."""

    kinds: Mapping[str, type[Action]]
    problems: list[Problem] = field(default_factory=list)
    files: list[tuple[Path, Node]] = field(default_factory=list)
    lists: dict[Path, frozenset[str]] = field(default_factory=dict)
    digest: Any = field(default_factory=hashlib.sha256)

    def read(self, path: Path) -> None:
        """Read a file."""
        try:
            octets = path.read_bytes()
            text = octets.decode("utf-8-sig")
        except OSError as error:
            self.problems.append(Place(file=str(path)).problem(f"cannot be read: {error.strerror}"))
            return
        except UnicodeDecodeError as error:
            line = octets.count(b"\n", 0, error.start) + 1
            column = error.start - (octets.rfind(b"\n", 0, error.start) + 1) + 1
            self.problems.append(Place(file=str(path), line=line, column=column).problem("is not UTF-8 text"))
            return
        self.take(path, text)

    def take(self, path: Path, text: str) -> None:
        """Take in a file's text as far as its YAML."""
        octets = text.encode("utf-8", "surrogatepass")
        self.digest.update(f"{path.name}\0{len(octets)}\0".encode() + octets)
        node = parse(text, str(path), self.problems)
        if node is None:
            return
        if node.entries is None:
            self.problems.append(node.problem(f"expected the keys {', '.join(_FILE_KEYS)}, found {found(node)}"))
            return
        for name, value in node.entries.items():
            if name not in _FILE_KEYS:
                self.problems.append(value.key.problem(unknown("key", name, _FILE_KEYS)))
        self.files.append((path, node))

    def ruleset(self, path: Path) -> RuleSet:
        """Build everything that was read, all names known. Raises ConfigurationError; `path` is where all of it lies."""
        ruleset = self._built()
        if not ruleset.rules and not self.problems:
            self.problems.append(Place(file=str(path)).problem("there are no rules, so no mail would be taken"))
        if self.problems:
            raise ConfigurationError(sorted(self.problems, key=lambda one: (one.file, one.line, one.column)))
        return ruleset

    def _built(self) -> RuleSet:
        named = self._named_lists()
        rules: list[Rule] = []
        for path, node in self.files:
            for entry in self._items(node, "rules"):
                rule = self._rule(entry, Lists(named=named, read=functools.partial(self._list, rule_file=path)), path)
                if rule is not None:
                    rules.append(rule)
        self._must_be_unique()
        tests = tuple(
            case for _, node in self.files for entry in self._items(node, "tests") if (case := self._case(entry))
        )
        for path, patterns in sorted(self.lists.items()):
            self.digest.update(f"{path.name}\0{' '.join(sorted(patterns))}\0".encode())
        return RuleSet(rules=tuple(rules), version=self.digest.hexdigest()[:16], tests=tests)

    def _items(self, node: Node, name: str) -> tuple[Node, ...]:
        value = (node.entries or {}).get(name)
        if value is None or (value.text is None and value.items is None and value.entries is None):
            return ()
        if value.items is None:
            self.problems.append(value.problem(f"expected a list of {name}, found {found(value)}"))
            return ()
        if len(value.items) > MOST_RULES:
            self.problems.append(value.problem(f"{len(value.items)} {name}; at most {MOST_RULES} are taken"))
        return value.items[:MOST_RULES]

    def _named_lists(self) -> dict[str, frozenset[str]]:
        named: dict[str, frozenset[str]] = {}
        for path, node in self.files:
            lists = (node.entries or {}).get("lists")
            if lists is not None and lists.entries is None:
                self.problems.append(lists.problem(f"expected names and their files, found {found(lists)}"))
            for name, file in (lists.entries or {}).items() if lists is not None else ():
                if name in named:
                    self.problems.append(file.key.problem(f"the list {name!r} is named twice"))
                named[name] = self._list(file, path)
        return named

    def _list(self, file: Node, rule_file: Path) -> frozenset[str]:
        if not file.text:
            self.problems.append(file.problem(f"expected the path of a list file, found {found(file)}"))
            return frozenset()
        path = rule_file.parent / file.text
        if path not in self.lists:
            self.lists[path] = read_list(path, file.place, self.problems)
        return self.lists[path]

    def _rule(self, node: Node, lists: Lists, path: Path) -> Rule | None:
        before = len(self.problems)
        form = build(node, RuleForm, self.problems)
        entries = node.entries or {}
        name = entries.get("name")
        if name is not None and name.text is not None and not _NAME.fullmatch(name.text):
            self.problems.append(name.problem(f"{name.text[:80]!r} is no rule name: {_NAME_IN_WORDS}"))
        recipients = self._recipients(entries["recipients"], path) if "recipients" in entries else None
        when = self._condition(entries.get("when"), ALWAYS, lists)
        unless = self._condition(entries.get("unless"), NEVER, lists)
        actions = self._actions(node)
        if form is None or when is None or unless is None or len(self.problems) > before:
            return None
        return Rule(
            name=form.name,
            why=form.why,
            enabled=form.enabled,
            recipients=recipients,
            tls=form.tls,
            scan=form.scan,
            when=when,
            unless=unless,
            undecided=form.undecided,
            actions=actions,
            place=entries["name"].place,
        )

    def _condition(self, node: Node | None, without: Condition, lists: Lists) -> Condition | None:
        return without if node is None else condition(node, lists, self.problems)

    def _recipients(self, node: Node, path: Path) -> frozenset[str]:
        entries = node.items if node.items is not None else (node,)
        if not entries or (node.text is None and node.items is None and node.entries is None):
            self.problems.append(node.problem("nobody is named; leave the key out for every recipient of our domains"))
        if len(entries) > MOST_RECIPIENTS:
            self.problems.append(
                node.problem(f"{len(entries)} recipients; more than {MOST_RECIPIENTS} belong into a list file")
            )
            return frozenset()
        patterns: set[str] = set()
        for entry in entries:
            if entry.text is not None:
                try:
                    patterns.add(pattern(entry.text))
                except ValueError as error:
                    self.problems.append(entry.problem(str(error)))
            elif entry.entries is not None and list(entry.entries) == ["file"]:
                patterns |= self._list(entry.entries["file"], path)
            elif entry is not node or entry.entries is not None:
                self.problems.append(
                    entry.problem(f"expected an address, a domain or {{file: path}}, found {found(entry)}")
                )
        return frozenset(patterns)

    def _actions(self, rule: Node) -> tuple[Action, ...]:
        node = (rule.entries or {}).get("actions")
        if node is None or not node.items:
            if rule.entries is not None:
                place = node or rule
                self.problems.append(place.problem("a rule needs a list of actions; what is to be done with the mail?"))
            return ()
        if len(node.items) > MOST_ACTIONS:
            self.problems.append(node.problem(f"{len(node.items)} actions; at most {MOST_ACTIONS} are taken"))
        actions: list[Action] = []
        ended = ""
        for item in node.items[:MOST_ACTIONS]:
            if ended:
                self.problems.append(item.problem(f"never reached: the {ended} before it ends the walk"))
            action = self._action(item)
            if action is not None:
                actions.append(action)
                ended = ended or (action.kind if action.ends else "")
        return tuple(actions)

    def _action(self, node: Node) -> Action | None:
        if node.entries is not None and len(node.entries) == 1:
            kind, value = next(iter(node.entries.items()))
            place = value.key
            if value.text is None and value.items is None and value.entries is None:
                value = Node(place=place, key=place, entries={})
        elif node.text is not None:
            kind, place = node.text, node.place
            value = Node(place=place, key=place, entries={})
        else:
            what = f"{len(node.entries)} keys" if node.entries is not None else found(node)
            self.problems.append(
                node.problem(f"expected one action such as `stop` or {{s3: {{bucket: …}}}}, found {what}")
            )
            return None
        if kind not in self.kinds:
            plain = kind.lower().replace("_action", "").removesuffix("action")
            why = _ELSEWHERE.get(plain)
            said = f"there is no action {kind!r}: {why}" if why else unknown("action", kind, self.kinds)
            self.problems.append(place.problem(said))
            return None
        if value.entries is None:
            self.problems.append(value.problem(f"{kind} has keys of its own, found {found(value)}"))
            return None
        return build(value, self.kinds[kind], self.problems)

    def _must_be_unique(self) -> None:
        places: dict[str, Place] = {}
        for _, node in self.files:
            for entry in (node.entries or {}).get("rules", node).items or ():
                name = (entry.entries or {}).get("name")
                if name is None or name.text is None:
                    continue
                first = places.setdefault(name.text, name.place)
                if first is not name.place:
                    said = f"the rule name {name.text!r} was there before, at {first.file}:{first.line}"
                    self.problems.append(name.problem(said))

    def _case(self, node: Node) -> Case | None:
        form = build(node, Form, self.problems)
        return None if form is None else Case(form=form, place=node.place)
