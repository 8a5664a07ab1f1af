"""Messages are sent on to a next hop, whatever it does: who has it is known, or said to be unknown."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from inbound.clients import relay as relaying
from inbound.clients import smtp
from inbound.clients.hop import NOT_TRUSTED, OURSELVES, UNREACHABLE
from inbound.clients.reasons import TIMED_OUT
from inbound.clients.relay import DeferredError, Hop, NextHop, RefusedError, Relays
from inbound.errors import Failure, PermanentFailure, TemporaryFailure
from inbound.reply import Reply
from inbound.settings import Relay
from tests.next_hop import OFFERS, Says, Scripted, ehlo, next_hop

RAW = b"From: a@sender.example\r\nSubject: hello\r\n\r\n.a line with a dot\r\n..two\r\nend\r\n"


@contextlib.asynccontextmanager
async def relays(hop: Scripted | None, hostname: str = "mx.example.com", **more: Any) -> AsyncIterator[NextHop]:
    """The next hop of settings that lead there."""
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": hop.port if hop else 25,
        "command_seconds": 5.0,
        "seconds": 10.0,
    } | more
    async with Relays(Relay(**given), hostname=hostname) as all_hops:
        yield all_hops.to()


def sent(
    says: Mapping[str, Says] | None = None,
    raw: bytes = RAW,
    *rcpt_to: str,
    mail_from: str = "a@sender.example",
    smtputf8: bool = False,
    **more: Any,
) -> tuple[Mapping[str, Reply] | Failure, Scripted]:
    """What came of one message to a next hop that says so, and what that saw."""

    async def story() -> tuple[Mapping[str, Reply] | Failure, Scripted]:
        async with next_hop(says) as hop, relays(hop, **more) as relay:
            to = rcpt_to or ("b@example.net",)
            try:
                return await relay.send(raw, mail_from=mail_from, rcpt_to=to, smtputf8=smtputf8), hop
            except Failure as failure:
                return failure, hop

    return asyncio.run(story())


def test_a_message_is_sent_on_as_it_is() -> None:
    refusals, hop = sent(None, RAW, "b@example.net", "c@example.net")
    assert refusals == {}
    assert hop.commands == [
        "EHLO mx.example.com",
        f"MAIL FROM:<a@sender.example> SIZE={len(RAW)}",
        "RCPT TO:<b@example.net>",
        "RCPT TO:<c@example.net>",
        "DATA",
        "QUIT",
    ]
    assert hop.messages == [RAW.replace(b"\r\n.", b"\r\n..") + b".\r\n"]


def test_the_null_reverse_path_stays_null() -> None:
    _, hop = sent(mail_from="")
    assert hop.commands[1].startswith("MAIL FROM:<> ")


@pytest.mark.parametrize(
    ("raw", "wire"),
    [
        (b".", b"..\r\n.\r\n"),
        (b"a: b\r\n\r\nno end", b"a: b\r\n\r\nno end\r\n.\r\n"),
        (b"a: b\r\n\r\nx\n.\ny\r\rz\r\n", b"a: b\r\n\r\nx\r\n..\r\ny\r\n\r\nz\r\n.\r\n"),
        (b"a: b\r\n\r\n.\r\nMAIL FROM:<>\r\n", b"a: b\r\n\r\n..\r\nMAIL FROM:<>\r\n.\r\n"),
    ],
)
def test_no_content_ends_before_its_end(raw: bytes, wire: bytes) -> None:
    _, hop = sent(None, raw)
    assert hop.messages == [wire]


def test_who_was_refused_is_said_beside_who_was_not() -> None:
    refusals, hop = sent(
        {"RCPT c@example.net": b"550-5.1.1 no such\r\n550 5.1.1 user \xe4\r\n", "RCPT d@example.net": b"450 busy\r\n"},
        RAW,
        "b@example.net",
        "c@example.net",
        "d@example.net",
    )
    assert refusals == {
        "c@example.net": Reply(550, "5.1.1", "no such user ?"),
        "d@example.net": Reply(450, "4.0.0", "busy"),
    }
    assert len(hop.messages) == 1


@pytest.mark.parametrize(
    ("says", "kind", "replies"),
    [
        ({"RCPT": b"550 5.1.1 no\r\n"}, RefusedError, {"b@example.net": Reply(550, "5.1.1", "no")}),
        ({"RCPT": b"450 4.2.1 later\r\n"}, DeferredError, {"b@example.net": Reply(450, "4.2.1", "later")}),
        ({"MAIL": b"553 5.1.8 no\r\n"}, RefusedError, {"b@example.net": Reply(553, "5.1.8", "no")}),
        ({"DATA": b"554 5.6.0 no\r\n"}, RefusedError, {"b@example.net": Reply(554, "5.6.0", "no")}),
        ({".": b"554 5.7.1 spam\r\n"}, RefusedError, {"b@example.net": Reply(554, "5.7.1", "spam")}),
        ({".": b"451 4.3.0 disk\r\n"}, DeferredError, {"b@example.net": Reply(451, "4.3.0", "disk")}),
        ({".": b"554 4.3.0 of two minds\r\n"}, RefusedError, {"b@example.net": Reply(554, "5.0.0", "of two minds")}),
        ({".": b"554\r\n"}, RefusedError, {"b@example.net": Reply(554, "5.0.0", "no reason given")}),
    ],
)
def test_a_refusal_of_all_is_the_next_hops_own_word(
    says: Mapping[str, Says], kind: type[Failure], replies: Mapping[str, Reply]
) -> None:
    failure, hop = sent(says)
    assert type(failure) is kind
    assert getattr(failure, "replies", None) == replies
    assert hop.commands[-2:] == ["RSET", "QUIT"]


def test_a_refusal_for_now_of_one_makes_it_a_deferral_of_all_that_were_refused() -> None:
    failure, _ = sent(
        {"RCPT b@example.net": b"550 5.1.1 no\r\n", "RCPT": b"450 4.2.1 later\r\n"},
        RAW,
        "b@example.net",
        "c@example.net",
    )
    assert isinstance(failure, DeferredError)
    assert failure.replies == {
        "b@example.net": Reply(550, "5.1.1", "no"),
        "c@example.net": Reply(450, "4.2.1", "later"),
    }


async def _drip(writer: asyncio.StreamWriter) -> None:
    for _ in range(1000):
        writer.write(b"2")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _flood(writer: asyncio.StreamWriter) -> None:
    for _ in range(160):
        writer.write(b"250-" + b"x" * 65_530 + b"\r\n")
        await writer.drain()


async def _drip_lines(writer: asyncio.StreamWriter) -> None:
    for _ in range(300):
        writer.write(b"250-\r\n")
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(b"250 2.1.0 ok\r\n")


def test_a_reply_that_comes_line_by_line_is_a_reply() -> None:
    refusals, _ = sent({"MAIL": _drip_lines, ".": _drip_lines})
    assert refusals == {}


FAULTS: list[tuple[Mapping[str, Says], str]] = [
    ({"greeting": None}, TIMED_OUT),
    ({"greeting": b""}, UNREACHABLE),
    ({"greeting": b"554 5.7.1 go away\r\n"}, smtp.UNWILLING),
    ({"greeting": b"SSH-2.0-OpenSSH_9.2\r\n"}, smtp.NO_SMTP),
    ({"greeting": b"220 a\r\n220 b\r\n"}, smtp.NO_SMTP),
    ({"greeting": b"220-a\r\n 20-b\r\n"}, smtp.NO_SMTP),
    ({"greeting": b"220-a\r\n\r\n"}, smtp.NO_SMTP),
    ({"greeting": _flood}, smtp.NO_SMTP),
    ({"greeting": _drip}, TIMED_OUT),
    ({"EHLO": None}, TIMED_OUT),
    ({"EHLO": b""}, UNREACHABLE),
    ({"EHLO": b"421 4.3.2 too many\r\n"}, smtp.UNWILLING),
    ({"EHLO": b"554 5.7.1 no\r\n"}, smtp.UNWILLING),
    ({"EHLO": _flood}, smtp.NO_SMTP),
    ({"MAIL": None}, TIMED_OUT),
    ({"MAIL": b""}, smtp.LEFT),
    ({"MAIL": b"530 5.7.0 Must issue a STARTTLS command first\r\n"}, smtp.UNWILLING),
    ({"MAIL": b"250 2.1.0 ok\r\n550 5.1.1 and more\r\n"}, smtp.NO_SMTP),
    ({"MAIL": b"garbage\r\n"}, smtp.NO_SMTP),
    ({"MAIL": b"354 what\r\n"}, smtp.NO_SMTP),
    ({"RCPT": None}, TIMED_OUT),
    ({"RCPT": b""}, smtp.LEFT),
    ({"RCPT": _flood}, smtp.NO_SMTP),
    ({"DATA": None}, TIMED_OUT),
    ({"DATA": b""}, smtp.LEFT),
    ({"DATA": b"250 2.0.0 done already\r\n"}, smtp.NO_SMTP),
    ({"DATA": b"354 go on\r\n250 2.0.0 queued\r\n"}, smtp.NO_SMTP),
    ({".": None}, TIMED_OUT),
    ({".": b""}, smtp.LEFT),
    ({".": _flood}, smtp.NO_SMTP),
    ({".": _drip}, TIMED_OUT),
    ({".": b"999 fine\r\n"}, smtp.NO_SMTP),
]


@pytest.mark.parametrize(("says", "reason"), FAULTS)
def test_nothing_that_a_next_hop_does_wrong_is_taken_for_a_yes(says: Mapping[str, Says], reason: str) -> None:
    started = time.monotonic()
    failure, _ = sent(says, command_seconds=0.4, seconds=0.8)
    assert isinstance(failure, TemporaryFailure)
    assert failure.reason == reason
    assert time.monotonic() - started < 20


def test_a_next_hop_that_is_not_there_is_said_to_be_unreachable() -> None:
    async def story() -> str:
        async with next_hop() as hop:
            pass
        async with relays(hop) as relay:
            with pytest.raises(TemporaryFailure) as failed:
                await relay.send(RAW, mail_from="", rcpt_to=("b@example.net",))
            return failed.value.reason

    assert asyncio.run(story()) == UNREACHABLE


def test_a_next_hop_that_takes_no_octets_is_given_up() -> None:
    async def deaf(writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"354 go on\r\n")
        await asyncio.sleep(3600)

    raw = b"a: b\r\n\r\n" + b"x" * 78 + b"\r\n" * 10_000_000
    failure, _ = sent({"DATA": deaf, "EHLO": ehlo(b"8BITMIME")}, raw, command_seconds=0.5, seconds=5.0)
    assert isinstance(failure, TemporaryFailure)
    assert failure.reason == TIMED_OUT


def test_a_refusal_in_the_middle_of_the_content_counts() -> None:
    async def enough(writer: asyncio.StreamWriter) -> None:
        writer.write(b"354 go on\r\n")
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.write(b"552 5.3.4 too much\r\n")
        await writer.drain()
        await asyncio.sleep(0.2)

    raw = b"a: b\r\n\r\n" + (b"x" * 998 + b"\r\n") * 30_000
    failure, _ = sent({"DATA": enough, "EHLO": ehlo(b"8BITMIME")}, raw)
    assert isinstance(failure, RefusedError)
    assert failure.replies == {"b@example.net": Reply(552, "5.3.4", "too much")}


@pytest.mark.parametrize(
    ("offers", "raw", "rcpt", "smtputf8", "expected"),
    [
        (OFFERS[:2], "Subject: x\r\n\r\nGrüße\r\n", "b@example.net", False, smtp.NO_EIGHT_BIT),
        (OFFERS[:3], "Subject: x\r\n\r\nhi\r\n", "grüße@example.net", False, smtp.NO_UTF8_ADDRESS),
        (OFFERS[:3], "Subject: ü\r\n\r\nhi\r\n", "b@example.net", True, smtp.NO_UTF8_HEADER),
        ((b"SIZE 10",), "Subject: x\r\n\r\nhi\r\n", "b@example.net", False, Reply(552, "5.3.4", "-")),
    ],
)
def test_what_the_next_hop_cannot_take_is_not_tried(
    offers: tuple[bytes, ...], raw: str, rcpt: str, smtputf8: bool, expected: Reply
) -> None:
    failure, hop = sent({"EHLO": ehlo(*offers)}, raw.encode(), rcpt, smtputf8=smtputf8)
    assert isinstance(failure, RefusedError)
    assert [(reply.code, reply.enhanced) for reply in failure.replies.values()] == [(expected.code, expected.enhanced)]
    assert not [command for command in hop.commands if command.startswith("MAIL")]


@pytest.mark.parametrize(
    ("offers", "raw", "rcpt", "smtputf8", "parameters"),
    [
        (OFFERS, "Subject: x\r\n\r\nGrüße\r\n", "b@example.net", False, " SIZE=23 BODY=8BITMIME"),
        (OFFERS, "Subject: ü\r\n\r\nhi\r\n", "b@example.net", True, " SIZE=19 BODY=8BITMIME SMTPUTF8"),
        (OFFERS, "Subject: ü\r\n\r\nhi\r\n", "b@example.net", False, " SIZE=19 BODY=8BITMIME"),
        (OFFERS, "Subject: x\r\n\r\nhi\r\n", "b@example.net", True, " SIZE=18"),
        (OFFERS, "Subject: x\r\n\r\nhi\r\n", "grüße@example.net", False, " SIZE=18 SMTPUTF8"),
        (OFFERS[2:3], "Subject: x\r\n\r\nhi\r\n", "b@exämple.net", False, ""),
        ((b"SIZE 0",), "Subject: x\r\n\r\nhi\r\n", "b@example.net", False, " SIZE=18"),
        ((b"SIZE",), "Subject: x\r\n\r\nhi\r\n", "b@example.net", False, " SIZE=18"),
    ],
)
def test_mail_says_what_the_message_needs(
    offers: tuple[bytes, ...], raw: str, rcpt: str, smtputf8: bool, parameters: str
) -> None:
    refusals, hop = sent({"EHLO": ehlo(*offers)}, raw.encode(), rcpt, smtputf8=smtputf8)
    assert refusals == {}
    assert hop.commands[1] == f"MAIL FROM:<a@sender.example>{parameters}"


def test_domains_become_a_labels_on_the_wire() -> None:
    _, hop = sent(None, RAW, "b@exämple.net")
    assert hop.commands[2] == "RCPT TO:<b@xn--exmple-cua.net>"


def test_a_quoted_local_part_goes_out_as_it_is() -> None:
    refusals, hop = sent(None, RAW, r'"a b\"c"@example.net')
    assert refusals == {}
    assert hop.commands[2] == r'RCPT TO:<"a b\"c"@example.net>'


@pytest.mark.parametrize(
    "address",
    [
        "a b@example.net",
        "a>@example.net",
        '"a@example.net',
        "a@b@example.net",
        "a@example.net>\r\nRCPT TO:<c@example.net",
        "a\0@example.net",
    ],
)
def test_no_address_makes_a_command_of_its_own(address: str) -> None:
    failure, hop = sent(None, RAW, address)
    assert isinstance(failure, PermanentFailure)
    assert hop.commands == []


def test_a_server_without_esmtp_is_spoken_to_in_smtp() -> None:
    refusals, hop = sent({"EHLO": b"502 what\r\n", "HELO": b"250 hop\r\n"})
    assert refusals == {}
    assert hop.commands[:3] == ["EHLO mx.example.com", "HELO mx.example.com", "MAIL FROM:<a@sender.example>"]


def test_without_a_host_nothing_leaves() -> None:
    async def story() -> str:
        async with Relays(Relay(), hostname="mx.example.com") as hops:
            with pytest.raises(TemporaryFailure) as failed:
                await hops.to().send(RAW, mail_from="", rcpt_to=("b@example.net",))
            return failed.value.reason

    assert asyncio.run(story()) == relaying.NOT_SET


def test_a_session_is_used_again_and_closed_when_it_rests() -> None:
    async def story() -> tuple[list[list[str]], list[list[str]]]:
        async with next_hop() as hop, relays(hop, idle_seconds=0.3) as relay:
            for _ in range(3):
                await relay.send(RAW, mail_from="", rcpt_to=("b@example.net",))
            before = [list(session) for session in hop.sessions]
            async with asyncio.timeout(10):
                while hop.sessions[0][-1] != "QUIT":  # noqa: ASYNC110 - the server tells nobody
                    await asyncio.sleep(0.05)
            await relay.send(RAW, mail_from="", rcpt_to=("b@example.net",))
            return before, hop.sessions

    before, after = asyncio.run(story())
    assert [session.count("DATA") for session in before] == [3]
    assert [session.count("DATA") for session in after] == [3, 1]


@pytest.mark.parametrize("farewell", [b"", b"421 4.4.2 idle for too long\r\n"])
def test_a_session_that_was_closed_meanwhile_is_replaced(farewell: bytes) -> None:
    async def story() -> list[int]:
        spoken = 0

        async def first_only(writer: asyncio.StreamWriter) -> None:
            nonlocal spoken
            spoken += 1
            if spoken == 2:
                writer.write(farewell)
                await writer.drain()
                writer.transport.abort() if not farewell else writer.close()
            else:
                writer.write(b"250 2.1.0 ok\r\n")

        async with next_hop({"MAIL": first_only}) as hop, relays(hop) as relay:
            for _ in range(2):
                assert await relay.send(RAW, mail_from="", rcpt_to=("b@example.net",)) == {}
            return [session.count("DATA") for session in hop.sessions]

    assert asyncio.run(story()) == [1, 1]


def test_there_are_never_more_sessions_than_allowed_and_who_waits_too_long_is_told() -> None:
    async def story() -> tuple[int, list[str]]:
        async def slowly(writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.8)
            writer.write(b"250 2.0.0 ok\r\n")

        async with next_hop({".": slowly}) as hop, relays(hop, connections=2, command_seconds=0.4) as relay:
            sending = [relay.send(RAW, mail_from="", rcpt_to=(f"{n}@example.net",)) for n in range(4)]
            found = await asyncio.gather(*sending, return_exceptions=True)
            return len(hop.sessions), [one.reason for one in found if isinstance(one, Failure)]

    assert asyncio.run(story()) == (2, [relaying.BUSY, relaying.BUSY])


def context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(made)
    return made


WITH_TLS = ehlo(*OFFERS, b"STARTTLS", b"AUTH LOGIN PLAIN")


@pytest.mark.parametrize(
    ("policy", "offered", "name", "expected"),
    [
        ("none", True, "localhost", "in clear"),
        ("opportunistic", False, "localhost", "in clear"),
        ("opportunistic", True, "elsewhere.example", "TLS"),
        ("require", True, "elsewhere.example", "TLS"),
        ("require", False, "localhost", smtp.NO_TLS),
        ("verify", True, "localhost", "TLS"),
        ("verify", False, "localhost", smtp.NO_TLS),
        ("verify", True, "elsewhere.example", NOT_TRUSTED),
        ("implicit", True, "localhost", "TLS"),
        ("implicit", True, "elsewhere.example", NOT_TRUSTED),
    ],
)
def test_the_tls_policy_is_kept(
    policy: str, offered: bool, name: str, expected: str, authority: trustme.CA, ca_file: Path
) -> None:
    async def story() -> tuple[str, Scripted]:
        says = {"EHLO": WITH_TLS} if offered else {}
        async with (
            next_hop(says, tls=context(authority, name), implicit=policy == "implicit") as hop,
            relays(hop, tls=policy, host="localhost", ca_file=ca_file) as relay,
        ):
            try:
                await relay.send(RAW, mail_from="", rcpt_to=("b@example.net",))
            except TemporaryFailure as failure:
                return failure.reason, hop
            secure = policy == "implicit" or "STARTTLS" in hop.commands
            return ("TLS" if secure else "in clear"), hop

    found, hop = asyncio.run(story())
    assert found == expected
    assert bool(hop.messages) == (expected in ("TLS", "in clear"))


def test_an_authority_that_nobody_named_is_not_trusted(authority: trustme.CA) -> None:
    async def story() -> str:
        async with (
            next_hop({"EHLO": WITH_TLS}, tls=context(authority, "localhost")) as hop,
            relays(hop, tls="verify", host="localhost") as relay,
        ):
            with pytest.raises(TemporaryFailure) as failed:
                await relay.send(RAW, mail_from="", rcpt_to=("b@example.net",))
            return failed.value.reason

    assert asyncio.run(story()) == NOT_TRUSTED


@pytest.mark.parametrize("says", [b"454 4.7.0 not now\r\n", b"", b"220 2.0.0 begin\r\nno TLS at all\r\n"])
def test_optional_tls_that_fails_is_left(says: bytes) -> None:
    refusals, hop = sent({"EHLO": ehlo(*OFFERS, b"STARTTLS"), "STARTTLS": says}, command_seconds=1.0)
    assert refusals == {}
    assert [session[1][:8] for session in hop.sessions] == ["STARTTLS", "MAIL FRO"]


def test_what_comes_in_clear_behind_starttls_is_not_believed(authority: trustme.CA) -> None:
    injected = b"220 2.0.0 begin\r\n250 2.1.0 injected\r\n"

    async def story() -> str:
        async with (
            next_hop({"EHLO": WITH_TLS, "STARTTLS": injected}, tls=context(authority, "localhost")) as hop,
            relays(hop, tls="require", host="localhost", command_seconds=0.5) as relay,
        ):
            with pytest.raises(TemporaryFailure) as failed:
                await relay.send(RAW, mail_from="", rcpt_to=("b@example.net",))
            assert hop.messages == []
            return failed.value.reason

    assert asyncio.run(story()) in (smtp.NO_SMTP, UNREACHABLE, smtp.LEFT, TIMED_OUT)


def logged_in(authority: trustme.CA, ca_file: Path, says: Mapping[str, Says], **more: Any) -> tuple[str, list[str]]:
    async def story() -> tuple[str, list[str]]:
        given: dict[str, Any] = {
            "tls": "verify",
            "host": "localhost",
            "ca_file": ca_file,
            "user": "ann",
            "password": "s3cret",
        } | more
        async with next_hop({"EHLO": WITH_TLS} | dict(says), tls=context(authority, "localhost")) as hop:
            async with relays(hop, **given) as relay:
                try:
                    await relay.send(RAW, mail_from="", rcpt_to=("b@example.net",))
                except Failure as failure:
                    return str(failure), hop.commands
            return "sent", hop.commands

    return asyncio.run(story())


def test_the_password_is_told_inside_of_tls(authority: trustme.CA, ca_file: Path) -> None:
    said, commands = logged_in(authority, ca_file, {})
    assert said == "sent"
    assert commands[:4] == [
        "EHLO mx.example.com",
        "STARTTLS",
        "EHLO mx.example.com",
        "AUTH PLAIN AGFubgBzM2NyZXQ=",
    ]


def test_auth_login_is_spoken_where_there_is_no_plain(authority: trustme.CA, ca_file: Path) -> None:
    said, commands = logged_in(
        authority,
        ca_file,
        {
            "EHLO": ehlo(b"STARTTLS", b"AUTH LOGIN"),
            "AUTH": b"334 UGFzc3dvcmQ6\r\n",
            "czNjcmV0": b"235 2.7.0 welcome\r\n",
        },
    )
    assert said == "sent"
    assert commands[3:5] == ["AUTH LOGIN YW5u", "czNjcmV0"]


def test_a_password_that_is_refused_or_repeated_is_told_nowhere(
    authority: trustme.CA, ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    said, _ = logged_in(authority, ca_file, {"AUTH": b"535 5.7.8 not AGFubgBzM2NyZXQ= (s3cret)\r\n"})
    assert said == f"{smtp.NO_AUTH}: localhost:{said.rpartition(':')[2].split()[0]} answers AUTH with 535"
    assert "s3cret" not in caplog.text
    assert "AGFubgBzM2NyZXQ=" not in caplog.text


def test_the_password_is_read_from_a_file_each_time(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    said, commands = logged_in(authority, ca_file, {}, password="", password_file=tmp_path / "password")
    assert (said, commands[3]) == ("sent", "AUTH PLAIN AGFubgBzM2NyZXQ=")
    (tmp_path / "password").unlink()
    said, _ = logged_in(authority, ca_file, {}, password="", password_file=tmp_path / "password")
    assert said.startswith(smtp.NO_PASSWORD)


def test_a_next_hop_is_shown_without_its_password() -> None:
    settings = Relay(host="localhost", tls="verify", user="ann", password="s3cret")
    assert "s3cret" not in repr((settings, relaying.hop_of(settings)))


@pytest.mark.parametrize(
    "listening", [("127.0.0.1", 0), ("", 0), ("0.0.0.0", 0)], ids=["the address", "every address", "0.0.0.0"]
)
def test_nothing_is_sent_to_where_we_listen(listening: tuple[str, int]) -> None:
    async def story() -> tuple[str, Scripted]:
        async with next_hop() as hop:
            given = Relay(host="127.0.0.1", port=hop.port)
            here = frozenset({(listening[0], hop.port)})
            async with Relays(given, hostname="mx.example.com", listening=here) as hops:
                with pytest.raises(PermanentFailure) as failed:
                    await hops.to().send(RAW, mail_from="", rcpt_to=("b@example.net",))
            return failed.value.reason, hop

    reason, hop = asyncio.run(story())
    assert (reason, hop.commands) == (OURSELVES, [])


def test_another_server_on_this_machine_may_have_our_name() -> None:
    async def story() -> Mapping[str, Reply]:
        async with next_hop({"EHLO": ehlo(*OFFERS, name=b"mx.example.com")}) as hop:
            here = frozenset({("192.0.2.1", hop.port)})
            async with Relays(
                Relay(host="127.0.0.1", port=hop.port), hostname="mx.example.com", listening=here
            ) as hops:
                return await hops.to().send(RAW, mail_from="", rcpt_to=("b@example.net",))

    assert asyncio.run(story()) == {}


@pytest.mark.parametrize(
    ("name", "port", "us"),
    [
        ("mx.example.com", 25, True),
        ("MX.example.com.", 25, True),
        ("mx.example.com", 2525, True),
        ("mx.example.com", 587, False),
        ("other.example.com", 25, False),
        ("", 25, False),
    ],
)
def test_who_answers_with_our_name_where_mail_comes_in_is_us(name: str, port: int, us: bool) -> None:
    ourselves = relaying.Ourselves(hostname="mx.example.com", listening=frozenset({("", 2525)}))
    assert ourselves.goes_by(name, port) is us


def test_localhost_is_everybodys_name() -> None:
    assert relaying.Ourselves(hostname="localhost").goes_by("localhost", 25) is False


def test_each_next_hop_has_one_pool() -> None:
    async def story() -> bool:
        async with Relays(Relay(), hostname="mx.example.com") as hops:
            hop = Hop(host="a.example")
            return hops.to(hop) is hops.to(replace(hop)) and hops.to(hop) is not hops.to(Hop(host="b.example"))

    assert asyncio.run(story())
