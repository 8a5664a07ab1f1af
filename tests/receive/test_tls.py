"""STARTTLS on real sockets, with certificates by trustme."""

import asyncio
import gc
import logging
import ssl
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme

from inbound.errors import ConfigurationError
from inbound.mail import Client
from inbound.receive.edge import Edge
from inbound.receive.tls import Certificates
from inbound.settings import Certificate, Limits, Listener, Tls
from tests.receive.talk import DONE, HOSTNAME, FakeDoor, Talk, run, served, talking, until

READY = "220 2.0.0 begin TLS"


def write(certificate: trustme.LeafCert, folder: Path) -> Tls:
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(folder / "chain.pem", append=bool(number))
    return Tls(certificate=folder / "chain.pem", key=folder / "key.pem")


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
            Certificates(settings)
        found.append(str(caught.value))
    assert found[0] == f"{missing.certificate}: No such file or directory"
    assert found[1].startswith(f"{tls.certificate}: no certificate for this key (")
    assert found[2].startswith(f"{garbage.certificate}: no certificate for this key (")


RUNNERS = pytest.mark.parametrize("runner", [run, asyncio.run], ids=["uvloop", "asyncio"])


@RUNNERS
def test_a_listener_can_speak_tls_from_the_first_octet(
    runner: Callable[[Coroutine[Any, Any, list[str]]], list[str]], tls: Tls, trusting: ssl.SSLContext
) -> None:
    door = FakeDoor()

    async def play() -> list[str]:
        lines = []
        async with served(door, tls=tls, tls_first=True) as server:
            for _ in range(20):  # the first octets may come before we look, and must not be lost
                async with talking(server, tls=trusting) as talk:
                    lines.append(await talk.line())
                    talk.send(b"EHLO client.test\r\n")
                    while (line := await talk.line())[3] == "-":
                        lines.append(line)
                    assert await talk.say("STARTTLS") == "503 5.5.1 TLS is on already"
                    assert await talk.say("MAIL FROM:<>") == "250 2.1.0 OK"
                    assert await talk.say("QUIT") == "221 2.0.0 bye"
        return lines

    lines = runner(play())
    assert lines[0] == "220 mx.test ESMTP"
    assert "250-STARTTLS" not in lines
    assert [received.client.tls is not None for received in door.opened] == [True] * 20


def test_a_tls_listener_needs_a_certificate_and_no_proxy(tls: Tls) -> None:
    async def play() -> list[str]:
        found = []
        for listener, certificate in (
            (Listener(address="127.0.0.1:0", tls=True), None),
            (Listener(address="127.0.0.1:0", tls=True, proxy=True), tls),
        ):
            with pytest.raises(ConfigurationError) as caught:
                await Edge(FakeDoor(), hostname=HOSTNAME, tls=certificate).start([listener])
            found.append(str(caught.value))
        return found

    assert run(play()) == [
        "listen: 127.0.0.1:0: TLS needs a certificate (`tls` in the settings)",
        "listen: 127.0.0.1:0: behind a proxy TLS begins with STARTTLS, not with the first octet",
    ]


