"""Bad input and broken surroundings: what is answered, what the record says, and that nothing is lost or half said."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from inbound.errors import ConfigurationError
from inbound.record import Record
from inbound.settings import Tls
from inbound.verdicts import Status
from tests.harness import DNS, mail, receiver

STORE = """
rules:
  - name: store
    recipients: [example.com]
    actions: [s3: {bucket: mail-all}]
"""


def sent(directory: Path, raw: bytes, *, rules: str = STORE, **more: Any) -> tuple[str, Any, dict[str, bytes]]:
    """The reply, the record (None before the end of data) and what is in the bucket."""

    async def run() -> tuple[str, Any, dict[str, bytes]]:
        async with receiver(directory, rules=rules, **more) as mx:
            reply = await mx.reply(raw)
            return reply, next((one for one in mx.notes if isinstance(one, Record)), None), mx.objects("mail-all")

    return asyncio.run(run())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n",
        b"no header at all, and no colon\r\n",
        b"\r\nbody without header\r\n",
        b"From: a@b\r\nno colon here\r\nSubject: x\r\n\r\nbody\r\n",
        b" leading blank\r\nFrom: a@sender.example\r\n\r\nbody\r\n",
        b"From: pat@sender.example\r\nContent-Type: multipart/mixed; boundary=\r\n\r\n--\r\n--\r\n",
        b"From: pat@sender.example\r\nDKIM-Signature: v=1; a=; b=;;;=\r\n\r\nbody\r\n",
        b"From: pat@sender.example\r\nSubject: \xff\xfe\x80 8-bit\r\nX-\xe9: y\r\n\r\n\xff\r\n",
        b"From: =?utf-8?b?=?= <pat@sender.example>\r\nSubject: =?x?y?z?=\r\n\r\n",
    ],
)
def test_unparsable_mail_is_judged_and_stored_as_it_came(tmp_path: Path, raw: bytes) -> None:
    reply, record, objects = sent(tmp_path, raw)
    assert reply == f"250 2.0.0 OK {record.message_id}"
    assert Status.PROCESSING_FAILED not in (record.verdicts.dkim.status, record.verdicts.dmarc.status)
    (stored,) = objects.values()
    assert stored.endswith(raw)


@pytest.mark.parametrize(
    ("author", "why"),
    [
        (b"", "no From"),
        (b"From: a@sender.example\r\nFrom: b@other.example\r\n", "several"),
        (b"From: a@sender.example, b@other.example\r\n", "several"),
        (b"From: not an address\r\n", "From"),
    ],
)
def test_a_mail_without_one_author_domain_fails_dmarc_and_says_why(tmp_path: Path, author: bytes, why: str) -> None:
    reply, record, _ = sent(tmp_path, author + b"Subject: x\r\n\r\nbody\r\n")
    assert reply.startswith("250 2.0.0 OK")
    assert record.verdicts.dmarc.status is Status.FAIL
    assert why.lower() in record.verdicts.dmarc.reason.lower()


def test_a_mail_of_the_largest_size_is_taken_and_one_octet_more_is_not(tmp_path: Path) -> None:
    size = 40 * 1024 * 1024
    line = b"x" * 76 + b"\r\n"
    head = mail("")
    body = line * ((size - len(head)) // len(line))
    raw = head + body + b"y" * (size - len(head) - len(body) - 2) + b"\r\n"
    assert len(raw) == size
    reply, record, objects = sent(tmp_path, raw)
    assert reply == f"250 2.0.0 OK {record.message_id}"
    assert next(iter(objects.values())).endswith(raw)
    shutil.rmtree(tmp_path / "data")
    reply, record, objects = sent(tmp_path, raw[:-2] + b"z\r\n")
    assert reply.startswith("552 5.3.4")
    assert (record, objects) == (None, {})


def test_ten_thousand_header_fields_are_refused(tmp_path: Path) -> None:
    raw = b"".join(b"X-%d: y\r\n" % number for number in range(10_000)) + mail()
    reply, record, objects = sent(tmp_path, raw)
    assert reply.startswith("5")
    assert "header" in reply
    assert (record, objects) == (None, {})


def test_ten_thousand_parts_are_stored_and_the_verdict_is_not_a_pass(tmp_path: Path) -> None:
    body = b"--x\r\n\r\na\r\n" * 10_000 + b"--x--\r\n"
    raw = b"From: pat@sender.example\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n" + body
    reply, record, objects = sent(tmp_path, raw)
    assert reply == f"250 2.0.0 OK {record.message_id}"
    assert record.verdicts.spam.status in (Status.GRAY, Status.FAIL)
    assert next(iter(objects.values())).endswith(raw)


def test_a_rule_file_with_ten_mistakes_tells_all_ten_with_their_places(tmp_path: Path) -> None:
    rules = """\
