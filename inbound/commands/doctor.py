"""`inbound doctor`."""

import argparse
import sys
from dataclasses import asdict
from typing import Any

from inbound import doctor
from inbound.commands import FOUND, UNABLE, WELL, command, put, settings_of
from inbound.journal import printable


def add(commands: Any) -> None:
    """Tell the parser."""
    looking = command(
        commands,
        "doctor",
        _doctor,
        "Say what is wrong with the MX, SPF and DMARC records of domains; without any, of ours.",
    )
    looking.add_argument("domains", nargs="*", metavar="DOMAIN")
    looking.add_argument("--resolver", metavar="IP:PORT", help="the DNS resolver to ask")
    looking.add_argument("--json", action="store_true", help="print one JSON document a line")


def _doctor(options: argparse.Namespace) -> int:
    loaded = settings_of(options, resolver=options.resolver)
    code = WELL
    for domain in options.domains or [one for one in loaded.domains if not one.startswith(".")]:
        try:
            findings = doctor.look_at(domain, loaded.resolver)
        except ValueError as error:
            print(f"inbound: {error}", file=sys.stderr)
            return UNABLE
        code = FOUND if any(one.error for one in findings) else code
        if options.json:
            document: dict[str, Any] = {"domain": domain, **{str(one.check): asdict(one) for one in findings}}
            put(document)
        else:
            print(printable("\n".join(doctor.lines(domain, findings))))
    return code
