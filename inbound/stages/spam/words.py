"""Spam tests of what the message says, and of how it hides what it says. English, mostly: that is what spam speaks."""

import re
import unicodedata

import re2

from inbound.stages.spam.look import Look
from inbound.stages.spam.phrases import Phrases
from inbound.stages.spam.table import Table

WORDS = Table()
test = WORDS.test

_EVIDENCE = 5  # phrases that are told of

_ADVANCE_FEE = Phrases(
    "next of kin", "transfer of funds", "transfer of the fund", "transfer this money", "foreign account", "foreign partner",
    "million united states", "million us dollars", "million dollars",  "late president", "barrister*", "beneficiary",
    "deceased", "inheritance", "modalities", "strictly confidential", "utmost", "security company", "diplomatic", "nigeria",
    "contract sum", "sum of", "remuneration", "compensation fund", "lottery", "western union", "atm card", "your assistance",
    "foreigner", "bank account", "head of state", "contacting you", "urgent business", "business proposal", "percentage",
    "your full name", "plane crash", "trust fund", "consignment", "claims agent", "winning number", "your email address has won",
    "zimbabwe", "angola", "ivory coast", "sierra leone", "south africa", "benin republic", "got your contact",
    "your contact", "confidential request", "late husband", "late father", "civil war", "trustworthy", "trust worthy",
    "with due respect", "my dear", "came as a surprise", "come as a surprise", "surprise to you", "god bless",
    "assist me", "invest in your country", "transfer the money", "this money", "the fund*",
)  # fmt: skip
_PILLS = Phrases(
    "viagra", "cialis", "levitra", "online pharmacy", "no prescription", "prescription drugs", "weight loss", "lose weight",
    "human growth hormone", "hgh", "herbal*", "penis", "enlargement*", "diet pill*", "erection", "sexual performance", "burn fat",
    "anti-aging", "wrinkle*", "fda approved", "doctor approved", "testosterone", "male enhancement", "keto", "cbd oil",
    "lose up to", "lbs in", "pounds in", "slim down", "fat away", "burn calories", "metabolism", "sex drive", "libido",
    "stop smoking", "cigarettes", "vitamin*",
)  # fmt: skip
_MONEY = Phrases(
    "make money", "earn $", "earn up to", "extra income", "work from home", "work at home", "home based business",
    "home business", "financial freedom", "financially independent", "be your own boss", "own boss", "money back guarantee",
    "multi-level", "mlm", "get paid", "per week", "per month", "bad credit", "credit card", "debt*", "mortgage", "refinanc*",
    "interest rate", "lowest rate", "low rate", "loan*", "insurance quote", "life insurance", "casino", "jackpot", "double your",
    "investment opportunity", "investor*", "stock pick", "hot stock", "guaranteed income", "thousands of dollars", "cash",
    "no experience", "residual income", "passive income", "bitcoin wallet", "crypto investment", "guaranteed profit",
    "credit report", "child support", "paying too much", "auto loan*", "auto insurance", "no recruiting", "downline",
    "upline", "network marketing", "business opportunity", "opportunity of a lifetime", "home owner*", "homeowner*",
    "poker", "lottery numbers", "real money", "pre-approved", "approval", "otcbb", "undervalued", "stock alert",
    "penny stock*", "unlimited income", "extra cash", "fast cash", "gift card", "life quote*", "term life",
)  # fmt: skip
_SALES = Phrases(
    "order now", "order today", "click here", "click below", "act now", "limited time", "special offer", "free trial",
    "100% free", "100% guaranteed", "no obligation", "risk free", "risk-free", "satisfaction guaranteed", "absolutely free",
    "call now", "call today", "toll free", "toll-free", "while supplies last", "as seen on", "buy now", "save up to",
    "lowest price", "best price", "why pay more", "no cost", "free gift", "you have been selected", "winner*",
    "congratulations", "dear friend", "dear sir", "don't miss", "don't delay", "hurry", "amazing", "once in a lifetime",
    "unbelievable", "instant access", "full refund", "money-back", "no questions asked", "for only $", "free shipping",
    "no fees", "sign up free", "join now", "cheap", "unlimited", "incredible", "what are you waiting for",
    "replica*", "as little as", "fraction of the price", "best prices", "low price", "free bonus", "free report",
    "free gifts", "free quote*", "only $", "special price", "retail price", "dvd movies", "visit our website",
    "visit our web site", "limited offer", "fantastic", "no risk", "cannot lose", "free information", "one time offer",
    "for a limited", "new lower",
)  # fmt: skip
_DISCLAIMERS = Phrases(
    "this is not spam", "not spam", "one-time mailing", "one time mailing", "one time e-mail", "to be removed", "be removed from",
    "remove your email", "remove your e-mail", "remove your name", "removal instructions", "to remove yourself", "remove me",
    "removed from our", "removed from future", "further mailings", "future mailings", "future emails", "bulk email",
    "bulk e-mail", "email marketing", "mass email", "million email*", "email addresses", "opt-in", "opted in", "opted-in",
    "opt out", "s. 1618", "s.1618", "section 301", "unsolicited", "third-party", "marketing partner", "you are receiving this",
    "you received this", "this message is sent in compliance", "sorry for any inconvenience", "in the subject line",
)  # fmt: skip
_ADULT = Phrases(
    "xxx", "porn", "hot girl*", "nude", "adult content", "adult site", "webcam girl*", "slut*", "barely legal", "hardcore",
    "teen*", "horny", "lesbian*", "18 years of age", "over 18", "live girl*", "hot and", "naked", "erotic", "hottest",
    "sexy", "webcam", "naughty", "hot sex", "erotik*", "sexkontakt*", "seitensprung",
    "young girls", "escort*", "busty", "uncensored",
)  # fmt: skip
_PHISHING = Phrases(
    "verify your account", "verify your identity", "account has been suspended", "account will be suspended",
    "account will be closed", "unusual activity", "suspicious activity", "confirm your identity", "confirm your account",
    "update your payment", "update your account", "mailbox is full", "mailbox is almost full", "mailbox quota",
    "password will expire", "password expires", "limited access", "unauthorized login", "validate your", "re-activate",
    "your account information", "within 24 hours", "within 48 hours", "failure to do so",
)  # fmt: skip

