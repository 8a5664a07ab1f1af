"""The command line, run as a program: what goes in, what comes out, and the exit code."""

import base64
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inbound.testing import DnsServer
from tests.harness import DNS, mail
from tests.servers import free_port

ROOT = Path(__file__).parents[1]
FIELDS = (  # design 11
    *("path", "message_id", "spf", "dkim", "dmarc", "arc", "iprev", "spam", "virus"),
    *("recipients", "reply", "timings_ms", "error"),
)


@pytest.fixture(scope="module")
def dns() -> Iterator[str]:
    with DnsServer(DNS) as server:
        yield server.address


def inbound(*arguments: str, cwd: Path, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "inbound", *arguments],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        timeout=50,
        check=False,
        env=environment(**environ),
    )


def environment(**more: str) -> dict[str, str]:
    usual = {name: value for name, value in os.environ.items() if not name.startswith("INBOUND_")}
    return usual | {"PYTHONPATH": str(ROOT)} | more


ARGUMENTS = ("--client-ip", "192.0.2.10", "--helo", "mx.sender.example", "--mail-from", "pat@sender.example")


def test_check_prints_the_document_of_the_design(tmp_path: Path, dns: str) -> None:
    (tmp_path / "a.eml").write_bytes(mail())
    done = inbound("check", "a.eml", *ARGUMENTS, "--resolver", dns, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    document = json.loads(done.stdout)
    assert [name for name in FIELDS if name not in document] == []
    assert document["path"] == "a.eml"
    assert document["error"] is None
    assert document["spf"] == {
        "status": "PASS",
        "result": "pass",
        "domain": "sender.example",
        "identity": "mailfrom",
        "explanation": "",
        "reason": document["spf"]["reason"],
        "dnssec": False,
    }
    assert document["dmarc"]["aligned"] == ["spf"]
    assert document["dmarc"]["applied_policy"] == "reject"
    assert document["recipients"]["support@example.com"]["actions"] == ["add_header", "s3", "stop"]
    assert document["recipients"]["support@example.com"]["reply"] == "250 2.0.0"
    assert document["reply"]["code"] == 250
    assert list(tmp_path.iterdir()) == [tmp_path / "a.eml"]  # it has no side effects


def test_check_reads_standard_input_and_makes_crlf_of_lf_unless_told_not_to(tmp_path: Path, dns: str) -> None:
    ids = []
    for arguments in ((), ("--raw",)):
        done = inbound(
            "check",
            "-",
            *ARGUMENTS,
            "--resolver",
            dns,
            "--json",
            *arguments,
            cwd=tmp_path,
            stdin=mail().replace(b"\r\n", b"\n"),
        )
        ids.append(json.loads(done.stdout)["message_id"])
    as_received = inbound("check", "-", *ARGUMENTS, "--resolver", dns, "--json", cwd=tmp_path, stdin=mail())
    assert json.loads(as_received.stdout)["message_id"] == ids[0]
    assert ids[0] != ids[1]


def test_check_for_a_person_says_the_reply_last(tmp_path: Path, dns: str) -> None:
    done = inbound(
        "check", "-", *ARGUMENTS, "--rcpt", "nobody@example.com", "--resolver", dns, cwd=tmp_path, stdin=mail()
    )
    assert done.stdout.decode().rstrip().endswith("\n  reply      550 5.1.1 No such recipient here")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("missing.eml",), "missing.eml cannot be read: No such file or directory"),
        (("-", "--client-ip", "nowhere"), "'client_ip' is no IP address: 'nowhere'"),
        (("-", "--stages", "spf,dmrac"), "unknown stage 'dmrac'"),
        (("-", "--resolver", "nowhere"), "resolver"),
        (("-", "--rules", "no-such-directory"), "no-such-directory: the rules cannot be read"),
        (("-", "--config", "no-such-file"), "no-such-file: the settings cannot be read"),
    ],
)
def test_what_cannot_be_judged_is_told_on_stderr(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = inbound("check", *arguments, cwd=tmp_path, stdin=mail())
    assert done.returncode == 2
    assert says in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert done.stdout == b""


def test_only_the_stages_that_are_asked_for_look(tmp_path: Path, dns: str) -> None:
    done = inbound(
        "check", "-", *ARGUMENTS, "--stages", "spf,dmarc", "--resolver", dns, "--json", cwd=tmp_path, stdin=mail()
    )
    document = json.loads(done.stdout)
    statuses = {name: document[name].get("status") or document[name]["result"] for name in FIELDS[2:9]}
    assert statuses == {
        "spf": "PASS",
        "dkim": "DISABLED",
        "dmarc": "PASS",
        "arc": "none",
        "iprev": "none",
        "spam": "DISABLED",
        "virus": "DISABLED",
    }


def batch(lines: list[Any], *arguments: str, cwd: Path) -> list[dict[str, Any]]:
    stdin = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()
    done = inbound("check", "--batch", *arguments, cwd=cwd, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_batch_answers_each_line_in_order_and_errors_are_documents(tmp_path: Path, dns: str) -> None:
    (tmp_path / "a.eml").write_bytes(mail())
    whole = {
        "path": "a.eml",
        "client_ip": "192.0.2.10",
        "helo": "mx.sender.example",
        "mail_from": "pat@sender.example",
        "rcpt_to": ["support@example.com"],
        "tls": False,
        "now": 1790000000,
    }
    raw = base64.b64encode(mail()).decode()
    lines: list[Any] = [
        whole,
        "not json",
        {"path": "missing.eml"},
        {"path": "named", "raw": raw, "client_ip": "2001:db8::1"},
        {"path": "a.eml", "rcpt": []},
        {"raw": "!"},
        {"path": "a.eml", "client_ip": "nowhere"},
        {"path": "a.eml", "now": "soon"},
        *[whole | {"path": "a.eml", "rcpt_to": [f"support+{number}@example.com"]} for number in range(30)],
    ]
    documents = batch(lines, "--resolver", dns, cwd=tmp_path)
    assert len(documents) == len(lines)
    assert [bool(document["error"]) for document in documents[:8]] == [False, True, True, False, True, True, True, True]
    assert documents[0]["spf"]["result"] == "pass"
    assert documents[3]["path"] == "named"
    assert documents[3]["spf"]["result"] == "fail"
    assert "unknown key 'rcpt'" in documents[4]["error"]
    assert [list(document["recipients"]) for document in documents[8:]] == [
        [f"support+{number}@example.com"] for number in range(30)
    ]


def test_a_batch_outlives_whatever_a_line_brings(tmp_path: Path, dns: str) -> None:
    (tmp_path / "a.eml").write_bytes(mail())
    odd: list[dict[str, Any]] = [
        {"helo": "\ud800x\0", "mail_from": "\udc80@sender.example\n"},
        {"client_ip": "fe80::1%eth0"},
        {"client_ip": "::ffff:192.0.2.10"},
        {"now": 1e308},
        {"now": -1e20},
        {"rcpt_to": []},
        {"rcpt_to": [""]},
        {"rcpt_to": ["a" * 100_000, "@", "a@[192.0.2.1]"]},
        {"mail_from": "a@" * 50_000, "helo": "x." * 50_000},
        {"mail_from": "@"},
        {"mail_from": '"a@b"@sender.example'},
    ]
    wrong: list[Any] = [
        {"path": "a.eml", "now": float("nan")},
        {"path": "a.eml", "helo": None},
        {"path": "a\0b\ud800"},
        {"path": "/dev/zero"},
        {"path": str(tmp_path)},
        {"path": "-"},
        {"path": None},
        [],
        1,
        None,
        "[" * 100_000,
        f"[{'1' * 5000}]",
    ]
    lines = [*({"path": "a.eml"} | one for one in odd), *wrong]
    stdin = b"".join((one if isinstance(one, str) else json.dumps(one)).encode() + b"\n" for one in lines)
    done = inbound("check", "--batch", "--resolver", dns, cwd=tmp_path, stdin=stdin + b'\xff\xfe\n{"path":"a.eml"}')
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert [document["error"] is None for document in documents] == [True] * len(odd) + [False] * (len(wrong) + 1) + [
        True
    ]
    assert [document["path"] for document in documents[len(odd) :][:6]] == [one["path"] for one in wrong[:6]]
    assert not [one for one in documents[: len(odd)] if "crashed" in json.dumps(one)]


def test_a_batch_says_at_its_end_how_many_there_were_and_what_the_resolver_did(tmp_path: Path, dns: str) -> None:
    (tmp_path / "a.eml").write_bytes(mail())
    lines = json.dumps({"path": "a.eml", "mail_from": "pat@sender.example"}) + "\n"
    done = inbound(
        "check", "--batch", "--resolver", dns, "--jobs", "1", cwd=tmp_path, stdin=(lines * 3 + "{}").encode()
    )
    said = done.stderr.decode()
    found = re.fullmatch(
        r"inbound: 3 judged, 1 not: [0-9.]+ s, [0-9,]+ a minute; dns: (\d+) hits, (\d+) misses, (\d+) joined, 0 timeouts,"
        r" 0 failures\n",
        said,
    )
    assert found, said
    assert int(found[1]) + int(found[3]) >= int(found[2]) > 0  # three are alike, and ask once


def test_the_clock_of_each_line_is_its_own(tmp_path: Path, dns: str) -> None:
    dated = mail(Date="Tue, 24 Nov 2026 05:00:00 +0000")
    (tmp_path / "a.eml").write_bytes(dated)
    now = 1795496400
    lines = [{"path": "a.eml", "now": now}, {"path": "a.eml", "now": now + 400 * 86400}]
    documents = batch(lines, "--resolver", dns, cwd=tmp_path)
    names = [{symbol["name"] for symbol in document["spam"]["symbols"]} for document in documents]
    assert names[0] < names[1]  # the second sees an old Date beside


def test_rules_check_and_rules_test(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "a.yaml").write_text(
        "rules:\n  - name: store\n    recipients: [example.com]\n    actions: [s3: {bucket: mail}]\n"
        "tests:\n  - it: stores\n    given: {to: a@example.com}\n    expect: {rules: [store], reply: '250'}\n"
    )
    done = inbound("rules", "test", "rules", cwd=tmp_path)
    assert (done.returncode, done.stdout.decode()) == (0, "ok     stores\n1 passed, 0 failed\n")
    assert inbound("rules", "check", "rules", cwd=tmp_path).returncode == 0
    (rules / "a.yaml").write_text((rules / "a.yaml").read_text().replace("'250'", "'550'"))
    done = inbound("rules", "test", "rules", cwd=tmp_path)
    assert done.returncode == 1
    assert "rules/a.yaml:6:" in done.stdout.decode()
    (rules / "a.yaml").write_text("rules:\n  - name: store\n    actions: [s3: {bukcet: mail}]\n")
    done = inbound("rules", "check", "rules", cwd=tmp_path)
    assert done.returncode == 2
    assert "rules/a.yaml:3:20: unknown key 'bukcet', did you mean 'bucket'?" in done.stderr.decode()


class Serving:
    """`inbound serve` as a process."""

    def __init__(self, directory: Path, *, file_octets: int | None = None, **environ: str) -> None:
        self.port = free_port()
        self.directory = directory
        self.log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "inbound", "serve"],
            cwd=directory,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=environment(INBOUND_LISTEN=f"127.0.0.1:{self.port}", **environ),
        )
        if file_octets:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (file_octets, file_octets))
        self.until(lambda: "listening on" in self.said)

    @property
    def said(self) -> str:
        return (self.directory / "log").read_text()

    def until(self, come: Any) -> None:
        give_up = time.monotonic() + 30
        while not come():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < give_up, self.said
            time.sleep(0.05)

    def transcript(self, *lines: str) -> list[str]:
        """Send each line and read one reply to it; the greeting is the first."""
        replies = []
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection,
            connection.makefile("rwb") as wire,
        ):
            for line in ("", *lines):
                if line:
                    wire.write(line.encode() + b"\r\n")
                    wire.flush()
                while (reply := wire.readline().decode())[3:4] == "-":
                    pass
                replies.append(reply.strip())
        return replies

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.log.close()
        return code


