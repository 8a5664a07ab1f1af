"""`inbound get`."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from inbound.actions.s3 import open_object
from inbound.app import cloud_of
from inbound.commands import UNABLE, WELL, command, settings_of


def add(commands: Any) -> None:
    """Tell the parser."""
    get = command(commands, "get", _get, "Fetch a stored object, and decrypt it when it is sealed.")
    get.add_argument("object", help="s3://BUCKET/KEY")
    get.add_argument("--output", "-o", type=Path, help="a file, which must not exist; standard output otherwise")


def _get(options: argparse.Namespace) -> int:
    loaded = settings_of(options)
    bucket, slash, key = options.object.removeprefix("s3://").partition("/")
    if not options.object.startswith("s3://") or not bucket or not slash or not key:
        print(f"inbound: {options.object!r} is not of the form s3://BUCKET/KEY", file=sys.stderr)
        return UNABLE

    async def run() -> bytes:
        async with cloud_of(loaded) as place:
            return await open_object(place, bucket, key)

    content = asyncio.run(run())
    if options.output:
        with options.output.open("xb") as file:
            file.write(content)
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    return WELL
