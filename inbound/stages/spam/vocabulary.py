"""What the spam tests of words seek: phrases, greetings, disguised words; and one search that tells whether any may be there.

English, mostly: that is what spam speaks. Most messages have none of it, and need not be taken apart into words.
"""

import re

import re2

from inbound.stages.spam.phrases import Phrases

ADVANCE_FEE = Phrases(
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
PILLS = Phrases(
    "viagra", "cialis", "levitra", "online pharmacy", "no prescription", "prescription drugs", "weight loss", "lose weight",
    "human growth hormone", "hgh", "herbal*", "penis", "enlargement*", "diet pill*", "erection", "sexual performance", "burn fat",
    "anti-aging", "wrinkle*", "fda approved", "doctor approved", "testosterone", "male enhancement", "keto", "cbd oil",
    "lose up to", "lbs in", "pounds in", "slim down", "fat away", "burn calories", "metabolism", "sex drive", "libido",
    "stop smoking", "cigarettes", "vitamin*",
)  # fmt: skip
MONEY = Phrases(
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
SALES = Phrases(
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
DISCLAIMERS = Phrases(
    "this is not spam", "not spam", "one-time mailing", "one time mailing", "one time e-mail", "to be removed", "be removed from",
    "remove your email", "remove your e-mail", "remove your name", "removal instructions", "to remove yourself", "remove me",
    "removed from our", "removed from future", "further mailings", "future mailings", "future emails", "bulk email",
    "bulk e-mail", "email marketing", "mass email", "million email*", "email addresses", "opt-in", "opted in", "opted-in",
    "opt out", "s. 1618", "s.1618", "section 301", "unsolicited", "third-party", "marketing partner", "you are receiving this",
    "you received this", "this message is sent in compliance", "sorry for any inconvenience", "in the subject line",
)  # fmt: skip
ADULT = Phrases(
    "xxx", "porn", "hot girl*", "nude", "adult content", "adult site", "webcam girl*", "slut*", "barely legal", "hardcore",
    "teen*", "horny", "lesbian*", "18 years of age", "over 18", "live girl*", "hot and", "naked", "erotic", "hottest",
    "sexy", "webcam", "naughty", "hot sex", "erotik*", "sexkontakt*", "seitensprung",
    "young girls", "escort*", "busty", "uncensored",
)  # fmt: skip
PHISHING = Phrases(
    "verify your account", "verify your identity", "account has been suspended", "account will be suspended",
    "account will be closed", "unusual activity", "suspicious activity", "confirm your identity", "confirm your account",
    "update your payment", "update your account", "mailbox is full", "mailbox is almost full", "mailbox quota",
    "password will expire", "password expires", "limited access", "unauthorized login", "validate your", "re-activate",
    "your account information", "within 24 hours", "within 48 hours", "failure to do so",
)  # fmt: skip

UNSUBSCRIBE = Phrases("unsubscribe", "remove", "removed", "opt out", "opt-out", "off this list", "off our list")

GREETING = re.compile(
    r"\b(?:dear|hello|hi|attn:?) (?:my friend|friend|sirs?|madam|home ?owner|customer|member|valued|investor|internet|e-?mail"
    r"|consumer|user|beneficiary|job seeker|president)\b"
)
GAPPED = re.compile(r"\b(?:[A-Za-z][ ._*-]){5,20}[A-Za-z]\b")
BITCOIN = re.compile(r"\b(?:bc1[a-z0-9]{25,60}|[13][a-km-zA-HJ-NP-Z1-9]{25,34})\b")
PLAINLY = str.maketrans("013457@$!|", "oieastasil")  # what stands for a letter
DISGUISED = frozenset(
    {"viagra", "cialis", "levitra", "mortgage", "pharmacy", "free", "casino", "porn", "sex", "money", "pills", "loan"}
)
AROUND = ".,;:?()[]\"'<>*"


def _disguised() -> str:
    """A regular expression for each of the words with one letter at least that something else stands for."""
    instead: dict[str, str] = {}
    for mark, letter in PLAINLY.items():
        instead[chr(letter)] = instead.get(chr(letter), "") + re.escape(chr(mark))
    spelt = {
        f"{word[:at]}[{instead[letter]}]" + "".join(f"[{other}{instead.get(other, '')}]" for other in word[at + 1 :])
        for word in DISGUISED
        for at, letter in enumerate(word)
        if letter in instead
    }
    around = f"[\\s{re.escape(AROUND)}]"
    return f"(?:^|{around})(?:{'|'.join(sorted(spelt))})(?:{around}|$)"


MAYBE_DISGUISED = re2.compile(_disguised().encode())


def _anything() -> str:
    """A regular expression for whatever of the above may be there, in lower case. It may match more, and never less."""
    lists = (ADVANCE_FEE, PILLS, MONEY, SALES, DISCLAIMERS, ADULT, PHISHING, UNSUBSCRIBE)
    greeting = GREETING.pattern.replace(" ?", "[^a-z0-9]*").replace(" ", "[^a-z0-9]+")
    gapped = "(?:[a-z][^a-z0-9$%]+){5}[a-z]"
    bitcoin = "(?:bc1|[13])[a-z0-9]{25}"
    apart = f"(?:^|[^a-z0-9])(?:{gapped}|{bitcoin}|million[^a-z0-9])"
    return "|".join([Phrases.pattern(*lists), greeting, apart, _disguised()])


ANYTHING = re2.compile(_anything().encode())
