"""The commands of `inbound`, a module each: `add` tells the parser what there is, the rest does it.

Exit codes: 0 it went well, 1 it found what it looks for (a refusal, a failing test, a mistake in a file), 2 it could not
be done as asked.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inbound import settings
from inbound.journal import printable
from inbound.settings import Settings

WELL, FOUND, UNABLE = 0, 1, 2


def group(commands: Any, name: str, text: str) -> Any:
    """Commands under a common word."""
    return commands.add_parser(name, help=text, description=text).add_subparsers(metavar="COMMAND", required=True)


def command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    """One command, with the option that all have."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument(
        "--config", type=Path, help="the settings file (or INBOUND_CONFIG); without it, the embedded defaults"
    )
    command.set_defaults(run=run)
    return command


def settings_of(options: argparse.Namespace, **more: Any) -> Settings:
    """The settings of the file and the environment, and what the options say otherwise. Raises ConfigurationError."""
    loaded = settings.load(options.config, os.environ)
    return replace(loaded, **{key: value for key, value in more.items() if value is not None})


def shown(documents: Iterable[Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print each document as a line of JSON, or the lines for a person."""
    if as_json:
        for document in documents:
            put(asdict(document))
    else:
        print(printable("\n".join(lines)))


def one_line(text: str) -> str:
    """The text for a terminal on one line, whatever a sender wrote."""
    return printable(text).replace("\n", "\\u000a")


def at(seconds: float) -> str:
    """A time, in seconds since the epoch, as it is shown: RFC 3339, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def written(path: Path, content: bytes) -> bool:
    """Write a new file, never through a link and never over another; where that is not possible, say so."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        print(one_line(f"inbound: {path} cannot be written: {error.strerror}"), file=sys.stderr)
        return False
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return True


def put(document: Any, *, indent: int | None = None) -> None:
    """Print a document as JSON in UTF-8, whatever the locale; without `indent` on one line, and at once.

    What steers a terminal, and a lone surrogate, which UTF-8 has no octets for, is written as JSON escapes it.
    """
    text = json.dumps(document, ensure_ascii=False, indent=indent, separators=None if indent else (",", ":"))
    sys.stdout.flush()
    sys.stdout.buffer.write(printable(text).encode("utf-8") + b"\n")
    sys.stdout.buffer.flush()
