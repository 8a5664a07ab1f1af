"""`inbound open`: a stored message as a person reads it.

Everything that a sender wrote is printed with control characters written out, and is saved only under names made here.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inbound.commands import FOUND, UNABLE, WELL, command, one_line, settings_of, written
from inbound.consumer import BodyPart, Message, consume
from inbound.consumer.message import CHECKS
from inbound.errors import NotAMailEvent, TooBig
from inbound.journal import printable
from inbound.record import line

LONGEST_EVENT = 256 * 1024 * 1024  # octets of a file that are read


def add(commands: Any) -> None:
    """Tell the parser."""
    opening = command(
        commands, "open", _open, "Show a stored message: opened if it is sealed, checked, with what the receiver found."
    )
    opening.add_argument(
        "what",
        metavar="OBJECT",
        help="s3://BUCKET/KEY; or a file with a message or an event in it, `-` for standard input",
    )
    opening.add_argument(
        "--bucket", help="where the message is when an event does not say, and the only bucket to look in"
    )
    opening.add_argument("--prefix", default="", help="the same for the beginning of its key")
    opening.add_argument("--headers", action="store_true", help="every header field, as it stands there")
    opening.add_argument("--json", action="store_true", help="JMAP's Email (RFC 8621) with verdicts and provenance")
    opening.add_argument("--attachment", type=int, metavar="N", help="write the content of attachment N")
    opening.add_argument("--output", "-o", type=Path, help="into this file, which must not exist; else standard output")
    opening.add_argument("--save", type=Path, metavar="DIR", help="write all attachments there, under safe names")


def _open(options: argparse.Namespace) -> int:
    if options.output and options.attachment is None:
        print("inbound: --output is for --attachment N", file=sys.stderr)
        return UNABLE
    message = consume(_given(options.what), bucket=options.bucket, prefix=options.prefix, settings=settings_of(options))
    if message is None:
        print("inbound: that is about no message (a setup notification, or a subscription)", file=sys.stderr)
        return FOUND
    if options.attachment is not None:
        return _one(message, options.attachment, options.output)
    if options.save:
        return _all(message, options.save)
    if options.json:
        print(message.to_json(indent=2))
    else:
        print(printable("\n".join(_lines(message, every_header=options.headers)).expandtabs()))
    return WELL


def _given(what: str) -> str | bytes:
    """The place, or what is in the file."""
    if what.startswith("s3://"):
        return what
    try:
        with sys.stdin.buffer if what == "-" else Path(what).open("rb") as file:
            octets = file.read(LONGEST_EVENT + 1)
    except OSError as error:
        raise NotAMailEvent(f"neither s3://BUCKET/KEY nor a file that can be read: {error.strerror}", what) from error
    if len(octets) > LONGEST_EVENT:
        raise TooBig("file too large", what)
    return octets


def _lines(message: Message, *, every_header: bool) -> Iterator[str]:
    """The message for a person: what the receiver says first, then what the sender wrote. Only its text has lines of its own."""
    yield message.id
    yield from map(one_line, _of_the_receiver(message))
    yield ""
    if every_header:
        yield from (f"{one.name}:{one.value}".replace("\r\n", "\n") for one in message.headers)
    else:
        yield from map(one_line, _of_the_sender(message))
    yield ""
    yield message.text.rstrip()
    if message.attachments:
        yield ""
        yield from (one_line(_listed(number, part)) for number, part in enumerate(message.attachments, 1))


def _of_the_receiver(message: Message) -> Iterator[str]:
    where, found = message.provenance, message.verdicts
    if where.mail_from is not None:
        recipients = f" for {', '.join(where.recipients)}" if where.recipients else ""
        by = f" by {where.received_by}" if where.received_by else ""
        yield line("received", f"{message.receivedAt or 'some time'}{by} from <{where.mail_from}>{recipients}")
    if where.key:
        sealed = f", sealed ({where.sealed})" if where.sealed else ", in clear"
        yield line(
            "stored", f"s3://{where.bucket}/{where.key}{sealed}" + (f", rule {where.rule}" if where.rule else "")
        )
    if found.source:
        words = ", ".join(f"{check} {getattr(found, check) or '-'}" for check in CHECKS)
        policy = f", policy {found.dmarc_policy}" if found.dmarc_policy else ""
        yield line("verdicts", f"{words}{policy}")
    if where.results:
        yield line("results", f"{' '.join(where.results)} (by {where.authserv_id})")
    if not where.trusted:
        yield line("UNTRUSTED", where.reason)
    yield from (line("PROBLEM", problem) for problem in message.problems)


def _of_the_sender(message: Message) -> Iterator[str]:
    for name, boxes in (
        ("from", message.from_),
        ("sender", message.sender),
        ("reply-to", message.replyTo),
        ("to", message.to),
        ("cc", message.cc),
    ):
        if boxes:
            yield line(name, ", ".join(map(str, boxes)))
    yield line("date", message.sentAt or "none")
    yield line("subject", message.subject or "")


def _listed(number: int, part: BodyPart) -> str:
    seen = part.sniffedType
    kind = part.type if seen == part.type else f"{part.type}, {seen} by its content"
    return line(f"[{number}]", f"{part.name or 'without a name'} ({kind}), {part.size:,} octets")


def _one(message: Message, number: int, output: Path | None) -> int:
    if not 0 < number <= len(message.attachments):
        print(f"inbound: there are {len(message.attachments)} attachments", file=sys.stderr)
        return UNABLE
    content = message.attachments[number - 1].content()
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return WELL
    return WELL if written(output, content) else UNABLE


def _all(message: Message, directory: Path) -> int:
    """Each under its safe name, with its number in front where there are several of that name."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(one_line(f"inbound: {directory} cannot be made: {error.strerror}"), file=sys.stderr)
        return UNABLE
    names: set[str] = set()
    for number, part in enumerate(message.attachments, 1):
        name = part.safe_name
        if name.casefold() in names:
            name = f"{number}-{name}"
        names.add(name.casefold())
        if not written(directory / name, part.content()):
            return UNABLE
        print(one_line(str(directory / name)))
    return WELL
