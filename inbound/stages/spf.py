"""SPF (RFC 7208): whether this client may send mail for the domain of MAIL FROM, or of HELO when the reverse-path is null.

pyspf evaluates; what it does not do is done here, in a subclass, so that its module stays as it is for everybody else:

1. DNS is asked through our resolver, from inside pyspf by a bridge. NXDOMAIN and NODATA are void look-ups; everything that is
   no answer is a temperror.
2. pyspf needs quadratic time for a long term, so records and terms have a length that they may not exceed: permerror.
3. Whatever else pyspf lets escape came of a record that its owner wrote: permerror, never a crash.
4. Where pyspf and the letter of the RFC differ (case of modifiers, macros that are none, what counts as a look-up), the RFC wins.
5. The explanation is fetched only when the result is fail, and is printable ASCII of bounded length (RFC 7208 6.2, 8.4).
"""

import re
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal, cast

import spf

from inbound.addresses import a_labels
from inbound.clients import RecordType
from inbound.errors import TemporaryFailure
from inbound.mail import IPAddress, Mail
from inbound.offload import bridge, wait
from inbound.stages import Resolver
from inbound.verdicts import SpfResult, SpfVerdict, Status

LONGEST_RECORD = 8192  # octets; RFC 7208 3.4 advises 450, the longest seen in the wild have about 4,000
LONGEST_TERM = 512  # a domain name has 253, its macros a few more
LONGEST_EXPLANATION = 512  # octets of the record, and of what is made of it
LONGEST_REASON = 200
LONGEST_NAME = 253  # RFC 7208 7.3
PTR_NAMES = 10  # RFC 7208 4.6.4

_NOT_PRINTABLE = re.compile(r"[^ -~]")
_LABELS = re.compile(r"[^.]{1,63}(?:\.[^.]{1,63})*\.*")  # RFC 1035 2.3.4
_MACRO = re.compile(r"%(?:[%_-]|\{[slodiphcrtv]([0-9]{0,3})r?[.+,/_=-]*\})", re.IGNORECASE)
_MACRO_OR_TEXT = re.compile(r"%(?:[%_-]|\{[^}]*\})|[^%]{1,200}")

Identity = Literal["mailfrom", "helo"]

_STATUS: dict[SpfResult, Status] = {
    "pass": Status.PASS,
    "fail": Status.FAIL,
    "softfail": Status.FAIL,
    "none": Status.GRAY,
    "neutral": Status.GRAY,
    "permerror": Status.GRAY,
    "temperror": Status.PROCESSING_FAILED,
}


class Spf:
    """The stage. `receiver` is our host name for the macro `%{r}`, `now` the clock for `%{t}`."""

    name = "spf"

    def __init__(self, resolver: Resolver, *, receiver: str = "unknown", now: Callable[[], float] = time.time) -> None:
        self._resolver = resolver
        self._receiver = receiver
        self._now = now

    def broken(self, reason: str) -> SpfVerdict:
        """The check failed, not the client."""
        return SpfVerdict(status=Status.PROCESSING_FAILED, result="temperror", reason=reason)

    async def __call__(self, mail: Mail) -> SpfVerdict:
        """Evaluate the one identity that counts."""
        local, _, written = mail.mail_from.rpartition("@")
        identity: Identity = "mailfrom" if mail.mail_from else "helo"  # RFC 7208 2.4
        domain = a_labels(written if mail.mail_from else mail.client.helo)
        if "." not in domain:  # RFC 7208 4.3: it is no multi-label domain name
            reason = f"no domain name in {'MAIL FROM' if mail.mail_from else 'HELO'}"
            return SpfVerdict(status=Status.GRAY, result="none", domain=domain, identity=identity, reason=reason)
        query = _Query(
            self._resolver,
            client_ip=mail.client.ip,
            local=local or "postmaster",  # RFC 7208 2.4, 4.3
            domain=domain,
            helo=mail.client.helo,
            receiver=self._receiver,
            now=self._now(),
        )
        result, explanation, reason = await bridge(query.evaluate)
        return SpfVerdict(
            status=_STATUS[result],
            result=result,
            domain=domain,
            identity=identity,
            explanation=explanation,
            reason=reason,
            dnssec=query.authenticated,
        )


