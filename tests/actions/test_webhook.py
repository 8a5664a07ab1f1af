"""The webhook tells what it should, in a signature that others check."""

import asyncio
import base64
import hashlib
import hmac
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inbound.actions.s3 import open_object
from inbound.actions.webhook import SECRET_MISSING, Webhook, signed
from inbound.clients.web import NOT_ALLOWED
from inbound.errors import PermanentFailure
from inbound.mail import Headers
from tests.actions.letters import CONTENT, ID, TOPIC, letter, local
from tests.clients.test_web import service
from tests.interop.environments import CONSUMERS, python_with

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


def posted(
    data_dir: Path, content: bytes = CONTENT, *, tries: int = 1, ours: bool = True, **more: Any
) -> list[tuple[dict[str, str], bytes]]:
    """What the service was sent: the fields of the request by lower-case name, and the body."""

    async def story() -> list[bytes]:
        async with service(b"HTTP/1.1 200 OK\r\n\r\n") as (port, seen), local(data_dir) as cloud:
            action = Webhook(url=f"http://127.0.0.1:{port}/hook?key=x", secret_env="HOOK", allow_private=True, **more)
            for _ in range(tries):
                done = await action.perform(letter(content, ours=ours), cloud)
                assert done.detail == {"status": "200"}
            return seen

    requests = []
    for request in asyncio.run(story()):
        head, _, body = request.partition(b"\r\n\r\n")
        pairs = (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        requests.append(({name.lower(): value for name, value in pairs}, body))
    return requests


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", SECRET)


def test_the_notification_is_posted_signed_with_time_and_id(tmp_path: Path) -> None:
    fields, body = posted(tmp_path)[0]
    told = json.loads(body)
    assert (told["notificationType"], "content" in told) == ("Received", False)
    assert told["receipt"]["action"]["type"] == "Webhook"
    assert "key=x" not in told["receipt"]["action"]["url"]
    text = f"{fields['webhook-id']}.{fields['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.digest(b"s" * 32, text, hashlib.sha256)).decode()
    assert f"v1,{digest}" == fields["webhook-signature"]
    assert fields["x-inbound-message-id"] == ID


def test_once_it_was_posted_a_topic_is_told_the_same_with_the_place_of_the_message(tmp_path: Path) -> None:
    (_, body), *_ = posted(tmp_path, topic_arn=TOPIC, bucket="mail-hooks", prefix="in")
    (file,) = (tmp_path / "sns/inbound-mail").glob("*.json")
    action = json.loads(body)["receipt"]["action"]
    assert action == json.loads(json.loads(file.read_text())["Message"])["receipt"]["action"]
    assert list(action) == ["type", "topicArn", "url", "bucketName", "objectKeyPrefix", "objectKey"]
    assert (action["type"], action["topicArn"], action["objectKey"]) == ("Webhook", TOPIC, f"in/{ID}")


def test_a_retry_has_the_same_id(tmp_path: Path) -> None:
    first, second = posted(tmp_path, tries=2)
    assert first[0]["webhook-id"] == second[0]["webhook-id"]


def test_our_own_key_can_be_left_out_of_every_payload(tmp_path: Path) -> None:
    for payload in ("event", "content", "parsed"):
        told = json.loads(posted(tmp_path, payload=payload, ours=False)[0][1])
        assert "inbound" not in told


@pytest.mark.timeout(300)
def test_the_library_of_standard_webhooks_accepts_it_and_nothing_changed(tmp_path: Path) -> None:
    fields, body = posted(tmp_path)[0]
    (tmp_path / "body").write_bytes(body)
    check = (
        "import json, sys; from standardwebhooks.webhooks import Webhook\n"
        "Webhook(sys.argv[1]).verify(open(sys.argv[2]).read(), json.loads(sys.argv[3]))\n"
    )
    command = [
        str(python_with(*CONSUMERS)),
        "-c",
        check,
        SECRET,
        str(tmp_path / "body"),
        json.dumps(fields),
    ]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    (tmp_path / "body").write_bytes(body.replace(b"Received", b"Deceived"))
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0


def test_the_message_itself_is_posted_raw_or_in_the_notification(tmp_path: Path) -> None:
    fields, body = posted(tmp_path, payload="raw")[0]
    assert (fields["content-type"], body) == ("message/rfc822", CONTENT)
    fields, body = posted(tmp_path, payload="content")[0]
    assert base64.b64decode(json.loads(body)["content"], validate=True) == CONTENT


def test_a_message_is_posted_parsed(tmp_path: Path) -> None:
    content = (
        b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
        b"--b\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n"
        b'--b\r\nContent-Type: application/pdf; name="a.pdf"\r\nContent-Disposition: attachment; filename="a.pdf"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQK\r\n--b--\r\n"
    )
    told = json.loads(posted(tmp_path, content, payload="parsed")[0][1])
    parsed = told["parsed"]
    assert list(told)[-2:] == ["parsed", "inbound"]
    assert (parsed["text"].strip(), parsed["html"].strip(), parsed["readable"]) == ("Grüße", "<p>Hello</p>", True)
    assert [(it["name"], it["type"], it["declared"]) for it in parsed["attachments"]] == [
        ("a.pdf", "application/pdf", "application/pdf")
    ]
    assert Headers.of(content).first("Subject")


def test_a_message_is_kept_and_pointed_to(tmp_path: Path) -> None:
    told = json.loads(posted(tmp_path, bucket="mail-hook", prefix="in", kms_key="alias/hook")[0][1])
    action = told["receipt"]["action"]
    assert ("mail-hook", "in", f"in/{ID}") == (action["bucketName"], action["objectKeyPrefix"], action["objectKey"])
    assert asyncio.run(open_object(local(tmp_path), "mail-hook", action["objectKey"])) == CONTENT


@pytest.mark.parametrize("secret", ["", "short", "whsec_AAAA", "whsec_no base64"])
def test_without_a_proper_secret_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("HOOK", secret)
    with pytest.raises(PermanentFailure) as caught:
        posted(tmp_path)
    assert caught.value.reason == SECRET_MISSING


def test_private_addresses_are_refused_unless_they_are_allowed(tmp_path: Path) -> None:
    async def story() -> None:
        async with local(tmp_path) as cloud:
            await Webhook(url="https://localhost/hook", secret_env="HOOK").perform(letter(), cloud)

    with pytest.raises(PermanentFailure) as caught:
        asyncio.run(story())
    assert caught.value.reason == NOT_ALLOWED


def test_signatures_of_the_specification_s_own_example() -> None:
    # The example of the specification (and of its libraries' tests).
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    fields = signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert fields["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
