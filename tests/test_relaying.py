"""Mail is handed on to a next hop while its sender waits, and the sender is told what became of it."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inbound.actions.kinds import ACTIONS
from inbound.app import means_of, rules_of
from inbound.clients.hop import OURSELVES
from inbound.errors import ConfigurationError
from inbound.record import Record
from inbound.ruleset import loaded
from inbound.settings import Relay, Settings, load
from inbound.srs import EXPIRED, FORGED
from tests.harness import Receiver, mail, receiver
from tests.next_hop import OFFERS, Says, Scripted, ehlo, next_hop
from tests.servers import free_port
from tests.test_cli import inbound

RULES = """
rules:
  - name: onward
    recipients: [example.com]
    actions:
      - relay: {}
"""


def rules(*actions: str) -> str:
    return "rules:\n  - name: onward\n    recipients: [example.com]\n    actions:\n" + "".join(
        f"      - {action}\n" for action in actions
    )


@contextlib.asynccontextmanager
async def between(
    directory: Path, hop: Scripted, text: str = RULES, *, relay: Mapping[str, Any] | None = None, **more: Any
) -> AsyncIterator[Receiver]:
    """A receiver in front of that next hop."""
    given = Relay(host="127.0.0.1", port=hop.port, **(relay or {}))
    async with receiver(directory, rules=text, relay=given, **more) as mx:
        yield mx


def answered(
    directory: Path, says: Mapping[str, Says] | None = None, text: str = RULES, *to: str, **more: Any
) -> tuple[str, Scripted, list[str]]:
    """The sender's reply to one message, what the next hop saw, and the outcomes of the actions."""

    async def story() -> tuple[str, Scripted, list[str]]:
        raw = more.pop("raw", mail())
        sender = more.pop("mail_from", "pat@sender.example")
        async with next_hop(says) as hop, between(directory, hop, text, **more) as mx:
            reply = await mx.reply(raw, *(to or ("support@example.com",)), mail_from=sender)
            return reply, hop, [ran.outcome for ran in mx.record.ran]

    return asyncio.run(story())


def sent_to(hop: Scripted) -> list[str]:
    """Who the next hop was asked to take messages for, in the end."""
    return [line for line in hop.commands if line.startswith("RCPT")]


def test_the_message_goes_on_as_it_is_under_our_header_block(tmp_path: Path) -> None:
    raw = mail("Hello\r\n.\r\n..and more\r\n")
    reply, hop, outcomes = answered(tmp_path, raw=raw)
    assert reply.startswith("250 2.0.0 OK")
    assert outcomes == ["done"]
    content = hop.messages[0].removesuffix(b".\r\n").replace(b"\r\n.", b"\r\n")
    assert content.endswith(raw)
    block = content.removesuffix(raw)
    names = [line.partition(b":")[0] for line in block.split(b"\r\n") if line[:1] not in (b" ", b"\t", b"")]
    assert names == [
        b"Received",
        b"X-SES-Spam-Verdict",
        b"X-SES-Virus-Verdict",
        b"Received-SPF",
        b"Authentication-Results",
        b"X-SES-RECEIPT",
    ]
    assert hop.commands[1].startswith("MAIL FROM:<pat@sender.example>")
    assert hop.commands[2] == "RCPT TO:<support@example.com>"


@pytest.mark.parametrize(
    ("mail_from", "sender", "expected"),
    [
        ("keep", "pat@sender.example", "<pat@sender.example>"),
        ("keep", "", "<>"),
        ("null", "pat@sender.example", "<>"),
        ("list@example.com", "pat@sender.example", "<list@example.com>"),
        ("list@example.com", "", "<>"),
        ("srs", "", "<>"),
        ("srs", "ann@example.com", "<ann@example.com>"),
    ],
)
def test_the_sender_is_the_one_that_the_rule_says_and_null_stays_null(
    mail_from: str, sender: str, expected: str, tmp_path: Path
) -> None:
    text = rules(f"relay: {{mail_from: {mail_from}}}")
    _, hop, _ = answered(tmp_path, None, text, mail_from=sender, relay={"srs_domain": "example.com"})
    assert hop.commands[1].split()[1] == f"FROM:{expected}"