class _Query(spf.query):  # type: ignore[misc]  # pyspf has no types
    """One evaluation. Runs under `bridge`, in which `wait` waits for DNS."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        client_ip: IPAddress,
        local: str,
        domain: str,
        helo: str,
        receiver: str,
        now: float,
    ) -> None:
        super().__init__(i=str(client_ip), s=f"{local}@{domain}", h=helo, receiver=receiver)
        self._resolver = resolver
        self.l, self.o, self.d = local, domain, domain  # pyspf takes a quoted local part with an @ in it apart
        self.t = str(int(now))
        self._depths: list[int] = []  # of the records under evaluation; a redirect has the depth of what it replaces
        self._redirect_ahead = False
        self._broke: Exception | None = None  # ours, not the record's
        self._answers: set[bool] = set()  # whether they were authenticated
        self._explanation: tuple[str, str] | None = None  # exp= of the record that decides, and that record's domain

    def evaluate(self) -> tuple[SpfResult, str, str]:
        """Result, explanation, reason."""
        try:
            result, _, text = self.check()
            explanation = self._explain() if result == "fail" else ""
        except Exception as error:  # pyspf lets IDNAError, ValueError, AssertionError and others escape
            if error is self._broke:
                raise
            return "permerror", "", _printable(f"not to be evaluated: {type(error).__name__}: {error}", LONGEST_REASON)
        reason = text.partition("Error: ")[2] if result in ("permerror", "temperror") else ""
        return cast("SpfResult", result), explanation, _printable(reason, LONGEST_REASON)

    @property
    def authenticated(self) -> bool:
        """Everything that DNS said so far was."""
        return self._answers == {True}

    def set_ip(self, i: str) -> None:
        """Take the client's address apart, as pyspf does."""
        self.__dict__.update(_client(i))

    # DNS

    def dns(self, name: str, qtype: RecordType, cnames: object = None, ignore_void: bool = False) -> list[Any]:  # noqa: ARG002
        """The records, as pyspf has them. CNAMEs are followed by the resolver."""
        if not _LABELS.fullmatch(name):
            return []
        try:
            answer = wait(self._resolver.query(name, qtype))
        except TemporaryFailure as failure:
            raise spf.TempError(str(failure)) from None
        except Exception as error:
            self._broke = error
            raise
        self._answers.add(answer.authenticated)
        if not answer.records and not ignore_void:  # RFC 7208 4.6.4: void look-ups
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"more than {spf.MAX_VOID_LOOKUPS} void look-ups")
        match qtype:
            case "TXT":
                return [(record.encode("latin-1"),) for record in answer.records]
            case "MX":
                pairs = (record.split(" ", 1) for record in answer.records)
                return [(int(preference), exchange) for preference, exchange in pairs]
            case _:
                return list(answer.records)

    def dns_mx(self, domainname: str) -> list[str]:
        """The addresses of a domain's mail exchangers. One without an address makes no void look-up: terms do (4.6.4)."""
        exchangers = sorted(self.dns(domainname, "MX"))
        if len(exchangers) > spf.MAX_MX:
            raise spf.PermError(f"more than {spf.MAX_MX} MX records", domainname)
        return [address for _, exchanger in exchangers for address in self.dns(exchanger, self.A, ignore_void=True)]

    def dns_spf(self, domain: str) -> str | None:
        """The one SPF record of a domain."""
        record: str | None = super().dns_spf(domain)
        if record and (len(record) > LONGEST_RECORD or max(map(len, record.split(" "))) > LONGEST_TERM):
            raise spf.PermError("the record is too long")
        return record

    def validated_ptrs(self) -> list[str]:
        """The client's names that lead back to it. DNS trouble on the way means no match (RFC 7208 5.5)."""
        try:
            names = self.dns_ptr(self.i)[:PTR_NAMES]
        except spf.TempError:
            return []
        return [name for name in names if self._leads_back(name)]

    def _leads_back(self, name: str) -> bool:
        try:
            return bool(self.cidrmatch(self.dns(name, self.A, ignore_void=True), self.cidrmax))
        except spf.TempError:
            return False

    # Records and their terms

    def check0(self, spf_record: str, recursion: int) -> tuple[str, int, str]:
        """Evaluate one record. A redirect comes here from within, at the same depth, with its own explanation or none."""
        if recursion in self._depths:
            self.check_lookups()  # counted when it is taken, see below
        if not recursion:
            self._explanation = None
        self._depths.append(recursion)
        try:
            return cast("tuple[str, int, str]", super().check0(self._spelled_alike(spf_record), recursion))
        finally:
            self._depths.pop()

    def _spelled_alike(self, record: str | None) -> str | None:
        """The record with modifiers' names in small letters, as pyspf expects them, and unknown ones once (RFC 7208 6)."""
        text, again, self._redirect_ahead = _spelled(record or "")
        for value in again:
            self.expand(value)  # ignored, but not when its syntax is wrong
        return text if record else record

    def validate_mechanism(self, mech: str) -> tuple[str, str, str, int, str]:
        """Read a mechanism. Where it has no macros, what it says depends on nothing but its text and whose it is."""
        return self._validated(mech) if "%" in mech or "%" in self.d else _mechanism(mech, self.d, self.v, self.cidrmax)

    def _validated(self, mech: str) -> tuple[str, str, str, int, str]:
        """An include of the record itself is an error when it is come to (4.6.4), not when it is read."""
        try:
            return cast("tuple[str, str, str, int, str]", super().validate_mechanism(mech))
        except spf.PermError as error:
            if error.msg != "include has trivial recursion" or ":" not in mech:
                raise
            return mech, "include", self.d, self.cidrmax, spf.RESULTS.get(mech[0], "pass")

    def cidrmatch(self, ipaddrs: Iterable[str], n: int) -> bool:
        """Whether the client is in a network of that length around one of the addresses."""
        try:
            networks = [_network(address, n) for address in ipaddrs]
        except ValueError as error:
            raise spf.PermError(str(error)) from None
        return any(self.ipaddr in network for network in networks)

    def check_lookups(self) -> None:
        """Count a term that asks DNS. pyspf counts a redirect when it reads it, whether it will be taken or not."""
        if self._redirect_ahead:
            self._redirect_ahead = False
            return
        super().check_lookups()

    def expand(self, s: str, stripdot: bool = True) -> str:
        """Expand the macros of a domain-spec (RFC 7208 7). pyspf takes some that are none, and cuts long names once only."""
        _check_macros(s)
        expanded: str = super().expand(s, stripdot)
        while stripdot and len(expanded) > LONGEST_NAME and "." in expanded:  # RFC 7208 7.3
            expanded = expanded.partition(".")[2]
        return expanded

    # The explanation

    def get_explanation(self, spec: str) -> None:
        """Note where the explanation is: only a fail needs it, and only from the outermost record (RFC 7208 6.2)."""
        if not self._depths[-1]:
            self._explanation = (spec, self.d)

    def _explain(self) -> str:
        """What the domain says of its fail. Errors on the way mean that it says nothing (RFC 7208 6.2)."""
        if self._explanation is None:
            return ""
        spec, self.d = self._explanation
        try:
            texts = self.dns_txt(spec, ignore_void=True)
            if len(texts) != 1 or len(texts[0]) > LONGEST_EXPLANATION:
                return ""
            text = spf.to_ascii(texts[0])
            _check_macros(text)
            # One by one, because pyspf cuts what is longer than a name.
            parts = (self.expand(part, stripdot=False) for part in _MACRO_OR_TEXT.findall(text))
            return _printable("".join(parts), LONGEST_EXPLANATION)
        except (spf.PermError, spf.TempError):
            return ""


