"""`inbound serve` with several workers: real processes, killed, told to stop and told to reload while mail comes in."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inbound.errors import ConfigurationError
from inbound.smtp_client import Answer, SmtpClient
from inbound.sockets import bind, close
from inbound.testing import DnsServer
from tests.harness import DNS, mail

PATIENCE = 20.0
STORE = """
rules:
  - name: store
    actions: [{s3: {bucket: mail}}]
"""
REFUSE = """
rules:
  - name: refuse
    recipients: [example.com]
    when: {subject: {contains: e}}
    actions: [{bounce: {smtp_reply_code: 550, status_code: 5.7.1, message: Not today}}]
"""
SLOW = """
rules:
  - name: slow
    actions: [{lambda: {function: slow, invocation: request_response}}, {s3: {bucket: mail}}]
"""


@dataclass
class Served:
    """A running `inbound serve`: its process, port, directory, and what it has said so far."""

    process: asyncio.subprocess.Process
    port: int
    directory: Path
    said: list[str]

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return _children(self.process.pid)

    @property
    def stored(self) -> set[str]:
        """The ids of the messages that are stored."""
        bucket = self.directory / "data" / "s3" / "mail"
        return {path.name for path in bucket.glob("*") if path.suffix != ".json" and not path.name.startswith(".")}

    async def until_said(self, text: str, times: int = 1) -> None:
        """Wait until it has been logged that often."""
        await _until(lambda: sum(text in line for line in self.said) >= times or self.process.returncode is not None)
        assert sum(text in line for line in self.said) >= times, "".join(self.said)

    async def until_workers(self, count: int, *, other_than: int = 0) -> None:
        """Wait until that many workers run, without that one."""
        await _until(lambda: len(self.workers) == count and other_than not in self.workers)

    async def send(self, number: int) -> Answer:
        """One message in a session of its own."""
        return await self.send_to("support@example.com", body=f"number {number}\r\n")

    async def send_to(self, *rcpt_to: str, body: str = "Hello\r\n") -> Answer:
        """One message to these, in a session of its own."""
        async with SmtpClient("127.0.0.1", self.port) as client:
            answers = await client.send(
                mail(body), helo="mx.sender.example", mail_from="pat@sender.example", rcpt_to=rcpt_to
            )
            return answers.get("") or next(iter(answers.values()))


# Becomes the server with a listening socket as its descriptor 3, as systemd hands it over.
_HAND_OVER = """
import os, sys
handle = int(sys.argv[1])
os.set_inheritable(handle, True) if handle == 3 else os.dup2(handle, 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
_MAIN = ("-c", "import sys; from inbound.cli import main; sys.exit(main())", "serve", "--config")
_SERVE = (sys.executable, *_MAIN)


def _configured(directory: Path, port: int, resolver: str, *, rules: str = STORE, settings: str = "") -> Path:
    (directory / "rules.yaml").write_text(rules)
    config = directory / "inbound.yaml"
    config.write_text(
        f"listen: ['127.0.0.1:{port}']\nworkers: 2\nrules: rules.yaml\nresolver: {resolver}\nlog: text\n"
        f"functions: {{slow: [/bin/sh, -c, 'cat >/dev/null; sleep 1; echo null']}}\n{settings}"
    )
    return config


def _environment(*more: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parent.parent, *more)))}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def served(
    directory: Path,
    *,
    rules: str = STORE,
    settings: str = "",
    listening: socket.socket | None = None,
    dns: Mapping[str, Any] = DNS,
    python: str = sys.executable,
) -> AsyncIterator[Served]:
    """Start it with two workers, on a free port or with a socket handed over; `python` is another one of this version."""
    port = listening.getsockname()[1] if listening else _free_port()
    resolver = await DnsServer(dns).start()
    before = (sys.executable, "-c", _HAND_OVER, str(listening.fileno())) if listening else ()
    process = await asyncio.create_subprocess_exec(
        *before,
        python,
        *_MAIN,
        str(_configured(directory, port, resolver.address, rules=rules, settings=settings)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=_environment(*map(Path, site.getsitepackages() if python != sys.executable else ())),
        pass_fds=[listening.fileno()] if listening else [],
    )
    running = Served(process, port, directory, [])
    assert process.stderr is not None
    reading = asyncio.create_task(_read(process.stderr, running.said))
    try:
        await running.until_said("listening on")
        await running.until_workers(2)
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()
            await reading
        await resolver.stop()


async def _read(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode())


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.02)


