"""The arguments of MAIL and RCPT."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbound.receive.paths import RefusedError, forward_path, reverse_path

TAKEN = {
    "<>": "",
    "<a@b.test>": "a@b.test",
    "<A.b+c=d@B.Test>": "A.b+c=d@B.Test",
    "<a@b>": "a@b",
    "<!#$%&'*+-/=?^_`{|}~@b.test>": "!#$%&'*+-/=?^_`{|}~@b.test",
    '<"a b"@c.test>': '"a b"@c.test',
    r'<"a\"b\\"@c.test>': r'"a\"b\\"@c.test',
    '<"<@>,:;"@c.test>': '"<@>,:;"@c.test',
    '<""@c.test>': '""@c.test',
    "<@r.test:a@b.test>": "a@b.test",
    "<@r.test,@s.test:a@b.test>": "a@b.test",
    "<a@1.2.test>": "a@1.2.test",
    "<a@[192.0.2.1]>": "a@[192.0.2.1]",
    "<a@[IPv6:2001:db8::1]>": "a@[IPv6:2001:db8::1]",
    "<jörg@b.test>": "jörg@b.test",
    "<a@bücher.example>": "a@bücher.example",
    "<a@例え.テスト>": "a@例え.テスト",
    "<a..c@b.test>": "a..c@b.test",  # docomo.ne.jp, ezweb.ne.jp
    "<.a.@b.test>": ".a.@b.test",
    "<a@b_c.test>": "a@b_c.test",
    "<a@_b.test>": "a@_b.test",
    "<@r_1.test:a@b.test>": "a@b.test",
    "<a@[IPv6:::ffff:192.0.2.1]>": "a@[IPv6:::ffff:192.0.2.1]",
    f"<a@{'.'.join(['v' * 63] * 3)}.{'v' * 61}>": f"a@{'.'.join(['v' * 63] * 3)}.{'v' * 61}",
    f"<{'v' * 256}@b.test>": f"{'v' * 256}@b.test",
}

REFUSED = [
    "",
    "a@b.test",
    "<a@b.test",
    "a@b.test>",
    "< a@b.test>",
    "<a@b.test >",
    "<a @b.test>",
    "<a@ b.test>",
    "<<a@b.test>>",
    "<a>",
    "<@b.test>",
    "<a@>",
    "<.@b.test>",
    "<...@b.test>",
    '<"a"."b"@c.test>',
    '<"a".b@c.test>',
    "<a@.b.test>",
    "<a@b..test>",
    "<a@b.test.>",
    "<a@-b.test>",
    "<a@b-.test>",
    "<a@b,c.test>",
    "<a(x)@b.test>",
    "<a@b.test(x)>",
    "<a@b@c.test>",
    '<"a@b.test>',
    '<"a"b@c.test>',
    '<"a\\"@c.test>',
    "<a:b@c.test>",
    "<@r.test a@b.test>",
    "<@r.test:>",
    "<a@[192.0.2]>",
    "<a@[192.0.2.1>",
    "<a@[2001:db8::1]>",
    "<a@[IPv6:fe80::1%eth0]>",
    "<a@[IPv6:192.0.2.1]>",
    "<a@[x-tag:text]>",
    "<a\x7f@b.test>",
    "<a\u0085@b.test>",
    "<a\u2028@b.test>",
    f"<{'v' * 257}@b.test>",
    f"<a@{'v' * 64}.test>",
    f"<a@{'.'.join(['v' * 63] * 3)}.{'v' * 62}>",
    f"<a@{'v.' * 130}test>",
    "<a@b.test>x",
    "<a@b.test>\tSIZE=1",
    "<a@\udce9.test>",
]


@pytest.mark.parametrize(("written", "address"), TAKEN.items())
def test_a_well_formed_path_is_taken_as_written(written: str, address: str) -> None:
    assert reverse_path(f"FROM:{written}").address == address


@pytest.mark.parametrize("written", REFUSED)
def test_a_malformed_path_is_refused(written: str) -> None:
    with pytest.raises(RefusedError) as sender:
        reverse_path(f"FROM:{written}")
    with pytest.raises(RefusedError) as recipient:
        forward_path(f"TO:{written}")
    assert (str(sender.value)[:9], str(recipient.value)[:9]) == ("501 5.1.7", "501 5.1.3")


def test_a_recipient_is_never_null_nor_an_address_literal_and_may_be_bare_postmaster() -> None:
    replies = []
    for written in ("<>", "<a@[192.0.2.1]>", "<a@[IPv6:::1]>"):
        with pytest.raises(RefusedError) as caught:
            forward_path(f"TO:{written}")
        replies.append(str(caught.value)[:9])
    assert replies == ["501 5.1.3", "550 5.7.1", "550 5.7.1"]
    assert forward_path("TO:<postMaster>").address == "postMaster"
    with pytest.raises(RefusedError):
        reverse_path("FROM:<postmaster>")


def test_parameters_keep_the_case_of_their_values() -> None:
    path = reverse_path("FROM:<a@b.test> size=12 SMTPUTF8  X-Key=aBc+3D")
    assert path.parameters == {"SIZE": "12", "SMTPUTF8": "", "X-KEY": "aBc+3D"}


@pytest.mark.parametrize("word", ["=1", "A==1", "A=", "-A=1", "A_B=1", "A=1 a=2", "A=\x01", "(A)", "A=b=c"])
def test_malformed_parameters_are_refused(word: str) -> None:
    with pytest.raises(RefusedError) as caught:
        reverse_path(f"FROM:<a@b.test> {word}")
    assert str(caught.value)[:9] == "501 5.5.4"


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from('<>@.,:;"\\ab1 -[]()é=\u2028'), max_size=40))
def test_garbage_is_either_refused_or_a_whole_address(text: str) -> None:
    try:
        path = reverse_path(f"FROM:{text}")
    except RefusedError:
        return
    local, at, domain = path.address.rpartition("@")
    assert path.address == "" or (at and local and domain)
    assert path.address in text
    assert path.address.isprintable()


@pytest.mark.parametrize(
    "text", ["<" + "@a," * 600, "<" + "a." * 1000, '<"' + "\\a" * 1000, "<@" + "a." * 1000 + ":", "<" + "." * 1000]
)
def test_hostile_paths_cost_no_more_than_their_length(text: str) -> None:
    with pytest.raises(RefusedError):  # a pattern that tries twice would not come to its end here
        reverse_path(f"FROM:{text * 40}")
