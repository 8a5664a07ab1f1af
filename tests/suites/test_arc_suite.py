"""ValiMail's ARC suite, from the sources of Debian's Mail::DKIM, its records served over UDP and TCP."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from inbound.clients.dns import Resolver
from inbound.stages.arc import Arc
from inbound.testing import DnsServer
from tests.stages.builders import mail_from
from tests.suites.fetch import mail_dkim

pytestmark = pytest.mark.timeout(360)  # the first run fetches the suite

TESTS = 170
LATER = 4_000_000_000.0
OTHERWISE = {
    "ams_fields_a_sha1": ("pass", "fail"),  # RFC 8301 3.1, later than the suite: rsa-sha1 must not be taken
    "as_fields_a_sha1": ("pass", "fail"),
    "ams_fields_c_na": ("fail", "pass"),  # RFC 6376 3.5: c= may be left out; the suite was made for a draft
}


def scenarios() -> Iterator[dict[str, Any]]:
    folder = mail_dkim()
    (file,) = folder.glob("*/t/arc_test_suite/arc-draft-validation-tests.yml")
    yield from yaml.safe_load_all(file.read_text("utf-8"))


async def judged(scenario: dict[str, Any]) -> dict[str, str]:
    """Our result for each message of a scenario."""
    records = scenario.get("txt-records") or {}
    zone = {name: {"TXT": ["".join(text.split("\n"))]} for name, text in records.items()}
    with DnsServer(zone) as server:
        stage = Arc(Resolver(server.address), now=lambda: LATER)
        return {
            name: (await stage(mail_from(raw=re.sub(rb"\r?\n", b"\r\n", test["message"].encode())))).result
            for name, test in scenario["tests"].items()
        }


def test_every_message_of_the_suite_is_judged_as_it_says_or_as_the_rfcs_have_it_since() -> None:
    expected: dict[str, str] = {}
    found: dict[str, str] = {}
    for scenario in scenarios():
        expected |= {name: (test["cv"] or "fail").lower() for name, test in scenario["tests"].items()}
        found |= asyncio.run(judged(scenario))
    assert len(expected) == TESTS
    differing = {name: (result, found[name]) for name, result in expected.items() if found[name] != result}
    assert differing == OTHERWISE
