"""What the spam tests look at: the message taken apart once, with a cap on everything, and what the other checks found."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import unquote

from inbound import mime
from inbound.addresses import Mailbox, a_labels, parse_mailboxes
from inbound.mail import HeaderField, Mail
from inbound.stages.spam import page
from inbound.stages.spam.phrases import Phrases, Tokens
from inbound.stages.spam.vocabulary import ANYTHING
from inbound.verdicts import BlockVerdict, DkimVerdict, DmarcVerdict, IprevVerdict, SpfVerdict

# https://spamassassin.apache.org/gtube/: "in one line, without whitespace or line breaks", in the body. In two pieces here,
# so that this file can be mailed.
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

TEXT_OCTETS = 24 * 1024  # of the plain text, and of the HTML, that are read: what is between beginning and end is not
END_OCTETS = 8 * 1024  # of them from the end
_SUBJECT = 1000  # characters
_WORDS = TEXT_OCTETS + _SUBJECT + 3  # characters in which phrases are sought: subject and text
_GTUBE = GTUBE.encode()
_GTUBE_OCTETS = 1024 * 1024
_MOST_TEXTS = 50
_MOST_FIELDS = 5  # of one name that are read for addresses
_FIELD = 16_384  # characters of one such field

_MOST_URLS = 500  # of the plain text

_URL = re.compile(r"(?:https?|ftp)://[^\s<>\"')\]]{1,2000}", re.IGNORECASE)
_MONTHS = {name: number for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}  # noqa: SIM905
_USUAL_DATE = re.compile(
    rf"(?:[A-Z][a-z][a-z], )?([0-9]{{1,2}}) ({'|'.join(_MONTHS)}) ([12][0-9]{{3}}) ([0-9]{{2}}):([0-9]{{2}}):([0-9]{{2}})"
    r" ([+-])([01][0-9]|2[0-3])([0-5][0-9])"
)
_AUTHORITY = re.compile(r"[a-z][a-z0-9+.-]{1,20}:/{2,3}([^/?#\\\s]{1,500})", re.IGNORECASE)


Value = TypeVar("Value")


class Url(NamedTuple):
    """A URL's host as lower-case A-labels or an address, "" when it has none; and whether it names a user before the host."""

    host: str
    credentials: bool
    port: str
    text: str


class once(Generic[Value]):  # noqa: N801 - it is written as a decorator, as property is
    """A property that is worked out when it is first asked for. No two threads ask at the same time."""

    def __init__(self, work_out: Callable[[Any], Value]) -> None:
        self._work_out = work_out
        self.__doc__ = work_out.__doc__

    def __get__(self, look: "Look", _: type | None = None) -> Value:
        """What it is; from then on the instance itself has it."""
        value = look.__dict__[self._work_out.__name__] = self._work_out(look)
        return value


