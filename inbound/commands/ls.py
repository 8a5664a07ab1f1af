"""`inbound ls`: what lies in the buckets."""

import argparse
import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from inbound.clients import Listed
from inbound.commands import WELL, at, command, one_line, put, settings_of
from inbound.consumer import aconsume
from inbound.consumer.places import cloud_of
from inbound.errors import Failure, NotAMailEvent


def add(commands: Any) -> None:
    """Tell the parser."""
    ls = command(commands, "ls", _ls, "List what is stored; without a place, the buckets.")
    ls.add_argument(
        "place", nargs="?", metavar="s3://BUCKET/PREFIX", help="objects whose keys begin so, in their order"
    )
    ls.add_argument("--long", "-l", action="store_true", help="open each: verdicts, author and subject too")
    ls.add_argument("--json", action="store_true", help="print one JSON document a line")


def _ls(options: argparse.Namespace) -> int:
    cloud = cloud_of(None, settings_of(options))
    if options.place is None:
        for name in asyncio.run(cloud.list_buckets()):
            if options.json:
                put({"bucket": name})
            else:
                print(f"s3://{name}")
        return WELL
    bucket, _, prefix = options.place.removeprefix("s3://").partition("/")
    if not options.place.startswith("s3://") or not bucket:
        raise NotAMailEvent("not of the form s3://BUCKET/PREFIX", options.place)
    asyncio.run(_list(cloud, bucket, prefix, long=options.long, as_json=options.json))
    return WELL


async def _list(cloud: Any, bucket: str, prefix: str, *, long: bool, as_json: bool) -> None:
    """One object a line, each as soon as it is known."""
    async with contextlib.aclosing(cloud.list_objects(bucket, prefix)) as found:
        async for one in found:
            document = _document(bucket, one) | (await _inside(cloud, bucket, one) if long else {})
            if as_json:
                put(document)
            else:
                print("\n".join(map(one_line, _lines(document))), flush=True)


def _document(bucket: str, one: Listed) -> dict[str, Any]:
    return {"stored": at(one.modified), "size": one.size, "bucket": bucket, "key": one.key}


async def _inside(cloud: Any, bucket: str, one: Listed) -> dict[str, Any]:
    """What the message itself says, or why it cannot be opened."""
    try:
        message = await aconsume(f"s3://{bucket}/{one.key}", cloud=cloud)
    except Failure as failure:
        return {"error": str(failure)}
    if message is None:
        return {"error": "a setup notification"}
    return {
        "from": ", ".join(map(str, message.from_)),
        "subject": message.subject or "",
        "dmarc": message.verdicts.dmarc if message.provenance.trusted else None,
        "sealed": message.provenance.sealed,
        "attachments": len(message.attachments),
    }


def _lines(document: dict[str, Any]) -> Iterator[str]:
    """One object for a person; with what is inside under it where that is known."""
    yield f"{document['stored']}  {document['size']:>11,}  s3://{document['bucket']}/{document['key']}"
    if "error" in document:
        yield f"    {document['error']}"
    elif "from" in document:
        more = f", {document['attachments']} attached" if document["attachments"] else ""
        yield f"    {document['from']} (dmarc {document['dmarc'] or 'unknown'}): {document['subject']}"
        yield "    " + (f"sealed ({document['sealed']})" if document["sealed"] else "in clear") + more
