"""`inbound quarantine list | show | release | delete`."""

import argparse
import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

from inbound.actions import Cloud
from inbound.actions.quarantine import Held
from inbound.app import cloud_of, means_of, rules_in_force, rules_of
from inbound.check import in_order
from inbound.clients.reasons import BUCKET_MISSING
from inbound.commands import FOUND, UNABLE, WELL, at, command, group, one_line, put, settings_of
from inbound.errors import Failure
from inbound.mail import Headers
from inbound.quarantine import (
    Entry,
    Place,
    Release,
    Released,
    Start,
    Wanted,
    chosen,
    entries,
    opened,
    places,
    removed,
)
from inbound.recipients import pattern
from inbound.record import Ran, line, plain
from inbound.settings import Settings

JOBS = 8  # envelopes that are opened side by side
LONGEST = 500  # characters that are shown of one header field

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def add(commands: Any) -> None:
    """Tell the parser."""
    of = group(commands, "quarantine", "What rules have held: list it, look at it, release it, delete it.")
    listing = command(of, "list", _list, "Say what is held, the oldest first.")
    showing = command(of, "show", _show, "Say everything about one message: verdicts, rules, header fields.")
    releasing = command(
        of,
        "release",
        _release,
        "Let messages go on behind the rule that held them, under the rules in force now, with the verdicts found when "
        "they came. A message is removed from quarantine once everything was done.",
    )
    deleting = command(of, "delete", _delete, "Delete messages from quarantine.")
    showing.add_argument("id", metavar="ID", help="as listed, or as much of its beginning as no other has")
    for sub in (releasing, deleting):
        sub.add_argument("ids", nargs="*", metavar="ID", help="as listed, or as much of its beginning as no other has")
        sub.add_argument("--yes", action="store_true", help="do not ask first")
    for sub in (listing, releasing, deleting):
        _add_filters(sub)
    start = releasing.add_mutually_exclusive_group()
    start.add_argument("--from-rule", metavar="NAME", default="", help="begin with this rule instead")
    start.add_argument("--from-start", action="store_true", help="begin with the first rule instead")
    releasing.add_argument("--dry-run", action="store_true", help="only say what would be done")
    releasing.add_argument("--again", action="store_true", help="go on where another release has died")
    for sub in (listing, showing, releasing, deleting):
        sub.add_argument(
            "--in", dest="place", type=_place, metavar="s3://BUCKET/PREFIX", help="not where the rules say"
        )
    for sub in (listing, showing, releasing):
        sub.add_argument("--json", action="store_true", help="print one JSON document a line")


