"""A POST goes where it was looked at to go, with its certificate checked, and nowhere else."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from inbound.clients import web
from inbound.clients.reasons import TIMED_OUT, UNREACHABLE
from inbound.clients.web import Place, is_public, place_of, post
from inbound.errors import Failure, PermanentFailure, TemporaryFailure


@asynccontextmanager
async def service(answer: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A service that answers so, or not at all; and what it was sent."""
    seen: list[bytes] = []
    calls: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            seen.append(head + await reader.readexactly(length))
            writer.write(await reader.read() if answer is None else answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the caller has seen enough
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(asyncio.ensure_future(serve(reader, writer)))

    async with await asyncio.start_server(called, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1], seen
        await asyncio.gather(*calls)


def call(answer: bytes, *, seconds: float = 10.0) -> tuple[int, list[bytes]]:
    async def story() -> tuple[int, list[bytes]]:
        async with service(answer) as (port, seen):
            url = f"http://127.0.0.1:{port}/hook?a=b"
            status = await post(url, b"body", {"X-A": "b"}, allow_private=True, seconds=seconds)
            return status, seen

    return asyncio.run(story())


def test_a_call_is_one_post_and_2xx_is_success() -> None:
    status, seen = call(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    assert status == 204
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert (lines[0], body) == ("POST /hook?a=b HTTP/1.1", b"body")
    assert {"X-A: b", "Content-Length: 4", "Connection: close"} <= set(lines)


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", PermanentFailure, web.REDIRECTED),
        (b"HTTP/1.1 304\r\n\r\n", PermanentFailure, web.REDIRECTED),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", PermanentFailure, web.REFUSED),
        (b"HTTP/1.1 410 Gone\r\n\r\n", PermanentFailure, web.REFUSED),
        (b"HTTP/1.1 408 Timeout\r\n\r\n", TemporaryFailure, web.WAITS),
        (b"HTTP/1.1 429 Too Many\r\n\r\n", TemporaryFailure, web.WAITS),
        (b"HTTP/1.1 500 Oops\r\n\r\n", TemporaryFailure, web.WAITS),
        (b"SSH-2.0-OpenSSH\r\n", PermanentFailure, web.NO_HTTP),
        (b"", TemporaryFailure, UNREACHABLE),
        (b"x" * 100_000 + b"\r\n", TemporaryFailure, UNREACHABLE),
    ],
)
def test_every_other_answer_is_a_failure_and_no_redirect_is_followed(
    answer: bytes, kind: type[Failure], reason: str
) -> None:
    with pytest.raises(kind) as caught:
        call(answer)
    assert reason == caught.value.reason


def test_a_service_that_never_answers_is_given_up_on() -> None:
    async def story() -> None:
        async with service(None) as (port, _):
            await post(f"http://127.0.0.1:{port}/", b"", {}, allow_private=True, seconds=0.2)

    with pytest.raises(TemporaryFailure) as caught:
        asyncio.run(story())
    assert caught.value.reason == TIMED_OUT


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:10.0.0.1]"])
def test_what_leads_to_a_private_address_is_refused_before_anything_is_sent(host: str) -> None:
    async def story() -> list[bytes]:
        async with service(b"HTTP/1.1 200 OK\r\n\r\n") as (port, seen):
            with pytest.raises(PermanentFailure) as caught:
                await post(f"http://{host}:{port}/", b"", {}, allow_private=False, seconds=5)
            assert caught.value.reason == web.NOT_ALLOWED
            return seen

    assert asyncio.run(story()) == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fd00::1", False),
        ("fe80::1%eth0", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::1", False),
    ],
)
def test_addresses_that_only_we_could_reach_are_known_in_every_form(address: str, public: bool) -> None:
    assert public == is_public(address)


def test_the_certificate_is_checked_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def story(name: str) -> int:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(tls)
        async with service(b"HTTP/1.1 200 OK\r\n\r\n", tls) as (port, _):
            return await post(f"https://localhost:{port}/", b"", {}, allow_private=True, seconds=10)

    web._trust.cache_clear()
    with pytest.raises(PermanentFailure) as unknown:
        asyncio.run(story("localhost"))
    assert unknown.value.reason == web.NOT_TRUSTED
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    web._trust.cache_clear()
    assert asyncio.run(story("localhost")) == 200
    with pytest.raises(PermanentFailure) as other:
        asyncio.run(story("other.example"))
    assert other.value.reason == web.NOT_TRUSTED
    web._trust.cache_clear()


def test_a_name_that_does_not_resolve_may_do_so_later() -> None:
    with pytest.raises(TemporaryFailure) as caught:
        asyncio.run(post("https://nobody.invalid/", b"", {}, allow_private=False, seconds=10))
    assert caught.value.reason in {UNREACHABLE, TIMED_OUT}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example", Place(tls=True, host="a.example", port=443, target="/")),
        ("https://A.example:8443/x?y=z#f", Place(tls=True, host="a.example", port=8443, target="/x?y=z")),
        ("http://[2001:db8::1]/x", Place(tls=False, host="2001:db8::1", port=80, target="/x")),
    ],
)
def test_a_url_is_taken_apart(url: str, expected: Place) -> None:
    assert expected == place_of(url)


@pytest.mark.parametrize(
    "url",
    ["", "a.example", "ftp://a.example", "https://", "https://u:p@a.example", "https://a b/", "https://a.example/\r\nX: y",
     "https://a.example:99999/", "https://a..example/"],
)  # fmt: skip
def test_what_is_no_url_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|host|[Pp]ort"):
        place_of(url)
