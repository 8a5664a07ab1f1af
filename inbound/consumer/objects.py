"""A stored object, fetched and opened: in clear, or sealed as SES or we seal it; and what its seal says of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from inbound.clients import StoredObject
from inbound.clients import reasons as why
from inbound.errors import (
    Failure,
    NotFound,
    NotSealedForUs,
    PermanentFailure,
    TooBig,
    Unconsumable,
    Undecryptable,
)
from inbound.offload import offload
from inbound.seal import CBC, envelope, unseal

UNAUTHENTICATED = "cbc"
NOT_SEALED = "object is not sealed"
_MORE = 1024  # octets that a sealed object may have beyond its message


class Store(Protocol):
    """What it takes to open an object: `clients.aws` and `clients.local` have it."""

    async def get(self, bucket: str, key: str, *, limit: int = ...) -> StoredObject:
        """Fetch an object whole."""
        ...

    async def decrypt_data_key(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key in clear."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The message in clear. `form` is how it was sealed, "" if it was not; `context` what its key was made for."""

    content: bytes
    form: str = ""
    context: Mapping[str, str] = field(default_factory=dict)


async def opened(store: Store, bucket: str, key: str, *, limit: int, sealed: bool, unauthenticated: bool) -> Opened:
    """Fetch and open. `sealed`: nothing in clear is taken; `unauthenticated`: AES-CBC is.

    Raises Unconsumable, or the Failure of the store.
    """
    try:
        stored = await store.get(bucket, key, limit=limit + _MORE)
    except Failure as failure:
        raise _meaning(failure, _OF_THE_STORE) from failure
    try:
        found = envelope(stored.metadata, unauthenticated=unauthenticated)
    except PermanentFailure as failure:
        raise NotSealedForUs(failure.reason, failure.detail) from failure
    if found is None:
        if sealed:
            raise Undecryptable(NOT_SEALED, f"{bucket}/{key} is in clear, where only sealed objects are taken")
        return Opened(content=_within(stored.body, limit))
    try:
        data_key = await store.decrypt_data_key(found.wrapped, found.context)
    except Failure as failure:
        raise _meaning(failure, _OF_THE_KEY) from failure
    try:
        content = await offload(unseal, stored.body, stored.metadata, data_key)
    except PermanentFailure as failure:
        raise Undecryptable(failure.reason, failure.detail) from failure
    return Opened(content=_within(content, limit), form=_form(stored.metadata), context=found.context)


def _within(content: bytes, limit: int) -> bytes:
    if len(content) > limit:
        raise TooBig(why.TOO_LARGE, f"the message has {len(content)} octets, the limit is {limit}")
    return content


def _form(metadata: Mapping[str, str]) -> str:
    if "x-amz-3" in metadata:
        return "s3ec"
    if metadata.get("x-amz-cek-alg") == CBC:
        return UNAUTHENTICATED
    return "ses" if metadata.get("x-amz-wrap-alg") == "kms" else "kms+context"


# What a failure means for a consumer; what may differ later, or is a matter of rights, stays as it is.
_OF_THE_STORE: Mapping[str, type[Unconsumable]] = {
    why.OBJECT_MISSING: NotFound,
    why.BUCKET_MISSING: NotFound,
    why.NAME_REFUSED: NotFound,
    why.TOO_LARGE: TooBig,
}
_OF_THE_KEY: Mapping[
    str, type[Unconsumable]
] = {  # KMS says no in three ways: not with this context, not with this key, not to you
    why.CONTEXT_MISMATCH: Undecryptable,
    why.BAD_REQUEST: Undecryptable,
    why.KEY_MISSING: NotSealedForUs,
    why.KEY_UNUSABLE: NotSealedForUs,
    why.ACCESS_DENIED: NotSealedForUs,
}


def _meaning(failure: Failure, kinds: Mapping[str, type[Unconsumable]]) -> Failure:
    kind = kinds.get(failure.reason)
    return kind(failure.reason, failure.detail) if kind and isinstance(failure, PermanentFailure) else failure
