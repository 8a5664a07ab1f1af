"""Every sample comes out as its story says: by SMTP through the whole path, and judged from its file."""

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import dkim
import pytest

from inbound.app import DEBIAN_CLAMD, rules_of
from inbound.cli import main
from inbound.demo import Demo, Outcome, differences, without_scanner
from inbound.samples import Sample, all_samples, crlf
from inbound.settings import Settings
from tests.servers import RunningClamd

DIRECTORY = Path(__file__).parents[1] / "samples"
SAMPLES: Mapping[str, tuple[Path, Sample]] = {at.stem: (at, sample) for at, sample in all_samples().items()}
SETTINGS = Settings(listen=("127.0.0.1:0",), hostname="mx.example.com", log="json")

each = pytest.mark.parametrize("name", SAMPLES)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came of all samples in one receiver, and where it kept what it stored."""

    outcomes: Mapping[str, Outcome]
    data: Path


@pytest.fixture(scope="module")
def run(running_clamd: RunningClamd, tmp_path_factory: pytest.TempPathFactory) -> Run:
    data = tmp_path_factory.mktemp("samples")

    async def send() -> dict[str, Outcome]:
        async with Demo(replace(SETTINGS, data_dir=data, clamd=running_clamd.unix)) as demo:
            return {at.stem: await demo.send(at) for at in demo.samples}

    return Run(outcomes=asyncio.run(send()), data=data)


@each
def test_a_sample_sent_by_smtp_comes_out_as_it_says(name: str, run: Run) -> None:
    assert differences(SAMPLES[name][1], run.outcomes[name]) == []


@each
def test_a_sample_checked_from_its_file_comes_out_as_it_says(
    name: str, running_clamd: RunningClamd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message, sample = SAMPLES[name]
    monkeypatch.setenv("INBOUND_CLAMD", running_clamd.unix)
    assert main(["check", str(message), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expect = sample.expect
    said = {
        check: found[check].get("status", found[check]["result"] if check == "arc" else "") for check in expect.verdicts
    }
    met = {
        who: tuple(rule["name"] for rule in walk["rules"] if rule["met"]) for who, walk in found["recipients"].items()
    }
    assert said == expect.verdicts
    assert {who: met[who] for who in expect.rules} == expect.rules
    assert f"{found['reply']['code']} {found['reply']['enhanced']}" == expect.reply


@each
def test_what_was_promised_is_stored_and_nothing_else_is(name: str, run: Run) -> None:
    """Under the message's id, once for each recipient's rule."""
    outcome = run.outcomes[name]
    record = outcome.record
    keys = [path.parent.name if path.parent.name != "in" else path.parent.parent.name for path in _stored(run, outcome)]
    buckets = {
        "support": "mail-support",
        "orders": "mail-orders",
        "payroll": "mail-payroll",
        "spam-apart": "mail-spam",
        "postmaster-and-abuse": "mail-admin",
    }
    promised = record is not None and record.reply.code == 250
    met = [rule for rules in SAMPLES[name][1].expect.rules.values() for rule in rules]
    assert sorted(keys) == sorted(buckets[rule] for rule in met if promised)


def _stored(run: Run, outcome: Outcome) -> list[Path]:
    return list((run.data / "s3").rglob(outcome.record.message_id)) if outcome.record else []


def test_nothing_is_stored_beside_what_was_promised(run: Run) -> None:
    known = {path for outcome in run.outcomes.values() for path in _stored(run, outcome)}
    objects = {path for path in (run.data / "s3").rglob("*") if path.is_file() and path.name[0] != "."}
    objects = {path for path in objects if path.suffix != ".json"}
    assert objects == known


def test_an_order_calls_the_function(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def send() -> str:
        async with Demo(replace(SETTINGS, data_dir=tmp_path)) as demo:
            outcome = await demo.send(SAMPLES["order"][0])
            async with asyncio.timeout(30):
                while not any("function order-from-mail" in text for text in caplog.messages):  # noqa: ASYNC110 - a log
                    await asyncio.sleep(0.05)
        assert outcome.record is not None
        return outcome.record.message_id

    with caplog.at_level(logging.INFO, logger="inbound.clients.invoke"):
        message_id = asyncio.run(send())
    (told,) = [text for text in caplog.messages if "function order-from-mail" in text]
    assert told == (
        f"function order-from-mail: order {message_id} from kim@customer.example: Order 4711 "
        "(spf PASS, dkim PASS, dmarc PASS, spam PASS, virus DISABLED)"
    )


def test_without_a_scanner_virus_is_off_and_the_samples_that_need_it_are_known(tmp_path: Path) -> None:
    async def send() -> dict[str, list[str]]:
        found = {}
        async with Demo(replace(SETTINGS, data_dir=tmp_path)) as demo:
            for at, sample in demo.samples.items():
                expected = without_scanner(sample)
                outcome = await demo.send(at)
                found[at.stem] = ["needs one"] if expected is None else differences(expected, outcome)
        return found

    assert {name: found for name, found in asyncio.run(send()).items() if found} == {"eicar": ["needs one"]}


GOOD = """\
ID
  from       <pat@sender.example> by mx.sender.example [192.0.2.10], in clear, 947 octets
  to         support@example.com
  spf        PASS pass for sender.example (MAIL FROM)
  dkim       PASS pass for sender.example (rsa-sha256, s1), aligned
  dmarc      PASS pass for sender.example by spf and dkim, sender.example asks for reject
  iprev      pass mx.sender.example
  spam       PASS score -1.5
                  -1.5 DKIM_ALIGNED: sender.example
  virus      PASS
  rules      for support@example.com
    not met    refuse-malware  virus is PASS, not fail
    not met    refuse-forged   spam is PASS, not gray or fail
    not met    spam-apart      spam is PASS, not fail
    met        support         it has no condition
    so         add_header, s3, stop: 250 2.0.0
  done       add_header of support (MS)
  done       s3 of support: object mail-support/in/ID (MS)
  done       stop of support (MS)
  time       MS: CHECKS
  reply      250 2.0.0 OK ID"""


def test_a_record_reads_from_the_envelope_to_the_reply(run: Run) -> None:
    record = run.outcomes["good"].record
    assert record is not None
    text = "\n".join(record.lines()).replace(record.message_id, "ID")
    text = re.sub(r"(?m)^(  time       ).*", r"\1MS: CHECKS", text)
    assert re.sub(r"\d+\.\d ms", "MS", text) == GOOD


@each
def test_the_lines_of_a_record_are_short_and_about_its_own_rules(name: str, run: Run) -> None:
    record = run.outcomes[name].record
    lines = record.lines() if record else []
    assert [line for line in lines if "none of its recipients" in line] == []
    assert [line for line in lines if len(line) > 180] == []
    assert lines == [] or lines[-1] == f"  reply      {run.outcomes[name].told}"


def demo(**environment: str) -> "subprocess.CompletedProcess[str]":
    usual = {name: value for name, value in os.environ.items() if not name.startswith("INBOUND_")}
    command = [sys.executable, "-m", "inbound", "demo"]
    return subprocess.run(command, env=usual | environment, check=False, timeout=50, capture_output=True, text=True)


def test_the_demo_prints_a_row_for_each_sample_that_fits_the_screen(running_clamd: RunningClamd) -> None:
    done = demo(INBOUND_CLAMD=running_clamd.unix)
    table, _, rest = done.stdout.partition("\n\n")
    head, *rows = table.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert head.split() == ["SAMPLE", "SPF", "DKIM", "DMARC", "SPAM", "VIRUS", "RULES", "MET", "REPLY"]
    assert [row.split()[0] for row in rows] == list(SAMPLES)
    assert [row for row in (head, *rows) if len(row) > 120] == []
    assert f"{len(SAMPLES)} came out as their stories say, 0 otherwise." in rest


@pytest.mark.skipif(DEBIAN_CLAMD.is_socket(), reason="a clamd listens at its usual place, and would be used")
def test_the_demo_without_a_scanner_says_what_is_missing() -> None:
    done = demo()
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(SAMPLES) - 1} came out as their stories say, 0 otherwise." in done.stdout
    assert "So eicar was taken, and nobody looked into locked-zip." in done.stdout


# What the samples are together


def test_messages_and_descriptions_come_in_pairs() -> None:
    messages = {path.stem for path in DIRECTORY.glob("*.eml")}
    assert messages == {path.stem for path in DIRECTORY.glob("*.yaml")} == set(SAMPLES)
    assert "good" in messages


@each
def test_a_story_is_a_few_sentences(name: str) -> None:
    story = SAMPLES[name][1].story
    assert 2 <= len(re.findall(r"[.:;](?: |$)", story)) <= 7
    assert 80 < len(story) < 500
    assert story == " ".join(story.split())


def test_every_shipped_rule_is_met_by_a_sample() -> None:
    met = {rule for _, sample in SAMPLES.values() for rules in sample.expect.rules.values() for rule in rules}
    refused_at_rcpt = {"retired-addresses"}  # it is certain there, so no message is ever judged
    assert {rule.name for rule in rules_of(SETTINGS).rules} == met | refused_at_rcpt


def test_every_kind_of_reply_is_met_by_a_sample() -> None:
    after_data = {sample.expect.reply for _, sample in SAMPLES.values() if sample.expect.verdicts}
    at_rcpt = {sample.expect.reply for _, sample in SAMPLES.values() if not sample.expect.verdicts}
    at_rcpt |= {reply for _, sample in SAMPLES.values() for reply in sample.expect.refused.values()}
    assert after_data == {"250 2.0.0", "451 4.7.0", "550 5.7.1", "554 5.7.1"}
    assert at_rcpt == {"452 4.5.3", "530 5.7.0", "550 5.1.1", "550 5.1.6", "550 5.7.1"}


def test_every_status_of_every_check_is_met_by_a_sample() -> None:
    found = {(check, said) for _, sample in SAMPLES.values() for check, said in sample.expect.verdicts.items()}
    statuses = {
        (check, status) for check in ("spf", "dkim", "dmarc", "spam", "virus") for status in ("PASS", "FAIL", "GRAY")
    }
    assert statuses <= found
    assert ("dmarc", "PROCESSING_FAILED") in found


def test_a_wrong_expectation_is_noticed(run: Run) -> None:
    """Whatever one changes in what a sample expects, `differences` tells it."""
    sample, outcome = SAMPLES["separate-answers"][1], run.outcomes["separate-answers"]
    expect = sample.expect
    wrong = [
        *(replace(expect, verdicts=expect.verdicts | {check: "no"}) for check in expect.verdicts),
        replace(expect, verdicts={}),
        *(replace(expect, rules={who: (*rules, "more")}) for who, rules in expect.rules.items()),
        replace(expect, refused={}),
        replace(expect, refused={"support@example.com": "550 5.1.1"}),
        replace(expect, reply="250 2.1.5"),
    ]
    assert [len(differences(replace(sample, expect=one), outcome)) for one in wrong] == [1] * len(wrong)
    early, refused = SAMPLES["unknown-recipient"][1], run.outcomes["unknown-recipient"]
    assert differences(replace(early, expect=replace(early.expect, reply=expect.reply)), refused)
    assert differences(replace(early, expect=replace(early.expect, verdicts=expect.verdicts)), refused)


# How they are made


def test_the_script_makes_the_same_messages_again(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(DIRECTORY / "make.py"), str(tmp_path)], check=True, timeout=50)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in DIRECTORY.glob("*.eml")}


def test_key_records_are_those_of_the_keys() -> None:
    printed = subprocess.run(
        [sys.executable, str(DIRECTORY / "make.py"), "--dns"], check=True, timeout=50, capture_output=True, text=True
    )
    published = {record for _, sample in SAMPLES.values() for record in _keys(sample).values()}
    assert published == set(printed.stdout.split("\n")) - {""}


@pytest.mark.parametrize(
    "name", ["good", "order", "double-signed", "forwarded", "mailing-list", "smtputf8", "appended"]
)
def test_another_verifier_agrees_about_the_signatures(name: str) -> None:
    """Dkimpy, which takes l= as RFC 6376 allows and we do not."""
    message, sample = SAMPLES[name]
    raw = crlf(message.read_bytes())
    signatures = raw.partition(b"\r\n\r\n")[0].count(b"DKIM-Signature:")
    found = [_verifies(raw, at, sample) for at in range(signatures)]
    assert found == {"double-signed": [True, True], "mailing-list": [True, False]}.get(name, [True])


def _verifies(raw: bytes, at: int, sample: Sample) -> bool:
    try:
        return bool(dkim.DKIM(raw).verify(at, dnsfunc=_dns(sample)))
    except dkim.ValidationError:
        return False


def test_another_verifier_agrees_about_the_seal() -> None:
    message, sample = SAMPLES["mailing-list"]
    found, _, reason = dkim.ARC(crlf(message.read_bytes())).verify(dnsfunc=_dns(sample))
    assert (found, reason) == (b"pass", "success")


def _dns(sample: Sample) -> Callable[..., bytes]:
    keys = _keys(sample)

    def ask(name: bytes, **_: float) -> bytes:
        return keys[name.decode().rstrip(".")].encode()

    return ask


def _keys(sample: Sample) -> dict[str, str]:
    return {name: "".join(entry["TXT"][0]) for name, entry in sample.dns.items() if "._domainkey." in name}


@each
def test_files_have_unix_line_ends_and_no_long_lines(name: str) -> None:
    raw = SAMPLES[name][0].read_bytes()
    assert b"\r" not in raw
    assert raw.endswith(b"\n")
    assert max(map(len, raw.split(b"\n"))) <= 998  # RFC 5322 2.1.1
