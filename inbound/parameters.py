"""A MIME header field: its value, and its parameters in whichever way they are written (RFC 2045, 2231, 2047, or neither).

Octets stay octets on the way, one character for one (latin-1), because a boundary is octets whatever they would mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from inbound import decoding

LONGEST_FIELD = 8192  # octets of one field that are read
_OFTEN = 200  # octets of a field that is worth remembering
_SECTIONS = 100  # of one RFC 2231 parameter
_BLANKS = " \t\r\n"

_CONTROLS = dict.fromkeys([*range(32), *range(127, 160), 0x2028, 0x2029])


def file_name(value: bytes) -> str:
    """A file name as a system would take it: one line, nothing at the end that Windows leaves out."""
    return decoding.encoded_words(decoding.decode(value)).translate(_CONTROLS).strip().rstrip(". ")


def field_of(values: Sequence[bytes]) -> tuple[str, Mapping[str, list[bytes]]]:
    """The value before the first semicolon, lower case, and the parameters behind it, each with all it is given as."""
    if not values:
        return "", {}
    return (_often if len(values[0]) < _OFTEN else _field)(values[0])


def _field(written: bytes) -> tuple[str, Mapping[str, list[bytes]]]:
    octets = b" ".join(line.strip() for line in written[:LONGEST_FIELD].splitlines())
    value, _, rest = octets.decode("latin-1").partition(";")
    return value.partition("(")[0].strip(_BLANKS).lower(), _parameters(rest) if rest else {}


_often = lru_cache(1024)(_field)


def _parameters(text: str) -> dict[str, list[bytes]]:
    """The parameters of a field: by lower-case name, RFC 2231's form first, then the plain ones in order."""
    plain: dict[str, list[bytes]] = {}
    sections: dict[str, dict[int, tuple[bool, str]]] = {}
    for name, value in _written_parameters(text):
        base, star, section = name.partition("*")
        if not star:
            plain.setdefault(base, []).append(value.encode("latin-1"))
        elif section in ("", "0", "0*"):
            sections.setdefault(base, {}).setdefault(0, (section != "0", value))
        elif section.rstrip("*").isdecimal() and len(section) < 4:  # noqa: PLR2004 - as _SECTIONS
            sections.setdefault(base, {}).setdefault(int(section.rstrip("*")), (section.endswith("*"), value))
    joined = {base: [_joined(found).encode()] for base, found in sections.items() if 0 in found}
    return {base: joined.get(base, []) + plain.get(base, []) for base in (*joined, *plain)}


def _joined(found: dict[int, tuple[bool, str]]) -> str:
    """RFC 2231 3 and 4: sections in order of their numbers, to the first that is missing; the first names the charset."""
    octets: list[bytes] = []
    charset = ""
    for number in range(_SECTIONS):
        if number not in found:
            break
        extended, value = found[number]
        if extended and number == 0 and value.count("'") >= 2:  # noqa: PLR2004
            charset, _, value = value.split("'", 2)
        octets.append(unquote_to_bytes(value.encode("latin-1")) if extended else value.encode("latin-1"))
    return decoding.decode(b"".join(octets), charset)


def _written_parameters(text: str) -> Iterator[tuple[str, str]]:
    """Names in lower case, and values without quotes, as they stand between semicolons. Linear."""
    at, equals = 0, -1
    while at < len(text):
        end = text.find(";", at)
        end = len(text) if end < 0 else end
        if equals < at:
            equals = text.find("=", at)
            if equals < 0:
                return
        if equals < end:
            name = text[at:equals].strip(_BLANKS).lower()
            begin = equals + 1
            while begin < end and text[begin] in _BLANKS:
                begin += 1
            if text.startswith('"', begin):
                value, begin = _quoted(text, begin + 1)
                end = text.find(";", begin)
                end = len(text) if end < 0 else end
            else:
                value = text[begin:end].strip(_BLANKS)
            yield name, value
        at = end + 1


def _quoted(text: str, at: int) -> tuple[str, int]:
    """The content of a quoted string (RFC 5322 3.2.4) whose quote is behind us, and the position behind its end."""
    out: list[str] = []
    while at < len(text) and text[at] != '"':
        # Windows writers quote a path's backslashes no more than Outlook reads them: only \" and \\ are pairs.
        if text[at] == "\\" and text[at + 1 : at + 2] in ('"', "\\"):
            at += 1
        out.append(text[at])
        at += 1
    return "".join(out), at + 1
