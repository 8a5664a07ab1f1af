"""A validating resolver's word that an answer is genuine (the AD bit), by Debian's unbound over a zone that is signed here."""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import Iterator

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.rdataset
import dns.rdatatype
import dns.zone
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

import inbound
from inbound.clients import Answer, RecordType
from inbound.clients.dns import SERVFAIL, Resolver, Server, Trust
from inbound.errors import TemporaryFailure
from inbound.testing import DnsServer
from tests.servers import free_port
from tests.stages.builders import NOW
from tests.stages.signer import key_record, rsa_key, sign

KEY = key_record(rsa_key())
RECORDS = f"""
@ 300 SOA ns hostmaster 1 3600 600 86400 300
@ 300 NS ns
ns 300 A 127.0.0.1
@ 300 TXT "v=spf1 ip4:192.0.2.1 -all"
s1._domainkey 300 TXT "{KEY[:200]}" "{KEY[200:]}"
_dmarc 300 TXT "v=DMARC1; p=reject"
alias 300 CNAME ns
away 300 CNAME host.plain.example.
forged 300 TXT "as it was"
"""


def signed_zone() -> tuple[str, str]:
    """`sender.example` as a zone file, one record changed after it was signed; and its key as a trust anchor."""
    origin = dns.name.from_text("sender.example.")
    zone = dns.zone.from_text(RECORDS, origin, relativize=False)
    private = ed25519.Ed25519PrivateKey.generate()
    key = dns.dnssec.make_dnskey(private.public_key(), "ED25519", flags=257)
    with zone.writer() as transaction:
        dns.dnssec.sign_zone(zone, transaction, keys=[(private, key)], lifetime=3600, add_dnskey=True)
    text = zone.to_text(relativize=False)
    assert text.count("as it was") == 1
    anchor = dns.rdataset.from_rdata(300, key).to_text(origin)
    return text.replace("as it was", "as it is"), anchor


@pytest.fixture(scope="module")
def unbound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`127.0.0.1:PORT` of an unbound that knows a signed zone and one that is not."""
    program = shutil.which("unbound", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        pytest.skip("Debian's unbound is not installed")
    folder, port = tmp_path_factory.mktemp("unbound"), free_port()
    zone, anchor = signed_zone()
    (folder / "sender.zone").write_text(zone)
    (folder / "anchor").write_text(anchor + "\n")
    (folder / "plain.zone").write_text(
        "$ORIGIN plain.example.\n@ 300 SOA ns hostmaster 1 3600 600 86400 300\n@ 300 NS ns\nhost 300 A 192.0.2.7\n"
    )
    (folder / "unbound.conf").write_text(
        f"""
server:
  interface: 127.0.0.1@{port}
  port: {port}
  do-daemonize: no
  chroot: ""
  username: ""
  pidfile: ""
  directory: "{folder}"
  use-syslog: no
  logfile: "{folder}/log"
  num-threads: 1
  do-ip6: no
  module-config: "validator iterator"
  trust-anchor-file: "{folder}/anchor"
  domain-insecure: "plain.example"
  local-zone: "example." nodefault
remote-control:
  control-enable: no
auth-zone:
  name: "sender.example"
  zonefile: "{folder}/sender.zone"
  for-downstream: no
auth-zone:
  name: "plain.example"
  zonefile: "{folder}/plain.zone"
  for-downstream: no
"""
    )
    with subprocess.Popen([program, "-d", "-p", "-c", folder / "unbound.conf"], stderr=subprocess.PIPE) as process:
        try:
            asyncio.run(answering(f"127.0.0.1:{port}"))
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


async def answering(server: str) -> None:
    """Wait until it does."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(TemporaryFailure):
                await Resolver(server, deadline=1.0).query("host.plain.example", "A")
                return
            await asyncio.sleep(0.05)


def ask(server: str, name: str, rdtype: RecordType, dnssec: Trust = "auto") -> Answer:
    async def run() -> Answer:
        resolver = Resolver(server, deadline=5.0, dnssec=dnssec)
        first = await resolver.query(name, rdtype)
        assert first.authenticated == (await resolver.query(name, rdtype)).authenticated  # the cache knows it too
        return first

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "rdtype", "exists", "authenticated"),
    [
        ("sender.example", "TXT", True, True),
        ("sender.example", "MX", True, True),  # that there is none is proved
        ("nosuch.sender.example", "TXT", False, True),
        ("alias.sender.example", "A", True, True),
        ("away.sender.example", "A", True, False),  # a signed alias of a name that is not
        ("host.plain.example", "A", True, False),
        ("nosuch.plain.example", "A", False, False),
    ],
)
def test_what_the_resolver_has_validated_is_marked(
    unbound: str, name: str, rdtype: RecordType, *, exists: bool, authenticated: bool
) -> None:
    answer = ask(unbound, name, rdtype)
    assert (answer.exists, answer.authenticated) == (exists, authenticated)


def test_what_was_changed_on_the_way_is_no_answer(unbound: str) -> None:
    with pytest.raises(TemporaryFailure) as caught:
        ask(unbound, "forged.sender.example", "TXT")
    assert caught.value.reason == SERVFAIL


def test_the_setting_says_whether_the_resolver_is_believed(unbound: str) -> None:
    assert ask(unbound, "sender.example", "TXT", dnssec="yes").authenticated
    assert not ask(unbound, "sender.example", "TXT", dnssec="no").authenticated


def test_a_resolver_on_another_machine_is_believed_when_the_setting_says_so() -> None:
    away = Server(host="192.0.2.53", port=53)
    assert [Resolver("192.0.2.53", dnssec=trust)._trusts(away) for trust in ("auto", "yes", "no")] == [
        False,
        True,
        False,
    ]


def test_the_evidence_says_what_was_validated(unbound: str) -> None:
    call = inbound.authenticate(
        sign(), client_ip="192.0.2.1", mail_from="a@sender.example", helo="mx.sender.example", resolver=unbound, now=NOW
    )
    verdicts = asyncio.run(call)
    assert (verdicts.dmarc.result, verdicts.dmarc.aligned) == ("pass", ("spf", "dkim"))
    assert (verdicts.spf.dnssec, verdicts.dkim.signatures[0].dnssec, verdicts.dmarc.dnssec) == (True, True, True)


def test_aliases_that_are_followed_by_us_must_all_be_validated() -> None:
    """Each half of the chain comes in an answer of its own, and only the second has the bit."""

    class Halves(DnsServer):
        async def respond(self, wire: bytes, *, tcp: bool) -> bytes | None:
            answer = await super().respond(wire, tcp=tcp)
            assert answer
            response = dns.message.from_wire(answer)
            asked = response.question[0].name.to_text(omit_final_dot=True)
            response.answer = [one for one in response.answer if one.name == response.question[0].name]
            if response.answer:
                response.authority = []
            if asked in self.validated:
                response.flags |= dns.flags.AD
            return response.to_wire()

        validated: frozenset[str] = frozenset()

    async def run(*validated: str) -> Answer:
        server = await Halves({"a.example": {"CNAME": ["b.example"]}, "b.example": {"A": ["192.0.2.1"]}}).start()
        server.validated = frozenset(validated)
        answer = await Resolver(server.address).query("a.example", "A")
        await server.stop()
        return answer

    assert asyncio.run(run("a.example", "b.example")).authenticated
    for validated in ("a.example", "b.example"):
        answer = asyncio.run(run(validated))
        assert (answer.records, answer.authenticated) == (("192.0.2.1",), False)
