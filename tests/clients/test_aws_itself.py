"""What boto3 does at AWS's own endpoints alone (a host for each bucket, TLS, checksums behind the content), before moto."""

import asyncio
import contextlib
import os
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from inbound.clients import Terms
from inbound.clients.aws import AwsCloud
from inbound.clients.aws_parts import PART
from tests.aws import bucket, client, kms_key

LARGE = os.urandom(PART + 5)


class Front:
    """TLS for AWS's names before moto: what every request began with."""

    def __init__(self, behind: str) -> None:
        self._behind = urlsplit(behind)
        self.heads: list[str] = []
        self.talking: set[asyncio.Task[None]] = set()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.talking.add(task)
        theirs, ours = await asyncio.open_connection(self._behind.hostname, self._behind.port)
        both = asyncio.gather(self._pass_on(reader, ours, self.heads), self._pass_on(theirs, writer, []))
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await both
        for one in (writer, ours):
            one.transport.abort()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await one.wait_closed()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heads: list[str]) -> None:
        while octets := await reader.read(1 << 16):
            if octets.startswith((b"PUT ", b"POST ")):
                heads.append(octets.partition(b"\r\n\r\n")[0].decode("ascii").lower())
            writer.write(octets)
            await writer.drain()
        writer.close()


def story(aws: str, directory: Path, monkeypatch: pytest.MonkeyPatch, work: Any) -> list[str]:
    authority, server, front = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Front(aws)
    authority.issue_cert("*.s3.amazonaws.com", "kms.us-east-1.amazonaws.com").configure_cert(server)
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(directory / "ca.pem"))
    resolve = socket.getaddrinfo

    async def run() -> None:
        listening = await asyncio.start_server(front.talk, "127.0.0.1", 0, ssl=server)
        port = listening.sockets[0].getsockname()[1]

        def addresses(host: Any, *args: Any, **more: Any) -> Any:
            if str(host).endswith(".amazonaws.com"):
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
            return resolve(host, *args, **more)

        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        async with AwsCloud(region="us-east-1") as cloud:
            await work(cloud)
        listening.close()
        for task in front.talking:
            task.cancel()
        await asyncio.wait(front.talking)
        await listening.wait_closed()
        await asyncio.sleep(0.01)  # transports that were aborted end in the next turns

    asyncio.run(run())
    return front.heads


def test_the_first_call_shows_the_way_and_the_others_go_it(
    aws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, key = bucket(aws), kms_key(aws)

    async def work(cloud: AwsCloud) -> None:
        for number in range(3):
            assert await cloud.put(name, f"../a b//{number}", b"m%d" % number, metadata={"a": "b"}) is True
            made = await cloud.generate_data_key(key, {"a": "ü"})
            assert made.plaintext == await cloud.decrypt_data_key(made.wrapped, {"a": "ü"})
        assert await cloud.put(name, "../a b//1", b"another", metadata={}) is False
        assert (await cloud.get(name, "../a b//1")).body == b"m1"
        assert cloud.counters.direct_calls == 2 + 2 + 1

    heads = [one for one in story(aws, tmp_path, monkeypatch, work) if one.startswith("put ")]
    assert [f"host: {name}.s3.amazonaws.com" in one for one in heads] == [True] * 4
    assert ["x-amz-trailer: x-amz-checksum-crc32" in one for one in heads] == [True, False, False, False]
    assert ["x-amz-checksum-crc32: " in one for one in heads] == [False, True, True, True]
    assert ["x-amz-content-sha256: unsigned-payload" in one for one in heads] == [False, True, True, True]


def test_parts_have_their_checksums_and_the_condition_is_on_the_last_step(
    aws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = bucket(aws)
    terms = Terms(content_type="message/rfc822", tags={"a": "b"})

    async def work(cloud: AwsCloud) -> None:
        assert await cloud.put(name, "k", LARGE, metadata={"a": "b"}, terms=terms) is True
        assert await cloud.put(name, "k", LARGE[::-1], metadata={}) is False
        assert (await cloud.get(name, "k")).body == LARGE

    begun, first, second, end, *_ = story(aws, tmp_path, monkeypatch, work)
    assert "x-amz-checksum-algorithm: crc32" in begun
    assert ["x-amz-trailer: x-amz-checksum-crc32" in one for one in (first, second)] == [True, True]
    assert ["if-none-match: *" in one for one in (begun, first, second, end)] == [False, False, False, True]
    found = client("s3", aws).head_object(Bucket=name, Key="k")
    assert (found["ContentType"], found["Metadata"]) == ("message/rfc822", {"a": "b"})
    assert "Uploads" not in client("s3", aws).list_multipart_uploads(Bucket=name)
