"""Examine: every stage looks at the message, and one wrapper keeps each of them from lying, hanging or crashing.

1. What the envelope alone decides (SPF, iprev) can begin at MAIL FROM and run while the message comes in (`begin`). The rest
   starts when it is there, side by side; DMARC waits for SPF and DKIM, spam for all of them.
2. A stage that raises or outlasts its deadline has the verdict `broken`: PROCESSING_FAILED.
3. Nothing here refuses, and nothing here knows a rule.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from inbound.mail import Mail
from inbound.offload import within
from inbound.stages import Stage
from inbound.verdicts import (
    ArcVerdict,
    BlockVerdict,
    DkimVerdict,
    DmarcVerdict,
    IprevVerdict,
    SpamVerdict,
    SpfVerdict,
    Status,
    UpstreamVerdict,
    Verdicts,
    VirusVerdict,
)

log = logging.getLogger(__name__)

NOT_SCANNED = "no rule that covers these recipients asks for a scan"

Evidence = ParamSpec("Evidence")
Verdict = TypeVar("Verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The checks in force, and the deadline of each in seconds by its name (`default` for the others)."""

    iprev: Stage[[], IprevVerdict]
    spf: Stage[[], SpfVerdict]
    dkim: Stage[[], DkimVerdict]
    arc: Stage[[], ArcVerdict]
    dmarc: Stage[[SpfVerdict, DkimVerdict], DmarcVerdict]
    virus: Stage[[], VirusVerdict]
    spam: Stage[[SpfVerdict, DkimVerdict, DmarcVerdict, IprevVerdict, BlockVerdict], SpamVerdict]
    deadlines: Mapping[str, float]
    upstream: Stage[[DmarcVerdict], UpstreamVerdict] | None = None  # where the operator trusts one


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Checks that need no message, under way. They come to their end whether or not somebody waits for it."""

    iprev: asyncio.Task[IprevVerdict]
    spf: asyncio.Task[SpfVerdict]
    watch: "_Watch"


def begin(mail: Mail, stages: Stages) -> Begun:
    """Start them. `mail` is as far as it is known: client and reverse-path."""
    watch = _Watch(stages.deadlines)
    begun = Begun(
        iprev=asyncio.ensure_future(watch.over(stages.iprev, mail)),
        spf=asyncio.ensure_future(watch.over(stages.spf, mail)),
        watch=watch,
    )
    for task in (begun.iprev, begun.spf):
        _under_way.add(task)
        task.add_done_callback(_under_way.discard)
    return begun


_under_way: set[asyncio.Task[Any]] = set()  # the loop itself keeps no task alive


async def examine(
    mail: Mail, stages: Stages, block: BlockVerdict, *, scan: bool, begun: Begun | None = None
) -> Verdicts:
    """Everything the stages find about the message. `scan` is false when no rule wants spam and virus looked at.

    `begun` is what was begun at MAIL FROM; without it everything starts here.
    """
    begun = begun or begin(mail, stages)
    watch, iprev, spf = begun.watch, begun.iprev, begun.spf
    async with asyncio.TaskGroup() as group:
        dkim = group.create_task(watch.over(stages.dkim, mail))
        virus = group.create_task(watch.over(stages.virus, mail)) if scan else None
        arc = await watch.over(stages.arc, mail)  # beside the others, which are tasks; most mail has no chain
        dmarc = await watch.over(stages.dmarc, mail, await spf, await dkim)
        upstream = await watch.over(stages.upstream, mail, dmarc) if stages.upstream else UpstreamVerdict(result="none")
        evidence = (await spf, await dkim, dmarc, await iprev, block)
        spam = await watch.over(stages.spam, mail, *evidence) if scan else None
    return Verdicts(
        spf=spf.result(),
        dkim=dkim.result(),
        dmarc=dmarc,
        arc=arc,
        iprev=iprev.result(),
        spam=spam or SpamVerdict(status=Status.DISABLED, reason=NOT_SCANNED),
        virus=virus.result() if virus else VirusVerdict(status=Status.DISABLED, reason=NOT_SCANNED),
        block=block,
        upstream=upstream,
        timings_ms=watch.timings_ms,
    )


class _Watch:
    """Gives each stage its deadline, notes its time, and takes its word for broken when it fails."""

    def __init__(self, deadlines: Mapping[str, float]) -> None:
        self.timings_ms: dict[str, float] = {}
        self._deadlines = deadlines

    async def over(
        self,
        stage: Stage[Evidence, Verdict],
        mail: Mail,
        *evidence: Evidence.args,
        **more: Evidence.kwargs,
    ) -> Verdict:
        started = time.perf_counter()
        deadline = self._deadlines.get(stage.name, self._deadlines["default"])
        try:
            return await within(deadline, stage(mail, *evidence, **more))
        except TimeoutError:
            return stage.broken(f"no verdict within {deadline:g} s")
        except Exception as error:
            log.exception("stage %s crashed", stage.name, extra={"message_id": mail.message_id})
            return stage.broken(f"the check crashed ({type(error).__name__})")
        finally:
            self.timings_ms[stage.name] = round((time.perf_counter() - started) * 1000, 3)
