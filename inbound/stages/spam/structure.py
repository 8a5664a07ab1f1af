"""Spam tests of how the message is put together: parts, attachments, and what of it shows."""

import re
from operator import attrgetter

from inbound import magic
from inbound.decoding import codec
from inbound.stages.spam.look import Look
from inbound.stages.spam.table import Table

STRUCTURE = Table()
test = STRUCTURE.test

_EXECUTABLE_NAMES = frozenset(
    "exe scr com pif bat cmd vbs vbe js jse wsf wsh hta cpl msi msp lnk jar ps1 reg chm iso img vhd one appx xll".split()  # noqa: SIM905
)
_HARMLESS_NAMES = frozenset("pdf doc docx xls xlsx ppt pptx jpg jpeg png gif txt htm html mp3 mp4 zip csv rtf".split())  # noqa: SIM905
_EXECUTABLE_TYPES = frozenset(
    {
        magic.PE,
        magic.ELF,
        "application/x-mach-binary",
        "application/x-ms-shortcut",
        "application/vnd.ms-htmlhelp",
        magic.JAR,
    }
)
_HTML = attrgetter("has_html")
_HTML_AT_FIRST = re.compile(r"\s{0,100}<(?:html|!doctype|body)", re.IGNORECASE)
_HARDLY_ANY = 150  # characters of text
_IMAGES_OF = {"image/jpeg", "image/png", "image/gif", "application/pdf"}


@test("UNREADABLE_MIME", 1.0)
def unreadable_mime(look: Look) -> str:
    """The message is not readable as MIME: readers may see different things in it. At least GRAY, whatever the score."""
    return look.parts.reason


@test("EXECUTABLE_ATTACHMENT", 2.5)
def executable_attachment(look: Look) -> str:
    """An attachment is a program, by its first octets or by its name."""
    for part in look.parts:
        if part.type in _EXECUTABLE_TYPES or any(_extension(name) in _EXECUTABLE_NAMES for name in part.names):
            return f"{part.name or 'no name'} ({part.type})"
    return ""


@test("DOUBLE_EXTENSION", 3.0)
def double_extension(look: Look) -> str:
    """A program's name ends like a document before its true ending: `invoice.pdf.exe`."""
    for part in look.parts:
        for name in part.names:
            before, dot, last = name.lower().rpartition(".")
            if dot and last.strip() in _EXECUTABLE_NAMES and _extension(before.rstrip(" _.")) in _HARMLESS_NAMES:
                return name[:80]
    return ""


@test("TYPE_MISMATCH", 2.5)
def type_mismatch(look: Look) -> str:
    """An attachment says that it is a picture or a document, and its first octets are a program's or a page's."""
    for part in look.parts:
        if part.declared in _IMAGES_OF and (part.type in _EXECUTABLE_TYPES or part.type in (magic.HTML, magic.SCRIPT)):
            return f"{part.name or 'no name'}: {part.declared} is {part.type}"
    return ""


@test("NAME_WITH_OVERRIDE", 3.0)
def name_with_override(look: Look) -> str:
    """A file name is written backwards by a Unicode override, so that its ending does not show."""
    return next((name[:80] for part in look.parts for name in part.names if "\u202e" in name), "")


@test("HTML_ONLY", 1.0)
def html_only(look: Look) -> str:
    """There is HTML and no plain text beside it."""
    return "text/html alone" if look.has_html and not look.plain.strip() else ""


@test("HTML_WITHOUT_MIME", 1.0)
def html_without_mime(look: Look) -> str:
    """There is HTML and no MIME-Version, or the plain text is HTML."""
    if look.has_html and not look.has("mime-version"):
        return "no MIME-Version"
    return "HTML as plain text" if not look.has_html and _HTML_AT_FIRST.match(look.plain) else ""


@test("TEXT_IN_BASE64", 2.0)
def text_in_base64(look: Look) -> str:
    """Text that is plain ASCII is written in base64, as to hide it from filters."""
    for part in look.letter:
        if part.encoding == "base64" and part.size > 100 and part.content(2000).isascii():  # noqa: PLR2004
            return f"{part.declared} of {part.size} octets"
    return ""


@test("PICTURE_FOR_TEXT", 1.2)
def picture_for_text(look: Look) -> str:
    """A picture and hardly any text: what is to be read is in the picture."""
    largest = max((part.size for part in look.parts if part.type.startswith("image/")), default=0)
    shown = look.shown_at_least(_HARDLY_ANY) if largest > 10_000 else _HARDLY_ANY  # noqa: PLR2004
    return f"{shown} characters, a picture of {largest} octets" if shown < _HARDLY_ANY else ""


@test("REMOTE_PICTURE_FOR_TEXT", 1.2, given=_HTML)
def remote_picture_for_text(look: Look) -> str:
    """HTML that shows remote pictures and hardly any text."""
    remote = [source for source in look.page.images if source.lower().startswith("http")]
    shown = look.shown_at_least(_HARDLY_ANY) if remote else _HARDLY_ANY
    return f"{shown} characters, {len(remote)} pictures" if shown < _HARDLY_ANY else ""


@test("HIDDEN_TEXT", 1.0, given=_HTML)
def hidden_text(look: Look) -> str:
    """HTML hides more text than it shows."""
    hidden, shown = look.page.hidden, len(look.page.text.strip())
    return f"{hidden} characters hidden, {shown} shown" if hidden > 200 and hidden > shown else ""  # noqa: PLR2004


@test("COMMENTS_IN_WORDS", 2.5, given=_HTML)
def comments_in_words(look: Look) -> str:
    """HTML comments stand inside of words, to break them up for filters."""
    return f"{look.page.comments_in_words} times" if look.page.comments_in_words > 2 else ""  # noqa: PLR2004


@test("HTML_FORM", 0.7, given=_HTML)
def html_form(look: Look) -> str:
    """The HTML has a form to fill in."""
    return f"{look.page.forms} forms" if look.page.forms else ""


@test("HTML_SCRIPT", 0.8, given=_HTML)
def html_script(look: Look) -> str:
    """The HTML has a script."""
    return f"{look.page.scripts} scripts" if look.page.scripts else ""


@test("HTML_COLOURFUL", 0.8, given=_HTML)
def html_colourful(look: Look) -> str:
    """The HTML writes in many colours."""
    return f"{len(look.page.colours)} colours" if len(look.page.colours) >= 5 else ""  # noqa: PLR2004


@test("HTML_BIG_FONTS", 0.8, given=_HTML)
def html_big_fonts(look: Look) -> str:
    """The HTML writes large."""
    return f"{look.page.big_fonts} times" if look.page.big_fonts >= 2 else ""  # noqa: PLR2004


@test("HTML_RED", 0.6, given=_HTML)
def html_red(look: Look) -> str:
    """The HTML writes in red."""
    return ", ".join(sorted(look.page.colours & {"red", "#ff0000", "ff0000"}))


@test("UNDECLARED_8BIT", 0.5)
def undeclared_8bit(look: Look) -> str:
    """Text has octets beyond ASCII, and says that it has none."""
    for part in look.letter:
        if codec(part.charset or "us-ascii") == "ascii" and not part.content(20_000).isascii():
            return part.charset or "no charset"
    return ""


@test("ODD_CHARSET", 1.0)
def odd_charset(look: Look) -> str:
    """The charset of a text is one that does not exist."""
    for part in look.letter:
        if part.charset and not codec(part.charset):
            return part.charset[:40]
    return ""


def _extension(name: str) -> str:
    return name.lower().rpartition(".")[2].strip() if "." in name else ""
