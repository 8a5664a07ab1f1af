"""Clients that we did not write, garbage that nobody wrote, and many connections."""

import asyncio
import logging
import re
import smtplib
import ssl
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inbound.clients import Answer, RecordType
from inbound.gate import Gate
from inbound.receive.census import place
from inbound.settings import BlockList, Limits, Tls
from inbound.verdicts import BlockVerdict
from tests.receive.talk import HOSTNAME, RECIPIENT_OK, FakeDoor, Served, Talk, run, served, talking, until

REPLY = re.compile(
    r"220 mx\.test ESMTP|250[ -]mx\.test|250[ -][A-Z0-9]+( [A-Z0-9= ]+)?|354 .+|[245][0-9]{2} [245]\.[0-9]\.[0-9]{1,2} .+"
)
NO_PAUSE = Limits(tarpit_seconds=0.0)


@pytest.fixture
def tls(tmp_path: Path) -> tuple[Tls, ssl.SSLContext]:
    authority = trustme.CA()
    leaf = authority.issue_cert(HOSTNAME)
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.check_hostname = False
    return Tls(certificate=tmp_path / "both.pem", key=tmp_path / "both.pem"), context


def test_pythons_smtplib_sends_mail_with_and_without_tls(tls: tuple[Tls, ssl.SSLContext]) -> None:
    door = FakeDoor()
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "jörg@sender.test", "b@ours.test", "Grüße"
    message.set_content(".\n..\nbody\n" * 1000)

    def send(server: Served) -> None:
        for secure in (False, True):
            with smtplib.SMTP(server.host, server.port, local_hostname="client.test", timeout=10) as client:
                if secure:
                    client.starttls(context=tls[1])
                client.send_message(message, "jörg@sender.test", ["b@ours.test", "c@ours.test"])
                assert client.verify("b@ours.test")[0] == 252
                assert client.noop() == (250, b"2.0.0 OK")

    async def play() -> None:
        async with served(door, tls=tls[0]) as server:
            await asyncio.to_thread(send, server)

    run(play())
    assert [received.recipients for received in door.messages] == [["b@ours.test", "c@ours.test"]] * 2
    assert [received.client.tls is not None for received in door.messages] == [False, True]
    raw = door.contents[0]
    assert raw is not None
    assert raw.endswith(b"\r\n.\r\n..\r\nbody\r\n")
    assert door.contents[1] == raw


SWAKS = [
    "swaks",
    "--helo",
    "client.test",
    "--from",
    "a@sender.test",
    "--to",
    "b@ours.test,c@ours.test",
    "--suppress-data",
]


@pytest.mark.parametrize("more", [[], ["--pipeline"], ["--tls"], ["--tls", "--pipeline"]], ids=" ".join)
def test_swaks_sends_mail(more: list[str], tls: tuple[Tls, ssl.SSLContext]) -> None:
    door = FakeDoor()

    async def play() -> tuple[int | None, str]:
        async with served(door, tls=tls[0]) as server:
            command = [*SWAKS, *more, "--server", server.host, "--port", str(server.port), "--body", ".\\n..\\nbody"]
            swaks = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            out, _ = await asyncio.wait_for(swaks.communicate(), 30)
            return swaks.returncode, out.decode()

    status, talk = run(play())
    assert status == 0, talk
    (message,) = door.messages
    assert message.recipients == ["b@ours.test", "c@ours.test"]
    assert message.raw is not None
    assert b"\r\n\r\n.\r\n..\r\nbody\r\n" in message.raw
    assert (message.client.tls is not None) == ("--tls" in more)


