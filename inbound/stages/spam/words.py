"""Spam tests of what the message says, and of how it hides what it says."""

import re
import unicodedata
from operator import attrgetter

from inbound.stages.spam.look import Look
from inbound.stages.spam.table import Table
from inbound.stages.spam.vocabulary import (
    ADULT,
    ADVANCE_FEE,
    AROUND,
    BITCOIN,
    DISCLAIMERS,
    DISGUISED,
    GAPPED,
    GREETING,
    MAYBE_DISGUISED,
    MONEY,
    PHISHING,
    PILLS,
    PLAINLY,
    SALES,
    UNSUBSCRIBE,
)

WORDS = Table()
test = WORDS.test

_EVIDENCE = 5  # phrases that are told of

_TOLL_FREE = re.compile(r"8(?:00|33|44|55|66|77|88)[-.\s)]{1,3}\d{3}[-.\s]\d{4}\b")
_TOP = 20_000  # characters in which a greeting is sought, white space and all
_GREETS = ("dear", "hello", "hi", "attn")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")
_LETTERS_APART = bytes(97 if octet in b"abcdefghijklmnopqrstuvwxyz" else octet for octet in range(256))
_CAPITALS = bytes(65 if octet in range(65, 91) or octet > 127 else 32 for octet in range(256))  # noqa: PLR2004
_OTHER_SCRIPTS = bytes(octet for octet in range(256) if octet not in (*range(0xCD, 0xD5), 0xE1, 0xEA))
_NO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_ZERO_WIDTH = re.compile(f"[A-Za-z][{_NO_WIDTH}]{{1,5}}[A-Za-z]")
_AMOUNT = re.compile(
    r"[$\u20ac]\s?(?:\d{2,3}[,.]\d{3}\b|\d{1,3}(?:[,.]\d{3}){2,4}\b|\d{5,10}\b)"
    r"|\d{1,4}\s{1,9}million\s{1,9}(?:u\.?s\.?\s{1,9}|united\s{1,9}states\s{1,9})?dollars"
)


_SPEAKS = attrgetter("speaks")


def _beyond_ascii(look: Look) -> bool:
    return not look.text.isascii()


def _few(found: list[str], at_least: int, below: int = 1000) -> str:
    return ", ".join(found[:_EVIDENCE]) if at_least <= len(found) < below else ""


@test("ADVANCE_FEE", 2.5, given=_SPEAKS)
def advance_fee(look: Look) -> str:
    """It says some of what letters say that promise a fortune for a fee."""
    return _few(look.said(ADVANCE_FEE), 4, 7)


@test("ADVANCE_FEE_CLEARLY", 6.0, given=_SPEAKS)
def advance_fee_clearly(look: Look) -> str:
    """It says much of what letters say that promise a fortune for a fee."""
    return _few(look.said(ADVANCE_FEE), 7)


@test("PILLS", 1.8, given=_SPEAKS)
def pills(look: Look) -> str:
    """It speaks of pills and what they do."""
    return _few(look.said(PILLS), 1, 3)


@test("PILLS_CLEARLY", 3.5, given=_SPEAKS)
def pills_clearly(look: Look) -> str:
    """It speaks a lot of pills and what they do."""
    return _few(look.said(PILLS), 3)


@test("EASY_MONEY", 1.2, given=_SPEAKS)
def easy_money(look: Look) -> str:
    """It speaks of money that is easy to get, or to owe."""
    return _few(look.said(MONEY), 3, 5)


@test("EASY_MONEY_CLEARLY", 2.5, given=_SPEAKS)
def easy_money_clearly(look: Look) -> str:
    """It speaks a lot of money that is easy to get, or to owe."""
    return _few(look.said(MONEY), 5)


@test("SALES_TALK", 1.0, given=_SPEAKS)
def sales_talk(look: Look) -> str:
    """It talks as salesmen do."""
    return _few(look.said(SALES), 2, 4)


@test("SALES_TALK_CLEARLY", 2.5, given=_SPEAKS)
def sales_talk_clearly(look: Look) -> str:
    """It talks a lot as salesmen do."""
    return _few(look.said(SALES), 4)


@test("SPAM_DISCLAIMER", 1.2, given=_SPEAKS)
def spam_disclaimer(look: Look) -> str:
    """It says how to be removed, or that it is no spam, as unsolicited mail does."""
    return "" if look.is_announced else _few(look.said(DISCLAIMERS), 1, 3)


