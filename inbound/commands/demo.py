"""`inbound demo`: every sample through a receiver."""

import argparse
import logging
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from inbound.app import clamd_of
from inbound.commands import FOUND, WELL, command, settings_of
from inbound.demo import Demo, Outcome, differences, without_scanner
from inbound.journal import printable
from inbound.settings import Settings
from inbound.verdicts import Status


def add(commands: Any) -> None:
    """Tell the parser."""
    command(commands, "demo", _demo, "Send every sample through a receiver by SMTP and print what became of it.")


def _demo(options: argparse.Namespace) -> int:
    loaded = settings_of(options)
    # Of the settings nothing else: the samples are about the shipped rules, and must touch nobody's store.
    return uvloop.run(_send_all(Settings(listen=("127.0.0.1:0",), clamd=clamd_of(loaded), resolver=loaded.resolver)))


async def _send_all(loaded: Settings) -> int:
    """Every sample through one receiver. A sample that comes out otherwise than it says is shown, and counts."""
    logging.getLogger().setLevel(logging.ERROR)
    amiss, unscanned = 0, []
    with tempfile.TemporaryDirectory(prefix="inbound-demo-") as directory:
        async with Demo(replace(loaded, data_dir=Path(directory))) as demo:
            print(_ROW.format("SAMPLE", "SPF", "DKIM", "DMARC", "SPAM", "VIRUS", "RULES MET", "REPLY"))
            for message, sample in demo.samples.items():
                outcome = await demo.send(message)
                print(printable(_row(message.stem, outcome)), flush=True)
                expected = sample if loaded.clamd else without_scanner(sample)
                if expected is None:
                    unscanned.append(message.stem)
                    continue
                otherwise = differences(expected, outcome)
                amiss += bool(otherwise)
                for difference in otherwise:
                    print(f"    expected otherwise: {difference}")
            where = next(iter(demo.samples)).parent
    print(f"\n{len(demo.samples) - amiss - len(unscanned)} came out as their stories say, {amiss} otherwise.")
    print(f"The stories are in {where}/NAME.yaml; why one came out so: inbound check {where}/NAME.eml")
    if not loaded.clamd:
        opaque = [at.stem for at, one in demo.samples.items() if one.expect.verdicts.get("virus") == Status.GRAY]
        print(_NO_SCANNER.format(", ".join(unscanned), ", ".join(opaque)))
    return FOUND if amiss else WELL


_NO_SCANNER = """
VIRUS is off: no clamd is set, and none listens at its usual place. So {} was taken, and nobody looked into {}.
On Debian `apt-get install clamav-daemon` brings it; elsewhere name it in INBOUND_CLAMD, as unix:/PATH or tcp:HOST:PORT."""

_ROW = "{:<21} {:<5} {:<5} {:<5} {:<5} {:<5} {:<20} {}"
_REPLY = 47  # characters of a reply, so that a row fits into 120 columns
_SHORT = {"PROCESSING_FAILED": "ERROR", "DISABLED": "off"}


def _row(name: str, outcome: Outcome) -> str:
    record = outcome.record
    if record is None:
        return _ROW.format(name, *("-" * 5), "at RCPT", _cut(outcome.told))
    verdicts = record.verdicts
    words = (verdicts.spf, verdicts.dkim, verdicts.dmarc, verdicts.spam, verdicts.virus)
    met = dict.fromkeys(trace.name for walk in record.walks for trace in walk.traces if trace.met)
    told = outcome.told.removesuffix(f" {record.message_id}")
    told += "".join(f"; {who} {reply}" for who, reply in outcome.refused.items())
    return _ROW.format(
        name, *(_SHORT.get(word.status, word.status) for word in words), ", ".join(met) or "-", _cut(told)
    )


def _cut(text: str) -> str:
    return textwrap.shorten(text, _REPLY, placeholder=" ...")
