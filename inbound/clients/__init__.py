"""One module for each foreign library or service, the only place where it is imported; here, what they answer with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Piece = bytes | bytearray | memoryview
RecordType = Literal["A", "AAAA", "CNAME", "MX", "NS", "PTR", "TXT"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What DNS says of one name and type. A name that does not exist (NXDOMAIN) has `exists` false; NODATA is no records.

    NXDOMAIN to an alias is about what it stands for (RFC 6604 3): the alias exists.
    `records` by type: A and AAAA the address as text; CNAME, NS and PTR the name; MX `"10 mx.example.com"`; TXT the
    strings of the record joined, as latin-1 text so that every octet survives. Names are lower case, no final dot.
    `ttl` is seconds left; `authenticated` is the AD bit of a resolver that is trusted to validate.
    """

    exists: bool
    records: tuple[str, ...] = ()
    ttl: int = 0
    authenticated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object as a store keeps it: its octets and its user metadata (names without `x-amz-meta-`)."""

    body: bytes
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMessage:
    """A message that a queue hands out for a while: `receipt` deletes it, `times` counts how often it was handed out."""

    id: str
    body: str
    receipt: str
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An object as a listing tells of it: its key, its octets as stored, and when that was (seconds since the epoch)."""

    key: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """A KMS data key: 32 octets in clear, the same wrapped (CiphertextBlob), and the ARN of the key that wrapped it.

    Who has used it overwrites it (`forget`), as far as Python lets: what was copied on the way is not found.
    """

    plaintext: bytearray
    wrapped: bytes
    key_arn: str

    def forget(self) -> None:
        """Overwrite the key in clear."""
        self.plaintext[:] = bytes(len(self.plaintext))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """That a data key may have sealed other objects of the same `scope`, and how much: objects, octets, and for how long."""

    scope: str
    messages: int
    octets: int
    seconds: float


class Body(Protocol):
    """The octets of an object that may be too many to be held twice: how many, and the same pieces at each asking."""

    def __len__(self) -> int:
        """How many octets."""
        ...

    def pieces(self, octets: int) -> Iterator[Piece]:
        """Pieces of so many octets, the last as many as are left. Each is good until the next one is asked for."""
        ...


@dataclass(frozen=True, slots=True)
class Octets:
    """A body that is in memory already."""

    whole: bytes

    def __len__(self) -> int:
        return len(self.whole)

    def pieces(self, octets: int) -> Iterator[Piece]:
        """Views of it, nothing is copied."""
        view = memoryview(self.whole)
        for start in range(0, len(view), octets):
            yield view[start : start + octets]


def whole(body: bytes | Body) -> bytes:
    """All of it in one."""
    if isinstance(body, bytes):
        return body
    return body.whole if isinstance(body, Octets) else b"".join(map(bytes, body.pieces(1 << 20)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How an object is to be stored, beside its octets and user metadata; the words are those of S3's PutObject.

    `owner` is the account that the bucket must belong to. Unless it `replaces`, the first write wins.
    """

    owner: str | None = None
    server_side_encryption: str | None = None
    sse_kms_key: str | None = None
    bucket_key: bool | None = None
    storage_class: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    replaces: bool = False


USUAL = Terms()
