"""A message's header fields are found whatever its shape; its id is the same when it comes again."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.mail import Headers, message_id


def test_header_fields_are_found_with_their_folds() -> None:
    headers = Headers.of(b"From: a@b.example\r\nSubject: one\r\n\ttwo\r\n three\r\n\r\nbody\r\n")
    assert [field.name for field in headers.fields] == ["From", "Subject"]
    assert [field.value for field in headers.all("SUBJECT")] == ["one two three"]
    assert headers.size == len(b"From: a@b.example\r\nSubject: one\r\n\ttwo\r\n three\r\n\r\n")


@pytest.mark.parametrize(
    ("raw", "names", "size"),
    [
        (b"\r\nbody", [], 2),
        (b"", [], 0),
        (b"no header here\r\nFrom: a\r\n\r\n", ["", "From"], 27),
        (b"From : a\r\n\r\n", ["From"], 12),
        (b"X y: a\r\n\r\n", [""], 10),
        (b"Subj\xe9ct: a\r\n\r\n", [""], 14),
        (b": a\r\n\r\n", [""], 7),
        (b"Subject: all header", ["Subject"], 19),
    ],
)
def test_lines_that_are_no_fields_are_kept_nameless(raw: bytes, names: list[str], size: int) -> None:
    headers = Headers.of(raw)
    assert names == [field.name for field in headers.fields]
    assert size == headers.size


@given(st.binary(max_size=200))
def test_the_fields_are_the_block_whatever_the_octets(raw: bytes) -> None:
    headers = Headers.of(raw)
    block = b"".join(field.raw for field in headers.fields)
    assert raw.startswith(block)
    assert headers.size in (len(block), len(block) + 2)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"Subject: =?utf-8?q?caf=C3=A9?= ok\r\n", "café ok"),
        (b"Subject: =?utf-8?q?caf=C3=A9?=\r\n =?utf-8?q?_ok?=\r\n", "café ok"),
        (b"Subject: =?no-such-charset?q?x?=\r\n", "=?no-such-charset?q?x?="),
        (b"Subject: =?utf-8?b?a?=\r\n", "=?utf-8?b?a?="),
        ("Subject: café\r\n".encode(), "café"),
        ("Subject: café\r\n".encode("latin-1"), "café"),
    ],
)
def test_values_are_decoded_where_they_can_be(raw: bytes, expected: str) -> None:
    assert expected == Headers.of(raw + b"\r\n").fields[0].decoded


def test_a_message_id_has_ses_s_form_and_is_stable() -> None:
    first = message_id(b"secret", "a@x.example", ["b@y.example", "c@z.example"], b"raw")
    assert base64.b32hexdecode(first.upper())[-1] == 1
    assert len(first) == 40
    assert first == message_id(b"secret", "a@x.example", ["c@z.example", "b@y.example"], b"raw")
    others = {
        message_id(b"other", "a@x.example", ["b@y.example", "c@z.example"], b"raw"),
        message_id(b"secret", "", ["b@y.example", "c@z.example"], b"raw"),
        message_id(b"secret", "a@x.example", ["b@y.example"], b"raw"),
        message_id(b"secret", "a@x.example", ["b@y.example", "c@z.example"], b"raw\r\n"),
    }
    assert first not in others
    assert len(others) == 4
