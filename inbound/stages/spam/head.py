"""Spam tests of the header: what must be there, what must not be twice, what ordinary programs do not write."""

import re
from operator import attrgetter

from inbound.addresses import parse_mailboxes
from inbound.stages.spam.look import Look, alike
from inbound.stages.spam.table import Table

HEAD = Table()
test = HEAD.test

_REPLIES = attrgetter("replies")

_DAY = 86_400.0
FREEMAIL = frozenset(
    """gmail.com googlemail.com yahoo.com yahoo.co.uk yahoo.fr yahoo.de ymail.com rocketmail.com hotmail.com hotmail.co.uk
    hotmail.fr live.com msn.com outlook.com outlook.fr outlook.de aol.com aim.com gmx.com gmx.de gmx.net web.de mail.com mail.ru
    list.ru bk.ru inbox.ru yandex.ru yandex.com rambler.ru protonmail.com proton.me icloud.com me.com mac.com zoho.com
    tutanota.com qq.com 163.com 126.com sina.com netscape.net excite.com lycos.com caramail.com email.com usa.net juno.com
    earthlink.net libero.it virgilio.it tiscali.it laposte.net orange.fr free.fr wanadoo.fr eircom.net fastmail.com hushmail.com
    terra.es seznam.cz naver.com daum.net rediffmail.com""".split()  # noqa: SIM905
)
_MESSAGE_ID = re.compile(r"<[^<>@\s]{1,500}@[^<>@\s]{1,250}>")
_PROVIDERS = {  # what else a provider calls itself in its own trace than the first label of the address
    "gmail": "google",
    "googlemail": "google",
    "msn": "hotmail",
    "live": "outlook",
    "hotmail": "outlook",
    "rocketmail": "yahoo",
    "ymail": "yahoo",
    "me": "icloud",
    "mac": "icloud",
    "icloud": "apple",
}
_BULK_MAILER = re.compile(
    r"\b(?:mass[ -]?mail|bulk[ -]?mail|group ?mail|dark ?mailer|stealth|emerge|diffondicool|mass sender)",
    re.IGNORECASE,
)
_SELLS = re.compile(
    r"\b(?:free|guaranteed?|lowest|credit|debts?|mortgage|viagra|cialis|loans?|sex|nude|xxx|lose weight|earn|cash|income"
    r"|millions?|winner|won|lottery|click|insurance|investment|save|casino|pills?|discount)\b",
    re.IGNORECASE,
)
_PADDING = re.compile(rb"\S[ \t]{8,500}")
_ADVERTISEMENT = re.compile(  # the last two are the words that Korean and Japanese law ask for
    r"\W{0,5}adv?\b\s{0,5}[:.\-]|\W{0,3}advertisement|.{0,10}(?:\uad11\uace0|\u672a\u627f\u8afe\u5e83\u544a)",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"[A-Za-z]")
_LOWER_CASE = re.compile(r"[a-z]")
_RUN_ID = re.compile(r"\s{4,}[\[(]?[A-Za-z0-9]{4,}[\])]?\s*$|[\[(]\d{3,}[\])]$")
_MONEY = re.compile(r"[$\u20ac\u00a3]\s{0,3}\d|\d{1,3}%|\bUSD\b")
_ANSWERS = re.compile(r"(?:re|aw|sv|antw)\s{0,3}:", re.IGNORECASE)
_NUMBERS = re.compile(r"[a-z]\d[a-z]|\d\d[a-z]{1,5}\d")
_EARLY_OUTLOOK = re.compile(r"Microsoft Outlook,? (?:IMO,? )?Build [89]\.|Outlook CWS")
_QUAD = re.compile(r"[\[(](\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})[\])]")
_DATE = re.compile(
    r"\s*(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),?\s{0,20})?\d{1,2}\s{1,20}[A-Z][a-z]{2}\s{1,20}\d{4}\s{1,20}"
    r"\d{1,2}:\d\d(?::\d\d)?\s{1,20}(?:[+-]\d{4}|UT|GMT|EST|EDT|CST|CDT|MST|MDT|PST|PDT|Z)\b",
)


@test("NO_FROM", 2.5)
def no_from(look: Look) -> str:
    """There is no From field (RFC 5322 3.6 wants one)."""
    return "" if look.has("from") else "no From"


