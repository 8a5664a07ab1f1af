"""npm's mailauth in its strict mode and we judge alike: DMARC by RFC 9989 on random trees of domains, and chains of ARC."""

import asyncio
import base64
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inbound.clients.dns import Resolver
from inbound.stages.dmarc import Dmarc
from inbound.testing import DnsServer
from inbound.verdicts import DkimSignature, DkimVerdict, SpfVerdict, Status
from tests.interop.environments import node_modules_with
from tests.stages import test_arc
from tests.stages.builders import mail_from

pytestmark = pytest.mark.timeout(360)  # the first run fetches it

SCRIPT = Path(__file__).with_name("mailauth.js")
POLICIES = ("none", "quarantine", "reject", "REJECT", "Quarantine")
ODD = ("foo=bar", "pct=0", "rf=afrf", "=x", "fo=1:d:s", "adkim=x", "t=maybe", "psd=z", "aspf=", "x y=z", "v=DMARC1")


async def ask(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    modules = node_modules_with("mailauth@7.1.0")
    pipe = asyncio.subprocess.PIPE
    node = await asyncio.create_subprocess_exec("node", str(SCRIPT), str(modules), stdin=pipe, stdout=pipe)
    said, _ = await node.communicate("".join(json.dumps(one) + "\n" for one in requests).encode())
    return [json.loads(line) for line in said.decode().splitlines()]


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")


def record(chance: random.Random) -> str:
    """A record, more or less as RFC 9989 4.8 has it."""
    # Not without p at all: for us that is p=none (4.7), for it the record then needs somebody to report to (4.10.1).
    tags = [f"p={chance.choice(POLICIES)}" if chance.random() < 0.9 else chance.choice(("p=x", "p="))]
    tags += [
        f"{name}={chance.choice(POLICIES)}" for name in ("np", "sp") if chance.random() < 0.3 and name not in tags[0]
    ]
    tags += [f"psd={chance.choice('yynnuYN')}"] * (chance.random() < 0.3)
    tags += [f"t={chance.choice('ynY')}"] * (chance.random() < 0.2)
    tags += [f"{name}={chance.choice('rsS')}" for name in ("adkim", "aspf") if chance.random() < 0.3]
    tags += [f"rua={chance.choice(('mailto:a@b.example', 'a@b.example', 'mailto:x@y!5m, z'))}"] * (
        chance.random() < 0.4
    )
    tags += [chance.choice(ODD)] * (chance.random() < 0.1)
    if chance.random() < 0.5:
        chance.shuffle(tags)
    version = chance.choice(("v=DMARC1",) * 8 + ("v = DMARC1", "V=DMARC1", "v=dmarc1", "v=DMARC2"))
    return chance.choice((";", "; ", " ; ", ";;")).join((version, *tags)) + chance.choice(("", ";", " ; "))


def world(seed: int, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Trees of domains, each with a top of its own, and mails from somewhere in them."""
    chance = random.Random(seed)
    zone: dict[str, Any] = {}
    cases = []
    for at in range(count):
        labels = [f"t{at}", *(f"n{depth}" for depth in range(chance.choice((1, 1, 2, 2, 3, 4, 6, 8, 9, 10))))]
        names = [".".join(reversed(labels[: depth + 1])) for depth in range(len(labels))]
        names += [f"other.{name}" for name in chance.sample(names, min(2, len(names)))]
        for name in names:
            if chance.random() < 0.8:
                zone[name] = {"A": ["192.0.2.1"]}
            if chance.random() < 0.35:
                texts = [record(chance) for _ in range(chance.choice((1, 1, 1, 1, 1, 1, 2)))]
                zone[f"_dmarc.{name}"] = {"TXT": [*dict.fromkeys(texts), *(["hello"] * (chance.random() < 0.1))]}
        passed = [chance.choice((*names[1:], "elsewhere.example")) for _ in range(chance.randrange(4))]
        cases.append({"from": chance.choice(names[1:]), "spf": passed[:1], "dkim": passed[1:]})
    return zone, cases


async def both(seed: int, count: int) -> Sequence[tuple[dict[str, Any], tuple[str, str], tuple[str, str]]]:
    """Cases with their results and ours."""
    zone, cases = world(seed, count)
    server = await DnsServer(zone).start()
    theirs = await ask([{**case, "dns": server.address} for case in cases])
    resolver, found = Resolver(server.address), []
    for case, their in zip(cases, theirs, strict=True):
        spf = SpfVerdict(status=Status.GRAY, result="pass" if case["spf"] else "none", domain="".join(case["spf"]))
        signatures = tuple(DkimSignature(result="pass", domain=domain) for domain in case["dkim"])
        dkim = DkimVerdict(status=Status.GRAY, result="none", signatures=signatures)
        mail = mail_from(raw=f"From: a@{case['from']}\r\n\r\n".encode())
        our = await Dmarc(resolver)(mail, spf, dkim)
        records = {
            name: entry["TXT"]
            for name, entry in zone.items()
            if case["from"].endswith(name.removeprefix("_dmarc.")) and "TXT" in entry
        }
        policy = their.get("policy", "") if their.get("dmarc") != "none" else ""
        found.append(
            ({**case, "records": records}, (str(their.get("dmarc", their)), policy), (our.result, our.applied_policy))
        )
    await resolver.close()
    await server.stop()
    return found


def test_dmarc_is_judged_alike() -> None:
    found = asyncio.run(both(9989, 400))
    assert [one for one in found if one[1] != one[2]] == []
    results = [ours[0] for _, _, ours in found]
    assert min(results.count(word) for word in ("pass", "fail", "none")) > 50


ELSEWISE = {
    "no c= and signed as the drafts had it": "pass for us: such chains are about (RFC 8617 leaves it to RFC 6376)",
    "an empty h=": "pass for us, as the draft's own suite has it",
    "results with comments about i": "pass for us: CFWS may stand there (RFC 8617 4.2.1)",
    "t= of the message signature in the future": "fail for us",
    "t= of the seal in the future": "fail for us",
    "a second From is added": "fail for us: a reader sees one that nobody has signed",
    "c= of a third word": "fail for us: that is no syntax of RFC 6376 3.5",
    "c= is empty": "fail for us: nor is that",
}


def test_chains_are_judged_alike() -> None:
    cases = [case for case in test_arc.CASES if "faults" not in case]

    async def run() -> list[dict[str, Any]]:
        zones = [{name: {"TXT": [text]} for name, text in test_arc.records(case).items()} for case in cases]
        servers = [await DnsServer(zone).start() for zone in zones]
        common = {"ip": "192.0.2.1", "helo": "mx.sender.example", "sender": "a@sender.example"}
        said = await ask(
            [
                {"raw": base64.b64encode(test_arc.made(case)).decode(), "dns": server.address, **common}
                for case, server in zip(cases, servers, strict=True)
            ]
        )
        for server in servers:
            await server.stop()
        return said

    said = asyncio.run(run())
    differing = {case["it"] for case, one in zip(cases, said, strict=True) if one.get("arc") != case["result"]}
    assert differing == set(ELSEWISE)
