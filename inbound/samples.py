"""Samples: a message with everything that decides what becomes of it, as a pair of files `NAME.eml` and `NAME.yaml`.

The YAML holds the story, the client, the envelope, the clock, what DNS says, and what is expected. They are run through
the real path by the tests and by `inbound demo`, and shown by `inbound check samples/NAME.eml`.
"""

from dataclasses import field
from pathlib import Path
from typing import Any

from inbound.errors import ConfigurationError, Problem
from inbound.schema import build, keys, parse


@keys
class SampleClient:
    """Who brings it."""

    ip: str
    helo: str
    tls: bool = False


@keys
class Envelope:
    """MAIL FROM ("" for the null reverse-path) and RCPT TO."""

    mail_from: str = ""
    rcpt_to: tuple[str, ...]


@keys
class Expected:
    """What must come of it: status words by check, rules met by recipient, the reply's code and enhanced status code.

    `reply` is the message's, or that of RCPT where it was refused for all recipients. `refused` are RCPT's replies to some.
    """

    verdicts: dict[str, str] = field(default_factory=dict)
    rules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    reply: str


@keys
class Sample:
    """One sample without its message."""

    story: str
    client: SampleClient
    envelope: Envelope
    now: float
    dns: dict[str, Any] = field(default_factory=dict)
    expect: Expected


def shipped(name: str) -> Path:
    """A directory that is shipped with the package (`rules`, `samples`): in the wheel, or in the source tree."""
    here = Path(__file__).parent
    installed = here / "_shipped" / name
    found = installed if installed.is_dir() else here.parent / name
    return found.relative_to(Path.cwd()) if found.is_relative_to(Path.cwd()) else found


def sample_of(message: Path) -> Sample | None:
    """The sample whose message this is; None when no YAML file of its name lies beside it. Raises ConfigurationError."""
    described = message.with_suffix(".yaml")
    if not described.is_file():
        return None
    problems: list[Problem] = []
    node = parse(described.read_text(encoding="utf-8"), str(described), problems)
    sample = build(node, Sample, problems) if node else None
    if sample is None:
        raise ConfigurationError(problems or [Problem(file=str(described), line=0, column=0, message="is empty")])
    return sample


def all_samples() -> dict[Path, Sample]:
    """Every shipped sample in name order, by the path of its message."""
    found: dict[Path, Sample] = {}
    for message in sorted(shipped("samples").glob("*.eml")):
        sample = sample_of(message)
        if sample is not None:
            found[message] = sample
    return found


def crlf(raw: bytes) -> bytes:
    """The message with CRLF line ends, as SMTP carries it; a bare LF becomes one, a bare CR stays."""
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
