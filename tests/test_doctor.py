"""`inbound doctor`, run as a program against DNS over UDP."""

import json
import time
from pathlib import Path
from typing import Any

from inbound.doctor import look_at
from inbound.testing import DnsServer
from tests.test_cli import inbound

ZONE: dict[str, Any] = {
    "well.example": {"MX": ["10 mx.well.example"], "TXT": ["v=spf1 mx -all"]},
    "mx.well.example": {"A": ["192.0.2.1"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["mx.well.example"]},
    "_dmarc.well.example": {"TXT": ["v=DMARC1; p=reject"]},
    "ill.example": {"MX": ["10 gone.ill.example"], "TXT": ["v=spf1 a:%{x} -all"]},
    "_dmarc.ill.example": {"TXT": ["v=DMARC1; p=rejct"]},
    "spoken.example": {"TXT": ["v=spf1 -all", "v=spf1 \u202e ~all"]},
    "_dmarc.spoken.example": {"TXT": ["v=DMARC1; p=none", "v=DMARC1; p=reject"]},
}


def documents(tmp_path: Path, *domains: str) -> tuple[int, list[dict[str, Any]]]:
    with DnsServer(ZONE) as dns:
        done = inbound("doctor", *domains, "--json", "--resolver", dns.address, cwd=tmp_path)
    assert b"Traceback" not in done.stderr
    assert b"failed to answer" not in done.stderr  # as a server would that is not the one it was told to ask
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_domain_that_is_well(tmp_path: Path) -> None:
    code, (found,) = documents(tmp_path, "well.example")
    assert {name: found[name]["error"] for name in ("mx", "spf", "dmarc")} == {"mx": "", "spf": "", "dmarc": ""}
    assert found["mx"]["record"] == "10 mx.well.example [192.0.2.1]"
    assert (found["spf"]["record"], found["dmarc"]["record"]) == ("v=spf1 mx -all", "v=DMARC1; p=reject")
    assert code == 0


def test_what_is_wrong_is_told_and_counts(tmp_path: Path) -> None:
    code, found = documents(tmp_path, "ill.example", "spoken.example", "missing.example")
    assert code == 1
    assert [one["domain"] for one in found] == ["ill.example", "spoken.example", "missing.example"]
    assert [bool(one["spf"]["error"]) and bool(one["dmarc"]["error"]) for one in found] == [True, True, True]
    assert found[2]["mx"]["error"]


def test_for_a_person_it_is_one_block_for_each_domain(tmp_path: Path) -> None:
    with DnsServer(ZONE) as dns:
        done = inbound("doctor", "well.example", "spoken.example", "--resolver", dns.address, cwd=tmp_path)
    lines = done.stdout.decode().splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["well.example", "spoken.example"]
    assert [line.split()[0] for line in lines[:8] if line[2:3].strip()][1:4] == ["mx", "spf", "dmarc"]
    assert any(line.startswith("  dmarc  WRONG") for line in lines)
    assert "\u202e" not in done.stdout.decode()  # nobody steers the terminal


def test_a_name_that_is_none_is_told(tmp_path: Path) -> None:
    done = inbound("doctor", "no name", cwd=tmp_path)
    assert (done.returncode, done.stderr.decode()) == (2, "inbound: 'no name' is no domain name\n")


def test_silence_ends() -> None:
    with DnsServer({"silent.test": "TIMEOUT", "_dmarc.silent.test": "TIMEOUT"}) as dns:
        started = time.monotonic()
        findings = look_at("silent.test", dns.address, patience=0.5)
    assert time.monotonic() - started < 20
    assert [one.error for one in findings] == ["no answer within 0.5 s"] * 3