def test_serve_receives_reloads_on_sighup_and_stops_on_sigterm(tmp_path: Path, dns: str) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - name: old\n    recipients: [old@example.com]\n    actions: [drop]\n")
    serving = Serving(tmp_path, INBOUND_RULES=str(rules), INBOUND_RESOLVER=dns)
    try:
        greeting, *_, old, new = serving.transcript(
            "EHLO me", "MAIL FROM:<a@sender.example>", *(f"RCPT TO:<{name}@example.com>" for name in ("old", "new"))
        )
        assert greeting.startswith("220 ")
        assert (old[:9], new[:9]) == ("250 2.1.5", "550 5.1.1")
        rules.write_text("rules: [")
        serving.process.send_signal(signal.SIGHUP)
        serving.until(lambda: "the rules stay as they were" in serving.said)
        rules.write_text("rules:\n  - name: new\n    recipients: [new@example.com]\n    actions: [drop]\n")
        serving.process.send_signal(signal.SIGHUP)
        serving.until(lambda: "rules taken in force: new" in serving.said)
        *_, reply = serving.transcript("EHLO me", "MAIL FROM:<a@sender.example>", "RCPT TO:<new@example.com>")
        assert reply.startswith("250 2.1.5")
        serving.process.send_signal(signal.SIGUSR1)
        serving.until(lambda: "\n" in serving.said.partition("dns: ")[2])
        told = serving.said.partition("dns: ")[2].partition("\n")[0]
        hits, misses, *others = (part.split() for part in told.split(", "))
        assert (int(hits[0]) > 0, hits[1], int(misses[0]) > 0, misses[1]) == (True, "hits", True, "misses")
        assert [name for _, name in others] == ["joined", "timeouts", "failures"]
        serving.until(lambda: "cloud: 0 data keys made" in serving.said)
    finally:
        assert serving.stop() == 0
    assert serving.said.count("dns: ") == 2  # the end tells it too
    assert "Traceback" not in serving.said


