"""Spam: our own scorer. Named tests with weights; what fired, its weight and what it saw are the explanation.

1. Each test is a pure function in one of the tables (`origin`, `head`, `structure`, `links`, `words`); `docs/spam.md` lists
   them from there. The score is the sum of the weights of those that fired.
2. PASS below the low mark, GRAY from there, FAIL from the high mark. What is not readable as MIME is GRAY at least.
3. GTUBE in the text of the message is spam for certain.
4. Everything is linear in the message and capped, so that no message can make it slow; large ones are taken to a thread.
"""

import time
from collections.abc import Callable
from itertools import groupby
from operator import attrgetter

from inbound.mail import Mail
from inbound.offload import offload
from inbound.settings import Spam as Marks
from inbound.stages.spam.head import HEAD
from inbound.stages.spam.links import LINKS
from inbound.stages.spam.look import Look
from inbound.stages.spam.origin import ORIGIN
from inbound.stages.spam.structure import STRUCTURE
from inbound.stages.spam.table import SpamTest
from inbound.stages.spam.words import WORDS
from inbound.verdicts import (
    BlockVerdict,
    DkimVerdict,
    DmarcVerdict,
    IprevVerdict,
    SpamVerdict,
    SpfVerdict,
    Status,
    Symbol,
)

GTUBE_WEIGHT = 1000.0

TESTS: tuple[SpamTest, ...] = (
    *ORIGIN.values(),
    *HEAD.values(),
    *STRUCTURE.values(),
    *LINKS.values(),
    *WORDS.values(),
)
# Tests in their order, those together that want the same thing given.
_RUNS = [(given, tuple(tests)) for given, tests in groupby(TESTS, attrgetter("given"))]
_EVIDENCE = 160  # characters of one symbol's evidence


class Spam:
    """The check by our own tests, under the marks of the settings. `hostname` is our name, for what claims it."""

    name = "spam"

    def __init__(self, marks: Marks, *, hostname: str = "", now: Callable[[], float] = time.time) -> None:
        self._marks = marks
        self._hostname = hostname
        self._now = now

    def broken(self, reason: str) -> SpamVerdict:
        """The verdict when the check itself failed."""
        return SpamVerdict(status=Status.PROCESSING_FAILED, reason=reason)

    async def __call__(
        self,
        mail: Mail,
        spf: SpfVerdict,
        dkim: DkimVerdict,
        dmarc: DmarcVerdict,
        iprev: IprevVerdict,
        block: BlockVerdict,
    ) -> SpamVerdict:
        """Score the message."""
        look = Look(mail, spf=spf, dkim=dkim, dmarc=dmarc, iprev=iprev, block=block, hostname=self._hostname)
        return await offload(self._judge, look) if mail.is_big else self._judge(look)

    def _judge(self, look: Look) -> SpamVerdict:
        symbols = symbols_of(look)
        score = round(sum(symbol.weight for symbol in symbols), 2)
        status = Status.FAIL if score >= self._marks.high else Status.GRAY if score >= self._marks.low else Status.PASS
        reason = ""
        if not look.parts.readable:
            reason = f"not readable as MIME: {look.parts.reason}"
            status = Status.GRAY if status is Status.PASS else status
        return SpamVerdict(status=status, score=score, symbols=symbols, reason=reason)


def symbols_of(look: Look) -> tuple[Symbol, ...]:
    """Every test that fired, GTUBE first, then in the order of the tables."""
    fired = [
        Symbol(name=test.name, weight=test.weight, evidence=_plain(saw))
        for given, tests in _RUNS
        if given(look)
        for test in tests
        if (saw := test.saw(look))
    ]
    if look.has_gtube:
        fired.insert(0, Symbol(name="GTUBE", weight=GTUBE_WEIGHT, evidence="the test string for spam filters"))
    return tuple(fired)


def _plain(evidence: str) -> str:
    shown = evidence[:_EVIDENCE]
    return shown if shown.isprintable() else "".join(char if char.isprintable() else " " for char in shown)
