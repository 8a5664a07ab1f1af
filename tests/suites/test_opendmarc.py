"""Debian's libopendmarc (RFC 7489) and we judge random mail alike where RFC 9989 has left things as they were.

Both ask the same DNS server. Where 9989 has changed them the two must differ: each of these ways is a case of its own.
"""

import asyncio
import ctypes.util
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from inbound.clients.dns import Resolver
from inbound.stages.dmarc import Dmarc
from inbound.testing import DnsServer
from inbound.verdicts import DmarcVerdict
from tests.stages.builders import mail_from
from tests.stages.test_dmarc import dkim, spf

SCRIPT = Path(__file__).with_name("opendmarc.py")
RESULTS = ("pass", "pass", "fail", "none")


def policy(chance: random.Random) -> str:
    """A record without anything that only one of the RFCs knows."""
    tags = ["v=DMARC1", f"p={chance.choice(('none', 'quarantine', 'reject', 'Reject'))}"]
    tags += [f"{name}={chance.choice('rs')}" for name in ("adkim", "aspf") if chance.random() < 0.4]
    tags += [f"sp={chance.choice(('none', 'quarantine', 'reject'))}"] * (chance.random() < 0.4)
    tags += ["x-unknown=1"] * (chance.random() < 0.1) + ["rua=mailto:a@b.example"] * (chance.random() < 0.2)
    return chance.choice((";", "; ", " ; ")).join(tags) + chance.choice(("", ";", "; "))