class Look:
    """A message and what is known of it. Everything is worked out when a test first asks, and once."""

    def __init__(
        self,
        mail: Mail,
        *,
        spf: SpfVerdict,
        dkim: DkimVerdict,
        dmarc: DmarcVerdict,
        iprev: IprevVerdict,
        block: BlockVerdict,
        hostname: str = "",
    ) -> None:
        self.mail = mail
        self.spf = spf
        self.dkim = dkim
        self.dmarc = dmarc
        self.iprev = iprev
        self.block = block
        self.hostname = hostname
        self._fields = mail.headers.by_name
        self._said: dict[Phrases, list[str]] = {}

    @once
    def parts(self) -> mime.Parts:
        """The parts of the message."""
        return mime.parts(self.mail)

    def fields(self, name: str) -> Sequence[HeaderField]:
        """Every header field of that name (in lower case), from the top."""
        return self._fields.get(name, ())

    def field(self, name: str) -> HeaderField | None:
        """The topmost field of that name."""
        fields = self._fields.get(name)
        return fields[0] if fields else None

    def header(self, name: str) -> str:
        """The topmost field of that name, decoded; "" if there is none."""
        field = self.field(name)
        return field.decoded if field else ""

    def has(self, name: str) -> bool:
        """There is a field of that name."""
        return name in self._fields

    @once
    def subject(self) -> str:
        """The Subject, decoded."""
        return self.header("subject")[:_SUBJECT]

    @once
    def date(self) -> float | None:
        """The time of Date in seconds since the epoch, None when it is none."""
        return date_of(self.header("date"))

    @once
    def stamped(self) -> float | None:
        """The time at which the last mail server stamped it; None without a stamp that can be read."""
        return next((date_of(field.value.rpartition(";")[2].strip()) for field in self.fields("received")), None)

    @once
    def authors(self) -> tuple[Mailbox, ...]:
        """The mailboxes of From."""
        return self._mailboxes("from")

    @once
    def author(self) -> Mailbox:
        """The first mailbox of From; an empty one if there is none."""
        return next(iter(self.authors), Mailbox("", ""))

    @once
    def replies(self) -> tuple[Mailbox, ...]:
        """The mailboxes of Reply-To."""
        return self._mailboxes("reply-to")

    @once
    def author_name(self) -> str:
        """The display name of the first author, decoded."""
        return self.header("from").rpartition("<")[0].strip(' "')[:200]

    @once
    def recipients(self) -> tuple[Mailbox, ...]:
        """The mailboxes of To and Cc."""
        return (*self._mailboxes("to"), *self._mailboxes("cc"))

    def _mailboxes(self, name: str) -> tuple[Mailbox, ...]:
        fields = self.fields(name)[:_MOST_FIELDS]
        return tuple(box for field in fields for box in parse_mailboxes(field.value[:_FIELD]))

    @once
    def letter(self) -> tuple[mime.Part, ...]:
        """The text parts that a reader sees as the letter: no attached files, no attached messages."""
        texts = [
            part
            for part in self.parts
            if part.declared in ("text/plain", "text/html") and part.disposition != "attachment"
        ]
        own = [part for part in texts if not part.name and not any(kind.startswith("message/") for kind in part.within)]
        return tuple(own[:_MOST_TEXTS])

    @once
    def _html(self) -> tuple[str, ...]:
        """The HTML as it is written, in one piece or two."""
        return self._texts(html=True)

    def _texts(self, *, html: bool) -> tuple[str, ...]:
        left: int = TEXT_OCTETS
        found: list[str] = []
        for part in self.letter:
            if (part.declared == "text/html") is html and left > 0:
                found += part.ends(left, min(left, END_OCTETS))
                left -= part.size
        return tuple(found)

    @once
    def plain(self) -> str:
        """The plain text."""
        return "\n".join(self._texts(html=False))

    @once
    def has_html(self) -> bool:
        """There is HTML."""
        return any(self._html)

    @once
    def is_list(self) -> bool:
        """A mailing list says that it sent the message on."""
        return self.has("list-id") or self.has("list-post") or self.has("mailing-list")

    @once
    def vouched(self) -> bool:
        """The author's domain is known to answer for the message: aligned DKIM or SPF."""
        return bool(self.dmarc.aligned) or any(one.aligned and one.result == "pass" for one in self.dkim.signatures)

    @once
    def is_announced(self) -> bool:
        """Bulk mail that says so to programs (List-Unsubscribe), of an author whose domain answers for it."""
        return self.vouched and self.has("list-unsubscribe")

    @once
    def page(self) -> page.Page:
        """The HTML as it shows."""
        return page.read(*self._html)

    @once
    def octets(self) -> bytes:
        """The text in UTF-8."""
        return self.text.encode("utf-8", "replace")

    @once
    def text(self) -> str:
        """Everything that is shown: the plain text, and the HTML's where that says something else."""
        return f"{self.plain}\n{self.page.text}" if self.has_html else self.plain

    def shown_at_least(self, enough: int) -> int:
        """How many characters the text has but white space; where that is enough, it may be less than there are."""
        return len("".join(self.text.split(None, enough)[:enough]))

    @once
    def words(self) -> str:
        """Subject and text in lower case, as far as words are sought in them."""
        return f"{self.subject} \n{self.text}"[:_WORDS].lower()

    @once
    def targets(self) -> list[str]:
        """The links of the HTML, and the URLs written in the text."""
        targets = [target for target, _ in self.page.links]
        targets += _URL.findall(self.plain)[:_MOST_URLS] if "://" in self.plain else []
        return targets

    @once
    def urls(self) -> tuple[Url, ...]:
        """The first URL of every host that they lead to, in each way that it is written."""
        sites: dict[str, str] = {}
        last = "://"  # with the slash behind its host
        for target in self.targets:
            if target.startswith(last):
                continue
            slashes = target.find("://")
            if slashes > 0:
                # A host begins with the fourth character behind the scheme, or the third, and ends before the next slash.
                site = target[: target.find("/", slashes + 4) + 1]
                sites.setdefault(site or target, target)
                last = site or last
        found = [(url_of(site), target) for site, target in sites.items()]
        return tuple(url._replace(text=target[:200]) for url, target in found if url is not None)

    @once
    def has_gtube(self) -> bool:
        """The decoded text has GTUBE, as far as it is sought there."""
        texts = [part for part in self.parts if part.declared.startswith(("text/", "multipart/"))]
        raw = self.mail.raw
        if len(raw) < _GTUBE_OCTETS and _GTUBE not in raw and all(part.is_ascii_as_it_stands for part in texts):
            return False
        left, found = _GTUBE_OCTETS, []
        for part in texts:
            if left > 0:
                found.append(part.text(left))
                left -= len(found[-1])
        return GTUBE in "\n".join(found)

    @once
    def tokens(self) -> Tokens:
        """The words of subject and text."""
        return Tokens(self.words)

    @once
    def speaks(self) -> bool:
        """Something of the vocabulary may be there. Where it is not, the words need not be taken apart."""
        return ANYTHING.search(self.words.encode("utf-8", "replace")) is not None

    def said(self, phrases: Phrases) -> list[str]:
        """Which of the phrases the text has. None of the vocabulary where nothing `speaks`."""
        if phrases not in self._said:
            self._said[phrases] = phrases.within(self.tokens)
        return self._said[phrases]


