"""A sealed object has SES's form, opens with its own key only, and not at all once anything in it was changed."""

import base64
import json
import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from inbound.errors import PermanentFailure
from inbound.seal import Envelope, Sealed, Sealing, commit, committing, envelope, enveloping, seal, unseal

KEY, WRAPPED = bytes(range(32)), b"the wrapped key"
CONTEXT = {
    "aws:ses:message-id": "12csr1bfnadh642g2d8jhjc7onii4boa0pbriho1",
    "aws:ses:rule-name": "support",
    "aws:ses:source-account": "111122223333",
    "kms_cmk_id": "arn:aws:kms:eu-west-1:111122223333:alias/support",
}
PLAINTEXT = b"Subject: x\r\n\r\nHello\r\n"


def sealed() -> Sealed:
    return seal(PLAINTEXT, KEY, WRAPPED, CONTEXT)


def test_the_metadata_are_ses_s_name_by_name_and_the_description_in_its_order() -> None:
    metadata = dict(sealed().metadata)
    assert len(base64.b64decode(metadata.pop("x-amz-iv"))) == 12
    assert {
        "x-amz-key-v2": base64.b64encode(WRAPPED).decode(),
        "x-amz-cek-alg": "AES/GCM/NoPadding",
        "x-amz-wrap-alg": "kms",
        "x-amz-tag-len": "128",
        "x-amz-unencrypted-content-length": str(len(PLAINTEXT)),
        "x-amz-matdesc": json.dumps(CONTEXT, separators=(",", ":")),
    } == metadata


def test_the_octets_are_plain_aes_gcm_with_the_tag_behind() -> None:
    done = sealed()
    iv = base64.b64decode(done.metadata["x-amz-iv"])
    assert AESGCM(KEY).encrypt(iv, PLAINTEXT, None) == done.ciphertext
    assert len(PLAINTEXT) + 16 == len(done.ciphertext)


def test_no_two_objects_share_an_iv() -> None:
    assert len({sealed().metadata["x-amz-iv"] for _ in range(100)}) == 100


@given(st.binary(max_size=2000))
def test_what_was_sealed_opens_again(plaintext: bytes) -> None:
    done = seal(plaintext, KEY, WRAPPED, CONTEXT)
    assert Envelope(wrapped=WRAPPED, context=CONTEXT) == envelope(done.metadata)
    assert plaintext == unseal(done.ciphertext, done.metadata, KEY)


def test_the_form_that_aws_s_own_clients_write_is_read_too() -> None:
    iv = os.urandom(12)
    metadata = {
        "x-amz-key-v2": base64.b64encode(WRAPPED).decode(),
        "x-amz-iv": base64.b64encode(iv).decode(),
        "x-amz-cek-alg": "AES/GCM/NoPadding",
        "x-amz-wrap-alg": "kms+context",
        "x-amz-tag-len": "128",
        "x-amz-matdesc": '{"aws:x-amz-cek-alg":"AES/GCM/NoPadding"}',
    }
    context = {"aws:x-amz-cek-alg": "AES/GCM/NoPadding"}
    assert Envelope(wrapped=WRAPPED, context=context) == envelope(metadata)
    assert unseal(AESGCM(KEY).encrypt(iv, PLAINTEXT, None), metadata, KEY) == PLAINTEXT


def test_an_object_without_an_envelope_is_not_sealed() -> None:
    assert envelope({}) is None
    assert envelope({"x-amz-matdesc": "{}", "colour": "blue"}) is None


@pytest.mark.parametrize("position", [0, 5, len(PLAINTEXT), len(PLAINTEXT) + 15])
def test_a_changed_octet_is_noticed(position: int) -> None:
    done = sealed()
    changed = bytearray(done.ciphertext)
    changed[position] ^= 1
    with pytest.raises(PermanentFailure, match="was changed"):
        unseal(bytes(changed), done.metadata, KEY)


@pytest.mark.parametrize("cut", [0, 1, 15, 16, len(PLAINTEXT)])
def test_a_cut_object_is_noticed(cut: int) -> None:
    done = sealed()
    with pytest.raises(PermanentFailure, match="sealed object cannot be opened"):
        unseal(done.ciphertext[:cut], done.metadata, KEY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-iv", base64.b64encode(bytes(12)).decode()),
        ("x-amz-iv", base64.b64encode(bytes(16)).decode()),
        ("x-amz-iv", "no base64!"),
        ("x-amz-iv", ""),
        ("x-amz-unencrypted-content-length", "5"),
    ],
)
def test_metadata_that_do_not_belong_to_the_object_are_noticed(name: str, value: str) -> None:
    done = sealed()
    with pytest.raises(PermanentFailure):
        unseal(done.ciphertext, {**done.metadata, name: value}, KEY)


