"""The command line: `inbound serve | check | rules | get | ls | open | quarantine | setup | reports | srs | doctor | demo`."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from inbound import __version__
from inbound.commands import (
    FOUND,
    UNABLE,
    WELL,
    check,
    demo,
    doctor,
    get,
    ls,
    quarantine,
    reports,
    rules,
    serve,
    setup,
    srs,
)
from inbound.commands import open as opening
from inbound.errors import ConfigurationError, Failure
from inbound.journal import printable

COMMANDS = (serve, check, rules, get, ls, opening, quarantine, setup, reports, srs, doctor, demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("mail").setLevel(logging.WARNING)  # aiosmtpd tells every line of every session
    try:
        code: int = options.run(options)
    except ConfigurationError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return UNABLE
    except Failure as failure:
        print(printable(f"inbound: {failure}"), file=sys.stderr)
        return FOUND
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WELL
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inbound", description="Inbound mail: receive, judge, and do as the rules say."
    )
    parser.add_argument("--version", action="version", version=f"inbound {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add(commands)
    return parser
