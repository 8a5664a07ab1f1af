"""dkimpy unpatched as the oracle: its own test data, and random messages that both must judge alike."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import dkim
import dkim.canonicalization
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from inbound.mail import HeaderField, Headers
from inbound.stages.canonical import _CANONICALIZATIONS, canonical_body
from inbound.stages.dkim import Dkim
from inbound.testing import FakeResolver
from inbound.verdicts import DkimVerdict
from tests.stages.builders import mail_from
from tests.stages.signer import key_record, rsa_key
from tests.suites.fetch import sdist

pytestmark = pytest.mark.timeout(360)  # the first run fetches the suite

WHEN = 1_530_000_000.0  # the data of the suite is from 2018


def data() -> Path:
    return sdist("dkimpy", "1.1.8") / "dkim" / "tests" / "data"


def octets(name: str) -> bytes:
    return (data() / name).read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def judge(raw: bytes, zone: dict[str, Any], now: float) -> DkimVerdict:
    return asyncio.run(Dkim(FakeResolver(zone), now=lambda: now)(mail_from(raw=raw)))


def keys() -> dict[str, dict[str, list[str]]]:
    """The key records of the suite; Gmail's of 2013 stands in its code."""
    code = (data().parent / "test_dkim.py").read_text()
    gmail = code.partition('\'20120113._domainkey.gmail.com.\': """')[2].partition('"""')[0].replace("\\\n", "")
    files = {
        "test._domainkey.example.com": "test.txt",
        "test._domainkey.football.example.com": "test.txt",  # the RSA key of RFC 8463 A.2 too
        "sed._domainkey.test.ex": "eximtest.dns",
    }
    texts = {name: (data() / file).read_text().strip() for name, file in files.items()} | {
        # RFC 8463 A.2
        "brisbane._domainkey.football.example.com": "k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        "20120113._domainkey.gmail.com": gmail,
    }
    return {name: {"TXT": [text]} for name, text in texts.items()}


def by_dkimpy(raw: bytes, zone: dict[str, Any]) -> list[bool]:
    """What dkimpy makes of each signature. Raises MessageFormatError when a line of the header is more than it can take."""

    def key(name: bytes, timeout: float) -> str:  # noqa: ARG001 - dkimpy calls it so
        return "".join(zone.get(name.decode().rstrip("."), {}).get("TXT", ()))

    found = []
    for at in range(len(Headers.of(raw).all("dkim-signature"))):
        verifier = dkim.DKIM(raw)
        try:
            found.append(bool(verifier.verify(at, dnsfunc=key)))
        except dkim.DKIMException:
            found.append(False)
    return found


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("rfc6376.msg", []),
        ("rfc6376.signed.msg", ["pass", "pass"]),  # RFC 8463 A.3
        ("rfc6376.signed.rsa.msg", ["pass"]),
        ("rfc6376.signed.no_t.msg", ["fail"]),
        ("ed25519test2.msg", ["pass"]),
        ("test2.message", ["pass"]),
        ("test.message.baddomain", ["permerror"]),
        ("message.mbox", ["permerror"]),
    ],
)
def test_messages_of_the_suite(name: str, results: list[str]) -> None:
    raw = octets(name).removeprefix(b"From ")
    zone = keys()
    assert results == [signature.result for signature in judge(raw, zone, WHEN).signatures]
    assert [result == "pass" for result in results] == by_dkimpy(raw, zone)


@pytest.mark.parametrize(("body", "result"), [(b"", "pass"), (b"hello", "fail")])
def test_the_example_of_rfc_8463_holds_over_its_own_body_only(body: bytes, result: str) -> None:
    raw = octets("rfc6376.signed.msg") + body
    assert {result} == {signature.result for signature in judge(raw, keys(), WHEN).signatures}


