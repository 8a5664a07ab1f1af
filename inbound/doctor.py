"""What is wrong with a domain's MX, SPF and DMARC records: checkdmarc's checks, asked through the resolver of the settings.

checkdmarc works in plain calls and has no deadline over all of them, so it runs in a thread that nobody waits for longer
than `PATIENCE`.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inbound.addresses import a_labels
from inbound.clients.dns import nameservers_of

PATIENCE = 60.0  # seconds for one domain
EACH = 3.0  # seconds for one question, for each server

Check = Literal["mx", "spf", "dmarc"]
CHECKS: tuple[Check, ...] = ("mx", "spf", "dmarc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: `record` is what was found, `error` why it does not work, `warnings` what hardly was meant."""

    check: Check
    record: str = ""
    error: str = ""
    warnings: tuple[str, ...] = ()


def look_at(domain: str, servers: str, *, patience: float = PATIENCE) -> list[Finding]:
    """The findings about a domain. `servers` as in the setting `resolver`. Raises ValueError for what is no domain name."""
    name = a_labels(domain)
    if not name:
        raise ValueError(f"{domain!r} is no domain name")
    nameservers = nameservers_of(servers)
    found: dict[Check, Finding] = {}

    def look() -> None:
        for check, ask in _asking().items():
            try:
                found[check] = _finding(check, ask(name, nameservers=nameservers, timeout=EACH))
            except Exception as error:  # noqa: BLE001 - records are strangers' text, and each check is its own
                found[check] = Finding(check=check, error=f"the check failed ({type(error).__name__}: {error})")

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(patience)
    return [found.get(check) or Finding(check=check, error=f"no answer within {patience:g} s") for check in CHECKS]


def _asking() -> Mapping[Check, Callable[..., Any]]:
    from checkdmarc.dmarc import check_dmarc  # noqa: PLC0415 - 0.4 s and 41 MB
    from checkdmarc.smtp import check_mx  # noqa: PLC0415
    from checkdmarc.spf import check_spf  # noqa: PLC0415

    return {"mx": check_mx, "spf": check_spf, "dmarc": check_dmarc}


def _finding(check: Check, result: Mapping[str, Any]) -> Finding:
    record = result.get("record") or ""
    if check == "mx":
        hosts = result.get("hosts", ())
        record = ", ".join(
            f"{host['preference']} {host['hostname']} [{' '.join(host['addresses']) or 'no address'}]" for host in hosts
        )
    error = result.get("error") or ("" if record or check != "mx" else "there is no MX record")
    return Finding(check=check, record=record, error=str(error), warnings=tuple(map(str, result.get("warnings") or ())))


def lines(domain: str, findings: list[Finding]) -> list[str]:
    """The findings for a person."""
    told = [domain]
    for one in findings:
        state = "WRONG" if one.error else "odd" if one.warnings else "well"
        told.append(f"  {one.check:<6} {state:<6} {one.record}".rstrip())
        told += [f"{'':<16}{text}" for text in (one.error, *one.warnings) if text]
    return told
