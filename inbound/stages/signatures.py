"""Signatures and their keys (RFC 6376, 8301, 8463): what DKIM and ARC share.

1. dkimpy reads tag lists and c=. Its RSA and its checks of signature fields need quadratic time on hostile mail, so these
   steps are ours, and `cryptography` does the arithmetic. Nothing in dkimpy's modules is changed.
2. Fields, keys and records have a length that they may not exceed.
3. What cannot pass is `Rejected` with the result word and a reason; nothing else is raised.
"""

import base64
import binascii
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dkim.canonicalization
import dkim.util
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from inbound.addresses import a_labels
from inbound.mail import HeaderField
from inbound.verdicts import DkimResult

LONGEST_FIELD = 16_384  # octets of a signature field; real ones have about 1,000
LONGEST_KEY_RECORD = 4096  # octets; a 4096-bit key takes 736
SHORTEST_KEY = 1024  # bits, RFC 8301 3.2
LONGEST_KEY = 4096  # bits, RFC 8301 3.2 asks for support up to here
CLOCK_SKEW = 300  # seconds that a signature may seem to come from the future

_DIGITS = re.compile(r"[0-9]{1,76}")
_FWS = re.compile(rb"[ \t\r\n]+")
_DOMAIN = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+")  # RFC 6376 3.5, and underscores, which there are
_SELECTOR = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*")


