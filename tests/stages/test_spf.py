import asyncio
from ipaddress import ip_address
from typing import Any

import pytest
import spf

from inbound.mail import IPAddress
from inbound.stages.spf import Spf
from inbound.testing import FakeResolver, Records
from inbound.verdicts import SpfVerdict, Status
from tests.stages.builders import NOW, mail_from


def judge(
    records: Records,
    sender: str = "sender@sender.example",
    *,
    helo: str = "mx.sender.example",
    ip: str = "192.0.2.1",
) -> SpfVerdict:
    client: IPAddress = ip_address(ip)
    stage = Spf(FakeResolver(records), receiver="mx.example.com", now=lambda: NOW)
    return asyncio.run(stage(mail_from(sender, helo=helo, client_ip=client)))


def record(text: str, **more: Any) -> dict[str, Any]:
    return {"sender.example": {"TXT": [text]}} | {name.replace("_", "."): entry for name, entry in more.items()}


@pytest.mark.parametrize(
    ("text", "result", "status"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", "pass", Status.PASS),
        ("v=spf1 -all", "fail", Status.FAIL),
        ("v=spf1 ~all", "softfail", Status.FAIL),
        ("v=spf1 ?all", "neutral", Status.GRAY),
        ("v=spf1", "neutral", Status.GRAY),
        ("hello", "none", Status.GRAY),
        ("v=spf1 moo", "permerror", Status.GRAY),
        ("v=spf1 a:broken.example -all", "temperror", Status.PROCESSING_FAILED),
    ],
)
def test_each_result_has_its_status(text: str, result: str, status: Status) -> None:
    verdict = judge(record(text, broken_example="SERVFAIL"))
    assert (verdict.result, verdict.status) == (result, status)
    assert (verdict.domain, verdict.identity) == ("sender.example", "mailfrom")


def test_a_domain_without_record_and_a_domain_that_is_not_there_have_none() -> None:
    assert judge({}).result == "none"
    assert judge({"sender.example": {"A": ["192.0.2.1"]}}).result == "none"


def test_the_null_reverse_path_is_judged_by_helo() -> None:
    verdict = judge({"mx.sender.example": {"TXT": ["v=spf1 a -all"], "A": ["192.0.2.1"]}}, "")
    assert (verdict.result, verdict.domain, verdict.identity) == ("pass", "mx.sender.example", "helo")


@pytest.mark.parametrize("helo", ["", "localhost", "[192.0.2.1]", "192 0 2 1", "x" * 64 + ".example", "a..example"])
def test_a_helo_that_is_no_domain_name_has_no_policy(helo: str) -> None:
    verdict = judge({}, "", helo=helo)
    assert (verdict.result, verdict.status, verdict.reason) == ("none", Status.GRAY, "no domain name in HELO")


@pytest.mark.parametrize(
    "sender", ["local", "a@localhost", "a@[192.0.2.1]", "a@b..example", "@", "a@" + "x." * 130 + "example"]
)
def test_a_sender_without_domain_name_has_no_policy(sender: str) -> None:
    assert judge({}, sender).reason == "no domain name in MAIL FROM"


@pytest.mark.parametrize("sender", ["a@bücher.example", "ü@xn--bcher-kva.example", "A@XN--BCHER-KVA.EXAMPLE."])
def test_a_sender_beyond_ascii_is_judged_by_its_a_labels(sender: str) -> None:
    records: Records = {"xn--bcher-kva.example": {"TXT": ["v=spf1 exists:%{l}.never.example ip4:192.0.2.1 -all"]}}
    assert judge(records, sender).result == "pass"


@pytest.mark.parametrize(
    ("local", "name"),
    [
        ("strong-bad", "strong-bad.spf.example"),
        ("a+b=c", "a+b=c.spf.example"),
        ('"a@b"', '"a@b".spf.example'),
        ('"two words"', '"two words".spf.example'),
        ("", "postmaster.spf.example"),
    ],
)
def test_any_local_part_can_stand_in_a_macro(local: str, name: str) -> None:
    records: Records = {"sender.example": {"TXT": ["v=spf1 exists:%{l}.spf.example -all"]}, name: {"A": ["127.0.0.2"]}}
    assert judge(records, f"{local}@sender.example").result == "pass"


