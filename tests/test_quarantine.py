"""Quarantine from end to end: SMTP in, held, looked at, released exactly once or deleted, by the command line."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inbound.actions.s3 import open_object
from inbound.app import cloud_of
from inbound.cli import main
from inbound.settings import load
from tests.aws import aws, bucket, client, kms_key
from tests.harness import mail, receiver
from tests.next_hop import USUAL, next_hop

__all__ = ["aws"]

ROOT = Path(__file__).parents[1]
TOPIC = "arn:aws:sns:us-east-1:000000000000:told"
QUEUE = "https://sqs.us-east-1.amazonaws.com/000000000000/jobs"
HOLD = "  - name: hold\n    when: {subject: {contains: hold}}\n    actions: [{quarantine: {bucket: held, prefix: q}}]\n"
MARK = "  - name: mark\n    actions: [{add_header: {name: X-Seen, value: 'yes'}}]\n"


def rules(*behind: str, first: str = MARK + HOLD, when: str = "{}") -> str:
    """Rules that hold what says so in its subject, and one behind them with these actions."""
    actions = "".join(f"      - {action}\n" for action in behind)
    condition = "" if when == "{}" else f"    when: {when}\n"
    return f"rules:\n{first}  - name: after\n    recipients: [example.com]\n{condition}    actions:\n{actions}"


STORE = "s3: {bucket: mail-all, prefix: in}"
TELL = f"sns: {{topic_arn: '{TOPIC}', bucket: mail-big}}"


@dataclass
class Desk:
    """Where somebody works with what is held: the command line under the settings of a receiver that has been there."""

    place: Path
    out: Callable[[], str]
    environ: dict[str, str]

    def inbound(self, *arguments: str) -> int:
        return main(arguments)

    def held(self) -> list[Any]:
        self.out()
        assert self.inbound("quarantine", "list", "--json") == 0
        return [json.loads(line) for line in self.out().splitlines()]

    def rules(self, text: str) -> None:
        (self.place / "rules.yaml").write_text(text, encoding="utf-8")

    def receive(self, *mails: bytes, to: tuple[str, ...] = ("support@example.com",), **more: Any) -> list[str]:
        """Receive these by SMTP, and say how each was answered."""

        async def story() -> list[str]:
            text = (self.place / "rules.yaml").read_text(encoding="utf-8")
            async with receiver(self.place, rules=text, **more) as mx:
                return [await mx.reply(one, *to) for one in mails]

        return asyncio.run(story())

    def stored(self, bucket: str, key: str) -> bytes:
        async def story() -> bytes:
            async with cloud_of(load(None, self.environ)) as cloud:
                return await open_object(cloud, bucket, key)

        return asyncio.run(story())

    def files(self, place: str) -> list[str]:
        found = (path for path in (self.place / "data" / place).rglob("*") if path.is_file())
        return sorted(path.name for path in found if not path.name.startswith(".") and path.parent.name != ".log")

    def documents(self, place: str) -> list[Any]:
        return [json.loads(file.read_text()) for file in sorted((self.place / "data" / place).glob("*.json"))]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    environ = {"INBOUND_DATA_DIR": f"{tmp_path}/data", "INBOUND_RULES": f"{tmp_path}/rules.yaml"}
    for name in [name for name in os.environ if name.startswith("INBOUND_")]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, lambda: capsys.readouterr().out, environ)


def test_what_is_held_goes_nowhere_else_and_is_listed_with_why(desk: Desk) -> None:
    desk.rules(rules(STORE))
    assert desk.inbound("quarantine", "list") == 0
    assert desk.out() == "0 held\n"
    (reply,) = desk.receive(mail(Subject="please hold this"))
    assert reply.startswith("250 2.0.0 OK ")
    message_id = reply.removeprefix("250 2.0.0 OK ")
    assert desk.files("s3/mail-all") == []
    (one,) = desk.held()
    assert (one["message_id"], one["id"][:41]) == (message_id, f"{message_id}-")
    assert {
        name: one[name] for name in ("mail_from", "from", "recipients", "subject", "rule", "bucket", "problem")
    } == {
        "mail_from": "pat@sender.example",
        "from": ["pat@sender.example"],
        "recipients": ["support@example.com"],
        "subject": "please hold this",
        "rule": "hold",
        "bucket": "held",
        "problem": None,
    }
    assert one["size"] == len(mail(Subject="please hold this"))
    assert "subject" in one["why"]
    assert desk.inbound("quarantine", "list") == 0
    first, second, last = desk.out().splitlines()
    assert first.startswith(f"{one['id']}  {one['held_at']}  {one['size']} octets  hold: ")
    assert (second, last) == ("    <pat@sender.example> to support@example.com: please hold this", "1 held")
    assert desk.stored("held", one["key"]).endswith(mail(Subject="please hold this"))


def test_a_prefix_with_and_without_its_slash_is_one_place(desk: Desk) -> None:
    other = (
        HOLD.replace("name: hold", "name: other")
        .replace("prefix: q", "prefix: q/")
        .replace("contains: hold", "contains: x")
    )
    desk.rules(rules(STORE, first=HOLD + other))
    desk.receive(mail(Subject="hold"))
    (one,) = desk.held()
    assert desk.inbound("quarantine", "show", one["id"]) == 0


def test_a_released_message_is_what_it_would_have_been_without_and_is_gone(desk: Desk) -> None:
    raw = mail(Subject="hold", X_SES_Spam_Verdict="PASS", Authentication_Results="mx.example.com; dkim=pass")
    desk.rules(rules(STORE, TELL, when="{spf: pass, size: {below: 1 MiB}}"))
    desk.receive(raw)
    (one,) = desk.held()
    as_held = desk.stored("held", one["key"])
    assert desk.inbound("quarantine", "release", one["id"][:8]) == 0
    told = desk.out().splitlines()
    assert told[:2] == [one["id"], "  for        support@example.com: s3, sns: 250 2.0.0"]
    assert told[-1] == "  released"
    content = desk.stored("mail-all", f"in/{one['message_id']}")
    assert as_held == content
    assert content.index(b"X-Seen: yes\r\n") < content.index(b"Subject: hold")
    assert (content.count(b"X-SES-Spam-Verdict:"), b"dkim=pass" in content) == (1, False)
    (notification,) = (json.loads(document["Message"]) for document in desk.documents("sns/told"))
    assert notification["receipt"]["spfVerdict"] == {"status": "PASS"}
    assert notification["inbound"]["client_ip"] == "192.0.2.10"
    assert notification["mail"]["timestamp"].startswith(one["received_at"][:16])
    assert (desk.files("s3/held"), desk.held()) == ([], [])
    assert desk.inbound("quarantine", "release", one["id"]) == 1
    assert len(desk.files("sns/told")) == 1


def test_only_the_recipients_it_was_held_for_get_it(desk: Desk) -> None:
    hold = HOLD.replace("    when", "    recipients: [a@example.com, c@example.com]\n    when")
    desk.rules(rules(TELL, first=hold))
    desk.receive(mail(Subject="hold"), to=("a@example.com", "b@example.com", "c@example.com"))
    assert desk.held()[0]["recipients"] == ["a@example.com", "c@example.com"]
    assert desk.inbound("quarantine", "release", desk.held()[0]["id"]) == 0
    told = [json.loads(document["Message"])["receipt"]["recipients"] for document in desk.documents("sns/told")]
    assert told == [["b@example.com"], ["a@example.com", "c@example.com"]]


def test_what_fails_keeps_the_message_and_what_was_done_is_not_done_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.rules(rules(f"sqs: {{queue_url: '{QUEUE}'}}", "lambda: {function: ticket, invocation: request_response}"))
    desk.receive(mail(Subject="hold"))
    (one,) = desk.held()
    assert desk.inbound("quarantine", "release", one["id"]) == 1
    told = desk.out()
    assert "  failed     lambda of after: reason no such function" in told
    assert "  held       still: 451 4.3.0" in told
    assert len(desk.held()) == 1
    assert sorted(desk.files("s3/held")) == sorted(f"{one['id']}{end}" for end in ENDS)
    monkeypatch.setenv("INBOUND_FUNCTIONS", '{ticket: [echo, "{}"]}')
    assert desk.inbound("quarantine", "release", one["id"]) == 0
    assert "  already done sqs of after" in desk.out()
    assert (len(desk.files("sqs/jobs")), desk.held()) == (1, [])


ENDS = ("", ".metadata.json", ".envelope.json", ".envelope.json.metadata.json")


def test_a_release_that_was_killed_in_the_middle_does_nothing_twice(desk: Desk) -> None:
    (desk.place / "kill.py").write_text(
        "import os, pathlib, signal\n"
        "once = pathlib.Path(__file__).with_name('killed')\n"
        "if not once.exists():\n"
        "    once.touch()\n"
        f"    os.kill(int(pathlib.Path({str(desk.place / 'pid')!r}).read_text()), signal.SIGKILL)\n"
        "print('{}')\n"
    )
    functions = json.dumps({"kill": [sys.executable, str(desk.place / "kill.py")]})
    desk.rules(rules(f"sqs: {{queue_url: '{QUEUE}'}}", "lambda: {function: kill, invocation: request_response}"))
    desk.receive(mail(Subject="hold"))
    (one,) = desk.held()

    def release(*more: str) -> subprocess.CompletedProcess[str]:
        note = f"import os, pathlib; pathlib.Path({str(desk.place / 'pid')!r}).write_text(str(os.getpid()))"
        run = "import sys; from inbound.cli import main; sys.exit(main(['quarantine', 'release', *sys.argv[1:]]))"
        command = [sys.executable, "-c", f"{note}\n{run}", one["id"], *more]
        environ = {**os.environ, "INBOUND_FUNCTIONS": functions, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=50, check=False)

    assert release().returncode == -9
    assert (len(desk.files("sqs/jobs")), len(desk.held())) == (1, 1)
    second = release()
    assert (second.returncode, "a release is under way" in second.stderr) == (1, True)
    third = release("--again")
    assert (third.returncode, "already done sqs of after" in third.stdout) == (0, True), third.stderr
    assert (len(desk.files("sqs/jobs")), desk.held(), desk.files("s3/held")) == (1, [], [])


def test_of_two_releases_at_the_same_time_one_delivers(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.rules(rules(TELL, "lambda: {function: slow, invocation: request_response}"))
    desk.receive(mail(Subject="hold"))
    (one,) = desk.held()
    monkeypatch.setenv("INBOUND_FUNCTIONS", '{slow: [sh, -c, "sleep 0.5; echo {}"]}')
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(desk.inbound("quarantine", "release", one["id"])))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sorted(codes), len(desk.files("sns/told"))) == ([0, 1], 1)
    desk.out()
    assert desk.held() == []


@pytest.mark.parametrize("refusal", [b"450 4.2.1 later\r\n", b"550 5.1.1 nobody\r\n"])
def test_what_a_next_hop_does_not_take_stays_and_who_has_it_is_not_sent_it_again(desk: Desk, refusal: bytes) -> None:
    desk.rules(rules("relay: {host: 127.0.0.1, port: 1}"))
    desk.receive(mail(Subject="hold"), to=("a@example.com", "b@example.com"))
    (one,) = desk.held()

    async def story() -> tuple[list[int], list[str]]:
        async with next_hop({"RCPT b@example.com": refusal}) as hop:
            desk.rules(rules(f"relay: {{host: 127.0.0.1, port: {hop.port}}}"))
            codes = [await asyncio.to_thread(desk.inbound, "quarantine", "release", one["id"])]
            hop.script = USUAL
            codes.append(await asyncio.to_thread(desk.inbound, "quarantine", "release", one["id"]))
            return codes, [line.partition(" ")[2] for line in hop.commands if line.startswith("RCPT")]

    codes, reached = asyncio.run(story())
    assert codes == [1, 0]
    assert [line.partition("<")[2].partition(">")[0] for line in reached] == [
        "a@example.com",
        "b@example.com",
        "b@example.com",
    ]
    assert desk.held() == []


def test_it_goes_on_under_the_rules_in_force_now(desk: Desk) -> None:
    desk.rules(rules(STORE))
    desk.receive(mail(Subject="hold"))
    (one,) = desk.held()
    desk.rules(rules("s3: {bucket: other}"))
    assert desk.inbound("quarantine", "release", one["id"]) == 0
    assert (desk.files("s3/mail-all"), len(desk.files("s3/other"))) == ([], 2)


def test_when_its_rule_is_gone_somebody_says_where_it_begins(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.rules(rules(STORE))
    desk.receive(mail(Subject="hold"))
    (one,) = desk.held()
    desk.rules(rules(STORE, first=HOLD.replace("name: hold", "name: other")))
    place = ("--in", "s3://held/q")
    assert desk.inbound("quarantine", "release", one["id"], *place) == 1
    assert "the rule that held it is gone: hold; say --from-rule NAME or --from-start" in capsys.readouterr().err
    assert desk.inbound("quarantine", "release", one["id"], "--from-rule", "nobody") == 1
    assert "no such rule: nobody" in capsys.readouterr().err
    # Another rule holds it now: under a key of its own.
    assert desk.inbound("quarantine", "release", one["id"], "--from-start") == 0
    desk.out()
    (again,) = desk.held()
    assert (again["rule"], again["id"] != one["id"], again["message_id"]) == ("other", True, one["message_id"])
    assert desk.inbound("quarantine", "release", again["id"], "--from-rule", "after") == 0
    assert len(desk.files("s3/mail-all")) == 2


@pytest.mark.parametrize(
    ("behind", "options", "why"),
    [
        ((STORE,), ("--from-start",), "the same rule would hold it again"),
        (("bounce: {message: No}",), (), "550 5.0.0 No"),
        (("stop",), (), "550 5.7.1 No rule here takes this message"),
    ],
)
def test_it_stays_and_nothing_is_done_when_nothing_would_come_of_it(
    desk: Desk, behind: tuple[str, ...], options: tuple[str, ...], why: str
) -> None:
    desk.rules(rules(*behind))
    desk.receive(mail(Subject="hold"))
    before = desk.files("s3/held")
    (one,) = desk.held()
    for more in ((), ("--dry-run",)):
        assert desk.inbound("quarantine", "release", one["id"], *options, *more) == 1
        assert desk.out().splitlines()[-1] == f"  held       still: {why}"
    assert (before, desk.files("s3/mail-all")) == (desk.files("s3/held"), [])


def test_a_dry_run_does_nothing(desk: Desk) -> None:
    desk.rules(rules(STORE))
    desk.receive(mail(Subject="hold"))
    before = desk.files("")
    assert desk.inbound("quarantine", "release", desk.held()[0]["id"], "--dry-run") == 0
    assert desk.out().splitlines()[1:] == ["  for        support@example.com: s3: 250 2.0.0", "  would be"]
    assert [name for name in desk.files("") if not name.startswith("ledger")] == [
        name for name in before if not name.startswith("ledger")
    ]


HOSTILE = "=?utf-8?q?hold=1B=5D0=3Bowned=07=0A1=20held=E2=80=AE?="


def test_nothing_a_sender_wrote_steers_a_terminal_or_makes_lines_of_its_own(desk: Desk) -> None:
    desk.rules(rules(STORE))
    desk.receive(mail(Subject=HOSTILE, X_Evil="a\x1b[2Jb\x9bc"))
    (one,) = desk.held()
    assert one["subject"] == "hold\x1b]0;owned\x07\n1 held\u202e"
    for command, count in ((("list",), 3), (("show", one["id"]), None), (("release", one["id"], "--dry-run"), 3)):
        assert desk.inbound("quarantine", *command) == 0
        told = desk.out()
        assert [char for char in told if not char.isprintable() and char != "\n"] == []
        assert count in (None, len(told.splitlines()))
    assert desk.inbound("quarantine", "show", one["id"], "--json") == 0
    told = desk.out()
    assert [char for char in told if not char.isprintable()] == ["\n"]
    assert {"name": "X-Evil", "value": "a\x1b[2Jb\x9bc"} in json.loads(told)["headers"]


def test_show_says_what_was_found_and_why_it_is_held(desk: Desk) -> None:
    desk.rules(rules(STORE))
    desk.receive(mail(Subject="hold"))
    (one,) = desk.held()
    assert desk.inbound("quarantine", "show", one["id"]) == 0
    told = desk.out().splitlines()
    assert told[0] == one["id"]
    assert told[1] == f"  held       {one['held_at']} by hold: {one['why']}"
    for expected in (
        "  spf        PASS     pass for sender.example (MAIL FROM)",
        "    Subject: hold",
        "    X-Seen: yes",
    ):
        assert expected in told
    assert any(line.startswith("    met        hold") for line in told)
    assert desk.inbound("quarantine", "show", one["id"], "--json") == 0
    document = json.loads(desk.out())
    assert (document["id"], document["spf"]["result"], document["rcpt_to"]) == (
        one["id"],
        "pass",
        ["support@example.com"],
    )
    assert {"name": "Subject", "value": "hold"} in document["headers"]


def test_many_are_deleted_or_released_by_age_sender_recipient_and_rule(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.rules(rules(STORE))
    desk.receive(mail(Subject="hold 1"), mail(Subject="hold 2", From="Eve <eve@evil.example>"))
    desk.receive(mail(Subject="hold 3"), to=("sales@example.com",))

    def count(*options: str) -> int:
        assert desk.inbound("quarantine", "list", "--json", *options) == 0
        return len(desk.out().splitlines())

    assert [
        count(*options.split())
        for options in (
            "",
            "--older-than 1d",
            "--older-than 0s",
            "--sender evil.example",
            "--sender eve@evil.example --rule hold",
            "--sender sender.example",
            "--sender <>",
            "--recipient sales@example.com",
            "--rule other",
        )
    ] == [3, 0, 3, 1, 1, 3, 0, 1, 0]
    assert desk.inbound("quarantine", "delete", "--sender", "evil.example") == 2
    assert "Delete 1 of 3 held? Nobody is there to answer; say --yes" in capsys.readouterr().err
    assert desk.inbound("quarantine", "delete") == 2
    assert desk.inbound("quarantine", "release") == 2
    assert count() == 3
    assert desk.inbound("quarantine", "delete", "--sender", "evil.example", "--yes") == 0
    desk.out()
    assert count() == 2
    assert desk.inbound("quarantine", "release", "--older-than", "0s", "--yes") == 0
    assert (desk.held(), len(desk.files("s3/mail-all"))) == ([], 4)


def test_a_bucket_that_is_named_and_not_there_is_an_error(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.rules(rules(STORE))
    assert desk.inbound("quarantine", "list") == 0
    assert desk.inbound("quarantine", "list", "--in", "s3://mail-hled/q") == 1
    assert capsys.readouterr().err == "inbound: no such bucket: mail-hled\n"


def test_an_id_that_is_none_or_several_is_an_error(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.rules(rules(STORE))
    desk.receive(*(mail(Subject=f"hold {number}") for number in range(33)))
    firsts = [one["id"][0] for one in desk.held()]
    common = next(char for char in firsts if firsts.count(char) > 1)
    for beginning, why in ((common, "several messages begin so"), ("x", "no such message"), ("", "no such message")):
        capsys.readouterr()
        assert desk.inbound("quarantine", "show", beginning) == 1
        assert why in capsys.readouterr().err


def test_what_an_interruption_left_is_told_and_can_be_deleted_and_nothing_else(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.rules(rules(STORE))
    desk.receive(mail(Subject="hold 1"), mail(Subject="hold 2"))
    one, other = desk.held()
    for path in (desk.place / "data/s3/held/q").glob(f"{one['id']}.envelope*"):
        path.unlink()
    (desk.place / f"data/s3/held/q/{other['id']}").unlink()
    (desk.place / "data/s3/held/q/notes.txt").write_text("somebody's")
    assert desk.inbound("quarantine", "list") == 1
    told = desk.out()
    assert "it has no envelope: its sender was told to try again" in told
    assert "its message is gone: an interrupted removal" in told
    assert told.endswith("2 held, 2 not whole\n")
    for ident in (one["id"], other["id"]):
        assert desk.inbound("quarantine", "release", ident) == 1
        assert "not whole" in capsys.readouterr().err
        assert desk.inbound("quarantine", "delete", ident, "--yes") == 0
    assert "notes.txt" in desk.files("s3/held")
    desk.out()
    assert desk.held() == []


def test_the_same_works_in_aws(desk: Desk, aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, key = bucket(aws), kms_key(aws)
    desk.rules(
        rules(f"s3: {{bucket: {name}, prefix: in}}").replace("bucket: held,", f"bucket: {name}, kms_key: '{key}',")
    )
    for variable, value in {"INBOUND_CLOUD": "aws", "INBOUND_ENDPOINT_URL": aws}.items():
        monkeypatch.setenv(variable, value)

    def keys() -> list[str]:
        return [it["Key"] for it in client("s3", aws).list_objects_v2(Bucket=name).get("Contents", [])]

    desk.receive(mail(Subject="hold 1"), mail(Subject="hold 2"), cloud="aws", endpoint_url=aws)
    one, other = sorted(desk.held(), key=lambda it: str(it["subject"]))
    assert sorted(keys()) == sorted(f"q/{it['id']}{end}" for it in (one, other) for end in ("", ".envelope.json"))
    stored = client("s3", aws).get_object(Bucket=name, Key=f"q/{one['id']}.envelope.json")
    assert stored["Metadata"]["x-amz-wrap-alg"] == "kms"
    assert b"pat@" not in stored["Body"].read()
    assert desk.inbound("quarantine", "release", one["id"]) == 0
    assert desk.inbound("quarantine", "delete", other["id"], "--yes") == 0
    assert keys() == [f"in/{one['message_id']}"]
    assert client("s3", aws).get_object(Bucket=name, Key=keys()[0])["Body"].read().endswith(mail(Subject="hold 1"))


def test_a_store_that_is_down_defers_and_nothing_passes_the_quarantine(desk: Desk) -> None:
    desk.rules(rules(STORE))
    with contextlib.ExitStack() as stack:
        place = desk.place / "data/s3/held"
        place.parent.mkdir(parents=True)
        place.write_text("in the way")
        stack.callback(place.unlink)
        (reply,) = desk.receive(mail(Subject="hold"))
    assert reply.startswith("451 4.3.0")
    assert desk.files("s3/mail-all") == []