@test("NO_AUTHOR", 1.5)
def no_author(look: Look) -> str:
    """From names no address that could be read."""
    return (
        look.header("from") or "empty From" if look.has("from") and not any(one.domain for one in look.authors) else ""
    )


@test("NO_DATE", 1.3)
def no_date(look: Look) -> str:
    """There is no Date field (RFC 5322 3.6 wants one)."""
    return "" if look.has("date") else "no Date"


@test("NO_MESSAGE_ID", 1.2)
def no_message_id(look: Look) -> str:
    """There is no Message-ID field (RFC 5322 3.6 asks for one)."""
    return "" if look.has("message-id") else "no Message-ID"


@test("NO_SUBJECT", 0.5)
def no_subject(look: Look) -> str:
    """There is no Subject, or an empty one."""
    return "" if look.subject.strip() else "no Subject"


@test("NO_TO", 0.5)
def no_to(look: Look) -> str:
    """There is neither To nor Cc."""
    return "" if look.has("to") or look.has("cc") else "no To, no Cc"


@test("TO_UNDISCLOSED", 1.2)
def to_undisclosed(look: Look) -> str:
    """To is there and names nobody."""
    return (
        look.header("to")[:60] or "empty To"
        if look.has("to") and not any(box.address for box in look.recipients)
        else ""
    )


@test("SEVERAL_FROM", 3.0)
def several_from(look: Look) -> str:
    """There are several From fields (RFC 5322 3.6 allows one): readers and checks may take different ones."""
    fields = look.fields("from")
    return ", ".join(field.value[:40] for field in fields[:3]) if len(fields) > 1 else ""


@test("SEVERAL_SINGLE_FIELDS", 1.5)
def several_single_fields(look: Look) -> str:
    """A field that may stand once (RFC 5322 3.6) stands more than once."""
    single = ("subject", "date", "to", "message-id", "reply-to", "sender")
    return ", ".join(name for name in single if len(look.fields(name)) > 1)


@test("NAMELESS_HEADER_LINE", 0.7)
def nameless_header_line(look: Look) -> str:
    """A line of the header is no header field."""
    lines = [
        field
        for field in look.mail.headers.fields
        if not field.name and not field.raw.startswith((b"From ", b">From "))
    ]
    return lines[0].value[:60] or "an empty one" if lines else ""


@test("DATE_UNREADABLE", 1.5)
def date_unreadable(look: Look) -> str:
    """Date is not written as RFC 5322 3.3 says."""
    date = look.header("date")
    return date[:60] or "empty" if look.has("date") and not _DATE.match(date[:200]) else ""


@test("DATE_IN_PAST", 1.0)
def date_in_past(look: Look) -> str:
    """Date lies four days or more before the last stamp of a mail server, or before now if there is no stamp."""
    return _off(look, past=True)


@test("DATE_IN_FUTURE", 2.0)
def date_in_future(look: Look) -> str:
    """Date lies half a day or more after the last stamp of a mail server, or after now if there is no stamp."""
    return _off(look, past=False)


def _off(look: Look, *, past: bool) -> str:
    written, stamped = look.date, look.stamped
    if written is None:
        return ""
    reference = stamped if stamped is not None and stamped < look.mail.received_at + _DAY else look.mail.received_at
    days = (written - reference) / _DAY
    return f"{abs(days):.1f} days off" if (days < -4.0 if past else days > 0.5) else ""  # noqa: PLR2004


@test("MESSAGE_ID_MALFORMED", 1.3)
def message_id_malformed(look: Look) -> str:
    """Message-ID is not of the form `<left@right>` (RFC 5322 3.6.4)."""
    value = look.header("message-id")[:1000].strip()
    return value[:60] or "empty" if look.has("message-id") and not _MESSAGE_ID.fullmatch(value) else ""


@test("SUBJECT_CAPITALS", 1.0)
def subject_capitals(look: Look) -> str:
    """The subject shouts."""
    shouts = not _LOWER_CASE.search(look.subject) and len(_LETTERS.findall(look.subject)) >= 10  # noqa: PLR2004
    return look.subject[:60] if shouts else ""


@test("SUBJECT_EXCLAMATION", 0.8)
def subject_exclamation(look: Look) -> str:
    """The subject has an exclamation mark behind a word, or more than one."""
    return (
        look.subject[:60]
        if "!!" in look.subject or look.subject.rstrip().endswith("!") or look.subject.count("!") > 1
        else ""
    )


