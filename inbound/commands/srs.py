"""`inbound srs`."""

import argparse
import sys
from typing import Any

from inbound.app import own_srs
from inbound.commands import FOUND, WELL, command, settings_of
from inbound.srs import SrsError


def add(commands: Any) -> None:
    """Tell the parser."""
    text = "Say whose an SRS address of ours is, or what a sender is rewritten to (relay.srs_domain in the settings)."
    command(commands, "srs", _srs, text).add_argument("addresses", nargs="+", metavar="ADDRESS")


def _srs(options: argparse.Namespace) -> int:
    srs, code = own_srs(settings_of(options)), WELL
    for address in options.addresses:
        try:
            print(srs.reverse(address) if srs.claims(address) else srs.forward(address))
        except SrsError as error:
            print(f"inbound: {address}: {error}", file=sys.stderr)
            code = FOUND
    return code
