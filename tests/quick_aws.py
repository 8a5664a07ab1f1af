"""A small, fast S3, KMS and STS over HTTP that checks every signature: to measure our own share of a call, and for what moto's
server is too slow or too lenient for. `python -m tests.quick_aws [PORT]` serves until it is killed.

Written from the documents (IAM User Guide, "Create a signed AWS API request"; the API references), with nothing of
`inbound.clients.sigv4` in it: what it lets pass was signed as AWS asks for it.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

ACCESS, SECRET = "test", "test"
SKEW = timedelta(minutes=15)
KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000001"


@dataclass
class Said:
    """An answer."""

    status: int
    content: bytes = b""
    fields: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """An answer that ends the matter."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(f"{status} {code} {message}")


@dataclass(kw_only=True)
class Asked:
    """A request that was read."""

    method: str
    path: str
    query: str
    fields: Mapping[str, str]
    content: bytes


class QuickAws:
    """The services. `keep` false remembers nothing: every object is new."""

    def __init__(self, *, keep: bool = True) -> None:
        self.keep = keep
        self.secrets = {ACCESS: (SECRET, "")}  # by access key: the secret and the session token
        self.objects: dict[str, tuple[bytes, Mapping[str, str]]] = {}
        self.asked: list[Asked] = []
        self.counts: dict[str, int] = {}
        self.open: set[Any] = set()  # transports
        self.role_seconds = [3600.0]  # how long the next roles are assumed for; the last one stays
        self._keys: dict[tuple[str, ...], bytes] = {}

    def answer(self, asked: Asked) -> Said:
        """What is said to a request."""
        if self.keep:
            self.asked.append(asked)
        try:
            service = self._verified(asked)
            self.counts[service] = self.counts.get(service, 0) + 1
            return {"s3": self._s3, "kms": self._kms, "sts": self._sts}[service](asked)
        except Refused as refused:
            self.counts[refused.code] = self.counts.get(refused.code, 0) + 1
            if asked.fields.get("x-amz-target"):
                return Said(refused.status, json.dumps({"__type": refused.code, "Message": refused.message}).encode())
            text = f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>"
            if "form" in asked.fields.get("content-type", ""):
                text = f"<ErrorResponse>{text}</ErrorResponse>"
            return Said(refused.status, text.encode())

    def _verified(self, asked: Asked) -> str:
        """The service that the signature is for."""
        given = dict(
            part.strip().split("=", 1)
            for part in asked.fields.get("authorization", "").removeprefix("AWS4-HMAC-SHA256 ").split(",")
            if "=" in part
        )
        try:
            access, day, region, service, _ = given["Credential"].split("/")
            stamp = asked.fields["x-amz-date"]
            at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except (KeyError, ValueError):
            raise Refused(403, "AccessDenied", "no signature") from None
        if abs(at - datetime.now(UTC)) > SKEW:
            raise Refused(403, "RequestTimeTooSkewed")
        secret, token = self.secrets.get(access, ("", ""))
        if not secret or token != asked.fields.get("x-amz-security-token", ""):
            raise Refused(403, "InvalidAccessKeyId" if not secret else "InvalidToken")
        names = given.get("SignedHeaders", "").split(";")
        must = {"host", *(name for name in asked.fields if name.startswith("x-amz-"))}
        if names != sorted(names) or not must <= set(names):
            raise Refused(403, "SignatureDoesNotMatch", f"not signed: {sorted(must - set(names))}")
        payload = asked.fields.get("x-amz-content-sha256") or hashlib.sha256(asked.content).hexdigest()
        lines = [f"{name}:{' '.join(asked.fields.get(name, '').split())}" for name in names]
        query = "&".join(sorted(part if "=" in part else f"{part}=" for part in asked.query.split("&") if part))
        canonical = "\n".join([asked.method, asked.path, query, *lines, "", ";".join(names), payload])
        text = "\n".join(
            ["AWS4-HMAC-SHA256", stamp, f"{day}/{region}/{service}/aws4_request", _sha256(canonical.encode())]
        )
        expected = hmac.new(self._key(secret, day, region, service), text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, given.get("Signature", "")) or day != stamp[:8]:
            raise Refused(403, "SignatureDoesNotMatch")
        if "UNSIGNED" not in payload and payload != _sha256(asked.content):
            raise Refused(400, "XAmzContentSHA256Mismatch")
        checksum = asked.fields.get("x-amz-checksum-crc32")
        if checksum and checksum != base64.b64encode(zlib.crc32(asked.content).to_bytes(4, "big")).decode():
            raise Refused(400, "BadDigest")
        return service

    def _key(self, *scope: str) -> bytes:
        found = self._keys.get(scope)
        if found is None:
            found = b"AWS4" + scope[0].encode()
            for step in (*scope[1:], "aws4_request"):
                found = hmac.new(found, step.encode(), hashlib.sha256).digest()
            self._keys[scope] = found
        return found

    def _s3(self, asked: Asked) -> Said:
        there = self.objects.get(asked.path)
        if asked.query:
            raise Refused(501, "NotImplemented", asked.query)
        match asked.method:
            case "PUT":
                if asked.fields.get("if-none-match") == "*" and there is not None:
                    raise Refused(412, "PreconditionFailed")
                if self.keep:
                    self.objects[asked.path] = asked.content, asked.fields
                return Said(200, fields={"ETag": '"0"'})
            case "GET" | "HEAD":
                if there is None:
                    raise Refused(404, "NoSuchKey")
                kept = {
                    name: value for name, value in there[1].items() if name.startswith(("x-amz-meta-", "content-t"))
                }
                return Said(200, there[0], kept)
        raise Refused(405, "MethodNotAllowed")

    def _kms(self, asked: Asked) -> Said:
        wanted = json.loads(asked.content)
        context = json.dumps(wanted.get("EncryptionContext", {}), sort_keys=True)
        if asked.fields["x-amz-target"] == "TrentService.GenerateDataKey":
            nonce = os.urandom(16)
            plain = _plain(nonce, context)
            wrapped = base64.b64encode(nonce).decode()
            made = {"Plaintext": base64.b64encode(plain).decode(), "CiphertextBlob": wrapped, "KeyId": KEY_ARN}
            return Said(200, json.dumps(made).encode())
        plain = _plain(base64.b64decode(wanted["CiphertextBlob"]), context)
        return Said(200, json.dumps({"Plaintext": base64.b64encode(plain).decode(), "KeyId": KEY_ARN}).encode())

    def _sts(self, asked: Asked) -> Said:
        wanted = dict(parse_qsl(asked.content.decode()))
        if wanted.get("Action") != "AssumeRole":
            raise Refused(400, "InvalidAction")
        seconds = self.role_seconds.pop(0) if len(self.role_seconds) > 1 else self.role_seconds[0]
        access, secret, token = (f"{word}{len(self.secrets)}" for word in ("ASIA", "secret", "token"))
        self.secrets[access] = secret, token
        until = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        inner = (
            f"<AccessKeyId>{access}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>"
            f"<SessionToken>{token}</SessionToken><Expiration>{until}</Expiration>"
        )
        role = (
            f"<AssumedRoleUser><Arn>{wanted['RoleArn']}</Arn><AssumedRoleId>A:inbound</AssumedRoleId></AssumedRoleUser>"
        )
        name = "https://sts.amazonaws.com/doc/2011-06-15/"
        return Said(
            200,
            f'<AssumeRoleResponse xmlns="{name}"><AssumeRoleResult><Credentials>{inner}</Credentials>{role}'
            "</AssumeRoleResult></AssumeRoleResponse>".encode(),
        )


