"""The two best-known readers of bounces find exactly the recipients that a notification of ours tells of, and why."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inbound.dsn import Failed
from inbound.reply import Reply
from tests.interop.environments import python_with
from tests.perl import perl_has
from tests.test_dsn import HOSTILE, told

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(300)

MALWARE = Reply(554, "5.7.1", "Message contains malware")
UNKNOWN = Reply(550, "5.1.1", "No such recipient here")
FULL = Reply(552, "5.2.2", "Mailbox full")
LONG = Reply(552, "5.2.3", "Message length exceeds limit set by recipient")
USUAL = (
    b"From: Pat <pat@sender.example>\r\nTo: a@example.com, b@example.com\r\nSubject: Order 1234\r\n"
    b"Message-ID: <1@sender.example>\r\nDate: Tue, 24 Nov 2026 05:00:00 +0000\r\n"
)


@dataclass(frozen=True, kw_only=True)
class Bounce:
    failed: dict[str, Reply]
    header: bytes = USUAL
    sender: str = "pat@sender.example"


BOUNCES = {
    "one": Bounce(failed={"a@example.com": MALWARE}),
    "several": Bounce(failed={"a@example.com": UNKNOWN, "b@example.com": FULL, "c@example.com": LONG}),
    "a label": Bounce(failed={"a+label@example.com": UNKNOWN}),
    "an IDN": Bounce(failed={"a@bücher.example": UNKNOWN}),
    "a null header": Bounce(failed={"a@example.com": UNKNOWN}, header=b""),
    **{f"with {name}": Bounce(failed={"a@example.com": UNKNOWN}, header=header) for name, header in HOSTILE.items()},
    "with a notification's header": Bounce(
        failed={"a@example.com": UNKNOWN},
        header=b"Final-Recipient: rfc822; victim@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n" + USUAL,
    ),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("bounces")
    written = []
    for number, bounce in enumerate(BOUNCES.values()):
        failed = [Failed(recipient=recipient, reply=reply) for recipient, reply in bounce.failed.items()]
        written.append(directory / f"{number}.eml")
        # As a mailbox has it: Return-Path says that it came from nobody.
        written[-1].write_bytes(
            b"Return-Path: <>\r\n" + told(*failed, header=bounce.header, mail_from=bounce.sender).raw
        )
    return written


def said(command: list[str], paths: list[Path]) -> list[Any]:
    lines = "".join(f"{path}\n" for path in paths)
    run = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=250, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def plain(recipient: str) -> str:
    return recipient.replace("bücher", "xn--bcher-kva")


def test_flufl_bounce_finds_exactly_the_refused_recipients(paths: list[Path]) -> None:
    python = python_with("flufl.bounce==6.0.0")
    found = said([str(python), str(HERE / "flufl_bounce.py")], paths)
    expected = [[[], sorted(map(plain, bounce.failed))] for bounce in BOUNCES.values()]
    assert dict(zip(BOUNCES, found, strict=True)) == dict(zip(BOUNCES, expected, strict=True))


@pytest.mark.skipif(not perl_has("Sisimai"), reason="Debian's libsisimai-perl is not installed")
def test_sisimai_finds_exactly_the_refused_recipients_and_why(paths: list[Path]) -> None:
    found = said(["perl", str(HERE / "sisimai.pl")], paths)
    assert [[(one["recipient"], one["status"], one["action"]) for one in told] for told in found] == [
        [(plain(recipient), reply.enhanced, "failed") for recipient, reply in bounce.failed.items()]
        for bounce in BOUNCES.values()
    ]
    by_name = dict(zip(BOUNCES, found, strict=True))
    assert [one["reason"] for one in by_name["several"]] == ["userunknown", "mailboxfull", "exceedlimit"]
    assert by_name["one"][0]["diagnostic"] == "554 5.7.1 Message contains malware"
    assert by_name["one"][0]["addresser"] == "pat@sender.example"
    assert by_name["one"][0]["messageid"] == "1@sender.example"
    assert by_name["one"][0]["subject"] == "Order 1234"