blanks = st.text(" \t", max_size=3)
words = st.text("aB:=;", min_size=1, max_size=4)
line = st.lists(st.tuples(blanks, words), max_size=3).map(lambda parts: "".join(gap + word for gap, word in parts))
lines = st.lists(st.builds(str.__add__, line, blanks), max_size=6).map("\r\n".join)
folded = st.lists(st.builds("{}{}".format, blanks, words), min_size=1, max_size=3).map("\r\n ".join)
canonicalizations = st.sampled_from([b"simple", b"relaxed"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    body=lines,
    end=st.sampled_from(["\r\n", "\r\n\r\n", " \r\n"]),
    values=st.lists(folded, min_size=1, max_size=4),
    header=canonicalizations,
    how=canonicalizations,
    change=st.tuples(st.integers(0, 10_000), st.sampled_from(["", " ", "\t", "\r\n", "a"])),
)
def test_both_judge_every_signed_and_changed_message_alike(
    body: str, end: str, values: list[str], header: bytes, how: bytes, change: tuple[int, str]
) -> None:
    fields = "".join(f"X-{at % 2}:{value}\r\n" for at, value in enumerate(values))
    message = f"From: a@sender.example\r\n{fields}\r\n{body}{end}".encode()
    pem = rsa_key(1024).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    names = [b"from", b"x-0", b"x-0", b"x-1", b"x-1"]
    signature = dkim.sign(message, b"s1", b"sender.example", pem, canonicalize=(header, how), include_headers=names)
    at, inserted = change
    signed = signature + message
    start = len(signature) + len(b"From: a@sender.example\r\n") + at % (len(message) - 23)
    changed = signed[:start] + inserted.encode() + signed[start:]
    zone = {"s1._domainkey.sender.example": {"TXT": [key_record(rsa_key(1024))]}}
    for raw in (signed, changed):
        ours = [one.result == "pass" for one in judge(raw, zone, time.time()).signatures]
        if not {13, 10} & set(raw.replace(b"\r\n", b"")):  # dkimpy takes LF alone for a line end
            with contextlib.suppress(dkim.MessageFormatError):  # "X-1 : a" is a field, too
                assert by_dkimpy(raw, zone) == ours


@settings(max_examples=100, deadline=None, derandomize=True)
@given(body=lines, end=st.sampled_from(["", "\r\n", "\r\n\r\n\r\n"]), times=st.sampled_from([1, 1, 1, 20_000]))
def test_canonical_bodies_are_dkimpys(body: str, end: str, times: int) -> None:
    raw = (body * times + end).encode()
    raw = raw if raw.endswith(b"\r\n") or not raw else raw.rstrip(b" \t") + b"\r\n"
    for name, theirs in (("simple", dkim.canonicalization.Simple), ("relaxed", dkim.canonicalization.Relaxed)):
        assert theirs.canonicalize_body(raw) == b"".join(canonical_body(raw, 0, name))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(value=folded)
def test_canonical_fields_are_dkimpys(value: str) -> None:
    field = HeaderField("X-Y", f"X-Y:{value}\r\n".encode())
    for name, theirs in (("simple", dkim.canonicalization.Simple), ("relaxed", dkim.canonicalization.Relaxed)):
        ((key, canonical),) = theirs.canonicalize_headers([(b"X-Y", f"{value}\r\n".encode())])
        assert key + b":" + canonical == _CANONICALIZATIONS[name].canonicalize_header((field,))


def test_using_our_verifier_changes_nothing_in_dkimpy() -> None:
    before = {name: value for module in (dkim, dkim.canonicalization) for name, value in vars(module).items()}
    relaxed = dkim.canonicalization.Relaxed.canonicalize_body
    judge(octets("rfc6376.signed.msg"), keys(), WHEN)
    after = {name: value for module in (dkim, dkim.canonicalization) for name, value in vars(module).items()}
    assert before == after
    assert relaxed is dkim.canonicalization.Relaxed.canonicalize_body
    assert dkim.canonicalization.ALGORITHMS[b"relaxed"] is dkim.canonicalization.Relaxed
