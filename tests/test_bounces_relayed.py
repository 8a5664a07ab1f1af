"""Notifications over the next hop of the settings, by real SMTP: what it says decides what the sender of the mail hears."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from email import message_from_bytes
from pathlib import Path
from typing import Any, Self

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

import inbound.deliver
from inbound.record import Record
from inbound.settings import Deadlines, Relay
from tests.harness import Receiver, mail, receiver
from tests.next_hop import Says, Scripted, ehlo, next_hop
from tests.test_bounces import BOTH, RULES, ran, told
from tests.test_bounces_killed import HERE
from tests.test_workers import served

TO_PAT = "RCPT pat@sender.example"


def relaying(directory: Path, port: int, **more: Any) -> contextlib.AbstractAsyncContextManager[Receiver]:
    relay = Relay(host="127.0.0.1", port=port)
    return receiver(directory, rules=RULES, **{"split_recipients": False, "relay": relay, **more})


async def once(directory: Path, says: Mapping[str, Says], **more: Any) -> tuple[str, Record, Scripted]:
    """One message through a receiver and a next hop of their own."""
    async with next_hop(says) as hop, relaying(directory, hop.port, **more) as mx:
        return await mx.reply(mail(), *BOTH), mx.record, hop


def test_a_notification_goes_to_the_sender_from_the_null_reverse_path(tmp_path: Path) -> None:
    reply, record, hop = asyncio.run(once(tmp_path, {}))
    assert reply.startswith("250 ")
    assert [line.partition(" SIZE")[0] for line in hop.commands if line[:4] in ("MAIL", "RCPT")] == [
        "MAIL FROM:<>",
        "RCPT TO:<pat@sender.example>",
    ]
    (message,) = hop.messages
    assert b"\r\nFinal-Recipient: rfc822; closed@example.com\r\n" in message
    assert told(record).detail == {
        "to": "pat@sender.example",
        "notification": message_from_bytes(message)["Message-ID"],
    }


FOR_NOW: dict[str, Mapping[str, Says]] = {
    "greeting": {"greeting": b"421 4.3.2 not now\r\n"},
    "refused sender": {"MAIL": b"451 4.3.0 not now\r\n"},
    "refused recipient": {TO_PAT: b"450 4.2.1 not now\r\n"},
    "end of data": {".": b"451 4.3.0 disk full\r\n"},
    "gone": {".": b""},
}


@pytest.mark.parametrize("says", FOR_NOW.values(), ids=FOR_NOW)
def test_a_next_hop_that_does_not_take_it_now_leaves_the_mail_at_its_sender(
    tmp_path: Path, says: Mapping[str, Says]
) -> None:
    reply, record, _ = asyncio.run(once(tmp_path, says))
    assert reply.startswith("451 4.3.0")
    assert told(record).outcome == "failed"
    assert [outcome for *_, outcome in ran(record)] == ["done"] * 3 + ["failed"]
    reply, record, hop = asyncio.run(once(tmp_path, {}))
    assert reply.startswith("250 ")
    assert [outcome for *_, outcome in ran(record)] == ["already done"] * 3 + ["done"]
    assert len(hop.messages) == 1
    reply, record, hop = asyncio.run(once(tmp_path, {}))
    assert reply.startswith("250 ")
    assert told(record).outcome == "already done"
    assert hop.sessions == []


def test_a_next_hop_that_cannot_be_reached_leaves_the_mail_at_its_sender(tmp_path: Path) -> None:
    async def story() -> None:
        async with next_hop() as hop:
            port = hop.port
        async with relaying(tmp_path, port) as mx:
            assert (await mx.reply(mail(), *BOTH)).startswith("451 4.3.0")

    asyncio.run(story())


def test_a_next_hop_that_is_too_slow_leaves_the_mail_at_its_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound.deliver, "PATIENCE", 0.3)
    reply, record, _ = asyncio.run(once(tmp_path, {"MAIL": None}, deadlines=Deadlines(deliver=0.3)))
    assert reply.startswith("451 4.3.0")
    assert told(record).detail["reason"] == "out of time"


@pytest.mark.parametrize("says", [{TO_PAT: b"550 5.1.1 no such user\r\n"}, {".": b"554 5.7.1 no bounces here\r\n"}])
def test_a_notification_that_the_next_hop_refuses_has_nobody_to_be_told_of_it(
    tmp_path: Path, says: Mapping[str, Says], caplog: pytest.LogCaptureFixture
) -> None:
    reply, record, _ = asyncio.run(once(tmp_path, says))
    assert reply.startswith("250 ")
    assert (told(record).outcome, told(record).detail["reason"]) == ("bounce suppressed", "next hop refused it")
    assert told(record).detail["next_hop"][:3] in ("550", "554")
    assert "next hop refused it" in caplog.text


class Mailbox:
    """A handler of aiosmtpd's that keeps what it is given."""

    def __init__(self) -> None:
        self.mail: list[Envelope] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        self.mail.append(envelope)
        return "250 2.0.0 ok"


