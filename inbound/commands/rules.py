"""`inbound rules check | test`."""

import argparse
from pathlib import Path
from typing import Any

from inbound import ruletest
from inbound.app import rules_of, warnings_of
from inbound.commands import FOUND, WELL, command, group, settings_of


def add(commands: Any) -> None:
    """Tell the parser."""
    under = group(commands, "rules", "Look at the rule files.")
    for name, run, text in (
        ("check", _check, "Say everything that is wrong with the rule files, and what looks wrong."),
        ("test", _test, "Run the tests that stand in the rule files."),
    ):
        command(under, name, run, text).add_argument(
            "dir", nargs="?", type=Path, help="the rule files; as the settings say"
        )


def _check(options: argparse.Namespace) -> int:
    loaded = settings_of(options, rules=options.dir)
    rules = rules_of(loaded)
    warnings = warnings_of(loaded, rules)
    for warning in warnings:
        print(warning)
    print(f"{len(rules.rules)} rules, {len(rules.tests)} tests, {len(warnings)} warnings")
    return WELL


def _test(options: argparse.Namespace) -> int:
    loaded = settings_of(options, rules=options.dir)
    results = ruletest.run(rules_of(loaded), loaded.domains, split=loaded.split_recipients)
    for result in results:
        print(f"{'ok    ' if result.passed else 'FAILED'} {result.name}")
        if result.problem:
            print(f"    {result.problem}")
    failed = sum(not result.passed for result in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return FOUND if failed else WELL
