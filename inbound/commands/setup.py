"""`inbound setup`."""

import argparse
import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

from inbound.app import cloud_of, prepare, relays_of, rules_in_force
from inbound.commands import FOUND, WELL, command, one_line, put, settings_of
from inbound.dsn import mailer_daemon
from inbound.errors import ConfigurationError
from inbound.policies import Home, policies
from inbound.rules import RuleSet
from inbound.settings import Settings
from inbound.setup import Finding, Setup
from inbound.uses import uses

_MARKS = {True: "ok", False: "WRONG", None: "-"}


def add(commands: Any) -> None:
    """Tell the parser."""
    setup = command(
        commands,
        "setup",
        _setup,
        "Try every bucket, key, topic, queue, function, webhook and next hop of the rules, and say how to mend what is wrong. "
        "Into each bucket and prefix it writes AMAZON_SES_SETUP_NOTIFICATION as SES does; topics and queues are told.",
    )
    setup.add_argument("--no-send", action="store_true", help="tell topics and queues nothing; they are not tried then")
    setup.add_argument("--policies", action="store_true", help="only print the least IAM policies that the rules need")
    setup.add_argument(
        "--role", type=_arn, metavar="ARN", help="with --policies: who receives (role/inbound of the account)"
    )
    setup.add_argument(
        "--operator",
        type=_arn,
        metavar="ARN",
        help="with --policies: who works with quarantine (role/inbound-operator)",
    )
    setup.add_argument("--json", action="store_true", help="print one JSON document a line")


def _arn(text: str) -> str:
    if not re.fullmatch(r"arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[!-~]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no ARN of a role or user")
    return text


def _setup(options: argparse.Namespace) -> int:
    loaded = settings_of(options)
    ruleset = rules_in_force(loaded)
    used = uses(ruleset)
    if options.policies:
        put(policies(used, _home(loaded, options, ruleset)), indent=2)
        return WELL

    async def run() -> dict[bool | None, int]:
        counts: dict[bool | None, int] = dict.fromkeys(_MARKS, 0)
        async with relays_of(loaded) as relays, cloud_of(loaded, relays) as cloud:
            setup = Setup(cloud=cloud, account=loaded.account, region=loaded.region, send=not options.no_send)
            async for finding in _with_ours(loaded, setup(used)):
                counts[finding.ok] += 1
                if options.json:
                    put(asdict(finding))
                else:
                    print(_line(finding), flush=True)
        return counts

    counts = asyncio.run(run())
    if not options.json:
        print(f"{counts[True]} ok, {counts[False]} wrong, {counts[None]} not tried")
    return FOUND if counts[False] else WELL


async def _with_ours(loaded: Settings, findings: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    """What is tried, and before it what the receiver itself needs."""
    ours = Finding(what="data_dir", name=str(loaded.data_dir), text="holds the secret and the ledger")
    try:
        prepare(loaded)
    except ConfigurationError as error:
        mend = "make it writable for the user that receives"
        ours = replace(ours, ok=False, text=error.problems[0].message, mend=mend)
    yield ours
    async for finding in findings:
        yield finding


def _line(finding: Finding) -> str:
    rules = f" ({', '.join(finding.rules)})" if finding.rules else ""
    mend = f"; {finding.mend}" if finding.mend else ""
    return one_line(f"{_MARKS[finding.ok]:<5}  {finding.what} {finding.name}{rules}: {finding.text}{mend}")


def _home(loaded: Settings, options: argparse.Namespace, ruleset: RuleSet) -> Home:
    home = Home(account=loaded.account, region=loaded.region, receiver="", operator="")
    ours = f"arn:{home.partition}:iam::{loaded.account}:role/inbound"
    return Home(
        account=loaded.account,
        region=loaded.region,
        receiver=options.role or ours,
        operator=options.operator or f"{ours}-operator",
        senders=_senders(loaded, ruleset) if loaded.dsn.through == "ses" else (),
    )


def _senders(loaded: Settings, ruleset: RuleSet) -> tuple[str, ...]:
    """Whom notifications of bounces come from: the bounces' own senders, and that of all others."""
    named = (getattr(action, "sender", "") for rule in ruleset.rules if rule.enabled for action in rule.course())
    return tuple({loaded.dsn.sender or mailer_daemon(loaded.hostname), *filter(None, named)})