def test_a_rule_may_name_another_next_hop_and_other_recipients(tmp_path: Path) -> None:
    async def story() -> tuple[list[str], list[str]]:
        async with next_hop() as one, next_hop() as other:
            text = rules(f"relay: {{host: 127.0.0.1, port: {other.port}, to: [a@inside.example, b@inside.example]}}")
            async with between(tmp_path, one, text) as mx:
                assert (await mx.reply(mail())).startswith("250")
            return sent_to(one), sent_to(other)

    assert asyncio.run(story()) == ([], ["RCPT TO:<a@inside.example>", "RCPT TO:<b@inside.example>"])


@pytest.mark.parametrize(
    ("says", "reply"),
    [
        ({"RCPT": b"550 5.1.1 no such user\r\n"}, "550 5.1.1 no such user"),
        ({".": b"554 5.7.1 we do not like it\r\n"}, "554 5.7.1 we do not like it"),
        ({"EHLO": ehlo(b"SIZE 100")}, "552 5.3.4 The next server takes messages of 100 octets at most"),
        ({"RCPT": b"450 4.2.1 later\r\n"}, "451 4.3.0"),
        ({"greeting": b"554 5.7.1 you are listed\r\n"}, "451 4.3.0"),
        ({".": b""}, "451 4.3.0"),
    ],
)
def test_the_sender_is_told_what_the_next_hop_said(says: Mapping[str, Says], reply: str, tmp_path: Path) -> None:
    assert answered(tmp_path, says)[0].startswith(reply)


def again_and_again(
    directory: Path, scripts: list[Mapping[str, Says]], text: str, *to: str, **more: Any
) -> list[tuple[str, list[str]]]:
    """One message, tried once for each script, each time by a new process; what was answered, and who was asked for."""
    found = []
    for script in scripts:
        reply, hop, _ = answered(directory, script, text, *to, **more)
        found.append((reply.split(" OK")[0][:9], [line[9:-1] for line in sent_to(hop)]))
    return found


A, B, C = "a@example.com", "b@example.com", "c@example.com"


def test_who_has_it_is_not_sent_it_again_when_another_must_wait(tmp_path: Path) -> None:
    later: Mapping[str, Says] = {f"RCPT {B}": b"450 4.2.2 full\r\n"}
    assert again_and_again(tmp_path, [later, later, {}, {}], RULES, A, B) == [
        ("451 4.3.0", [A, B]),
        ("451 4.3.0", [B]),
        ("250 2.0.0", [B]),
        ("250 2.0.0", []),
    ]


def test_a_sender_that_missed_our_answer_does_not_make_it_come_twice(tmp_path: Path) -> None:
    assert again_and_again(tmp_path, [{}, {}], RULES, A) == [("250 2.0.0", [A]), ("250 2.0.0", [])]


def test_what_was_refused_is_asked_again(tmp_path: Path) -> None:
    assert again_and_again(tmp_path, [{"RCPT": b"550 5.1.1 no\r\n"}, {}], RULES, A) == [
        ("550 5.1.1", [A]),
        ("250 2.0.0", [A]),
    ]


def test_recipients_of_the_rules_own_are_each_given_it_once(tmp_path: Path) -> None:
    text = rules("relay: {to: [x@in.example, y@in.example]}")
    refused: Mapping[str, Says] = {"RCPT y@in.example": b"550 5.1.1 no\r\n"}
    assert again_and_again(tmp_path, [refused, refused, {}], text, A) == [
        ("451 4.3.0", ["x@in.example", "y@in.example"]),
        ("451 4.3.0", ["y@in.example"]),
        ("250 2.0.0", ["y@in.example"]),
    ]


def test_when_all_of_the_rules_own_are_refused_so_is_the_message(tmp_path: Path) -> None:
    text = rules("relay: {to: [x@in.example, y@in.example]}")
    reply, _, _ = answered(tmp_path, {"RCPT": b"551 5.1.6 moved\r\n"}, text)
    assert reply == "551 5.1.6 moved"


def test_a_relay_that_may_fail_leaves_the_rest_of_the_rule(tmp_path: Path) -> None:
    async def story() -> tuple[str, int, list[str]]:
        text = rules("relay: {on_failure: continue}", "s3: {bucket: kept}")
        async with next_hop({"RCPT": b"550 5.1.1 no\r\n"}) as hop, between(tmp_path, hop, text) as mx:
            reply = await mx.reply(mail())
            return reply, len(mx.objects("kept")), [ran.outcome for ran in mx.record.ran]

    reply, kept, outcomes = asyncio.run(story())
    assert (reply[:3], kept, outcomes) == ("250", 1, ["partly done", "done"])


