"""HTML as a reader sees it, in one linear pass: the text shown and the text hidden, links, images, forms, scripts.

Lenient as browsers are, and no more of a browser than the tests need: no nesting beyond what hides text, no style sheets.
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});?")
_TAG_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9:]{0,30}")
_ATTRIBUTE = re.compile(
    r"""([a-zA-Z][\w:-]{0,40})[ \t\r\n]{0,20}=[ \t\r\n]{0,20}(?:"([^"]{0,4000})|'([^']{0,4000})|([^\s"'>]{1,4000}))"""
)
_BLOCK_NAMES = "p div br tr td th table li ul ol h1 h2 h3 h4 h5 h6 hr title center blockquote pre dl dt dd body"
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_VOID = frozenset({"br", "hr", "img", "input", "meta", "link", "area", "base", "col", "embed", "source", "wbr"})
_HIDDEN = re.compile(
    r"display\s{0,5}:\s{0,5}none|visibility\s{0,5}:\s{0,5}hidden|font-size\s{0,5}:\s{0,5}[01](?:px|pt|em|%)?\s{0,5}(?:;|$)"
    r"|opacity\s{0,5}:\s{0,5}0(?:\.0{1,5})?\s{0,5}(?:;|$)|max-height\s{0,5}:\s{0,5}0",
    re.IGNORECASE,
)
_COLOUR = re.compile(r"(?:^|[;\s])color\s{0,5}:\s{0,5}([#\w]{1,20})", re.IGNORECASE)
_MOST_LINKS = 500
_DEEPEST_HIDDEN = 100
_BIG_FONT = 4  # of the seven sizes of <font>; 3 is ordinary


@dataclass(frozen=True, slots=True)
class Link:
    """A link: where it leads, and what is shown for it."""

    target: str
    shown: str


@dataclass(slots=True)
class Page:
    """What a page shows."""

    text: str = ""
    hidden: int = 0  # characters that are not shown
    links: list[Link] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    forms: int = 0
    scripts: int = 0
    tags: int = 0
    big_fonts: int = 0
    colours: set[str] = field(default_factory=set)
    comments_in_words: int = 0


def read(source: str) -> Page:
    """Read a page."""
    return _Reader(source).page


class _Reader:
    """One pass over the source."""

    def __init__(self, source: str) -> None:
        self.page = Page()
        self._source = source
        self._shown: list[str] = []
        self._hiding: list[str] = []  # the names of open elements inside of something hidden, that itself first
        self._link: tuple[str, int] | None = None
        self._next: dict[str, int] = {}  # where each mark of the syntax comes next
        at = 0
        while at < len(source):
            opens = source.find("<", at)
            if opens < 0:
                break
            self._say(source[at:opens])
            at = self._markup(opens)
        self._say(source[at:])
        self._end_link()
        self.page.text = "".join(self._shown)

    def _find(self, what: str, at: int) -> int:
        """Where it comes next, -1 never. Linear over all calls: what was found, or is not there, is not looked for again."""
        if what in self._next and (self._next[what] >= at or self._next[what] < 0):
            return self._next[what]
        self._next[what] = self._source.find(what, at)
        return self._next[what]

    def _say(self, text: str) -> None:
        if not text:
            return
        if self._hiding:
            self.page.hidden += len(text.strip())
        else:
            self._shown.append(entities(text))

    def _markup(self, at: int) -> int:
        """Read what begins with the `<` at `at`; the position behind it."""
        source = self._source
        if source.startswith("<!--", at):
            end = self._find("-->", at + 4)
            closes = self._find(">", at + 4)
            if at > 0 and source[at - 1].isalpha() and end > 0 and source[end + 3 : end + 4].isalpha():
                self.page.comments_in_words += 1
            return end + 3 if end >= 0 else closes + 1 if closes >= 0 else len(source)
        closing = source.startswith("/", at + 1)
        name = _TAG_NAME.match(source, at + 1 + closing)
        end = self._find(">", at + 1)
        if name is None:
            if source.startswith(("!", "?"), at + 1) and end >= 0:
                return end + 1
            text = at + 1
            while source.startswith("<", text):
                text += 1
            self._say(source[at : text - 1] or "<")
            return max(text - 1, at + 1)
        end = len(source) if end < 0 else end
        tag = name.group().lower()
        if closing:
            self._close(tag)
        else:
            inside = source[name.end() : min(end, name.end() + 8192)]
            attributes = _often(inside) if len(inside) <= _OFTEN else _attributes(inside)
            self._open(tag, attributes, empty=source.endswith("/", at, end))
            if tag in ("script", "style"):
                stop = self._find("</" + name.group(), end)
                return len(source) if stop < 0 else stop
        return end + 1

    def _open(self, tag: str, attributes: Mapping[str, str], *, empty: bool) -> None:
        self.page.tags += 1
        if tag in _BLOCKS:
            self._say(" " if tag in ("td", "th") else "\n")
        style = attributes.get("style", "")[:1000] if attributes else ""
        colour = attributes.get("color", "") or (_styled(style)[0] if style else "")
        if colour:
            self.page.colours.add(colour.lower()[:20])
        size = attributes.get("size", "") if tag == "font" else ""
        if tag not in _VOID and not empty:
            hides = bool(style and _styled(style)[1]) or size in ("0", "-7")
            if (self._hiding or hides) and len(self._hiding) < _DEEPEST_HIDDEN:
                self._hiding.append(tag)
        if size[:3].lstrip("+").isdecimal() and int(size[:3].lstrip("+")) >= _BIG_FONT:
            self.page.big_fonts += 1
        self._collect(tag, attributes)

    def _collect(self, tag: str, attributes: Mapping[str, str]) -> None:
        match tag:
            case "a" | "area":
                self._end_link()
                self._link = (entities(attributes.get("href", "")).strip(), len(self._shown))
            case "img":
                self.page.images.append(attributes.get("src", "")[:2000])
            case "form":
                self.page.forms += 1
                self._add_link(attributes.get("action", ""), "")
            case "script":
                self.page.scripts += 1
            case _:
                pass

    def _close(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._say("\n")
        if tag == "a":
            self._end_link()
        if tag in self._hiding:
            while self._hiding.pop() != tag:
                pass

    def _end_link(self) -> None:
        if self._link:
            target, since = self._link
            self._link = None
            self._add_link(target, "".join(self._shown[since : since + 50]))

    def _add_link(self, target: str, shown: str) -> None:
        if target and len(self.page.links) < _MOST_LINKS:
            self.page.links.append(Link(target[:2000], " ".join(shown[:1000].split())))


def entities(text: str) -> str:
    """The text with character references resolved."""
    return _ENTITY.sub(lambda found: html.unescape(found.group()), text) if "&" in text else text


_OFTEN = 100  # characters of attributes that a page is likely to say again and again


@lru_cache(2048)
def _often(text: str) -> Mapping[str, str]:
    return _attributes(text)


@lru_cache(512)
def _styled(style: str) -> tuple[str, bool]:
    """The colour that a style sets, "" if none, and whether it hides."""
    return next(iter(_COLOUR.findall(style)), ""), bool(_HIDDEN.search(style))


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, double, single, bare in _ATTRIBUTE.findall(text):
        found.setdefault(name.lower(), double or single or bare)
    return found