def url_of(target: str) -> Url | None:
    """The URL as a browser would follow it; None when it leads to no host (mailto, anchors, relative paths)."""
    clean = "".join(target.split())
    found = _AUTHORITY.match(clean)
    if not found:
        return None
    user, at, where = found[1].rpartition("@")
    host, colon, port = where.partition(":") if not where.startswith("[") else (where, "", "")
    host = unquote(host)
    return Url(
        host=host.lower() if host.startswith("[") else a_labels(host) or host.lower(),
        credentials=bool(at and user),
        port=port if colon else "",
        text=clean[:200],
    )


def date_of(text: str) -> float | None:
    """A date of RFC 5322 3.3 in seconds since the epoch, None when it is none."""
    try:
        usual = _USUAL_DATE.fullmatch(text)
        if usual:
            day, month, year, hour, minute, second, sign, *zone = usual.groups()
            when = datetime(int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=UTC)
            return when.timestamp() - (int(zone[0]) * 3600 + int(zone[1]) * 60) * (-1 if sign == "-" else 1)
        when = parsedate_to_datetime(text[:100])
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def alike(one: str, other: str) -> bool:
    """Two host names that one organization would have: equal, one below the other, or with their last labels in common."""
    if not one or not other:
        return False
    if one == other or one.endswith(f".{other}") or other.endswith(f".{one}"):
        return True
    mine, theirs = one.split("."), other.split(".")
    # Without a list of public suffixes: two labels, three where the last but one is short, as in co.uk.
    least = 3 if len(mine[-1]) == 2 and len(mine) > 2 and len(mine[-2]) <= 3 else 2  # noqa: PLR2004
    return len(mine) >= least and mine[-least:] == theirs[-least:]
