"""What the spam tests look at: the message taken apart once, with a cap on everything, and what the other checks found."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import NamedTuple
from urllib.parse import unquote

from inbound import mime
from inbound.addresses import Mailbox, a_labels, parse_mailboxes
from inbound.mail import HeaderField, Mail
from inbound.stages.spam import page
from inbound.stages.spam.phrases import Phrases, Tokens
from inbound.verdicts import BlockVerdict, DkimVerdict, DmarcVerdict, IprevVerdict, SpfVerdict

TEXT_OCTETS = 32 * 1024  # of text parts in all that are read; what is behind is not looked at
_WORDS = TEXT_OCTETS  # characters in which phrases are sought
_GTUBE_OCTETS = 1024 * 1024
_MOST_TEXTS = 50
_MOST_FIELDS = 5  # of one name that are read for addresses
_FIELD = 16_384  # characters of one such field

_MOST_URLS = 500  # of the plain text

_URL = re.compile(r"(?:https?|ftp)://[^\s<>\"')\]]{1,2000}", re.IGNORECASE)
_AUTHORITY = re.compile(r"[a-z][a-z0-9+.-]{1,20}:/{2,3}([^/?#\\\s]{1,500})", re.IGNORECASE)
_SITE = re.compile(r"\0(([a-z][a-z0-9+.-]{1,20}:/{2,3}[^/?#\\\0]{1,500})[^\0]{0,200})", re.IGNORECASE)


class Url(NamedTuple):
    """A URL's host as lower-case A-labels or an address, "" when it has none; and whether it names a user before the host."""

    host: str
    credentials: bool
    port: str
    text: str


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
        self._said: dict[Phrases, list[str]] = {}

    @cached_property
    def parts(self) -> mime.Parts:
        """The parts of the message."""
        return mime.parts(self.mail)

    @cached_property
    def _by_name(self) -> Mapping[str, list[HeaderField]]:
        found: dict[str, list[HeaderField]] = {}
        for field in self.mail.headers.fields:
            found.setdefault(field.name.lower(), []).append(field)
        return found

    def fields(self, name: str) -> Sequence[HeaderField]:
        """Every header field of that name (in lower case), from the top."""
        return self._by_name.get(name, ())

    def field(self, name: str) -> HeaderField | None:
        """The topmost field of that name."""
        return next(iter(self.fields(name)), None)

    def header(self, name: str) -> str:
        """The topmost field of that name, decoded; "" if there is none."""
        field = self.field(name)
        return field.decoded if field else ""

    def has(self, name: str) -> bool:
        """There is a field of that name."""
        return name in self._by_name

    @cached_property
    def subject(self) -> str:
        """The Subject, decoded."""
        return self.header("subject")[:1000]

    @cached_property
    def authors(self) -> tuple[Mailbox, ...]:
        """The mailboxes of From."""
        return self._mailboxes("from")

    @cached_property
    def author(self) -> Mailbox:
        """The first mailbox of From; an empty one if there is none."""
        return next(iter(self.authors), Mailbox("", ""))

    @cached_property
    def replies(self) -> tuple[Mailbox, ...]:
        """The mailboxes of Reply-To."""
        return self._mailboxes("reply-to")

    @cached_property
    def author_name(self) -> str:
        """The display name of the first author, decoded."""
        field = self.field("from")
        return field.decoded.rpartition("<")[0].strip(' "')[:200] if field and "<" in field.decoded else ""

    @cached_property
    def recipients(self) -> tuple[Mailbox, ...]:
        """The mailboxes of To and Cc."""
        return (*self._mailboxes("to"), *self._mailboxes("cc"))

    def _mailboxes(self, name: str) -> tuple[Mailbox, ...]:
        fields = self.fields(name)[:_MOST_FIELDS]
        return tuple(box for field in fields for box in parse_mailboxes(field.value[:_FIELD]))

    @cached_property
    def letter(self) -> tuple[mime.Part, ...]:
        """The text parts that a reader sees as the letter: no attached files, no attached messages."""
        texts = [
            part
            for part in self.parts
            if part.declared in ("text/plain", "text/html") and part.disposition != "attachment"
        ]
        own = [part for part in texts if not part.name and not any(kind.startswith("message/") for kind in part.within)]
        return tuple(own[:_MOST_TEXTS])

    def _texts(self, *, html: bool) -> tuple[str, ...]:
        left, found = TEXT_OCTETS, []
        for part in self.letter:
            if (part.declared == "text/html") is html and left > 0:
                found.append(part.text(left))
                left -= len(found[-1])
        return tuple(found)

    @cached_property
    def plain(self) -> str:
        """The plain text."""
        return "\n".join(self._texts(html=False))

    @cached_property
    def html(self) -> str:
        """The HTML source."""
        return "\n".join(self._texts(html=True))

    @cached_property
    def is_list(self) -> bool:
        """A mailing list says that it sent the message on."""
        return self.has("list-id") or self.has("list-post") or self.has("mailing-list")

    @cached_property
    def vouched(self) -> bool:
        """The author's domain is known to answer for the message: aligned DKIM or SPF."""
        return bool(self.dmarc.aligned) or any(one.aligned and one.result == "pass" for one in self.dkim.signatures)

    @cached_property
    def is_announced(self) -> bool:
        """Bulk mail that says so to programs (List-Unsubscribe), of an author whose domain answers for it."""
        return self.vouched and self.has("list-unsubscribe")

    @cached_property
    def page(self) -> page.Page:
        """The HTML as it shows."""
        return page.read(self.html)

    @cached_property
    def text(self) -> str:
        """Everything that is shown: the plain text, and the HTML's where that says something else."""
        return f"{self.plain}\n{self.page.text}" if self.html else self.plain

    def shown_at_least(self, enough: int) -> int:
        """How many characters the text has but white space; where that is enough, it may be less than there are."""
        return len("".join(self.text.split(None, enough)[:enough]))

    @cached_property
    def words(self) -> str:
        """Subject and text in lower case, each run of white space one blank, quotes plain: to seek phrases in."""
        text = f"{self.subject} \n{self.text}"[:_WORDS].lower()
        return " ".join(text.replace("\u2019", "'").replace("\u00a0", " ").split())

    @cached_property
    def _leading(self) -> list[tuple[str, str]]:
        """The beginning of each link of the HTML and URL in the text that leads to a host; and as far as that host."""
        targets = [link.target for link in self.page.links]
        targets += _URL.findall(self.plain)[:_MOST_URLS] if "://" in self.plain else []
        return _SITE.findall("".join("\0".join(["", *targets]).split())) if targets else []

    @property
    def targets(self) -> Iterable[str]:
        """The first 200 characters of every link of the HTML and every URL written in the text."""
        return (target[:200] for target, _ in self._leading)

    @cached_property
    def urls(self) -> tuple[Url, ...]:
        """The first URL of every host that they lead to, in each way that it is written."""
        sites: dict[str, str] = {}
        for target, site in self._leading:
            sites.setdefault(site, target[:200])
        found = [(url_of(site), target) for site, target in sites.items()]
        return tuple(Url(url.host, url.credentials, url.port, target) for url, target in found if url is not None)

    @cached_property
    def body_head(self) -> str:
        """The decoded text of every text part as far as GTUBE is sought in it."""
        left, found = _GTUBE_OCTETS, []
        for part in self.parts:
            if part.declared.startswith(("text/", "multipart/")) and left > 0:
                found.append(part.text(left))
                left -= len(found[-1])
        return "\n".join(found)

    @cached_property
    def tokens(self) -> Tokens:
        """The words of subject and text."""
        return Tokens(self.words)

    def said(self, phrases: Phrases) -> list[str]:
        """Which of the phrases the text has."""
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
