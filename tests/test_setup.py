"""`inbound setup` says what works and how to mend what does not, by trying it."""

import asyncio
import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from inbound.cli import main
from inbound.clients.invoke import Endpoint, Runner
from tests.aws import answering, aws, bucket, kms_key, received, topic_with_queue
from tests.aws import client as at
from tests.next_hop import next_hop
from tests.servers import free_port

__all__ = ["aws"]

NAME = "AMAZON_SES_SETUP_NOTIFICATION"
ACCOUNT = "123456789012"
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
RULES = """
rules:
  - name: held
    when: {virus: gray}
    actions: [{quarantine: {bucket: HELD, prefix: q, kms_key: "KEY"}}]
  - name: one
    recipients: [one@example.com]
    actions:
      - s3: {bucket: MAIL, prefix: in, kms_key: "KEY", topic_arn: "TOPIC"}
      - lambda: {function: ticket}
  - name: two
    recipients: [two@example.com]
    actions:
      - s3: {bucket: MAIL, prefix: in/}
      - sns: {topic_arn: "TOPIC", encoding: base64}
      - sqs: {queue_url: "QUEUE"}
  - name: off
    enabled: no
    actions: [{s3: {bucket: never-looked-at}}]
"""


@dataclass
class Shell:
    """`inbound setup` under these rules and settings."""

    place: Path
    set: Callable[[str, str], None]
    told: Callable[[], str]

    def rules(self, text: str = RULES, **names: str) -> None:
        usual = {
            "HELD": "mail-held",
            "MAIL": "mail-all",
            "KEY": "alias/mail",
            "TOPIC": topic("told"),
            "QUEUE": queue("jobs"),
        }
        for word, value in (usual | names).items():
            text = text.replace(word, value)
        (self.place / "rules.yaml").write_text(text, encoding="utf-8")

    def setup(self, *options: str) -> tuple[int, list[str]]:
        """The exit code and the lines."""
        self.told()
        return main(["setup", *options]), self.told().splitlines()


def topic(name: str) -> str:
    return f"arn:aws:sns:us-east-1:{ACCOUNT}:{name}"


def queue(name: str) -> str:
    return f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/{name}"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    for name in [name for name in os.environ if name.startswith("INBOUND_")]:
        monkeypatch.delenv(name)
    settings = {"DATA_DIR": f"{tmp_path}/data", "RULES": f"{tmp_path}/rules.yaml", "ACCOUNT": ACCOUNT}
    for name, value in settings.items():
        monkeypatch.setenv(f"INBOUND_{name}", value)
    monkeypatch.setenv("INBOUND_FUNCTIONS", "{ticket: [cat]}")
    return Shell(tmp_path, monkeypatch.setenv, lambda: capsys.readouterr().out)


def test_locally_everything_is_made_and_tried_once(shell: Shell) -> None:
    shell.rules()
    code, lines = shell.setup()
    assert (code, lines) == (
        0,
        [
            f"ok     data_dir {shell.place}/data: holds the secret and the ledger",
            f"ok     bucket s3://mail-held/q (held): {NAME} was written",
            "ok     key alias/mail (held, one): makes data keys",
            f"ok     bucket s3://mail-all/in (one, two): {NAME} was written",
            f"ok     topic {topic('told')} (one, two): was told",
            "ok     function ticket (one): can be called",
            f"ok     queue {queue('jobs')} (two): was told",
            "7 ok, 0 wrong, 0 not tried",
        ],
    )
    assert (shell.place / f"data/s3/mail-all/in/{NAME}").is_file()
    assert (shell.place / "data/kms/alias/mail").is_file()
    code, lines = shell.setup("--no-send")
    assert (code, lines[3]) == (0, f"ok     bucket s3://mail-all/in (one, two): {NAME} is there")
    assert lines[-1] == "5 ok, 0 wrong, 2 not tried"
    assert len(list((shell.place / "data/sns/told").glob("*.json"))) == 1
    assert len(list((shell.place / "data/sqs/jobs").glob("*.json"))) == 1


