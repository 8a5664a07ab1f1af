"""`inbound get`."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from inbound.actions.keep import open_object
from inbound.commands import UNABLE, WELL, command, settings_of, written
from inbound.consumer.places import cloud_of


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

    # Not entered: what a receiver has left in its logs and queues is the receiver's to go on with.
    content = asyncio.run(open_object(cloud_of(None, loaded), bucket, key))
    if options.output:
        return WELL if written(options.output, content) else UNABLE
    sys.stdout.buffer.write(content)
    sys.stdout.flush()
    return WELL