def _add_filters(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--older-than", type=_age, metavar="AGE", help="held longer ago than this: 30d, 12h, 45m, 2w")
    sub.add_argument("--sender", type=_pattern, metavar="WHO", help="envelope sender or author: user@d, d, .d; or <>")
    sub.add_argument("--recipient", type=_pattern, metavar="WHOM", help="a recipient: user@d, d, .d")
    sub.add_argument("--rule", metavar="NAME", help="held by this rule")


def _age(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age such as 30d, 12h, 45m or 2w")
    return int(match.group(1)) * _SECONDS[match.group(2)]


def _pattern(text: str) -> str:
    if text == "<>":
        return text
    try:
        return pattern(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _place(text: str) -> Place:
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not bucket:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form s3://BUCKET/PREFIX")
    return Place(bucket=bucket, prefix=prefix)


def _wanted(options: argparse.Namespace) -> Wanted:
    until = None if options.older_than is None else time.time() - options.older_than
    return Wanted(until=until, sender=options.sender, recipient=options.recipient, rule=options.rule)


async def _held(cloud: Cloud, loaded: Settings, options: argparse.Namespace) -> list[Entry]:
    """Everything that is held, the oldest first. With `cloud: local` the bucket of a rule that held nothing is not there yet."""
    found: list[Entry] = []
    for place in (options.place,) if options.place else places(rules_of(loaded)):
        try:
            found += [entry async for entry in entries(cloud, place)]
        except Failure as failure:
            if options.place or loaded.cloud != "local" or failure.reason != BUCKET_MISSING:
                raise
    return sorted(found, key=lambda entry: (entry.stored, entry.id))


async def _opened(
    cloud: Cloud, among: Sequence[Entry], wanted: Wanted
) -> AsyncIterator[tuple[Entry, Held | None, str]]:
    """Each with its envelope, or why there is none to see; those that are wanted. What cannot be seen is wanted by none."""

    async def look(entry: Entry) -> tuple[Entry, Held | None, str]:
        if entry.problem:
            return entry, None, entry.problem
        try:
            return entry, await opened(cloud, entry), ""
        except Failure as failure:
            return entry, None, str(failure)

    async def every() -> AsyncIterator[Entry]:
        for entry in among:
            yield entry

    async for entry, one, problem in in_order(every(), look, jobs=JOBS):
        if wanted.fits(one) if one else wanted == Wanted():
            yield entry, one, problem


def _list(options: argparse.Namespace) -> int:
    loaded, wanted = settings_of(options), _wanted(options)

    async def run() -> int:
        count = problems = 0
        async with cloud_of(loaded) as cloud:
            async for entry, one, problem in _opened(cloud, await _held(cloud, loaded, options), wanted):
                count += 1
                problems += bool(problem)
                if options.json:
                    put(_document(entry, one, problem))
                else:
                    print("\n".join(map(one_line, _two(entry, one, problem))))
        if not options.json:
            print(f"{count} held" + (f", {problems} not whole" if problems else ""))
        return FOUND if problems else WELL

    return asyncio.run(run())


def _two(entry: Entry, one: Held | None, problem: str) -> Iterator[str]:
    """A message in two lines: what it is, and why it is here."""
    if one is None:
        yield f"{entry.id}  {at(entry.stored)}  {problem}"
        return
    subject = _subject(one) or "(no subject)"
    yield f"{one.id}  {at(one.held_at)}  {one.record.size:,} octets  {one.rule}: {one.why}"
    yield f"    <{one.record.mail_from}> to {', '.join(one.recipients)}: {subject}"[:LONGEST]


def _document(entry: Entry, one: Held | None, problem: str) -> dict[str, Any]:
    where = {"id": entry.id, "bucket": entry.place.bucket, "key": entry.key}
    if one is None:
        return {**where, "held_at": at(entry.stored), "problem": problem}
    return {
        **where,
        "held_at": at(one.held_at),
        "received_at": at(one.received_at),
        "message_id": one.record.message_id,
        "mail_from": one.record.mail_from,
        "from": [box.address for box in one.headers.mailboxes("from")],
        "recipients": list(one.recipients),
        "subject": _subject(one),
        "size": one.record.size,
        "rule": one.rule,
        "why": one.why,
        "problem": None,
    }


def _show(options: argparse.Namespace) -> int:
    loaded = settings_of(options)

    async def run() -> Held:
        async with cloud_of(loaded) as cloud:
            entry = chosen(await _held(cloud, loaded, options), options.id)
            return await opened(cloud, entry)

    one = asyncio.run(run())
    fields = [(field.name, field.value) for field in Headers.of(one.head + one.header).fields]
    if options.json:
        document = {"id": one.id, "rule": one.rule, "why": one.why, "held_at": at(one.held_at)}
        headers = [{"name": name, "value": value} for name, value in fields]
        put({**document, **plain(one.record.document()), "headers": headers})
        return WELL
    first, *rest = one.record.lines()
    told = (
        one.id,
        line("held", f"{at(one.held_at)} by {one.rule}: {one.why}"),
        line("received", f"{at(one.received_at)} as {first}"),
        *rest[:-1],  # that it was taken is known
        line("header"),
        *(f"    {name}: {value}"[:LONGEST] if name else f"    {value}"[:LONGEST] for name, value in fields),
    )
    print("\n".join(map(one_line, told)))
    return WELL


def _release(options: argparse.Namespace) -> int:
    loaded = settings_of(options)
    ruleset = rules_in_force(loaded)
    start = Start(rule=options.from_rule, first=options.from_start)

    async def run() -> int:
        async with means_of(loaded) as means:
            release = Release(means=means, ruleset=ruleset, start=start, again=options.again, dry=options.dry_run)

            async def one(entry: Entry) -> bool:
                outcome = await release(entry)
                if options.json:
                    put(_told(outcome))
                else:
                    print("\n".join(map(one_line, _lines(outcome, dry=release.dry))))
                return not outcome.stays

            return await _each(means.cloud, loaded, options, one, f"Release {{}} under rules {ruleset.version[:12]}")

    return asyncio.run(run())


def _delete(options: argparse.Namespace) -> int:
    loaded = settings_of(options)

    async def run() -> int:
        async with cloud_of(loaded) as cloud:

            async def one(entry: Entry) -> bool:
                await removed(cloud, entry)
                print(f"{entry.id} deleted")
                return True

            return await _each(cloud, loaded, options, one, "Delete {}", always=True)

    return asyncio.run(run())


async def _each(
    cloud: Cloud,
    loaded: Settings,
    options: argparse.Namespace,
    work: Callable[[Entry], Awaitable[bool]],
    question: str,
    *,
    always: bool = False,
) -> int:
    """Do it to each that is named or that the filters fit, once somebody agrees. One that fails does not stop the others."""
    wanted = _wanted(options)
    if bool(options.ids) == (wanted != Wanted()):
        print("inbound: name messages, or say which (--older-than, --sender, --recipient, --rule)", file=sys.stderr)
        return UNABLE
    among = await _held(cloud, loaded, options)
    if options.ids:
        todo = list(dict.fromkeys(chosen(among, ident) for ident in options.ids))
    else:
        todo = [entry async for entry, _, _ in _opened(cloud, among, wanted)]
    asks = always or not options.ids
    if todo and asks and not options.yes and not await _agreed(question.format(f"{len(todo)} of {len(among)} held")):
        print("inbound: nothing was done", file=sys.stderr)
        return UNABLE
    code = WELL
    for entry in todo:
        try:
            code = code if await work(entry) else FOUND
        except Failure as failure:
            print(one_line(f"inbound: {entry.id}: {failure}"), file=sys.stderr)
            code = FOUND
    return code


async def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        print(f"{question}? Nobody is there to answer; say --yes", file=sys.stderr)
        return False
    return (await asyncio.to_thread(input, f"{question}? [y/N] ")).strip().lower() in ("y", "yes")


def _lines(outcome: Released, *, dry: bool) -> Iterator[str]:
    yield outcome.id
    for walk in outcome.walks:
        does = ", ".join(walk.actions) or "nothing is done"
        yield line("for", f"{walk.recipient}: {does}: {walk.reply.code} {walk.reply.enhanced}")
    for ran in outcome.delivery.ran if outcome.delivery else ():
        yield line(ran.outcome, _ran(ran))
    if outcome.stays:
        yield line("held", f"still: {outcome.stays}")
    else:
        yield line("would be" if dry else "released")


def _ran(ran: Ran) -> str:
    detail = ", ".join(f"{name} {value}" for name, value in ran.detail.items())
    return f"{ran.action} of {ran.rule}" + (f": {detail}" if detail else "")


def _told(outcome: Released) -> dict[str, Any]:
    return {
        "id": outcome.id,
        "released": outcome.delivery is not None and not outcome.stays,
        "stays": outcome.stays or None,
        "recipients": {
            walk.recipient: {"actions": list(walk.actions), "reply": f"{walk.reply.code} {walk.reply.enhanced}"}
            for walk in outcome.walks
        },
        "ran": [
            {"rule": it.rule, "action": it.action, "outcome": it.outcome, "detail": dict(it.detail)}
            for it in (outcome.delivery.ran if outcome.delivery else ())
        ],
    }


def _subject(one: Held) -> str:
    field = one.headers.first("subject")
    return field.decoded if field else ""