class Rejected(Exception):
    """A signature that does not pass: `result` is the word of RFC 8601 for it."""

    def __init__(self, result: DkimResult, reason: str) -> None:
        self.result = result
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A signature field, read. `signed` are the names of h= in lower case; `length` is l=; times are seconds since 1970."""

    field: HeaderField
    domain: str
    selector: str
    algorithm: str
    header_canonicalization: str
    body_canonicalization: str
    signed: tuple[str, ...]
    value: bytes
    body_hash: bytes | None
    length: int | None = None
    timestamp: int | None = None
    expires: int | None = None
    identity: str = ""  # "" in ARC, where i= is another thing

    @property
    def key_name(self) -> str:
        """Where its key is (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key record, read. `strict` is t=s, `testing` t=y."""

    public: RSAPublicKey | Ed25519PublicKey
    bits: int
    hashes: tuple[str, ...]
    strict: bool
    testing: bool

    @property
    def kind(self) -> str:
        """`rsa` or `ed25519`."""
        return "rsa" if isinstance(self.public, RSAPublicKey) else "ed25519"


def tags_of(value: bytes) -> dict[str, str]:
    """A tag list (RFC 6376 3.2). Raises Rejected."""
    if len(value) > LONGEST_FIELD:
        raise Rejected("permerror", "the field is too long")
    try:
        tags: Mapping[bytes, bytes] = dkim.util.parse_tag_value(value)
        return {name.decode("ascii"): content.decode("utf-8") for name, content in tags.items()}
    except (dkim.util.InvalidTagValueList, UnicodeDecodeError):
        raise Rejected("permerror", "the field is no list of tags") from None


def read_signature(field: HeaderField, tags: Mapping[str, str], *, required: Sequence[str]) -> Signature:
    """What a signature field says (RFC 6376 3.5, 6.1.1). Raises Rejected."""
    missing = [name for name in required if not tags.get(name)]
    if missing:
        raise Rejected("permerror", f"no {missing[0]}= in the signature")
    header, body = _canonicalizations(tags.get("c"))
    domain = domain_of(tags)
    return Signature(
        field=field,
        domain=domain,
        selector=selector_of(tags),
        algorithm=_unfolded(tags["a"]).lower(),
        header_canonicalization=header,
        body_canonicalization=body,
        signed=tuple([name.strip(" \t\r\n") for name in tags.get("h", "").lower().split(":")]),
        value=_base64(tags["b"], "b"),
        body_hash=_base64(tags["bh"], "bh") if "bh" in tags else None,
        length=_number(tags, "l"),
        timestamp=_number(tags, "t"),
        expires=_number(tags, "x"),
        identity=_unfolded(tags.get("i", "")) or f"@{domain}",
    )


def domain_of(tags: Mapping[str, str]) -> str:
    """d= in A-labels. Raises Rejected."""
    domain = a_labels(tags.get("d", "").strip(" \t\r\n"))  # blanks may stand about it, not within
    if not _DOMAIN.fullmatch(domain):
        raise Rejected("permerror", "d= is no domain name")
    return domain


def selector_of(tags: Mapping[str, str]) -> str:
    """s= as it stands in DNS. Raises Rejected."""
    selector = tags.get("s", "").strip(" \t\r\n")
    if not selector.isascii():
        selector = a_labels(selector)
    if not _SELECTOR.fullmatch(selector):
        raise Rejected("permerror", "s= is no selector")
    return selector.lower()


@functools.lru_cache(64)
def _canonicalizations(c: str | None) -> tuple[str, str]:
    try:
        value = None if c is None else _unfolded(c).lower().encode()
        policy = dkim.canonicalization.CanonicalizationPolicy.from_c_value(value)
    except dkim.canonicalization.InvalidCanonicalizationPolicyError:
        raise Rejected("permerror", "c= names no canonicalisation") from None
    return policy.header_algorithm.name.decode(), policy.body_algorithm.name.decode()


def _unfolded(value: str) -> str:
    return "".join(value.split())


def _base64(value: str, tag: str) -> bytes:
    try:
        return base64.b64decode(_FWS.sub(b"", value.encode()), validate=True)
    except binascii.Error:
        raise Rejected("permerror", f"{tag}= is no base64") from None


def _number(tags: Mapping[str, str], name: str) -> int | None:
    if name not in tags:
        return None
    if not _DIGITS.fullmatch(tags[name]):
        raise Rejected("permerror", f"{name}= is no number")
    return int(tags[name])


@functools.lru_cache(1024)  # a sender's key is the same for all its mail; what is rejected is read again
def read_key(record: str) -> Key:
    """A key record (RFC 6376 3.6.1, 8463 4). Raises Rejected."""
    if len(record) > LONGEST_KEY_RECORD:
        raise Rejected("permerror", "the key record is too long")
    try:
        tags = tags_of(record.encode("latin-1"))
    except Rejected:
        raise Rejected("permerror", "the key record cannot be read") from None
    if "v" in tags and (tags["v"] != "DKIM1" or next(iter(tags)) != "v"):
        raise Rejected("permerror", "the key record is of another version")
    if not _of(tags, "s", "*") & {"*", "email"}:
        raise Rejected("permerror", "the key is not for mail")
    if "p" not in tags:
        raise Rejected("permerror", "the key record has no key")
    if not tags["p"]:
        raise Rejected("permerror", "the key was revoked")
    public = _public(tags.get("k", "rsa").lower(), _base64(tags["p"], "the key's p"))
    bits = public.key_size if isinstance(public, RSAPublicKey) else 256
    flags = _of(tags, "t", "")
    hashes = tuple(_of(tags, "h", "sha256"))
    return Key(public=public, bits=bits, hashes=hashes, strict="s" in flags, testing="y" in flags)


def _of(tags: Mapping[str, str], name: str, default: str) -> set[str]:
    return {part.strip(" \t").lower() for part in tags.get(name, default).split(":")}


def _public(kind: str, octets: bytes) -> RSAPublicKey | Ed25519PublicKey:
    try:
        match kind:
            case "rsa":
                public = load_der_public_key(octets)
            case "ed25519":
                return Ed25519PublicKey.from_public_bytes(octets)
            case _:
                raise Rejected("permerror", "the key is of an unknown type")
    except (ValueError, UnsupportedAlgorithm):
        raise Rejected("permerror", "the key cannot be read") from None
    if not isinstance(public, RSAPublicKey):
        raise Rejected("permerror", "the key is of another type than k= says")
    return public


def check_key(signature: Signature, key: Key) -> None:
    """The key is one for this signature (RFC 6376 3.6.1, 8301 3.2). Raises Rejected."""
    if key.kind != signature.algorithm.partition("-")[0]:
        raise Rejected("permerror", f"a {key.kind} key for {signature.algorithm}")
    if "sha256" not in key.hashes:
        raise Rejected("permerror", "the key is not for sha256")
    if key.kind == "rsa" and not SHORTEST_KEY <= key.bits <= LONGEST_KEY:
        raise Rejected("policy", f"a key of {key.bits} bits")
    if key.strict and signature.identity and a_labels(signature.identity.rpartition("@")[2]) != signature.domain:
        raise Rejected("permerror", "the key is not for subdomains, as i= has one")


def verify(signature: Signature, key: Key, header_hash: bytes) -> None:
    """Is the value the key's over that hash? Raises Rejected."""
    try:
        if isinstance(key.public, RSAPublicKey):
            key.public.verify(signature.value, header_hash, PKCS1v15(), Prehashed(SHA256()))
        else:
            key.public.verify(signature.value, header_hash)  # RFC 8463 3: the hash is what is signed
    except InvalidSignature:
        raise Rejected("fail", "the signature does not verify") from None
