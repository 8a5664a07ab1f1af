"""Spam tests of where the message leads."""

import re
import unicodedata
from ipaddress import ip_address
from operator import attrgetter

from inbound.addresses import shown
from inbound.stages.spam.look import Look, Url, alike, url_of
from inbound.stages.spam.page import entities, plainly
from inbound.stages.spam.table import Table

LINKS = Table()
test = LINKS.test

_SHORTENERS = frozenset(
    """bit.ly tinyurl.com t.co goo.gl ow.ly is.gd buff.ly rebrand.ly cutt.ly shorturl.at rb.gy t.ly tiny.cc v.gd bl.ink
    lnkd.in s.id qr.ae adf.ly shorte.st clck.ru u.to""".split()  # noqa: SIM905
)
_SHOWN_HOST = re.compile(r"(?:https?://)?((?:[a-z0-9-]{1,63}\.){1,6}[a-z]{2,12})(?:[/?#:]\S{0,500})?", re.IGNORECASE)
_INNER_URL = re.compile(r"https?(?:%3a|:)(?:%2f|/){2}([^/%\s]{1,100})", re.IGNORECASE)
_SAYS_CLICK = re.compile(r"\bclick\b|^here$", re.IGNORECASE)
_MAILTO_REMOVE = re.compile(r"mailto:[^?]{0,200}(?:remove|\?subject=\s{0,5}(?:remove|unsubscribe|off))", re.IGNORECASE)
_LEADS = attrgetter("targets")
_NUMBER_HOST = re.compile(r"(?:0x[0-9a-f]{1,8}|[0-9]{4,10})")


@test("URL_IP_HOST", 2.5, given=_LEADS)
def url_ip_host(look: Look) -> str:
    """A link leads to an IP address."""
    return next((url.text[:80] for url in look.urls if _is_address(url.host)), "")


@test("URL_NUMBER_HOST", 2.5, given=_LEADS)
def url_number_host(look: Look) -> str:
    """A link leads to an IP address that is written as one number."""
    return next((url.text[:80] for url in look.urls if _NUMBER_HOST.fullmatch(url.host)), "")


@test("URL_CREDENTIALS", 2.0, given=_LEADS)
def url_credentials(look: Look) -> str:
    """A link has a user name before its host, which reads as if it were the host."""
    return next((url.text[:80] for url in look.urls if url.credentials and url.text.lower().startswith("http")), "")


@test("URL_PORT", 0.8, given=_LEADS)
def url_port(look: Look) -> str:
    """A link leads to a port that is not the usual one."""
    return next((url.text[:80] for url in look.urls if url.port not in ("", "80", "443")), "")


@test("LINK_SHOWS_OTHER_HOST", 1.5, given=_LEADS)
def link_shows_other_host(look: Look) -> str:
    """The text of a link is a host, and it leads to another."""
    for target, text in look.page.links:
        says = _SHOWN_HOST.fullmatch(plainly(text)[:600]) if "." in text else None
        led = url_of(target) if says else None
        if says and led and led.host and not alike(says[1].lower(), led.host):
            return f"{says[1]} leads to {led.host}"
    return ""


@test("URL_MIXED_SCRIPTS", 3.0, given=_LEADS)
def url_mixed_scripts(look: Look) -> str:
    """A host name has a label of letters that look alike but are of different scripts."""
    return next((url.host[:80] for url in look.urls if _mixes(url)), "")


@test("URL_SHORTENER", 0.7, given=_LEADS)
def url_shortener(look: Look) -> str:
    """A link hides where it leads behind a shortener."""
    return next((url.text[:80] for url in look.urls if url.host in _SHORTENERS), "")


@test("URL_ENCODED_HOST", 2.0, given=_LEADS)
def url_encoded_host(look: Look) -> str:
    """A link's host is written in percent signs."""
    return next((url.text[:80] for url in look.urls if "%" in url.text.partition("://")[2].partition("/")[0]), "")


@test("URL_REDIRECT", 0.4, given=_LEADS)
def url_redirect(look: Look) -> str:
    """A link leads through another site: a URL stands inside of the URL."""
    for target in look.targets:
        found = _INNER_URL.search(target, 8, 200) if target.lower().find("http", 8) > 0 else None
        url = url_of(target) if found else None
        if found and url and not alike(found[1].lower(), url.host):
            return target[:80]
    return ""


@test("URL_DIGITS_IN_HOST", 0.6, given=_LEADS)
def url_digits_in_host(look: Look) -> str:
    """A link's host is a name with three digits in a row."""
    return next((url.host[:80] for url in look.urls if re.search(r"\d{3}", url.host) and not _is_address(url.host)), "")


@test("LINK_SAYS_CLICK", 0.6, given=_LEADS)
def link_says_click(look: Look) -> str:
    """The text of a link says to click."""
    texts = [text for _, text in look.page.links]
    all_of_it = entities("\n".join(texts)).lower()
    if all_of_it.isascii() and "click" not in all_of_it and "here" not in all_of_it:
        return ""
    said = map(plainly, texts)
    found = next((text[:60] for text in said if _SAYS_CLICK.search(text, 0, 200)), "")
    return "" if found and look.tokens.words.isdisjoint(("click", "here")) else found


@test("MAILTO_REMOVE", 1.2, given=_LEADS)
def mailto_remove(look: Look) -> str:
    """One gets off the list by writing to an address, as unsolicited mail has it."""
    for target, _ in look.page.links:
        if target[:1] in ("m", "M") and _MAILTO_REMOVE.match(target, 0, 400):
            return target[:80]
    return ""


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host.strip("[]")))
    except ValueError:
        return False


def _mixes(url: Url) -> bool:
    if url.host.isascii() and "xn--" not in url.host:
        return False
    for label in url.host.split(".")[:10]:
        scripts = {unicodedata.name(char, "").split(" ")[0] for char in shown(label) if char.isalpha()}
        if len(scripts & {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"}) > 1:
            return True
    return False
