"""`inbound check --batch` over many mails: its memory stays what it was. How fast it is stands in docs/performance.md."""

import base64
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pytest

from inbound.testing import DnsServer
from tests.stages.signer import key_record, rsa_key, sign
from tests.test_cli import environment

WARM, ALL = 300, 2000  # mails until everything that is kept is there; and in all
GROWTH = 6 * 1024  # KiB that the allocator may still take after that
DOMAINS = 40


def zone() -> dict[str, Any]:
    one = {
        "{}": {"TXT": ["v=spf1 ip4:192.0.2.0/24 include:_spf.{} -all"]},
        "_spf.{}": {"TXT": ["v=spf1 a -all"]},
        "s1._domainkey.{}": {"TXT": [key_record(rsa_key())]},
        "_dmarc.{}": {"TXT": ["v=DMARC1; p=reject"]},
    }
    return {"broken.example": "SERVFAIL"} | {
        name.format(f"d{at}.example"): {kind: [text.format(f"d{at}.example") for text in texts]}
        for at in range(DOMAINS)
        for name, records in one.items()
        for kind, texts in records.items()
    }


def signed(domain: str) -> bytes:
    attached = base64.encodebytes(bytes(range(256)) * 60).replace(b"\n", b"\r\n")
    message = (
        f"From: Pat <pat@{domain}>\r\nTo: support@example.com\r\nSubject: hello\r\nDate: Mon, 21 Sep 2026 12:00:00 +0000\r\n"
        'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nGood morning\r\n--b\r\n'
        'Content-Type: application/octet-stream; name="a.bin"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    ).encode()
    return sign(message + attached + b"--b--\r\n", tags={"d": domain})


def requests(count: int) -> Iterator[bytes]:
    """Each with words and a client of its own; every tenth is no mail, and every tenth other one no request."""
    mails = [signed(f"d{at}.example") for at in range(DOMAINS)]
    for at in range(count):
        domain = f"d{at % DOMAINS}.example"
        raw = f"X-Number: {at}\r\n".encode() + mails[at % DOMAINS] if at % 10 else bytes([at % 256]) * 2000
        request = {
            "path": str(at),
            "raw": base64.b64encode(raw).decode(),
            "client_ip": f"192.0.2.{at % 250}",
            "helo": f"mx{at}.{domain}",
            "mail_from": f"bounce-{at}@{domain}",
            "rcpt_to": ["support@example.com"],
        }
        yield json.dumps(request if at % 10 != 5 else request | {"what": 1}).encode() + b"\n"


def resident(process: int, *, highest: bool = False) -> int:
    """KiB of memory that it has now, or has had at most."""
    what = "VmHWM" if highest else "VmRSS"
    found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


@contextmanager
def batch(directory: Path, jobs: int) -> Iterator[tuple[int, IO[bytes], IO[bytes]]]:
    """A batch under way: its process id, and where it reads and writes. It must end well."""
    with (
        DnsServer(zone()) as dns,
        subprocess.Popen(
            [sys.executable, "-m", "inbound", "check", "--batch", "--jobs", str(jobs), "--resolver", dns.address],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        yield process.pid, process.stdin, process.stdout
        process.stdin.close()
        assert process.wait(30) == 0


def through(stdin: IO[bytes], stdout: IO[bytes], lines: list[bytes]) -> list[dict[str, Any]]:
    """Write them in pieces that no pipe chokes on, and read as many answers."""
    answers = []
    for at in range(0, len(lines), 2):
        stdin.writelines(lines[at : at + 2])
        stdin.flush()
        answers += [json.loads(stdout.readline()) for _ in lines[at : at + 2]]
    return answers


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="there is no /proc")
def test_memory_is_after_two_thousand_mails_what_it_was_after_three_hundred(tmp_path: Path) -> None:
    lines = list(requests(ALL))
    with batch(tmp_path, jobs=2) as (process, stdin, stdout):
        documents = through(stdin, stdout, lines[:WARM])
        before = resident(process)
        documents += through(stdin, stdout, lines[WARM:])
        after = resident(process)
    assert [document["path"] for document in documents] == [str(at) for at in range(ALL)]
    assert {document["dmarc"]["result"] for document in documents[1::10]} == {"pass"}
    assert after - before < GROWTH, (before, after)
    assert after < 200 * 1024


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="there is no /proc")
@pytest.mark.parametrize("given", ["path", "raw"])
def test_large_mails_go_through_one_after_the_other_however_many_jobs_there_are(tmp_path: Path, given: str) -> None:
    large = signed("d1.example")
    attached = base64.encodebytes(bytes(range(256)) * 36_000).replace(b"\n", b"\r\n")
    large = large.removesuffix(b"--b--\r\n") + b"--b\r\n\r\n" + attached + b"--b--\r\n"
    (tmp_path / "large.eml").write_bytes(large)
    what = {"path": "large.eml"} if given == "path" else {"raw": base64.b64encode(large).decode()}
    sender = {"mail_from": "pat@broken.example", "rcpt_to": ["support@example.com"]}
    request = json.dumps(what | sender).encode() + b"\n"
    with batch(tmp_path, jobs=8) as (process, stdin, stdout):
        through(stdin, stdout, [request] * 2)
        before = resident(process, highest=True)
        writing = threading.Thread(target=lambda: (stdin.writelines([request] * 16), stdin.flush()))
        writing.start()
        results = [(found["dkim"]["result"], found["spf"]["result"]) for found in map(json.loads, islice(stdout, 16))]
        writing.join()
        after = resident(process, highest=True)
    assert results == [("fail", "temperror")] * 16
    assert after - before < 3 * len(attached) // 1024, (before, after)  # eight at once took thirteen
    assert after < 200 * 1024
