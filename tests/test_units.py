"""The systemd units: understood by systemd, patient enough, and the activation that they rely on."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inbound.serve import SLACK, grace
from inbound.settings import Settings
from inbound.smtp_client import SmtpClient
from inbound.testing import DnsServer
from tests.harness import DNS
from tests.test_workers import _MAIN, _configured, _environment, _free_port

UNITS = Path(__file__).parent.parent / "packaging" / "systemd"
ANALYZE = shutil.which("systemd-analyze")
ACTIVATE = shutil.which("systemd-socket-activate")


@pytest.mark.skipif(not ANALYZE, reason="no systemd here")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/inbound/.venv/bin/inbound", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    said = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_systemd_waits_longer_than_a_worker_may_take_to_finish() -> None:
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", (UNITS / "inbound.service").read_text(), re.MULTILINE)
    assert int(seconds) > grace(Settings()) + SLACK


@pytest.mark.skipif(not ACTIVATE, reason="no systemd here")
def test_systemds_own_activation_hands_the_socket_over(tmp_path: Path) -> None:
    port = _free_port()

    async def story() -> None:
        dns = await DnsServer(DNS).start()
        config = _configured(tmp_path, port, dns.address)
        environment = _environment()
        process = await asyncio.create_subprocess_exec(
            str(ACTIVATE), "--listen", f"127.0.0.1:{port}",
            *(f"--setenv={name}={environment[name]}" for name in ("PYTHONPATH", "PATH")),
            sys.executable, *_MAIN, str(config),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        try:
            await process.stderr.readuntil(b"Listening on")
            async with asyncio.timeout(20), SmtpClient("127.0.0.1", port) as client:  # it is started by this connection
                assert client.greeting.code == 220
        finally:
            process.terminate()
            _, said = await process.communicate()
            await dns.stop()
        assert process.returncode == 0, said.decode()

    asyncio.run(story())
    assert os.listdir(tmp_path / "data")  # noqa: PTH208