def test_what_is_written_and_told_has_ses_s_form(shell: Shell) -> None:
    shell.rules(RULES.replace(', topic_arn: "TOPIC"}', "}"))
    assert shell.setup()[0] == 0
    raw = (shell.place / f"data/s3/mail-all/in/{NAME}").read_bytes()
    head, _, body = raw.partition(b"\r\n\r\n")
    assert [line.split(b":")[0] for line in head.split(b"\r\n")] == [b"Date", b"To", b"From", b"Subject"]
    assert b"From: Amazon Web Services <no-reply-aws@amazon.com>\r\nSubject: Amazon SES Setup Notification" in head
    assert b"To: recipient@example.com" in head
    assert re.fullmatch(rb"(?:[ -~]*\r\n)*[ -~]+\n", body)
    assert (shell.place / f"data/s3/mail-all/in/{NAME}.metadata.json").read_text() == "{}"
    (file,) = (shell.place / "data/sns/told").glob("*.json")
    told = json.loads(json.loads(file.read_text())["Message"])
    assert list(told) == ["notificationType", "mail", "receipt", "content"]
    assert (told["mail"]["messageId"], told["mail"]["destination"]) == (NAME, ["recipient@example.com"])
    assert told["receipt"]["recipients"] == ["recipient@example.com"]
    assert told["receipt"]["action"] == {"type": "SNS", "topicArn": topic("told"), "encoding": "BASE64"}
    assert b"Amazon SES Setup Notification" in base64.b64decode(told["content"], validate=True)
    (file,) = (shell.place / "data/sqs/jobs").glob("*.json")
    told = json.loads(json.loads(file.read_text())["Body"])
    assert told["receipt"]["action"] == {"type": "SQS", "queueUrl": queue("jobs")}
    assert "content" not in told


def test_what_is_wrong_locally_is_told_with_what_mends_it(shell: Shell) -> None:
    shell.rules(
        RULES + "  - name: hook\n    actions: [{webhook: {url: 'https://127.0.0.1:1/x?k=v', secret_env: HOOK}}]\n"
    )
    (shell.place / "data/s3").mkdir(parents=True)
    (shell.place / "data/s3/mail-all").write_text("in the way")
    shell.set("INBOUND_FUNCTIONS", "{ticket: [/nowhere/at-all]}")
    code, lines = shell.setup()
    wrong = [line for line in lines if line.startswith("WRONG")]
    assert (code, len(wrong), lines[-1]) == (1, 3, "5 ok, 3 wrong, 0 not tried")
    assert wrong[0].startswith("WRONG  bucket s3://mail-all/in (one, two): name cannot be used: ")
    assert wrong[1] == (
        "WRONG  function ticket (one): no such command: /nowhere/at-all is no program; "
        "install it, or correct `functions` in the settings"
    )
    assert wrong[2].startswith("WRONG  webhook https://127.0.0.1:1/x (hook): webhook secret missing: ")
    assert wrong[2].endswith("; set the environment variable HOOK")
    shell.set("HOOK", SECRET)
    assert "address not allowed: 127.0.0.1 is 127.0.0.1, which is not public; say allow_private" in "".join(
        shell.setup()[1]
    )
    shell.set("INBOUND_FUNCTIONS", "{ticket: ['/nowhere/at-all.py:handler']}")
    assert "no such command: /nowhere/at-all.py is not there" in "".join(shell.setup()[1])
    shell.set("INBOUND_FUNCTIONS", "{}")
    assert "no such function" in "".join(shell.setup()[1])


def test_each_secret_of_one_webhook_is_looked_for(shell: Shell) -> None:
    hooks = "".join(
        f"  - name: {name}\n    actions: [{{webhook: {{url: 'https://127.0.0.1:1/x', secret_env: {name.upper()}}}}}]\n"
        for name in ("first", "second")
    )
    shell.rules(f"rules:\n{hooks}")
    shell.set("FIRST", SECRET)
    _, lines = shell.setup()
    assert [line.partition(": ")[0] for line in lines[1:-1]] == [
        f"WRONG  webhook https://127.0.0.1:1/x ({name})" for name in ("first", "second")
    ]
    assert lines[1].endswith("; say allow_private: yes, if that is meant")
    assert lines[2].endswith("; set the environment variable SECOND")


def test_a_webhook_s_service_is_reached_and_told_nothing(shell: Shell) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/hook"
        shell.rules(
            f"rules:\n  - name: a\n    actions: [{{webhook: {{url: '{url}', secret_env: HOOK, allow_private: yes}}}}]\n"
        )
        shell.set("HOOK", SECRET)
        code, lines = shell.setup()
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b""
    assert (code, lines[1]) == (
        0,
        f"ok     webhook {url} (a): can be reached, and its secret is set; nothing was posted",
    )


