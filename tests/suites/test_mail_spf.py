"""Debian's Mail::SPF and we judge random policies alike, each asking the same DNS server."""

import asyncio
import random
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from inbound.clients.dns import Resolver
from inbound.stages.spf import Spf
from inbound.testing import DnsServer
from tests.perl import perl_has
from tests.stages.builders import mail_from

SCRIPT = Path(__file__).with_name("mail_spf.pl")
NAMES = ("a.example", "b.example", "c.example", "mx.example")
DOMAINS = (
    *(*NAMES, "none.example", "nx.example", "broken.example", "a_b.example", "a.example."),
    *("%{d}", "sub.%{d}", "%{l}.example", "%{ir}.x.example", "%{i}.e.example"),
    *("%{d1r}.example", "%{lr-}.example", "%{S}.example", "%{v}.example"),
)
ADDRESSES = ("192.0.2.1", "192.0.2.0/24", "10.0.0.0/8", "192.0.2.256", "192.0.2.1/33", "192.0.2.1/", "0.0.0.0/0")
ADDRESSES6 = ("2001:db8::1", "2001:db8::/64", "2001:db9::", "2001:db8::g", "2001:db8::1/129")
LENGTHS = ("", "", "", "/24", "/32", "//64", "/24//64", "/33", "/08", "/24/64")
ODD = (
    "foo=bar",
    "FOO=%{d}",
    "moo",
    "all:",
    "a:",
    "ip4",
    "exists",
    "redirect=",
    "=x",
    "a=b=c",
    "ptr/24",
    "x-y.z_1=%{l}",
    "1x=y",
)


def mechanism(pick: Callable[..., str]) -> str:
    qualifier = pick(("", "", "+", "-", "~", "?"))
    match pick(("a", "mx", "ip4", "ip6", "include", "exists", "all", "redirect", "odd")):
        case "a" | "mx" as name:
            return qualifier + name + pick(("", f":{pick(DOMAINS)}")) + pick(LENGTHS)
        case "ip4":
            return f"{qualifier}ip4:{pick(ADDRESSES)}"
        case "ip6":
            return f"{qualifier}ip6:{pick(ADDRESSES6)}"
        case "include" | "exists" as name:
            return f"{qualifier}{name}:{pick(DOMAINS)}"
        case "all":
            return qualifier + pick(("all", "ALL"))
        case "redirect":
            return f"redirect={pick(DOMAINS)}"
        case _:
            return pick(ODD)


def zone(seed: int) -> dict[str, Any]:
    choice = random.Random(seed).choice
    records: dict[str, Any] = {
        name: {
            "TXT": [
                " ".join(
                    ["v=spf1", *(mechanism(choice) for _ in range(choice((1, 2, 3, 4)))), choice(("", "-all", "~all"))]
                )
            ],
            "A": [choice(("192.0.2.1", "192.0.2.2", "10.0.0.1"))],
            "AAAA": [choice(("2001:db8::1", "2001:db8::2"))],
            "MX": [choice(("10 mx.example", "10 b.example", "10 broken.example"))],
        }
        for name in (*NAMES, "sub.a.example")
    }
    return records | {
        "none.example": {"A": ["192.0.2.9"], "AAAA": ["2001:db8::9"]},
        "broken.example": "SERVFAIL",
        "strong-bad.example": {"A": ["127.0.0.2"]},
        "1.2.0.192.x.example": {"A": ["127.0.0.2"]},
        "192.0.2.1.e.example": {"A": ["127.0.0.2"]},
    }


async def judge(records: dict[str, Any], cases: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """What they and what we make of each client and sender."""
    server = await DnsServer(records).start()
    lines = "".join(f"{ip}\t{sender}\tmx.example\n" for ip, sender in cases)
    pipe = asyncio.subprocess.PIPE
    perl = await asyncio.create_subprocess_exec("perl", str(SCRIPT), str(server.port), stdin=pipe, stdout=pipe)
    theirs, _ = await perl.communicate(lines.encode())
    resolver = Resolver(server.address)
    stage = Spf(resolver, receiver="mx.example.com")
    mails = [mail_from(sender, client_ip=ip_address(ip), helo="mx.example") for ip, sender in cases]
    ours = [(await stage(mail)).result for mail in mails]
    await server.stop()
    return [line.split("\t")[0] for line in theirs.decode().splitlines()], list(ours)


@pytest.mark.skipif(not perl_has("Mail::SPF"), reason="Debian's libmail-spf-perl is not installed")
@pytest.mark.parametrize("seed", range(12))
def test_mail_spf_judges_alike(seed: int) -> None:
    cases = [(ip, f"strong-bad@{name}") for name in NAMES for ip in ("192.0.2.1", "2001:db8::1")]
    records = zone(seed)
    theirs, ours = asyncio.run(judge(records, cases))
    told = {
        case: (their, our, records[case[1].partition("@")[2]]["TXT"])
        for case, their, our in zip(cases, theirs, ours, strict=True)
    }
    assert not {case: told[case] for case in told if told[case][0] != told[case][1]}
