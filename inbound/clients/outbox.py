"""Mail of ours as files in a directory, for another program to send: `sendmail -t -f '<>' < FILE`."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from inbound.clients.disk import directory, disk_errors, replace
from inbound.offload import aside
from inbound.reply import Reply


class Outbox:
    """Fulfils `bounces.Postman`: a message is `TIME-UUID.eml`, on the disk before it counts as handed over.

    Whoever takes the files decides about the envelope: the null reverse-path, and the address in To.
    """

    def __init__(self, place: Path) -> None:
        self._place = place

    async def send(self, raw: bytes, *, mail_from: str, rcpt_to: tuple[str, ...]) -> Mapping[str, Reply]:
        """Write it durably; nobody is refused. Raises Failure."""
        del mail_from, rcpt_to
        await aside(self._write, raw)
        return {}

    def _write(self, raw: bytes) -> None:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4()}"
        with disk_errors():
            directory(self._place)
            replace(self._place / f".{name}", self._place / f"{name}.eml", raw)
