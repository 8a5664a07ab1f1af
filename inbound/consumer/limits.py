"""How much of a message a consumer takes; each limit can be set."""

from dataclasses import dataclass

DEEPEST = 200  # whatever is asked for: the levels of a message are walked by functions that call themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """More octets than `message_bytes` or `content_bytes` are refused (TooBig).

    Beyond any other limit a message is read as far as the limit goes, and `Message.problems` says so.
    """

    message_bytes: int = 64 * 1024 * 1024  # an object as stored, and the message in it; SES takes 40 MB
    content_bytes: int = 64 * 1024 * 1024  # one attachment, decoded
    text_bytes: int = 1024 * 1024  # one text of `bodyValues`
    header_bytes: int = 512 * 1024  # the message's own header; the receiver takes 256 KiB
    header_fields: int = 2000  # the same; the receiver takes 1000
    part_header_bytes: int = 64 * 1024  # the header of one part
    part_header_fields: int = 20_000  # of all parts together
    parts: int = 1000  # multiparts are counted too; SES takes 500
    depth: int = 100  # multiparts inside of multiparts; postfix mime_nesting_limit

    def __post_init__(self) -> None:
        if not 0 < self.depth <= DEEPEST:
            raise ValueError(f"depth is at least 1 and at most {DEEPEST}")
