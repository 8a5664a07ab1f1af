import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import inbound
from inbound.testing import DnsServer, FakeResolver
from inbound.verdicts import SpamVerdict, Status, Verdicts, VirusVerdict
from tests.stages.builders import NOW
from tests.stages.signer import MESSAGE, key_record, rsa_key, sign

ZONE: dict[str, Any] = {
    "sender.example": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]},
    "s1._domainkey.sender.example": {"TXT": [key_record(rsa_key())]},
    "_dmarc.sender.example": {"TXT": ["v=DMARC1; p=reject"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["mx.sender.example"]},
    "mx.sender.example": {"A": ["192.0.2.1"]},
}


def authenticate(raw: bytes, **more: Any) -> Verdicts:
    options: dict[str, Any] = {"resolver": FakeResolver(ZONE), "now": NOW, "client_ip": "192.0.2.1"} | more
    return asyncio.run(
        inbound.authenticate(raw, mail_from="author@sender.example", helo="mx.sender.example", **options)
    )


def summary(verdicts: Verdicts) -> dict[str, str]:
    return {name: getattr(verdicts, name).result for name in ("spf", "dkim", "dmarc", "arc", "iprev")}


def test_one_call_gives_every_verdict() -> None:
    verdicts = authenticate(sign())
    assert summary(verdicts) == {"spf": "pass", "dkim": "pass", "dmarc": "pass", "arc": "none", "iprev": "pass"}
    assert verdicts.dmarc.aligned == ("spf", "dkim")
    assert verdicts.spam == SpamVerdict(status=Status.DISABLED, reason="this check was not asked for")
    assert verdicts.virus == VirusVerdict(status=Status.DISABLED, reason="this check was not asked for")


def test_a_message_may_have_lf_line_ends() -> None:
    assert authenticate(sign().replace(b"\r\n", b"\n")).dkim.result == "pass"


def test_a_spoofed_message_fails() -> None:
    verdicts = authenticate(MESSAGE, client_ip="198.51.100.1")
    assert summary(verdicts) == {"spf": "fail", "dkim": "none", "dmarc": "fail", "arc": "none", "iprev": "permerror"}
    assert verdicts.dmarc.applied_policy == "reject"


def test_the_resolver_may_be_an_address() -> None:
    with DnsServer(ZONE) as server:
        assert authenticate(sign(), resolver=server.address).dmarc.result == "pass"


@pytest.mark.parametrize("wrong", [{"client_ip": "mx.example"}, {"resolver": "dns.example"}])
def test_what_is_no_address_is_an_error(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        authenticate(sign(), **wrong)


def test_a_check_that_outlasts_its_deadline_has_no_verdict() -> None:
    class Slow(FakeResolver):
        async def query(self, name: str, rdtype: Any) -> Any:
            await asyncio.sleep(60)
            return await super().query(name, rdtype)

    verdicts = authenticate(sign(), resolver=Slow(ZONE), deadline=0.05)
    assert {"temperror"} == {verdicts.spf.result, verdicts.dkim.result, verdicts.dmarc.result, verdicts.iprev.result}
    assert verdicts.dmarc.status is Status.PROCESSING_FAILED


def test_there_is_nothing_else_to_be_loaded_late() -> None:
    with pytest.raises(AttributeError, match="no attribute 'authenticated'"):
        inbound.authenticated  # noqa: B018


PATCHES = """
import asyncio, logging, re, socket, ssl, sys
import dkim, dkim.canonicalization, dkim.crypto, dkim.util, dns.message, dns.resolver, email.message, spf
modules = [dkim, dkim.canonicalization, dkim.crypto, dkim.util, dns.message, dns.resolver, spf]
modules += [email.message, logging, re, socket, ssl]
def state():
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    owners = modules + classes
    # What is counted or cached there anyway: logging's handlers, abc's registries.
    return {(id(owner), name): id(value) for owner in owners for name, value in vars(owner).items()
            if not name.startswith(("_abc", "__"))}
before = state(), logging.getLogger().handlers[:], logging.getLogger().level
import inbound
from inbound.testing import FakeResolver
raw = b"DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=AAAA; b=AAAA\\r\\n"
raw += b"From: x@a.example\\r\\n\\r\\nhello\\r\\n"
zone = {"a.example": {"TXT": ["v=spf1 -all"]}, "_dmarc.a.example": {"TXT": ["v=DMARC1; p=none"]}}
call = inbound.authenticate(raw, client_ip="192.0.2.1", mail_from="x@a.example", resolver=FakeResolver(zone))
verdicts = asyncio.run(call)
assert verdicts.spf.result == "fail" and verdicts.dmarc.result == "fail", verdicts
after = state(), logging.getLogger().handlers[:], logging.getLogger().level
changed = {key for key in before[0] if before[0][key] != after[0].get(key)}
sys.exit(f"{len(changed)} attributes changed" if changed or before[1:] != after[1:] else 0)
"""


def test_using_it_changes_nothing_in_the_host_program() -> None:
    done = subprocess.run([sys.executable, "-c", PATCHES], check=False, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "authentication.md").read_text("utf-8")
    example = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "message.eml").write_bytes(sign(tags={"s": "s1"}))
    zone = ZONE | {"sender.example": {"TXT": ["v=spf1 ip4:192.0.2.10 -all"]}}
    with DnsServer(zone) as server:
        code = example.replace('resolver="127.0.0.1"', f'resolver="{server.address}"')
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=50, cwd=tmp_path
        )
    assert done.stdout.splitlines() == ["pass pass pass reject", "sender.example s1 pass "], done.stderr


def test_importing_the_package_alone_loads_none_of_the_checks() -> None:
    code = "import sys, inbound; sys.exit(any(name in sys.modules for name in ('dkim', 'spf', 'dns', 'checkdmarc')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=50).returncode == 0
