"""An AWS to test against: moto's server over real HTTP on a free loopback port, one for the whole run."""

import atexit
import http.server
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import boto3
import pytest

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@cache
def moto_url() -> str:
    """Where moto listens. It ends with the process."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - it takes two seconds

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> str:
    """moto's address, with credentials in the environment that boto3 finds."""
    for name, value in {**ENVIRONMENT, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return moto_url()


@cache
def client(service: str, url: str) -> Any:
    """A plain boto3 client, to look at what came of it."""
    return boto3.client(service, endpoint_url=url, region_name="us-east-1")  # type: ignore[call-overload]


def bucket(url: str) -> str:
    """A new bucket."""
    name = f"mail-{uuid.uuid4()}"
    client("s3", url).create_bucket(Bucket=name)
    return name


def kms_key(url: str) -> str:
    """A new key's ARN."""
    arn: str = client("kms", url).create_key()["KeyMetadata"]["Arn"]
    return arn


def topic_with_queue(url: str) -> tuple[str, str]:
    """A new topic, and a queue that gets what is published there."""
    name = f"mail-{uuid.uuid4()}"
    topic: str = client("sns", url).create_topic(Name=name)["TopicArn"]
    queue: str = client("sqs", url).create_queue(QueueName=name)["QueueUrl"]
    arn = client("sqs", url).get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    client("sns", url).subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    return topic, queue


def received(url: str, queue: str) -> list[Any]:
    """What is in a queue, as JSON."""
    messages = client("sqs", url).receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in messages]


@contextmanager
def answering(*answers: tuple[int, str], bodies: list[bytes] | None = None) -> Iterator[tuple[str, list[str]]]:
    """A service that gives these answers (status, body) in turn, for what moto never says; and the requests it saw.

    Their bodies go into `bodies`.
    """
    left, seen = list(answers), []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # answers `Expect: 100-continue`

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if bodies is not None:
                bodies.append(body)
            seen.append(f"{self.command} {self.headers.get('If-None-Match', '')}".strip())
            status, answer = left.pop(0) if left else (500, "")
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.encode())

        do_GET = do_POST = do_HEAD = do_PUT  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield "http://{}:{}".format(*server.server_address[:2]), seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