@test("SUBJECT_MONEY", 1.0)
def subject_money(look: Look) -> str:
    """The subject speaks of an amount of money or a percentage."""
    return look.subject[:60] if _MONEY.search(look.subject) else ""


@test("SUBJECT_RUN_ID", 2.0)
def subject_run_id(look: Look) -> str:
    """The subject ends in an identifier set apart by blanks, as written to make every copy differ."""
    raw = look.field("subject")
    return look.subject[-40:] if raw and _RUN_ID.search(raw.value[-200:]) and len(look.subject) > 15 else ""  # noqa: PLR2004


@test("SUBJECT_PADDED", 1.5)
def subject_padded(look: Look) -> str:
    """The subject has a long run of blanks, as to push something out of sight."""
    field = look.field("subject")
    return look.subject[:60] if field and _PADDING.search(field.raw[:2000]) else ""


@test("SUBJECT_ADVERTISEMENT", 2.5)
def subject_advertisement(look: Look) -> str:
    """The subject says that it is an advertisement."""
    return look.subject[:60] if _ADVERTISEMENT.match(look.subject) else ""


@test("SUBJECT_RAW_8BIT", 1.0)
def subject_raw_8bit(look: Look) -> str:
    """Subject or From hold octets beyond ASCII that are not UTF-8 (RFC 5322, RFC 6532)."""
    for name in ("subject", "from"):
        field = look.field(name)
        if field and not field.raw.isascii():
            try:
                field.raw.decode("utf-8")
            except UnicodeDecodeError:
                return field.value[:60]
    return ""


@test("SUBJECT_NEEDLESSLY_ENCODED", 1.0)
def subject_needlessly_encoded(look: Look) -> str:
    """The subject is written in base64 though it is plain ASCII, as to hide it from filters."""
    field = look.field("subject")
    hidden = field and "?b?" in field.value.lower() and look.subject.isascii() and look.subject != field.value
    return look.subject[:60] if hidden else ""


@test("FAKE_REPLY", 0.8)
def fake_reply(look: Look) -> str:
    """The subject says that it answers something, and no field says what."""
    answers = _ANSWERS.match(look.subject)
    return look.subject[:60] if answers and not look.has("in-reply-to") and not look.has("references") else ""


@test("FROM_NAMES_OTHER_ADDRESS", 2.5)
def from_names_other_address(look: Look) -> str:
    """From's display name holds an address of another domain than the one the message is from."""
    if "@" not in look.author_name:
        return ""
    shown = [box for box in parse_mailboxes(look.author_name.replace('"', "")) if "." in box.domain]
    other = [box.address for box in shown if not alike(box.domain, look.author.domain)]
    return f"{other[0][:60]} is {look.author.address[:60]}" if other and look.author.domain else ""


@test("FROM_NUMBERS", 0.9)
def from_numbers(look: Look) -> str:
    """The author's local part has many digits, or letters between digits, as made by a program."""
    local = look.author.local[:100]
    numbers = sum(char.isdigit() for char in local) >= 4 or _NUMBERS.search(local)  # noqa: PLR2004
    return look.author.address[:60] if numbers else ""


@test("FROM_NO_NAME", 0.2)
def from_no_name(look: Look) -> str:
    """From has an address only."""
    field = look.field("from")
    return (
        look.author.address[:60]
        if field and look.author.address and not look.author_name and "(" not in field.value
        else ""
    )


@test("REPLY_TO_FREEMAIL", 1.5, given=_REPLIES)
def reply_to_freemail(look: Look) -> str:
    """Replies go to a freemail address, and the author is somewhere else."""
    for box in look.replies:
        if box.domain in FREEMAIL and look.author.domain and not alike(box.domain, look.author.domain):
            return f"{box.address[:60]} for {look.author.address[:60]}"
    return ""


@test("REPLY_TO_ELSEWHERE", 0.4, given=_REPLIES)
def reply_to_elsewhere(look: Look) -> str:
    """Replies go to another domain than the author's, and it is no list."""
    for box in look.replies:
        if box.domain and look.author.domain and not alike(box.domain, look.author.domain) and not look.is_list:
            return f"{box.address[:60]} for {look.author.address[:60]}"
    return ""


