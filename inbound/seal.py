"""Client-side envelope encryption of stored objects, in the format that SES writes. Pure: keys come from elsewhere.

1. A fresh data key for each object, wrapped by KMS under an encryption context that names message and rule. The object is
   AES-256-GCM over the whole message: 12-octet IV, no AAD, the 16-octet tag behind the ciphertext.
2. Everything else that is needed to open it stands in user metadata: AWS's "V2 envelope" with wrap algorithm `kms`, which
   AWS's encryption clients read with their legacy wrapping allowed. The context is `x-amz-matdesc`, in the order given.
3. Read are that form and `kms+context`, which the clients themselves write. CBC is not: nothing would notice a change.
"""

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from inbound.errors import PermanentFailure

IV_OCTETS = 12
TAG_BITS = 128
GCM = "AES/GCM/NoPadding"
WRAPS = ("kms", "kms+context")

SEAL_BROKEN = "sealed object cannot be opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What is stored: the octets, and the user metadata (names without `x-amz-meta-`)."""

    ciphertext: bytes
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What KMS must be given for the data key of a sealed object: the wrapped key, and the context it is bound to."""

    wrapped: bytes
    context: Mapping[str, str]


def seal(plaintext: bytes, data_key: bytes, wrapped: bytes, context: Mapping[str, str]) -> Sealed:
    """Seal under a data key of 32 octets that was made for `context`. Takes a processor: big messages in a thread."""
    iv = os.urandom(IV_OCTETS)
    return Sealed(
        ciphertext=AESGCM(data_key).encrypt(iv, plaintext, None),
        metadata={
            "x-amz-key-v2": _base64(wrapped),
            "x-amz-iv": _base64(iv),
            "x-amz-cek-alg": GCM,
            "x-amz-wrap-alg": "kms",
            "x-amz-tag-len": str(TAG_BITS),
            "x-amz-unencrypted-content-length": str(len(plaintext)),
            "x-amz-matdesc": json.dumps(dict(context), separators=(",", ":")),
        },
    )


def envelope(metadata: Mapping[str, str]) -> Envelope | None:
    """The envelope of a stored object; None when it is not sealed. Raises PermanentFailure on a form not known here."""
    if "x-amz-key-v2" not in metadata:
        for sign in ("x-amz-3", "x-amz-key"):
            if sign in metadata:
                raise PermanentFailure(SEAL_BROKEN, f"sealed in a format that is not read here ({sign})")
        return None
    wrap, cek = metadata.get("x-amz-wrap-alg", ""), metadata.get("x-amz-cek-alg", "")
    if wrap not in WRAPS or cek != GCM or metadata.get("x-amz-tag-len") != str(TAG_BITS):
        raise PermanentFailure(SEAL_BROKEN, f"wrap {wrap!r} and cipher {cek!r} are not read here")
    context = _context(metadata.get("x-amz-matdesc", "{}"))
    if wrap == "kms+context" and context.get("aws:x-amz-cek-alg") != cek:
        raise PermanentFailure(SEAL_BROKEN, "the cipher named is not the one the key was made for")
    return Envelope(wrapped=_octets(metadata, "x-amz-key-v2"), context=context)


def unseal(ciphertext: bytes, metadata: Mapping[str, str], data_key: bytes) -> bytes:
    """The message. Raises PermanentFailure when key, IV or ciphertext do not belong together or were changed."""
    iv = _octets(metadata, "x-amz-iv")
    if len(iv) != IV_OCTETS:
        raise PermanentFailure(SEAL_BROKEN, f"an IV of {len(iv)} octets")
    try:
        plaintext = AESGCM(data_key).decrypt(iv, ciphertext, None)
    except (InvalidTag, ValueError) as error:
        raise PermanentFailure(SEAL_BROKEN, "the object was changed, or this is not its key") from error
    stated = metadata.get("x-amz-unencrypted-content-length", str(len(plaintext)))
    if stated != str(len(plaintext)):
        raise PermanentFailure(SEAL_BROKEN, f"{len(plaintext)} octets where {stated[:20]} were stated")
    return plaintext


def _context(text: str) -> Mapping[str, str]:
    try:
        context = json.loads(text)
    except ValueError as error:
        raise PermanentFailure(SEAL_BROKEN, "x-amz-matdesc is not JSON") from error
    if not isinstance(context, dict) or not all(isinstance(value, str) for value in context.values()):
        raise PermanentFailure(SEAL_BROKEN, "x-amz-matdesc is not a mapping of texts")
    return context


def _octets(metadata: Mapping[str, str], name: str) -> bytes:
    try:
        return base64.b64decode(metadata.get(name, ""), validate=True)
    except binascii.Error as error:
        raise PermanentFailure(SEAL_BROKEN, f"{name} is not base64") from error


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
