"""Encoded words, charsets and transfer encodings, with the standard library as the oracle where it is right."""

import base64
import time
from email.header import Header, decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.decoding import base64_octets, codec, decode, encoded_words


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?caf=C3=A9?= ok", "caf\u00e9 ok"),
        ("=?utf-8?Q?a?= =?utf-8?Q?b?=", "ab"),
        ("=?utf-8?Q?a?=\t =?ISO-8859-1?B?6Q==?=", "a\u00e9"),
        ("=?utf-8?q?a_b?=", "a b"),
        ("x=?utf-8?q?a?=y", "xay"),
        ("=?utf-8?q?=E2=82?= =?utf-8?q?=AC?=", "\u20ac"),  # a character in two words
        ("=?utf-8*en?q?a?=", "a"),
        ("=?utf-8?q?a b?=", "a b"),
        ("=?utf-8?q??=", ""),
        ("=?utf-8?b?YQ?=", "a"),
        ("=?utf-8?b?a?=", "=?utf-8?b?a?="),
        ("=?nosuch?q?a?=", "=?nosuch?q?a?="),
        ("=?zlib?q?a?=", "=?zlib?q?a?="),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?utf-8?q?a", "=?utf-8?q?a"),
        ("=?utf-8?q?a?= =?utf-8?q?b", "a =?utf-8?q?b"),
        ("=?=?utf-8?q?a?=", "=?a"),
        ("=?", "=?"),
        ("=?utf-8?q?=FF?=", "\ufffd"),
    ],
)
def test_encoded_words(written: str, shown: str) -> None:
    assert encoded_words(written) == shown


@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), include_characters=" "), max_size=200))
def test_what_the_standard_library_encodes_is_read_as_it_was(text: str) -> None:
    written = " ".join(Header(text, "utf-8").encode().split())
    assert encoded_words(written) == text == str(make_header(decode_header(written)))


@pytest.mark.parametrize(
    "unit",
    [
        "=?",
        "=?a?q?",
        "=?a?q? ",
        "=?utf-8?q?=41?=",
        "=?utf-8?q?a?= ",
        "=?utf-8?b?YQ==?=",
        "?=",
        "=?utf-8?q?\u00e9",
        "=?" + "x" * 70,
    ],
)
def test_encoded_words_are_read_in_linear_time(unit: str) -> None:
    def cost(size: int) -> float:
        text = unit * (size // len(unit))
        started = time.process_time()
        encoded_words(text)
        return time.process_time() - started

    cost(1000)
    assert cost(800_000) < 20 * cost(100_000) + 0.05


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("UTF-8", "utf_8"),
        ("utf8", "utf_8"),
        ("ISO-8859-1", "latin_1"),
        ("Windows-1252", "cp1252"),
        ('"koi8-r"', "koi8_r"),
        ("ks_c_5601-1987", "euc_kr"),
        ("GB2312", "gb18030"),
        ("punycode", ""),
        ("idna", ""),
        ("zlib", ""),
        ("unicode_escape", ""),
        ("", ""),
        ("x" * 10_000, ""),
    ],
)
def test_labels_are_those_of_charsets_only(label: str, name: str) -> None:
    assert codec(label) == name


def test_every_codec_there_is_can_decode() -> None:
    octets = bytes(range(256)) * 2
    names = {
        codec(label)
        for label in ("utf-7", "hz", "utf-16", "utf-32", "iso-2022-jp", "iso-2022-kr", "big5", "euc-jp", "shift_jis")
    }
    for name in names:
        assert decode(octets, name)


@given(
    st.binary(max_size=300),
    st.sampled_from(["", "utf-8", "utf-16", "utf-7", "iso-2022-jp", "hz", "us-ascii", "big5", "x"]),
)
def test_no_octets_make_decoding_raise(octets: bytes, charset: str) -> None:
    decode(octets, charset)


@given(st.binary(max_size=300))
def test_base64_gives_back_what_was_encoded(octets: bytes) -> None:
    assert base64_octets(base64.encodebytes(octets)) == octets


def test_base64_with_more_padding_than_any_encoder_writes_is_still_read() -> None:
    assert base64_octets(b"=QUJD" * 5000) == b"ABC" * 5000