@pytest.mark.parametrize(
    ("host", "whose"), [("host: 127.0.0.1, port: PORT", "127.0.0.1:PORT"), ("", "of the settings")]
)
@pytest.mark.parametrize(
    ("greeting", "told"),
    [
        ("220 next.example ESMTP", "127.0.0.1:PORT lets us in; nothing was sent"),
        ("554 5.7.1 not you", "554 5.7.1 not you"),
    ],
)
def test_a_next_hop_is_greeted_and_sent_nothing(shell: Shell, host: str, whose: str, greeting: str, told: str) -> None:
    async def story() -> tuple[int, list[str], list[str]]:
        async with next_hop({"greeting": f"{greeting}\r\n".encode()}) as hop:
            port = str(hop.port)
            where = host.replace("PORT", port)
            shell.rules(f"rules:\n  - name: on\n    recipients: [example.com]\n    actions: [{{relay: {{{where}}}}}]\n")
            shell.set("INBOUND_RELAY__HOST", "127.0.0.1")
            shell.set("INBOUND_RELAY__PORT", port)
            code, lines = await asyncio.to_thread(shell.setup)
            return code, [line.replace(port, "PORT") for line in lines], hop.commands

    code, lines, commands = asyncio.run(story())
    well = greeting.startswith("220")
    assert (code, lines[1].startswith(f"{'ok   ' if well else 'WRONG'}  next hop {whose} (on): ")) == (
        0 if well else 1,
        True,
    )
    assert told in lines[1]
    assert commands == (["EHLO localhost", "QUIT"] if well else [])


def test_a_next_hop_that_nobody_names_is_told_before_anything_is_tried(shell: Shell, capsys: Any) -> None:
    shell.rules("rules:\n  - name: on\n    recipients: [example.com]\n    actions: [{relay: {}}]\n")
    assert main(["setup"]) == 2
    assert "relays to nowhere" in capsys.readouterr().err


def test_each_finding_is_a_json_document(shell: Shell) -> None:
    shell.rules()
    shell.set("INBOUND_FUNCTIONS", "{}")
    code, lines = shell.setup("--json")
    documents = [json.loads(line) for line in lines]
    assert (code, [it["ok"] for it in documents]) == (1, [True] * 5 + [False, True])
    assert documents[5]["rules"] == ["one"]
    assert documents[5]["mend"].startswith("create the function")


