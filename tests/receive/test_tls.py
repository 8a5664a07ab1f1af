"""STARTTLS on real sockets, with certificates by trustme."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme

from inbound.errors import ConfigurationError
from inbound.mail import Client
from inbound.receive.tls import Certificate
from inbound.settings import Limits, Tls
from tests.receive.talk import DONE, HOSTNAME, FakeDoor, run, served, talking, until

READY = "220 2.0.0 begin TLS"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return write(authority.issue_cert(HOSTNAME), tmp_path_factory.mktemp("tls"))


def write(certificate: trustme.LeafCert, folder: Path) -> Tls:
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(folder / "chain.pem", append=bool(number))
    return Tls(certificate=folder / "chain.pem", key=folder / "key.pem")


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("runner", [run, asyncio.run], ids=["uvloop", "asyncio"])
def test_a_message_comes_in_under_tls(
    runner: Callable[[Coroutine[Any, Any, str]], str], tls: Tls, trusting: ssl.SSLContext
) -> None:
    door = FakeDoor()
    body = b"\r\n" + (b"x" * 998 + b"\r\n") * 2000

    async def play() -> str:
        async with served(door, tls=tls) as server, talking(server) as talk:
            assert await talk.line() == "220 mx.test ESMTP"
            talk.send(b"EHLO client.test\r\n")
            lines = []
            while (line := await talk.line())[3] == "-":
                lines.append(line)
            assert line == "250 STARTTLS"
            assert await talk.say("MAIL FROM:<forgotten@sender.test>") == "250 2.1.0 OK"
            assert await talk.say("STARTTLS") == READY
            await talk.start_tls(trusting)
            assert await talk.say("MAIL FROM:<a@sender.test>") == "503 5.5.1 say EHLO first"  # RFC 3207 4.2
            talk.send(b"EHLO secure.test\r\n")
            while (line := await talk.line())[3] == "-":
                lines.append(line)
            assert line == "250 LIMITS MAILMAX=100 RCPTMAX=100"
            assert not [line for line in lines if "AUTH" in line]
            assert await talk.say("STARTTLS") == "503 5.5.1 TLS is on already"
            for command in ("MAIL FROM:<a@sender.test>", "RCPT TO:<b@ours.test>"):
                assert (await talk.say(command))[:3] == "250"
            assert (await talk.say("DATA"))[:3] == "354"
            talk.send(body + b".\r\n")
            reply = await talk.line()
            assert await talk.say("QUIT") == "221 2.0.0 bye"
            assert await talk.line() == "(closed)"
            return reply

    assert runner(play()) == str(DONE)
    (message,) = door.messages
    assert message.raw == body
    client = message.client
    assert client.tls is not None
    assert client == Client(ip=client.ip, port=client.port, helo="secure.test", esmtp=True, tls=client.tls)
    assert (client.tls.version, client.tls.cipher[:4]) == ("TLSv1.3", "TLS_")


@pytest.mark.parametrize("injected", [b"EHLO evil.test\r\nMAIL FROM:<evil@evil.test>\r\n", b"MAIL FRO"])
def test_commands_in_clear_behind_starttls_are_dropped(
    injected: bytes, tls: Tls, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    door = FakeDoor()

    async def play() -> list[str]:
        async with served(door, tls=tls) as server, talking(server) as talk:
            await talk.line()
            await talk.say("EHLO client.test")
            talk.send(b"STARTTLS\r\n" + injected)
            assert await talk.line() == READY
            await talk.start_tls(trusting)
            return [await talk.say("NOOP"), await talk.say("RCPT TO:<b@ours.test>")]

    with caplog.at_level(logging.WARNING):
        assert run(play()) == ["250 2.0.0 OK", "503 5.5.1 say EHLO first"]
    assert door.opened == []
    assert "commands in clear behind STARTTLS" in caplog.text


@pytest.mark.parametrize("octets", [b"EHLO plain.test\r\n", b"\x16\x03\x01\x00\x05hello", b""])
def test_a_failed_handshake_ends_the_connection_without_a_traceback(
    octets: bytes, tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        async with served(FakeDoor(), tls=tls, limits=Limits(handshake_seconds=0.3)) as server, talking(server) as talk:
            await talk.line()
            assert await talk.say("STARTTLS") == READY
            talk.send(octets)
            async with asyncio.timeout(5):
                await talk.reader.read()
            await until(lambda: server.edge.connections == 0)

    with caplog.at_level(logging.WARNING):
        run(play())
    assert [record for record in caplog.records if record.exc_info] == []


def test_tls_before_1_2_is_refused(tls: Tls, trusting: ssl.SSLContext) -> None:
    trusting.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        trusting.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        trusting.maximum_version = ssl.TLSVersion.TLSv1_1

    async def play() -> None:
        async with served(FakeDoor(), tls=tls) as server, talking(server) as talk:
            await talk.line()
            assert await talk.say("STARTTLS") == READY
            with pytest.raises(OSError):  # noqa: PT011 - an alert, or a reset when that comes first
                await talk.start_tls(trusting)

    run(play())


def test_tls_1_2_is_taken(tls: Tls, trusting: ssl.SSLContext) -> None:
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    door = FakeDoor()

    async def play() -> None:
        async with served(door, tls=tls) as server, talking(server) as talk:
            await talk.line()
            assert await talk.say("STARTTLS") == READY
            await talk.start_tls(trusting)
            await talk.say("EHLO client.test")
            await talk.say("MAIL FROM:<>")

    run(play())
    (received,) = door.opened
    assert received.mail_from == ""
    assert received.client.tls is not None
    assert received.client.tls.version == "TLSv1.2"


def test_a_certificate_that_cannot_be_used_is_told(tls: Tls, tmp_path: Path, authority: trustme.CA) -> None:
    missing = Tls(certificate=tmp_path / "missing.pem", key=tls.key)
    other = write(authority.issue_cert("other.test"), tmp_path)
    mismatched = Tls(certificate=tls.certificate, key=other.key)
    garbage = Tls(certificate=tmp_path / "garbage.pem", key=tls.key)
    garbage.certificate.write_text("no certificate")
    found = []
    for settings in (missing, mismatched, garbage):
        with pytest.raises(ConfigurationError) as caught:
            Certificate(settings)
        found.append(str(caught.value))
    assert found[0] == f"{missing.certificate}: No such file or directory"
    assert found[1].startswith(f"{tls.certificate}: no certificate for this key (")
    assert found[2].startswith(f"{garbage.certificate}: no certificate for this key (")