def test_whom_the_next_hop_refused_has_no_part_in_what_comes_after(tmp_path: Path) -> None:
    text = rules("relay: {}", "s3: {bucket: kept}")

    async def story() -> dict[str, bytes]:
        async with next_hop({"RCPT": b"550 5.1.1 no\r\n"}) as hop, between(tmp_path, hop, text) as mx:
            assert (await mx.reply(mail())).startswith("550")
            return mx.objects("kept")

    assert asyncio.run(story()) == {}


def test_a_topic_is_told_and_one_that_cannot_be_makes_nothing_come_twice(tmp_path: Path) -> None:
    topic = "arn:aws:sns:us-east-1:000000000000:onward"
    text = rules(f"relay: {{topic_arn: '{topic}'}}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sns").write_text("in the way")
    assert again_and_again(tmp_path, [{}], text, A) == [("451 4.3.0", [A])]
    (tmp_path / "data" / "sns").unlink()

    async def story() -> tuple[str, list[str], list[Any]]:
        async with next_hop() as hop, between(tmp_path, hop, text) as mx:
            return await mx.reply(mail(), A), sent_to(hop), mx.notifications("onward")

    reply, asked, told = asyncio.run(story())
    assert (reply[:3], asked) == ("250", [])
    assert [one["receipt"]["action"]["type"] for one in told] == ["Relay"]


def test_a_message_on_a_long_way_is_refused(tmp_path: Path) -> None:
    raw = b"Received: from a by b; now\r\n" * 51 + mail()
    assert answered(tmp_path, raw=raw)[0].startswith("554 5.4.6")
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "ledger.sqlite")) as ledger:
        assert ledger.execute("SELECT COUNT(*) FROM done").fetchone() == (0,)  # a retry is told the same
    assert answered(tmp_path, raw=raw.partition(b"\r\n")[2])[0].startswith("250")


@pytest.mark.parametrize(("times", "reply"), [(2, "250 2.0.0"), (3, "554 5.4.6")])
def test_a_message_that_was_here_too_often_is_refused(times: int, reply: str, tmp_path: Path) -> None:
    ours = b"Received: from x (unknown [192.0.2.1])\r\n by MX.example.com with ESMTP id 1;\r\n now\r\n"
    assert answered(tmp_path, raw=ours * times + mail())[0].startswith(reply)


def test_two_receivers_that_relay_to_each_other_end_it(tmp_path: Path) -> None:
    async def story() -> tuple[str, int]:
        first, second = free_port(), free_port()
        async with contextlib.AsyncExitStack() as both:
            running = []
            for name, port, there in (("one", first, second), ("two", second, first)):
                (tmp_path / name).mkdir()
                mx = await both.enter_async_context(
                    receiver(
                        tmp_path / name,
                        rules=RULES,
                        plain_port=port,
                        hostname=f"{name}.example.com",
                        relay=Relay(host="127.0.0.1", port=there),
                    )
                )
                running.append(mx)
            reply = await running[0].reply(mail())
            notes = sum(len(mx.notes) for mx in running)
        return reply, notes

    reply, notes = asyncio.run(story())
    assert reply.startswith("554 5.4.6 Routing loop")
    assert notes == 7


def test_mail_is_not_relayed_to_where_we_listen(tmp_path: Path) -> None:
    async def story() -> tuple[str, str]:
        port = free_port()
        relay = Relay(host="localhost", port=port)
        listen = (f"127.0.0.1:{port}",)
        async with receiver(tmp_path, rules=RULES, plain_port=port, relay=relay, listen=listen) as mx:
            reply = await mx.reply(mail())
            return reply, mx.record.ran[0].detail["reason"]

    reply, reason = asyncio.run(story())
    assert (reply[:9], reason) == ("451 4.3.0", OURSELVES)


SRS = {"srs_domain": "srs.example.com"}
DOMAINS = ("example.com", "srs.example.com")


