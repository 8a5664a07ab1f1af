"""A record that is written down comes back equal, and nothing else comes back as a record."""

import json
from dataclasses import dataclass, fields, is_dataclass, replace
from ipaddress import ip_address
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.mail import Client, Tls
from inbound.plain import read, written
from inbound.record import Record
from inbound.reply import Reply
from inbound.verdicts import Verdicts
from tests.actions.letters import VERDICTS

RECORD = Record(
    message_id="0" * 40,
    client=Client(ip=ip_address("2001:db8::1"), helo="\udcff.example", tls=Tls(version="TLSv1.3", cipher="x")),
    mail_from="",
    rcpt_to=("ü@example.com",),
    size=12,
    verdicts=VERDICTS,
    walks=(),
    reply=Reply(250, "2.0.0", "OK"),
)


def made(kind: Any) -> st.SearchStrategy[Any]:
    """Any value that a field of this type may have."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(made(arguments[0]), max_size=2).map(tuple)
    if origin is UnionType:
        return st.one_of([made(one) for one in arguments])
    if origin is dict:
        return st.dictionaries(st.text(max_size=4), made(arguments[1]), max_size=2)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return st.builds(kind, **{one.name: made(hints[one.name]) for one in fields(kind)})  # type: ignore[arg-type]
    if kind is str:
        return st.text(st.characters(exclude_categories=[]), max_size=8)
    if kind is float:
        return st.floats(allow_nan=False)
    strategy: st.SearchStrategy[Any] = st.from_type(kind)
    return strategy


@given(verdicts=made(Verdicts), client=made(Client))
def test_what_is_written_comes_back_equal(verdicts: Verdicts, client: Client) -> None:
    record = replace(RECORD, verdicts=verdicts, client=client)
    assert record == read(written(record), Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    octets: bytes
    count: int = 3
    word: Literal["one", "two"] = "one"


def test_octets_are_base64_and_what_is_missing_has_its_default() -> None:
    assert written(Small(octets=b"\xff")) == b'{"octets":"/w==","count":3,"word":"one"}'
    assert Small(octets=b"") == read(b'{"octets":"","more":1}', Small)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{}", "octets"),
        ("[]", "it is not"),
        ("nothing", "Expecting value"),
        ('{"octets":"*"}', ".octets"),
        ('{"octets":1}', ".octets is not"),
        ('{"octets":"","count":true}', ".count is not"),
        ('{"octets":"","count":1.5}', ".count is not"),
        ('{"octets":"","word":"three"}', ".word is not"),
        ('{"octets":"","word":1}', ".word is not"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_anything_else_is_an_error_that_says_where(text: str, where: str) -> None:
    with pytest.raises(ValueError, match=where):
        read(text.encode(), Small)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("reply", "code"), 450),  # of another class than its enhanced status code
        (("reply", "text"), "a\r\nb"),
        (("client", "ip"), "nowhere"),
        (("verdicts", "spf", "status"), "FINE"),
        (("verdicts", "spam", "score"), "high"),
        (("walks",), {}),
        (("rcpt_to",), [1]),
    ],
)
def test_a_changed_record_is_none(path: tuple[str, ...], value: Any) -> None:
    document = json.loads(written(RECORD))
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=path[-1] if len(path) < 3 and path[0] != "reply" else path[0]):
        read(json.dumps(document).encode(), Record)
