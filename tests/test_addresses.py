"""Addresses are read leniently, but a second author is never overlooked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.addresses import LONGEST_FIELD, Mailbox, a_labels, parse_mailboxes, shown

PAT = Mailbox("Pat Sender", "pat@a.example")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"Pat Sender" <pat@a.example>', (PAT,)),
        ("Pat Sender <pat@a.example>", (PAT,)),
        ("Pat (the sender) Sender <pat@a.example> (home)", (PAT,)),
        ("pat@a.example", (Mailbox("", "pat@a.example"),)),
        ("<@relay.example,@b.example:pat@a.example>", (Mailbox("", "pat@a.example"),)),
        ("a@x.example, b@y.example", (Mailbox("", "a@x.example"), Mailbox("", "b@y.example"))),
        (
            "Team: a@x.example, b@y.example; , c@z.example",
            (Mailbox("", "a@x.example"), Mailbox("", "b@y.example"), Mailbox("", "c@z.example")),
        ),
        ("undisclosed-recipients:;", ()),
        ("", ()),
        ('"pat@a.example" <evil@b.example>', (Mailbox("pat@a.example", "evil@b.example"),)),
        ('"a, b"@x.example', (Mailbox("", '"a, b"@x.example'),)),
        ("pat@[192.0.2.1]", (Mailbox("", "pat@[192.0.2.1]"),)),
        # what could be read as two authors is two
        ("<a@x.example> <b@y.example>", (Mailbox("", "a@x.example"), Mailbox("", "b@y.example"))),
        ("a@x.example b@y.example", (Mailbox("", "a@x.example"), Mailbox("", "b@y.example"), Mailbox("", ""))),
        # what cannot be read has no address
        ("Pat <pat@a.example", (Mailbox("", ""),)),
        ('"unterminated <pat@a.example>', (Mailbox("", ""),)),
        ("Pat Sender", (Mailbox("Pat Sender", ""),)),
        ("x" * (LONGEST_FIELD + 1), (Mailbox("", ""),)),
    ],
)
def test_the_mailboxes_of_a_field(text: str, expected: tuple[Mailbox, ...]) -> None:
    assert expected == parse_mailboxes(text)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("Example.COM.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("_dmarc.example", "_dmarc.example"),
        ("[192.0.2.1]", ""),
        ("a..example", ""),
        ("-é.example", ""),
        ("a b.example", ""),
        ("x" * 64 + ".example", ""),
        ("x." * 127 + "example", ""),
        ("", ""),
    ],
)
def test_a_domain_becomes_lower_case_a_labels_or_nothing(domain: str, expected: str) -> None:
    assert expected == a_labels(domain)


@given(st.text(alphabet='ab@<>(),:;"\\ []\r\n.é', max_size=60))
def test_reading_addresses_ends_and_never_raises(text: str) -> None:
    for mailbox in parse_mailboxes(text):
        assert "\r" not in mailbox.domain
        assert "\n" not in mailbox.domain


@pytest.mark.parametrize("piece", ["(", '"', "<", "a@b,", "a@b ", "\\", "[", "(((", '""', "a@b:;"])
def test_hostile_fields_take_linear_time(piece: str) -> None:
    parse_mailboxes(piece * (LONGEST_FIELD // len(piece)))


@pytest.mark.parametrize(
    ("label", "expected"),
    [("xn--bcher-kva", "bücher"), ("xn--bnk-6cd", "bаnk"), ("example", "example"), ("xn--", "xn--"), ("", "")],
)
def test_labels_as_readers_see_them(label: str, expected: str) -> None:
    assert shown(label) == expected


@given(
    st.lists(
        st.sampled_from(
            ["ann", "b@c.d", '"A. B" ', '"x,@y"', "Bob ", "<x@y.z>", "<x>", "\xa0", "\xe9 ", " ", "\\", "[", "("]
        )
    )
)
def test_one_ordinary_mailbox_is_read_as_it_would_be_in_a_list(pieces: list[str]) -> None:
    text = f"{''.join(pieces)}<x@y.example>"
    assert parse_mailboxes(text) == parse_mailboxes(f",{text}")
