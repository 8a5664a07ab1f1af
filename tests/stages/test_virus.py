"""The virus verdict, by a real clamd."""

import asyncio
import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inbound.clients.clamd import Clamd
from inbound.stages.virus import NO_SCANNER, Virus
from inbound.verdicts import Status, VirusVerdict
from tests.archives import encrypted_zip
from tests.servers import STREAM_LIMIT, clamd
from tests.stages.builders import mail_from

EICAR = base64.b64decode("WDVPIVAlQEFQWzRcUFpYNTQoUF4pN0NDKTd9JEVJQ0FSLVNUQU5EQVJELUFOVElWSVJVUy1URVNULUZJTEUhJEgrSCo=")
ENCRYPTED = encrypted_zip("invoice.txt", b"hello", b"1234")
INFECTED = VirusVerdict(status=Status.FAIL, signature="Eicar-Test-Signature.UNOFFICIAL")


def opaque(why: str, signature: str = "") -> VirusVerdict:
    return VirusVerdict(status=Status.GRAY, signature=signature, reason=f"could not look inside: {why}")


def attached(*contents: bytes) -> bytes:
    parts = [
        b"--b\r\nContent-Type: application/octet-stream; name=f\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(content).replace(b"\n", b"\r\n")
        for content in contents
    ]
    return b"From: a@s.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + b"".join(parts) + b"--b--\r\n"


def judge(address: str, raw: bytes, deadline: float = 20.0) -> VirusVerdict:
    return asyncio.run(Virus(Clamd(address, deadline=deadline))(mail_from(raw=raw)))


@pytest.fixture(scope="module")
def as_installed() -> Iterator[str]:
    """A clamd that says nothing of what is encrypted or over its limits, as it comes."""
    with (
        tempfile.TemporaryDirectory(prefix="clamd-") as directory,
        clamd(Path(directory), "AlertEncrypted no") as running,
    ):
        yield running.unix


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (attached(b"harmless"), VirusVerdict(status=Status.PASS)),
        (attached(EICAR), INFECTED),
        (attached(ENCRYPTED, EICAR), INFECTED),
        (attached(ENCRYPTED), opaque("encrypted", "Heuristics.Encrypted.Zip")),
        (attached(b"x" * STREAM_LIMIT), opaque("over the engine's limits")),
    ],
    ids=["clean", "eicar", "encrypted-and-eicar", "encrypted", "too-long"],
)
def test_verdicts(clamd_socket: str, raw: bytes, expected: VirusVerdict) -> None:
    assert judge(clamd_socket, raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (attached(ENCRYPTED), opaque("an encrypted ZIP archive")),
        (attached(b"x" * 400_000, ENCRYPTED), opaque("an encrypted ZIP archive")),
        (attached(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000) + "EncryptedPackage".encode("utf-16-le")),
         opaque("an encrypted office document")),
        (attached(ENCRYPTED, EICAR), INFECTED),
        (attached(b"PK\x03\x04" + bytes(100)), VirusVerdict(status=Status.PASS)),
        (attached(b"PK\x03\x04"), VirusVerdict(status=Status.PASS)),
    ],
    ids=["zip", "large", "office", "and-eicar", "not-encrypted", "cut-off"],
)  # fmt: skip
def test_what_is_encrypted_is_never_a_pass_whatever_clamd_is_told_to_report(
    as_installed: str, raw: bytes, expected: VirusVerdict
) -> None:
    assert judge(as_installed, raw) == expected


def test_a_scanner_that_is_down_has_no_opinion() -> None:
    verdict = judge("unix:/nowhere/clamd.ctl", attached(EICAR))
    assert verdict == VirusVerdict(status=Status.PROCESSING_FAILED, reason="clamd unreachable")


def test_without_a_scanner_the_check_is_disabled_and_says_so() -> None:
    expected = VirusVerdict(status=Status.DISABLED, reason="no virus scanner is set")
    assert asyncio.run(NO_SCANNER(mail_from())) == expected


def test_a_check_that_broke_is_processing_failed() -> None:
    expected = VirusVerdict(status=Status.PROCESSING_FAILED, reason="it crashed")
    assert Virus(Clamd("tcp:127.0.0.1:3310")).broken("it crashed") == expected
