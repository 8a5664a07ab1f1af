"""DNS answers of the plain kind, read at once; what is in any way out of the ordinary is left to dnspython.

1. Plain is: NOERROR or NXDOMAIN, whole, to our one question, with every record of its answer section about that very name and
   type; or no record there, and at most one SOA in the authority section, which says how long that holds (RFC 2308 5).
2. Nothing is guessed: an alias, an EDNS option, a name that points forwards or a length that is one octet off is not plain.
"""

import socket
import struct
from dataclasses import dataclass

from inbound.clients import RecordType

_HEADER = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHIH")  # type, class, TTL, length of RDATA
_FIVE = struct.Struct(">IIIII")  # of an SOA: serial, refresh, retry, expire, minimum

_OPCODE_AND_TC = 0x7A00
_NAME_OF_THE_QUESTION = b"\xc0\x0c"
_SOA, _OPT, _IN = 6, 41, 1
_NXDOMAIN = 3
_LONGEST_TTL = 0x7FFF_FFFF  # RFC 2181 8
_MOST_RECORDS = 100
_JUMPS = 20
_CODES = {"A": 1, "NS": 2, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}
_LENGTHS = {"A": 4, "AAAA": 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """What a plain answer says: as `inbound.clients.Answer`, with all flags of its header. `ttl` None: nobody says."""

    exists: bool
    records: tuple[str, ...]
    ttl: int | None
    flags: int
    negative: bool

    def rcode(self) -> int:
        """0 or 3, as dnspython says it."""
        return 0 if self.exists else _NXDOMAIN


def plain(question: bytes, wire: bytes, rdtype: RecordType) -> Plain | None:
    """Read an answer to this question (its name, type and class, as they were asked). None when it is not a plain one."""
    try:
        return _read(question, wire, rdtype)
    except (struct.error, IndexError, ValueError):
        return None


def _read(question: bytes, wire: bytes, rdtype: RecordType) -> Plain | None:
    _, flags, questions, answers, authorities, others = _HEADER.unpack_from(wire)
    rcode = flags & 0x0F
    at = _HEADER.size + len(question)
    if rcode not in (0, _NXDOMAIN) or flags & _OPCODE_AND_TC or questions != 1 or wire[_HEADER.size : at] != question:
        return None
    if answers > _MOST_RECORDS or (answers and rcode) or rdtype not in _CODES:
        return None
    records: dict[bytes | str, str] = {}  # the same record twice is one (RFC 2181 5.5)
    ttl: int | None = None
    for _ in range(answers):
        kind, group, seconds, length = _RECORD.unpack_from(wire, at + 2)
        start = at + 2 + _RECORD.size
        at = start + length
        if wire[start - 2 - _RECORD.size : start - _RECORD.size] != _NAME_OF_THE_QUESTION or at > len(wire):
            return None
        if kind != _CODES[rdtype] or group != _IN or seconds > _LONGEST_TTL:
            return None
        ttl = seconds if ttl is None else min(ttl, seconds)
        text = _text(wire, start, at, rdtype)
        records[wire[start:at] if rdtype == "TXT" else text] = text
    if answers and authorities:  # the name servers, most often; nobody asked
        return None
    if authorities > 1:
        return None
    if authorities:
        ttl, at = _negative(wire, at)
    if others > 1 or (others and not _ordinary_edns(wire, at)):
        return None
    return Plain(exists=rcode == 0, records=tuple(records.values()), ttl=ttl, flags=flags, negative=not answers)


def _negative(wire: bytes, at: int) -> tuple[int, int]:
    """Seconds that it holds by the SOA here (RFC 2308 5), and where the SOA ends. Raises ValueError."""
    zone, at = _name(wire, at)
    if not f".{_name(wire, _HEADER.size)[0]}".endswith(f".{zone}"):
        raise ValueError
    kind, group, seconds, length = _RECORD.unpack_from(wire, at)
    end = at + _RECORD.size + length
    _, at = _name(wire, at + _RECORD.size)
    _, at = _name(wire, at)
    if kind != _SOA or group != _IN or seconds > _LONGEST_TTL or at + _FIVE.size != end:
        raise ValueError
    return min(seconds, _FIVE.unpack_from(wire, at)[4]), end


def _ordinary_edns(wire: bytes, at: int) -> bool:
    """The one other record is an OPT without an extended RCODE, at the root, and the last (RFC 6891 6.1)."""
    kind, _, extended, length = _RECORD.unpack_from(wire, at + 1)
    return bool(
        wire[at] == 0 and kind == _OPT and not extended >> 16 and not length and at + 1 + _RECORD.size == len(wire)
    )


def _text(wire: bytes, at: int, end: int, rdtype: RecordType) -> str:
    if rdtype in _LENGTHS:
        if end - at != _LENGTHS[rdtype]:
            raise ValueError
        return socket.inet_ntop(socket.AF_INET if rdtype == "A" else socket.AF_INET6, wire[at:end])
    if rdtype == "TXT":
        return _strings(wire, at, end)
    before = ""
    if rdtype == "MX":
        before, at = f"{wire[at] << 8 | wire[at + 1]} ", at + 2
    name, stop = _name(wire, at)
    if stop != end:
        raise ValueError
    return before + name


def _strings(wire: bytes, at: int, end: int) -> str:
    strings = []
    while at < end:
        stop = at + 1 + wire[at]
        strings.append(wire[at + 1 : stop])
        at = stop
    if at != end or not strings:
        raise ValueError
    return b"".join(strings).decode("latin-1")


def _name(wire: bytes, at: int) -> tuple[str, int]:
    """A name in lower case without the final dot, and where it ends. Raises ValueError for what needs care."""
    labels: list[bytes] = []
    end = 0
    for _ in range(_JUMPS + 128):
        length = wire[at]
        if length >= 0xC0:  # noqa: PLR2004 - RFC 1035 4.1.4
            target = (length & 0x3F) << 8 | wire[at + 1]
            end = end or at + 2
            if target >= at:
                raise ValueError
            at = target
        elif length == 0:
            name = b".".join(labels)
            if len(name) > 253 or not labels:  # noqa: PLR2004
                raise ValueError
            return name.decode("ascii").lower(), end or at + 1
        elif length > 63:  # noqa: PLR2004
            raise ValueError
        else:
            label = wire[at + 1 : at + 1 + length]
            if not label.translate(None, delete=_ORDINARY) and len(label) == length:
                labels.append(label)
            else:
                raise ValueError
            at += 1 + length
    raise ValueError


_ORDINARY = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