_UNSUBSCRIBE = Phrases("unsubscribe", "remove", "removed", "opt out", "opt-out", "off this list", "off our list")
_GREETING = re.compile(
    r"\b(?:dear|hello|hi|attn:?) (?:my friend|friend|sirs?|madam|home ?owner|customer|member|valued|investor|internet|e-?mail"
    r"|consumer|user|beneficiary|job seeker|president)\b"
)
_TOLL_FREE = re.compile(r"8(?:00|33|44|55|66|77|88)[-.\s)]{1,3}\d{3}[-.\s]\d{4}\b")
_PLAINLY = str.maketrans("013457@$!|", "oieastasil")  # what stands for a letter
_DISGUISED = frozenset(
    {"viagra", "cialis", "levitra", "mortgage", "pharmacy", "free", "casino", "porn", "sex", "money", "pills", "loan"}
)
_AROUND = ".,;:?()[]\"'<>*"
_TOP = 20_000  # characters in which a greeting is sought, white space and all
_GREETS = ("dear", "hello", "hi", "attn")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")
_LETTERS_APART = bytes(97 if octet in b"abcdefghijklmnopqrstuvwxyz" else octet for octet in range(256))
_CAPITALS = bytes(65 if octet in range(65, 91) or octet > 127 else 32 for octet in range(256))  # noqa: PLR2004
_OTHER_SCRIPTS = bytes(octet for octet in range(256) if octet not in (*range(0xCD, 0xD5), 0xE1, 0xEA))
_GAPPED = re.compile(r"\b(?:[A-Za-z][ ._*-]){5,20}[A-Za-z]\b")
_NO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_ZERO_WIDTH = re.compile(f"[A-Za-z][{_NO_WIDTH}]{{1,5}}[A-Za-z]")
_AMOUNT = re.compile(
    r"[$\u20ac]\s?(?:\d{2,3}[,.]\d{3}\b|\d{1,3}(?:[,.]\d{3}){2,4}\b|\d{5,10}\b)"
    r"|\d{1,4}\s{1,9}million\s{1,9}(?:u\.?s\.?\s{1,9}|united\s{1,9}states\s{1,9})?dollars"
)
_BITCOIN = re.compile(r"\b(?:bc1[a-z0-9]{25,60}|[13][a-km-zA-HJ-NP-Z1-9]{25,34})\b")


