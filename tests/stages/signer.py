"""A DKIM signer for tests, written plainly and apart from the verifier: it signs whatever it is told to."""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

DOMAIN = "sender.example"
MESSAGE = (
    b"From: Author <author@sender.example>\r\n"
    b"To: reader@example.com\r\n"
    b"Subject: A  subject\r\n\t folded\r\n"
    b"Date: Mon, 21 Sep 2026 12:00:00 +0000\r\n"
    b"\r\n"
    b"Hello,\r\n\r\n\tthis  is\t a message. \r\n\r\n\r\n"
)


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ed25519_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def key_record(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, more: str = "") -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        octets = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"v=DKIM1; k=rsa; {more}p={base64.b64encode(octets).decode()}"
    octets = key.public_key().public_bytes_raw()
    return f"v=DKIM1; k=ed25519; {more}p={base64.b64encode(octets).decode()}"


def canonical_field(field: bytes, how: str) -> bytes:
    if how == "simple":
        return field
    name, value = field.split(b":", 1)
    return name.strip().lower() + b":" + re.sub(rb"[ \t]+", b" ", value.replace(b"\r\n", b"")).strip() + b"\r\n"


def canonical_body(body: bytes, how: str) -> bytes:
    if how == "relaxed":
        body = re.sub(rb"[ \t]+", b" ", body)
        body = re.sub(rb" \r\n", b"\r\n", body)
    body = re.sub(rb"(\r\n)*\Z", b"", body)
    return body + b"\r\n" if body or how == "simple" else b""


def sign(
    message: bytes = MESSAGE,
    *,
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | None = None,
    tags: Mapping[str, str | None] | None = None,
    header: str = "from:to:subject:date",
    canonicalization: tuple[str, str] = ("relaxed", "relaxed"),
    length: int | None = None,
    name: str = "DKIM-Signature",
) -> bytes:
    """The message with one more signature on top. `tags` replaces, adds or (None) leaves out tags before signing."""
    key = key or rsa_key()
    block, _, body = message.partition(b"\r\n\r\n")
    fields = re.findall(rb"[^\r\n][^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", block + b"\r\n")
    hashed = hashlib.sha256(canonical_body(body, canonicalization[1])[:length]).digest()
    all_tags: dict[str, str | None] = {
        "v": "1",
        "a": "rsa-sha256" if isinstance(key, rsa.RSAPrivateKey) else "ed25519-sha256",
        "c": "/".join(canonicalization),
        "d": DOMAIN,
        "s": "s1",
        "h": header,
        "l": None if length is None else str(length),
        "bh": base64.b64encode(hashed).decode(),
        **(tags or {}),
    }
    written = "; ".join(f"{tag}={value}" for tag, value in all_tags.items() if value is not None)
    empty = f"{name}: {written};\r\n\tb=".encode()
    unused = list(fields)
    signed = b""
    for wanted in header.lower().split(":"):
        found = next(
            (field for field in reversed(unused) if field.split(b":")[0].strip().lower() == wanted.encode()), None
        )
        if found is not None:
            unused.remove(found)
            signed += canonical_field(found, canonicalization[0])
    signed += canonical_field(empty + b"\r\n", canonicalization[0]).removesuffix(b"\r\n")
    if isinstance(key, rsa.RSAPrivateKey):
        value = key.sign(signed, padding.PKCS1v15(), SHA256())
    else:
        value = key.sign(hashlib.sha256(signed).digest())
    encoded = base64.b64encode(value)
    folded = b"\r\n\t ".join(encoded[at : at + 60] for at in range(0, len(encoded), 60))
    return empty + folded + b"\r\n" + message