@pytest.mark.parametrize(
    ("ip", "result"),
    [("192.0.2.1", "pass"), ("::ffff:192.0.2.1", "pass"), ("2001:db8::1", "pass"), ("2001:db8::2", "fail")],
)
def test_ipv6_clients_and_mapped_addresses(ip: str, result: str) -> None:
    assert judge(record("v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all"), ip=ip).result == result


def test_eleven_lookups_are_too_many_and_ten_are_not() -> None:
    zone: dict[str, Any] = {f"n{at}.example": {"A": ["198.51.100.1"]} for at in range(11)}
    mechanisms = [f"a:n{at}.example" for at in range(11)]
    ten = {"sender.example": {"TXT": ["v=spf1 " + " ".join(mechanisms[:10]) + " ip4:192.0.2.1 -all"]}}
    eleven = {"sender.example": {"TXT": ["v=spf1 " + " ".join(mechanisms) + " ip4:192.0.2.1 -all"]}}
    assert judge(zone | ten).result == "pass"
    assert judge(zone | eleven).result == "permerror"


def test_three_void_lookups_are_too_many_and_two_are_not() -> None:
    assert judge(record("v=spf1 a:no1.example a:no2.example ip4:192.0.2.1 -all")).result == "pass"
    verdict = judge(record("v=spf1 a:no1.example a:no2.example a:no3.example ip4:192.0.2.1 -all"))
    assert (verdict.result, verdict.reason) == ("permerror", "more than 2 void look-ups")


def test_eleven_mail_exchangers_are_too_many() -> None:
    zone: dict[str, Any] = {f"mx{at}.example": {"A": ["198.51.100.1"]} for at in range(11)}
    exchangers = [f"10 mx{at}.example" for at in range(11)]
    many = {"sender.example": {"TXT": ["v=spf1 mx ip4:192.0.2.1 -all"], "MX": exchangers}}
    assert judge(zone | many).result == "permerror"
    many["sender.example"]["MX"] = exchangers[:10]
    assert judge(zone | many).result == "pass"


def test_an_exchanger_without_address_is_no_void_lookup() -> None:
    zone: dict[str, Any] = {f"mx{at}.example": {"A": ["198.51.100.1"]} for at in range(5)}
    exchangers = [f"10 mx{at}.example" for at in range(5)]
    sender = {"sender.example": {"TXT": ["v=spf1 mx ip6:2001:db8::1 -all"], "MX": exchangers}}
    assert judge(zone | sender, ip="2001:db8::1").result == "pass"


def test_a_redirect_counts_as_a_lookup_when_it_is_taken_and_only_then() -> None:
    zone: dict[str, Any] = {f"n{at}.example": {"A": ["198.51.100.1"]} for at in range(10)}
    zone |= {"target.example": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]}}
    ten = " ".join(f"a:n{at}.example" for at in range(10))
    assert judge(zone | record(f"v=spf1 {ten} ip4:192.0.2.1 redirect=target.example")).result == "pass"
    assert judge(zone | record(f"v=spf1 {ten} redirect=target.example")).result == "permerror"
    assert judge(zone | record(f"v=spf1 {ten.rpartition(' ')[0]} redirect=target.example")).result == "pass"


@pytest.mark.parametrize(
    ("terms", "result"),
    [
        ("REDIRECT=target.example", "pass"),
        ("Redirect=target.example redirect=target.example", "permerror"),
        ("IP4:192.0.2.1 -ALL", "pass"),
        ("x-a=1 x-a=2 ip4:192.0.2.1", "pass"),
        ("x-a=1 x-a=%y ip4:192.0.2.1", "permerror"),
        ("-all EXP=why.example exp=why.example", "permerror"),
    ],
)
def test_names_are_read_in_any_case_and_unknown_modifiers_passed_over(terms: str, result: str) -> None:
    zone = record(f"v=spf1 {terms}", target_example={"TXT": ["v=spf1 ip4:192.0.2.1 -all"]})
    assert judge(zone).result == result


