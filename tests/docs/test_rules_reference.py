"""docs/rules.md says what the code knows, and its examples work."""

import dataclasses
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from inbound.actions.kinds import ACTIONS
from inbound.cases import Expect, Found, Given
from inbound.conditions import Condition
from inbound.errors import Problem
from inbound.facts import ATTRIBUTES, Facts
from inbound.grammar import OPERATORS, Lists, condition
from inbound.mail import Client, Tls
from inbound.rules import Rule
from inbound.ruleset import RuleForm, loaded
from inbound.ruletest import run, verdicts_of
from inbound.schema import Node, parse
from inbound.verdicts import BlockVerdict
from tests.ruling import mail

TEXT = Path("docs/rules.md").read_text(encoding="utf-8")
STATUSES = {"pass", "fail", "gray", "processing_failed", "disabled"}


def table(head: str) -> list[list[str]]:
    """The rows of the table whose head begins so, cell by cell."""
    lines = TEXT[TEXT.index(f"| {head} ") :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def keys_of(record: Any) -> list[str]:
    return [field.name.removesuffix("_") for field in dataclasses.fields(record)]


def test_the_table_of_a_rule_has_its_keys_and_defaults() -> None:
    rows = table("key")
    assert [names(row[0])[0] for row in rows] == keys_of(RuleForm)
    shown = {names(row[0])[0]: names(row[1]) for row in rows}
    for field in dataclasses.fields(RuleForm):
        if isinstance(field.default, bool | str) and field.default:
            assert shown[field.name] == ["yes" if field.default is True else field.default]
    assert set(keys_of(RuleForm)) <= set(keys_of(Rule))


def test_the_table_of_attributes_is_the_code_s() -> None:
    assert [[names(row[0])[0], *row[1:]] for row in table("attribute | kind")] == [
        [one.name, one.kind, one.known, one.about] for one in ATTRIBUTES.values()
    ]


def test_the_table_of_words_is_the_code_s() -> None:
    shown = {names(row[0])[0]: (set(names(row[1])), "no statuses" in row[1]) for row in table("attribute | other")}
    assert shown == {
        one.name: (
            (set(one.words - STATUSES), False)
            if one.words > STATUSES or one.words == STATUSES
            else (set(one.words), True)
        )
        for one in ATTRIBUTES.values()
        if one.words
    }


def test_the_table_of_operators_is_the_code_s() -> None:
    kinds: set[str] = set().union(*OPERATORS.values())
    shown = {
        names(row[0])[0]: kinds if row[1] == "every kind" else set(row[1].split(", ")) for row in table("operator")
    }
    assert shown == {name: set(of) for name, of in OPERATORS.items()}


def test_the_table_of_actions_is_the_code_s() -> None:
    assert {names(row[0])[0]: names(row[1]) for row in table("action")} == {
        kind: keys_of(action) for kind, action in ACTIONS.items()
    }


def test_the_tables_of_tests_are_the_code_s() -> None:
    assert [names(row[0])[0] for row in table("`given`")] == keys_of(Given)
    assert [names(row[0])[0] for row in table("`expect`")] == keys_of(Expect)
    defaults = {names(row[0])[0]: names(row[1]) for row in table("`given`")}
    for field in dataclasses.fields(Given):
        if isinstance(field.default, bool | str):
            assert defaults[field.name.removesuffix("_")] == [field.default or "no"]
    assert Found().dmarc_policy == "none"
    assert not Found().spam_score


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
def test_an_example_loads_and_passes_its_tests(tmp_path: Path, block: str) -> None:
    (tmp_path / "partners.txt").write_text("example.net\n", encoding="utf-8")
    ruleset = loaded(block, ACTIONS, str(tmp_path / "rules.yaml"))
    assert [result.problem for result in run(ruleset, ("example.com",)) if not result.passed] == []


# --- Mail Manager: for each row a mail of which the condition is true, and one of which it is not.

PLAIN: dict[str, Any] = {}
MANAGER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "RECIPIENT EQUALS": ({"recipient": "B@example.com"}, {"recipient": "c@example.com"}),
    "RECIPIENT NOT_EQUALS": ({"recipient": "c@example.com"}, {"recipient": "b@example.com"}),
    "RECIPIENT STARTS_WITH": ({"recipient": "Sales-north@example.com"}, {"recipient": "north-sales-@example.com"}),
    "RECIPIENT ENDS_WITH": ({"recipient": "a@Example.com"}, {"recipient": "a@sub.example.com"}),
    "RECIPIENT CONTAINS": ({"recipient": "new-Ticket-1@example.com"}, {"recipient": "a@example.com"}),
    "MAIL_FROM EQUALS": ({"mail_from": "A@example.net"}, {"mail_from": ""}),
    "HELO ENDS_WITH": ({"helo": "mx.Example.net"}, {"helo": "example.net.example"}),
    "SENDER CONTAINS": ({"header": "Sender: The Robot <robot@a.example>\r\n"}, {"header": "From: robot@a.example\r\n"}),
    "FROM EQUALS": ({"header": "From: A <a@example.net>\r\n"}, {"header": 'From: "a@example.net" <b@example.net>\r\n'}),
    "SUBJECT STARTS_WITH": ({"header": "Subject: [Ticket 1]\r\n"}, {"header": "Subject: Re: [ticket 1]\r\n"}),
    "TO EQUALS": ({"header": "To: b@example.com, A@example.com\r\n"}, {"header": "To: b@example.com\r\n"}),
    "CC NOT_EQUALS": ({"header": "To: a@example.com\r\n"}, {"header": "Cc: a@example.com\r\n"}),
    "MimeHeaderAttribute EQUALS": ({"header": "x-priority: 1\r\n"}, {"header": "X-Priority: 11\r\n"}),
    "READ_RECEIPT_REQUESTED": ({"header": "Disposition-Notification-To: a@b.example\r\n"}, PLAIN),
    "TLS IS_TRUE": (PLAIN, {"tls": None}),
    "TLS IS_FALSE": ({"tls": None}, PLAIN),
    "TLS_WRAPPED IS_FALSE": (PLAIN, {}),
    "TLS_PROTOCOL MINIMUM_TLS_VERSION": ({"tls": "TLSv1.2"}, {"tls": "TLSv1.1"}),
    "TLS_PROTOCOL IS": ({"tls": "TLSv1.3"}, {"tls": "TLSv1.2"}),
    "MESSAGE_SIZE EQUALS": ({"size": 2048}, {"size": 2047}),
    "MESSAGE_SIZE NOT_EQUALS": ({"size": 2047}, {"size": 2048}),
    "MESSAGE_SIZE LESS_THAN": ({"size": 2047}, {"size": 2048}),
    "MESSAGE_SIZE GREATER_THAN": ({"size": 2049}, {"size": 2048}),
    "MESSAGE_SIZE LESS_THAN_OR_EQUAL": ({"size": 2048}, {"size": 2049}),
    "MESSAGE_SIZE GREATER_THAN_OR_EQUAL": ({"size": 2048}, {"size": 2047}),
    "SOURCE_IP CIDR_MATCHES": ({"ip": "192.0.2.200"}, {"ip": "198.51.100.8"}),
    "SOURCE_IP NOT_CIDR_MATCHES": ({"ip": "2001:db8::1"}, {"ip": "198.51.100.7"}),
    "SENDER_IPV6 CIDR_MATCHES": ({"ip": "2001:db8:1::1"}, {"ip": "2001:db9::1"}),
    "SPF EQUALS": ({"found": {"spf": "neutral"}}, {"found": {"spf": "softfail"}}),
    "DKIM NOT_EQUALS": ({"found": {"dkim": "none"}}, {"found": {"dkim": "pass"}}),
    "DmarcExpression EQUALS": ({"found": {"dmarc_policy": "reject"}}, {"found": {"dmarc_policy": "none"}}),
    "DmarcExpression NOT_EQUALS": ({"found": {"dmarc_policy": "reject"}}, {"found": {"dmarc_policy": "quarantine"}}),
    "IsInAddressList RECIPIENT": ({"recipient": "a+x@known.example"}, {"recipient": "b@known.example"}),
    "IsInAddressList MAIL_FROM": ({"mail_from": "a@known.example"}, {"mail_from": "b@known.example"}),
    "IsInAddressList SENDER": ({"header": "Sender: a@known.example\r\n"}, {"header": "Sender: b@known.example\r\n"}),
    "IsInAddressList FROM": ({"header": "From: a@known.example\r\n"}, {"header": "From: b@known.example\r\n"}),
    "IsInAddressList TO": ({"header": "To: a@known.example\r\n"}, {"header": "To: b@known.example\r\n"}),
    "IsInAddressList CC": ({"header": "Cc: anybody@all.example\r\n"}, {"header": "Cc: b@known.example\r\n"}),
    "Analysis of an Add On": ({"found": {"virus": "fail"}}, PLAIN),
}


