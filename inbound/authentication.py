"""Authentication in one call, for programs that want the verdicts and nothing else of this one.

    import asyncio, inbound

    verdicts = asyncio.run(inbound.authenticate(raw, client_ip="192.0.2.1", helo="mx.a.example", mail_from="x@a.example"))
    verdicts.dmarc.result, verdicts.dmarc.applied_policy, [signature.domain for signature in verdicts.dkim.signatures]

Importing it changes nothing in the host program or in the libraries that it may use itself (dkimpy, pyspf, dnspython).
"""

import time
from contextlib import AsyncExitStack
from ipaddress import ip_address

from inbound.clients.dns import Resolver as Dns
from inbound.examine import Stages, examine
from inbound.mail import Client, Headers, IPAddress, Mail
from inbound.stages import Resolver
from inbound.stages.arc import Arc
from inbound.stages.dkim import Dkim
from inbound.stages.dmarc import Dmarc
from inbound.stages.iprev import Iprev
from inbound.stages.skipped import SKIPPED
from inbound.stages.spf import Spf
from inbound.verdicts import BlockVerdict, Verdicts


async def authenticate(
    raw: bytes,
    *,
    client_ip: str | IPAddress,
    helo: str = "",
    mail_from: str = "",
    resolver: str | Resolver = "",
    now: float | None = None,
    receiver: str = "unknown",
    deadline: float = 10.0,
) -> Verdicts:
    """SPF, DKIM, DMARC, ARC and iprev of one message (RFC 7208, 6376, 9989, 8617, 8601).

    `raw` has CRLF or LF line ends throughout; `mail_from` is "" for the null reverse-path. `resolver` is "IP:PORT", "" for the
    system's, or a resolver that many calls share (`inbound.clients.dns.Resolver`, `inbound.testing.FakeResolver`). `now` is
    seconds since 1970. Each check has `deadline` seconds; one that outlasts it is PROCESSING_FAILED. In what comes back,
    spam and virus are DISABLED. Raises ValueError for a `client_ip` or a `resolver` that is no address.
    """
    content = raw if b"\r\n" in raw else raw.replace(b"\n", b"\r\n")
    started = time.time() if now is None else now
    mail = Mail(
        raw=content,
        headers=Headers.of(content),
        client=Client(ip=ip_address(client_ip), helo=helo),
        mail_from=mail_from,
        rcpt_to=(),
        received_at=started,
        message_id="",
    )
    async with AsyncExitStack() as stack:
        dns = resolver
        if isinstance(dns, str):
            dns = Dns(dns)
            stack.push_async_callback(dns.close)
        stages = Stages(
            iprev=Iprev(dns),
            spf=Spf(dns, receiver=receiver, now=lambda: started),
            dkim=Dkim(dns, now=lambda: started),
            arc=Arc(dns, now=lambda: started),
            dmarc=Dmarc(dns),
            virus=SKIPPED["virus"],
            spam=SKIPPED["spam"],
            deadlines={"default": deadline},
        )
        return await examine(mail, stages, BlockVerdict(), scan=True)