def world(chance: random.Random, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Domains with a record, without, or with one of their own below it; and mails that claim to be from them."""
    zone: dict[str, Any] = {}
    cases = []
    for at in range(count):
        organization = f"org{at}.{chance.choice(('example', 'com'))}"
        below = (f"mail.{organization}", f"a.b.{organization}", f"other.{organization}")
        zone |= {name: {"A": ["192.0.2.1"]} for name in (organization, *below)}
        if chance.random() < 0.85:
            zone[f"_dmarc.{organization}"] = {"TXT": [policy(chance)]}
            if chance.random() < 0.3:
                zone[f"_dmarc.{below[0]}"] = {"TXT": [policy(chance)]}
        names = (organization, *below, organization.upper(), "elsewhere.example", f"x{organization}")
        case: dict[str, Any] = {"from": chance.choice((organization, below[0], below[1]))}
        case["spf"] = [chance.choice(RESULTS), chance.choice(names)]
        case["dkim"] = [[chance.choice(RESULTS), chance.choice(names)] for _ in range(chance.randrange(2))]
        if not any(domain.endswith(f".{case['from']}") for _, domain in (case["spf"], *case["dkim"])):
            cases.append(case)  # the others: see DIFFERING
    return zone, cases


def word(verdict: DmarcVerdict) -> str:
    """Ours in its words."""
    if verdict.result != "fail":
        return verdict.result
    return {"none": "nothing"}.get(verdict.applied_policy, verdict.applied_policy)


async def judge(zone: dict[str, Any], cases: list[dict[str, Any]], folder: Path) -> tuple[list[str], list[str]]:
    """Theirs and ours."""
    library = ctypes.util.find_library("opendmarc") or "libopendmarc.so.2"
    suffixes = folder / "suffixes"
    suffixes.write_text("com\nexample\n")
    server = await DnsServer(zone).start()
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), library, str(suffixes), str(server.port)), stdin=pipe, stdout=pipe, stderr=pipe
    )
    said, wrong = await process.communicate("".join(json.dumps(case) + "\n" for case in cases).encode())
    assert process.returncode == 0, wrong.decode()
    assert server.asked, "it asked another server"
    resolver = Resolver(server.address)
    ours = []
    for case in cases:
        mail = mail_from(raw=f"From: author@{case['from']}\r\n\r\nhello\r\n".encode())
        small = {**case, "spf": (case["spf"][0], case["spf"][1].lower())} if "spf" in case else case
        small = {**small, "dkim": [(result, domain.lower()) for result, domain in case.get("dkim", ())]}
        ours.append(word(await Dmarc(resolver)(mail, spf(small), dkim(small))))
    await resolver.close()
    await server.stop()
    return said.decode().splitlines(), ours


@pytest.fixture(autouse=True)
def _installed() -> None:
    try:
        ctypes.CDLL(ctypes.util.find_library("opendmarc") or "libopendmarc.so.2")
    except OSError:
        pytest.skip("opendmarc is not installed")


RELAXED = "v=DMARC1; p=reject"
DIFFERING: list[tuple[str, dict[str, str], dict[str, Any], str, str]] = [
    (
        "a subdomain is not the domain in strict alignment (4.4); it takes it for it",
        {"a.example": f"{RELAXED}; adkim=s"},
        {"from": "a.example", "dkim": [["pass", "mail.a.example"]]},
        *("pass", "reject"),
    ),
    (
        "one signature that passes is enough (4.4); it keeps what it was told last",
        {"a.example": RELAXED},
        {"from": "a.example", "dkim": [["pass", "x.a.example"], ["fail", "y.a.example"]]},
        *("reject", "pass"),
    ),
    (
        "np is for names that do not exist (4.7)",
        {"a.example": "v=DMARC1; p=none; sp=none; np=reject"},
        {"from": "nosuch.a.example"},
        *("nothing", "reject"),
    ),
    ("t=y lowers the policy (4.7)", {"a.example": f"{RELAXED}; t=y"}, {"from": "a.example"}, "reject", "quarantine"),
    (
        "other records at the name are passed over (4.10)",  # it looks at whichever comes first
        {"a.example": RELAXED, "more": "hello"},
        {"from": "a.example"},
        *("none reject", "reject"),
    ),
    (
        "psd=n makes an organizational domain anywhere (4.10.2)",
        {"unit.a.example": f"{RELAXED}; psd=n", "a.example": "v=DMARC1; p=none"},
        {"from": "x.unit.a.example"},
        *("nothing", "reject"),
    ),
    (
        "psd=n keeps the domain above apart (4.10.2)",
        {"unit.a.example": f"{RELAXED}; psd=n", "a.example": "v=DMARC1; p=none"},
        {"from": "unit.a.example", "spf": ["pass", "a.example"]},
        *("pass", "reject"),
    ),
    (
        "what has a record is an organizational domain where nothing above has one (4.10.2)",
        {"unit.a.example": RELAXED},
        {"from": "unit.a.example", "spf": ["pass", "a.example"]},
        *("pass", "reject"),
    ),
    (
        "a public suffix may have a policy for who has none (4.10.1)",
        {"example": f"{RELAXED}; psd=y"},
        {"from": "giant.example"},
        *("none", "reject"),
    ),
    (
        "without a policy but with somebody to report to it is p=none (4.10.1)",
        {"a.example": "v=DMARC1; p=rejct; rua=mailto:a@a.example"},
        {"from": "a.example"},
        *("unusable", "nothing"),
    ),
]


@pytest.mark.parametrize(
    ("records", "case", "theirs", "ours"), [one[1:] for one in DIFFERING], ids=[one[0] for one in DIFFERING]
)
def test_opendmarc_differs(
    tmp_path: Path, records: dict[str, str], case: dict[str, Any], theirs: str, ours: str
) -> None:
    """The coordinates are RFC 9989's."""
    more = [text for name, text in records.items() if name == "more"]
    zone: dict[str, Any] = {f"_dmarc.{name}": {"TXT": [*more, text]} for name, text in records.items()}
    zone |= {name: {"A": ["192.0.2.1"]} for name in ("x.unit.a.example", "giant.example")}
    (their_result,), (our_result,) = asyncio.run(judge(zone, [case], tmp_path))
    assert their_result in theirs.split()
    assert our_result == ours


def test_opendmarc_judges_alike(tmp_path: Path) -> None:
    zone, cases = world(random.Random(7489), 300)
    theirs, ours = asyncio.run(judge(zone, cases, tmp_path))
    differing = [(case, their, our) for case, their, our in zip(cases, theirs, ours, strict=True) if their != our]
    assert differing == []
    assert min(ours.count(result) for result in ("pass", "none", "nothing", "quarantine", "reject")) > 15