def _sha256(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


def _plain(nonce: bytes, context: str) -> bytes:
    return hashlib.sha256(nonce + context.encode()).digest()


class Talk(asyncio.Protocol):
    """One connection."""

    def __init__(self, aws: QuickAws) -> None:
        self._aws = aws
        self._buffer = bytearray()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._aws.open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._aws.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (asked := self._asked()) is not None:
            said = self._aws.answer(asked)
            fields = "".join(f"{name}: {value}\r\n" for name, value in said.fields.items())
            head = f"HTTP/1.1 {said.status} X\r\nContent-Length: {len(said.content)}\r\n{fields}\r\n".encode()
            self._transport.write(head if asked.method == "HEAD" else head + said.content)

    def _asked(self) -> Asked | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        fields = {name.lower(): value.strip() for name, _, value in pairs}
        if fields.pop("expect", ""):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._buffer[:end] = self._buffer[:end].replace(b"\r\nExpect: 100-continue", b"")
            return self._asked()
        size = int(fields.get("content-length", 0))
        if len(self._buffer) < end + 4 + size:
            return None
        content = bytes(self._buffer[end + 4 : end + 4 + size])
        del self._buffer[: end + 4 + size]
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        return Asked(method=method, path=path, query=query, fields=fields, content=content)


@contextmanager
def quick_aws(*, tls: Any = None) -> Iterator[tuple[str, QuickAws]]:
    """One in a thread of its own, and where it is."""
    aws, loop, ready = QuickAws(), asyncio.new_event_loop(), threading.Event()
    url: list[str] = []

    async def serve() -> None:
        server = await loop.create_server(lambda: Talk(aws), "127.0.0.1", 0, ssl=tls)
        url.append(f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        stop = loop.create_future()
        aws_stop.append(stop)
        ready.set()
        async with server:
            await stop
        for transport in tuple(aws.open):
            transport.abort()
        await asyncio.sleep(0.01)

    aws_stop: list[asyncio.Future[None]] = []
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(10)
    try:
        yield url[0], aws
    finally:
        loop.call_soon_threadsafe(aws_stop[0].set_result, None)
        thread.join()
        loop.close()


def main() -> None:
    """Serve for a measurement."""
    import uvloop  # noqa: PLC0415

    async def serve() -> None:
        aws = QuickAws(keep=False)
        loop = asyncio.get_running_loop()
        port = int(sys.argv[1]) if len(sys.argv) > 1 else 4599
        server = await loop.create_server(lambda: Talk(aws), "127.0.0.1", port, backlog=512)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201
        async with server:
            while True:
                await asyncio.sleep(2)
                print(aws.counts, flush=True)  # noqa: T201

    uvloop.run(serve())


if __name__ == "__main__":
    main()