@lru_cache(1024)
def _client(ip: str) -> dict[str, Any]:
    """What pyspf has of a client's address."""
    query = spf.query.__new__(spf.query)
    query.set_ip(ip)
    return dict(query.__dict__)


@lru_cache(512)
def _spelled(record: str) -> tuple[str, tuple[str, ...], bool]:
    """A record as pyspf expects it; what unknown modifiers say that are there again; whether there is a redirect."""
    terms: list[str] = []
    again: list[str] = []
    seen: set[str] = set()
    for term in record.split(" "):
        modifier = spf.RE_MODIFIER.match(term)
        if not modifier:
            terms.append(term)
            continue
        name, value = modifier[1].lower(), term[modifier.end() :]
        if name in seen and name not in ("redirect", "exp"):
            again.append(value)
            continue
        seen.add(name)
        terms.append(f"{name}={value}")
    return " ".join(terms), tuple(again), "redirect" in seen


@lru_cache(4096)  # senders publish the same few hosts and networks in every record
def _mechanism(mech: str, domain: str, version: str, longest: int) -> tuple[str, str, str, int, str]:
    """A mechanism without macros in the record of that domain, for a client of that version of IP. Raises PermError."""
    query = _Query.__new__(_Query)
    query.d, query.v, query.cidrmax, query.strict = domain, version, longest, True
    return query._validated(mech)  # noqa: SLF001


@lru_cache(4096)
def _network(address: str, length: int) -> IPv4Network | IPv6Network:
    """The network of that length around the address. Raises ValueError."""
    return ip_network(address).supernet(new_prefix=length)


def _check_macros(text: str) -> None:
    """RFC 7208 7.1 and 7.3. Raises PermError."""
    if "%" not in text:
        return
    if "%" in _MACRO.sub("", text):
        raise spf.PermError("a % that begins no macro", text)
    if any(digits and not int(digits) for digits in _MACRO.findall(text)):
        raise spf.PermError("a macro that leaves nothing over", text)


def _printable(text: str, longest: int) -> str:
    return _NOT_PRINTABLE.sub("?", text[:longest])
