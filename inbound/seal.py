"""Client-side envelope encryption of stored objects, in the format that SES writes. Pure: keys come from elsewhere.

1. A fresh data key for each object, wrapped by KMS under an encryption context that names message and rule. The object is
   AES-256-GCM over the whole message: 12-octet IV, no AAD, the 16-octet tag behind the ciphertext.
2. Everything else that is needed to open it stands in user metadata: AWS's "V2 envelope" with wrap algorithm `kms`, which
   AWS's encryption clients read with their legacy wrapping allowed. The context is `x-amz-matdesc`, in the order given.
3. `commit` writes AWS's current form ("V3"), where the object commits to its key: both the cipher's key and the commitment
   are derived from the data key (HKDF-SHA-512 under a random message id), so that no second key opens the same octets.
4. Read are these two and "V2" with `kms+context`, which AWS's clients wrote before. AES-CBC, which its first ones wrote, is read
   where the caller says so: nothing notices a change there.
"""

import base64
import binascii
import hmac
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from inbound.errors import PermanentFailure

IV_OCTETS = 12
TAG_BITS = 128
GCM = "AES/GCM/NoPadding"
CBC = "AES/CBC/PKCS5Padding"
CBC_IV_OCTETS = 16
WRAPS = ("kms", "kms+context")
COMMITTING = "115"  # ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY
COMMITTING_WRAP = "12"  # kms+context
ID_OCTETS = COMMITMENT_OCTETS = 28

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


class Sealing:
    """A message sealed while it is stored, in one pass and piece by piece: a large one is not held twice."""

    def __init__(self, plaintext: bytes, seal: "Seal") -> None:
        self._plaintext, self._seal = plaintext, seal
        self.metadata = seal.metadata

    def __len__(self) -> int:
        return len(self._plaintext) + TAG_BITS // 8

    def pieces(self, octets: int) -> Iterator[bytes]:
        """The ciphertext and the tag behind it; the same each time, for a store that has to be told again."""
        encryptor = Cipher(algorithms.AES256(self._seal.key), modes.GCM(self._seal.iv)).encryptor()
        if self._seal.suite is not None:
            encryptor.authenticate_additional_data(self._seal.suite)
        view, tag = memoryview(self._plaintext), b""
        for start in range(0, len(self), octets):
            wanted = min(octets, len(self) - start)
            text = view[start : start + wanted]
            piece = encryptor.update(text) if text else b""
            if len(piece) < wanted:
                if not tag:
                    encryptor.finalize()
                    tag = encryptor.tag
                at = start + len(piece) - len(view)
                piece += tag[at : at + wanted - len(piece)]
            yield piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """How one object is sealed: key and IV of AES-256-GCM, what is authenticated beside it, and what stands in metadata."""

    key: bytes
    iv: bytes
    suite: bytes | None
    metadata: Mapping[str, str]

    def seal(self, plaintext: bytes) -> Sealed:
        """All at once. Takes a processor: big messages in a thread, or as a `Sealing`."""
        return Sealed(ciphertext=AESGCM(self.key).encrypt(self.iv, plaintext, self.suite), metadata=self.metadata)


def enveloping(size: int, data_key: bytes | bytearray, wrapped: bytes, context: Mapping[str, str]) -> Seal:
    """SES's form, for a message of so many octets, under a data key of 32 octets that was made for `context`."""
    iv = os.urandom(IV_OCTETS)
    metadata = {
        "x-amz-key-v2": _base64(wrapped),
        "x-amz-iv": _base64(iv),
        "x-amz-cek-alg": GCM,
        "x-amz-wrap-alg": "kms",
        "x-amz-tag-len": str(TAG_BITS),
        "x-amz-unencrypted-content-length": str(size),
        "x-amz-matdesc": json.dumps(dict(context), separators=(",", ":")),
    }
    return Seal(key=bytes(data_key), iv=iv, suite=None, metadata=metadata)


def committing(size: int, data_key: bytes | bytearray, wrapped: bytes, context: Mapping[str, str]) -> Seal:
    """The committing form. `context` must say the cipher: `aws:x-amz-cek-alg` is "115"."""
    del size
    message_id = os.urandom(ID_OCTETS)
    key, commitment = _derived(data_key, message_id)
    metadata = {
        "x-amz-c": COMMITTING,
        "x-amz-3": _base64(wrapped),
        "x-amz-w": COMMITTING_WRAP,
        "x-amz-t": json.dumps(dict(context), separators=(",", ":")),
        "x-amz-d": _base64(commitment),
        "x-amz-i": _base64(message_id),
    }
    return Seal(key=key, iv=_COMMITTING_IV, suite=_SUITE, metadata=metadata)


def seal(plaintext: bytes, data_key: bytes | bytearray, wrapped: bytes, context: Mapping[str, str]) -> Sealed:
    """Seal in SES's form."""
    return enveloping(len(plaintext), data_key, wrapped, context).seal(plaintext)


def commit(plaintext: bytes, data_key: bytes | bytearray, wrapped: bytes, context: Mapping[str, str]) -> Sealed:
    """Seal in the committing form."""
    return committing(len(plaintext), data_key, wrapped, context).seal(plaintext)


_SUITE = int(COMMITTING).to_bytes(2, "big")
_COMMITTING_IV = b"\x01" * IV_OCTETS


