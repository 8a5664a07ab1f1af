"""`inbound doctor`, run as a program against DNS over UDP."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from inbound.doctor import Finding, _told, lines, look_at
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
        findings = look_at("silent.test", dns.address, patience=0.5)
    assert [one.error for one in findings] == ["no answer within 0.5 s"] * 3


def test_what_was_found_before_patience_ended_is_told() -> None:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    sending.send(Finding(check="mx", record="10 mx.half.test [192.0.2.1]"))
    mx, *others = _told(receiving, patience=0.2)
    assert (mx.record, mx.error) == ("10 mx.half.test [192.0.2.1]", "")
    assert [one.error for one in others] == ["no answer within 0.2 s"] * 2


def test_no_resolver_at_all_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    done = inbound("doctor", "well.example", "--resolver", "dns.example", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"dns.example" in done.stderr
    assert b"Traceback" not in done.stderr


FAN: dict[str, Any] = {f"d{at}.test": {"TXT": [f"v=spf1 {f'include:d{at + 1}.test ' * 40}-all"]} for at in range(6)}
HOSTILE: dict[str, Any] = {
    "long.test": {"TXT": [f"v=spf1 {'ip4:192.0.2.1 ' * 1500}-all"], "MX": ["10 mx.long.test"] * 2},
    "_dmarc.long.test": {"TXT": [f"v=DMARC1; p=none; rua={','.join(f'mailto:a@d{at}.x.test' for at in range(60))}"]},
    "odd.test": {"TXT": [b"v=spf1 \xff\xfe \x1b[31m -all"], "MX": ["0 ."]},
    "_dmarc.odd.test": {"TXT": [b"v=DMARC1; p=reject; rua=mailto:\xff\x1b[31m@x.test\r\n", "hello"]},
    "words.test": {"TXT": ["v=spf1 " + "a" * 20_000 + ":" * 3000 + " -all"]},
    "_dmarc.words.test": {"TXT": ["v=DMARC1; p=none; " + "x=\t  " * 4000 + ";" * 3000]},
    "many.test": {"TXT": ["v=spf1 include:d0.test -all"], "MX": [f"{at} mx{at}.many.test" for at in range(100)]},
    "loop.test": {"CNAME": ["loop2.test"]},
    "loop2.test": {"CNAME": ["loop.test"]},
    "servfail.test": "SERVFAIL",
    "refused.test": "REFUSED",
    **FAN,
}


@pytest.mark.parametrize(
    ("domain", "wrong"),
    [
        ("long.test", {"mx"}),
        ("odd.test", {"spf", "dmarc"}),
        ("words.test", {"mx", "spf", "dmarc"}),
        ("many.test", {"mx", "spf", "dmarc"}),
        ("loop.test", {"mx", "spf", "dmarc"}),
        ("servfail.test", {"mx", "spf", "dmarc"}),
        ("refused.test", {"mx", "spf", "dmarc"}),
        ("nosuch.test", {"mx", "spf", "dmarc"}),
        ("nosuch.long.test", {"mx", "spf", "dmarc"}),
    ],
)
def test_records_of_strangers_are_told_within_bounds(domain: str, wrong: set[str]) -> None:
    with DnsServer(HOSTILE) as dns:
        findings = look_at(domain, dns.address, patience=20.0)
    assert {one.check for one in findings if one.error} == wrong
    assert [one for one in findings if "no answer within" in one.error] == []
    assert max(len(line) for line in lines(domain, findings)) < 5000
    assert max(len(one.warnings) for one in findings) <= 11
    assert not any(set(line) & {"\n", "\r"} for line in lines(domain, findings))


def test_checks_that_take_too_much_memory_end_and_that_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with DnsServer(ZONE) as dns:
        findings = look_at("well.example", dns.address, patience=20.0, memory=64 * 1024 * 1024)
    assert [one.error for one in findings] == ["the checks ended without an answer"] * 3
    assert "Traceback" not in capfd.readouterr().err
