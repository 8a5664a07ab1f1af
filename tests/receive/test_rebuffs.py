"""What the edge refuses by itself is told to the operator, with a reason that stays the same."""

import importlib
import io
import json
import pkgutil
from dataclasses import replace
from typing import Any

import pytest

import inbound
from inbound.journal import Journal
from inbound.receive import Rebuff
from inbound.receive.replies import BYE, TOO_MANY_ERRORS, UNKNOWN
from inbound.reply import Reply
from inbound.settings import Limits
from tests.receive.talk import FakeDoor, run, served, talking, transcript, until

NO_PAUSE = Limits(tarpit_seconds=0.0)
REFUSED_WITHIN = """
< 220 mx.test ESMTP
> HELO client.test
< 250 mx.test
"""


def told(door: FakeDoor) -> list[tuple[str, int, str]]:
    return [(rebuff.command, rebuff.reply.code, rebuff.reply.reason) for rebuff in door.rebuffs]


COMMANDS = [
    ("NONSENSE", "500 5.5.1 unknown command", ("?", 500, "unknown command")),
    ("AUTH PLAIN AGEAYg==", "502 5.5.1 this command is not offered here", ("AUTH", 502, "command not offered")),
    ("EXPN all", "502 5.5.1 this command is not offered here", ("EXPN", 502, "command not offered")),
    ("DATA", "503 5.5.1 MAIL FROM first", ("DATA", 503, "out of sequence")),
    ("STARTTLS", "502 5.5.1 TLS is not offered here", ("STARTTLS", 502, "command not offered")),
    ("MAIL FROM:<a@b.test> SIZE=1", "555 5.5.4 a parameter is not known here", ("MAIL", 555, "unknown parameter")),
]


@pytest.mark.parametrize(("said", "answer", "note"), COMMANDS)
def test_a_refused_command_is_told_with_its_reason(said: str, answer: str, note: tuple[str, int, str]) -> None:
    door = transcript(f"{REFUSED_WITHIN}> {said}\n< {answer}\n> QUIT\n< {BYE}\n< (closed)")
    assert told(door) == [note]
    assert (door.rebuffs[0].ip, door.rebuffs[0].helo) == ("127.0.0.1", "client.test")


def test_what_is_answered_well_is_not_told() -> None:
    said = ["EHLO x", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "RSET", "NOOP", "HELP", "VRFY c"]

    async def play() -> FakeDoor:
        door = FakeDoor()
        async with served(door, limits=NO_PAUSE) as server, talking(server) as talk:
            await talk.reply()
            for line in said:
                assert (await talk.say(line))[0] == "2"
            assert await talk.say("QUIT") == str(BYE)
        return door

    assert run(play()).rebuffs == []


def test_a_flawed_message_is_told_with_the_envelope_it_had() -> None:
    async def play() -> list[Rebuff]:
        door = FakeDoor()
        async with served(door, limits=NO_PAUSE) as server, talking(server) as talk:
            await talk.begin("b@ours.test", "c@ours.test")
            assert (await talk.say("DATA"))[:3] == "354"
            talk.send(b"Subject: x\r\n\r\na bare\nline\r\n.\r\n")
            assert (await talk.reply())[:3] == "550"
            assert (await talk.say("DATA"))[:3] == "503"  # and the next command knows nothing of it
        return door.rebuffs

    flawed, next_one, *_ = run(play())
    assert (flawed.mail_from, flawed.rcpt_to) == ("a@sender.test", ("b@ours.test", "c@ours.test"))
    assert (flawed.command, flawed.reply.reason) == ("DATA", "bare line end or NUL")
    assert (next_one.mail_from, next_one.rcpt_to) == (None, ())


