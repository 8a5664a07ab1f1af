"""Octets as mail labels them: transfer encodings, charsets by a fixed list, RFC 2047 encoded words, all in linear time.

1. A label chooses among codecs known to be linear. Python also knows codecs that are quadratic (`punycode`, `idna`) or no
   charsets at all (`zlib`), and remembers every name it was ever asked for: no label of a message reaches `codecs.lookup`.
2. Nothing here raises. What a label cannot decode is read as UTF-8, else as windows-1252, with U+FFFD for the rest.
"""

import binascii
import contextlib
from collections.abc import Callable
from encodings.aliases import aliases
from functools import lru_cache

_SAFE_NAMES = """ascii latin_1 utf_8 utf_8_sig utf_7 utf_16 utf_16_le utf_16_be utf_32 utf_32_le utf_32_be
    cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 cp437 cp720 cp737 cp775 cp850 cp852 cp855 cp856 cp857 cp858
    cp860 cp861 cp862 cp863 cp864 cp865 cp866 cp869 cp874 cp1006 cp1125 cp932 cp949 cp950
    iso8859_2 iso8859_3 iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_9 iso8859_10 iso8859_11 iso8859_13 iso8859_14
    iso8859_15 iso8859_16 koi8_r koi8_t koi8_u kz1048 ptcp154 tis_620 hp_roman8 palmos
    mac_arabic mac_croatian mac_cyrillic mac_greek mac_iceland mac_latin2 mac_roman mac_romanian mac_turkish
    big5 big5hkscs gb2312 gbk gb18030 hz euc_jp euc_jis_2004 euc_jisx0213 euc_kr johab shift_jis shift_jis_2004 shift_jisx0213
    iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_jp_2004 iso2022_jp_3 iso2022_jp_ext iso2022_kr"""
_LONGEST_LABEL = 64
_SAFE = frozenset(_SAFE_NAMES.split())
_CODECS = {alias: codec for alias, codec in aliases.items() if codec in _SAFE} | {codec: codec for codec in _SAFE}
# Labels that mail carries and Python does not know, and the supersets that writers mean by the narrower name.
_CODECS |= {
    "iso_8859_8_i": "iso8859_8",
    "x_sjis": "cp932",
    "x_gbk": "gb18030",
    "gb2312": "gb18030",
    "unicode_1_1_utf_7": "utf_7",
}

# Codecs by which the octets of ASCII, and no others, are ASCII; "" is a label that we do not decode by.
ASCII_AND_MORE = frozenset(
    {"", "ascii", "latin_1", "utf_8", "cp1250", "cp1251", "cp1252", "iso8859_2", "iso8859_15", "koi8_r"}
)


def codec(charset: str) -> str:
    """Python's name of the codec for a charset label, "" when the label is not one we decode by."""
    return (_codec if len(charset) < _LONGEST_LABEL else _codec.__wrapped__)(charset)


@lru_cache(256)
def _codec(charset: str) -> str:
    label = charset.partition("*")[0].strip(" \t\r\n\"'").lower()  # RFC 2231 5: a language may follow
    return _CODECS.get(label.replace("-", "_").replace(" ", "_"), "")


def decode(octets: bytes, charset: str = "") -> str:
    """The text under that label. Never raises."""
    name = codec(charset)
    if name and name != "ascii":
        try:
            text = octets.decode(name, "replace")
            # UTF-7 alone lets halves of surrogate pairs through, which no other encoding can write.
            return text if name != "utf_7" else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        except UnicodeError:  # utf-16 and iso2022 refuse some input whatever the error handler
            pass
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("cp1252", "replace")


