"""Judging messages from files: the path of a message without side effects, for `inbound check` (design 11)."""

import asyncio
import base64
import binascii
import json
import math
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from inbound.addresses import a_labels
from inbound.mail import Client, Headers, Mail, Tls
from inbound.samples import crlf
from inbound.schema import keys

LARGEST = 256 * 1024 * 1024  # octets of one message file
LONGEST_LINE = 512 * 1024 * 1024  # of a batch: a message in base64 and its envelope
ROOM = 8 * 1024 * 1024  # octets of a batch's messages under way at a time; a larger one goes through alone

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@keys
class Request:
    """One message to be judged. All but `path` may be left out; `raw` is the message in base64 instead of a file.

    Without `mail_from` it is Return-Path's address, else the author's; without any of `rcpt_to` it is the addresses of To and Cc.
    """

    path: str = "-"
    raw: str | None = None
    client_ip: str = "127.0.0.1"
    helo: str = "localhost"
    mail_from: str | None = None
    rcpt_to: tuple[str, ...] | None = None
    tls: bool = False
    now: float | None = None


class RequestError(ValueError):
    """A request that cannot be judged at all: the text says why, `path` what it was about, as far as that is known."""

    path: str | None = None


def request_of(line: bytes) -> Request:
    """The request in one line of JSON. Raises RequestError."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:  # no UTF-8, too, and a number of too many digits
        raise RequestError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RequestError("not a JSON object")
    try:
        return _request(document)
    except RequestError as error:
        error.path = document["path"] if isinstance(document.get("path"), str) else None
        raise


def _request(document: dict[str, Any]) -> Request:
    unknown = sorted(set(document) - set(Request.__dataclass_fields__))
    if unknown:
        raise RequestError(f"unknown key {unknown[0]!r}; there are {', '.join(Request.__dataclass_fields__)}")
    if "path" not in document and "raw" not in document:
        raise RequestError("neither 'path' nor 'raw' is given")
    try:
        request = Request(**document)
    except ValueError as error:
        first = str(error).splitlines()
        raise RequestError(" ".join(part.strip() for part in first[1:3])) from error
    if request.now is not None and not math.isfinite(request.now):
        raise RequestError("'now' is no time")
    return request


def size_of(request: Request) -> int:
    """How many octets the message's file has, 0 when that cannot be told without reading it."""
    try:
        return Path(request.path).stat().st_size
    except (OSError, ValueError):
        return 0


def octets_of(request: Request, *, as_is: bool, stdin: Callable[[], bytes]) -> bytes:
    """The message, with CRLF line ends unless it is wanted as it is. Raises RequestError."""
    if request.raw is not None:
        try:
            raw = base64.b64decode(request.raw, validate=True)
        except binascii.Error as error:
            raise RequestError(f"'raw' is not base64: {error}") from error
    elif request.path == "-":
        raw = stdin()
    else:
        raw = _read(request.path)
    return raw if as_is else crlf(raw)


def _read(path: str) -> bytes:
    try:
        status = Path(path).stat()
        content = _octets(path) if stat.S_ISREG(status.st_mode) else None
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if content is None:  # a device or a pipe may never end
        raise RequestError(f"{path} is no regular file")
    if len(content) > LARGEST:
        raise RequestError(f"{path} has {status.st_size} octets, at most {LARGEST} are read")
    return content


def _octets(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(LARGEST + 1)


def mail_of(request: Request, raw: bytes, *, domains: Iterable[str], now: float) -> Mail:
    """The request as a mail that was received, without an id yet. Raises RequestError."""
    try:
        ip = ip_address(request.client_ip)
    except ValueError as error:
        raise RequestError(f"'client_ip' is no IP address: {request.client_ip!r}") from error
    headers = Headers.of(raw)
    mail_from = request.mail_from if request.mail_from is not None else _sender(headers)
    rcpt_to = request.rcpt_to or _recipients(headers, tuple(domains))
    return Mail(
        raw=raw,
        headers=headers,
        client=Client(ip=ip, helo=request.helo, tls=Tls(version="TLSv1.3", cipher="") if request.tls else None),
        mail_from=mail_from.strip("<>"),
        rcpt_to=rcpt_to,
        received_at=request.now if request.now is not None else now,
        message_id="",
        smtputf8=not (mail_from.isascii() and all(recipient.isascii() for recipient in rcpt_to)),
    )


def _sender(headers: Headers) -> str:
    return_path = headers.first("Return-Path")
    if return_path is not None:
        return return_path.value.strip("<> ")
    return next((box.address for box in headers.mailboxes("From") if box.address), "")


def _recipients(headers: Headers, domains: tuple[str, ...]) -> tuple[str, ...]:
    named = tuple(box.address for name in ("To", "Cc") for box in headers.mailboxes(name) if a_labels(box.domain))
    return named or (f"postmaster@{domains[0].lstrip('.')}" if domains else "postmaster",)


class Room:
    """So many octets of messages are under way at a time, so that a batch's memory does not depend on what is in it."""

    def __init__(self, octets: int) -> None:
        self._octets = octets
        self._used = 0
        self._change = asyncio.Condition()

    async def take(self, octets: int) -> int:
        """Wait until there is room for these, or nothing else there. Returns what was taken."""
        async with self._change:
            await self._change.wait_for(lambda: not self._used or self._used + octets <= self._octets)
            self._used += octets
        return octets

    async def leave(self, octets: int) -> None:
        """Give it back."""
        async with self._change:
            self._used -= octets
            self._change.notify_all()

    async def vacancy(self) -> None:
        """Wait until it is not full."""
        async with self._change:
            await self._change.wait_for(lambda: self._used < self._octets)


async def in_order(
    items: AsyncIterator[Item], work: Callable[[Item], Awaitable[Outcome]], *, jobs: int
) -> AsyncIterator[Outcome]:
    """What `work` makes of each item, in the order of the items, with at most `jobs` of them under way or waiting."""
    waiting: asyncio.Queue[asyncio.Task[Outcome] | None] = asyncio.Queue(maxsize=jobs)

    async def feed() -> None:
        try:
            async for item in items:
                task = asyncio.ensure_future(work(item))
                del item  # it may be large, and the task lets go of it
                await waiting.put(task)
        finally:
            await waiting.put(None)

    feeding = asyncio.ensure_future(feed())
    try:
        while (task := await waiting.get()) is not None:
            yield await task
        await feeding
    finally:
        feeding.cancel()
