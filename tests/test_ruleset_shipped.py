"""The shipped rule set passes its own tests, and they notice whatever is changed in it."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inbound.actions.kinds import ACTIONS
from inbound.errors import ConfigurationError
from inbound.ruleset import load
from inbound.ruletest import run
from inbound.schema import parse

SHIPPED = Path("rules")
Files = dict[str, Any]  # the plain YAML of each file, by its name


def test_the_shipped_rules_pass_their_tests() -> None:
    results = run(load(SHIPPED, ACTIONS), ("example.com",))
    assert len(results) > 20
    assert [str(result.problem) for result in results if not result.passed] == []


def test_every_shipped_rule_says_why() -> None:
    assert [rule.name for rule in load(SHIPPED, ACTIONS).rules if not rule.why] == []


# --- Mutants: each is one change that somebody could make by mistake.


def shipped() -> Files:
    files: Files = {}
    for path in sorted(SHIPPED.iterdir()):
        text = path.read_text(encoding="utf-8")
        node = parse(text, path.name, []) if path.suffix == ".yaml" else None
        files[path.name] = node.plain() if node is not None else text
    return files


Mutant = tuple[str, Callable[[Files], None]]  # what it changes, and the change


def mutants() -> Iterator[Mutant]:
    for file, content in shipped().items():
        if isinstance(content, str):
            for line in [line for line in content.splitlines() if line and not line.startswith("#")]:
                yield f"{file}: without {line}", _without_line(file, line)
        else:
            for at, rule in enumerate(content["rules"]):
                for what, change in _of_rule((file, "rules"), at, rule):
                    yield f"{rule['name']}: {what}", change


def _of_rule(path: tuple[Any, ...], at: int, rule: dict[str, Any]) -> Iterator[Mutant]:
    here = (*path, at)
    yield "disabled", _set(here, "enabled", "no")
    yield "gone", _delete(path, at)
    if at:
        yield "before the rule before it", _swap(path, at)
    for key in ("when", "unless", "recipients", "tls"):
        if key in rule:
            yield f"without {key}", _delete(here, key)
    if "when" in rule:
        yield "undecided is skipped", _set(here, "undecided", "skip")
        yield from _conditions((*here, "when"), rule["when"])
    if isinstance(rule.get("recipients"), list):
        for which, pattern in enumerate(rule["recipients"]):
            yield f"not for {pattern}", _delete((*here, "recipients"), which)
    for which, action in enumerate(rule["actions"]):
        yield f"without {action}", _delete((*here, "actions"), which)
        for key in ("smtp_reply_code", "status_code", "message") if "bounce" in action else ():
            yield f"other {key}", _set((*here, "actions", which, "bounce"), key, _OTHER[key])


_OTHER = {"smtp_reply_code": "553", "status_code": "5.9.9", "message": "Other words"}


def _conditions(path: tuple[Any, ...], tree: dict[str, Any]) -> Iterator[Mutant]:
    for key, value in tree.items():
        if key in ("all", "any"):
            other = "any" if key == "all" else "all"
            yield f"{other} for {key}", _rename(path, key, other)
            for at, part in enumerate(value):
                yield f"without {part}", _delete((*path, key), at)
                yield f"not {part}", _set((*path, key), at, {"not": part})
                yield from _conditions((*path, key, at), part)
        elif isinstance(value, list):
            for at, word in enumerate(value):
                yield f"{key} not for {word}", _delete((*path, key), at)


def _at(files: Files, path: tuple[Any, ...]) -> Any:
    here: Any = files
    for step in path:
        here = here[step]
    return here


def _set(path: tuple[Any, ...], key: Any, value: Any) -> Callable[[Files], None]:
    return lambda files: _at(files, path).__setitem__(key, value)


def _delete(path: tuple[Any, ...], key: Any) -> Callable[[Files], None]:
    return lambda files: _at(files, path).__delitem__(key)


def _rename(path: tuple[Any, ...], key: str, other: str) -> Callable[[Files], None]:
    return lambda files: _at(files, path).__setitem__(other, _at(files, path).pop(key))


def _swap(path: tuple[Any, ...], at: int) -> Callable[[Files], None]:
    return lambda files: _at(files, path).insert(at - 1, _at(files, path).pop(at))


def _without_line(file: str, line: str) -> Callable[[Files], None]:
    return lambda files: files.__setitem__(file, files[file].replace(f"{line}\n", ""))


# No mail could show these: rules for different recipients, each of which ends the walk.
EQUIVALENT = ["payroll: before the rule before it"]


def test_whatever_is_changed_in_the_shipped_rules_some_test_of_theirs_fails(tmp_path: Path) -> None:
    survivors: list[str] = []
    files = shipped()
    for what, change in mutants():
        changed = copy.deepcopy(files)
        change(changed)
        for name, content in changed.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / name).write_text(text, encoding="utf-8")
        try:
            results = run(load(tmp_path, ACTIONS), ("example.com",))
        except ConfigurationError:
            continue  # it does not even load
        if all(result.passed for result in results):
            survivors.append(what)
    assert survivors == EQUIVALENT


def test_there_are_many_ways_to_change_them() -> None:
    assert len(list(mutants())) > 60
