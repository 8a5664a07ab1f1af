"""AWS Signature Version 4 for a request without a query. Pure: credentials and time come from elsewhere.

IAM User Guide, "Create a signed AWS API request".

1. The canonical request names method, path, header fields and the payload's hash; what is signed is its hash, under a time
   and a scope (day, region, service).
2. The key is derived from the secret for one scope. It is kept as long as secret and day stay, so that signing is two hashes
   of a few hundred octets.
3. All fields that are given are signed: without blanks around the value, and one where there are several. Only not
   `user-agent`, which whoever hands a request on may write anew.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

UNSIGNED = "UNSIGNED-PAYLOAD"  # S3's word for: TLS looks after it

_NAME = re.compile(r"[a-z0-9-]+")
_VALUE = re.compile(r"[ -~]*")
_NOT_SIGNED = {"user-agent"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who signs. Temporary ones have a session token."""

    access_key: str
    secret_key: str
    token: str | None = None


def payload_hash(payload: bytes) -> str:
    """The hash that stands for a payload."""
    return hashlib.sha256(payload).hexdigest()


class Signer:
    """Signs requests to one service in one region."""

    def __init__(self, service: str, region: str) -> None:
        self._service, self._region = service, region
        self._key_of: tuple[str, str] = ("", "")
        self._key = b""

    def signed(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str],
        payload: str,
        credentials: Credentials,
        *,
        now: float,
    ) -> dict[str, str]:
        """The fields to be sent, signed: `fields` (lower-case names, `host` among them), the date, the session token.

        `path` is as it stands in the request line, `payload` its hash or UNSIGNED. Raises ValueError on a field that a
        request cannot have.
        """
        stamp = _stamp(int(now))
        every = {**fields, "x-amz-date": stamp}
        if credentials.token:
            every["x-amz-security-token"] = credentials.token
        for name, value in every.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise ValueError(f"{name!r}: {value[:80]!r} cannot stand in a request")
        names = sorted(every.keys() - _NOT_SIGNED)
        listed = ";".join(names)
        canonical = "\n".join(
            (method, path, "", *[f"{name}:{' '.join(every[name].split())}" for name in names], "", listed, payload)
        ).encode("ascii")
        scope = f"{stamp[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"
        signature = hmac.digest(self._signing_key(credentials.secret_key, stamp[:8]), text.encode("ascii"), "sha256")
        every["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={listed}, "
            f"Signature={signature.hex()}"
        )
        return every

    def _signing_key(self, secret: str, day: str) -> bytes:
        if (secret, day) != self._key_of:
            key = b"AWS4" + secret.encode("utf-8")
            for step in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, step.encode("ascii"), "sha256")
            self._key_of, self._key = (secret, day), key
        return self._key


@lru_cache(maxsize=4)
def _stamp(now: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
