"""Connections to services: kept, strict about answers, with deadlines; against a service that does what none should."""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from inbound.clients.http1 import Connections, CutOff, NotReached, origin_of
from inbound.clients.http_answers import LONGEST_CONTENT, Answer, NotUnderstood, Reader
from tests.scripted import Act, Early, Last, Script, answer, scripted

HEAD = b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"
FINE = answer(200, "fine")


def connections(*, read: float = 5.0, most: int = 32, trust: Callable[[], ssl.SSLContext] | None = None) -> Connections:
    return Connections(trust or ssl.create_default_context, connect=3, read=read, most=most)


def talk(
    *acts: Any, times: int = 1, tls: ssl.SSLContext | None = None, **more: Any
) -> tuple[list[Answer | BaseException], Script]:
    """The answers to so many requests, one after the other."""

    async def story() -> tuple[list[Answer | BaseException], Script]:
        async with scripted(*acts, tls=tls) as script:
            one = connections(**more)
            answers: list[Answer | BaseException] = []
            for _ in range(times):
                try:
                    answers.append(await one.request(origin_of(script.url), HEAD, b"abc"))
                except OSError as error:
                    answers.append(error)
                await asyncio.sleep(0.01)  # an end that follows an answer is known by the next request
            await one.close()
            return answers, script

    return asyncio.run(story())


def test_requests_follow_each_other_on_one_connection() -> None:
    answers, script = talk(FINE, FINE, FINE, times=3)
    assert [Answer(status=200, fields={"content-length": "4"}, content=b"fine")] * 3 == answers
    assert [(one.line, one.content) for one in script.asked] == [("PUT / HTTP/1.1", b"abc")] * 3
    assert script.connections == 1


@pytest.mark.parametrize(
    "act",
    [
        Last(FINE),
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nContent-Length: 4\r\n\r\nfine",
        b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfine",
        Last(b"HTTP/1.1 200 OK\r\n\r\nfine"),
        FINE + b"more than was asked",
    ],
)
def test_a_connection_that_ends_or_says_so_is_not_used_again(act: bytes | Last) -> None:
    answers, script = talk(act, FINE, times=2)
    assert [one.content if isinstance(one, Answer) else one for one in answers] == [b"fine", b"fine"]
    assert script.connections == 2


@pytest.mark.parametrize(
    ("octets", "content"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n2;x=y\r\nne\r\n0\r\n\r\n", b"fine"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n4\r\nfine\r\n0\r\nX: y\r\n\r\n", b"fine"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 X\r\nA: b\r\n\r\n" + FINE, b"fine"),
        (b"HTTP/1.1 204 No\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length:   4  \r\nA:\r\nA: b\r\n\r\nfine", b"fine"),
    ],
)
def test_an_answer_is_read_however_it_is_cut(octets: bytes, content: bytes) -> None:
    answers, script = talk(octets, octets, times=2)
    assert [one.content if isinstance(one, Answer) else one for one in answers] == [content] * 2
    assert script.connections == 1
    for cut in range(1, len(octets)):
        reader, buffer = Reader(), bytearray(octets[:cut])
        assert reader.read(buffer) is None
        buffer += octets[cut:]
        read = reader.read(buffer)
        assert read is not None
        assert (read.content, bytes(buffer)) == (content, b"")


@pytest.mark.parametrize(
    "octets",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"SMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nfine",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nfine",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nfi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfine\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent Length: 4\r\n\r\nfine",
        b"HTTP/1.1 200 OK\r\n folded: 4\r\n\r\nfine",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LONGEST_CONTENT + 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (LONGEST_CONTENT + 1),
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000,
    ],
)
def test_what_is_no_answer_is_not_taken_for_one(octets: bytes) -> None:
    (first, second), script = talk(octets, FINE, times=2)
    assert isinstance(first, NotUnderstood)
    assert isinstance(second, Answer)
    assert script.connections == 2


LINES = [
    b"HTTP/1.1 200 OK",
    b"\r\n",
    b"\r\n\r\n",
    b"Content-Length: 3",
    b"Transfer-Encoding: chunked",
    b"3",
    b"0",
    b":",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(LINES) | st.binary(max_size=9), max_size=12))
def test_any_octets_are_an_answer_or_not_understood_or_wait_for_more(pieces: list[bytes]) -> None:
    reader, buffer = Reader(), bytearray()
    for piece in pieces:
        buffer += piece
        try:
            if reader.read(buffer) is not None:
                return
        except NotUnderstood:
            return


@pytest.mark.parametrize("act", [Act.CLOSE_BEHIND, Act.RESET, Last(FINE[:-1]), Last(b"HTTP/1.1 200 OK\r\nContent-Le")])
def test_an_answer_that_is_cut_off_is_none(act: Act | Last) -> None:
    (first, second), _ = talk(act, FINE, times=2)
    assert isinstance(first, CutOff)
    assert not first.untouched
    assert isinstance(second, Answer)