def encoded_words(text: str) -> str:
    """The text with its RFC 2047 encoded words decoded. What is not well formed stays as it is.

    Lenient where real mail is: words may stand inside quotes or touch other text, and be longer than 75 characters. A
    character may be split between adjacent words of one charset.
    """
    out: list[str] = []
    pending: list[tuple[str, bytes]] = []
    at, end = 0, -1
    while True:
        start = text.find("=?", at)
        if start < 0:
            break
        charset_end = text.find("?", start + 2, start + 64)
        body = charset_end + 3
        if charset_end > 0 and end < body:
            end = text.find("?=", body)
            if end < 0:
                break
        # The second `?` tells a whole word at once, so that no octet is looked at twice.
        whole = charset_end > 0 and text.find("?", body, end + 1) == end and codec(text[start + 2 : charset_end])
        octets = _word(text[charset_end + 1 : body], text[body:end]) if whole else None
        if octets is None:
            _flush(out, pending)
            out.append(text[at : start + 2])
            at = start + 2
            continue
        if not pending or not text[at:start].isspace():  # 6.2: blanks between encoded words are not part of the text
            if at != start:
                _flush(out, pending)
            out.append(text[at:start])
        pending.append((text[start + 2 : charset_end], octets))
        at = end + 2
    _flush(out, pending)
    out.append(text[at:])
    return "".join(out)


def _word(encoding: str, text: str) -> bytes | None:
    """The octets of an encoded word's text; `encoding` is `Q?` or `B?` in either case. None: it is not one."""
    if not text.isascii():
        return None
    match encoding.lower():
        case "q?":
            return binascii.a2b_qp(text.encode("ascii"), header=True)
        case "b?":
            return base64_octets(text.encode("ascii")) or (None if text else b"")
        case _:
            return None


def _flush(out: list[str], pending: list[tuple[str, bytes]]) -> None:
    run: list[bytes] = []
    for at, (charset, octets) in enumerate(pending):
        run.append(octets)
        if at + 1 == len(pending) or codec(pending[at + 1][0]) != codec(charset):
            out.append(decode(b"".join(run), charset))
            run = []
    pending.clear()


_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_MOST_PADDINGS = 1000  # an encoder that pads each line of a mail; beyond it is no encoder's work
_NOT_BASE64 = bytes(octet for octet in range(256) if octet not in _BASE64 + b"=")


def base64_octets(encoded: bytes) -> bytes:
    """Base64 as mail has it (RFC 2045 6.8): other octets are passed over, padding may be missing or stand in the middle."""
    clean = encoded.translate(None, _NOT_BASE64)
    if clean.count(b"=") > _MOST_PADDINGS:
        clean = clean.replace(b"=", b"")
    return b"".join(_quads(run) for run in clean.split(b"=") if len(run) > 1)


def _quads(run: bytes) -> bytes:
    whole = run[: len(run) - 1] if len(run) % 4 == 1 else run
    return binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))


def transferred(encoded: memoryview, encoding: str, limit: int) -> bytes:
    """The first `limit` octets behind a Content-Transfer-Encoding. Linear: the window grows only where it was junk."""
    decoder = TRANSFER_ENCODINGS.get(encoding)
    if decoder is None:
        return bytes(encoded[:limit])
    window = 2 * limit + 1024
    while True:
        octets = decoder(bytes(encoded[:window]))
        if len(octets) >= limit or window >= len(encoded):
            return octets[:limit]
        window *= 4


def _uu_octets(encoded: bytes) -> bytes:
    out: list[bytes] = []
    for line in encoded.splitlines():
        if line.startswith(b"begin ") and not out:
            continue
        if line.startswith(b"end"):
            break
        try:
            out.append(binascii.a2b_uu(line))
        except binascii.Error:  # writers that miscount: take what the length octet promises
            count = (((line[0] - 32) & 63) * 4 + 5) // 3 if line else 0
            with contextlib.suppress(binascii.Error):
                out.append(binascii.a2b_uu(line[:count]))
    return b"".join(out)


TRANSFER_ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "base64": base64_octets,
    "quoted-printable": binascii.a2b_qp,
    "x-uuencode": _uu_octets,
    "uuencode": _uu_octets,
    "x-uue": _uu_octets,
}