def facts(*, recipient: str = "you@example.com", tls: str | None = "TLSv1.3", **given: Any) -> Facts:
    client = Client(
        ip=ip_address(given.get("ip", "192.0.2.1")),
        helo=given.get("helo", "mail.example.net"),
        tls=Tls(version=tls, cipher="x") if tls else None,
    )
    header = given.get("header", "From: Sender <sender@example.net>\r\n")
    padding = max(0, given.get("size", 0) - len(mail(header=header).raw))
    message = mail(recipient, header=header, client=client, mail_from=given.get("mail_from", "sender@example.net"))
    message = dataclasses.replace(message, raw=message.raw + b"." * padding)
    return Facts(
        recipient=recipient,
        client=client,
        mail_from=message.mail_from,
        block=BlockVerdict(),
        mail=message,
        verdicts=verdicts_of(Found(**given.get("found", {})), BlockVerdict(), scan=True),
    )


def tree(cell: str) -> Condition:
    text = "\n".join(names(cell))
    problems: list[Problem] = []
    node = parse(text, "docs/rules.md", problems)
    assert isinstance(node, Node)
    known = {"known": frozenset({"a@known.example", "all.example"})}
    built = condition(node, Lists(named=known, read=lambda _: frozenset()), problems)
    assert problems == []
    assert built is not None
    return built


def test_every_condition_of_mail_manager_is_in_the_table() -> None:
    assert [re.sub("`", "", row[0]) for row in table("Mail Manager")] == list(MANAGER)


@pytest.mark.parametrize("row", table("Mail Manager"), ids=lambda row: re.sub("`", "", row[0]))
def test_a_condition_of_mail_manager_can_be_written(row: list[str]) -> None:
    name = re.sub("`", "", row[0])
    fits, misses = MANAGER[name]
    condition = tree(row[1])
    assert condition.weigh(facts(**fits)).truth is True
    always = name == "TLS_WRAPPED IS_FALSE"
    assert condition.weigh(facts(**misses)).truth is always
