"""Which parts are the message's text, which its HTML, and which are attached (RFC 8621 4.1.4)."""

from dataclasses import dataclass, field

from inbound.consumer.message import BodyPart

Divided = tuple[tuple[BodyPart, ...], tuple[BodyPart, ...], tuple[BodyPart, ...]]

_MEDIA = ("image/", "audio/", "video/")
_TEXT, _HTML = "text/plain", "text/html"


def divided(root: BodyPart) -> Divided:
    """`textBody`, `htmlBody` and `attachments` of a message."""
    found = _Found()
    _divide((root,), "mixed", found, into_text=True, into_html=True, in_alternative=False)
    return tuple(found.text), tuple(found.html), tuple(found.attached)


@dataclass(slots=True)
class _Found:
    text: list[BodyPart] = field(default_factory=list)
    html: list[BodyPart] = field(default_factory=list)
    attached: list[BodyPart] = field(default_factory=list)

    def take(self, part: BodyPart, *, into_text: bool, into_html: bool) -> None:
        """An inline part goes into the bodies that are open; media that is not in both is attached as well."""
        if into_text:
            self.text.append(part)
        if into_html:
            self.html.append(part)
        if not (into_text and into_html) and part.type.startswith(_MEDIA):
            self.attached.append(part)

    def even_out(self, texts: int, pages: int) -> None:
        """An alternative that has brought nothing to one body, as there were so many before, brings the other's parts."""
        more_texts, more_pages = self.text[texts:], self.html[pages:]
        if not more_texts:
            self.text.extend(more_pages)
        if not more_pages:
            self.html.extend(more_texts)


def _divide(
    parts: tuple[BodyPart, ...], around: str, found: _Found, *, into_text: bool, into_html: bool, in_alternative: bool
) -> None:
    """Sort the parts of one multipart (`around` is its subtype). It calls itself as deep as the limits let parts be.

    `into_text` and `into_html` say which bodies inline parts go to: below an alternative, a part that is text in one form
    belongs to that form alone, and so does what follows it there.
    """
    texts, pages = len(found.text), len(found.html)
    for at, part in enumerate(parts):
        if part.subParts is not None:
            inner = part.type.partition("/")[2]
            below = in_alternative or inner == "alternative"
            _divide(part.subParts, inner, found, into_text=into_text, into_html=into_html, in_alternative=below)
        elif not _inline(part, first=at == 0, related=around == "related"):
            found.attached.append(part)
        elif around == "alternative":
            _alternative(part, found, into_text=into_text, into_html=into_html)
        else:
            if in_alternative and part.type in (_TEXT, _HTML):
                into_text, into_html = into_text and part.type == _TEXT, into_html and part.type == _HTML
            found.take(part, into_text=into_text, into_html=into_html)
    if around == "alternative" and into_text and into_html:
        found.even_out(texts, pages)


def _alternative(part: BodyPart, found: _Found, *, into_text: bool, into_html: bool) -> None:
    """A part that stands directly in an alternative is one form of it. Further inside one form, it is in that form only."""
    if part.type == _TEXT and into_text:
        found.text.append(part)
    elif part.type == _HTML and into_html:
        found.html.append(part)
    else:
        found.attached.append(part)


def _inline(part: BodyPart, *, first: bool, related: bool) -> bool:
    """It is a part of the body, and nothing attached to it. In multipart/related only the first part is."""
    media = part.type.startswith(_MEDIA)
    if part.disposition == "attachment" or not (media or part.type in (_TEXT, _HTML)):
        return False
    return first or (not related and (media or not part.name))
