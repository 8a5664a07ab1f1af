"""Debian's Mail::DKIM and we judge alike: messages that a third signer signed and that were then changed, and chains of ARC."""

import asyncio
import random
from pathlib import Path

import pytest

from inbound.clients.dns import Resolver
from inbound.stages.dkim import Dkim
from inbound.testing import DnsServer
from tests.perl import perl_has
from tests.stages import test_arc
from tests.stages.builders import NOW, mail_from
from tests.stages.signer import MESSAGE, key_record, rsa_key, sign

SCRIPT, ARC_SCRIPT = Path(__file__).with_name("mail_dkim.pl"), Path(__file__).with_name("mail_dkim_arc.pl")
KEY = "s1._domainkey.sender.example"
HOW = ("simple", "relaxed")
NEEDS_MAIL_DKIM = pytest.mark.skipif(not perl_has("Mail::DKIM"), reason="Debian's libmail-dkim-perl is not installed")


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


@NEEDS_MAIL_DKIM
def test_mail_dkim_judges_alike(tmp_path: Path) -> None:
    raws = messages(150)
    theirs, ours = asyncio.run(judge(raws, tmp_path))
    assert [raw for raw, their, our in zip(raws, theirs, ours, strict=True) if their != our] == []
    assert 80 < sum(ours) < 140


ELSEWISE = {
    "ed25519": "it does not know it (RFC 8463)",
    "different keys in one set": "as above",
    "no c= and signed as the drafts had it": "pass for us, as for dkimpy: such chains are about",
    "c= is empty": "it takes that for no c=; RFC 6376 3.5 has no such word",
    "t= of the message signature in the future": "it does not look at t=",
    "t= of the seal in the future": "as above",
    "t= is no number": "as above",
    "t= is empty": "as above",
    "t= with a blank": "as above",
    "a seal whose t= is no number": "as above",
    "a seal whose t= is empty": "as above",
    "a seal whose t= has a blank": "as above",
    "a seal whose t= is no whole number": "as above",
    "x= of an older message signature in the past": "only the newest message signature counts (RFC 8617 5.2 step 4)",
    "i= of three digits": "two are the most (RFC 8617 4.2.1)",
    "i= of many digits": "as above",
    "tags with many blanks": "they may stand there (RFC 6376 3.2)",
    "results with comments about i": "CFWS may stand there (RFC 8617 4.2.1)",
    "results with a comment": "the second i= stands in a comment",
    "results with blanks about i": "CFWS may stand there (RFC 8617 4.2.1)",
    "results without semicolon behind i=": "it does not ask for results (RFC 8617 5.2 step 3A)",
    "results whose i= comes later": "as above",
    "lone results above a good chain": "as above",
    "the last line end is gone in simple form": "RFC 6376 3.4.3 adds one",
    "l= of nothing": "it takes that for no l=",
    "a second From is added": "fail for us: a reader sees one that nobody has signed",
    "a tag of no letters": "names begin with a letter (RFC 6376 3.2)",
    "a seal with h=": "that must fail (RFC 8617 4.1.3)",
    "a seal with h= in the first of two": "as above",
}


@NEEDS_MAIL_DKIM
def test_mail_dkim_judges_chains_alike(tmp_path: Path) -> None:
    cases = [case for case in test_arc.CASES if "faults" not in case]

    async def run() -> list[str]:
        zones = [{name: {"TXT": [text]} for name, text in test_arc.records(case).items()} for case in cases]
        servers = [await DnsServer(zone).start() for zone in zones]
        files = [tmp_path / f"{at}.eml" for at in range(len(cases))]
        for file, case in zip(files, cases, strict=True):
            file.write_bytes(test_arc.made(case))
        where = [f"{server.port}:{file}" for server, file in zip(servers, files, strict=True)]
        pipe = asyncio.subprocess.PIPE
        perl = await asyncio.create_subprocess_exec("perl", str(ARC_SCRIPT), *where, stdout=pipe)
        said, _ = await perl.communicate()
        for server in servers:
            await server.stop()
        return said.decode().splitlines()

    said = asyncio.run(run())
    differing = {
        case["it"] for case, one in zip(cases, said, strict=True) if (one == "pass") != (case["result"] == "pass")
    }
    assert differing == set(ELSEWISE)
