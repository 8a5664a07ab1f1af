"""rspamd's functional tests of SPF, DKIM and DMARC, from its Debian sources: its messages, its DNS served over UDP and TCP."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from inbound.clients.dns import Resolver
from inbound.stages.dkim import Dkim
from inbound.stages.dmarc import Dmarc
from inbound.stages.spf import Spf
from inbound.testing import DnsServer, Records
from tests.stages.builders import mail_from
from tests.suites.fetch import debian_source

pytestmark = pytest.mark.timeout(360)  # the first run fetches the suite

CASES = 49
LATER = 4_000_000_000.0
FAULTS = {"timeout": "TIMEOUT", "servfail": "SERVFAIL", "nxdomain": "NXDOMAIN"}
# What its symbols say in the words of the RFCs; for a fail of DMARC the policy, too
MEANING = {
    "R_DKIM_ALLOW": ("dkim", "pass"),
    "R_DKIM_NA": ("dkim", "none"),
    "R_DKIM_PERMFAIL": ("dkim", "permerror"),
    "R_DKIM_REJECT": ("dkim", "fail"),
    "R_DKIM_TEMPFAIL": ("dkim", "temperror"),
    "R_SPF_ALLOW": ("spf", "pass"),
    "R_SPF_DNSFAIL": ("spf", "temperror"),
    "R_SPF_FAIL": ("spf", "fail"),
    "R_SPF_NA": ("spf", "none"),
    "R_SPF_PERMFAIL": ("spf", "permerror"),
    "R_SPF_PLUSALL": ("spf", "pass"),
    "DMARC_DNSFAIL": ("dmarc", "temperror"),
    "DMARC_NA": ("dmarc", "none"),
    "DMARC_POLICY_ALLOW": ("dmarc", "pass"),
    "DMARC_POLICY_QUARANTINE": ("dmarc", "quarantine"),
    "DMARC_POLICY_REJECT": ("dmarc", "reject"),
    "DMARC_POLICY_SOFTFAIL": ("dmarc", "none applies"),
}
OTHERWISE = {
    # RFC 7208 5.2: an include of a domain without a record is a permerror
    "SPF FAIL UNRESOLVEABLE INCLUDE": "permerror",
    # RFC 7208 4.6.4: each of its terms makes a void look-up, and more than two are a permerror
    "SPF PTRS": "permerror",
    # RFC 9989 4.10.2: only the author domain has a record, so it is its own organizational domain
    "DMARC SUBDOMAIN PASS DKIM RELAXED ALIGNMENT": "reject",
    "DMARC SUBDOMAIN PASS SPF RELAXED ALIGNMENT": "reject",
    # RFC 9989 has no pct=
    "DMARC PCT ZERO REJECT": "reject",
    "DMARC PCT ZERO SP QUARANTINE": "quarantine",
    # it is told to look behind a relay that it trusts
    "SPF EXTERNAL RELAY": "none",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    title: str
    file: str
    settings: dict[str, str]
    symbols: tuple[str, ...]


def files() -> Path:
    return next(
        debian_source(
            "rspamd",
            "3.12.1",
            release="trixie",
            sha256="8801ee6838114c5a9e69fc27e818be4d636c051f06c87a2c711111dc21a4a254",
        ).glob("*/test/functional")
    )


def zone(folder: Path) -> Records:
    """Its answers stand in two files of its configuration; the first for a name and a type counts."""
    texts = [(folder / "configs" / name).read_text("utf-8") for name in ("plugins.conf", "merged-local.conf")]
    text = re.sub(r"(?m)(?:^|\s)#.*$", "", "".join(text.partition("fake_records")[2] for text in texts))
    found: dict[str, dict[str, str | list[str]]] = {}
    for name, rest in re.findall(r'name\s*=\s*"([^"]*)"[,;]\s*([^{}]*)\}', text):
        kind = re.findall(r"type\s*=\s*[\"']?(\w+)", rest)[0].upper()
        code = re.findall(r"rcode\s*=\s*[\"'](\w+)", rest)
        answers = re.findall(r'"([^"]*)"', rest.partition("replies")[2])
        entry = found.setdefault(name, {})
        entry.setdefault(kind, FAULTS.get(code[0], []) if code else answers)
    return found


def cases(folder: Path) -> Iterator[Case]:
    """Each scan of a message, with what is expected of it."""
    for name in ("116_dkim", "001_merged/117_spf", "001_merged/115_dmarc"):
        text = (folder / "cases" / f"{name}.robot").read_text("utf-8")
        text = text.partition("*** Test Cases ***")[2].partition("*** Keywords ***")[0]
        text = re.sub(r"\n +\.\.\.", " ", re.sub(r"(?m)^ *#.*\n", "", text))
        title = ""
        for line, more in re.findall(r"(?m)^(.+)$((?:\n +Expect Symbol.*)*)", text):
            if not line.startswith(" "):
                title = line
            scan = re.match(r" +Scan File +(?:\$\{RSPAMD_TESTDIR\}/)?([^$ ]\S*)(.*)", line)
            if scan and more:
                symbols = re.findall(r"Expect Symbol[A-Za-z ]*  +(\w+)", more)
                settings = dict(re.findall(r"(\w+)=(\S+)", scan[2]))
                yield Case(title=title, file=scan[1], settings=settings, symbols=tuple(symbols))


async def judged(folder: Path, case: Case, resolver: Resolver) -> dict[str, str]:
    raw = b"\r\n" if case.file == "/dev/null" else re.sub(rb"\r?\n", b"\r\n", (folder / case.file).read_bytes())
    client = ip_address(case.settings.get("IP", "192.0.2.1"))
    mail = mail_from(case.settings.get("From", ""), raw=raw, client_ip=client, helo="unknown")
    spf, dkim = await Spf(resolver)(mail), await Dkim(resolver, now=lambda: LATER)(mail)
    dmarc = await Dmarc(resolver)(mail, spf, dkim)
    policy = "none applies" if dmarc.policy == "none" else dmarc.policy
    return {"spf": spf.result, "dkim": dkim.result, "dmarc": policy if dmarc.result == "fail" else dmarc.result}


async def differing(folder: Path, all_cases: list[Case]) -> dict[str, str]:
    """Our results where they are others."""
    found = {}
    with DnsServer(zone(folder)) as server:
        resolver = Resolver(server.address, deadline=0.3)
        for case in all_cases:
            ours = await judged(folder, case, resolver)
            for kind, result in (MEANING[symbol] for symbol in case.symbols):
                if ours[kind] != result:
                    found[case.title] = ours[kind]
        await resolver.close()
    return found


def test_every_scan_is_judged_as_it_says_or_as_the_rfcs_have_it() -> None:
    folder = files()
    all_cases = list(cases(folder))
    assert asyncio.run(differing(folder, all_cases)) == OTHERWISE
    assert len(all_cases) == CASES