def _disguised() -> str:
    """A regular expression for each of the words with one letter at least that something else stands for."""
    instead: dict[str, str] = {}
    for mark, letter in _PLAINLY.items():
        instead[chr(letter)] = instead.get(chr(letter), "") + re.escape(chr(mark))
    spelt = {
        f"{word[:at]}[{instead[letter]}]" + "".join(f"[{other}{instead.get(other, '')}]" for other in word[at + 1 :])
        for word in _DISGUISED
        for at, letter in enumerate(word)
        if letter in instead
    }
    around = f"[\\s{re.escape(_AROUND)}]"
    return f"(?:^|{around})(?:{'|'.join(sorted(spelt))})(?:{around}|$)"


_MAYBE_DISGUISED = re2.compile(_disguised().encode())


def _few(found: list[str], at_least: int, below: int = 1000) -> str:
    return ", ".join(found[:_EVIDENCE]) if at_least <= len(found) < below else ""


@test("ADVANCE_FEE", 2.5)
def advance_fee(look: Look) -> str:
    """It says some of what letters say that promise a fortune for a fee."""
    return _few(look.said(_ADVANCE_FEE), 4, 7)


@test("ADVANCE_FEE_CLEARLY", 6.0)
def advance_fee_clearly(look: Look) -> str:
    """It says much of what letters say that promise a fortune for a fee."""
    return _few(look.said(_ADVANCE_FEE), 7)


@test("PILLS", 1.8)
def pills(look: Look) -> str:
    """It speaks of pills and what they do."""
    return _few(look.said(_PILLS), 1, 3)


@test("PILLS_CLEARLY", 3.5)
def pills_clearly(look: Look) -> str:
    """It speaks a lot of pills and what they do."""
    return _few(look.said(_PILLS), 3)


@test("EASY_MONEY", 1.2)
def easy_money(look: Look) -> str:
    """It speaks of money that is easy to get, or to owe."""
    return _few(look.said(_MONEY), 3, 5)


@test("EASY_MONEY_CLEARLY", 2.5)
def easy_money_clearly(look: Look) -> str:
    """It speaks a lot of money that is easy to get, or to owe."""
    return _few(look.said(_MONEY), 5)


@test("SALES_TALK", 1.0)
def sales_talk(look: Look) -> str:
    """It talks as salesmen do."""
    return _few(look.said(_SALES), 2, 4)


@test("SALES_TALK_CLEARLY", 2.5)
def sales_talk_clearly(look: Look) -> str:
    """It talks a lot as salesmen do."""
    return _few(look.said(_SALES), 4)


@test("SPAM_DISCLAIMER", 1.2)
def spam_disclaimer(look: Look) -> str:
    """It says how to be removed, or that it is no spam, as unsolicited mail does."""
    return "" if look.is_announced else _few(look.said(_DISCLAIMERS), 1, 3)


@test("SPAM_DISCLAIMER_CLEARLY", 3.0)
def spam_disclaimer_clearly(look: Look) -> str:
    """It says at length how to be removed, or that it is no spam."""
    return "" if look.is_announced else _few(look.said(_DISCLAIMERS), 3)


@test("ADULT", 2.5)
def adult(look: Look) -> str:
    """It offers pornography."""
    return _few(look.said(_ADULT), 2)


@test("ACCOUNT_SCARE", 2.0)
def account_scare(look: Look) -> str:
    """It says that an account is in danger unless the reader does something."""
    return _few(look.said(_PHISHING), 2)


@test("GENERIC_GREETING", 1.2)
def generic_greeting(look: Look) -> str:
    """It greets nobody in particular: `Dear friend`."""
    if look.tokens.words.isdisjoint(_GREETS):
        return ""
    found = _GREETING.search(" ".join(look.words[:_TOP].split())[:3000])
    return found.group() if found else ""


@test("TOLL_FREE_NUMBER", 0.8)
def toll_free_number(look: Look) -> str:
    """It gives a toll-free number of North America to call."""
    found = _TOLL_FREE.search(look.words)
    return " ".join(found.group().split()) if found else ""


