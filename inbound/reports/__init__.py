"""DMARC aggregate reports (RFC 9990): what is collected for the domains that others write from, and what others report to us.

    collect   each judged message becomes a row with a count: in memory first, then in batches on the disk
    store     the rows of each domain and day, in one SQLite file
    rua       who asked for a domain's reports, and may have them
    write     one XML file for each domain and period
    send      the files of a day, mailed to who asked for them, once to each
    read      a report that was received, whatever it is wrapped in

1. Off by default. Collecting never holds up a message and never changes an answer: what cannot be kept is dropped and told.
2. Rows hold domains, addresses of clients and results; no local part, no recipient, no content (RFC 9990, privacy).
3. Days are UTC days. A report has the policy that was seen last in its period.
"""

import re
from dataclasses import dataclass
from typing import Literal

from inbound.verdicts import DkimResult, SpfResult

DAY = 86_400  # seconds

Disposition = Literal["none", "pass", "quarantine", "reject"]
Override = Literal["local_policy", "mailing_list", "other", "policy_test_mode", "trusted_forwarder"]

NAME = re.compile(r"[a-z0-9_-][a-z0-9_.-]{0,252}")  # a domain that may be part of a file's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One DKIM signature as it was, whether or not it counts for DMARC."""

    domain: str
    selector: str
    result: DkimResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a number of messages have in common. `domain` is where the policy was found (RFC 9990: policy domain).

    `dkim` and `spf` tell whether they passed in alignment; `signatures`, `spf_domain` and `spf_result` what they were before
    that. `envelope_from` is "" for the null reverse-path; without `spf_domain` nothing is said of SPF.
    """

    day: int  # days since 1970
    domain: str
    source_ip: str
    disposition: Disposition
    dkim: bool
    spf: bool
    override: Override | None
    header_from: str
    envelope_from: str
    signatures: tuple[Signature, ...] = ()
    spf_domain: str = ""
    spf_result: SpfResult = "none"
