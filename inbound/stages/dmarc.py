"""DMARC (RFC 9989): whether a pass of SPF or DKIM speaks for the domain that the reader sees in From, and what if not.

1. The policy is the author domain's record, else its organizational domain's, else its public suffix's (4.10.1). Finding it
   is our own tree walk: checkdmarc's raises when the author domain does not exist, and spoofed subdomains would escape.
2. checkdmarc parses the record that was found. What RFC 9989 4.8 wants ignored or defaulted, where checkdmarc would raise or ask
   DNS, is taken out of the record before.
3. DNS trouble in anything that was needed is a temperror. A message without one author domain is a fail without policy.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal, cast

from inbound.errors import TemporaryFailure
from inbound.mail import Mail
from inbound.offload import offload
from inbound.stages import Resolver
from inbound.stages.alignment import Published, Walk, aligned, author_of, tags_of, walk
from inbound.verdicts import DkimVerdict, DmarcVerdict, SpfVerdict, Status

PolicyWord = Literal["none", "quarantine", "reject"]
Mechanism = Literal["spf", "dkim"]

LONGEST_RECORD = 8192  # octets; what is longer is not read

_POLICIES: tuple[PolicyWord, ...] = ("none", "quarantine", "reject")
# RFC 9989 4.8, dmarc-uri: RFC 3986's, without commas and exclamation marks; a size may follow, as it once could
_URI = re.compile(
    r"[a-z][a-z0-9+.-]*:(?:[a-z0-9._~:/?#\[\]@$&'()*+;=-]|%[0-9a-f]{2})+(?:![0-9]+[kmgt]?)?", re.IGNORECASE
)
_VALUES = {"adkim": ("r", "s"), "aspf": ("r", "s"), "psd": ("y", "n", "u"), "t": ("y", "n")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A record as it applies: all defaults filled in. `strict_dkim` is adkim=s, `testing` is t=y."""

    p: PolicyWord
    sp: PolicyWord
    np: PolicyWord
    strict_dkim: bool
    strict_spf: bool
    testing: bool


class Dmarc:
    """The stage."""

    name = "dmarc"

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def broken(self, reason: str) -> DmarcVerdict:
        """The check failed, not the author."""
        return DmarcVerdict(status=Status.PROCESSING_FAILED, result="temperror", reason=reason)

    async def __call__(self, mail: Mail, spf: SpfVerdict, dkim: DkimVerdict) -> DmarcVerdict:
        """Evaluate."""
        author = await offload(author_of, mail) if mail.is_big else author_of(mail)
        if not author.domain:
            return DmarcVerdict(status=Status.FAIL, result="fail", reason=author.reason)
        try:
            return await self._evaluate(author.domain, spf, dkim)
        except TemporaryFailure as failure:
            return DmarcVerdict(
                status=Status.PROCESSING_FAILED, result="temperror", from_domain=author.domain, reason=str(failure)
            )

    async def _evaluate(self, author: str, spf: SpfVerdict, dkim: DkimVerdict) -> DmarcVerdict:
        walked = await walk(author, self._resolver)
        published = walked.policy
        if published is None:
            return _not_applied(walked, reason="no DMARC record")
        policy = await parse(published)
        if policy is None:
            return _not_applied(walked, record_domain=published.domain, reason="the DMARC record cannot be used")
        passing, unsure = await self._passing(author, policy, spf, dkim)
        if not passing and unsure:
            raise unsure.again()
        word = await self._word(policy, published, author, needed=not passing)
        return DmarcVerdict(
            status=Status.PASS if passing else Status.FAIL,
            result="pass" if passing else "fail",
            from_domain=author,
            organizational_domain="" if walked.trouble else walked.organizational_domain,
            record_domain=published.domain,
            policy=word,
            applied_policy=_POLICIES[max(_POLICIES.index(word) - policy.testing, 0)],
            aligned=passing,
            reason="" if passing else "no aligned pass of SPF or DKIM",
            record=published.text,
            dnssec=published.authenticated,
        )

    async def _word(self, policy: Policy, published: Published, author: str, *, needed: bool) -> PolicyWord:
        """RFC 9989 4.10.1: p at the author domain itself, else sp for a name that exists and np for one that does not.

        Where DNS does not tell and no policy is `needed`, the weaker one. Raises TemporaryFailure.
        """
        if published.domain == author:
            return policy.p
        if policy.np == policy.sp:
            return policy.sp
        try:
            return policy.sp if (await self._resolver.query(author, "A")).exists else policy.np
        except TemporaryFailure:
            if needed:
                raise
            return min(policy.sp, policy.np, key=_POLICIES.index)

    async def _passing(
        self, author: str, policy: Policy, spf: SpfVerdict, dkim: DkimVerdict
    ) -> tuple[tuple[Mechanism, ...], TemporaryFailure | None]:
        """The mechanisms with an aligned pass; and the trouble because of which another one might have passed."""
        candidates: list[tuple[Mechanism, str, bool, bool]] = []  # mechanism, identifier, strict, it passed
        if spf.result in ("pass", "temperror") and spf.domain:
            candidates.append(("spf", spf.domain, policy.strict_spf, spf.result == "pass"))
        candidates += [
            ("dkim", signature.domain, policy.strict_dkim, signature.result == "pass")
            for signature in dkim.signatures
            if signature.result in ("pass", "temperror")
        ]
        if spf.status is Status.PROCESSING_FAILED and not spf.domain:  # the stage broke before it knew
            candidates.append(("spf", author, True, False))
        if dkim.status is Status.PROCESSING_FAILED and not dkim.signatures:
            candidates.append(("dkim", author, True, False))
        passing: set[Mechanism] = set()
        unsure: TemporaryFailure | None = None
        for mechanism, identifier, strict, passed in candidates:
            if mechanism in passing:
                continue
            try:
                is_aligned = identifier == author if strict else await aligned(identifier, author, self._resolver)
            except TemporaryFailure as failure:
                unsure = failure.again()
                continue
            if is_aligned and passed:
                passing.add(mechanism)
            elif is_aligned:
                unsure = TemporaryFailure(f"{mechanism} temperror", identifier)
        return tuple(mechanism for mechanism in ("spf", "dkim") if mechanism in passing), unsure