def test_a_data_dir_that_cannot_be_written_is_the_first_thing_told(shell: Shell) -> None:
    shell.rules("rules:\n  - name: a\n    actions: [{drop: {}}]\n")
    (shell.place / "data").write_text("in the way")
    shell.set("INBOUND_CLOUD", "aws")
    code, lines = shell.setup()
    assert (code, lines[0].split(":")[0]) == (1, f"WRONG  data_dir {shell.place}/data")
    assert lines[0].endswith("make it writable for the user that receives")


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Lambda that has the function `ticket`, for AWS clients."""
    ready, done = threading.Event(), threading.Event()
    where: list[str] = []

    async def serve() -> None:
        async with Endpoint(Runner({"ticket": ("cat",)}, account=ACCOUNT, region="us-east-1")) as endpoint:
            where.append(endpoint.url)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait(10)
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", where[0])
    try:
        yield
    finally:
        done.set()
        thread.join()


def pointed(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("INBOUND_CLOUD", "aws")
    for service in ("S3", "KMS", "SNS", "SQS", "STS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", url)


@pytest.mark.usefixtures("functions")
def test_in_aws_everything_is_tried(shell: Shell, aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (arn, listening) = bucket(aws), topic_with_queue(aws)
    jobs = at("sqs", aws).create_queue(QueueName=f"jobs-{store}")["QueueUrl"]
    shell.rules(HELD=store, MAIL=store, KEY=kms_key(aws), TOPIC=arn, QUEUE=jobs)
    pointed(monkeypatch, aws)
    code, lines = shell.setup()
    assert (code, [line.split()[:2] for line in lines[:-1]]) == (
        0,
        [["ok", what] for what in ("data_dir", "bucket", "key", "bucket", "topic", "function", "queue")],
    )
    keys = [it["Key"] for it in at("s3", aws).list_objects_v2(Bucket=store)["Contents"]]
    assert keys == [f"in/{NAME}", f"q/{NAME}"]
    assert [json.loads(it["Message"])["mail"]["messageId"] for it in received(aws, listening)] == [NAME]
    assert [it["mail"]["messageId"] for it in received(aws, jobs)] == [NAME]
    shell.rules(
        HELD="nobody-made-this",
        MAIL="nobody-made-this",
        KEY="alias/nobody-made-this",
        TOPIC=topic("nobody-made-this"),
        QUEUE=f"{aws}/{ACCOUNT}/nobody-made-this",
    )
    shell.rules((shell.place / "rules.yaml").read_text().replace("function: ticket", "function: other"))
    code, lines = shell.setup()
    assert (code, [line.split("; ")[-1] for line in lines if line.startswith("WRONG")]) == (
        1,
        [
            "create the bucket, or name another in the rule",
            "create the key or the alias in that region, or name another in the rule",
            "create the bucket, or name another in the rule",
            "create the topic, or name another in the rule",
            "create the function (with cloud: local, name it in `functions` of the settings)",
            "create the queue, or name another in the rule",
        ],
    )


@contextlib.contextmanager
def guarded() -> Iterator[str]:
    """A moto of its own that asks for rights once it is told to.

    It knows users, actions, and the resources of S3. It does not look at conditions, at the policies of keys and buckets,
    or at the resources of other services (`_seen_by_moto`).
    """
    port = free_port()
    command = [sys.executable, "-c", "import sys; from moto.server import main; main(sys.argv[1:])"]
    environ = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "1000000"}
    process = subprocess.Popen(
        [*command, "-H", "127.0.0.1", "-p", str(port)],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _seen_by_moto(policy: dict[str, Any]) -> str:
    """The policy, with any resource for the services that ask moto about none."""
    statements = [
        one | {"Resource": "*"} if str(one["Action"]).startswith(("kms:", "sns:", "sqs:")) else one
        for one in policy["Statement"]
    ]
    return json.dumps(policy | {"Statement": statements})


@pytest.mark.usefixtures("functions", "aws")
def test_the_policy_that_is_printed_is_enough_and_not_too_much(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded() as url:
        clients: dict[str, Any] = {
            name: boto3.client(name, endpoint_url=url, region_name="us-east-1")
            for name in ("iam", "s3", "kms", "sns", "sqs")
        }
        for name in ("mail-held", "mail-all", "mail-other"):
            clients["s3"].create_bucket(Bucket=name)
        key = clients["kms"].create_key()["KeyMetadata"]["KeyId"]
        clients["kms"].create_alias(AliasName="alias/mail", TargetKeyId=key)
        clients["sns"].create_topic(Name="told")
        jobs = clients["sqs"].create_queue(QueueName="jobs")["QueueUrl"]
        shell.rules(QUEUE=jobs)
        policies = json.loads("\n".join(shell.setup("--policies")[1]))
        iam = clients["iam"]
        for user in ("enough", "less", "operator"):
            iam.create_user(UserName=user)
        keys = {user: iam.create_access_key(UserName=user)["AccessKey"] for user in ("enough", "less", "operator")}
        less = [
            one
            for one in policies["receiver"]["Statement"]
            if one["Action"] not in ("kms:GenerateDataKey", "sns:Publish")
        ]
        for user, policy in (
            ("enough", policies["receiver"]),
            ("less", policies["receiver"] | {"Statement": less}),
            ("operator", policies["operator"]),
        ):
            iam.put_user_policy(UserName=user, PolicyName="it", PolicyDocument=_seen_by_moto(policy))
        request = urllib.request.Request(
            f"{url}/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(request).close()
        pointed(monkeypatch, url)

        def become(user: str) -> None:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[user]["AccessKeyId"])
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[user]["SecretAccessKey"])

        become("enough")
        code, lines = shell.setup()
        assert (code, lines[-1]) == (0, "7 ok, 0 wrong, 0 not tried"), "\n".join(lines)
        shell.rules(QUEUE=jobs, MAIL="mail-other")
        assert [line.split()[:3] for line in shell.setup()[1] if line.startswith("WRONG")] == [
            ["WRONG", "bucket", "s3://mail-other/in"]
        ]
        shell.rules(QUEUE=jobs)
        become("less")
        code, lines = shell.setup()
        wrong = [line for line in lines if line.startswith("WRONG")]
        assert (code, [line.split()[1] for line in wrong]) == (1, ["key", "topic"])
        assert "access denied" in wrong[0]
        assert wrong[0].endswith(
            "; allow our own identity kms:GenerateDataKey, in the key's own policy too: "
            "inbound setup --policies prints the statement"
        )
        # Who works with quarantine may list what is held and nothing else; who receives may not even do that.
        for user, code in (("operator", 0), ("enough", 1)):
            become(user)
            assert main(["quarantine", "list"]) == code
        assert main(["quarantine", "list", "--in", "s3://mail-all/in"]) == 1


@pytest.mark.parametrize(
    ("service", "answer", "mend"),
    [
        ("KMS", (400, '{"__type":"DisabledException","Message":"off"}'), "the key must be enabled"),
        ("KMS", (400, '{"__type":"UnrecognizedClientException"}'), "give this process valid credentials"),
        ("S3", (503, ""), "look at the network"),
        ("S3", (403, "<Error><Code>AccessDenied</Code></Error>"), "allow our own identity s3:PutObject: inbound setup"),
    ],
)
def test_what_aws_answers_leads_to_what_mends_it(
    shell: Shell, aws: str, monkeypatch: pytest.MonkeyPatch, service: str, answer: tuple[int, str], mend: str
) -> None:
    name = bucket(aws)
    shell.rules(f"rules:\n  - name: a\n    actions: [{{s3: {{bucket: {name}, kms_key: '{kms_key(aws)}'}}}}]\n")
    pointed(monkeypatch, aws)
    with answering(*[answer] * 9) as (url, _):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", url)
        code, lines = shell.setup()
    (wrong,) = [line for line in lines if line.startswith("WRONG")]
    assert (code, mend in wrong) == (1, True), wrong