def test_a_bounce_finds_back_to_a_rewritten_sender(tmp_path: Path) -> None:
    async def story() -> tuple[str, list[str], list[str]]:
        text = rules("relay: {mail_from: srs}")
        async with next_hop() as hop, between(tmp_path, hop, text, relay=SRS, domains=DOMAINS) as mx:
            assert (await mx.reply(mail(), A)).startswith("250")
            rewritten = hop.commands[1].split()[1].removeprefix("FROM:<").removesuffix(">")
            assert rewritten.startswith("SRS0=")
            assert rewritten.endswith("=sender.example=pat@srs.example.com")
            bounce = mail("It could not be delivered\r\n", Subject="Undelivered")
            reply = await mx.reply(bounce, rewritten.lower(), mail_from="", helo="mx.sender.example")
            answer = mail("I am on holiday\r\n", Subject="Away", From="b@elsewhere.example")
            await mx.reply(answer, rewritten, mail_from="b@elsewhere.example")
            return reply, [line for line in hop.commands if line.startswith("MAIL")], sent_to(hop)

    reply, senders, recipients = asyncio.run(story())
    assert reply.startswith("250")
    assert senders[1].split()[1] == "FROM:<>"
    assert "=elsewhere.example=b@srs.example.com>" in senders[2]
    assert recipients == [f"RCPT TO:<{A}>", "RCPT TO:<pat@sender.example>", "RCPT TO:<pat@sender.example>"]


def test_forged_and_old_srs_addresses_are_refused_at_rcpt(tmp_path: Path) -> None:
    async def story() -> tuple[str, str, str, list[str], list[str]]:
        text = rules("relay: {mail_from: srs}")
        async with next_hop() as hop, between(tmp_path, hop, text, relay=SRS, domains=DOMAINS) as mx:
            assert mx.app.srs is not None
            forged = await mx.reply(mail(), "SRS0=AAAAAA=TT=sender.example=pat@srs.example.com", mail_from="")
            good = mx.app.srs.forward("pat@sender.example")
            mx.app.srs._now = lambda: 1.0
            old = await mx.reply(mail(), good, mail_from="")
            other = await mx.reply(mail(), "support@srs.example.com", mail_from="")
            reasons = [note.reply.reason for note in mx.notes if hasattr(note, "reply")]
            return forged, old, other, reasons, hop.commands

    forged, old, other, reasons, commands = asyncio.run(story())
    assert forged.startswith("550 5.1.1 This return address is not valid here")
    assert old.startswith("550 5.1.1 This return address is not valid here")
    assert other.startswith("550 5.1.1 No such recipient")
    assert reasons == [FORGED, EXPIRED, "no such recipient"]
    assert commands == []


def test_nothing_is_delivered_with_srs_addresses_that_the_receiver_would_not_know(tmp_path: Path) -> None:
    relay = Relay(host="in.example", srs_domain="example.com")
    elsewhere = Settings(data_dir=tmp_path / "data", domains=("example.com",), relay=relay)

    async def story() -> str:
        async with means_of(replace(elsewhere, secret="of this installation")) as means:
            assert means.cloud.relays.srs is not None
            rewritten = means.cloud.relays.srs.forward("pat@sender.example")
        with pytest.raises(ConfigurationError, match="has no secret yet"):
            async with means_of(elsewhere):
                pass
        return rewritten

    assert asyncio.run(story()).endswith("=sender.example=pat@example.com")


def test_the_command_says_whose_an_srs_address_is(tmp_path: Path) -> None:
    given = {
        "INBOUND_RELAY": "{host: 127.0.0.1, srs_domain: srs.example.com}",
        "INBOUND_DOMAINS": "[example.com, srs.example.com]",
    }
    none = inbound("srs", "pat@sender.example", cwd=tmp_path, stdin=b"", **given)
    assert (none.returncode, b"has no secret yet" in none.stderr) == (2, True)
    given["INBOUND_SECRET"] = "of this installation"
    rewritten = inbound("srs", "pat@sender.example", cwd=tmp_path, stdin=b"", **given).stdout.decode().strip()
    assert rewritten.endswith("=sender.example=pat@srs.example.com")
    found = inbound("srs", rewritten, f"SRS0=x{rewritten[5:]}", cwd=tmp_path, stdin=b"", **given)
    assert (found.returncode, found.stdout) == (1, b"pat@sender.example\n")
    assert FORGED.encode() in found.stderr


def test_the_sender_is_told_of_one_that_the_next_hop_refuses_while_it_takes_another(tmp_path: Path) -> None:
    says: Mapping[str, Says] = {f"RCPT {B}": b"550 5.1.1 no such user\r\n"}

    async def story() -> tuple[list[str], list[list[str]], list[str], bytes]:
        async with next_hop(says) as hop, between(tmp_path, hop) as mx:
            replies = [await mx.reply(mail(), A, B) for _ in range(2)]  # as if the first answer had been lost
            outcomes = [[ran.outcome for ran in note.ran] for note in mx.notes if isinstance(note, Record)]
            return replies, outcomes, sent_to(hop), hop.messages[1]

    replies, outcomes, asked, told = asyncio.run(story())
    assert [reply[:9] for reply in replies] == ["250 2.0.0"] * 2
    assert outcomes == [["partly done", "done"], ["partly done", "already done"]]
    assert asked == [f"RCPT TO:<{A}>", f"RCPT TO:<{B}>", "RCPT TO:<pat@sender.example>", f"RCPT TO:<{B}>"]
    assert b"550 5.1.1 no such user" in told