def _not_applied(walked: Walk, *, record_domain: str = "", reason: str) -> DmarcVerdict:
    return DmarcVerdict(
        status=Status.GRAY,
        result="none",
        from_domain=walked.start,
        organizational_domain="" if walked.trouble else walked.organizational_domain,
        record_domain=record_domain,
        reason=reason,
    )


async def parse(published: Published) -> Policy | None:
    """The record as it applies, or None when DMARC does not apply with it."""
    record = _without_oddities(published.text)
    if record is None:
        return None
    if not _parser.cache_info().currsize:
        await load_parser()
    return _policy(record)


async def load_parser() -> None:
    """Import checkdmarc now, off the loop, so that the first message with a record need not wait for it."""
    await offload(_parser)


@lru_cache(1024)  # most domains publish one of a handful of records, once what does not count is taken out
def _policy(record: str) -> Policy:
    tags = {name: tag["value"] for name, tag in _parser()(record, "")["tags"].items()}
    return Policy(
        p=cast("PolicyWord", tags["p"]),
        sp=cast("PolicyWord", tags["sp"]),
        np=cast("PolicyWord", tags["np"]),
        strict_dkim=tags["adkim"] == "s",
        strict_spf=tags["aspf"] == "s",
        testing=tags["t"] == "y",
    )


def preload() -> None:
    """Import checkdmarc in a process that others will be forked from."""
    _parser()


@cache
def _parser() -> Callable[[str, str], Any]:
    """checkdmarc's, imported when the first record is met: that takes 0.4 s and 41 MB."""
    from checkdmarc.dmarc import parse_dmarc_record  # noqa: PLC0415

    return cast("Callable[[str, str], Any]", parse_dmarc_record)


@lru_cache(maxsize=256)
def _without_oddities(text: str) -> str | None:
    """The tags that count for a verdict, each with a valid value; None when the record cannot be used.

    RFC 9989 4.8: unknown tags are ignored, bad values of the others give way to their defaults. 4.10.1: without a valid p,
    or with a bad sp or np, it is p=none when there is somebody to report to, and otherwise no DMARC. RFC 6376 3.2: a tag
    that stands twice makes the whole list invalid. rua and ruf go too: checkdmarc would ask DNS about them.
    """
    pairs = tags_of(text)
    tags = {name: value.lower() for name, value in pairs}
    if len(tags) < len(pairs) or len(text) > LONGEST_RECORD:
        return None
    kept = {name: tags[name] for name, values in _VALUES.items() if tags.get(name) in values}
    policies = {name: tags[name] for name in ("p", "sp", "np") if name in tags}
    if set(policies.values()) <= set(_POLICIES):
        kept |= {"p": "none"} | policies
    elif any(_URI.fullmatch(uri.strip(" \t")) for uri in tags.get("rua", "").split(",")):
        kept["p"] = "none"
    else:
        return None
    return "; ".join(["v=DMARC1", f"p={kept.pop('p')}", *(f"{name}={value}" for name, value in kept.items())])
