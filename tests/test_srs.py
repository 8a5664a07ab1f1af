"""Senders are rewritten into our domain and back, by us alone and not for ever."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.srs import EXPIRED, FORGED, HASH, SLOTS, Srs, SrsError

SECRET = b"a secret of this installation"
DAY = 86_400
NOW = 1_795_000_000.0


def srs(secret: bytes = SECRET, days_later: int = 0, domain: str = "srs.example.com") -> Srs:
    return Srs(secret, domain, ours=lambda name: name.endswith("example.com"), now=lambda: NOW + days_later * DAY)


def test_a_sender_is_rewritten_and_found_again() -> None:
    address = srs().forward("Pat@Sender.example")
    local, _, domain = address.partition("@")
    assert domain == "srs.example.com"
    assert local.startswith("SRS0=")
    assert local.endswith("=sender.example=Pat")
    assert srs().reverse(address) == "Pat@sender.example"


@pytest.mark.parametrize("fold", [str.lower, str.upper])
def test_case_may_be_lost_on_the_way(fold: "type[str]") -> None:
    assert srs().reverse(fold(srs().forward("pat@sender.example"))).lower() == "pat@sender.example"


@pytest.mark.parametrize(
    "sender", ["", "ann@example.com", "ann@sub.example.com", "SRS0=abc@srs.example.com", "postmaster"]
)
def test_the_null_sender_and_our_own_stay(sender: str) -> None:
    assert srs().forward(sender) == sender


def test_who_forwards_what_was_forwarded_wraps_it_once() -> None:
    first = srs(b"first", domain="first.example").forward("pat@sender.example")
    second = srs(b"second", domain="second.example").forward(first)
    third = srs(b"third", domain="third.example").forward(second)
    assert second.startswith("SRS1=")
    assert second.endswith(f"=first.example={first.partition('@')[0][4:]}@second.example")
    assert (
        third.partition("=")[2].partition("=")[2].partition("@")[0]
        == (second.partition("=")[2].partition("=")[2].partition("@")[0])
    )
    assert srs(b"third", domain="third.example").reverse(third) == first
    assert srs(b"second", domain="second.example").reverse(second) == first
    assert srs(b"first", domain="first.example").reverse(first) == "pat@sender.example"


@pytest.mark.parametrize("separator", ["+", "-"])
def test_other_separators_of_other_forwarders_survive(separator: str) -> None:
    theirs = f"SRS0{separator}abcd=TT=sender.example=pat@first.example"
    assert srs().reverse(srs().forward(theirs)) == theirs


def test_an_address_ends_with_its_days() -> None:
    address = srs().forward("pat@sender.example")
    assert srs(days_later=21).reverse(address) == "pat@sender.example"
    assert srs(days_later=-1).reverse(address) == "pat@sender.example"  # a clock that is late
    for days_later in (22, 500, SLOTS - 2):
        with pytest.raises(SrsError, match=EXPIRED):
            srs(days_later=days_later).reverse(address)


def forgeries() -> list[str]:
    """Everything that differs from a genuine one in one place."""
    genuine = srs().forward("pat@sender.example")
    local, _, domain = genuine.partition("@")
    _, given_hash, stamp, host, user = local.split("=")
    return [
        f"SRS0={given_hash}={stamp}={host}={user}x@{domain}",
        f"SRS0={given_hash}={stamp}=other.example={user}@{domain}",
        f"SRS0={given_hash}=AA={host}={user}@{domain}",
        f"SRS0={given_hash[:-1]}={stamp}={host}={user}@{domain}",
        f"SRS0={given_hash[:4]}={stamp}={host}={user}@{domain}",
        f"SRS0=={stamp}={host}={user}@{domain}",
        f"SRS0={'A' * HASH}={stamp}={host}={user}@{domain}",
        f"SRS0={given_hash}={stamp}={host}@{domain}",
        f"SRS0={given_hash}@{domain}",
        f"SRS0=@{domain}",
        f"SRS1={given_hash}={stamp}={host}={user}@{domain}",
        f"SRS1={given_hash}=first.example==x=y=z=u@{domain}",
        f"{local}@elsewhere.example",
        f"pat@{domain}",
        srs(b"another secret").forward("pat@sender.example"),
    ]


@pytest.mark.parametrize("address", forgeries())
def test_a_forged_address_leads_nowhere(address: str) -> None:
    with pytest.raises(SrsError, match=FORGED):
        srs().reverse(address)


@pytest.mark.parametrize(
    ("address", "claimed"),
    [
        ("SRS0=x@srs.example.com", True),
        ("srs1+x@SRS.example.com", True),
        ('"srs0-a b"@srs.example.com', True),
        ("srs0@srs.example.com", False),
        ("srs2=x@srs.example.com", False),
        ("SRS0=x@example.com", False),
        ("pat@srs.example.com", False),
    ],
)
def test_what_looks_like_one_of_ours_is_known(address: str, claimed: bool) -> None:
    assert srs().claims(address) is claimed


@given(local=st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable() and '"' not in text))
def test_every_local_part_comes_back(local: str) -> None:
    quoted = '"' + local.replace("\\", "\\\\") + '"'
    back = srs().reverse(srs().forward(f"{quoted}@sender.example"))
    assert back in (f"{quoted}@sender.example", f"{local}@sender.example")


@given(address=st.text(max_size=80))
def test_nothing_that_anybody_writes_makes_it_stumble(address: str) -> None:
    with pytest.raises(SrsError):
        srs().reverse(f"SRS0={address}@srs.example.com")
    srs().forward(address)


PERL = """
use Mail::SRS; my $srs = Mail::SRS->new(Secret => $ARGV[0], HashLength => 6, HashMin => 6, MaxAge => 21);
print $ARGV[1] eq 'forward' ? $srs->forward($ARGV[2], 'srs.example.com') : $srs->reverse($ARGV[2]);
"""


def mail_srs(direction: str, address: str) -> str:
    """What Mail::SRS of CPAN says, with the same secret."""
    if shutil.which("perl") is None:
        pytest.skip("perl is not installed")
    if subprocess.run(["perl", "-MMail::SRS", "-e1"], capture_output=True, check=False).returncode:
        pytest.skip("libmail-srs-perl is not installed")
    arguments = ["perl", "-e", PERL, SECRET.decode(), direction, address]
    return subprocess.run(arguments, capture_output=True, check=True, text=True).stdout


@pytest.mark.parametrize(
    "sender", ["pat@sender.example", "SRS0=abcd=TT=sender.example=pat@first.example", "p=a+t-x@sender.example"]
)
def test_mail_srs_reads_what_we_write_and_writes_what_we_read(sender: str) -> None:
    today = Srs(SECRET, "srs.example.com")
    assert mail_srs("reverse", today.forward(sender)) == sender
    assert today.reverse(mail_srs("forward", sender)) == sender
    assert mail_srs("forward", sender) == today.forward(sender)
