"""When DNS fails, nothing keeps the message that it failed for: a failure that is kept has no frames with it."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from inbound.clients.dns import Resolver
from inbound.stages.arc import Arc
from inbound.stages.dkim import Dkim
from inbound.stages.dmarc import Dmarc
from inbound.stages.iprev import Iprev
from inbound.stages.spf import Spf
from inbound.testing import DnsServer
from inbound.verdicts import Status
from tests.stages.builders import mail_from
from tests.stages.signer import MESSAGE, sign

BROKEN = ("sender.example", "_dmarc.sender.example", "s1._domainkey.sender.example", "1.2.0.192.in-addr.arpa")


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("times", [1, 2])  # the second is answered from the cache
@pytest.mark.usefixtures("without_collector")
def test_a_message_is_forgotten_when_it_is_judged_and_dns_fails(times: int) -> None:
    async def story() -> list[Status]:
        found: list[Status] = []
        async with asyncio.timeout(20):
            server = await DnsServer(dict.fromkeys(BROKEN, "SERVFAIL")).start()
            resolver = Resolver(server.address)
            spf, dkim, dmarc = Spf(resolver), Dkim(resolver), Dmarc(resolver)
            for _ in range(times):
                mail = mail_from(raw=sign(MESSAGE, tags={"d": "sender.example"}))
                forgotten = weakref.ref(mail)
                verdicts = (await spf(mail), await dkim(mail))
                found += [verdict.status for verdict in verdicts]
                found += [(await dmarc(mail, *verdicts)).status]
                await Iprev(resolver)(mail)
                await Arc(resolver)(mail)
                del mail
                await asyncio.sleep(0)
                assert forgotten() is None
            await server.stop()
        return found

    assert set(asyncio.run(story())) == {Status.PROCESSING_FAILED}