@pytest.mark.parametrize(
    "macro",
    [
        "%{d0}",
        "%{d00r}",
        "%{dx}",
        "%{d1x}",
        "%{d-r}",
        "%{x}",
        "%{}",
        "%{d",
        "%d",
        "%",
        "%{d1000}",
        "%{c}",
        "%{r}",
        "%{t}",
    ],
)
def test_what_is_no_macro_of_a_domain_is_a_permerror(macro: str) -> None:
    assert judge(record(f"v=spf1 exists:{macro}.example -all")).result == "permerror"


@pytest.mark.parametrize(
    ("macro", "expanded"),
    [
        ("%{d}", "mail.sender.example"),
        ("%{d2}", "sender.example"),
        ("%{d9}", "mail.sender.example"),
        ("%{dr}", "example.sender.mail"),
        ("%{d1r}", "mail"),
        ("%{o}", "mail.sender.example"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{l1r-}", "strong"),
        ("%{s}", "strong-bad@mail.sender.example"),
        ("%{S}", "strong-bad%40mail.sender.example"),
        ("%{i}", "192.0.2.1"),
        ("%{ir}.%{v}", "1.2.0.192.in-addr"),
        ("%{h}", "mx.sender.example"),
        ("%{p}", "unknown"),
        ("a%%b", "a%b"),
        ("a%_b", "a b"),
        ("a%-b", "a%20b"),
    ],
)
def test_macros_expand_as_the_rfc_says(macro: str, expanded: str) -> None:
    zone: Records = {
        "mail.sender.example": {"TXT": [f"v=spf1 exists:{macro}.x.example -all"]},
        f"{expanded}.x.example": {"A": ["127.0.0.2"]},
    }
    assert judge(zone, "strong-bad@mail.sender.example").result == "pass"


def test_a_name_that_became_too_long_loses_labels_on_its_left() -> None:
    labels = [letter * 60 for letter in "abcdefg"]  # 437 octets with what follows
    short = ".".join(labels[3:])  # 253
    zone: Records = {
        "sender.example": {"TXT": [f"v=spf1 exists:{'.'.join(labels)}.x.example -all"]},
        f"{short}.x.example": {"A": ["127.0.0.2"]},
    }
    assert judge(zone).result == "pass"


@pytest.mark.parametrize("trouble", ["SERVFAIL", "TIMEOUT", "REFUSED"])
def test_trouble_on_the_way_to_the_clients_name_means_that_ptr_does_not_match(trouble: str) -> None:
    reverse = "1.2.0.192.in-addr.arpa"
    assert judge({"sender.example": {"TXT": ["v=spf1 ptr -all"]}, reverse: trouble}).result == "fail"
    names: Records = {
        "sender.example": {"TXT": ["v=spf1 ptr -all"]},
        reverse: {"PTR": ["a.sender.example", "b.sender.example"]},
        "a.sender.example": {"A": trouble},
        "b.sender.example": {"A": ["192.0.2.1"]},
    }
    assert judge(names).result == "pass"


def test_the_explanation_is_the_domains_and_harmless() -> None:
    text = "%{i} may not send for %{d} to %{r} at %{t}\r\nX-Injected: yes"
    verdict = judge(record("v=spf1 -all exp=why.sender.example", why_sender_example={"TXT": [text]}))
    assert (
        verdict.explanation
        == "192.0.2.1 may not send for sender.example to mx.example.com at 1790000000??X-Injected: yes"
    )


def test_an_explanation_may_be_longer_than_a_name() -> None:
    text = "See www.sender.example. " * 15 + "%{i}"
    verdict = judge(record("v=spf1 -all exp=why.sender.example", why_sender_example={"TXT": [text]}))
    assert verdict.explanation == "See www.sender.example. " * 15 + "192.0.2.1"


@pytest.mark.parametrize(
    "entry",
    [
        {"TXT": ["one", "two"]},
        {"TXT": [b"\xff"]},
        {"TXT": ["%{x}"]},
        {"TXT": ["x" * 600]},
        "SERVFAIL",
        {"A": ["192.0.2.1"]},
    ],
    ids=["two", "octets", "bad macro", "too long", "fault", "none"],
)
def test_an_explanation_that_cannot_be_had_does_not_change_the_fail(entry: Any) -> None:
    verdict = judge(record("v=spf1 -all exp=why.sender.example", why_sender_example=entry))
    assert (verdict.result, verdict.explanation) == ("fail", "")


@pytest.mark.parametrize("text", ["v=spf1 +all exp=why.sender.example", "v=spf1 ~all exp=why.sender.example"])
def test_only_a_fail_fetches_the_explanation(text: str) -> None:
    resolver = FakeResolver({"sender.example": {"TXT": [text]}, "why.sender.example": {"TXT": ["because"]}})
    verdict = asyncio.run(Spf(resolver)(mail_from()))
    assert verdict.explanation == ""
    assert resolver.asked == [("sender.example", "TXT")]


def test_the_explanation_of_a_redirect_is_the_one_of_its_target_and_includes_have_none() -> None:
    zone: Records = {
        "sender.example": {"TXT": ["v=spf1 redirect=other.example exp=why.sender.example"]},
        "other.example": {"TXT": ["v=spf1 include:inner.example -all exp=why.other.example"]},
        "inner.example": {"TXT": ["v=spf1 -all exp=why.inner.example"]},
        "why.sender.example": {"TXT": ["sender"]},
        "why.other.example": {"TXT": ["other %{d}"]},
        "why.inner.example": {"TXT": ["inner"]},
    }
    assert judge(zone).explanation == "other other.example"


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1 a:\xff.example -all",
        "v=spf1 a:xn--.example -all",
        "v=spf1 ip4:1.2.3.4/" + "9" * 30,
        "v=spf1 ip6:::ffff:1.2.3.4.5 -all",
        "v=spf1 mx:%{d -all",
        "v=spf1 exists:%{l99999999999999999999}.example -all",
        "v=spf1 a:-é.example",
        "v=spf1 redirect=",
        "v=spf1 include:sender.example",
        "v=spf1 exp= -all exp=",
    ],
)
def test_no_record_makes_it_raise(text: str) -> None:
    assert judge(record(text)).result in ("permerror", "fail", "none")


