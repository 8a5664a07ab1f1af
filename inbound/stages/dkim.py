"""DKIM (RFC 6376, 8301, 8463): which domains have signed this message as it is now.

1. Every DKIM-Signature field gets a result of its own, in header order. The topmost `SIGNATURES` are examined; what stands
   below them is listed with `policy`.
2. Keys are fetched side by side; then header and body are hashed, in a thread when they are big.
3. A valid signature still does not pass when it leaves something open that a reader would take for signed: From, a second
   Subject, what stands behind l= (RFC 6376 8.2, 8.15). Such ones are `permerror` or `policy`.
4. The status speaks of the signatures aligned with From only, because those of others say nothing about its author.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inbound.addresses import a_labels
from inbound.errors import TemporaryFailure
from inbound.mail import HeaderField, Mail
from inbound.offload import offload, side_by_side
from inbound.stages import Resolver
from inbound.stages.alignment import aligned, author_of
from inbound.stages.canonical import Hashes, hashes_of
from inbound.stages.signatures import (
    CLOCK_SKEW,
    Key,
    Rejected,
    Signature,
    check_key,
    domain_of,
    read_key,
    read_signature,
    tags_of,
    verify,
)
from inbound.verdicts import DkimResult, DkimSignature, DkimVerdict, Status

SIGNATURES = 10  # examined; OpenDKIM's MaximumSignaturesToVerify is 3, Google's gateways take 5 to 10
KEY_RECORDS = 4  # TXT records tried at one selector; RFC 6376 3.6.2.2 leaves more than one undefined

# Fields of which a reader sees one, though there may be two (RFC 6376 8.15, RFC 5322 3.6)
SEEN_ONCE = ("from", "sender", "reply-to", "to", "cc", "subject", "date", "content-type", "content-transfer-encoding")

_NOT_SHOWN = re.compile(r"[^!-~]+")

BEST_FIRST: tuple[DkimResult, ...] = ("pass", "temperror", "policy", "fail", "neutral", "permerror", "none")


@dataclass(slots=True, kw_only=True)
class _Examined:
    """What is known of one field so far, and what is left to be verified: `signature` by `keys`, where there is one."""

    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    identity: str = ""
    key_bits: int = 0
    aligned: bool = False
    result: DkimResult = "permerror"
    reason: str = ""
    dnssec: bool = False
    signature: Signature | None = None
    keys: tuple[str, ...] = ()

    def leave(self, result: DkimResult, reason: str) -> "_Examined":
        """Nothing is left to be verified."""
        self.signature, self.result, self.reason = None, result, reason
        return self

    @property
    def report(self) -> DkimSignature:
        return DkimSignature(
            domain=self.domain,
            selector=self.selector,
            algorithm=self.algorithm,
            key_bits=self.key_bits,
            identity=self.identity,
            aligned=self.aligned,
            result=self.result,
            reason=self.reason,
            dnssec=self.dnssec,
        )


class Dkim:
    """The stage. `now` is seconds since 1970; `accept_length` lets a signature with l= pass."""

    name = "dkim"

    def __init__(
        self, resolver: Resolver, *, now: Callable[[], float] = time.time, accept_length: bool = False
    ) -> None:
        self._resolver = resolver
        self._now = now
        self._accept_length = accept_length

    def broken(self, reason: str) -> DkimVerdict:
        """The check failed, not the signer."""
        return DkimVerdict(status=Status.PROCESSING_FAILED, result="temperror", reason=reason)

    async def __call__(self, mail: Mail) -> DkimVerdict:
        """Examine every signature."""
        fields = mail.headers.all("dkim-signature")
        if not fields:
            return DkimVerdict(status=Status.GRAY, result="none", reason="no signature")
        big = mail.is_big
        examined = await offload(self._read_all, fields) if big else self._read_all(fields)
        await side_by_side(self._find_keys(one) for one in examined)
        hashes = hashes_of(mail)
        if big:
            await offload(self._verify, hashes, examined)
        else:
            self._verify(hashes, examined)
        author = (await offload(author_of, mail) if big else author_of(mail)).domain
        troubles = await side_by_side(self._align(one, author, ask=at < SIGNATURES) for at, one in enumerate(examined))
        return _verdict(tuple([one.report for one in examined]), next(filter(None, troubles), ""))

    def _read_all(self, fields: tuple[HeaderField, ...]) -> list[_Examined]:
        return [self._read(field, examine=at < SIGNATURES) for at, field in enumerate(fields)]

    def _read(self, field: HeaderField, *, examine: bool) -> _Examined:
        try:
            tags = tags_of(field.raw.partition(b":")[2])
        except Rejected as rejected:
            return _Examined(result=rejected.result, reason=rejected.reason)
        examined = _Examined(
            domain=_domain(tags),
            selector=_shown(tags.get("s", "")),
            algorithm=_shown(tags.get("a", "")).lower(),
            identity=_shown(tags.get("i", "")),
        )
        if not examine:
            return examined.leave("policy", f"more than {SIGNATURES} signatures")
        try:
            signature = read_signature(field, tags, required=("v", "a", "b", "bh", "d", "h", "s"))
            self._check(signature, tags)
        except Rejected as rejected:
            return examined.leave(rejected.result, rejected.reason)
        examined.signature, examined.identity = signature, signature.identity
        return examined

    def _check(self, signature: Signature, tags: dict[str, str]) -> None:
        """What can be said before the key is known (RFC 6376 3.5, 6.1.1; 8301 3.1)."""
        if tags["v"] != "1":
            raise Rejected("permerror", "v= is not 1")
        if signature.algorithm == "rsa-sha1":
            raise Rejected("policy", "rsa-sha1 is not to be trusted")
        if signature.algorithm not in ("rsa-sha256", "ed25519-sha256"):
            raise Rejected("permerror", "a= names no algorithm")
        if "dns/txt" not in [method.strip(" \t\r\n") for method in tags.get("q", "dns/txt").split(":")]:
            raise Rejected("permerror", "q= names no way to the key")
        _check_identity(signature)
        if "from" not in signature.signed:
            raise Rejected("permerror", "From is not signed")
        now = self._now()
        if signature.expires is not None and signature.expires < (signature.timestamp or 0):
            raise Rejected("permerror", "x= is before t=")
        if signature.expires is not None and signature.expires < now:
            raise Rejected("fail", "the signature has expired")
        if signature.timestamp is not None and signature.timestamp > now + CLOCK_SKEW:
            raise Rejected("fail", "the signature is from the future")

    async def _find_keys(self, one: _Examined) -> None:
        if one.signature is None:
            return
        try:
            answer = await self._resolver.query(one.signature.key_name, "TXT")
        except TemporaryFailure as failure:
            one.leave("temperror", str(failure))
            return
        one.dnssec = answer.authenticated
        one.keys = answer.records[:KEY_RECORDS]
        if not one.keys:
            one.leave("permerror", "there is no such key")

    def _verify(self, hashes: Hashes, examined: list[_Examined]) -> None:
        """The part that takes a processor."""
        for one in examined:
            if one.signature is not None:  # the best that its keys make of it: there is nearly always one
                found = [self._verified_by(hashes, one.signature, record) for record in one.keys]
                one.result, one.reason, one.key_bits = min(found, key=lambda by_key: BEST_FIRST.index(by_key[0]))

    def _verified_by(self, hashes: Hashes, signature: Signature, record: str) -> tuple[DkimResult, str, int]:
        """Result, reason and bits of the key."""
        key: Key | None = None
        result: DkimResult = "pass"
        reason = ""
        try:
            key = read_key(record)
            check_key(signature, key)
            _check_hashes(hashes, signature, key)
            _check_open_ends(hashes, signature, accept_length=self._accept_length)
        except Rejected as rejected:
            result, reason = rejected.result, rejected.reason
        if key is not None and key.testing and result == "fail":  # RFC 6376 3.6.1: as if it were unsigned
            result, reason = "neutral", f"{reason}; the key is being tested"
        elif key is not None and key.testing and result == "pass":
            reason = "the key is being tested"
        return result, reason, key.bits if key else 0

    async def _align(self, one: _Examined, author: str, *, ask: bool) -> str:
        """Find out whether it is aligned. Returns why that could not be done, where it matters."""
        if not one.domain or not author:
            return ""
        try:
            one.aligned = await aligned(one.domain, author, self._resolver) if ask else one.domain == author
        except TemporaryFailure as failure:
            return str(failure) if one.result in ("pass", "temperror") else ""
        return ""


def _check_identity(signature: Signature) -> None:
    """i= is an address at d= or below it (RFC 6376 3.5, 6.1.1)."""
    within = a_labels(signature.identity.rpartition("@")[2])
    if within != signature.domain and not within.endswith(f".{signature.domain}"):
        raise Rejected("permerror", "i= is not within d=")
    local = signature.identity.rpartition("@")[0]
    if "@" in local and not (local.startswith('"') and local.endswith('"')):
        raise Rejected("permerror", "i= is no address")


def _check_hashes(hashes: Hashes, signature: Signature, key: Key) -> None:
    """Body, then header (RFC 6376 3.7)."""
    digest, size = hashes.body(signature.body_canonicalization, signature.length)
    if signature.length is not None and signature.length > size:
        raise Rejected("permerror", "l= is longer than the body")
    if digest != signature.body_hash:
        raise Rejected("fail", "the body is not the one signed")
    fields = hashes.select(signature.signed, signature.field)
    verify(signature, key, hashes.header(fields, signature.field, signature.header_canonicalization))


def _check_open_ends(hashes: Hashes, signature: Signature, *, accept_length: bool) -> None:
    """What a valid signature leaves open: fields of which a reader sees one, signed fewer times than they are there; l=."""
    if not hashes.count("from"):
        raise Rejected("permerror", "there is no From field")
    for name in SEEN_ONCE:
        there = hashes.count(name)
        if there > 1 and 0 < signature.signed.count(name) < there:
            raise Rejected("policy", f"a second {name} field is not signed")
    if signature.length is not None and not accept_length:
        _, size = hashes.body(signature.body_canonicalization, signature.length)
        raise Rejected("policy", f"l= leaves the body open behind octet {signature.length} of {size}")


def _domain(tags: Mapping[str, str]) -> str:
    try:
        return domain_of(tags)
    except Rejected:
        return ""


def _shown(text: str) -> str:
    return _NOT_SHOWN.sub("", text)[:256]


def _verdict(signatures: tuple[DkimSignature, ...], trouble: str) -> DkimVerdict:
    best = min(signatures, key=lambda signature: BEST_FIRST.index(signature.result))
    ours = [signature for signature in signatures if signature.aligned and signature.result != "neutral"]
    results = {signature.result for signature in ours}
    if "pass" in results:
        status, reason = Status.PASS, ""
    elif trouble or "temperror" in results:
        status = Status.PROCESSING_FAILED
        reason = trouble or next(signature.reason for signature in ours if signature.result == "temperror")
    elif ours:
        status, reason = Status.FAIL, ours[0].reason
    else:
        status, reason = Status.GRAY, "no signature aligned with From"
    return DkimVerdict(status=status, result=best.result, signatures=signatures, reason=reason)
