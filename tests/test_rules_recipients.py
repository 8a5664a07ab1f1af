"""Whose mail is it: patterns, their normal form, list files, bare postmaster."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.errors import Problem
from inbound.recipients import LARGEST_LIST, forms, pattern, read_list
from inbound.schema import Place
from tests.ruling import rules

PLACE = Place(file="rules.yaml", line=3, column=5)


@pytest.mark.parametrize(
    ("written", "address", "meets"),
    [
        ("user@example.com", "user@example.com", True),
        ("user@example.com", "User@EXAMPLE.com.", True),
        ("USER@Example.COM", "user@example.com", True),
        ("user@example.com", "user+label@example.com", True),
        ("user@example.com", "user+a+b@example.com", True),
        ("user@example.com", "user@sub.example.com", False),
        ("user@example.com", "users@example.com", False),
        ("user@example.com", "+user@example.com", False),
        ("user+label@example.com", "user+label@example.com", True),
        ("user+label@example.com", "USER+Label@example.com", True),
        ("user+label@example.com", "user@example.com", False),
        ("user+label@example.com", "user+other@example.com", False),
        ("user+label@example.com", "user+label+more@example.com", False),
        ("example.com", "anybody@example.com", True),
        ("example.com", "anybody@sub.example.com", False),
        ("example.com", "anybody@notexample.com", False),
        (".example.com", "anybody@sub.example.com", True),
        (".example.com", "anybody@a.b.example.com", True),
        (".example.com", "anybody@example.com", False),
        (".example.com", "anybody@notexample.com", False),
        ("bücher.example", "a@xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "a@BÜCHER.example", True),
        ("jörg@example.com", "JÖRG@example.com", True),
        ('"user"@example.com', "user@example.com", True),
        ("user@example.com", '"user"@example.com', True),
        ('"u@x"@example.com', '"U@X"@example.com', True),
        ('"u@x"@example.com', "u@x.example.com", False),
        ("+x@example.com", "+x@example.com", True),
        ("example.com", "+x@example.com", True),
    ],
)
def test_an_address_meets_a_pattern(written: str, address: str, meets: bool) -> None:
    assert (pattern(written) in forms(address)) is meets


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("", "is no address and no domain"),
        ("..", "is no address and no domain"),
        ("exa mple.com", "is no address and no domain"),
        ("*.example.com", "there are no wildcards; write .example.com for all domains below one"),
        ("*@example.com", "there are no wildcards; write example.com for all addresses at the domain"),
        ("a*@example.com", "there are no wildcards"),
        ("@example.com", "has no local part that could be an address"),
        ("a b@example.com", "has no local part that could be an address"),
        ("a@", "'' is no domain"),
        ("a@exa_mple..com", "'exa_mple..com' is no domain"),
        ("a@[192.0.2.1]", "'[192.0.2.1]' is no domain"),
        (f"{'a' * 257}@example.com", "has no local part that could be an address"),
    ],
)
def test_what_is_no_pattern_is_told(written: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        pattern(written)


def test_the_forms_of_an_address_go_from_the_nearest_to_the_widest() -> None:
    assert forms("User+L@a.Example.com") == (
        "user+l@a.example.com",
        "user@a.example.com",
        "a.example.com",
        ".example.com",
        ".com",
    )


@given(st.text(max_size=40))
def test_no_text_breaks_the_reading_of_an_address(text: str) -> None:
    assert all(form == form.strip() for form in forms(text))


@given(st.from_regex(r"[a-z0-9]{1,8}(\+[a-z0-9]{1,4})?@([a-z]{1,5}\.){1,3}[a-z]{2,4}", fullmatch=True))
def test_a_written_address_meets_itself_and_its_own_normal_form(address: str) -> None:
    assert forms(address)[0] == pattern(address)
    assert pattern(pattern(address)) == pattern(address)


def test_a_list_file_has_one_address_or_domain_a_line(tmp_path: Path) -> None:
    file = tmp_path / "partners.txt"
    file.write_bytes("\ufeff# partners\nA@Example.com  # the first\n\n  .example.org\r\nbücher.example\n".encode())
    problems: list[Problem] = []
    assert read_list(file, PLACE, problems) == {"a@example.com", ".example.org", "xn--bcher-kva.example"}
    assert problems == []


def test_the_lines_of_a_list_that_are_no_address_are_told_at_their_place(tmp_path: Path) -> None:
    file = tmp_path / "partners.txt"
    file.write_text("a@example.com\n  not an address\n*@example.com\n", encoding="utf-8")
    problems: list[Problem] = []
    assert read_list(file, PLACE, problems) == {"a@example.com"}
    assert [(problem.file, problem.line, problem.column) for problem in problems] == [
        (str(file), 2, 3),
        (str(file), 3, 1),
    ]


def test_a_list_that_is_wrong_altogether_is_told_in_short(tmp_path: Path) -> None:
    file = tmp_path / "partners.txt"
    file.write_text("no address\n" * 1000, encoding="utf-8")
    problems: list[Problem] = []
    assert read_list(file, PLACE, problems) == frozenset()
    assert len(problems) == 21
    assert problems[-1].message == "and 980 more lines that are no address and no domain"


@pytest.mark.parametrize(
    ("octets", "says"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"a@b.example\n\xff\n", "is not UTF-8 text"),
        (b"#" * (LARGEST_LIST + 1), "is larger than"),
    ],
)
def test_a_list_that_cannot_be_read_is_told_where_it_is_named(tmp_path: Path, octets: bytes | None, says: str) -> None:
    file = tmp_path / "partners.txt"
    if octets is not None:
        file.write_bytes(octets)
    problems: list[Problem] = []
    assert read_list(file, PLACE, problems) == frozenset()
    (problem,) = problems
    assert (problem.file, problem.line, problem.column) == ("rules.yaml", 3, 5)
    assert says in problem.message


@pytest.mark.parametrize(
    ("recipients", "covered"),
    [
        ("[postmaster@example.com]", True),
        ("[a@example.net, postmaster@example.net]", True),
        ("[example.com]", True),
        ("[.example.com]", True),
        ("[abuse@example.com]", False),
        ("[postmaster+x@example.com]", False),
    ],
)
def test_bare_postmaster_meets_what_postmaster_at_a_domain_of_the_rules_meets(
    tmp_path: Path, recipients: str, covered: bool
) -> None:
    ruleset = rules(tmp_path, f"rules: [{{name: r, recipients: {recipients}, actions: [drop]}}]")
    assert ruleset.covers("postmaster") is covered
    assert ruleset.covers("PostMaster") is covered
    assert not ruleset.covers("abuse")


def test_a_rule_for_everybody_covers_bare_postmaster(tmp_path: Path) -> None:
    assert rules(tmp_path, "rules: [{name: r, actions: [drop]}]").covers("postmaster")


@pytest.mark.parametrize(
    ("rule", "covered"),
    [
        ("actions: [{s3: {bucket: bucket}}]", True),
        ("when: {spam: fail}, actions: [{s3: {bucket: bucket}}, stop]", True),
        ("recipients: [a@example.com], actions: [{bounce: {message: Gone}}]", True),
        ("recipients: [b@example.com], actions: [drop]", False),
        ("when: {virus: fail}, actions: [{bounce: {message: No}}]", False),
        ("actions: [{add_header: {name: X-A, value: b}}, stop]", False),
        ("enabled: no, actions: [drop]", False),
    ],
)
def test_an_address_exists_when_a_rule_names_it_or_would_take_its_mail(
    tmp_path: Path, rule: str, covered: bool
) -> None:
    assert rules(tmp_path, f"rules: [{{name: r, {rule}}}]").covers("a@example.com") is covered


def test_tls_and_scans_are_asked_for_by_any_enabled_rule_that_is_for_the_recipient(tmp_path: Path) -> None:
    ruleset = rules(
        tmp_path,
        """
rules:
  - {name: a, recipients: [a@example.com], tls: require, scan: no, actions: [drop]}
  - {name: b, recipients: [b@example.com], actions: [drop]}
  - {name: c, recipients: [c@example.com], scan: no, actions: [drop]}
  - {name: d, enabled: no, tls: require, actions: [drop]}
""",
    )
    assert [ruleset.requires_tls(f"{who}@example.com") for who in "abc"] == [True, False, False]
    assert [ruleset.wants_scan((f"{who}@example.com",)) for who in "abc"] == [False, True, False]
    assert ruleset.wants_scan(("a@example.com", "b@example.com"))
