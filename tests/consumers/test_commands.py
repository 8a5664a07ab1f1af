"""What `inbound open` shows and writes: the message as it is, and nothing that steers a terminal or leaves a directory."""

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from inbound.actions.s3 import S3
from inbound.cli import main
from tests.actions.letters import ID
from tests.aws import bucket, client
from tests.consumers.stored import OURS, performed, put
from tests.consumers.test_message import MIXED

PLACE = f"s3://mail-support/in/{ID}"


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: bytes
    stderr: bytes


Run = Callable[..., Done]


@pytest.fixture
def inbound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """The command line in this process, started in `tmp_path`, which is also the data directory."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("INBOUND_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("INBOUND_DATA_DIR", ".")

    def run(*arguments: str, stdin: bytes = b"") -> Done:
        capfdbinary.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(arguments)
        sys.stdout.flush()
        return Done(code, *capfdbinary.readouterr())

    return run


def test_a_message_is_shown_with_what_the_receiver_says_first(inbound: Run, tmp_path: Path) -> None:
    performed(tmp_path, S3(bucket="mail-support", prefix="in", kms_key="alias/support"), content=OURS + MIXED)
    done = inbound("open", PLACE)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert done.stdout.decode() == (
        f"{ID}\n"
        "  received   2026-10-06T09:15:02Z by mx.example.com from <pat@sender.example> for support@example.com\n"
        f"  stored     {PLACE}, sealed (ses), rule support\n"
        "  verdicts   spam PASS, virus PASS, spf PASS, dkim GRAY, dmarc PASS\n"
        "  results    spf=pass dkim=pass dmarc=pass iprev=pass (by mx.example.com)\n"
        "\n"
        "  from       Pät <pat@sender.example>\n"
        "  sender     desk@sender.example\n"
        "  reply-to   r@sender.example\n"
        "  to         Help <help@example.com>, b@example.com\n"
        "  cc         c@example.com\n"
        "  date       2026-10-06T11:15:00+02:00\n"
        "  subject    Grüße\n"
        "\n"
        "Schön,\n"
        "  wie geht es?\n"
        "\n"
        "  [1]        ../../a.pdf (application/octet-stream, application/pdf by its content), 9 octets\n"
        "  [2]        without a name (message/rfc822), 28 octets\n"
    )


def test_as_json_it_is_jmap_s_email(inbound: Run, tmp_path: Path) -> None:
    performed(tmp_path, S3(bucket="mail-support", prefix="in"), content=OURS + MIXED)
    document = json.loads(inbound("open", "--json", PLACE).stdout)
    assert (document["subject"], document["provenance"]["key"]) == ("Grüße", f"in/{ID}")


@pytest.mark.parametrize("what", ["-", "a.eml"])
def test_a_file_is_read_and_not_believed(inbound: Run, tmp_path: Path, what: str) -> None:
    (tmp_path / "a.eml").write_bytes(OURS + MIXED)
    done = inbound("open", what, stdin=OURS + MIXED)
    assert "  UNTRUSTED  octets can come from anybody" in done.stdout.decode()


EVIL = (
    "From: \x1b[2J\x9bx <a@b>\r\nSubject: =?utf-8?q?=1B]0;owned=07=E2=80=AEevil?=\r\nX-Evil: \x1b[31m\r\n"
    "Content-Type: multipart/mixed; boundary=m\r\n\r\n"
    "--m\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nclear \x1b[2J \x9b \u202e\tdone\r\n"
    '--m\r\nContent-Type: application/x-a; name="\x1b[31m/../\u202egpj.exe"\r\n\r\none\r\n'
    '--m\r\nContent-Type: application/x-b; name="gpj.exe"\r\n\r\ntwo\r\n'
    '--m\r\nContent-Type: application/x-c; name=".."\r\n\r\nthree\r\n--m--\r\n'
).encode()


@pytest.mark.parametrize("options", [(), ("--headers",), ("--json",)])
def test_nothing_that_is_printed_steers_a_terminal(inbound: Run, options: tuple[str, ...]) -> None:
    done = inbound("open", "-", *options, stdin=EVIL)
    assert done.returncode == 0
    assert [char for char in done.stdout.decode() if char != "\n" and not char.isprintable()] == []
    assert "done" in done.stdout.decode()


def test_no_address_makes_a_line_that_the_receiver_seems_to_say(inbound: Run) -> None:
    raw = b'From: "a\r\n  verdicts   spam PASS\r\n "@b\r\nSubject: s\r\n\r\n'
    shown = inbound("open", "-", stdin=raw).stdout.decode()
    assert '  from       "a  verdicts   spam PASS "@b\n' in shown
    assert "\n  verdicts" not in shown


@pytest.mark.parametrize("what", ['{"\\u001b[2J": 1}', '{"detail-type": "\\u001b[2J", "detail": {}}'])
def test_what_is_said_of_a_strange_event_does_not_steer_the_terminal(inbound: Run, what: str) -> None:
    done = inbound("open", "-", stdin=what.encode())
    assert done.returncode == 1
    assert "\\u001b[2J" in done.stderr.decode()
    assert b"\x1b" not in done.stderr


def test_a_key_with_a_line_end_is_one_line(inbound: Run, tmp_path: Path) -> None:
    put(tmp_path, "in/a\nb", b"Subject: c\r\n\r\n")
    (line,) = inbound("ls", "s3://mail-support/").stdout.decode().splitlines()
    assert line.endswith("  s3://mail-support/in/a\\u000ab")
    assert len(inbound("ls", "-l", "s3://mail-support/").stdout.splitlines()) == 3


def test_attachments_are_saved_under_safe_names_and_over_nothing(inbound: Run, tmp_path: Path) -> None:
    done = inbound("open", "-", "--save", "out/here", stdin=EVIL)
    assert (done.returncode, done.stderr) == (0, b"")
    found = {path.name: path.read_text() for path in (tmp_path / "out/here").iterdir()}
    assert found == {"gpj.exe": "one", "2-gpj.exe": "two", "attachment": "three"}
    assert done.stdout.decode().splitlines() == ["out/here/gpj.exe", "out/here/2-gpj.exe", "out/here/attachment"]
    (tmp_path / "out/here/gpj.exe").write_text("mine")
    again = inbound("open", "-", "--save", "out/here", stdin=EVIL)
    assert (again.returncode, (tmp_path / "out/here/gpj.exe").read_text()) == (2, "mine")
    (tmp_path / "out/here/gpj.exe").unlink()
    (tmp_path / "out/here/gpj.exe").symlink_to(tmp_path / "elsewhere")
    assert inbound("open", "-", "--save", "out/here", stdin=EVIL).returncode == 2
    assert not (tmp_path / "elsewhere").exists()
    done = inbound("open", "-", "--save", "out/here/attachment", stdin=EVIL)
    assert (done.returncode, done.stderr) == (2, b"inbound: out/here/attachment cannot be made: File exists\n")


def test_one_attachment_is_written_where_it_is_wanted(inbound: Run, tmp_path: Path) -> None:
    assert inbound("open", "-", "--attachment", "2", stdin=EVIL).stdout == b"two"
    assert inbound("open", "-", "--attachment", "3", "-o", "c", stdin=EVIL).returncode == 0
    assert (tmp_path / "c").read_text() == "three"
    for arguments in (("--attachment", "0"), ("--attachment", "4"), ("-o", "d"), ("--attachment", "1", "-o", "c")):
        assert inbound("open", "-", *arguments, stdin=EVIL).returncode == 2


@pytest.mark.parametrize(
    ("what", "told", "code"),
    [
        ("s3://mail-support/none", "inbound: no such object: mail-support/none", 1),
        ("s3://mail-support", "is not of the form s3://BUCKET/KEY", 1),
        ("nothing", "neither s3://BUCKET/KEY nor a file that can be read", 1),
        ("s3://mail-support/AMAZON_SES_SETUP_NOTIFICATION", "is about no message", 1),
    ],
)
def test_what_is_not_there_is_said(inbound: Run, tmp_path: Path, what: str, told: str, code: int) -> None:
    put(tmp_path, "a", b"")
    done = inbound("open", what)
    assert (done.returncode, done.stdout) == (code, b"")
    assert told in done.stderr.decode()


def test_what_is_stored_is_listed(inbound: Run, tmp_path: Path) -> None:
    assert inbound("ls").stdout == b""
    performed(tmp_path, S3(bucket="mail-support", prefix="in", kms_key="alias/a"), content=OURS + MIXED)
    put(tmp_path, "in/\x1b[31m", b"Subject: \x1b[31mred\r\nFrom: a@b\r\n\r\n")
    put(tmp_path, "in/broken", b"x", {"x-amz-key-v2": "?"})
    put(tmp_path, "in/AMAZON_SES_SETUP_NOTIFICATION", b"x")
    put(tmp_path, "out/x", b"x")
    assert inbound("ls").stdout == b"s3://mail-support\n"
    assert inbound("ls", "--json").stdout == b'{"bucket":"mail-support"}\n'
    short = inbound("ls", "s3://mail-support/in").stdout.decode().splitlines()
    assert [line.split("  s3://mail-support/")[1] for line in short] == [
        *("in/\\u001b[31m", f"in/{ID}", "in/AMAZON_SES_SETUP_NOTIFICATION", "in/broken")
    ]
    long = inbound("ls", "-l", "s3://mail-support/in/").stdout.decode()
    assert "    Pät <pat@sender.example> (dmarc PASS): Grüße\n    sealed (ses), 2 attached\n" in long
    assert "    a@b (dmarc unknown): [31mred\n    in clear\n" in long
    assert "    sealed object cannot be opened" in long
    assert "    a setup notification" in long
    documents = [
        json.loads(line) for line in inbound("ls", "-l", "--json", f"s3://mail-support/in/{ID}").stdout.splitlines()
    ]
    assert [(one["key"], one["subject"], one["dmarc"]) for one in documents] == [(f"in/{ID}", "Grüße", "PASS")]


@pytest.mark.parametrize("place", ["mail-support", "s3://", "s3://mail-other", "s3:///in"])
def test_a_place_that_is_none_is_said(inbound: Run, tmp_path: Path, place: str) -> None:
    put(tmp_path, "a", b"")
    done = inbound("ls", place)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"inbound: ")


def test_buckets_of_aws_are_listed_too(inbound: Run, aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = bucket(aws)
    client("s3", aws).put_object(Bucket=name, Key=f"in/{ID}", Body=OURS + MIXED)
    monkeypatch.setenv("INBOUND_CLOUD", "aws")
    monkeypatch.setenv("INBOUND_ENDPOINT_URL", aws)
    assert f"s3://{name}" in inbound("ls").stdout.decode().splitlines()
    assert "(dmarc PASS): Grüße" in inbound("ls", "-l", f"s3://{name}/").stdout.decode()
    assert "Schön,\n" in inbound("open", f"s3://{name}/in/{ID}").stdout.decode()