@test("TO_SELF", 1.2)
def to_self(look: Look) -> str:
    """To names the author, and the envelope somebody else."""
    author = look.author.address.lower()
    selves = author and [box for box in look.recipients if box.address.lower() == author]
    others = look.mail.rcpt_to and all(recipient.lower() != author for recipient in look.mail.rcpt_to)
    return author[:60] if selves and len(look.recipients) == 1 and others else ""


@test("RECEIVED_FORGED", 1.5)
def received_forged(look: Look) -> str:
    """A Received field claims a hop that cannot be: our own name before us, or an address that is none."""
    for field in look.fields("received")[:50]:
        value = field.value[:2000]
        for quad in _QUAD.findall(value):
            if any(int(number) > 255 for number in quad.split(".")):  # noqa: PLR2004
                return str(quad)
        if look.hostname not in ("", "localhost") and f" by {look.hostname.lower()} " in f" {value.lower()} ":
            return value[:80]
    return ""


@test("BULK_MAILER", 2.0)
def bulk_mailer(look: Look) -> str:
    """The program that wrote it is one for unsolicited bulk mail."""
    mailer = (look.header("x-mailer") or look.header("user-agent"))[:200]
    return mailer[:60] if _BULK_MAILER.search(mailer) else ""


@test("OUTLOOK_EXPRESS_FORGED", 1.2)
def outlook_express_forged(look: Look) -> str:
    """It says that Outlook Express or an early Outlook wrote it, and lacks the X-MimeOLE that those always write."""
    mailer = look.header("x-mailer")[:200]
    early = ("Outlook Express" in mailer and "Mac" not in mailer) or _EARLY_OUTLOOK.search(mailer)
    return mailer[:60] if early and not look.has("x-mimeole") and not look.is_list else ""


@test("FREEMAIL_FORGED", 1.5)
def freemail_forged(look: Look) -> str:
    """The author is at a freemail provider that does not vouch for it, and no Received or Message-ID speaks of that provider."""
    if look.author.domain not in FREEMAIL or look.vouched:
        return ""
    trace = look.header("message-id")[:500] + " ".join(field.value[:500] for field in look.fields("received")[:50])
    return "" if _speaks_of_provider(trace, look.author.domain) else look.author.address[:60]


@test("FREEMAIL_OTHER_MESSAGE_ID", 0.9)
def freemail_other_message_id(look: Look) -> str:
    """The author is at a freemail provider that does not vouch for it, and the Message-ID was made elsewhere."""
    if look.author.domain not in FREEMAIL or look.vouched or not look.has("message-id"):
        return ""
    made = look.header("message-id")[:500]
    return "" if _speaks_of_provider(made, look.author.domain) else made[:60]


def _speaks_of_provider(trace: str, domain: str) -> bool:
    provider = domain.partition(".")[0]
    return any(name in trace.lower() for name in (provider, _PROVIDERS.get(provider, provider)))


@test("HIGH_PRIORITY", 0.5)
def high_priority(look: Look) -> str:
    """It calls itself urgent."""
    return "X-Priority" if look.header("x-priority")[:1] in ("1", "2") else ""


@test("MANY_RECIPIENTS", 1.0)
def many_recipients(look: Look) -> str:
    """To and Cc name eight or more, and no list sent it."""
    return f"{len(look.recipients)} recipients" if len(look.recipients) >= 8 and not look.is_list else ""  # noqa: PLR2004


@test("SUBJECT_SALES", 1.0)
def subject_sales(look: Look) -> str:
    """The subject sells."""
    if look.is_list or look.has("in-reply-to") or look.has("references"):
        return ""
    found = _SELLS.search(look.subject)
    return str(found.group()) if found else ""


@test("LIST_MAIL", -0.5)
def list_mail(look: Look) -> str:
    """A mailing list sent it on: List-Id or List-Post. Easily written by anybody, so it says little."""
    return (look.header("list-id") or look.header("list-post"))[:60] if look.is_list else ""


@test("REPLY_WITH_QUOTE", -1.0)
def reply_with_quote(look: Look) -> str:
    """It answers a message and quotes it. Easily written by anybody, so it says little."""
    if not look.has("in-reply-to") and not look.has("references"):
        return ""
    quotes = any(f"\n{mark}" in look.plain or look.plain.startswith(mark) for mark in ">|")
    return "In-Reply-To and quoted lines" if quotes else ""