def _status(pid: int) -> dict[str, str]:
    """What /proc says of a process; nothing when there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return dict(line.split(":\t", 1) for line in lines)


def _children(pid: int) -> list[int]:
    found = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return sorted(other for other in found if _status(other).get("PPid") == str(pid))


async def _load(server: Served, promised: set[str], stop: asyncio.Event) -> None:
    """Send one message after the other. `promised` are the ids of those that were accepted."""
    number = id(stop) % 1000 * 1_000_000 + len(promised)
    while not stop.is_set():
        number += 1
        with contextlib.suppress(ConnectionError):
            answer = await server.send(number)
            if answer.code == 250:
                promised.add(answer.lines[0].split()[-1])
        await asyncio.sleep(0)


def test_a_worker_killed_under_load_loses_no_accepted_mail_and_the_port_keeps_answering(tmp_path: Path) -> None:
    async def story() -> None:
        promised: set[str] = set()
        stop = asyncio.Event()
        async with served(tmp_path) as server, asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(_load(server, promised, stop))
            for _ in range(2):
                enough = len(promised) + 30
                await _until(lambda: len(promised) >= enough)  # noqa: B023 - awaited right here
                victim = server.workers[0]
                os.kill(victim, signal.SIGKILL)
                async with SmtpClient("127.0.0.1", server.port) as client:
                    assert client.greeting.code == 220
                await server.until_workers(2, other_than=victim)
            stop.set()
        assert sum("ended by SIGKILL" in line for line in server.said) == 2
        assert promised <= server.stored
        assert server.process.returncode == 0

    asyncio.run(story())


def test_sigterm_finishes_what_is_in_flight_and_tells_the_others(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path, rules=SLOW) as server:
            idle = [SmtpClient("127.0.0.1", server.port) for _ in range(4)]
            for client in idle:
                await client.__aenter__()
            sending = [asyncio.create_task(server.send(number)) for number in range(8)]
            await asyncio.sleep(0.5)  # every function takes a second
            server.process.terminate()
            answers = await asyncio.gather(*sending)
            told = [await client.answer() for client in idle]
            for client in idle:
                await client.__aexit__(None, None, None)
            await server.process.wait()
            assert [answer.code for answer in answers] == [250] * 8
            assert [answer.code for answer in told] == [421] * 4
            assert {answer.lines[0].split()[-1] for answer in answers} == server.stored
            assert server.process.returncode == 0
            with pytest.raises(ConnectionRefusedError):
                await server.send(9)

    asyncio.run(story())


def test_sighup_takes_rules_in_force_in_every_worker_and_bad_ones_in_none(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as server:
            assert [(await server.send(number)).code for number in range(6)] == [250] * 6
            (tmp_path / "rules.yaml").write_text(REFUSE)
            server.process.send_signal(signal.SIGHUP)
            await server.until_said("rules taken in force: refuse", 2)
            replies = await asyncio.gather(*(server.send(number) for number in range(12)))
            assert [reply.code for reply in replies] == [550] * 12
            (tmp_path / "rules.yaml").write_text("rules: [nonsense]")
            server.process.send_signal(signal.SIGHUP)
            await server.until_said("the rules stay as they were")
            server.process.send_signal(signal.SIGUSR1)
            await server.until_said("dns: ", 2)
            victim = server.workers[1]
            os.kill(victim, signal.SIGKILL)
            await server.until_workers(2, other_than=victim)
            replies = await asyncio.gather(*(server.send(number) for number in range(12)))
            assert [reply.code for reply in replies] == [550] * 12

    asyncio.run(story())


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as server:
            workers = server.workers
            server.process.kill()
            await _until(lambda: not any(map(_status, workers)))

    asyncio.run(story())


def test_what_is_wrong_with_every_worker_ends_the_supervisor(tmp_path: Path) -> None:
    config = _configured(tmp_path, _free_port(), "127.0.0.1:9", settings="tls: {certificate: no.pem, key: no.pem}\n")
    ended = subprocess.run(
        [*_SERVE, str(config)], env=_environment(), capture_output=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == 2
    assert b"before it was ready" in ended.stderr


def test_a_socket_handed_over_by_systemd_is_listened_on(tmp_path: Path) -> None:
    async def story(listening: socket.socket) -> None:
        async with served(tmp_path, listening=listening) as server:
            assert (await server.send(1)).code == 250

    with socket.create_server(("127.0.0.1", 0)) as listening:
        asyncio.run(story(listening))


def test_a_socket_handed_over_that_no_entry_names_is_an_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(ConfigurationError, match="no entry is for"),
    ):
        bind(["127.0.0.2:0"], [listening])


def test_without_a_host_both_kinds_of_address_are_listened_on_one_by_one() -> None:
    (bound,) = bind([":0"])
    assert {sock.family for sock in bound.sockets} <= {socket.AF_INET, socket.AF_INET6}
    assert all(sock.proto == socket.IPPROTO_TCP for sock in bound.sockets)
    close(bound)


def test_a_port_that_is_taken_is_a_mistake_in_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=f"cannot listen on {address}: Address already in use"):
            bind([address])


def _everybody_may_read(path: Path) -> bool:
    return all(one.stat().st_mode & 0o005 == 0o005 for one in (path, *path.parents))


def _everybodys_python() -> str:
    """A Python of this version that any user can run: this one, or the distribution's. "" when there is none."""
    if not all(map(_everybody_may_read, (Path(sys.prefix), Path(__file__).parent.parent))):
        return ""
    if _everybody_may_read(Path(sys.base_prefix)):
        return sys.executable
    ask = "import sys; print(sys.version_info[:2], sys.implementation.name)"
    with contextlib.suppress(OSError):
        said = subprocess.run(["/usr/bin/python3", "-c", ask], capture_output=True, text=True, check=False).stdout
        if said.strip() == f"{sys.version_info[:2]} {sys.implementation.name}":
            return "/usr/bin/python3"
    return ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")
