"""A receiver with everything around it that the samples need: DNS that says what they say, their clock, a function.

Used by `inbound serve --with-samples`, by `inbound demo`, and by the tests that send every sample through the real path.
"""

import asyncio
import datetime as dt
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from inbound.app import App
from inbound.clients.dns import Resolver
from inbound.receive import Rebuff
from inbound.receive.edge import Edge
from inbound.record import Record
from inbound.samples import Sample, all_samples, crlf, shipped
from inbound.settings import Listener, Settings, Tls
from inbound.smtp_client import Answer, SmtpClient
from inbound.testing import DnsServer
from inbound.transaction import Refusal

ORDERS = "order-from-mail"  # the function that the shipped rules call


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a sample: the replies it got, and what the receiver noted meanwhile."""

    replies: Mapping[str, Answer]
    notes: tuple[Record | Refusal | Rebuff, ...]

    @property
    def reply(self) -> str:
        """Code and enhanced status code of the answer that decided: the message's, or the refused recipients'."""
        return _codes(self.told)

    @property
    def refused(self) -> dict[str, str]:
        """The same of each recipient that RCPT did not take."""
        return {who: _codes(str(answer)) for who, answer in self.replies.items() if who}

    @property
    def told(self) -> str:
        """That answer whole."""
        return str(self.replies.get("") or next(iter(self.replies.values())))

    @property
    def record(self) -> Record | None:
        """The record of the message, when it came as far as that."""
        return next((note for note in self.notes if isinstance(note, Record)), None)


def _codes(answer: str) -> str:
    return " ".join(answer.split(" ")[:2])


class Demo:
    """A receiver in `settings.data_dir`, and what the samples need around it. `async with Demo(settings) as demo: …`."""

    def __init__(self, settings: Settings, *, note: Callable[[Record | Refusal | Rebuff], None] | None = None) -> None:
        self._settings = settings
        self._note = note
        self._notes: list[Record | Refusal | Rebuff] = []
        self._now: float | None = None
        self.samples = all_samples()
        self.addresses: list[str] = []

    async def __aenter__(self) -> Self:
        given = self._settings
        forward = Resolver(given.resolver, deadline=given.deadlines.dns_query)
        self.dns = await DnsServer(_records(self.samples.values()), forward=forward).start()
        certificate = _certificate(given.data_dir, given.hostname)
        settings = replace(
            given,
            resolver=self.dns.address,
            tls=given.tls or certificate,
            functions={ORDERS: _sample_function(), **given.functions},
        )
        self.app = App(settings, note=self._take, now=lambda: self._now or time.time())
        await self.app.__aenter__()
        self.edge = Edge(
            self.app,
            hostname=settings.hostname,
            limits=settings.limits,
            tls=settings.tls,
            proxy_from=settings.proxy_from,
        )
        listeners = (*settings.listen, Listener(address="127.0.0.1:0", proxy=True))
        *self.addresses, self._as_anyone = await self.edge.start(listeners)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.edge.stop(grace=self._settings.deadlines.deliver)
        await self.app.__aexit__(kind, error, trace)
        await self.dns.stop()

    async def send(self, message: Path) -> Outcome:
        """Bring one sample by SMTP, from the address and at the time its story says."""
        sample = self.samples[message]
        raw = crlf(await asyncio.to_thread(message.read_bytes))
        self._notes.clear()
        self._now = sample.now
        host, _, port = self._as_anyone.rpartition(":")
        try:
            async with SmtpClient(host, int(port), client_ip=sample.client.ip) as client:
                if sample.client.tls:
                    await client.command(f"EHLO {sample.client.helo}")
                    await client.starttls(_trusting_nobody(), self._settings.hostname)
                replies = await client.send(
                    raw,
                    helo=sample.client.helo,
                    mail_from=sample.envelope.mail_from,
                    rcpt_to=sample.envelope.rcpt_to,
                )
        finally:
            self._now = None
        return Outcome(replies=replies, notes=tuple(self._notes))

    def _take(self, note: Record | Refusal | Rebuff) -> None:
        self._notes.append(note)
        if self._note is not None:
            self._note(note)


def without_scanner(sample: Sample) -> Sample | None:
    """What is to be expected of a sample where no virus scanner is; None when its outcome turns on the scanner."""
    expect = sample.expect
    virus = expect.verdicts.get("virus")
    if virus == "FAIL":
        return None
    verdicts = expect.verdicts | ({"virus": "DISABLED"} if virus else {})
    return replace(sample, expect=replace(expect, verdicts=verdicts))


def differences(sample: Sample, outcome: Outcome) -> list[str]:
    """In what the outcome is not as the sample expects; empty when all is as it should be."""
    expect, record = sample.expect, outcome.record
    found = [] if outcome.reply == expect.reply else [f"reply is {outcome.reply}, not {expect.reply}"]
    if (record is None) is bool(expect.verdicts):
        found.append("it was answered at RCPT" if record is None else "it was not answered at RCPT")
    if record is None:
        return found
    if outcome.refused != expect.refused:
        found.append(f"refused at RCPT are {outcome.refused}, not {expect.refused}")
    for name, status in expect.verdicts.items():
        verdict: Any = getattr(record.verdicts, name)
        said = getattr(verdict, "status", None) or verdict.result
        if said != status:
            found.append(f"{name} is {said}, not {status}")
    met = {walk.recipient: tuple(trace.name for trace in walk.traces if trace.met) for walk in record.walks}
    for recipient, rules in expect.rules.items():
        if met.get(recipient) != rules:
            found.append(f"{recipient} met {met.get(recipient)}, not {rules}")
    return found


def _records(samples: Any) -> dict[str, Any]:
    """What DNS says in all samples together: they share one world, so none may contradict another."""
    records: dict[str, Any] = {}
    for sample in samples:
        for name, entry in sample.dns.items():
            if records.setdefault(name, entry) != entry:
                raise ValueError(f"two samples say different things about {name}")
    return records


def _sample_function() -> tuple[str, ...]:
    return (f"{shipped('samples') / 'functions' / 'orders.py'}:handler",)


def _certificate(directory: Path, hostname: str) -> Tls:
    """A self-signed certificate, good for trying STARTTLS and for nothing else."""
    directory.mkdir(parents=True, exist_ok=True)
    chain, key_file = directory / "demo-certificate.pem", directory / "demo-key.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Tls(certificate=chain, key=key_file)


def _trusting_nobody() -> ssl.SSLContext:
    """As senders to an MX do without DANE or MTA-STS: encrypted, not authenticated."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