@contextlib.asynccontextmanager
async def aiosmtpd(mailbox: Mailbox, *, smtputf8: bool = True) -> AsyncIterator[int]:
    """aiosmtpd's own server; its port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(mailbox, hostname="hop.example.net", enable_SMTPUTF8=smtputf8, loop=loop), "127.0.0.1", 0
    )
    async with server:
        port: int = server.sockets[0].getsockname()[1]
        yield port


@pytest.mark.parametrize(
    ("sender", "recipient", "needs"),
    [
        ("pat@sender.example", "bär@example.com", []),
        ("änne@sender.example", "closed@example.com", ["SMTPUTF8"]),
    ],
)
def test_addresses_in_utf_8_are_told_of_in_utf_8(tmp_path: Path, sender: str, recipient: str, needs: list[str]) -> None:
    mailbox = Mailbox()

    async def story() -> None:
        rules = RULES.replace("[closed@example.com]", f"[{recipient}]")
        async with (
            aiosmtpd(mailbox) as port,
            receiver(tmp_path, rules=rules, split_recipients=False, relay=Relay(host="127.0.0.1", port=port)) as mx,
            mx.connect() as session,
        ):
            await session.command("EHLO mx.sender.example")
            await session.command(f"MAIL FROM:<{sender}> BODY=8BITMIME SMTPUTF8")
            for who in ("open@example.com", recipient):
                assert (await session.command(f"RCPT TO:<{who}>")).code == 250
            await session.command("DATA")
            assert (await session.command(mail().decode() + "\r\n.")).code == 250

    asyncio.run(story())
    (envelope,) = mailbox.mail
    assert (envelope.mail_from, envelope.rcpt_tos) == ("<>", [sender])
    assert [option for option in envelope.mail_options if option == "SMTPUTF8"] == needs
    assert isinstance(envelope.content, bytes)
    assert f"\r\nTo: {sender}\r\n".encode() in envelope.content
    final = f"rfc822; {recipient}" if recipient.isascii() else f"utf-8; {recipient}"
    assert f"\r\nFinal-Recipient: {final}\r\n".encode() in envelope.content


def test_a_sender_in_utf_8_behind_a_next_hop_without_it_cannot_be_told(tmp_path: Path) -> None:
    says = {"EHLO": ehlo(b"8BITMIME", b"ENHANCEDSTATUSCODES")}

    async def story() -> None:
        async with next_hop(says) as hop, relaying(tmp_path, hop.port) as mx, mx.connect() as session:
            await session.command("EHLO mx.sender.example")
            await session.command("MAIL FROM:<änne@sender.example> SMTPUTF8")
            for who in BOTH:
                await session.command(f"RCPT TO:<{who}>")
            await session.command("DATA")
            assert (await session.command(mail().decode() + "\r\n.")).code == 250
            assert told(mx.record).detail["reason"] == "next hop refused it"

    asyncio.run(story())


def test_a_receiver_of_ours_takes_it_and_never_answers_it(tmp_path: Path) -> None:
    """The next hop is another receiver, whose own rules refuse the notification for somebody: it has no sender to tell."""

    (tmp_path / "hop").mkdir()

    async def story() -> None:
        async with receiver(
            tmp_path / "hop", rules=PATS, domains=("sender.example",), hostname="mx.sender.example"
        ) as hop:
            host, _, port = hop.address.rpartition(":")
            async with Proxied(host, int(port)) as proxied, relaying(tmp_path, proxied.port) as mx:
                assert (await mx.reply(mail(), *BOTH)).startswith("250 ")
                assert (hop.record.mail_from, hop.record.rcpt_to) == ("", ("pat@sender.example",))
                (stored,) = hop.objects("pat").values()
                assert b"\r\nAuto-Submitted: auto-replied\r\n" in stored

    asyncio.run(story())


PATS = """
rules:
  - name: pat
    recipients: [pat@sender.example]
    actions: [{s3: {bucket: pat}}]
"""


class Proxied:
    """A port in front of a listener that wants a PROXY header, which it writes for whoever comes."""

    def __init__(self, host: str, port: int) -> None:
        self._behind = (host, port)
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(*self._behind)
        forth.write(b"PROXY TCP4 192.0.2.20 192.0.2.21 1 25\r\n")

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while octets := await source.read(65_536):
                target.write(octets)
            target.close()

        await asyncio.gather(copy(reader, forth), copy(back, writer))


def test_a_worker_killed_while_the_next_hop_thinks_leaves_one_notification_to_the_next_try(tmp_path: Path) -> None:
    async def story() -> None:
        thinking = asyncio.Event()

        async def thinks(writer: asyncio.StreamWriter) -> None:
            if not thinking.is_set():
                thinking.set()
                await asyncio.sleep(3600)
            writer.write(b"250 2.1.5 ok\r\n")

        async with next_hop({TO_PAT: thinks}) as hop:
            settings = f"split_recipients: no\nrelay: {{host: 127.0.0.1, port: {hop.port}}}\n"
            async with served(tmp_path, rules=RULES, settings=settings, dns=HERE) as server:
                trying = asyncio.create_task(server.send_to(*BOTH))
                async with asyncio.timeout(10):
                    await thinking.wait()
                for worker in server.workers:
                    os.kill(worker, signal.SIGKILL)
                assert (await trying).code == 0
                await server.until_said("ended by SIGKILL", 2)
                await server.until_workers(2)
                for _ in range(2):
                    assert (await server.send_to(*BOTH)).code == 250, "".join(server.said)
                assert len(hop.messages) == 1
                assert len(list((tmp_path / "data" / "sns" / "mail").glob("*.json"))) == 1

    asyncio.run(story())