@pytest.mark.skipif(not _everybodys_python(), reason="this Python or these files are for their owner alone")
def test_root_is_given_up_once_the_port_is_bound() -> None:
    directory = Path(tempfile.mkdtemp(prefix="inbound-user-"))
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(directory, nobody, -1)

    async def story() -> None:
        async with served(directory, settings="user: nobody\n", python=_everybodys_python()) as server:
            for pid in (server.process.pid, *server.workers):
                status = _status(pid)
                assert set(status["Uid"].split()) == {str(nobody)}
                assert "0" not in status["Groups"].split()
                assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
            assert (await server.send(1)).code == 250
            victim = server.workers[0]
            os.kill(victim, signal.SIGKILL)  # the supervisor still can start another one
            await server.until_workers(2, other_than=victim)
            assert (await server.send(2)).code == 250
            assert len(server.stored) == 2

    try:
        asyncio.run(story())
    finally:
        shutil.rmtree(directory)


def test_a_data_directory_that_cannot_be_is_said_before_any_worker_starts(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("this is no directory")
    config = _configured(tmp_path, _free_port(), "127.0.0.1:9")
    ended = subprocess.run(
        [*_SERVE, str(config)], env=_environment(), capture_output=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.decode().endswith("/data: cannot be used: File exists\n")


def test_a_user_that_is_not_there_is_a_mistake_in_user(tmp_path: Path) -> None:
    config = _configured(tmp_path, _free_port(), "127.0.0.1:9", settings="user: nobody-of-that-name\n")
    ended = subprocess.run(
        [*_SERVE, str(config)], env=_environment(), capture_output=True, timeout=PATIENCE, check=False
    )
    assert (ended.returncode, ended.stderr.decode()) == (2, "user: there is no user 'nobody-of-that-name'\n")
