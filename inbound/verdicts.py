"""What the stages found: one frozen record for each check, with SES's status word, the field's own result and evidence.

Status words are SES's (AWS: "Contents of notifications for Amazon SES email receiving"). How each result maps to one is
fixed in the README's table. PROCESSING_FAILED is always our trouble or the network's; no sender can choose it.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class Status(StrEnum):
    """SES's verdict words."""

    PASS = "PASS"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    GRAY = "GRAY"
    PROCESSING_FAILED = "PROCESSING_FAILED"
    DISABLED = "DISABLED"


SpfResult = Literal["pass", "fail", "softfail", "neutral", "none", "permerror", "temperror"]
DkimResult = Literal["pass", "fail", "policy", "neutral", "none", "permerror", "temperror"]
DmarcResult = Literal["pass", "fail", "none", "permerror", "temperror"]
IprevResult = Literal["pass", "fail", "permerror", "temperror", "none"]  # none: not looked up
ArcResult = Literal["pass", "fail", "none", "temperror"]
UpstreamResult = Literal["pass", "fail", "none", "temperror"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpfVerdict:
    """RFC 7208. `domain` and `identity` say whose policy was asked; `explanation` is the domain's, sanitised.

    `dnssec`: a trusted resolver had validated everything that DNS said.
    """

    status: Status
    result: SpfResult
    domain: str = ""
    identity: Literal["mailfrom", "helo"] = "mailfrom"
    explanation: str = ""
    reason: str = ""
    dnssec: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimSignature:
    """One DKIM-Signature field (RFC 6376), in header order; what could not be parsed has result permerror and no domain."""

    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    key_bits: int = 0
    identity: str = ""  # i=, as header.i in Authentication-Results
    aligned: bool = False
    result: DkimResult
    reason: str = ""
    dnssec: bool = False  # a trusted resolver had validated the key record


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimVerdict:
    """`status` speaks of the signatures aligned with From, `result` is the best over all of them (design 4)."""

    status: Status
    result: DkimResult
    signatures: tuple[DkimSignature, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DmarcVerdict:
    """RFC 9989. `policy` is published for this author (p, sp or np), `applied_policy` what is left after t=y.

    `record` is the text of the record that applies, as it was found at `record_domain`; `dnssec` tells whether a trusted
    resolver had validated it.
    """

    status: Status
    result: DmarcResult
    from_domain: str = ""
    organizational_domain: str = ""
    record_domain: str = ""
    policy: Literal["", "none", "quarantine", "reject"] = ""
    applied_policy: Literal["", "none", "quarantine", "reject"] = ""
    aligned: tuple[Literal["spf", "dkim"], ...] = ()
    reason: str = ""
    record: str = ""
    dnssec: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ArcVerdict:
    """RFC 8617 chain validation: evidence only, no trust follows from it."""

    result: ArcResult
    sets: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IprevVerdict:
    """RFC 8601 2.7.3: does the client's PTR name lead back to its address? `name` is the confirmed name."""

    result: IprevResult
    name: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamVerdict:
    """What a forwarder that the operator trusts found for the same author domain, by its Authentication-Results.

    `results` are its words (`spf=pass`). `none` where there is no such forwarder, or it says nothing of that domain.
    """

    result: UpstreamResult
    authserv_id: str = ""
    results: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """One named spam test that fired: its weight in the score, and what it saw."""

    name: str
    weight: float
    evidence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpamVerdict:
    """PASS below the low mark, FAIL at or above the high mark, GRAY between them or when the mail is not readable MIME."""

    status: Status
    score: float = 0.0
    symbols: tuple[Symbol, ...] = ()
    engine: str = "builtin"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VirusVerdict:
    """GRAY when the engine could not look inside (encrypted, over its limits). `signature` is the engine's name for it."""

    status: Status
    signature: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One block-list entry that matched: the operator's own `deny`/`allow` CIDR, or a DNSBL zone with its return codes."""

    list: str  # "deny", "allow" or the zone
    entry: str  # the CIDR, or the A records returned, comma separated
    meaning: str = ""  # what the settings say of that return code, or the zone's TXT


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockVerdict:
    """The operator's lists about this client. `unanswered` names the DNSBL zones that gave no answer: they list nobody."""

    blocked: bool = False
    listings: tuple[Listing, ...] = ()
    unanswered: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """The client is on the operator's `allow` list."""
        return any(listing.list == "allow" for listing in self.listings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Everything the stages found about one message. `timings_ms` holds what each took, by stage name."""

    spf: SpfVerdict
    dkim: DkimVerdict
    dmarc: DmarcVerdict
    arc: ArcVerdict
    iprev: IprevVerdict
    spam: SpamVerdict
    virus: VirusVerdict
    block: BlockVerdict = BlockVerdict()
    upstream: UpstreamVerdict = UpstreamVerdict(result="none")
    timings_ms: dict[str, float] = field(default_factory=dict)


ALL_PASSED = Verdicts(  # an ordinary mail: every check passed, nothing more was found
    spf=SpfVerdict(status=Status.PASS, result="pass"),
    dkim=DkimVerdict(status=Status.PASS, result="pass"),
    dmarc=DmarcVerdict(status=Status.PASS, result="pass"),
    arc=ArcVerdict(result="none"),
    iprev=IprevVerdict(result="none"),
    spam=SpamVerdict(status=Status.PASS),
    virus=VirusVerdict(status=Status.PASS),
)
