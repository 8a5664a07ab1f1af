"""Servers that tests start for themselves, on free ports and in directories of their own, and end when they are done."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

EICAR_SIGNATURE = (
    "58354f2150254041505b345c505a58353428505e2937434329377d2445494341522d5354414e44415244"
    "2d414e544956495255532d544553542d46494c452124482b482a"
)
CLAMAV_TEST_FILE = "aa15bcf478d165efd2065190eb473bcb:544:ClamAV-Test-File"
STREAM_LIMIT = 8 * 1024 * 1024

_PATIENCE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningClamd:
    """A clamd with two signatures. `unix` and `tcp` are its addresses as the settings write them."""

    unix: str
    tcp: str
    process: int


def clamd_binary() -> str | None:
    """Where clamd is, None where it is not installed."""
    return shutil.which("clamd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def clamd(directory: Path, *lines: str) -> Iterator[RunningClamd]:
    """Run a real clamd with a database of two signatures and further configuration lines; ends it afterwards."""
    database = directory / "database"
    database.mkdir()
    (database / "eicar.ndb").write_text(f"Eicar-Test-Signature:0:0:{EICAR_SIGNATURE}\n")
    (database / "clamav.hdb").write_text(f"{CLAMAV_TEST_FILE}\n")
    port, path = free_port(), directory / "clamd.ctl"
    configuration = directory / "clamd.conf"
    given = {line.split()[0] for line in lines}
    usual = (
        "Foreground yes",
        f"DatabaseDirectory {database}",
        f"LocalSocket {path}",
        f"TCPSocket {port}",
        "TCPAddr 127.0.0.1",
        f"TemporaryDirectory {directory}",
        f"StreamMaxLength {STREAM_LIMIT}",
        "MaxThreads 4",
        "AlertExceedsMax yes",
        "AlertEncrypted yes",
        "ConcurrentDatabaseReload no",
    )
    configuration.write_text("\n".join([*(line for line in usual if line.split()[0] not in given), *lines, ""]))
    binary = clamd_binary()
    assert binary, "clamd is not installed: apt-get install clamav-daemon clamav-testfiles"
    with (directory / "clamd.log").open("wb") as log:
        process = subprocess.Popen([binary, "--config-file", str(configuration)], stdout=log, stderr=log)
    try:
        _await_listener(process, path, port, directory / "clamd.log")
        yield RunningClamd(unix=f"unix:{path}", tcp=f"tcp:127.0.0.1:{port}", process=process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _await_listener(process: "subprocess.Popen[bytes]", path: Path, port: int, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with socket.socket(socket.AF_UNIX) as unix, socket.create_connection(("127.0.0.1", port), 1):
                unix.connect(str(path))
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"clamd did not start:\n{log.read_text(errors='replace')[-2000:]}")