def test_another_key_does_not_open_it() -> None:
    done = sealed()
    with pytest.raises(PermanentFailure, match="not its key"):
        unseal(done.ciphertext, done.metadata, bytes(32))
    with pytest.raises(PermanentFailure):
        unseal(done.ciphertext, done.metadata, b"short")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-amz-cek-alg", "AES/CBC/PKCS5Padding"),
        ("x-amz-wrap-alg", "AESWrap"),
        ("x-amz-wrap-alg", "kms+context"),  # the context does not say the cipher
        ("x-amz-tag-len", "96"),
        ("x-amz-key-v2", "no base64!"),
        ("x-amz-matdesc", "no JSON"),
        ("x-amz-matdesc", "[]"),
        ("x-amz-matdesc", '{"a":1}'),
    ],
)
def test_forms_that_cannot_be_trusted_are_refused_before_kms_is_asked(name: str, value: str) -> None:
    with pytest.raises(PermanentFailure, match="sealed object cannot be opened"):
        envelope({**sealed().metadata, name: value})


def test_a_format_that_is_not_read_is_not_taken_for_a_plain_object() -> None:
    with pytest.raises(PermanentFailure, match="not read here"):
        envelope({"x-amz-key": "AAAA"})


COMMITTING = {**CONTEXT, "aws:x-amz-cek-alg": "115"}


def committed() -> Sealed:
    return commit(PLAINTEXT, KEY, WRAPPED, COMMITTING)


@given(st.binary(max_size=2000))
def test_what_was_sealed_in_the_committing_form_opens_again(plaintext: bytes) -> None:
    done = commit(plaintext, KEY, WRAPPED, COMMITTING)
    assert list(done.metadata) == ["x-amz-c", "x-amz-3", "x-amz-w", "x-amz-t", "x-amz-d", "x-amz-i"]
    assert Envelope(wrapped=WRAPPED, context=COMMITTING) == envelope(done.metadata)
    assert plaintext == unseal(done.ciphertext, done.metadata, KEY)


@pytest.mark.parametrize("name", ["x-amz-d", "x-amz-i"])
def test_an_object_opens_only_under_the_key_it_commits_to(name: str) -> None:
    done = committed()
    other = base64.b64encode(bytes(28)).decode()
    with pytest.raises(PermanentFailure, match="commits to another key"):
        unseal(done.ciphertext, {**done.metadata, name: other}, KEY)
    with pytest.raises(PermanentFailure, match="commits to another key"):
        unseal(done.ciphertext, done.metadata, bytes(32))
    with pytest.raises(PermanentFailure, match="octets"):
        unseal(done.ciphertext, {**done.metadata, name: "AAAA"}, KEY)
    changed = bytes([done.ciphertext[0] ^ 1]) + done.ciphertext[1:]
    with pytest.raises(PermanentFailure, match="was changed"):
        unseal(changed, done.metadata, KEY)


@pytest.mark.parametrize(("name", "value"), [("x-amz-c", "116"), ("x-amz-w", "02"), ("x-amz-t", "{}")])
def test_committing_forms_that_cannot_be_trusted_are_refused_before_kms_is_asked(name: str, value: str) -> None:
    with pytest.raises(PermanentFailure, match="not read here"):
        envelope({**committed().metadata, name: value})


@pytest.mark.parametrize("form", [enveloping, committing])
@pytest.mark.parametrize("octets", [16, 17, 64, 1000])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 47, 48, 49, 63, 64, 65, 984, 985, 1000, 1001, 2500])
def test_in_pieces_the_octets_are_those_of_the_whole(form: Any, octets: int, size: int) -> None:
    plaintext = os.urandom(size)
    how = form(size, KEY, WRAPPED, COMMITTING)
    sealing = Sealing(plaintext, how)
    pieces = list(sealing.pieces(octets))
    assert how.seal(plaintext).ciphertext == b"".join(pieces)
    assert len(sealing) == sum(map(len, pieces))
    assert {len(piece) for piece in pieces[:-1]} <= {octets}
    assert pieces == list(sealing.pieces(octets))
    assert plaintext == unseal(b"".join(pieces), sealing.metadata, KEY)
