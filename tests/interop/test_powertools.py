"""Our Lambda event is what AWS's own model of it says, as far as that model goes.

It is narrower than SES: only `Event` invocations, no `DISABLED`, `commonHeaders.to` required; there we follow SES.
"""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from inbound.actions.invoke import Invoke
from tests.actions.letters import ID, letter, local
from tests.interop.environments import CONSUMERS, python_with

pytestmark = pytest.mark.timeout(300)


def test_powertools_reads_our_event(tmp_path: Path) -> None:
    seen = tmp_path / "event.json"

    async def story() -> None:
        async with local(tmp_path, {"note": ("cp", "/dev/stdin", str(seen))}) as cloud:
            await Invoke(function="note").perform(
                letter(
                    b"From: Pat <pat@sender.example>\r\nTo: Help <help@example.com>\r\nSubject: Order 1234\r\n"
                    b"Date: Tue, 6 Oct 2026 11:15:00 +0200\r\nMessage-ID: <1@sender.example>\r\n\r\nHello\r\n"
                ),
                cloud,
            )
            async with asyncio.timeout(30):
                while list((tmp_path / "lambda/queue").iterdir()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    asyncio.run(story())
    python = python_with(*CONSUMERS)
    command = [str(python), str(Path(__file__).with_name("ses_model.py"))]
    done = subprocess.run(command, input=seen.read_bytes(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    function = "arn:aws:lambda:us-east-1:123456789012:function:note"
    assert [ID, "Order 1234", ["help@example.com"], ["support@example.com"], function] == json.loads(done.stdout)
