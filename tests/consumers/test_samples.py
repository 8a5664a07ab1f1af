"""The sample consumers do what they say, on real parts: a receiver, a function's process, queues in both places, a web server."""

import asyncio
import base64
import importlib.util
import json
import logging
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

import inbound
from inbound.actions.invoke import Invoke
from inbound.actions.quarantine import Quarantine
from inbound.actions.s3 import S3
from inbound.actions.sns import Sns
from inbound.actions.sqs import Sqs
from inbound.actions.webhook import Webhook, signed
from inbound.clients.aws import AwsCloud
from inbound.clients.invoke import Endpoint, Runner
from inbound.errors import NotSigned, PermanentFailure
from inbound.settings import Settings
from tests.actions.letters import ACCOUNT, ID, REGION, letter, local
from tests.aws import bucket, kms_key, topic_with_queue
from tests.clients.test_web import service
from tests.consumers.stored import OURS, STORED, performed
from tests.consumers.test_message import MIXED
from tests.harness import mail, receiver

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples/consumers"
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
HANDLER = (f"{SAMPLES / 'lambda_handler.py'}:handler",)

RULES = """
rules:
  - name: support
    recipients: [support@example.com]
    actions:
      - s3: {bucket: mail-support, prefix: in, kms_key: alias/support}
      - lambda: {function: ticket, invocation: request_response}
"""


def sample(name: str) -> Any:
    """A sample as a module of its own."""
    spec = importlib.util.spec_from_file_location(name, SAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a function's process finds in its environment."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MAIL_BUCKET", "mail-support")
    monkeypatch.setenv("MAIL_PREFIX", "in")


@pytest.mark.usefixtures("function")
def test_the_function_opens_a_ticket_for_what_a_receiver_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "inbound.yaml").write_text("data_dir: data\n")
    monkeypatch.setenv("MAIL_SETTINGS", str(tmp_path / "inbound.yaml"))

    async def story() -> tuple[str, str]:
        async with receiver(tmp_path, rules=RULES, functions={"ticket": HANDLER}) as mx:
            return await mx.reply(mail()), mx.record.message_id

    reply, ident = asyncio.run(story())
    assert reply == f"250 2.0.0 OK {ident}"
    assert f"function ticket: ticket {ident} from Pat <pat@sender.example>: An order" in caplog.text


@pytest.mark.usefixtures("function")
def test_the_function_runs_in_aws_as_it_stands(
    aws: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store, key = bucket(aws), kms_key(aws)
    monkeypatch.setenv("MAIL_BUCKET", store)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws)

    async def story() -> None:
        async with Endpoint(Runner({"ticket": HANDLER}, account=ACCOUNT, region=REGION)) as endpoint:
            monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", endpoint.url)
            async with AwsCloud(region=REGION) as cloud:
                stored = letter(content=OURS + MIXED)
                await S3(bucket=store, prefix="in", kms_key=key).perform(stored, cloud)
                await Invoke(function="ticket", invocation="request_response").perform(stored, cloud)

    asyncio.run(story())
    assert f"ticket {ID} from Pät <pat@sender.example>: Grüße" in caplog.text
    assert "with a.pdf (application/pdf), 9 octets" in caplog.text


