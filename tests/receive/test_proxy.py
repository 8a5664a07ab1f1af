"""The PROXY protocol: who the client is, said by a proxy that we trust, and by nobody else."""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from inbound.settings import Limits
from tests.receive.talk import FakeDoor, run, served, talking, until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(addresses)) + addresses


V4 = IPv4Address("203.0.113.9").packed + IPv4Address("192.0.2.1").packed + struct.pack("!HH", 4711, 25)
V6 = IPv6Address("2001:db8::9").packed + IPv6Address("2001:db8::1").packed + struct.pack("!HH", 4711, 25)
MAPPED = IPv6Address("::ffff:203.0.113.9").packed + IPv6Address("2001:db8::1").packed + struct.pack("!HH", 4711, 25)

LONGEST = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"  # a v1 header has 107 octets at most

TAKEN = {
    "v1 TCP4": (b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n", "203.0.113.9"),
    "v1 TCP6": (b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 25\r\n", "2001:db8::9"),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "v1 UNKNOWN with more": (b"PROXY UNKNOWN what ever\r\n", None),
    "v1 of 107 octets": (f"PROXY UNKNOWN {LONGEST} {LONGEST} 65535 65535\r\n".encode(), None),
    "v1 longest TCP6": (f"PROXY TCP6 {LONGEST} {LONGEST} 4711 65535\r\n".encode(), LONGEST),
    "v1 mapped": (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 25\r\n", "203.0.113.9"),
    "v2 IPv4": (v2(1, 0x11, V4), "203.0.113.9"),
    "v2 IPv4 with TLVs": (v2(1, 0x11, V4 + b"\x04\x00\x02ab"), "203.0.113.9"),
    "v2 IPv6": (v2(1, 0x21, V6), "2001:db8::9"),
    "v2 mapped": (v2(1, 0x21, MAPPED), "203.0.113.9"),
    "v2 LOCAL": (v2(0, 0x11, V4), None),
    "v2 LOCAL without an address": (v2(0, 0x11, b""), None),
    "v2 LOCAL UNSPEC": (v2(0, 0x00, b""), None),
    "v2 LOCAL with TLVs": (v2(0, 0x00, b"\x04\x00\x02ab"), None),
    "v2 UNSPEC": (v2(1, 0x00, b""), None),
    "v2 UNSPEC with octets": (v2(1, 0x00, b"x" * 40), None),
    "v2 with 64 KB of TLVs": (v2(1, 0x11, V4 + b"\xea\xff\xf0" + b"x" * 65_520), "203.0.113.9"),
    "v2 with broken TLVs": (v2(1, 0x11, V4 + b"\x04\xff\xff"), "203.0.113.9"),
    "v2 UNIX": (v2(1, 0x31, b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0")), None),
}


@pytest.mark.parametrize("slow", [False, True], ids=["at once", "octet by octet"])
@pytest.mark.parametrize(("header", "client"), TAKEN.values(), ids=TAKEN)
def test_a_trusted_proxy_says_who_the_client_is(header: bytes, client: str | None, slow: bool) -> None:
    door = FakeDoor()

    async def play() -> None:
        async with served(door, proxy=True, proxy_from=["127.0.0.1/8"]) as server, talking(server) as talk:
            step = max(len(header) // 300, 1) if slow else len(header)
            for octets in (header[at : at + step] for at in range(0, len(header), step)):
                talk.send(octets)
                await talk.writer.drain()
            await talk.begin()

    run(play())
    (received,) = door.opened
    if client:
        assert (received.client.ip, received.client.port) == (ip_address(client), 4711)
    else:
        assert received.client.ip == ip_address("127.0.0.1")
        assert received.client.port not in {0, 4711}


def test_the_proxy_may_send_the_first_commands_in_the_same_segment() -> None:
    async def play() -> list[str]:
        async with served(FakeDoor(), proxy=True, proxy_from=["127.0.0.0/8"]) as server, talking(server) as talk:
            talk.send(TAKEN["v2 IPv4"][0] + b"NOOP\r\nQUIT\r\n")
            return [await talk.line() for _ in range(3)]

    assert run(play()) == ["220 mx.test ESMTP", "250 2.0.0 OK", "221 2.0.0 bye"]


REFUSED = {
    "no header": b"EHLO client.test\r\n",
    "v1 garbage": b"PROXY TCP4 no no no no\r\n",
    "v1 empty": b"PROXY \r\n",
    "v1 wrong family": b"PROXY TCP4 2001:db8::9 2001:db8::1 4711 25\r\n",
    "v1 port": b"PROXY TCP4 203.0.113.9 192.0.2.1 70000 25\r\n",
    "v1 no CRLF": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\n",
    "v1 of 108 octets": f"PROXY UNKNOWN {LONGEST} {LONGEST} 65535 65535x\r\n".encode(),
    "v1 in lower case": b"proxy tcp4 203.0.113.9 192.0.2.1 4711 25\r\n",
    "v1 two blanks": b"PROXY  TCP4 203.0.113.9 192.0.2.1 4711 25\r\n",
    "v1 a blank first": b" PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n",
    "v1 a blank last": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25 \r\n",
    "v1 a field more": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25 1\r\n",
    "v1 a field less": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711\r\n",
    "v1 signed port": b"PROXY TCP4 203.0.113.9 192.0.2.1 +4711 25\r\n",
    "v1 octal": b"PROXY TCP4 0203.0.113.9 192.0.2.1 4711 25\r\n",
    "v1 zone": b"PROXY TCP6 fe80::1%eth0 ::1 4711 25\r\n",
    "v1 UDP4": b"PROXY UDP4 203.0.113.9 192.0.2.1 4711 25\r\n",
    "v1 NUL": b"PROXY TCP4 203.0.113.9\0 192.0.2.1 4711 25\r\n",
    "v1 CR CR LF": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\r\n",
    "v1 without an end": b"PROXY TCP4 " + b"1" * 200_000,
    "v2 truncated": v2(1, 0x11, V4[:5]),
    "v2 no address": v2(1, 0x11, b""),
    "v2 IPv4 for IPv6": v2(1, 0x21, V4),
    "v2 longer than it says": SIGNATURE + b"\x21\x11\x00\x08" + V4,
    "v2 shorter than it says": SIGNATURE + b"\x21\x11\x00\x40" + V4,
    "v2 version": SIGNATURE + b"\x31\x11\x00\x0c" + V4,
    "v2 command": SIGNATURE + b"\x25\x11\x00\x0c" + V4,
    "v2 family": v2(1, 0x51, V4),
    "v2 wrong signature": b"\r\n\r\n\0\r\nQUITx" + b"\x21\x11\x00\x0c" + V4,
    "silence": b"",
    "half a header": SIGNATURE[:7],
}


@pytest.mark.parametrize("header", REFUSED.values(), ids=REFUSED)
def test_without_a_good_header_nobody_is_greeted(header: bytes) -> None:
    async def play() -> bytes:
        limits = Limits(handshake_seconds=0.3)
        async with (
            served(FakeDoor(), limits=limits, proxy=True, proxy_from=["127.0.0.0/8"]) as server,
            talking(server) as talk,
        ):
            talk.send(header)
            try:
                return await talk.reader.read()
            except ConnectionResetError:
                return b""
            finally:
                await until(lambda: server.edge.connections == 0)

    assert run(play()) == b""


def test_a_header_from_somebody_else_is_refused() -> None:
    door = FakeDoor()

    async def play() -> list[str]:
        async with (
            served(door, proxy=True, proxy_from=["127.0.0.2", "2001:db8::/32"]) as server,
            talking(server) as talk,
        ):
            talk.send(TAKEN["v1 TCP4"][0])
            return [await talk.line(), await talk.line()]

    assert run(play()) == ["421 4.7.0 PROXY headers are not taken from your address", "(closed)"]


AGAIN = {
    "v1 v1": TAKEN["v1 TCP4"][0] + b"PROXY TCP4 203.0.113.66 192.0.2.1 4711 25\r\n",
    "v2 v1": TAKEN["v2 IPv4"][0] + b"PROXY TCP4 203.0.113.66 192.0.2.1 4711 25\r\n",
    "v1 v2": TAKEN["v1 TCP4"][0] + v2(1, 0x11, IPv4Address("203.0.113.66").packed * 2 + V4[8:]),
    "v2 v2": TAKEN["v2 IPv4"][0] + v2(1, 0x11, IPv4Address("203.0.113.66").packed * 2 + V4[8:]),
}


@pytest.mark.parametrize("headers", AGAIN.values(), ids=AGAIN)
def test_a_second_header_is_the_clients_and_says_nothing(headers: bytes) -> None:
    door = FakeDoor()

    async def play() -> list[str]:
        async with served(door, proxy=True, proxy_from=["127.0.0.0/8"]) as server, talking(server) as talk:
            talk.send(headers + b"\r\nEHLO x\r\nMAIL FROM:<a@b.test>\r\nQUIT\r\n")
            heard = []
            while (line := await talk.line()) != "(closed)":
                heard.append(line)
            return heard

    assert run(play())[1].startswith("500 5.5")
    assert {str(received.client.ip) for received in door.opened} <= {"203.0.113.9"}


def test_a_header_on_a_listener_for_clients_is_an_unknown_command() -> None:
    async def play() -> list[str]:
        async with served(FakeDoor(), proxy_from=["127.0.0.0/8"]) as server, talking(server) as talk:
            await talk.line()
            return [await talk.say("PROXY TCP4 203.0.113.9 192.0.2.1 4711 25")]

    assert run(play()) == ["500 5.5.1 unknown command"]


def test_connections_are_counted_by_the_clients_address_not_the_proxys() -> None:
    async def play() -> list[str]:
        limits = Limits(connections_per_ip=1)
        async with (
            served(FakeDoor(), limits=limits, proxy=True, proxy_from=["127.0.0.0/8"]) as server,
            talking(server) as one,
            talking(server) as two,
            talking(server) as three,
        ):
            one.send(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n")
            replies = [await one.line()]
            two.send(b"PROXY TCP4 203.0.113.9 192.0.2.1 4712 25\r\n")
            three.send(b"PROXY TCP4 203.0.113.10 192.0.2.1 4711 25\r\n")
            return [*replies, await two.line(), await three.line()]

    greeting = "220 mx.test ESMTP"
    assert run(play()) == [greeting, "421 4.7.0 too many connections from your address, try again later", greeting]
