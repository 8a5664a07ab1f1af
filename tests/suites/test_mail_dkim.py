"""Debian's Mail::DKIM and we judge messages alike, signed by a third signer and then changed."""

import asyncio
import random
import subprocess
from pathlib import Path

import pytest

from inbound.clients.dns import Resolver
from inbound.stages.dkim import Dkim
from inbound.testing import DnsServer
from tests.stages.builders import NOW, mail_from
from tests.stages.signer import MESSAGE, key_record, rsa_key, sign

SCRIPT = Path(__file__).with_name("mail_dkim.pl")
KEY = "s1._domainkey.sender.example"
HOW = ("simple", "relaxed")


def messages(count: int) -> list[bytes]:
    """Signed ones, half of them changed by an octet somewhere below the signature."""
    chance = random.Random(6376)
    made = []
    for at in range(count):
        body = (
            "".join(chance.choice(("a", "b", " ", "\t", "\r\n", "  ", " \r\n")) for _ in range(chance.randrange(12)))
            + "\r\n"
        )
        message = MESSAGE.replace(b"Hello,", body.encode() + b"Hello,")
        header = chance.choice(("from", "from:to:subject", "from:from:subject:date", "from:x-none:to"))
        signed = sign(message, canonicalization=(chance.choice(HOW), chance.choice(HOW)), header=header)
        if at % 2:
            place = len(signed) - len(message) + chance.randrange(len(message))
            while signed[place - 1 : place + 1] == b"\r\n":  # no line end is taken apart
                place -= 1
            signed = signed[:place] + chance.choice((b" ", b"\t", b"x", b"\r\n")) + signed[place:]
        made.append(signed)
    return made


async def judge(raws: list[bytes], folder: Path) -> tuple[list[bool], list[bool]]:
    server = await DnsServer({KEY: {"TXT": [key_record(rsa_key())]}}).start()
    files = [folder / f"{at}.eml" for at in range(len(raws))]
    for file, raw in zip(files, raws, strict=True):
        file.write_bytes(raw)
    pipe = asyncio.subprocess.PIPE
    perl = await asyncio.create_subprocess_exec("perl", str(SCRIPT), str(server.port), *map(str, files), stdout=pipe)
    theirs, _ = await perl.communicate()
    stage = Dkim(Resolver(server.address), now=lambda: NOW)
    ours = [(await stage(mail_from(raw=raw))).result for raw in raws]
    await server.stop()
    return [line == "pass" for line in theirs.decode().splitlines()], [result == "pass" for result in ours]


def test_mail_dkim_judges_alike(tmp_path: Path) -> None:
    if subprocess.run(["perl", "-MMail::DKIM", "-e1"], check=False, capture_output=True).returncode:
        pytest.skip("libmail-dkim-perl is not installed")
    raws = messages(150)
    theirs, ours = asyncio.run(judge(raws, tmp_path))
    assert [raw for raw, their, our in zip(raws, theirs, ours, strict=True) if their != our] == []
    assert 80 < sum(ours) < 140