def test_nmap_finds_the_extensions_and_no_open_relay() -> None:
    gate = Gate(BlockList(), ("ours.test",), NobodyToAsk())
    door = FakeDoor(recipient_reply=lambda address: gate.answer(BlockVerdict(), address) or RECIPIENT_OK)

    async def play() -> str:
        async with served(door, limits=NO_PAUSE) as server:
            scripts = "+smtp-commands,+smtp-open-relay"
            command = ["nmap", "-Pn", "-n", "-sT", "-p", str(server.port), "--script", scripts, server.host]
            nmap = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            out, _ = await asyncio.wait_for(nmap.communicate(), 50)
            return out.decode()

    found = run(play())
    assert "mx.test, PIPELINING, SIZE 41943040, 8BITMIME, SMTPUTF8, CHUNKING, ENHANCEDSTATUSCODES, LIMITS" in found
    assert "Server doesn't seem to be an open relay, all tests failed" in found
    assert len(door.opened) > 5
    assert door.messages == []


class NobodyToAsk:
    """A resolver for a gate without zones."""

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        raise AssertionError(name, rdtype)


WORDS = st.sampled_from(
    [
        b"EHLO client.test\r\n", b"HELO a\r\n", b"MAIL FROM:<a@b.test>\r\n", b"MAIL FROM:<> SIZE=1\r\n", b"MAIL FROM:<a",
        b"RCPT TO:<b@ours.test>\r\n", b"RCPT TO:<", b"@", b">", b"DATA\r\n", b"\r\n.\r\n", b".\r\n", b"BDAT 3\r\nabc",
        b"BDAT 5 LAST\r\nab\r\n\r", b"BDAT 2 LAST\r\n\r\n", b"BDAT x\r\n", b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"STARTTLS\r\n",
        b"VRFY x\r\n", b"HELP\r\n", b"AUTH PLAIN\r\n", b"\r", b"\n", b"\0", b"\xff", b"x", b" ", b"Subject: x\r\n", b"\r\n",
        b"\xe2\x80\xa8", b"SMTPUTF8", b"\x16\x03\x01", b"x" * 3000,
    ]
)  # fmt: skip


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(words=st.lists(st.lists(WORDS, max_size=6).map(b"".join), max_size=8))
def test_garbage_gets_well_formed_replies_and_breaks_nothing(
    words: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> bytes:
        async with served(FakeDoor(), limits=NO_PAUSE) as server, talking(server) as talk:
            for octets in words:
                talk.send(octets)
                await talk.writer.drain()
                await asyncio.sleep(0)
            talk.writer.write_eof()
            async with asyncio.timeout(10):
                heard = await talk.reader.read()
            await talk.close()
            await until(lambda: server.edge.connections == 0)
            assert server.edge.bytes_in_flight == 0
            return heard

    with caplog.at_level(logging.ERROR):
        heard = run(play())
    lines = heard.decode("ascii").split("\r\n")
    assert lines.pop() == ""
    assert [line for line in lines if not REPLY.fullmatch(line)] == []
    assert caplog.records == []


def test_five_thousand_connections_leave_no_descriptor_behind() -> None:
    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    async def one(server: Served, number: int) -> None:
        talk = await Talk.to(server)
        if number % 5:
            await talk.line()
        if number % 5 == 2:
            talk.send(b"EHLO client.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<b@ours.test>\r\nDATA\r\nhalf")
        if number % 5 == 3:
            assert (await talk.say("QUIT"))[:3] == "221"
        await (talk.vanish() if number % 5 == 4 else talk.close())

    async def play() -> tuple[int, int]:
        async with served(FakeDoor(), limits=Limits(connections_per_ip=500)) as server:
            await asyncio.gather(*(one(server, number) for number in range(50)))
            await until(lambda: server.edge.connections == 0)
            before = descriptors()
            for first in range(0, 5000, 50):
                await asyncio.gather(*(one(server, first + number) for number in range(50)))
            await until(lambda: server.edge.connections == 0)
            assert server.edge._house.sessions == set()
            assert server.edge._house.census._seat.settle(place(ip_address("127.0.0.1"))) == 1  # nobody else is counted
            return before, descriptors()

    before, after = run(play())
    assert after <= before