def test_a_kept_connection_that_ends_instead_of_an_answer_is_told_apart() -> None:
    (_, second), _ = talk(FINE, Act.CLOSE_BEHIND, times=2)
    assert isinstance(second, CutOff)
    assert second.untouched


def test_a_service_that_is_silent_is_given_up_on_and_one_that_sends_slowly_is_not() -> None:
    (first, second), _ = talk(Act.SILENT, FINE, times=2, read=0.2)
    assert isinstance(first, TimeoutError)
    assert isinstance(second, Answer)

    ended = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"abc")
        for octet in FINE:
            writer.write(bytes([octet]))
            await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        ended.set()

    async def story() -> Answer:
        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        one = connections(read=0.15)
        read = await one.request(origin_of(url), HEAD, b"abc")
        await one.close()
        await ended.wait()
        server.close()
        await server.wait_closed()
        return read

    started = time.monotonic()
    assert asyncio.run(story()).content == b"fine"
    assert time.monotonic() - started > 0.3


def test_an_answer_before_the_content_was_sent_counts() -> None:
    content = b"x" * 20_000_000
    head = HEAD.replace(b": 3\r", b": 20000000\r")

    async def story() -> Answer:
        async with scripted(Early(answer(403, "no"))) as script:
            one = connections()
            read = await one.request(origin_of(script.url), head, content)
            await one.close()
            return read

    assert asyncio.run(story()).status == 403


def test_large_content_arrives_whole() -> None:
    content = bytes(range(256)) * 40_000
    head = HEAD.replace(b": 3\r", b": %d\r" % len(content))

    async def story() -> bytes:
        async with scripted() as script:
            one = connections()
            await one.request(origin_of(script.url), head, memoryview(content))
            await one.close()
            return script.asked[0].content

    assert content == asyncio.run(story())


def test_no_more_connections_than_allowed_are_open_and_all_requests_are_answered() -> None:
    async def story() -> tuple[int, int]:
        async with scripted() as script:
            one = connections(most=3)
            answers = await asyncio.gather(*[one.request(origin_of(script.url), HEAD, b"abc") for _ in range(40)])
            await one.close()
            return script.connections, len(answers)

    assert asyncio.run(story()) == (3, 40)


def test_a_request_that_is_cancelled_ends_its_connection_and_no_other_gets_its_answer() -> None:
    async def story() -> tuple[int, bytes]:
        async with scripted(Act.SILENT, answer(200, "mine")) as script:
            one = connections(most=1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await one.request(origin_of(script.url), HEAD, b"abc")
            read = await one.request(origin_of(script.url), HEAD, b"abc")
            await one.close()
            return script.connections, read.content

    assert asyncio.run(story()) == (2, b"mine")


def test_what_nobody_asked_for_ends_the_connection() -> None:
    (first, second), script = talk(FINE + answer(200, "smuggled"), FINE, times=2)
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert (first.content, second.content, script.connections) == (b"fine", b"fine", 2)


def run(awaitable: Awaitable[Any]) -> Any:
    async def story() -> Any:
        return await awaitable

    return asyncio.run(story())


def test_where_nobody_listens_or_no_name_is_nothing_is_reached() -> None:
    for url in ("http://127.0.0.1:1", "http://no-such-name.invalid"):
        with pytest.raises(NotReached):
            run(connections().request(origin_of(url), HEAD, b"abc"))


def test_the_next_address_is_tried_when_one_takes_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def addresses(_: str, port: int, *__: Any, **___: Any) -> list[Any]:
        kind = (socket.SOCK_STREAM, 6, "")
        return [(socket.AF_INET6, *kind, ("::1", port, 0, 0)), (socket.AF_INET, *kind, ("127.0.0.1", port))]

    async def story() -> Answer:
        async with scripted() as script:
            monkeypatch.setattr(socket, "getaddrinfo", addresses)
            one = connections()
            read = await one.request(origin_of(script.url.replace("127.0.0.1", "service.example")), HEAD, b"abc")
            await one.close()
            return read

    assert asyncio.run(story()).status == 200


def certified(name: str) -> tuple[ssl.SSLContext, Callable[[], ssl.SSLContext]]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, lambda: client


def test_tls_is_spoken_with_who_has_the_name_s_certificate_only() -> None:
    server, trust = certified("localhost")
    (fine, again), script = talk(FINE, FINE, times=2, tls=server, trust=trust)
    assert isinstance(fine, Answer)
    assert isinstance(again, Answer)
    assert script.connections == 1
    other, trust = certified("another.example")
    (refused,), _ = talk(FINE, tls=other, trust=trust)
    assert isinstance(refused, ssl.SSLCertVerificationError)
    (untrusted,), _ = talk(FINE, tls=server)
    assert isinstance(untrusted, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("url", ["ftp://h/", "http:///x", "http://user@h/", "h:80"])
def test_what_is_no_place_is_said_to_be_none(url: str) -> None:
    with pytest.raises(ValueError, match="no place"):
        origin_of(url)
