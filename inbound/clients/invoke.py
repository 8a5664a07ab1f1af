"""Lambda functions that run here: commands and Python files in child processes, and Lambda's Invoke over HTTP for them.

1. A function is a command that reads the event as JSON on stdin and writes its answer as JSON on stdout, or
   `FILE.py:HANDLER`, called as Lambda calls it. A non-zero exit is a function error.
2. A call has a deadline. When it is over, or the answer grows too long, the whole process group is killed.
3. `Endpoint` speaks `POST /2015-03-31/functions/NAME/invocations` (RequestResponse 200, Event 202, DryRun 204), so that
   boto3 and everything else that speaks Lambda can be pointed at it.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import urllib.parse
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inbound.clients.reasons import COMMAND_MISSING, FUNCTION_MISSING
from inbound.errors import PermanentFailure

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds; SES waits that long for a RequestResponse function
LONGEST_ANSWER = 6 * 1024 * 1024  # octets; Lambda's limit for synchronous payloads
LONGEST_HEAD = 64 * 1024  # octets of an HTTP request's head
LONGEST_LOG = 16 * 1024  # octets of a function's stderr that are logged
AT_ONCE = 16  # functions that run side by side

_HANDLER = Path(__file__).with_name("handler.py")
_PYTHON_HANDLER = re.compile(r"(.+\.py):([A-Za-z_][A-Za-z0-9_]*)")
_FUNCTION = re.compile(
    r"(?:arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:|\d{12}:function:)?([A-Za-z0-9_-]+)(?::[A-Za-z0-9$_-]+)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a function answered: its JSON, and "" or `Unhandled` when it failed (X-Amz-Function-Error)."""

    payload: bytes
    error: str = ""


def function_name(function: str) -> str:
    """The bare name in a name, `NAME:QUALIFIER`, partial or full ARN; "" when it is none of these."""
    match = _FUNCTION.fullmatch(function)
    return match.group(1) if match else ""


