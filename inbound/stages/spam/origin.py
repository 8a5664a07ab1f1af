"""Spam tests of where the message comes from: authentication, the client's names, block lists."""

from ipaddress import ip_address
from operator import attrgetter

from inbound.addresses import a_labels
from inbound.stages.spam.look import Look, alike
from inbound.stages.spam.table import Table

ORIGIN = Table()
test = ORIGIN.test

_LISTED = attrgetter("block.listings")


@test("SPF_FAIL", 2.0)
def spf_fail(look: Look) -> str:
    """SPF says that this client may not send for the domain."""
    return f"{look.spf.domain} from {look.mail.client.ip}" if look.spf.result == "fail" else ""


@test("SPF_SOFTFAIL", 1.0)
def spf_softfail(look: Look) -> str:
    """SPF says that this client probably may not send for the domain."""
    return f"{look.spf.domain} from {look.mail.client.ip}" if look.spf.result == "softfail" else ""


@test("DKIM_BROKEN", 0.5)
def dkim_broken(look: Look) -> str:
    """The message is signed, and no signature verifies."""
    signatures = look.dkim.signatures
    return ", ".join(one.domain for one in signatures[:3]) if signatures and look.dkim.result == "fail" else ""


@test("DKIM_ALIGNED", -1.5)
def dkim_aligned(look: Look) -> str:
    """An aligned signature verifies: the author's domain answers for it. Spammers have domains too, so it is not worth more."""
    return next((one.domain for one in look.dkim.signatures if one.aligned and one.result == "pass"), "")


@test("DMARC_FAIL_REJECT", 2.5)
def dmarc_fail_reject(look: Look) -> str:
    """DMARC fails, and the author's domain asks for such mail to be rejected."""
    return look.dmarc.from_domain if look.dmarc.result == "fail" and look.dmarc.applied_policy == "reject" else ""


@test("DMARC_FAIL_QUARANTINE", 1.5)
def dmarc_fail_quarantine(look: Look) -> str:
    """DMARC fails, and the author's domain asks for such mail to be set apart."""
    return look.dmarc.from_domain if look.dmarc.result == "fail" and look.dmarc.applied_policy == "quarantine" else ""


@test("DMARC_FAIL", 0.5)
def dmarc_fail(look: Look) -> str:
    """DMARC fails, and the author's domain asks for nothing."""
    asked = look.dmarc.applied_policy in ("reject", "quarantine")
    return look.dmarc.from_domain or "no author domain" if look.dmarc.result == "fail" and not asked else ""


@test("NO_AUTHENTICATION", 0.3)
def no_authentication(look: Look) -> str:
    """Nothing vouches for the message: no SPF record, no signature, no DMARC policy."""
    silent = look.spf.result == "none" and look.dkim.result == "none" and look.dmarc.result == "none"
    return "no SPF, no DKIM, no DMARC" if silent else ""


@test("IPREV_FAIL", 0.7)
def iprev_fail(look: Look) -> str:
    """The client's address has no name that leads back to it."""
    return f"{look.mail.client.ip} {look.iprev.reason}".strip() if look.iprev.result == "fail" else ""


@test("DNSBL_LISTED", 3.0, given=_LISTED)
def dnsbl_listed(look: Look) -> str:
    """A block list that the operator asks lists the client."""
    listings = [one for one in look.block.listings if one.list not in ("allow", "deny")]
    return ", ".join(f"{one.list} ({one.meaning or one.entry})" for one in listings)


@test("DNSBL_LISTED_TWICE", 2.0, given=_LISTED)
def dnsbl_listed_twice(look: Look) -> str:
    """Two block lists or more list the client."""
    lists = {one.list for one in look.block.listings} - {"allow", "deny"}
    return ", ".join(sorted(lists)) if len(lists) > 1 else ""


@test("DENIED_CLIENT", 6.0, given=_LISTED)
def denied_client(look: Look) -> str:
    """The operator's own list denies the client, and the settings leave it to the rules (`record_only`)."""
    return next((one.entry for one in look.block.listings if one.list == "deny"), "") if look.block.blocked else ""


@test("HELO_IS_ADDRESS", 1.0)
def helo_is_address(look: Look) -> str:
    """HELO gives a bare IP address (RFC 5321 4.1.3 wants brackets)."""
    helo = look.mail.client.helo
    if not helo[-1:].isdecimal() and ":" not in helo:
        return ""
    try:
        return str(ip_address(helo))
    except ValueError:
        return ""


@test("HELO_OUR_NAME", 3.0)
def helo_our_name(look: Look) -> str:
    """HELO gives our own name, and the client is not this machine."""
    ours = look.hostname not in ("", "localhost") and look.mail.client.helo.lower() == look.hostname.lower()
    return look.mail.client.helo if ours and not look.mail.client.ip.is_loopback else ""


@test("HELO_LOCALHOST", 1.5)
def helo_localhost(look: Look) -> str:
    """HELO says localhost, and the client is not this machine."""
    local = look.mail.client.helo.lower() in ("localhost", "localhost.localdomain")
    return look.mail.client.helo if local and not look.mail.client.ip.is_loopback else ""


@test("HELO_NO_DOT", 0.7)
def helo_no_dot(look: Look) -> str:
    """HELO gives a name without a domain."""
    helo = look.mail.client.helo
    return helo if helo and not set(".[:") & set(helo) and helo.lower() != "localhost" else ""


@test("HELO_RECIPIENT_DOMAIN", 2.0)
def helo_recipient_domain(look: Look) -> str:
    """HELO gives the recipient's domain: only that domain's own machines do."""
    helo = a_labels(look.mail.client.helo)
    domains = {a_labels(recipient.rpartition("@")[2]) for recipient in look.mail.rcpt_to}
    return helo if helo and helo in domains and not alike(look.iprev.name, helo) else ""