@test("UNSUBSCRIBE_WITHOUT_FIELD", 0.7)
def unsubscribe_without_field(look: Look) -> str:
    """It says how to unsubscribe, and has no field that says so to programs (RFC 2369, RFC 8058)."""
    return "" if look.is_list or look.has("list-unsubscribe") else _few(look.said(_UNSUBSCRIBE), 1)


@test("LARGE_AMOUNT", 1.0)
def large_amount(look: Look) -> str:
    """It names an amount of ten thousand or more."""
    if look.tokens.words.isdisjoint(("$", "million")) and "\u20ac" not in look.words:
        return ""
    found = _AMOUNT.search(look.words)
    return " ".join(found.group().split()) if found else ""


@test("BITCOIN_ADDRESS", 1.5)
def bitcoin_address(look: Look) -> str:
    """It gives a Bitcoin address."""
    if max(map(len, look.tokens.words), default=0) < 26:  # noqa: PLR2004
        return ""
    return next((found.group() for found in _BITCOIN.finditer(look.text[:50_000])), "")


@test("OBFUSCATED_WORDS", 3.0)
def obfuscated_words(look: Look) -> str:
    """Words are misspelt to pass filters: `v1agra`."""
    if not _MAYBE_DISGUISED.search(look.words.encode("utf-8", "replace")):
        return ""
    odd = {word.strip(_AROUND) for word in look.words.split() if not word.isalpha()}
    return ", ".join(
        sorted(word for word in odd if not word.isalpha() and word.translate(_PLAINLY) in _DISGUISED)[:_EVIDENCE]
    )


@test("GAPPED_WORDS", 1.2)
def gapped_words(look: Look) -> str:
    """Words are written with gaps between their letters."""
    alone = look.tokens.words & _LETTERS
    if len(alone) < 3 or b" a a a a a a " not in look.tokens.text.encode("utf-8", "replace").translate(_LETTERS_APART):  # noqa: PLR2004
        return ""
    return ", ".join(_GAPPED.findall(f"{look.subject}\n{look.text[:50_000]}")[:3])


@test("ZERO_WIDTH_IN_WORDS", 2.0)
def zero_width_in_words(look: Look) -> str:
    """Characters that do not show stand inside of words."""
    there = not look.text.isascii() and any(char in look.text for char in _NO_WIDTH)
    count = len(_ZERO_WIDTH.findall(look.text[:100_000])) if there else 0
    return f"{count} times" if count >= 3 else ""  # noqa: PLR2004


@test("LOOKALIKE_LETTERS", 2.5)
def lookalike_letters(look: Look) -> str:
    """Words mix Latin letters with Cyrillic or Greek ones that look the same."""
    there = not look.text.isascii() and look.octets.translate(None, _OTHER_SCRIPTS)
    words = re.findall(r"\w{4,20}", look.text[:50_000]) if there else []
    mixed = [word for word in words if not word.isascii() and _mixes(word)]
    return ", ".join(mixed[:3]) if len(mixed) >= 2 else ""  # noqa: PLR2004


@test("SHOUTING", 1.2)
def shouting(look: Look) -> str:
    """Much of the text is in capitals."""
    if look.octets.translate(_CAPITALS).count(b"AAAA") < 3:  # noqa: PLR2004
        return ""
    words = [word for word in look.text[:50_000].split() if len(word) > 3 and word.isalpha()]  # noqa: PLR2004
    capitals = sum(word.isupper() for word in words)
    return f"{capitals} of {len(words)} words" if len(words) >= 10 and capitals * 4 > len(words) else ""  # noqa: PLR2004


@test("MANY_EXCLAMATIONS", 1.0)
def many_exclamations(look: Look) -> str:
    """It exclaims."""
    text = look.text[:50_000]
    count = text.count("!")
    if count < 3:  # noqa: PLR2004
        return ""
    return f"{count} in {len(text)} characters" if "!!!" in text or (count >= 5 and count * 200 > len(text)) else ""  # noqa: PLR2004


def _mixes(word: str) -> bool:
    scripts = {unicodedata.name(char, "").split(" ")[0] for char in word if char.isalpha()}
    return "LATIN" in scripts and bool(scripts & {"CYRILLIC", "GREEK"})
