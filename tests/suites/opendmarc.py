"""Asks Debian's libopendmarc, in a process of its own. python opendmarc.py LIBRARY SUFFIXES PORT, then JSON lines:

in: {"from": "a.example", "spf": ["pass", "a.example"], "dkim": [["pass", "b.example"]]}
out: "pass", "none" (no record), "unusable" (a bad one), "temperror", or what it would enforce on the failure: "reject",
"quarantine", "nothing"
"""

import ctypes
import json
import socket
import sys
from typing import Any

PATH = 4096  # MAXPATHLEN
SERVERS = 3  # MAXNS
OUTCOMES = {"none": 0, "pass": 1, "fail": 2, "temperror": 3}
MAIL_FROM, HELO = 1, 2
WORDS = {
    4: "unusable",
    9: "none",
    10: "none",
    11: "temperror",
    14: "none",
    15: "pass",
    16: "reject",
    17: "quarantine",
    18: "nothing",
}


class Address(ctypes.Structure):
    """struct sockaddr_in."""

    _fields_ = (
        ("family", ctypes.c_ushort),
        ("port", ctypes.c_ushort),
        ("address", ctypes.c_ubyte * 4),
        ("zero", ctypes.c_ubyte * 8),
    )


class Library(ctypes.Structure):
    """OPENDMARC_LIB_T."""

    _fields_ = (
        ("tld_type", ctypes.c_int),
        ("tld_source_file", ctypes.c_char * PATH),
        ("nscount", ctypes.c_int),
        ("nsaddr_list", Address * SERVERS),
    )


def main(path: str, suffixes: str, port: int) -> None:
    """Answer every line."""
    opendmarc = ctypes.CDLL(path)
    opendmarc.opendmarc_policy_connect_init.restype = ctypes.c_void_p
    library = Library(tld_type=1, tld_source_file=suffixes.encode(), nscount=1)
    library.nsaddr_list[0] = Address(socket.AF_INET, socket.htons(port), (127, 0, 0, 1))
    if opendmarc.opendmarc_policy_library_init(ctypes.byref(library)):
        sys.exit("it cannot be initialised")
    for line in sys.stdin:
        sys.stdout.write(verdict(opendmarc, json.loads(line)) + "\n")


def verdict(opendmarc: Any, case: dict[str, Any]) -> str:
    """What it makes of one message."""
    context = ctypes.c_void_p(opendmarc.opendmarc_policy_connect_init(b"192.0.2.1", 4))
    try:
        opendmarc.opendmarc_policy_store_from_domain(context, case["from"].encode())
        if "spf" in case:
            result, domain = case["spf"]
            opendmarc.opendmarc_policy_store_spf(context, domain.encode(), OUTCOMES[result], MAIL_FROM, b"")
        for result, domain in case.get("dkim", ()):
            opendmarc.opendmarc_policy_store_dkim(context, domain.encode(), b"s1", OUTCOMES[result], b"")
        found = opendmarc.opendmarc_policy_query_dmarc(context, case["from"].encode())
        if found not in (0, 9, 10):
            return WORDS.get(found, f"status {found}")
        status = opendmarc.opendmarc_get_policy_to_enforce(context)
        return WORDS.get(status, f"status {status}")
    finally:
        opendmarc.opendmarc_policy_connect_shutdown(context)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
