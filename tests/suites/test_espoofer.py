"""The attacks of PyPI's espoofer ("Composition Kills", USENIX Security 2020), each brought to a receiver by SMTP as it is."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inbound.record import Record
from tests.harness import receiver
from tests.stages.signer import key_record, rsa_key, sign
from tests.suites.fetch import wheel

pytestmark = pytest.mark.timeout(360)  # the first run fetches the suite

# Its modules name each other as if its own folder were the path, and it asks for a dkim of its own.
DUMP = """
import json, sys
sys.path[:0] = [sys.argv[1]]
import testcases
def text(value):
    if isinstance(value, dict):
        return {name: text(one) for name, one in value.items()}
    return value.decode("latin-1") if isinstance(value, bytes) else value
print(json.dumps(text(testcases.test_cases)))
"""
DNS: dict[str, Any] = {
    "legitimate.com": {"TXT": ["v=spf1 -all"]},
    "_dmarc.legitimate.com": {"TXT": ["v=DMARC1; p=reject"]},
    "selector._domainkey.attack.com": {"TXT": [key_record(rsa_key())]},
    "selector._domainkey.legitimate.com'a.attack.com": {"TXT": [key_record(rsa_key())]},
    "_dmarc.attack.com": {"TXT": ["v=DMARC1; p=none"]},
    **{
        name: {"TXT": ["v=spf1 +all"]}
        for name in ("attack.com", "helo.attack.com", "33.attack.com", "any.attack.com", "legitimate.com'a.attack.com")
    },
}
RULES = "rules: [{name: all, actions: [s3: {bucket: mail}]}]"


def cases() -> dict[str, Any]:
    """Those of a server that spoofs; the others are an account of one's own at the victim's provider."""
    folder: Path = wheel("espoofer", "0.9.1") / "espoofer"
    done = subprocess.run([sys.executable, "-c", DUMP, str(folder)], capture_output=True, check=True, timeout=60)
    return {name: case for name, case in json.loads(done.stdout).items() if name.startswith("server_")}


def message(case: dict[str, Any]) -> bytes:
    data, dkim = case["data"], case.get("dkim_para")
    raw = "".join(data[part] for part in ("from_header", "to_header", "subject_header", "other_headers", "body"))
    if not dkim:
        return raw.encode("latin-1")
    return sign(raw.encode("latin-1"), tags={"d": dkim["d"], "s": dkim["s"]}, header="from")


def test_no_attack_passes_for_the_legitimate_domain(tmp_path: Path) -> None:
    async def story() -> dict[str, str]:
        found: dict[str, str] = {}
        async with receiver(tmp_path, dns=DNS, rules=RULES, domains=("victim.com",)) as to:
            for name, case in cases().items():
                before = len(to.notes)
                path = case["mailfrom"].removeprefix("<").removesuffix(">")
                await to.send(message(case), "victim@victim.com", mail_from=path, helo=case["helo"])
                records = [note for note in to.notes[before:] if isinstance(note, Record)]
                found[name] = records[0].verdicts.dmarc.result if records else "refused"
        return found

    found = asyncio.run(story())
    assert len(found) == 19
    assert {name: result for name, result in found.items() if result not in ("fail", "refused")} == {}
    assert list(found.values()).count("refused") <= 6, found  # the others are judged, not lost before
