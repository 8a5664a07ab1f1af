"""What is wrong with a domain's MX, SPF and DMARC records: checkdmarc's checks, asked through the resolver of the settings.

1. checkdmarc follows what strangers have written: its time, memory and questions are theirs. So it runs in a process of its own,
   which is killed after `PATIENCE` seconds and may take `MEMORY` octets. What it had found by then is told.
2. A finding is bounded too: a record and a text are cut, and so many warnings are told.
3. DNS only: no mail server is connected to.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from inbound.addresses import a_labels
from inbound.clients.dns import nameservers_of

PATIENCE = 60.0  # seconds for one domain
EACH = 3.0  # seconds for one question, for each server
MEMORY = 1024 * 1024 * 1024  # octets of address space; it takes 300 MB with nothing to do
MOST_WARNINGS = 10  # of one check
LONGEST_RECORD = 4096  # characters; the longest seen in the wild have about as many
LONGEST_TEXT = 1000  # characters of an error or a warning

Check = Literal["mx", "spf", "dmarc"]
CHECKS: tuple[Check, ...] = ("mx", "spf", "dmarc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: `record` is what was found, `error` why it does not work, `warnings` what hardly was meant."""

    check: Check
    record: str = ""
    error: str = ""
    warnings: tuple[str, ...] = ()


def look_at(domain: str, servers: str, *, patience: float = PATIENCE, memory: int = MEMORY) -> list[Finding]:
    """The findings about a domain. `servers` as in the setting `resolver`. Raises ValueError for what is no domain or server."""
    name = a_labels(domain)
    if not name:
        raise ValueError(f"{domain!r} is no domain name")
    nameservers_of(servers)  # or it is an error before anything is started
    spawn = multiprocessing.get_context("spawn")
    receiving, sending = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_look, args=(name, servers, memory, sending), daemon=True)
    process.start()
    sending.close()
    try:
        return _told(receiving, patience)
    finally:
        process.kill()
        process.join()
        process.close()
        receiving.close()


def _told(receiving: Connection, patience: float) -> list[Finding]:
    """What is found until the process ends or patience does."""
    found: dict[Check, Finding] = {}
    deadline = time.monotonic() + patience
    why = f"no answer within {patience:g} s"
    try:
        while len(found) < len(CHECKS) and receiving.poll(max(deadline - time.monotonic(), 0)):
            finding: Finding = receiving.recv()
            found[finding.check] = finding
    except (EOFError, OSError):
        why = "the checks ended without an answer"
    return [found.get(check) or Finding(check=check, error=why) for check in CHECKS]


def _look(name: str, servers: str, memory: int, sending: Connection) -> None:
    """In a process of its own: tell one finding after the other."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        nameservers = nameservers_of(servers)
        asking = _asking()
    except (ImportError, MemoryError, SystemError):  # there is no room for a library; its end says so
        return
    for check, ask in asking.items():
        try:
            finding = _finding(check, ask(name, nameservers=nameservers, timeout=EACH))
        except Exception as error:  # noqa: BLE001 - records are strangers' text, and each check is its own
            finding = Finding(check=check, error=_cut(f"the check failed ({type(error).__name__}: {error})"))
        sending.send(finding)


def _asking() -> Mapping[Check, Callable[..., Any]]:
    from checkdmarc.dmarc import check_dmarc  # noqa: PLC0415 - 0.4 s and 41 MB
    from checkdmarc.smtp import check_mx  # noqa: PLC0415
    from checkdmarc.spf import check_spf  # noqa: PLC0415

    return {"mx": check_mx, "spf": check_spf, "dmarc": check_dmarc}


def _finding(check: Check, result: Mapping[str, Any]) -> Finding:
    record, error = str(result.get("record") or ""), str(result.get("error") or "")
    warnings = [str(warning) for warning in result.get("warnings") or ()]
    if check == "mx":
        hosts = result.get("hosts", ())
        record = ", ".join(
            f"{host['preference']} {host['hostname']} [{' '.join(host['addresses']) or 'no address'}]" for host in hosts
        )
        if any("null MX" in warning for warning in warnings):  # RFC 7505: that is a way of having one
            record = "0 ."
        elif not error and not any(host["addresses"] for host in hosts):
            error = "no mail exchanger has an address" if hosts else "there is no MX record"
    told = [_cut(warning) for warning in warnings[:MOST_WARNINGS]]
    if len(warnings) > MOST_WARNINGS:
        told.append(f"and {len(warnings) - MOST_WARNINGS} more")
    return Finding(check=check, record=_cut(record, LONGEST_RECORD), error=_cut(error), warnings=tuple(told))


def _cut(text: str, longest: int = LONGEST_TEXT) -> str:
    """On one line, and no longer than that."""
    line = " ".join(text[: 2 * longest].split())
    return line if len(line) <= longest else f"{line[:longest]} … ({len(text)} characters)"


def lines(domain: str, findings: list[Finding]) -> list[str]:
    """The findings for a person."""
    told = [domain]
    for one in findings:
        state = "WRONG" if one.error else "odd" if one.warnings else "well"
        told.append(f"  {one.check:<6} {state:<6} {one.record}".rstrip())
        told += [f"{'':<16}{text}" for text in (one.error, *one.warnings) if text]
    return told
