"""An ARC sealer for tests, written plainly and apart from the validator: it seals whatever it is told to."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from tests.stages.signer import MESSAGE, canonical_body, canonical_field, ed25519_key, rsa_key

Tags = Mapping[str, str | None]

_FIELD = re.compile(rb"[^\r\n][^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")


def fields_of(message: bytes) -> list[bytes]:
    return _FIELD.findall(message.partition(b"\r\n\r\n")[0] + b"\r\n")


def written(name: str, tags: Tags, form: Mapping[str, str]) -> tuple[bytes, bytes]:
    """A field in two parts, before the value of b= and behind it. `form` may say how tags are joined."""
    joint, equals = form.get("joint", "; "), form.get("equals", "=")
    text = joint.join(f"{tag}{equals}{value}" for tag, value in tags.items() if value is not None)
    before = f"{name}:{form.get('gap', ' ')}{form.get('first', '')}{text}{joint}b{equals}"
    return before.encode(), (form.get("last", "") + "\r\n").encode()


def value_of(octets: bytes, key: str, algorithm: str | None) -> str:
    """The signature value by one of the keys, over SHA-1 where the algorithm says so."""
    private = ed25519_key() if key == "ed25519" else rsa_key(int(key))
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return base64.b64encode(private.sign(hashlib.sha256(octets).digest())).decode()
    assert isinstance(private, rsa.RSAPrivateKey)
    digest = SHA1() if algorithm == "rsa-sha1" else SHA256()
    return base64.b64encode(private.sign(octets, padding.PKCS1v15(), digest)).decode()


def folded(value: str, form: Mapping[str, str]) -> str:
    """With what `fold` says after every 20 characters."""
    return form.get("fold", "").join(value[at : at + 20] for at in range(0, len(value), 20))


def message_signature(message: bytes, instance: str, one: Mapping[str, Any]) -> bytes:
    """An ARC-Message-Signature field for the message."""
    header_form, body_form = one.get("canonicalization", ["relaxed", "relaxed"])
    key = str(one.get("message_key", "2048"))
    body = canonical_body(message.partition(b"\r\n\r\n")[2], body_form)[: one.get("length")]
    header = one.get("header", "from:to:subject:date")
    form, changed = one.get("message_form", {}), one.get("message_tags", {})
    body_hash = hashlib.new("sha1" if changed.get("a") == "rsa-sha1" else "sha256", body).digest()
    tags: dict[str, str | None] = {
        "i": instance,
        "a": "ed25519-sha256" if key == "ed25519" else "rsa-sha256",
        "c": f"{header_form}/{body_form}",
        "d": "list.example",
        "s": f"k{key}",
        "t": "1790000000",
        "h": header,
        "l": str(one["length"]) if "length" in one else None,
        "bh": folded(base64.b64encode(body_hash).decode(), form),
        **changed,
    }
    before, behind = written("ARC-Message-Signature", tags, form)
    unused, signed = fields_of(message), b""
    for wanted in [name.strip().lower() for name in header.split(":")]:
        found = [field for field in unused if field.split(b":")[0].strip().lower() == wanted.encode()]
        if found:
            del unused[len(unused) - 1 - unused[::-1].index(found[-1])]
            signed += canonical_field(found[-1], header_form)
    signed += canonical_field(before + behind, header_form).removesuffix(b"\r\n")
    value: str = one.get("message_value", value_of(signed, key, tags["a"]))
    return before + folded(value, form).encode() + behind


def sealed(message: bytes, instance: int, one: Mapping[str, Any]) -> bytes:
    """The message with one more set on top; its three fields in the order that `order` says."""
    number = str(one.get("instance", instance))
    results = f"ARC-Authentication-Results: {one.get('results', f'i={number}; list.example; spf=pass')}\r\n".encode()
    signature = message_signature(results + message, number, one)
    key = str(one.get("seal_key", "2048"))
    tags: dict[str, str | None] = {
        "i": number,
        "cv": "pass" if instance > 1 else "none",
        "a": "ed25519-sha256" if key == "ed25519" else "rsa-sha256",
        "d": "list.example",
        "s": f"k{key}",
        "t": "1790000000",
        **one.get("seal_tags", {}),
    }
    form = one.get("seal_form", {})
    before, behind = written("ARC-Seal", tags, form)
    covered = [] if one.get("seals_itself_only") else _covered(message)
    octets = b"".join(canonical_field(field, "relaxed") for field in (*covered, results, signature, before + behind))
    value = one.get("seal_value", value_of(octets.removesuffix(b"\r\n"), key, tags["a"]))
    fields = {"seal": before + folded(value, form).encode() + behind, "message": signature, "results": results}
    return b"".join(fields[name] for name in one.get("order", ("seal", "message", "results"))) + message


def _covered(message: bytes) -> Sequence[bytes]:
    """The fields of the sets that are there, oldest first: results, message signature, seal."""
    place = {b"arc-authentication-results": 0, b"arc-message-signature": 1, b"arc-seal": 2}
    found = []
    for field in fields_of(message):
        name = field.split(b":")[0].lower()
        instance = re.search(rb"[:; \t]i[ \t]*=[ \t]*([0-9]+)", field)
        if name in place and instance:
            found.append((int(instance[1]), place[name], field))
    return [field for _, _, field in sorted(found)]


def chain(sets: Sequence[Mapping[str, Any]], message: bytes = MESSAGE) -> bytes:
    """The message sealed once for each set. What stands under `between` is replaced in the message before it is sealed."""
    for at, one in enumerate(sets, 1):
        for old, new in one.get("between", {}).items():
            assert old.encode() in message
            message = message.replace(old.encode(), new.encode(), 1)
        message = sealed(message, at, one)
    return message
