"""HTML as a reader sees it, in one linear pass: the text shown and the text hidden, links, images, forms, scripts.

1. One `split` takes the source apart into texts and tags. Everything else works on lists of them, so that what is ordinary
   costs nothing in Python: only links, and what hides something, are walked to.
2. The tags of a page repeat each other but for the URLs in them. So a tag is read with its URL cut out, and remembered.
3. Lenient as browsers are, and no more of a browser than the tests need: no nesting beyond what hides text, no style sheets.
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

# Each `<` that begins markup, and what follows up to the next `>` or the end. Any octet is looked at once.
_MARKUP = re.compile(r"<([a-zA-Z/!?][^>]*)>?")
_NAME = re.compile(r"!--|/?[a-zA-Z][a-zA-Z0-9:]{0,30}")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});?")
_ATTRIBUTE = re.compile(
    r"""([a-zA-Z][\w:-]{0,40})[ \t\r\n]{0,20}=[ \t\r\n]{0,20}(?:"([^"]{0,4000})|'([^']{0,4000})|([^\s"'>]{1,4000}))"""
)
_BLOCKS = "p div br tr table li ul ol h1 h2 h3 h4 h5 h6 hr title center blockquote pre dl dt dd body".split()  # noqa: SIM905
_CELLS = ("td", "th")
_BETWEEN = {
    **dict.fromkeys([*_BLOCKS, *(f"/{name}" for name in (*_BLOCKS, *_CELLS))], "\n"),
    **dict.fromkeys(_CELLS, " "),
}  # what stands between the texts on both sides of a tag
_VOID = frozenset({"br", "hr", "img", "input", "meta", "link", "area", "base", "col", "embed", "source", "wbr"})
_SWALLOW = frozenset({"!--", "script", "style"})
_LINKS = frozenset({"a", "/a", "area"})
_COUNTED = frozenset({"img", "form", "script", "font"})
_URL_OF = {"a": "href", "area": "href", "img": "src", "form": "action"}
_HIDDEN = re.compile(
    r"display\s{0,5}:\s{0,5}none|visibility\s{0,5}:\s{0,5}hidden|font-size\s{0,5}:\s{0,5}[01](?:px|pt|em|%)?\s{0,5}(?:;|$)"
    r"|opacity\s{0,5}:\s{0,5}0(?:\.0{1,5})?\s{0,5}(?:;|$)|max-height\s{0,5}:\s{0,5}0",
    re.IGNORECASE,
)
_COLOUR = re.compile(r"(?:^|[;\s])color\s{0,5}:\s{0,5}([#\w]{1,20})", re.IGNORECASE)
_LONGEST_TAG = 8192  # characters of a tag that are read
_OFTEN = 200  # characters of a tag that is worth remembering
_MOST_LINKS = 500
_LONGEST_URL = 2000  # characters
_MOST_SHOWN = 50  # texts between the two tags of a link that are read
_LONGEST_SHOWN = 1000  # characters of them
_DEEPEST_HIDDEN = 100
_BIG_FONT = 4  # of the seven sizes of <font>; 3 is ordinary


class Link(NamedTuple):
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
    big_fonts: int = 0
    colours: set[str] = field(default_factory=set)
    comments_in_words: int = 0


class _Tag(NamedTuple):
    """A tag: its name in lower case, `/` before it when it closes, what stands between the texts around it, and attributes.

    It `opens` an element that another tag ends, `hides` what is inside of it, sets a `colour` ("" if none) or a `big` font.
    """

    name: str = ""
    between: str = ""
    values: Mapping[str, str] = MappingProxyType({})
    opens: bool = False
    hides: bool = False
    colour: str = ""
    big: bool = False


def read(source: str) -> Page:
    """Read a page."""
    return _Reader(source).page


class _Reader:
    """A page taken apart: tag `n` stands between text `n` and text `n + 1`; "" is a tag that does not count any more."""

    def __init__(self, source: str) -> None:
        self.page = Page()
        pieces = _MARKUP.split(source)
        self._texts = pieces[0::2]
        self._marks = pieces[1::2]
        self._tags: dict[str, _Tag] = {"": _Tag()}
        self._urls: dict[str, str] = {}
        for mark in set(self._marks):
            self._tags[mark], self._urls[mark] = _tag(mark)
        swallow = {mark for mark, tag in self._tags.items() if tag.name in _SWALLOW}
        if swallow:
            self._swallow(swallow)
            self._tags = {mark: self._tags[mark] for mark in {"", *self._marks}}
        self._hide()
        self._links()
        self._count()

    def _swallow(self, swallow: set[str]) -> None:
        """Take out comments, and what is inside of scripts and style sheets."""
        behind, unended = 0, False
        for at in [at for at, mark in enumerate(self._marks) if mark in swallow]:
            name = self._tags[self._marks[at]].name
            if at < behind:
                continue
            if name != "!--":
                behind = self._script_end(at + 1, f"/{name}")
                self._blank(at + 1, behind)
                continue
            end = 0 if unended else self._comment_end(at)
            unended = not end  # and so none behind it is
            behind = end or at + 1
            self._marks[at] = ""
            self._blank(at + 1, behind)
            before, after = self._texts[at], self._texts[behind]
            self.page.comments_in_words += bool(end) and before[-1:].isalpha() and after[:1].isalpha()

    def _blank(self, begin: int, behind: int) -> None:
        """Take out these tags and the texts before them."""
        self._marks[begin:behind] = [""] * (min(behind, len(self._marks)) - begin)
        self._texts[begin:behind] = [""] * (behind - begin)

    def _comment_end(self, begin: int) -> int:
        """The first tag behind the comment that this tag opens, 0 when it does not end. What of a text is in it is cut."""
        for at in range(begin, len(self._marks)):
            if self._marks[at].endswith("--", 3 if at == begin else 0):
                return at + 1
            _, ends, after = self._texts[at + 1].partition("-->")
            if ends:
                self._texts[at + 1] = after
                return at + 1
        return 0

    def _script_end(self, begin: int, closing: str) -> int:
        """The tag behind the one that closes a script or a style sheet. A `<` in there may have begun that one too early."""
        for at in range(begin, len(self._marks)):
            mark = self._marks[at].lower()
            if mark.startswith(closing) or f"<{closing}" in mark:
                return at + 1
        return len(self._texts)

    def _hide(self) -> None:
        """Take out the texts that are not shown, and put together those that are."""
        tags, marks = self._tags, self._marks
        between = {mark: tag.between for mark, tag in tags.items()}
        shown = self._shown = [""] * (2 * len(marks) + 1)
        shown[1::2] = [between[mark] for mark in marks]
        hiding = {mark for mark, tag in tags.items() if tag.hides and tag.opens}
        behind = 0
        for at in [at for at, mark in enumerate(marks) if mark in hiding] if hiding else ():
            if at >= behind:
                behind = self._hide_inside(at)
        shown[0::2] = self._texts
        self.page.text = entities("".join(shown))

    def _hide_inside(self, begin: int) -> int:
        """Take out what is inside of the element that this tag opens; the first tag behind it."""
        inside = [self._tags[self._marks[begin]].name]  # elements that are open
        for at in range(begin + 1, len(self._texts)):
            self.page.hidden += len(self._texts[at].strip())
            self._texts[at] = ""
            if at == len(self._marks):
                break
            self._shown[2 * at + 1] = ""
            tag = self._tags[self._marks[at]]
            if tag.name.startswith("/") and tag.name[1:] in inside:
                while inside.pop() != tag.name[1:]:
                    pass
                if not inside:
                    return at + 1
            elif tag.opens and len(inside) < _DEEPEST_HIDDEN:
                inside.append(tag.name)
        return len(self._marks)

    def _links(self) -> None:
        """Find where the links lead, and what each shows."""
        marks, texts, links = self._marks, self._texts, self.page.links
        leads = {mark: self._urls[mark] for mark, tag in self._tags.items() if tag.name in _LINKS}
        target, since = "", 0
        for at in [at for at, mark in enumerate(marks) if mark in leads]:
            if target:
                links.append(Link(target, texts[at] if at == since + 1 else self._between(since, at)))
            target, since = leads[marks[at]], at
        if target:
            links.append(Link(target, self._between(since, len(marks))))
        del links[_MOST_LINKS:]

    def _between(self, begin: int, end: int) -> str:
        """The text between two tags, as far as it can be what a link is known by."""
        return "".join(self._shown[2 * begin + 2 : 2 * end + 1][:_MOST_SHOWN])[:_LONGEST_SHOWN]

    def _count(self) -> None:
        """Count what else a page may have."""
        page, tags = self.page, self._tags
        page.colours = {tag.colour for tag in tags.values() if tag.colour}
        noted = {mark: tag.name for mark, tag in tags.items() if tag.name in _COUNTED}
        for mark in self._marks if noted else ():
            name = noted.get(mark)
            if name is None:
                continue
            if name == "img":
                page.images.append(self._urls[mark])
            elif name == "script":
                page.scripts += 1
            elif name == "font":
                page.big_fonts += tags[mark].big
            else:
                page.forms += 1
                page.links.append(Link(self._urls[mark], ""))


def entities(text: str) -> str:
    """The text with character references resolved."""
    return _ENTITY.sub(_character, text) if "&" in text else text


def plainly(shown: str) -> str:
    """What is shown, each run of white space one blank."""
    return " ".join(entities(shown).split())


def _character(found: re.Match[str]) -> str:
    return _resolved(found.group())


@lru_cache(1024)
def _resolved(reference: str) -> str:
    return html.unescape(reference)


def _tag(mark: str) -> tuple[_Tag, str]:
    """A tag and the URL that it has, "" if none. It is read with the URL cut out, as it was read before."""
    begin = mark.find('href="') + 6
    if begin < 6:  # noqa: PLR2004
        begin = mark.find('src="') + 5
    end = mark.find('"', begin) if begin >= 5 else -1  # noqa: PLR2004
    if 0 < end < _LONGEST_TAG:
        tag = (_often if len(mark) < _OFTEN + end - begin else _read)(mark[:begin], mark[end + 1 :])
        if tag:
            return tag, _url(mark[begin:end])
    tag = (_often if len(mark) < _OFTEN else _read)(mark) or _Tag()
    return tag, _url(tag.values.get(_URL_OF.get(tag.name, ""), ""))


def _url(written: str) -> str:
    return (entities(written) if "&" in written else written)[:_LONGEST_URL].strip()


def _read(before: str, after: str | None = None) -> _Tag | None:
    """The tag that is written so, or that was before and after a URL was cut out. None when it was no URL's attribute."""
    found = _NAME.match(before)
    name = found.group().lower() if found else ""
    if not name[:1].isalpha():
        return _Tag(name, _BETWEEN.get(name, ""))
    values = _attributes(f'{before[len(name) :]}"' if after is not None else before[len(name) : _LONGEST_TAG])
    if after is not None:
        attribute = "href" if before.endswith('href="') else "src"
        if values.get(attribute) != "" or _URL_OF.get(name) != attribute:
            return None
        values = {**_attributes(after[:_LONGEST_TAG]), **values}
    style = values.get("style", "")[:1000]
    colour = values.get("color", "") or next(iter(_COLOUR.findall(style) if style else ()), "")
    return _Tag(
        name=name,
        between=_BETWEEN.get(name, ""),
        values=values,
        opens=name not in _VOID and not (after or before).endswith("/"),
        hides=bool(style and _HIDDEN.search(style)) or (name == "font" and values.get("size") in ("0", "-7")),
        colour=colour.lower()[:20],
        big=_is_big(values.get("size", "")),
    )


_often = lru_cache(8192)(_read)


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, double, single, bare in _ATTRIBUTE.findall(text):
        found.setdefault(name.lower(), double or single or bare)
    return found


def _is_big(size: str) -> bool:
    number = size[:3].lstrip("+")
    return number.isdecimal() and int(number) >= _BIG_FONT
