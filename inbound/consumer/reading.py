"""From octets to the typed message: everything that depends on nothing but the message itself."""

import hashlib
from collections.abc import Iterator, Mapping

from inbound.consumer import forms
from inbound.consumer.bodies import divided
from inbound.consumer.forms import Address
from inbound.consumer.limits import Limits
from inbound.consumer.message import TOO_BIG, BodyPart, BodyValue, Header, Message, header_of
from inbound.consumer.structure import Node, structure
from inbound.errors import TooBig

PREVIEW = 256  # characters (RFC 8621 4.1.4)
_PREVIEWED = 16_384  # characters of the text that a preview is made of
_ONCE = ("from", "sender", "reply-to", "to", "cc", "bcc", "message-id", "in-reply-to", "references", "subject", "date")


def parse(raw: bytes, limits: Limits = Limits()) -> Message:  # noqa: B008 - it is frozen
    """The message in these octets, CRLF or LF. Without verdicts and provenance. Raises TooBig, nothing else."""
    if len(raw) > limits.message_bytes:
        raise TooBig(TOO_BIG, f"the message has {len(raw)} octets, the limit is {limits.message_bytes}")
    found = structure(raw, limits)
    blob = f"sha256-{hashlib.sha256(raw).hexdigest()}"
    root = _tree(raw, found.nodes, blob, limits)
    text, html, attached = divided(root)
    values = {part.partId or "": part.text() for part in (*text, *html) if part.type.startswith("text/")}
    headers = root.headers
    fields = _Fields(headers)
    return Message(
        id=blob,
        blobId=blob,
        size=len(raw),
        receivedAt=None,
        messageId=fields.ids("message-id"),
        inReplyTo=fields.ids("in-reply-to"),
        references=fields.ids("references"),
        sender=fields.addresses("sender"),
        from_=fields.addresses("from"),
        to=fields.addresses("to"),
        cc=fields.addresses("cc"),
        bcc=fields.addresses("bcc"),
        replyTo=fields.addresses("reply-to"),
        subject=fields.text("subject"),
        sentAt=fields.date("date"),
        headers=headers,
        bodyStructure=root,
        bodyValues=values,
        textBody=text,
        htmlBody=html,
        attachments=attached,
        hasAttachment=any(part.disposition != "inline" for part in attached),
        preview=_preview(text, html, values),
        problems=(*found.problems, *fields.problems()),
        raw=raw,
    )


class _Fields:
    """The message's fields by name. The last of several counts (RFC 8621 4.1.3)."""

    def __init__(self, headers: tuple[Header, ...]) -> None:
        self._last: dict[str, str] = {}
        self._several: set[str] = set()
        for one in headers:
            name = one.name.lower()
            if name in self._last:
                self._several.add(name)
            self._last[name] = one.value

    def ids(self, name: str) -> tuple[str, ...]:
        return forms.message_ids(self._last.get(name, "")) or ()

    def addresses(self, name: str) -> tuple[Address, ...]:
        return forms.mailboxes(self._last.get(name, ""))

    def text(self, name: str) -> str | None:
        return forms.text(self._last[name]) if name in self._last else None

    def date(self, name: str) -> str | None:
        return forms.written_date(self._last.get(name, ""))

    def problems(self) -> Iterator[str]:
        """Fields that there may be one of (RFC 5322 3.6): which of several is shown depends on the reader."""
        yield from (f"several {name} fields" for name in _ONCE if name in self._several)


def _tree(raw: bytes, nodes: tuple[Node, ...], blob: str, limits: Limits) -> BodyPart:
    """The parts as JMAP has them. Children come behind their parents in `nodes`, so from the end no recursion is needed."""
    ids: dict[int, str] = {}
    for at, node in enumerate(nodes):
        if not node.multipart:
            ids[at] = str(len(ids) + 1)
    children: dict[int, list[BodyPart]] = {}
    for at in range(len(nodes) - 1, 0, -1):
        part = _part(raw, nodes[at], ids.get(at), blob, children.pop(at, []), limits)
        children.setdefault(nodes[at].parent, []).append(part)
    return _part(raw, nodes[0], ids.get(0), blob, children.pop(0, []), limits)


def _part(raw: bytes, node: Node, ident: str | None, blob: str, inside: list[BodyPart], limits: Limits) -> BodyPart:
    headers = tuple(header_of(one) for one in node.fields)
    fields = _Fields(headers)
    cid, location, language = (fields.text(name) for name in ("content-id", "content-location", "content-language"))
    tags = tuple(tag for one in (language or "").split(",") if (tag := one.strip()))
    return BodyPart(
        partId=ident,
        blobId=f"{blob}-{ident}" if ident else None,
        headers=headers,
        name=node.name or None,
        type=node.type,
        charset=node.charset,
        disposition=node.disposition or None,
        cid=cid.strip().removeprefix("<").removesuffix(">").strip() or None if cid else None,
        language=tags or None,
        location="".join(location.split()) or None if location else None,
        subParts=tuple(reversed(inside)) if node.multipart else None,
        encoding="" if node.multipart else node.encoding,
        encoded=memoryview(raw)[node.start : node.stop],
        limits=limits,
    )


def _preview(text: tuple[BodyPart, ...], html: tuple[BodyPart, ...], values: Mapping[str, BodyValue]) -> str:
    for part in (*text, *html):
        value = values[part.partId or ""].value[:_PREVIEWED] if part.type.startswith("text/") else ""
        words = " ".join((shown(value) if part.type == "text/html" else value).split())
        if words:
            return words[:PREVIEW].rstrip()
    return ""


def shown(page: str) -> str:
    """The text that a page shows; what it hides is left out. Linear."""
    from inbound.stages.spam.page import read  # noqa: PLC0415 - with its neighbours it takes long to import

    lines = (" ".join(line.split()) for line in read(page).text.splitlines())
    return "\n".join(line for line in lines if line)
