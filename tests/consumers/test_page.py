"""The Python on the page for consumers runs as it stands there, one block after another."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from inbound.actions.notice import event as event_of
from inbound.actions.s3 import S3
from inbound.actions.sqs import Sqs
from inbound.event import lambda_event
from tests.actions.letters import ACCOUNT, ID, letter
from tests.consumers.stored import OURS, performed
from tests.consumers.test_message import MIXED

PAGE = Path(__file__).parents[2] / "docs/consumers.md"
QUEUE = f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/mail"


def test_the_page_s_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = OURS + b"X-Queue: support\r\n" + MIXED
    cloud = performed(tmp_path, S3(bucket="mail-support", prefix="in"), Sqs(queue_url=QUEUE), content=stored)
    asyncio.run(cloud.put("mail-support", "in/broken", b"x", metadata={"x-amz-key-v2": "?"}))
    monkeypatch.setenv("INBOUND_DATA_DIR", str(tmp_path))
    event = json.loads(lambda_event(event_of(letter(content=stored), {"type": "Lambda"})))
    names: dict[str, Any] = {"event": event, "batch": event, "queue_url": QUEUE}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["last"] == f"in/{ID}"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Grüße pat@sender.example 2026-10-06T11:15:00+02:00"
    assert "a.pdf application/octet-stream application/pdf 9" in lines
    assert "None support" in lines
    assert "no such object" in lines
    assert f"{ID} Grüße" in lines
    assert len([line for line in lines if line.startswith("in/broken ")]) == 1