def test_a_tls_listener_leaves_who_speaks_in_clear_and_who_is_one_too_many(
    tls: Tls, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> list[bytes]:
        limits = Limits(connections=1, handshake_seconds=0.3)
        heard = []
        async with served(FakeDoor(), tls=tls, tls_first=True, limits=limits) as server:
            for octets in (b"EHLO client.test\r\n", b""):
                async with talking(server) as talk:
                    talk.send(octets)
                    async with asyncio.timeout(5):
                        try:
                            heard.append(await talk.reader.read())
                        except ConnectionResetError:
                            heard.append(b"")
            async with talking(server, tls=trusting) as one, talking(server, tls=trusting) as two:
                heard += [(await one.line()).encode(), (await two.line()).encode()]
        return heard

    with caplog.at_level(logging.WARNING):
        heard = run(play())
    assert b"220" not in b"".join(heard[:2])
    assert heard[2:] == [b"220 mx.test ESMTP", b"421 4.3.2 too many connections at the moment, try again later"]
    assert [record for record in caplog.records if record.exc_info] == []


@RUNNERS
@pytest.mark.parametrize(
    ("limits", "sources"),
    [
        (Limits(connections_per_ip=2), ["127.0.0.1"]),
        (Limits(connections=2), [f"127.0.0.{host}" for host in range(2, 10)]),
    ],
    ids=["from one address", "in all"],
)
def test_who_says_nothing_to_a_tls_listener_is_counted(
    runner: Callable[[Coroutine[Any, Any, list[str]]], list[str]],
    limits: Limits,
    sources: list[str],
    tls: Tls,
    trusting: ssl.SSLContext,
) -> None:
    async def play() -> list[str]:
        heard = []
        async with served(FakeDoor(), tls=tls, tls_first=True, limits=limits) as server:
            silent = [
                await asyncio.open_connection(server.host, server.port, local_addr=(sources[at % len(sources)], 0))
                for at in range(8)
            ]
            _, left = await asyncio.wait([asyncio.create_task(reader.read()) for reader, _ in silent], timeout=1)
            heard.append(f"{len(left)} are waited for")
            for _, writer in silent:
                writer.close()
            async with asyncio.timeout(5):
                await asyncio.wait(left)
            async with talking(server, tls=trusting) as talk:
                heard.append(await talk.line())
        return heard

    assert runner(play()) == ["3 are waited for", "220 mx.test ESMTP"]


@RUNNERS
def test_stopping_leaves_who_is_in_a_handshake(
    runner: Callable[[Coroutine[Any, Any, bytes]], bytes], tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> bytes:
        async with served(FakeDoor(), tls=tls, tls_first=True) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            octets = await reader.read()
        writer.close()
        return octets

    assert runner(play()) == b""
    assert [record for record in caplog.records if record.exc_info] == []


@RUNNERS
@pytest.mark.parametrize("tls_first", [False, True], ids=["STARTTLS", "from the first octet"])
def test_a_client_gets_the_certificate_of_the_name_it_asks_for(
    runner: Callable[[Coroutine[Any, Any, dict[str, str]]], dict[str, str]],
    tls_first: bool,
    authority: trustme.CA,
    trusting: ssl.SSLContext,
    tmp_path: Path,
) -> None:
    trusting.check_hostname = False
    names = [(HOSTNAME,), ("mx.second.test", "second.test"), ("*.wild.test",)]
    pairs = []
    for number, issued_for in enumerate(names):
        folder = tmp_path / str(number)
        folder.mkdir()
        pairs.append(write(authority.issue_cert(*issued_for), folder))
    more = tuple(Certificate(certificate=pair.certificate, key=pair.key) for pair in pairs[1:])
    settings = Tls(certificate=pairs[0].certificate, key=pairs[0].key, more=more)
    asked = [HOSTNAME, "MX.Second.Test", "second.test", "a.wild.test", "a.b.wild.test", "wild.test", "other.test"]

    async def play() -> dict[str, str]:
        found = {}
        async with served(FakeDoor(), tls=settings, tls_first=tls_first) as server:
            for name in asked:
                async with talking(server, tls=trusting if tls_first else None, name=name) as talk:
                    await talk.line()
                    if not tls_first:
                        await talk.say("STARTTLS")
                        await talk.start_tls(trusting, name)
                    found[name] = talk.certificate_names[0]
        return found

    assert runner(play()) == {
        HOSTNAME: HOSTNAME,
        "MX.Second.Test": "mx.second.test",
        "second.test": "mx.second.test",
        "a.wild.test": "*.wild.test",
        "a.b.wild.test": HOSTNAME,
        "wild.test": HOSTNAME,
        "other.test": HOSTNAME,
    }


def test_certificates_are_read_again_without_a_restart(
    authority: trustme.CA, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    settings = write(authority.issue_cert(HOSTNAME, "old.test"), tmp_path)

    async def play() -> list[list[str]]:
        async with served(FakeDoor(), tls=settings) as server, talking(server) as before:

            async def names() -> list[str]:
                async with talking(server) as talk:
                    await talk.line()
                    await talk.say("STARTTLS")
                    await talk.start_tls(trusting)
                    return talk.certificate_names

            await before.line()
            found = [await names()]
            write(authority.issue_cert(HOSTNAME, "new.test"), tmp_path)
            found.append(await names())
            server.edge.reload_certificates()
            found.append(await names())
            trusting.check_hostname = False
            async with talking(server) as talk:
                await talk.line()
                await talk.say("STARTTLS")
                await talk.start_tls(trusting, "")  # a client that asks for no name
                found.append(talk.certificate_names)
            settings.key.write_text("no key")
            with pytest.raises(ConfigurationError):
                server.edge.reload_certificates()
            found.append(await names())
            assert await before.say("NOOP") == "250 2.0.0 OK"
            return found

    old, new = [HOSTNAME, "old.test"], [HOSTNAME, "new.test"]
    assert run(play()) == [old, old, new, new, new]


def test_every_certificate_that_cannot_be_used_is_told_at_once(tls: Tls, tmp_path: Path) -> None:
    missing = [tmp_path / name for name in ("a.pem", "b.pem", "c.pem")]
    pairs = (
        Certificate(certificate=missing[0], key=missing[1]),
        Certificate(certificate=tls.certificate, key=missing[2]),
    )
    with pytest.raises(ConfigurationError) as caught:
        Certificates(Tls(certificate=tls.certificate, key=tls.key, more=pairs))
    assert [problem.file for problem in caught.value.problems] == [str(path) for path in missing]


@pytest.mark.parametrize("secure", [False, True], ids=["in clear", "TLS"])
def test_a_session_that_is_over_is_freed_without_the_garbage_collector(
    secure: bool, tls: Tls, trusting: ssl.SSLContext
) -> None:
    async def play() -> bool:
        async with served(FakeDoor(), tls=tls) as server:
            talk = await Talk.to(server)
            await talk.line()
            if secure:
                await talk.say("STARTTLS")
                await talk.start_tls(trusting)
            await talk.say("NOOP")
            session = weakref.ref(next(iter(server.edge._house.sessions)))
            gc.disable()
            await talk.close()
            await until(lambda: session() is None)
            return session() is None

    try:
        assert run(play())
    finally:
        gc.enable()
