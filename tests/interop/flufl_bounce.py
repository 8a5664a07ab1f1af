"""Reads the paths of bounces, one a line, with flufl.bounce; prints the recipients it takes to have failed, one a line."""

import json
import sys
from email import message_from_bytes
from pathlib import Path

from flufl.bounce import all_failures  # type: ignore[import-not-found]

for path in sys.stdin.read().splitlines():
    temporary, permanent = all_failures(message_from_bytes(Path(path).read_bytes()))
    told = [sorted(address.decode() for address in found) for found in (temporary, permanent)]
    print(json.dumps(told), flush=True)  # noqa: T201