def tickets(database: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return database.execute("SELECT author, subject, body FROM tickets").fetchall()


TICKET = ("pat@sender.example", "An order", "Hello\n")


def test_the_worker_does_each_message_once_however_often_the_queue_hands_it_out(tmp_path: Path) -> None:
    worker, database = sample("sqs_worker"), sqlite3.connect(":memory:")
    queue = f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/mail"
    action = Sqs(queue_url=queue, content="utf-8")
    cloud = performed(tmp_path, action, action)
    worker.work_off(inbound.consume_queue(queue, cloud=cloud, wait=0, until_empty=True), database)
    assert tickets(database) == [TICKET]
    assert list((tmp_path / "sqs/mail").glob("[!.]*")) == []


def test_the_worker_works_off_a_queue_of_aws(aws: str) -> None:
    worker, database = sample("sqs_worker"), sqlite3.connect(":memory:")
    store, (topic, queue) = bucket(aws), topic_with_queue(aws)

    async def story() -> None:
        async with AwsCloud(region=REGION, endpoint_url=aws) as cloud:
            await S3(bucket=store, topic_arn=topic, kms_key=kms_key(aws)).perform(letter(content=STORED), cloud)

    asyncio.run(story())
    settings = Settings(cloud="aws", endpoint_url=aws)
    worker.work_off(inbound.consume_queue(queue, settings=settings, wait=0, until_empty=True), database)
    assert tickets(database) == [TICKET]


@contextmanager
def served(app: Any) -> Iterator[str]:
    """A real web server with this application on a free port."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/mail"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret, on both sides."""
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("MAIL_HOSTNAME", "mx.example.com")


def call(url: str, body: bytes, fields: dict[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, fields), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.usefixtures("hook")
@pytest.mark.parametrize("payload", ["content", "raw"])
def test_the_web_service_takes_what_the_webhook_action_posts_and_each_call_once(tmp_path: Path, payload: Any) -> None:
    web = sample("webhook_flask")
    with served(web.app) as url:
        action = Webhook(url=url, secret_env="WEBHOOK_SECRET", payload=payload, allow_private=True)
        performed(tmp_path, action, action)
    assert web.app.config["TICKETS"] == [(ID, "An order", True)]


@pytest.mark.usefixtures("hook")
def test_the_web_service_takes_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web, now, secret = sample("webhook_flask"), int(time.time()), b"s" * 32
    with served(web.app) as url:
        good = signed(secret, "1", now, STORED)
        assert call(url, STORED, {}) == 401
        assert call(url, STORED + b"x", good) == 401
        assert call(url, STORED, {**good, "webhook-id": "2"}) == 401
        assert call(url, STORED, {**good, "webhook-timestamp": str(now + 1)}) == 401
        assert call(url, STORED, signed(secret, "1", now - 400, STORED)) == 401
        assert call(url, STORED, signed(b"other" * 8, "1", now, STORED)) == 401
        assert call(url, b'{"x": 1}', signed(secret, "3", now, b'{"x": 1}')) == 422
        assert web.app.config["TICKETS"] == []
        assert [call(url, STORED, good) for _ in range(2)] == [204, 204]
        monkeypatch.setenv("OTHER", "another secret of 24 octets and more")
        action = Webhook(url=url, secret_env="OTHER", payload="content", allow_private=True)
        with pytest.raises(PermanentFailure, match="answered 401"):
            performed(tmp_path, action)
    assert web.app.config["TICKETS"] == [(ID, "An order", True)]


# --- the signature itself


def test_a_webhook_call_is_verified_by_any_of_several_secrets_and_in_any_case_of_names() -> None:
    fields = {name.title(): value for name, value in signed(b"n" * 32, "msg_1", 1000, b"body").items()}
    fields["Webhook-Signature"] = f"v1a,x v1,y {fields['Webhook-Signature']}"
    secrets = ["o" * 32, "whsec_" + base64.b64encode(b"n" * 32).decode()]
    assert inbound.verify_webhook(b"body", fields, secrets, now=1299) == "msg_1"
    for now in (1301, 699):
        with pytest.raises(NotSigned, match="too far from ours"):
            inbound.verify_webhook(b"body", fields, secrets, now=now)
    with pytest.raises(NotSigned, match="not made with our secret"):
        inbound.verify_webhook(b"body", fields, "o" * 32, now=1000)
    with pytest.raises(ValueError, match="empty secret"):
        inbound.verify_webhook(b"body", fields, "", now=1000)


@pytest.mark.parametrize("spoilt", ["", "x", "\ud800", "9" * 400, "\u0661\u0662", "v1,", "-5", "1e9"])
@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_odd_fields_are_not_signed(name: str, spoilt: str) -> None:
    fields = signed(b"n" * 32, "msg_1", 1000, b"body")
    with pytest.raises(NotSigned):
        inbound.verify_webhook(b"body", {**fields, name: spoilt}, "n" * 32, now=1000)


def test_what_all_actions_of_a_rule_tell_leads_to_the_same_message(tmp_path: Path) -> None:
    """Every action that tells of a message, one after another, and each consumed."""
    queue = f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/mail"
    seen = tmp_path / "event.json"

    async def story() -> list[Any]:
        async with local(tmp_path, {"note": ("tee", str(seen))}) as cloud:
            stored = letter(content=STORED)
            for action in (
                S3(
                    bucket="mail-support",
                    prefix="in",
                    kms_key="alias/a",
                    topic_arn=f"arn:aws:sns:{REGION}:{ACCOUNT}:all",
                ),
                Sqs(queue_url=queue),
                Sqs(queue_url=queue, content="base64"),
                Invoke(function="note", invocation="request_response", topic_arn=f"arn:aws:sns:{REGION}:{ACCOUNT}:all"),
            ):
                await action.perform(stored, cloud)
            told = [path.read_text() for path in sorted((tmp_path / "sns/all").glob("*.json"))]
            told += [one.body for one in await cloud.receive(queue, most=10, wait=0, hidden=10)]
            return [*told, json.loads(seen.read_text())]

    cloud = local(tmp_path)
    for what in asyncio.run(story()):
        message = inbound.consume(what, cloud=cloud, bucket="mail-support", prefix="in")
        assert message is not None
        assert (message.id, message.raw, message.passed("dmarc")) == (ID, STORED, True)


def test_what_is_held_and_what_did_not_fit_is_consumed_by_its_notification(tmp_path: Path) -> None:
    topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:all"
    big = STORED + b"Hello, hello.\r\n" * 20_000

    async def story() -> list[str]:
        async with local(tmp_path) as cloud:
            await Quarantine(bucket="mail-held", prefix="q", topic_arn=topic).perform(letter(content=STORED), cloud)
            await Sns(topic_arn=topic, bucket="mail-big", kms_key="alias/a").perform(letter(content=big), cloud)
            return [path.read_text() for path in sorted((tmp_path / "sns/all").glob("*.json"))]

    held, pointed = (inbound.consume(what, cloud=local(tmp_path), sealed=True) for what in asyncio.run(story()))
    assert held is not None
    assert pointed is not None
    assert (held.id, held.raw, held.provenance.bucket, held.provenance.rule) == (ID, STORED, "mail-held", "support")
    assert (pointed.id, pointed.raw, pointed.provenance.bucket) == (ID, big, "mail-big")
    assert held.passed("dmarc")
    assert pointed.passed("dmarc")


@pytest.mark.usefixtures("hook")
def test_a_webhook_call_that_points_to_a_bucket_leads_there(tmp_path: Path) -> None:
    async def story() -> list[bytes]:
        async with service(b"HTTP/1.1 200 OK\r\n\r\n") as (port, seen), local(tmp_path) as cloud:
            for payload in ("event", "parsed"):
                action = Webhook(
                    url=f"http://127.0.0.1:{port}/",
                    secret_env="WEBHOOK_SECRET",
                    payload=payload,
                    bucket="mail-hook",
                    kms_key="alias/a",
                    allow_private=True,
                )
                await action.perform(letter(content=STORED), cloud)
            return seen

    for request in asyncio.run(story()):
        message = inbound.consume(request.partition(b"\r\n\r\n")[2], cloud=local(tmp_path), bucket="mail-hook")
        assert message is not None
        assert (message.id, message.provenance.sealed, message.passed("spf")) == (ID, "ses", True)
