"""Look-ups that need no message begin at MAIL FROM and run while it comes in."""

import asyncio
from dataclasses import replace
from pathlib import Path

from inbound.examine import begin, examine
from inbound.settings import BlockList, DnsblZone
from inbound.verdicts import BlockVerdict, SpfVerdict
from tests.harness import SENDER_IP, mail, receiver
from tests.test_examine import MAIL, stages

RULES = "rules:\n  - name: store\n    actions: [{s3: {bucket: mail}}]\n"
CLIENT = ".".join(reversed(SENDER_IP.split(".")))


def test_spf_iprev_and_the_block_lists_are_asked_before_there_is_a_recipient(tmp_path: Path) -> None:
    async def story() -> None:
        block_list = BlockList(dnsbl=(DnsblZone(zone="bl.example"),))
        async with receiver(tmp_path, rules=RULES, block_list=block_list) as server, server.connect() as client:
            await client.command("EHLO mx.sender.example")
            assert server.dns.asked == []
            await client.command("MAIL FROM:<pat@sender.example>")
            wanted = {"sender.example", f"{CLIENT}.in-addr.arpa", f"{CLIENT}.bl.example"}
            async with asyncio.timeout(10):
                while not wanted <= {name for name, _, _ in server.dns.asked}:  # noqa: ASYNC110 - the server is another
                    await asyncio.sleep(0.01)

    asyncio.run(story())


def test_what_was_begun_is_not_done_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with receiver(tmp_path, rules=RULES) as server:
            assert (await server.reply(mail())).startswith("250 ")
            asked = [question for question in server.dns.asked if question[0] == "sender.example"]
            assert asked == [("sender.example", "TXT", "udp")]
            assert server.record.verdicts.spf.result == "pass"
            assert {"spf", "iprev", "dkim", "dmarc"} <= server.record.verdicts.timings_ms.keys()

    asyncio.run(story())


def test_a_check_that_hangs_at_mail_from_is_broken_and_nobody_waits_for_it_twice() -> None:
    async def story() -> SpfVerdict:
        async def never(*_: object) -> None:
            await asyncio.Event().wait()

        hanging = replace(stages(spf=never), deadlines={"default": 0.05})
        begun = begin(MAIL, hanging)
        await asyncio.sleep(0.1)
        assert begun.spf.done()
        return (await examine(MAIL, hanging, BlockVerdict(), scan=False, begun=begun)).spf

    assert asyncio.run(story()).result == "temperror"


def test_a_transaction_that_is_given_up_leaves_its_look_ups_to_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with receiver(tmp_path, rules=RULES) as server, server.connect() as client:
            await client.command("EHLO mx.sender.example")
            for _ in range(20):
                await client.command("MAIL FROM:<pat@sender.example>")
                assert (await client.command("RSET")).code == 250

    asyncio.run(story())
