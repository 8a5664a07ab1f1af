"""What we lean on in aiosmtpd is there under the names we use: it ignores a misspelled hook silently."""

import asyncio

from aiosmtpd.smtp import SMTP

from inbound.receive.session import Session
from inbound.receive.wire import Wire
from tests.receive.talk import FakeDoor, run, served, talking

FROM_THE_EVENT_LOOP = {"connection_made", "data_received", "eof_received", "connection_lost"} | {
    "pause_writing",
    "resume_writing",
}
FROM_AIOSMTPD = {"_handle_client", "_reset_timeout", "push", "handle_exception"}


def test_what_wire_overrides_is_called_by_the_event_loop_or_by_aiosmtpd() -> None:
    overridden = {name for name in vars(Wire) if callable(getattr(Wire, name)) and hasattr(SMTP, name)}
    assert overridden - {"__init__", "__module__"} == FROM_THE_EVENT_LOOP | FROM_AIOSMTPD


def test_every_command_of_the_session_is_in_its_table_and_aiosmtpds_own_are_not() -> None:
    ours = {name.removeprefix("smtp_") for name in vars(Session) if name.startswith("smtp_")}
    assert set(Session._VERBS) == ours
    theirs = {name.removeprefix("smtp_") for name in vars(SMTP) if name.startswith("smtp_")}
    assert theirs - ours == {"AUTH", "EXPN"}  # answered 502: nothing of aiosmtpd's own ever runs


def test_one_connection_does_not_change_the_command_limits_of_another() -> None:
    """aiosmtpd keeps them in a class attribute that every connection clears and every EHLO adds to."""

    async def play() -> list[str]:
        async with served(FakeDoor()) as server, talking(server) as one, talking(server) as two:
            await one.line()
            await two.line()
            for _ in range(50):
                await two.say("EHLO client.test")
            await one.say("EHLO client.test")
            sender = f"<{'v' * 200}@{'.'.join(['d' * 60] * 4)}>"
            padding = " " * (1500 - len(sender))
            await asyncio.gather(*(two.say("NOOP") for _ in range(1)))
            return [await one.say(f"MAIL FROM:{sender}{padding}"), await two.say(f"NOOP {'x' * 2042}")]

    assert run(play()) == ["250 2.1.0 OK", "500 5.5.2 the command line is too long"]