rules:
  - name: -bad-name
    recipients: [not@an@address]
    actions: [stop]
  - name: twice
    whne: {spf: fail}
    actions: [stop]
  - name: twice
    when: {spff: fail}
    actions: [stop]
  - name: three
    when: {subject: {regex: "(unclosed"}}
    actions:
      - s3: {bukcet: mail}
      - bounce: {smtp_reply_code: 550, status_code: 4.7.1, message: no}
      - explode: {}
  - name: four
    tls: sometimes
    when: {client_ip: 300.1.2.3}
    actions: []
"""
    with pytest.raises(ConfigurationError) as raised:
        sent(tmp_path, mail(), rules=rules)
    lines = {problem.line for problem in raised.value.problems}
    assert len(raised.value.problems) == 12
    assert {2, 3, 6, 8, 9, 12, 14, 15, 16, 18, 19, 20} <= lines
    told = str(raised.value)
    assert "did you mean 'when'?" in told
    assert "did you mean 'bucket'?" in told
    assert "did you mean 'spf'?" in told


def test_a_missing_certificate_stops_the_start_and_names_the_file(tmp_path: Path) -> None:
    tls = Tls(certificate=tmp_path / "missing.pem", key=tmp_path / "missing.key")
    with pytest.raises(ConfigurationError, match=r"missing\.pem: No such file"):
        sent(tmp_path, mail(), tls=tls)


def test_when_dns_is_dead_the_verdicts_say_so_and_a_rule_without_conditions_still_takes_the_mail(
    tmp_path: Path,
) -> None:
    reply, record, _ = sent(tmp_path, mail(), resolver="127.0.0.1:1")
    assert reply.startswith("250 2.0.0 OK")
    assert record.verdicts.spf.status is Status.PROCESSING_FAILED
    assert record.verdicts.dmarc.status is Status.PROCESSING_FAILED
    assert record.verdicts.iprev.result == "temperror"


def test_when_dns_is_silent_each_check_ends_at_its_deadline(tmp_path: Path) -> None:
    reply, record, _ = sent(tmp_path, mail(), dns=dict.fromkeys(DNS, "TIMEOUT"))
    assert reply.startswith("250 2.0.0 OK")
    assert record.verdicts.spf.status is Status.PROCESSING_FAILED


def test_when_clamd_is_gone_the_mail_waits_at_its_sender(tmp_path: Path) -> None:
    rules = """
rules:
  - name: refuse-malware
    when: {virus: fail}
    actions: [bounce: {smtp_reply_code: 554, status_code: 5.7.1, message: Malware}]
  - name: store
    recipients: [example.com]
    actions: [s3: {bucket: mail-all}]
"""
    reply, record, objects = sent(tmp_path, mail(), rules=rules, clamd=f"unix:{tmp_path}/no-clamd-here")
    assert reply.startswith("451 4.7.0 The virus check could not be completed")
    assert record.verdicts.virus.status is Status.PROCESSING_FAILED
    assert objects == {}


def test_when_the_disk_of_the_bucket_refuses_the_mail_is_deferred(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "s3").write_text("a file where the directory of buckets should be")
    reply, record, _ = sent(tmp_path, mail())
    assert reply.startswith("451 4.3.0")
    assert [ran.outcome for ran in record.ran] == ["failed"]


def test_an_unknown_function_defers_and_the_record_names_it(tmp_path: Path) -> None:
    rules = """
rules:
  - name: call
    recipients: [example.com]
    actions: [lambda: {function: nobody-wrote-it}]
"""
    reply, record, _ = sent(tmp_path, mail(), rules=rules)
    assert reply.startswith("451 4.3.0")
    assert "nobody-wrote-it" in record.ran[0].detail["detail"]
    assert "nobody-wrote-it" not in reply
