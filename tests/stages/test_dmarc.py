import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from inbound.stages.alignment import aligned, walk
from inbound.stages.dmarc import Dmarc
from inbound.testing import FakeResolver
from inbound.verdicts import DkimSignature, DkimVerdict, DmarcVerdict, SpfVerdict, Status
from tests.stages.builders import mail_from

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "cases" / "dmarc.yaml").read_text("utf-8"))

NO_SPF = SpfVerdict(status=Status.GRAY, result="none")
NO_DKIM = DkimVerdict(status=Status.GRAY, result="none")


def zone(case: dict[str, Any]) -> dict[str, Any]:
    records = {
        f"_dmarc.{name}": {"TXT": [text] if isinstance(text, str) else text}
        for name, text in case.get("records", {}).items()
    }
    return {**records, **case.get("zone", {})}


def spf(case: dict[str, Any]) -> SpfVerdict:
    if "spf" not in case:
        return NO_SPF
    result, domain = case["spf"]
    return SpfVerdict(status=Status.GRAY, result=result, domain=domain)


def dkim(case: dict[str, Any]) -> DkimVerdict:
    signatures = tuple(DkimSignature(result=result, domain=domain) for result, domain in case.get("dkim", ()))
    return DkimVerdict(status=Status.GRAY, result="none", signatures=signatures)


def judge(case: dict[str, Any]) -> DmarcVerdict:
    header = case.get("header") or f"From: author@{case['from']}"
    mail = mail_from(raw=header.encode() + b"\r\n\r\nhello\r\n")
    return asyncio.run(Dmarc(FakeResolver(zone(case)))(mail, spf(case), dkim(case)))


@pytest.mark.parametrize("case", CASES, ids=[case["it"] for case in CASES])
def test_dmarc(case: dict[str, Any]) -> None:
    verdict = judge(case)
    found = {key: getattr(verdict, key) for key in case["expect"]}
    found = {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
    assert case["expect"] == found


def test_a_stage_that_broke_before_it_knew_a_domain_leaves_dmarc_undecided() -> None:
    resolver = FakeResolver({"_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]}})
    mail = mail_from(raw=b"From: a@example.com\r\n\r\n")
    broken = SpfVerdict(status=Status.PROCESSING_FAILED, result="temperror")
    assert asyncio.run(Dmarc(resolver)(mail, broken, NO_DKIM)).result == "temperror"
    broken_dkim = DkimVerdict(status=Status.PROCESSING_FAILED, result="temperror")
    assert asyncio.run(Dmarc(resolver)(mail, NO_SPF, broken_dkim)).result == "temperror"


def test_the_walk_asks_the_names_that_the_rfc_lists_and_no_more() -> None:
    resolver = FakeResolver({})
    asyncio.run(walk("a.b.c.d.e.f.g.h.i.j.mail.example.com", resolver))
    asked = [
        "a.b.c.d.e.f.g.h.i.j.mail.example.com",
        "g.h.i.j.mail.example.com",
        "h.i.j.mail.example.com",
        "i.j.mail.example.com",
        "j.mail.example.com",
        "mail.example.com",
        "example.com",
        "com",
    ]
    assert [(f"_dmarc.{name}", "TXT") for name in asked] == resolver.asked


def test_the_walk_cuts_a_name_of_eight_labels_to_seven() -> None:
    resolver = FakeResolver({})
    asyncio.run(walk("a.b.c.d.e.f.g.com", resolver))
    assert [name for name, _ in resolver.asked][:2] == ["_dmarc.a.b.c.d.e.f.g.com", "_dmarc.b.c.d.e.f.g.com"]
    assert len(resolver.asked) == 8


def test_the_walk_ends_at_a_record_that_says_what_it_is() -> None:
    resolver = FakeResolver({"_dmarc.b.example.com": {"TXT": ["v=DMARC1; psd=n"]}})
    asyncio.run(walk("a.b.example.com", resolver))
    assert [name for name, _ in resolver.asked] == ["_dmarc.a.b.example.com", "_dmarc.b.example.com"]


@pytest.mark.parametrize(("np", "asked"), [("quarantine", []), ("reject", [("sub.example.com", "A")])])
def test_whether_the_author_domain_exists_is_one_question_and_only_where_the_policy_turns_on_it(
    np: str, asked: list[tuple[str, str]]
) -> None:
    resolver = FakeResolver({"_dmarc.example.com": {"TXT": [f"v=DMARC1; p=none; sp=quarantine; np={np}"]}})
    mail = mail_from(raw=b"From: a@sub.example.com\r\n\r\n")
    assert asyncio.run(Dmarc(resolver)(mail, NO_SPF, NO_DKIM)).policy == np
    assert [question for question in resolver.asked if question[1] != "TXT"] == asked


def test_names_that_are_equal_are_aligned_without_asking() -> None:
    resolver = FakeResolver({})
    assert asyncio.run(aligned("example.com", "example.com", resolver))
    assert not asyncio.run(aligned("example.com", "example.org", resolver))
    assert not resolver.asked


def test_without_any_record_a_parent_and_its_child_are_aligned_and_siblings_are_not() -> None:
    resolver = FakeResolver({})
    assert asyncio.run(aligned("mail.example.com", "example.com", resolver))
    assert asyncio.run(aligned("example.com", "mail.example.com", resolver))
    assert not asyncio.run(aligned("a.example.com", "b.example.com", resolver))


def test_a_long_record_is_read_in_linear_time_and_an_endless_one_not_at_all() -> None:
    uris = ",".join(f"mailto:a{at}@b.example" for at in range(300))
    for text, result in (
        (f"v=DMARC1; p=reject; rua={uris}", "fail"),
        ("v=DMARC1; p=reject; x=" + "y" * 60_000, "none"),
    ):
        assert judge({"from": "example.com", "records": {"example.com": text}}).result == result