class Runner:
    """The functions there are, by name. `patience` is seconds for each call."""

    def __init__(
        self, functions: Mapping[str, Sequence[str]], *, account: str, region: str, patience: float = PATIENCE
    ) -> None:
        self._commands = {name: _command(command) for name, command in functions.items()}
        self._account, self._region, self._patience = account, region, patience
        self._room = asyncio.Semaphore(AT_ONCE)

    def require(self, function: str) -> str:
        """The bare name of a function that is there. Raises PermanentFailure."""
        name = function_name(function)
        if name not in self._commands:
            raise PermanentFailure(FUNCTION_MISSING, f"the settings have no function {name or function!r}")
        return name

    def try_function(self, function: str) -> None:
        """Is it there, and is its command? Raises PermanentFailure; nothing runs."""
        command = self._commands[self.require(function)]
        if not command or shutil.which(command[0]) is None:
            raise PermanentFailure(COMMAND_MISSING, f"{command[0] if command else function} is no program")
        if len(command) > 1 and command[1] == str(_HANDLER) and not Path(command[2]).is_file():
            raise PermanentFailure(COMMAND_MISSING, f"{command[2]} is not there")

    async def run(self, function: str, payload: bytes) -> Answer:
        """Call a function and wait for it, no longer than its patience. Raises PermanentFailure when there is none."""
        name = self.require(function)
        async with self._room:
            return await self._call(name, payload)

    async def _call(self, name: str, payload: bytes) -> Answer:
        try:
            process = await self._start(name)
        except OSError as error:
            return _failed("Runtime.InvalidEntrypoint", f"{self._commands[name][0]}: {error.strerror}")
        try:
            async with asyncio.timeout(self._patience):
                answer, errors, _ = await asyncio.gather(
                    _answer(process.stdout), _log(process.stderr), _feed(process.stdin, payload)
                )
                status = await process.wait()
        except TimeoutError:
            return _failed("Sandbox.Timedout", f"Task timed out after {self._patience:.2f} seconds")
        except _TooLong:
            return _failed("Function.ResponseSizeTooLarge", f"more than {LONGEST_ANSWER} octets")
        finally:
            if process.returncode is None:
                await _kill(process)
        if errors:
            log.info("function %s: %s", name, errors.decode("utf-8", "replace").rstrip())
        if status:
            return (
                Answer(payload=answer, error="Unhandled") if answer else _failed("Runtime.ExitError", f"exit {status}")
            )
        return Answer(payload=answer)

    async def _start(self, name: str) -> asyncio.subprocess.Process:
        """The process, whole: cancelled half-way, asyncio would leave it and its pipes behind."""
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *self._commands[name],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env=self._environment(name),
            )
        )
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                await _kill(await starting)
            raise

    def _environment(self, name: str) -> dict[str, str]:
        """The environment without our own secrets, with what Lambda tells its functions."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("INBOUND_")}
        arn = f"arn:aws:lambda:{self._region}:{self._account}:function:{name}"
        return {
            "AWS_REGION": self._region,
            **inherited,
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "INVOKED_FUNCTION_ARN": arn,
            "AWS_REQUEST_ID": str(uuid.uuid4()),
            "FUNCTION_TIMEOUT_SECONDS": f"{self._patience:g}",
        }


def _command(command: Sequence[str]) -> tuple[str, ...]:
    match = _PYTHON_HANDLER.fullmatch(command[0]) if len(command) == 1 else None
    if match:
        return (sys.executable, str(_HANDLER), *match.groups())
    return tuple(command)


def _failed(kind: str, message: str) -> Answer:
    return Answer(payload=json.dumps({"errorType": kind, "errorMessage": message}).encode(), error="Unhandled")


class _TooLong(Exception):
    """A function answers more than is taken."""


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End the whole group. A grandchild that left it may hold the pipes; it is not waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5.0):
            await process.wait()


async def _answer(stream: asyncio.StreamReader | None) -> bytes:
    octets = bytearray()
    while stream and (chunk := await stream.read(65_536)):
        octets += chunk
        if len(octets) > LONGEST_ANSWER:
            raise _TooLong
    return bytes(octets)


async def _log(stream: asyncio.StreamReader | None) -> bytes:
    """The beginning of what a function logs; the rest is read and dropped."""
    octets = bytearray()
    while stream and (chunk := await stream.read(65_536)):
        octets += chunk[: LONGEST_LOG - len(octets)]
    return bytes(octets)


async def _feed(stream: asyncio.StreamWriter | None, payload: bytes) -> None:
    if stream is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may answer without reading
        stream.write(payload)
        await stream.drain()
        stream.close()
        await stream.wait_closed()


class Endpoint:
    """Lambda's Invoke on a loopback port: `async with Endpoint(runner) as endpoint: endpoint.url`."""

    def __init__(self, runner: Runner, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._runner, self._host, self._port = runner, host, port
        self._running: set[asyncio.Task[Any]] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._called, self._host, self._port, limit=LONGEST_HEAD)
        self.url = "http://{}:{}".format(*self._server.sockets[0].getsockname()[:2])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        while self._running:  # an answer may have left a function that runs after
            await asyncio.gather(*self._running, return_exceptions=True)

    def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(2 * PATIENCE):
                request = await _request(reader)
                writer.write(await self._answer(*request) if request else _response(400))
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            log.info("a caller of the Invoke endpoint went away")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, method: str, path: str, kind: str, body: bytes | None) -> bytes:
        match = re.fullmatch(r"/2015-03-31/functions/([^/]+)/invocations", path.partition("?")[0])
        if method != "POST" or match is None:
            return _error(404, "UnknownOperationException", "only Invoke is answered here")
        if body is None:
            return _error(413, "RequestTooLargeException", f"more than {LONGEST_ANSWER} octets")
        function = urllib.parse.unquote(match.group(1))
        try:
            self._runner.require(function)
        except PermanentFailure:
            return _error(404, "ResourceNotFoundException", f"Function not found: {function}")
        match kind:
            case "Event":
                self._keep(self._runner.run(function, body))
                return _response(202)
            case "DryRun":
                return _response(204)
            case _:
                answer = await self._runner.run(function, body)
                return _response(200, answer.payload, **{"X-Amz-Function-Error": answer.error} if answer.error else {})


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, str, bytes | None] | None:
    """Method, path, invocation type and body (None: too long). None when it is no HTTP."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None
    lines = head.decode("latin-1").split("\r\n")
    method, _, rest = lines[0].partition(" ")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = fields.get("content-length", "0")
    if not rest.endswith(" HTTP/1.1") or not length.isdecimal():
        return None
    fits = int(length) <= LONGEST_ANSWER
    body = await reader.readexactly(int(length)) if fits else None
    return method, rest.removesuffix(" HTTP/1.1"), fields.get("x-amz-invocation-type", "RequestResponse"), body


_REASONS = {200: "OK", 202: "Accepted", 204: "No Content", 400: "Bad Request", 404: "Not Found", 413: "Too Large"}


def _response(status: int, body: bytes = b"", **fields: str) -> bytes:
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **fields}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {_REASONS[status]}\r\n{head}\r\n".encode("latin-1") + body


def _error(status: int, kind: str, message: str) -> bytes:
    body = json.dumps({"Type": "User", "Message": message}).encode()
    return _response(status, body, **{"x-amzn-ErrorType": kind})
