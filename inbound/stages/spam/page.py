"""HTML as a reader sees it, in one linear pass: the text shown and the text hidden, links, images, forms, scripts.

1. One `split` takes the source apart into texts and tags. Everything else works on lists of them, so that what is ordinary
   costs nothing in Python: only links, and what hides something, are walked to.
2. The tags of a page repeat each other but for the URLs in them. So a tag is read with its URL cut out, and remembered.
3. Lenient as browsers are, and no more of a browser than the tests need: no nesting beyond what hides text, no style sheets.
"""

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

# Each `<` that begins markup, and what follows up to the next `>` or the end. Any octet is looked at once.
_MARKUP = re.compile(r"<([a-zA-Z/!?][^>]*)>?")
_BEGINS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/!?")
_NO_ANGLES = bytes(octet for octet in range(256) if octet not in b"<>")
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
_LINKS = frozenset({"a", "area"})
_COUNTS = frozenset({"img", "form", "script", "font"})
_BEFORE_URL = ("href=", "src=")
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


Link = tuple[str, str]  # where it leads, and what is shown for it


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


@dataclass(frozen=True, slots=True, eq=False)
class _Tag:
    """A tag: its name in lower case, `/` before it when it closes; its attributes; what stands between the texts around it.

    It `opens` an element that another tag ends, `hides` what is inside of it, sets a `colour` ("" if none) or a `big` font;
    it begins or ends a link, or `counts` for something else.
    """

    name: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    between: str = ""
    opens: bool = False
    hides: bool = False
    colour: str = ""
    big: bool = False
    links: bool = False
    counts: bool = False


_NONE = _Tag()


def read(*sources: str) -> Page:
    """Read a page, or pieces of it: what is open at the end of one does not matter for the next."""
    page = Page()
    page.text = "\n".join(_Reader(source, page).text for source in sources)
    del page.links[_MOST_LINKS:]
    return page


class _Reader:
    """A piece of a page taken apart: tag `n` stands between text `n` and text `n + 1`, written as mark `n`."""

    def __init__(self, source: str, page: Page) -> None:
        self._page = page
        self._texts, self._marks, different = _apart(source)
        known, self._urls = _tags(different)
        self._tags = list(map(known.__getitem__, self._marks))
        kinds = set(known.values())
        if any(tag.name in _SWALLOW for tag in kinds):
            self._swallow()
            kinds = set(self._tags)
        shown = self._shown = [""] * (2 * len(self._tags) + 1)
        shown[1::2] = [tag.between for tag in self._tags]
        if any(tag.hides for tag in kinds):
            self._hide()
        shown[0::2] = self._texts
        self.text = entities("".join(shown))
        self._link()
        page.colours.update(tag.colour for tag in kinds if tag.colour)
        if any(tag.counts for tag in kinds):
            self._count()

    def _swallow(self) -> None:
        """Take out comments, and what is inside of scripts and style sheets."""
        behind, unended = 0, False
        for at, tag in enumerate(self._tags):
            if at < behind or tag.name not in _SWALLOW:
                continue
            if tag.name != "!--":
                behind = self._script_end(at + 1, f"/{tag.name}")
                self._blank(at + 1, behind)
                continue
            end = 0 if unended else self._comment_end(at)
            unended = not end  # and so none behind it is
            behind = end or at + 1
            self._blank(at + 1, behind)
            before, after = self._texts[at], self._texts[behind]
            self._page.comments_in_words += bool(end) and before[-1:].isalpha() and after[:1].isalpha()

    def _blank(self, begin: int, behind: int) -> None:
        """Take out these tags and the texts before them."""
        self._tags[begin:behind] = [_NONE] * (min(behind, len(self._tags)) - begin)
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
        """Take out what is not shown."""
        behind = 0
        for at, tag in enumerate(self._tags):
            if tag.hides and tag.opens and at >= behind:
                behind = self._hide_inside(at)

    def _hide_inside(self, begin: int) -> int:
        """Take out the texts inside of the element that this tag opens; the first tag behind it."""
        inside = [self._tags[begin].name]  # elements that are open
        for at in range(begin + 1, len(self._texts)):
            self._page.hidden += len(self._texts[at].strip())
            self._texts[at] = ""
            if at == len(self._tags):
                break
            self._shown[2 * at + 1] = ""
            tag = self._tags[at]
            if tag.opens:
                if len(inside) < _DEEPEST_HIDDEN:
                    inside.append(tag.name)
            elif tag.name.startswith("/") and tag.name[1:] in inside:
                while inside.pop() != tag.name[1:]:
                    pass
                if not inside:
                    return at + 1
        return len(self._tags)

    def _link(self) -> None:
        """Find where the links lead, and what each shows."""
        texts, marks, urls, links = self._texts, self._marks, self._urls, self._page.links
        target, since = "", 0
        for at in [at for at, tag in enumerate(self._tags) if tag.links]:
            if target:
                links.append((target, texts[at] if at == since + 1 else self._within(since, at)))
            target, since = urls[marks[at]], at
        if target:
            links.append((target, self._within(since, len(marks))))

    def _within(self, begin: int, end: int) -> str:
        """The text between two tags, as far as it can be what a link is known by."""
        return "".join(self._shown[2 * begin + 2 : 2 * end + 1][:_MOST_SHOWN])[:_LONGEST_SHOWN]

    def _count(self) -> None:
        """Count what else a page may have."""
        page = self._page
        for at in [at for at, tag in enumerate(self._tags) if tag.counts]:
            tag, url = self._tags[at], self._urls[self._marks[at]]
            if tag.name == "img":
                page.images.append(url)
            elif tag.name == "font":
                page.big_fonts += tag.big
            elif tag.name == "script":
                page.scripts += 1
            else:
                page.forms += 1
                page.links.append((url, ""))


