"""`inbound serve`."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import uvloop

from inbound.commands import WELL, command, settings_of
from inbound.demo import Demo, Outcome
from inbound.journal import Journal
from inbound.serve import announce, serve, until_told
from inbound.settings import Settings


def add(commands: Any) -> None:
    """Tell the parser."""
    serve = command(commands, "serve", _serve, "Receive mail until SIGTERM; SIGHUP takes changed rules into force.")
    serve.add_argument(
        "--with-samples", action="store_true", help="with DNS for the samples, and a first message through it"
    )


def _serve(options: argparse.Namespace) -> int:
    loaded = settings_of(options)
    if not options.with_samples:
        return serve(loaded)
    logging.getLogger("inbound.receive").setLevel(logging.WARNING)  # who comes and goes is not what is shown
    uvloop.run(_serve_with_samples(loaded, Journal("text" if loaded.log == "auto" else loaded.log)))
    return WELL


async def _serve_with_samples(loaded: Settings, journal: Journal) -> None:
    async with Demo(loaded, note=journal) as demo:
        await announce(demo.app, demo.addresses)
        first = next(message for message in demo.samples if message.stem == "good")
        print(f"\nA first message, {first}: what was found, which rules were met, what was done\n", flush=True)
        outcome = await demo.send(first)
        print(_WHAT_NEXT.format(**_next_steps(demo, first, outcome)), flush=True)
        await until_told(demo.app)


_WHAT_NEXT = """
Send one yourself, from another terminal; what becomes of it appears here:
    swaks --server {address} --helo laptop.example --from you@laptop.example --to support@example.com
or without swaks:
    curl --crlf smtp://{address}/laptop.example --mail-from you@laptop.example --mail-rcpt support@example.com -T {by_hand}
A forgery comes out otherwise: say --from pat@sender.example, whose domain does not allow this machine.
All samples, each with its story in a YAML file beside it, through a receiver of their own:
    {program} demo
What would become of a message, without sending it:
    {program} check {first}
What was stored is in {data}/s3. The first message was sealed there; this opens it:
    {program} get s3://{stored}
The names of the samples and all reserved ones are answered here, others by this machine's resolver. Ctrl-C stops it.
"""


def _next_steps(demo: Demo, first: Path, outcome: Outcome) -> dict[str, object]:
    ran = outcome.record.ran if outcome.record else ()
    program = Path(sys.argv[0])
    return {
        "address": demo.addresses[0],
        "by_hand": first.with_stem("by-hand"),
        "program": program if program.name == "inbound" else "inbound",
        "first": first,
        "data": demo.app.settings.data_dir,
        "stored": next((one.detail["object"] for one in ran if "object" in one.detail), "BUCKET/KEY"),
    }
