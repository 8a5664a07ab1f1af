"""The openspf suites of RFC 7208 and RFC 4408 (in pyspf's source package), every question asked over real UDP and TCP."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
import yaml

from inbound.clients.dns import Resolver
from inbound.stages.spf import Spf
from inbound.testing import DnsServer, Records
from tests.stages.builders import mail_from
from tests.suites.fetch import sdist

pytestmark = pytest.mark.timeout(360)  # the first run fetches the suite


def scenarios(name: str) -> list[dict[str, Any]]:
    file = sdist("pyspf", "2.0.14") / "test" / name
    return list(yaml.safe_load_all(file.read_bytes()))


def records(zonedata: dict[str, list[Any]]) -> Records:
    """The suite's zone as ours: SPF records stand for TXT unless the name has TXT of its own; TIMEOUT for what is not listed."""
    return {name: dict(by_type(entries)) for name, entries in zonedata.items()}


def by_type(entries: list[Any]) -> Iterator[tuple[str, Any]]:
    found: dict[str, list[Any]] = {}
    rest: str | None = None
    for entry in entries:
        if entry == "TIMEOUT":
            rest = "TIMEOUT"
            continue
        ((rdtype, value),) = entry.items()
        if value != []:  # a TXT record without any string cannot be sent
            found.setdefault(rdtype, []).append(" ".join(map(str, value)) if rdtype == "MX" else value)
    if "TXT" not in found and "SPF" in found:
        found["TXT"] = found["SPF"]
    for rdtype, values in found.items():
        if values == ["TIMEOUT"]:
            yield rdtype, "TIMEOUT"
        elif values != ["NONE"] and rdtype != "SPF":
            yield rdtype, values
    if rest:
        yield "*", rest


async def evaluate(scenario: dict[str, Any]) -> dict[str, tuple[str, str]]:
    server = await DnsServer(records(scenario["zonedata"])).start()
    resolver = Resolver(server.address, deadline=0.3)
    try:
        found: dict[str, tuple[str, str]] = {}
        for name, case in scenario["tests"].items():
            mail = mail_from(case["mailfrom"], client_ip=ip_address(case["host"]), helo=case["helo"])
            verdict = await Spf(resolver)(mail)
            found[name] = (verdict.result, verdict.explanation or "DEFAULT")
        return found
    finally:
        await resolver.close()
        await server.stop()


@pytest.mark.parametrize(("suite", "count"), [("rfc7208-tests.yml", 203), ("rfc4408-tests.yml", 191)])
def test_every_case_of_the_suite_holds_over_real_dns(suite: str, count: int) -> None:
    wrong = []
    cases = 0
    for scenario in scenarios(suite):
        found = asyncio.run(evaluate(scenario))
        for name, case in scenario["tests"].items():
            cases += 1
            allowed = [case["result"]] if isinstance(case["result"], str) else case["result"]
            result, explanation = found[name]
            if result not in allowed or case.get("explanation", explanation) != explanation:
                wrong.append((name, case["spec"], allowed, result, case.get("explanation"), explanation))
    assert not wrong
    assert cases == count