@test("SPAM_DISCLAIMER_CLEARLY", 3.0, given=_SPEAKS)
def spam_disclaimer_clearly(look: Look) -> str:
    """It says at length how to be removed, or that it is no spam."""
    return "" if look.is_announced else _few(look.said(DISCLAIMERS), 3)


@test("ADULT", 2.5, given=_SPEAKS)
def adult(look: Look) -> str:
    """It offers pornography."""
    return _few(look.said(ADULT), 2)


@test("ACCOUNT_SCARE", 2.0, given=_SPEAKS)
def account_scare(look: Look) -> str:
    """It says that an account is in danger unless the reader does something."""
    return _few(look.said(PHISHING), 2)


@test("GENERIC_GREETING", 1.2, given=_SPEAKS)
def generic_greeting(look: Look) -> str:
    """It greets nobody in particular: `Dear friend`."""
    if look.tokens.words.isdisjoint(_GREETS):
        return ""
    found = GREETING.search(" ".join(look.words[:_TOP].split())[:3000])
    return found.group() if found else ""


@test("TOLL_FREE_NUMBER", 0.8)
def toll_free_number(look: Look) -> str:
    """It gives a toll-free number of North America to call."""
    found = _TOLL_FREE.search(look.words)
    return " ".join(found.group().split()) if found else ""


@test("UNSUBSCRIBE_WITHOUT_FIELD", 0.7, given=_SPEAKS)
def unsubscribe_without_field(look: Look) -> str:
    """It says how to unsubscribe, and has no field that says so to programs (RFC 2369, RFC 8058)."""
    return "" if look.is_list or look.has("list-unsubscribe") else _few(look.said(UNSUBSCRIBE), 1)


@test("LARGE_AMOUNT", 1.0)
def large_amount(look: Look) -> str:
    """It names an amount of ten thousand or more."""
    if "$" not in look.words and "\u20ac" not in look.words and not (look.speaks and "million" in look.tokens.words):
        return ""
    found = _AMOUNT.search(look.words)
    return " ".join(found.group().split()) if found else ""


@test("BITCOIN_ADDRESS", 1.5, given=_SPEAKS)
def bitcoin_address(look: Look) -> str:
    """It gives a Bitcoin address."""
    if max(map(len, look.tokens.words), default=0) < 26:  # noqa: PLR2004
        return ""
    return next((found.group() for found in BITCOIN.finditer(look.text[:50_000])), "")


@test("OBFUSCATED_WORDS", 3.0, given=_SPEAKS)
def obfuscated_words(look: Look) -> str:
    """Words are misspelt to pass filters: `v1agra`."""
    if not MAYBE_DISGUISED.search(look.words.encode("utf-8", "replace")):
        return ""
    odd = {word.strip(AROUND) for word in look.words.split() if not word.isalpha()}
    return ", ".join(
        sorted(word for word in odd if not word.isalpha() and word.translate(PLAINLY) in DISGUISED)[:_EVIDENCE]
    )


@test("GAPPED_WORDS", 1.2, given=_SPEAKS)
def gapped_words(look: Look) -> str:
    """Words are written with gaps between their letters."""
    alone = look.tokens.words & _LETTERS
    if len(alone) < 3 or b" a a a a a a " not in look.tokens.text.encode("utf-8", "replace").translate(_LETTERS_APART):  # noqa: PLR2004
        return ""
    return ", ".join(GAPPED.findall(f"{look.subject}\n{look.text[:50_000]}")[:3])


@test("ZERO_WIDTH_IN_WORDS", 2.0, given=_beyond_ascii)
def zero_width_in_words(look: Look) -> str:
    """Characters that do not show stand inside of words."""
    there = any(char in look.text for char in _NO_WIDTH)
    count = len(_ZERO_WIDTH.findall(look.text[:100_000])) if there else 0
    return f"{count} times" if count >= 3 else ""  # noqa: PLR2004


@test("LOOKALIKE_LETTERS", 2.5, given=_beyond_ascii)
def lookalike_letters(look: Look) -> str:
    """Words mix Latin letters with Cyrillic or Greek ones that look the same."""
    there = look.octets.translate(None, _OTHER_SCRIPTS)
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