def _derived(data_key: bytes | bytearray, message_id: bytes) -> tuple[bytes, bytes]:
    """The cipher's key and the commitment (HKDF, RFC 5869; the message id is the salt)."""
    extracted = hmac.digest(message_id, data_key, "sha512")
    key = HKDFExpand(hashes.SHA512(), len(data_key), _SUITE + b"DERIVEKEY").derive(extracted)
    return key, HKDFExpand(hashes.SHA512(), COMMITMENT_OCTETS, _SUITE + b"COMMITKEY").derive(extracted)


def envelope(metadata: Mapping[str, str], *, unauthenticated: bool = False) -> Envelope | None:
    """The envelope of a stored object; None when it is not sealed. Raises PermanentFailure on a form not known here.

    `unauthenticated`: AES-CBC is taken too, though whoever can write to the bucket can change what comes out of it.
    """
    if "x-amz-3" in metadata:
        return _committing_envelope(metadata)
    if "x-amz-key-v2" not in metadata:
        if "x-amz-key" in metadata:
            raise PermanentFailure(SEAL_BROKEN, "sealed in AWS's first format, which is not read here")
        return None
    wrap, cek = metadata.get("x-amz-wrap-alg", ""), metadata.get("x-amz-cek-alg", "")
    known = cek == GCM and metadata.get("x-amz-tag-len") == str(TAG_BITS)
    if wrap not in WRAPS or not (known or (unauthenticated and cek == CBC)):
        raise PermanentFailure(SEAL_BROKEN, f"wrap {wrap!r} and cipher {cek!r} are not read here")
    context = _context(metadata.get("x-amz-matdesc", "{}"))
    if wrap == "kms+context" and context.get("aws:x-amz-cek-alg") != cek:
        raise PermanentFailure(SEAL_BROKEN, "the cipher named is not the one the key was made for")
    return Envelope(wrapped=_octets(metadata, "x-amz-key-v2"), context=context)


def _committing_envelope(metadata: Mapping[str, str]) -> Envelope:
    cipher, wrap = metadata.get("x-amz-c", ""), metadata.get("x-amz-w", "")
    context = _context(metadata.get("x-amz-t", "{}"))
    if (cipher, wrap, context.get("aws:x-amz-cek-alg")) != (COMMITTING, COMMITTING_WRAP, COMMITTING):
        raise PermanentFailure(SEAL_BROKEN, f"wrap {wrap!r} and cipher {cipher!r} are not read here")
    return Envelope(wrapped=_octets(metadata, "x-amz-3"), context=context)


def unseal(ciphertext: bytes, metadata: Mapping[str, str], data_key: bytes) -> bytes:
    """The message. Raises PermanentFailure when key, IV or ciphertext do not belong together or were changed."""
    try:
        if metadata.get("x-amz-cek-alg") == CBC:
            plaintext = _without_authentication(ciphertext, metadata, data_key)
        else:
            key, iv, suite = _opener(metadata, data_key)
            plaintext = AESGCM(key).decrypt(iv, ciphertext, suite)
    except (InvalidTag, ValueError) as error:
        raise PermanentFailure(SEAL_BROKEN, "the object was changed, or this is not its key") from error
    stated = metadata.get("x-amz-unencrypted-content-length", str(len(plaintext)))
    if stated != str(len(plaintext)):
        raise PermanentFailure(SEAL_BROKEN, f"{len(plaintext)} octets where {stated[:20]} were stated")
    return plaintext


def _without_authentication(ciphertext: bytes, metadata: Mapping[str, str], data_key: bytes) -> bytes:
    """AES-CBC with PKCS #7 padding. Raises ValueError where the padding is none."""
    iv = _octets(metadata, "x-amz-iv", CBC_IV_OCTETS)
    cipher = Cipher(algorithms.AES(data_key), modes.CBC(iv)).decryptor()
    unpadder = padding.PKCS7(algorithms.AES.block_size).unpadder()
    return unpadder.update(cipher.update(ciphertext) + cipher.finalize()) + unpadder.finalize()


def _opener(metadata: Mapping[str, str], data_key: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Key, IV and AAD of the cipher. The commitment is compared first."""
    if "x-amz-3" in metadata:
        key, commitment = _derived(data_key, _octets(metadata, "x-amz-i", ID_OCTETS))
        if not hmac.compare_digest(commitment, _octets(metadata, "x-amz-d", COMMITMENT_OCTETS)):
            raise PermanentFailure(SEAL_BROKEN, "the object commits to another key")
        return key, _COMMITTING_IV, _SUITE
    return data_key, _octets(metadata, "x-amz-iv", IV_OCTETS), None


def _context(text: str) -> Mapping[str, str]:
    try:
        context = json.loads(text)
    except ValueError as error:
        raise PermanentFailure(SEAL_BROKEN, "x-amz-matdesc is not JSON") from error
    if not isinstance(context, dict) or not all(isinstance(value, str) for value in context.values()):
        raise PermanentFailure(SEAL_BROKEN, "x-amz-matdesc is not a mapping of texts")
    return context


def _octets(metadata: Mapping[str, str], name: str, size: int | None = None) -> bytes:
    try:
        octets = base64.b64decode(metadata.get(name, ""), validate=True)
    except binascii.Error as error:
        raise PermanentFailure(SEAL_BROKEN, f"{name} is not base64") from error
    if size is not None and len(octets) != size:
        raise PermanentFailure(SEAL_BROKEN, f"{name} has {len(octets)} octets")
    return octets


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")
