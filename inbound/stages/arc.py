"""ARC (RFC 8617): whether the chain of custody that the message brings with it holds. Evidence only; no trust follows from it.

Chain validation after 5.2: the sets must be whole and in order, the newest message signature must hold for the message as it
is, and every seal for the sets up to its own, from the newest to the oldest. dkimpy's own is the oracle in the tests.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from inbound.errors import TemporaryFailure
from inbound.mail import HeaderField, Mail
from inbound.offload import offload
from inbound.stages import Resolver
from inbound.stages.canonical import Hashes, hashes_of, seal_hashes
from inbound.stages.signatures import (
    CLOCK_SKEW,
    Rejected,
    Signature,
    check_key,
    read_key,
    read_signature,
    tags_of,
    verify,
)
from inbound.verdicts import ArcVerdict

MOST_SETS = 50  # RFC 8617 4.2.1
LONGEST_CHAIN = 256 * 1024  # octets of all ARC fields together

_NAMES = _RESULTS, _MESSAGE, _SEAL = "arc-authentication-results", "arc-message-signature", "arc-seal"
_POSITION = re.compile(r"[0-9]{1,2}")
_CFWS = rb"(?:[ \t\r\n]|\((?:[^()\\]|\\[^\r\n])*\))*"
_INSTANCE = re.compile(_CFWS.join((b"", b"i", b"=", rb"([0-9]{1,2})", b";")))  # RFC 8617 4.2.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Set:
    """One ARC set. `cv` is what its sealer found of the chain so far."""

    results: HeaderField
    message: HeaderField
    seal: HeaderField
    seal_tags: Mapping[str, str]

    @property
    def cv(self) -> str:
        return self.seal_tags.get("cv", "").lower()


class Arc:
    """The stage. `now` is seconds since 1970."""

    name = "arc"

    def __init__(self, resolver: Resolver, *, now: Callable[[], float] = time.time) -> None:
        self._resolver = resolver
        self._now = now

    def broken(self, reason: str) -> ArcVerdict:
        """The check failed, not the chain."""
        return ArcVerdict(result="temperror", reason=reason)

    async def __call__(self, mail: Mail) -> ArcVerdict:
        """Validate the chain."""
        if mail.headers.by_name.keys().isdisjoint(_NAMES):
            return ArcVerdict(result="none")
        fields = [field for field in mail.headers.fields if field.name.lower() in _NAMES]
        sets: Sequence[_Set] = ()
        try:
            sets = _sets(fields)
            await self._validate(mail, sets)
        except Rejected as rejected:
            return ArcVerdict(result="fail", sets=len(sets), reason=rejected.reason)
        except TemporaryFailure as failure:
            return ArcVerdict(result="temperror", sets=len(sets), reason=str(failure))
        return ArcVerdict(result="pass", sets=len(sets))

    async def _validate(self, mail: Mail, sets: Sequence[_Set]) -> None:
        """RFC 8617 5.2, steps 2 to 6. Raises Rejected, TemporaryFailure."""
        if sets[-1].cv == "fail":
            raise Rejected("fail", "the newest sealer found the chain broken")
        for instance, one in enumerate(sets, 1):
            if one.cv != ("none" if instance == 1 else "pass"):
                raise Rejected("fail", f"cv= of seal {instance} cannot be")
        hashes = hashes_of(mail)
        await self._check_message(mail, hashes, sets[-1].message, f"message signature {len(sets)}")
        sealed = await offload(_sealed, sets) if mail.is_big else _sealed(sets)
        for instance in range(len(sets), 0, -1):
            seal, what = _seal(sets[instance - 1]), f"seal {instance}"
            self._check_terms(seal, what)
            await self._check(seal, sealed[instance - 1], what)

    async def _check_message(self, mail: Mail, hashes: Hashes, field: HeaderField, what: str) -> None:
        """The newest message signature. Without c= it may be as the RFC has it (simple/simple) or as its drafts had."""
        tags = tags_of(field.raw.partition(b":")[2])
        signature = _read(field, tags, required=("i", "a", "b", "bh", "d", "s"))
        if "h" not in tags or _SEAL in signature.signed:  # RFC 8617 4.1.2
            raise Rejected("fail", f"{what}: h= {'covers a seal' if 'h' in tags else 'is missing'}")
        if 0 < signature.signed.count("from") < hashes.count("from"):
            raise Rejected("fail", f"{what}: a second From is not signed")
        self._check_terms(signature, what)
        try:
            await self._check_form(mail, hashes, signature, what)
        except Rejected:
            if "c" in tags:
                raise
            drafts = replace(signature, header_canonicalization="relaxed", body_canonicalization="relaxed")
            await self._check_form(mail, hashes, drafts, what)

    async def _check_form(self, mail: Mail, hashes: Hashes, signature: Signature, what: str) -> None:
        wanted = (signature.body_canonicalization, signature.length)
        digest, _ = await offload(hashes.body, *wanted) if mail.is_big else hashes.body(*wanted)
        if digest != signature.body_hash:
            raise Rejected("fail", f"{what}: the body is not the one signed")
        header = hashes.header(
            hashes.select(signature.signed, signature.field), signature.field, signature.header_canonicalization
        )
        await self._check(signature, header, what)

    def _check_terms(self, signature: Signature, what: str) -> None:
        if signature.algorithm not in ("rsa-sha256", "ed25519-sha256"):
            raise Rejected("fail", f"{what}: a= names no algorithm")
        now = self._now()
        if signature.timestamp is not None and signature.timestamp > now + CLOCK_SKEW:
            raise Rejected("fail", f"{what}: it is from the future")
        if signature.expires is not None and signature.expires < now:
            raise Rejected("fail", f"{what}: it has expired")

    async def _check(self, signature: Signature, header_hash: bytes, what: str) -> None:
        answer = await self._resolver.query(signature.key_name, "TXT")
        if not answer.records:
            raise Rejected("fail", f"{what}: there is no such key")
        try:
            key = read_key(answer.records[0])
            check_key(signature, key)
            verify(signature, key, header_hash)
        except Rejected as rejected:
            raise Rejected("fail", f"{what}: {rejected.reason}") from None


def _sealed(sets: Sequence[_Set]) -> list[bytes]:
    return list(seal_hashes((one.results, one.message, one.seal) for one in sets))


def _seal(one: _Set) -> Signature:
    if "h" in one.seal_tags:  # RFC 8617 4.1.3
        raise Rejected("fail", "a seal has h=")
    return _read(one.seal, one.seal_tags, required=("i", "a", "b", "cv", "d", "s"))


def _read(field: HeaderField, tags: Mapping[str, str], *, required: Sequence[str]) -> Signature:
    return replace(read_signature(field, tags, required=required), identity="")


def _sets(fields: Sequence[HeaderField]) -> list[_Set]:
    """The sets from 1 up, none missing and each whole (RFC 8617 5.2, step 3). Raises Rejected."""
    if sum(len(field.raw) for field in fields) > LONGEST_CHAIN:
        raise Rejected("fail", "the chain is too long")
    found: dict[tuple[int, str], HeaderField] = {}
    for field in fields:
        place = (_instance(field), field.name.lower())
        if place in found:
            raise Rejected("fail", f"a second {field.name} in set {place[0]}")
        found[place] = field
    count = max(instance for instance, _ in found)
    if len(found) != 3 * count:  # each place is there once, so some are missing or all are
        raise Rejected("fail", "a set is not whole")
    return [
        _Set(
            results=found[instance, _RESULTS],
            message=found[instance, _MESSAGE],
            seal=found[instance, _SEAL],
            seal_tags=tags_of(found[instance, _SEAL].raw.partition(b":")[2]),
        )
        for instance in range(1, count + 1)
    ]


def _instance(field: HeaderField) -> int:
    value = field.raw.partition(b":")[2]
    if field.name.lower() == _RESULTS:  # its i= stands first, and no tag list follows
        match = _INSTANCE.match(value)
        text = match[1].decode() if match else ""
    else:
        text = tags_of(value).get("i", "")
    if not _POSITION.fullmatch(text) or not 1 <= int(text) <= MOST_SETS:
        raise Rejected("fail", f"{field.name} is of no set")
    return int(text)
