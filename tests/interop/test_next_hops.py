"""Other people's mail servers, and our own, as the next hop."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from inbound.clients.relay import DeferredError, RefusedError, Relays
from inbound.errors import TemporaryFailure
from inbound.settings import Relay, Tls
from tests.harness import mail, receiver
from tests.servers import free_port

RAW = mail("Hello\r\n.\r\n..two\r\n" + "A longer line, with Umlaute: äöü.\r\n" * 20_000)
SINK = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def send(port: int, raw: bytes = RAW, *to: str, times: int = 1, **more: Any) -> list[Any]:
    """What came of a message, sent several times over one pool."""

    async def story() -> list[Any]:
        options: dict[str, Any] = {"host": "localhost", "port": port, "command_seconds": 10.0, **more}
        given = Relay(**options)
        async with Relays(given, hostname="mx.example.com") as hops:
            sending = [
                hops.to().send(raw, mail_from="pat@sender.example", rcpt_to=to or ("b@example.net",))
                for _ in range(times)
            ]
            return await asyncio.gather(*sending, return_exceptions=True)

    return asyncio.run(story())


@dataclass
class Mailboxes:
    """What an aiosmtpd handler was given."""

    messages: list[tuple[str | None, list[str], bytes]] = field(default_factory=list)
    passwords: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("no@"):
            return "550 5.1.1 nobody here"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        self.messages.append((envelope.mail_from, list(envelope.rcpt_tos), envelope.content))
        return "250 2.0.0 taken"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        self.passwords.append((data.login, data.password))
        return AuthResult(success=data.password == b"s3cret", handled=False)


def test_aiosmtpd_takes_it_behind_starttls_and_auth(authority: trustme.CA, ca_file: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    boxes = Mailboxes()
    controller = Controller(
        boxes,
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=tls,
        require_starttls=True,
        auth_required=True,
        authenticator=boxes.authenticate,
        enable_SMTPUTF8=True,
    )
    controller.start()
    try:
        given: dict[str, Any] = {"tls": "verify", "ca_file": ca_file, "user": "ann"}
        found = send(controller.port, RAW, "a@example.net", "no@example.net", password="s3cret", **given)
        assert [sorted(one) for one in found] == [["no@example.net"]]
        assert boxes.messages == [("pat@sender.example", ["a@example.net"], RAW)]
        assert boxes.passwords == [(b"ann", b"s3cret")]
        assert [type(one).__name__ for one in send(controller.port, password="wrong", **given)] == ["TemporaryFailure"]
        assert [type(one).__name__ for one in send(controller.port)] == ["TemporaryFailure"]  # it wants TLS
    finally:
        controller.stop()


@contextmanager
def sink(directory: Path, *options: str) -> Iterator[int]:
    """Postfix's smtp-sink, which writes every message into a file of its own."""
    assert SINK
    port = free_port()
    directory.chmod(0o777)
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    command = [SINK, *user, *options, "-d", "got.", f"127.0.0.1:{port}", "10"]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


needs_sink = pytest.mark.skipif(not SINK, reason="smtp-sink is not installed (Debian: postfix)")


@needs_sink
def test_postfix_smtp_sink_takes_many_over_few_sessions(tmp_path: Path) -> None:
    place = tmp_path / "sink"
    place.mkdir()
    with sink(place) as port:
        found = send(port, times=30, host="127.0.0.1", connections=3)
    assert found == [{}] * 30
    got = [path.read_bytes() for path in place.iterdir()]
    assert len(got) == 30
    unix = RAW.replace(b"\r\n", b"\n")
    assert {one[one.index(b"From: Pat") :].rstrip(b"\n") for one in got} == {unix.rstrip(b"\n")}
    assert all(re.search(rb"X-Mail-Args: <pat@sender.example> SIZE=\d+ BODY=8BITMIME\n", one) for one in got) or all(
        b"X-Mail-Args: <pat@sender.example> BODY=8BITMIME\n" in one for one in got
    )


@needs_sink
@pytest.mark.parametrize(
    ("options", "raw", "expected"),
    [
        (["-8"], RAW, RefusedError),  # no 8BITMIME
        (["-8"], mail(), dict),
        (["-e"], mail(), dict),  # no ESMTP
        (["-r", "rcpt"], mail(), DeferredError),
        (["-f", "rcpt"], mail(), RefusedError),
        (["-f", "data"], mail(), RefusedError),
        (["-f", "."], mail(), RefusedError),
        (["-q", "mail"], mail(), TemporaryFailure),
        (["-q", "data"], mail(), TemporaryFailure),
        (["-q", "."], mail(), TemporaryFailure),
    ],
)
def test_what_smtp_sink_does_is_understood(
    options: list[str], raw: bytes, expected: type[object], tmp_path: Path
) -> None:
    place = tmp_path / "sink"
    place.mkdir()
    with sink(place, *options) as port:
        (found,) = send(port, raw, host="127.0.0.1")
    assert isinstance(found, expected)
    assert isinstance(found, DeferredError | RefusedError) == (expected in (DeferredError, RefusedError))


def test_a_receiver_of_ours_takes_it_by_verified_tls(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    leaf = authority.issue_cert("localhost")
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    kept = "rules:\n  - {name: kept, recipients: [example.com], tls: require, actions: [{s3: {bucket: kept}}]}\n"
    onward = "rules:\n  - {name: onward, recipients: [example.com], actions: [relay]}\n"

    async def story() -> tuple[str, bytes]:
        port = free_port()
        (tmp_path / "inside").mkdir()
        (tmp_path / "edge").mkdir()
        tls = Tls(certificate=tmp_path / "both.pem", key=tmp_path / "both.pem")
        relay = Relay(host="localhost", port=port, tls="verify", ca_file=ca_file)
        async with (
            receiver(tmp_path / "inside", rules=kept, plain_port=port, tls=tls, hostname="in.example.com") as inside,
            receiver(tmp_path / "edge", rules=onward, relay=relay) as edge,
        ):
            reply = await edge.reply(RAW)
            (stored,) = inside.objects("kept").values()
            return reply, stored

    reply, stored = asyncio.run(story())
    assert reply.startswith("250 2.0.0 OK")
    assert stored.endswith(RAW)
    assert stored.count(b"Received: from") == 2
    assert re.search(rb"Received: from mx\.example\.com .*\r\n by in\.example\.com with ESMTPS", stored)