@pytest.mark.parametrize(
    ("action", "settings", "said"),
    [
        ("relay: {}", {}, "rules.yaml:2:11: rule 'onward' relays to nowhere"),
        (
            "relay: {host: in.example, mail_from: srs}",
            {},
            "rule 'onward' says srs, and the settings have no relay.srs_domain",
        ),
        ("relay: {host: in.example, to: srs}", {}, "rule 'onward' says srs"),
    ],
)
def test_a_rule_that_the_settings_make_impossible_is_not_taken(
    action: str, settings: Mapping[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / "rules.yaml").write_text(rules(action))
    with pytest.raises(ConfigurationError) as refused:
        rules_of(Settings(rules=tmp_path / "rules.yaml", **settings))
    assert said in str(refused.value)


def test_no_rule_has_the_name_of_the_one_that_hands_returns_on(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rules("relay: {host: in.example}").replace("onward", "srs-returns"))
    settings = Settings(rules=tmp_path / "rules.yaml", domains=("example.com",))
    assert [rule.name for rule in rules_of(settings).rules] == ["srs-returns"]
    relay = Relay(host="in.example", srs_domain="example.com")
    with pytest.raises(ConfigurationError, match=r"rules\.yaml:2:11: 'srs-returns' is the rule of relay\.srs_domain"):
        rules_of(replace(settings, relay=relay))


def test_a_rule_waits_for_a_next_hop_as_long_as_the_settings_say() -> None:
    (relay,) = loaded(rules("relay: {host: in.example}"), ACTIONS).rules[0].actions
    with pytest.raises(ConfigurationError, match="less than or equal to 3600"):
        load(None, {"INBOUND_RELAY__SECONDS": "3601"})
    assert load(None, {"INBOUND_RELAY__SECONDS": "3600"}).relay.seconds < relay.patience


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("{port: 26}", "belongs to a host, which is missing"),
        ("{host: a b}", "'a b' is no host name and no IP address"),
        ("{host: a.example, user: u, password_env: P}", "tls must be require, verify or implicit"),
        ("{host: a.example, user: u, tls: verify}", "belong together"),
        ("{host: a.example, password_env: P, tls: verify}", "belong together"),
        ("{host: a.example, user: u, password_file: p, tls: verify}", "absolute paths"),
        ("{host: a.example, mail_from: whoever}", "expected keep, srs, null or an address, found 'whoever'"),
        ("{host: a.example, to: [in.example]}", "'in.example' is no address"),
        ("{host: a.example, to: []}", "at least 1"),
        ("{host: a.example, tls: yes}", "expected 'none', 'opportunistic', 'require', 'verify' or 'implicit'"),
        ("{hots: a.example}", "unknown key 'hots', did you mean 'host'?"),
    ],
)
def test_a_mistake_in_the_action_is_told_at_its_place(keys: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(rules(f"relay: {keys}"), ACTIONS)
    assert said in str(refused.value)
    assert str(refused.value).startswith("rules.yaml:5:")


def test_smtputf8_is_asked_for_when_the_message_came_with_it(tmp_path: Path) -> None:
    async def story() -> list[str]:
        async with next_hop() as hop, between(tmp_path, hop) as mx, mx.connect() as client:
            raw = mail().replace(b"An order", "Größe".encode())
            await client.command("EHLO mx.sender.example")
            await client.command("MAIL FROM:<jörg@sender.example> SMTPUTF8")
            await client.command("RCPT TO:<support@example.com>")
            await client.command("DATA")
            await client.command(raw.decode() + ".")
            return hop.commands

    assert asyncio.run(story())[1].endswith(" BODY=8BITMIME SMTPUTF8")


def test_a_next_hop_without_smtputf8_makes_the_sender_hear_of_it(tmp_path: Path) -> None:
    reply, _, _ = answered(tmp_path, {"EHLO": ehlo(*OFFERS[:3])}, RULES, mail_from="jörg@sender.example")
    assert reply.startswith("553 5.6.7")