def test_get_fetches_and_opens_what_was_sealed(tmp_path: Path, dns: str) -> None:
    raw = mail(From="Lee <lee@other.example>")  # whom no record binds to an address
    serving = Serving(tmp_path, INBOUND_RESOLVER=dns)
    try:
        message = raw.decode().removesuffix("\r\n")
        *_, reply, _ = serving.transcript(
            "EHLO me",
            "MAIL FROM:<lee@other.example>",
            "RCPT TO:<support@example.com>",
            "DATA",
            f"{message}\r\n.",
            "QUIT",
        )
        assert reply.startswith("250 2.0.0 OK ")
    finally:
        serving.stop()
    key = reply.removeprefix("250 2.0.0 OK ")
    done = inbound("get", f"s3://mail-support/in/{key}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"X-Queue: support\r\n") or b"\r\nX-Queue: support\r\n" in done.stdout
    assert done.stdout.endswith(raw)
    done = inbound("get", f"s3://mail-support/in/{key}", "-o", "mail.eml", cwd=tmp_path)
    assert (tmp_path / "mail.eml").read_bytes().endswith(raw)
    again = inbound("get", f"s3://mail-support/in/{key}", "-o", "mail.eml", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (2, b"inbound: mail.eml cannot be written: File exists\n")
    missing = inbound("get", "s3://mail-support/in/nothing", cwd=tmp_path)
    assert (missing.returncode, missing.stdout) == (1, b"")
    assert "no such object" in missing.stderr.decode()
    assert inbound("get", "mail-support/in/x", cwd=tmp_path).returncode == 2


STORE = """
rules:
  - name: store
    recipients: [example.com]
    actions: [s3: {bucket: mail-all}]
"""


def stored(directory: Path) -> set[str]:
    """The objects in the bucket, without what belongs to them."""
    place = directory / "data" / "s3" / "mail-all"
    return {one.name for one in place.glob("[0-9a-v]*") if not one.name.endswith(".metadata.json")}


def test_when_the_disk_takes_no_more_the_mail_is_deferred_and_nothing_of_it_is_seen(tmp_path: Path, dns: str) -> None:
    (tmp_path / "rules.yaml").write_text(STORE)
    serving = Serving(tmp_path, file_octets=200_000, INBOUND_RULES=str(tmp_path / "rules.yaml"), INBOUND_RESOLVER=dns)
    try:
        talk = ("EHLO me", "MAIL FROM:<pat@sender.example>", "RCPT TO:<a@example.com>", "DATA")
        big = mail("x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 5000).decode()
        assert serving.transcript(*talk, f"{big}.")[-1].startswith("451 4.3.0")
        assert stored(tmp_path) == set()
        assert serving.transcript(*talk, f"{mail().decode()}.")[-1].startswith("250 2.0.0")
        assert len(stored(tmp_path)) == 1
    finally:
        serving.stop()


def test_after_kill_9_everything_that_was_answered_250_is_there_and_whole(tmp_path: Path, dns: str) -> None:
    (tmp_path / "rules.yaml").write_text(STORE)
    serving = Serving(tmp_path, INBOUND_RULES=str(tmp_path / "rules.yaml"), INBOUND_RESOLVER=dns)
    accepted: dict[str, bytes] = {}

    def keep_sending(sender: int) -> None:
        with contextlib.suppress(OSError, IndexError):
            for number in range(10_000):
                raw = mail(f"{sender}/{number}\r\n" * 500)
                talk = ("EHLO me", "MAIL FROM:<pat@sender.example>", "RCPT TO:<a@example.com>", "DATA")
                reply = serving.transcript(*talk, f"{raw.decode()}.")[-1]
                if reply.startswith("250 2.0.0 OK "):
                    accepted[reply.removeprefix("250 2.0.0 OK ")] = raw

    senders = [threading.Thread(target=keep_sending, args=(sender,)) for sender in range(4)]
    for sender in senders:
        sender.start()
    serving.until(lambda: len(accepted) >= 20)
    serving.process.kill()
    serving.process.wait(30)
    for sender in senders:
        sender.join(30)
    serving.log.close()
    place = tmp_path / "data" / "s3" / "mail-all"
    assert {key for key, raw in accepted.items() if not (place / key).read_bytes().endswith(raw)} == set()
