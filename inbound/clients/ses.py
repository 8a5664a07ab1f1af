"""Mail of ours through SES's SendRawEmail."""

from collections.abc import Mapping
from typing import Protocol

from inbound.reply import Reply

NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "SES sends to no address whose local part is not ASCII", "SMTPUTF8 needed")


class Sender(Protocol):
    """SES, as `aws` has it."""

    async def send_raw_email(self, raw: bytes, *, source: str, rcpt_to: tuple[str, ...]) -> str:
        """Send a message and return SES's id of it. Raises Failure."""
        ...


class Ses:
    """Fulfils `bounces.Postman`. SES has no null reverse-path: it sends from the address in From, which it must have verified."""

    def __init__(self, cloud: Sender) -> None:
        self._cloud = cloud

    async def send(self, raw: bytes, *, mail_from: str, rcpt_to: tuple[str, ...]) -> Mapping[str, Reply]:
        """Hand a message over: the refusals by recipient. Raises Failure."""
        known = tuple(recipient for recipient in rcpt_to if recipient.isascii())
        if known:
            await self._cloud.send_raw_email(raw, source=mail_from, rcpt_to=known)
        return {recipient: NEEDS_SMTPUTF8 for recipient in rcpt_to if recipient not in known}
