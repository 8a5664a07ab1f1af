"""A whole receiver for tests: real SMTP, real DNS over UDP, a directory as the cloud."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inbound.app import App
from inbound.receive import Rebuff
from inbound.receive.edge import Edge
from inbound.record import Record
from inbound.settings import Listener, Settings
from inbound.smtp_client import Answer, SmtpClient
from inbound.testing import DnsServer
from inbound.transaction import Refusal

SENDER_IP = "192.0.2.10"
DNS: Mapping[str, Any] = {
    "sender.example": {"TXT": ["v=spf1 ip4:192.0.2.10 -all"], "MX": ["10 mx.sender.example"]},
    "mx.sender.example": {"A": [SENDER_IP]},
    "10.2.0.192.in-addr.arpa": {"PTR": ["mx.sender.example"]},
    "_dmarc.sender.example": {"TXT": ["v=DMARC1; p=reject"]},
}


def mail(body: str = "Hello\r\n", **fields: str) -> bytes:
    """An ordinary mail; fields by name with `_` for `-`, None takes one away."""
    usual = {
        "From": "Pat <pat@sender.example>",
        "To": "support@example.com",
        "Subject": "An order",
        "Date": "Tue, 24 Nov 2026 05:00:00 +0000",
        "Message-ID": "<1@sender.example>",
    }
    given = usual | {name.replace("_", "-"): value for name, value in fields.items()}
    return ("".join(f"{name}: {value}\r\n" for name, value in given.items()) + "\r\n" + body).encode()


@dataclass
class Receiver:
    """A running receiver and what it has noted so far."""

    app: App
    edge: Edge
    dns: DnsServer
    directory: Path
    address: str
    notes: list[Record | Refusal | Rebuff] = field(default_factory=list)

    @property
    def record(self) -> Record:
        """The last message's record."""
        return next(note for note in reversed(self.notes) if isinstance(note, Record))

    def connect(self, client_ip: str = SENDER_IP) -> SmtpClient:
        """A session that claims to come from there."""
        host, _, port = self.address.rpartition(":")
        return SmtpClient(host, int(port), client_ip=client_ip)

    async def send(
        self,
        raw: bytes,
        *rcpt_to: str,
        mail_from: str = "pat@sender.example",
        helo: str = "mx.sender.example",
        client_ip: str = SENDER_IP,
    ) -> dict[str, Answer]:
        """One message in a session of its own."""
        async with self.connect(client_ip) as client:
            return await client.send(raw, helo=helo, mail_from=mail_from, rcpt_to=rcpt_to or ("support@example.com",))

    async def reply(self, raw: bytes, *rcpt_to: str, **more: str) -> str:
        """The one reply that matters, as `CODE text`."""
        answers = await self.send(raw, *rcpt_to, **more)
        return str(answers.get("") or next(iter(answers.values())))

    def objects(self, bucket: str) -> dict[str, bytes]:
        """What lies in a bucket, by key, as it is stored."""
        place = self.directory / "s3" / bucket
        return {
            str(path.relative_to(place)): path.read_bytes()
            for path in sorted(place.rglob("*"))
            if path.is_file() and not path.name.startswith(".") and not path.name.endswith(".metadata.json")
        }

    def notifications(self, topic: str) -> list[Any]:
        """The messages of a topic in order, parsed."""
        files = sorted((self.directory / "sns" / topic).glob("*.json"))
        return [json.loads(json.loads(file.read_text())["Message"]) for file in files]


@contextlib.asynccontextmanager
async def receiver(
    directory: Path, *, rules: str | None = None, dns: Mapping[str, Any] = DNS, plain_port: int = 0, **more: Any
) -> AsyncIterator[Receiver]:
    """Start one with these rules (YAML text; the shipped ones otherwise) and settings, and stop it.

    With `plain_port` it also listens there for clients that speak no PROXY protocol.
    """
    settings = Settings(data_dir=directory / "data", hostname="mx.example.com", log="text")
    if rules is not None:
        (directory / "rules.yaml").write_text(rules, encoding="utf-8")
        settings = replace(settings, rules=directory / "rules.yaml")
    notes: list[Record | Refusal | Rebuff] = []
    server = await DnsServer(dns).start()
    try:
        used = replace(settings, **{"resolver": server.address, **more})
        async with App(used, note=notes.append) as app:
            edge = Edge(app, hostname=used.hostname, limits=used.limits, tls=used.tls, proxy_from=used.proxy_from)
            listeners = [Listener(address="127.0.0.1:0", proxy=True)]
            if plain_port:
                listeners.append(Listener(address=f"127.0.0.1:{plain_port}"))
            address, *_ = await edge.start(listeners)
            try:
                yield Receiver(app, edge, server, used.data_dir, address, notes)
            finally:
                await edge.stop(grace=5)
    finally:
        await server.stop()
