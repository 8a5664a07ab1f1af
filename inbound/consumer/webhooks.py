"""Whether a webhook call is ours: the signature of Standard Webhooks, its time, and its id.

The signature says who speaks; the time, that it is not an old call sent again; the id (the same for every try of one step),
whether this one was worked on already: keep those of the last `tolerance` seconds, and twice that.
"""

import base64
import hmac
import time
from collections.abc import Mapping, Sequence

from inbound.errors import NotSigned

TOLERANCE = 300.0  # seconds, as the libraries of Standard Webhooks have it
NOT_SIGNED = "webhook not signed by us"
_MOST_SIGNATURES = 10
_LONGEST = 10_000  # characters of one field


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> str:
    """The id of the call (`webhook-id`), when its signature is right and its time is near. Raises NotSigned.

    `body` are the octets as they came; `headers` the request's, names in any case; `secret` is what the rule's `secret_env`
    holds (`whsec_…`, or plain text), several while it is changed. `now` is seconds since the epoch.
    """
    fields = {name.lower(): value for name, value in headers.items()}
    ident, stamp, given = (fields.get(f"webhook-{name}", "")[:_LONGEST] for name in ("id", "timestamp", "signature"))
    if not ident or not stamp.isdecimal() or len(stamp) > 15:  # noqa: PLR2004 - digits of any honest time
        raise NotSigned(NOT_SIGNED, "webhook-id or webhook-timestamp is missing")
    if abs((time.time() if now is None else now) - int(stamp)) > tolerance:
        raise NotSigned(NOT_SIGNED, "its time is too far from ours: an old call, or a clock that is wrong")
    signed = f"{ident}.{stamp}.".encode("utf-8", "replace") + body
    secrets = [secret] if isinstance(secret, str) else list(secret)
    expected = [base64.b64encode(hmac.digest(_octets(one), signed, "sha256")) for one in secrets]
    offered = [
        one[3:].encode("utf-8", "replace") for one in given.split(" ")[:_MOST_SIGNATURES] if one.startswith("v1,")
    ]
    if not any(hmac.compare_digest(one, other) for one in expected for other in offered):
        raise NotSigned(NOT_SIGNED, "the signature is not made with our secret over this body")
    return ident


def _octets(secret: str) -> bytes:
    """As the action reads it: what is behind `whsec_` is base64, anything else is taken as it is."""
    if not secret:
        raise ValueError("an empty secret protects nothing")
    return base64.b64decode(secret[6:], validate=True) if secret.startswith("whsec_") else secret.encode()
