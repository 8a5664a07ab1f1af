"""Mail, envelopes and DNS records, each broken in some places: every stage gives a verdict, none raises."""

import asyncio
import random
from ipaddress import ip_address

import pytest

from inbound.clients import Answer, RecordType
from inbound.errors import TemporaryFailure
from inbound.stages.arc import Arc
from inbound.stages.dkim import Dkim
from inbound.stages.dmarc import Dmarc
from inbound.stages.iprev import Iprev
from inbound.stages.spf import Spf
from tests.stages.builders import NOW, mail_from
from tests.stages.signer import MESSAGE, ed25519_key, key_record, rsa_key, sign
from tests.stages.test_arc import chain

FRAGMENTS = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\xc3\xbc",
        b" ",
        b"\t",
        b";",
        b"=",
        b":",
        b'"',
        b"(",
        b"<",
        b">",
        b"@",
        b",",
        b"\\",
    ),
    *(b"i=", b"b=", b"h=", b"l=1;", b"x=1;", b"xn--", b"..", b"%{d}", b"/33", b"9" * 400, b"=?utf-8?q?a?="),
    *(b"DKIM-Signature: ", b"From: ", b"ARC-Seal: i=1;", b"v=spf1 ", b"v=DMARC1;"),
)
SPF = (
    b"v=spf1 include:a.example mx a:%{d1r}.x exists:%{l}.%{i}.e ip6:2001:db8::1/33 ptr redirect=a.example exp=e.example"
)
DMARC = b"v=DMARC1; p=reject; sp=none; np=quarantine; rua=mailto:a@b.example; adkim=s; t=y; psd=n"


def broken(octets: bytes, places: int, chance: random.Random) -> bytes:
    for _ in range(places):
        at, other = chance.randrange(len(octets) + 1), chance.randrange(len(octets) + 1)
        match chance.randrange(4):
            case 0:
                octets = octets[:at] + chance.choice(FRAGMENTS) + octets[at:]
            case 1:
                octets = octets[:at] + octets[at + chance.choice((1, 5, 50)) :]
            case 2:
                octets = octets[:at] + bytes([chance.randrange(256)]) + octets[at + 1 :]
            case _:
                octets = octets[:at] + octets[other : other + 100] + octets[at:]
    return octets


class Unreliable:
    """A resolver that answers everything, sometimes with nonsense and sometimes not at all."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        if self._chance.random() < 0.03:
            raise TemporaryFailure("dns timeout", name)
        if rdtype == "TXT":
            key = key_record(rsa_key()).encode()
            record = key if "_domainkey" in name else DMARC if "_dmarc" in name else SPF
            return Answer(
                exists=True,
                records=(broken(record, self._chance.choice((0, 0, 1, 3)), self._chance).decode("latin-1"),),
            )
        records = {
            "A": "192.0.2.1",
            "AAAA": "2001:db8::1",
            "MX": "10 a.example",
            "PTR": "a.example",
            "CNAME": "a.example",
        }
        return Answer(exists=self._chance.random() < 0.8, records=(records[rdtype],) * self._chance.choice((0, 1, 3)))


@pytest.mark.parametrize("seed", range(5))
def test_every_stage_gives_a_verdict_on_anything(seed: int) -> None:
    async def run() -> None:
        chance = random.Random(seed)
        resolver = Unreliable(chance)
        whole = (sign(), sign(sign()), sign(key=ed25519_key()), chain(1), MESSAGE)
        spf, dkim, dmarc = Spf(resolver), Dkim(resolver, now=lambda: NOW), Dmarc(resolver)
        for _ in range(100):
            mail = mail_from(
                broken(b"sender@sender.example", chance.choice((0, 1, 3)), chance).decode("latin-1"),
                raw=broken(chance.choice(whole), chance.choice((0, 1, 5, 30)), chance),
                helo=broken(b"mx.sender.example", chance.choice((0, 1)), chance).decode("latin-1"),
                client_ip=ip_address(chance.choice(("192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"))),
            )
            found, signatures = await spf(mail), await dkim(mail)
            await dmarc(mail, found, signatures)
            await Arc(resolver)(mail)
            await Iprev(resolver)(mail)

    asyncio.run(run())