def _apart(source: str) -> tuple[list[str], list[str], set[str]]:
    """The texts, the tags between them, and which different ones there are of these."""
    angles = source.encode("utf-8", "replace").translate(None, _NO_ANGLES)
    if angles == b"<>" * (len(angles) // 2):  # as pages are written, and this is twice as fast
        pieces = source.replace(">", "<").split("<")
        different = set(pieces[1::2])
        if all(mark[:1] in _BEGINS for mark in different):
            return pieces[0::2], pieces[1::2], different
    pieces = _MARKUP.split(source)
    return pieces[0::2], pieces[1::2], set(pieces[1::2])


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


def _tags(marks: Iterable[str]) -> tuple[dict[str, _Tag], dict[str, str]]:
    """The tags that are written so, and the URL of each that has one."""
    tags: dict[str, _Tag] = {}
    urls: dict[str, str] = {}
    for mark in marks:
        written = mark.split('"', 2)
        if len(written) == 3 and len(mark) < _LONGEST_TAG and written[0].endswith(_BEFORE_URL):  # noqa: PLR2004
            before, url, after = written
            tag = (_often if len(before) + len(after) < _OFTEN else _read)(before, after)
            if tag:
                tags[mark], urls[mark] = tag, _url(url)
                continue
        tags[mark], urls[mark] = _tag(mark)
    return tags, urls


def _tag(mark: str) -> tuple[_Tag, str]:
    """A tag and the URL that it has, "" if none. It is read with the URL cut out, as it was read before."""
    begin = mark.find('href="') + 5
    if begin < 5:  # noqa: PLR2004
        begin = mark.find('src="') + 4
    end = mark.find('"', begin + 1) if begin >= 4 else -1  # noqa: PLR2004
    if 0 < end < _LONGEST_TAG:
        tag = (_often if len(mark) < _OFTEN + end - begin else _read)(mark[:begin], mark[end + 1 :])
        if tag:
            return tag, _url(mark[begin + 1 : end])
    tag = (_often if len(mark) < _OFTEN else _read)(mark) or _NONE
    return tag, _url(tag.values.get(_URL_OF.get(tag.name, ""), ""))


def _url(written: str) -> str:
    return (entities(written) if "&" in written else written)[:_LONGEST_URL].strip()


def _read(before: str, after: str | None = None) -> _Tag | None:
    """The tag that is written so, or that was before and after a URL was cut out. None when it was no URL's attribute."""
    found = _NAME.match(before)
    name = found.group().lower() if found else ""
    if not name[:1].isalpha():
        return _Tag(name, between=_BETWEEN.get(name, ""), links=name == "/a")
    values = _attributes(f'{before[len(name) :]}""' if after is not None else before[len(name) : _LONGEST_TAG])
    if after is not None:
        attribute = "href" if before.endswith("href=") else "src"
        if values.get(attribute) != "" or _URL_OF.get(name) != attribute:
            return None
        values = {**_attributes(after[:_LONGEST_TAG]), **values}
    style = values.get("style", "")[:1000]
    colour = values.get("color", "") or next(iter(_COLOUR.findall(style) if style else ()), "")
    return _Tag(
        name=name,
        values=values,
        between=_BETWEEN.get(name, ""),
        opens=name not in _VOID and not (after or before).endswith("/"),
        hides=bool(style and _HIDDEN.search(style)) or (name == "font" and values.get("size") in ("0", "-7")),
        colour=colour.lower()[:20],
        big=_is_big(values.get("size", "")),
        links=name in _LINKS,
        counts=name in _COUNTS,
    )


_often = lru_cache(8192)(_read)


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    if "=" not in text:
        return found
    for name, double, single, bare in _ATTRIBUTE.findall(text):
        found.setdefault(name.lower(), double or single or bare)
    return found


def _is_big(size: str) -> bool:
    number = size[:3].lstrip("+")
    return number.isdecimal() and int(number) >= _BIG_FONT