@pytest.mark.parametrize("address", ["999.0.2.1", "192.0.2.1/33", "hello", "::1"])
def test_addresses_that_are_none_are_never_a_pass(address: str) -> None:
    verdict = judge({"sender.example": {"TXT": ["v=spf1 a -all"], "A": [address]}})
    assert verdict.status in (Status.FAIL, Status.GRAY)


def test_a_resolver_that_breaks_is_not_the_records_fault() -> None:
    class Broken(FakeResolver):
        async def query(self, name: str, rdtype: Any) -> Any:
            if rdtype == "A":
                raise RuntimeError("a bug of ours")
            return await super().query(name, rdtype)

    with pytest.raises(RuntimeError, match="a bug of ours"):
        asyncio.run(Spf(Broken(record("v=spf1 a -all")))(mail_from()))


def test_pyspf_is_left_as_it_is() -> None:
    lookup, query = spf.DNSLookup, spf.query.dns
    judge(record("v=spf1 -all"))
    assert (lookup, query) == (spf.DNSLookup, spf.query.dns)


def test_many_messages_are_judged_side_by_side_on_one_thread() -> None:
    async def run() -> list[str]:
        zone: dict[str, Any] = {
            f"d{at}.example": {"TXT": ["v=spf1 a -all"], "A": ["192.0.2.1" if at % 2 else "192.0.2.2"]}
            for at in range(40)
        }
        stage = Spf(FakeResolver(zone))
        found = await asyncio.gather(*(stage(mail_from(f"x@d{at}.example")) for at in range(40)))
        return [verdict.result for verdict in found]

    assert asyncio.run(run()) == ["fail", "pass"] * 20