def test_a_client_that_is_left_is_told_behind_what_it_did() -> None:
    limits = Limits(tarpit_seconds=0.0, errors=2)
    door = transcript(
        f"< 220 mx.test ESMTP\n> A\n< {UNKNOWN}\n> B\n< {UNKNOWN}\n< {TOO_MANY_ERRORS}\n< (closed)", limits=limits
    )
    assert [reason for _, _, reason in told(door)] == ["unknown command", "unknown command", "too many errors"]


def test_one_connection_too_many_is_told_with_its_address() -> None:
    async def play() -> list[Rebuff]:
        door = FakeDoor()
        limits = Limits(connections=1, connections_per_ip=1)
        async with served(door, limits=limits) as server, talking(server) as one, talking(server) as other:
            assert (await one.reply())[:3] == "220"
            assert (await other.reply())[:3] == "421"
            await until(lambda: bool(door.rebuffs))
            return list(door.rebuffs)

    (rebuff,) = run(play())
    assert (rebuff.ip, rebuff.helo, rebuff.command) == ("127.0.0.1", "", "")
    assert rebuff.reply.reason == "too many connections"


def test_a_log_that_cannot_be_written_changes_no_answer() -> None:
    class Deaf(FakeDoor):
        def rebuffed(self, rebuff: Rebuff) -> None:
            raise OSError("disk full")

    transcript(
        f"< 220 mx.test ESMTP\n> A\n< {UNKNOWN}\n> NOOP\n< 250 2.0.0 OK\n> QUIT\n< {BYE}\n< (closed)", door=Deaf()
    )


NOTE = Rebuff(
    ip="192.0.2.1", helo="evil.test", command="DATA", reply=UNKNOWN, mail_from="a@b.test\x1b[2J", rcpt_to=("c@d.test",)
)


def test_the_journal_tells_it_as_one_line_of_json() -> None:
    stream = io.StringIO()
    Journal("json", stream)(NOTE)
    (text,) = stream.getvalue().splitlines()
    document: dict[str, Any] = json.loads(text)
    assert document.pop("at").endswith("Z")
    assert document == {
        "event": "refused by the edge",
        "client": {"ip": "192.0.2.1", "helo": "evil.test"},
        "command": "DATA",
        "mail_from": "a@b.test\x1b[2J",
        "rcpt_to": ["c@d.test"],
        "reply": {"code": 500, "enhanced": "5.5.1", "text": "unknown command", "reason": "unknown command"},
    }


@pytest.mark.parametrize("mail_from", ["a\U000e0001@b.test", "\udcff@b.test", "\x9b\u202e@b.test"])
def test_what_cannot_be_shown_is_the_same_when_the_journal_is_read_again(mail_from: str) -> None:
    stream = io.StringIO()
    Journal("json", stream)(replace(NOTE, mail_from=mail_from))
    assert stream.getvalue()[:-1].isprintable()
    assert json.loads(stream.getvalue())["mail_from"] == mail_from


def test_the_journal_tells_it_to_a_person_whose_terminal_it_cannot_steer() -> None:
    stream = io.StringIO()
    Journal("text", stream)(NOTE)
    first, *others = stream.getvalue().splitlines()
    assert first.endswith("  refused by the edge")
    assert [line.split() for line in others] == [
        ["from", "evil.test", "[192.0.2.1]", "for", r"<a@b.test\u001b[2J>"],
        ["to", "c@d.test"],
        ["reply", "500", "5.5.1", "unknown", "command", "(to", "DATA)"],
    ]


def all_replies() -> list[tuple[str, Reply]]:
    """Every reply that is a constant of a module of ours."""
    found = {}
    for module in pkgutil.walk_packages(inbound.__path__, "inbound."):
        if module.name in ("inbound.__main__", "inbound.ruletest"):  # the latter's are sent to nobody
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Reply) and not value.accepts:
                found[str(value)] = (f"{module.name}.{name}", value)
    return sorted(found.values(), key=lambda one: one[0])


def test_every_no_has_a_reason() -> None:
    assert [name for name, reply in all_replies() if not 0 < len(reply.reason) < 40] == []
