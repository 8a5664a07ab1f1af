"""Every attribute and every operator, and what a finding says."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from inbound.actions.kinds import ACTIONS
from inbound.cases import Attachment
from inbound.conditions import Condition, Finding
from inbound.errors import ConfigurationError
from inbound.facts import ATTRIBUTES, Facts, tls_number
from inbound.grammar import OPERATORS
from inbound.mail import Client, Mail, Tls
from inbound.ruleset import loaded
from inbound.verdicts import (
    ArcVerdict,
    BlockVerdict,
    DkimVerdict,
    DmarcVerdict,
    IprevVerdict,
    Listing,
    SpamVerdict,
    SpfVerdict,
    Status,
    UpstreamVerdict,
    VirusVerdict,
)
from tests.ruling import CLIENT, PASSED, mail, verdicts


def condition(text: str) -> Condition:
    return loaded(f"rules: [{{name: r, when: {text}, actions: [drop]}}]", ACTIONS).rules[0].when


def facts(
    message: Mail | None = None, *, found: Any = PASSED, recipient: str = "you@example.com", **more: Any
) -> Facts:
    message = message or mail(recipient)
    known = Facts(
        recipient=recipient,
        client=message.client,
        mail_from=message.mail_from,
        block=found.block,
        mail=message,
        verdicts=found,
        parts=lambda: (Attachment(name="Invoice.PDF", type="application/x-dosexec"), Attachment(type="image/png")),
    )
    return replace(known, **more)


def weigh(text: str, known: Facts) -> Finding:
    return condition(text).weigh(known)


WRITTEN = mail(
    header=(
        "From: =?utf-8?q?J=C3=B6rg?= <Joerg@B\u00fccher.example>, Second <second@example.net>\r\n"
        "Sender: robot@example.net\r\n"
        "To: group: You <you@example.com>, other@example.com;\r\n"
        "Cc: boss@example.com\r\n"
        "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_aus?= Berlin\r\n"
        "X-Mailer: One\r\n"
        "X-Mailer: Two\r\n"
        "X-Empty:\r\n"
    )
)


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("{from: joerg@bücher.example}", True),
        ("{from: JOERG@xn--bcher-kva.example}", True),
        ("{from: [nobody@example.com, second@example.net]}", True),
        ("{from: {ends_with: '@bücher.example'}}", True),
        ("{from: jörg}", False),
        ("{sender: robot@example.net}", True),
        ("{to: other@example.com}", True),
        ("{to: boss@example.com}", False),
        ("{cc: boss@example.com}", True),
        ("{subject: 'grüße aus berlin'}", True),
        ("{subject: 'GRÜSSE AUS BERLIN'}", True),
        ("{subject: {contains: aus}}", True),
        ("{subject: {starts_with: [berlin, grüße]}}", True),
        ("{subject: {starts_with: berlin}}", False),
        ("{subject: {ends_with: BERLIN}}", True),
        ("{subject: {glob: '*AUS*'}}", True),
        ("{subject: {glob: 'aus'}}", False),
        ("{subject: {glob: 'gr??e aus berlin'}}", True),
        ("{subject: {glob: 'gr?e aus berlin'}}", False),
        ("{subject: {regex: '^gr(ü|ue)ße\\s'}}", True),
        ("{subject: {regex: 'BERLIN$'}}", True),
        ("{subject: {regex: '^berlin'}}", False),
        ("{subject: {starts_with: gr, ends_with: berlin}}", True),
        ("{subject: {starts_with: gr, ends_with: paris}}", False),
        ("{header.x-mailer: two}", True),
        ("{header.X-Mailer: {glob: [three, o*]}}", True),
        ("{header.X-Empty: ''}", True),
        ("{header.X-Empty: {present: yes}}", True),
        ("{header.X-Other: ''}", False),
        ("{header.X-Other: {present: yes}}", False),
        ("{header.X-Other: {present: no}}", True),
        ("{not: {header.X-Other: anything}}", True),
        ("{header.X-Mailer: {present: no}}", False),
        ("{mail_from: sender@example.net}", True),
        ("{mail_from: ''}", False),
        ("{recipient: you@example.com}", True),
        ("{recipient: you+x@example.com}", False),
        ("{helo: MAIL.example.net}", True),
        ("{client_ip: 192.0.2.1}", True),
        ("{client_ip: [10.0.0.0/8, 192.0.2.0/31]}", True),
        ("{client_ip: 192.0.2.2/31}", False),
        ("{client_ip: '::/0'}", False),
        ("{tls: yes}", True),
        ("{tls: 'OFF'}", False),
        ("{tls_version: TLSv1.3}", True),
        ("{tls_version: [1.0, TLS1_2]}", False),
        ("{tls_version: {above: TLSv1.2}}", True),
        ("{tls_version: {below: TLSv1.3}}", False),
        ("{recipient_count: 1}", True),
        ("{recipient_count: {above: 1}}", False),
        ("{size: {below: 1 KiB}}", True),
        ("{size: {above: 0.001 MB, below: 1kb}}", False),
        ("{spam_score: 0.5}", True),
        ("{spam_score: {above: -1.5}}", True),
        ("{spam_score: {below: 0.5}}", False),
        ("{spf: pass, dkim: PASS, dmarc: Pass, arc: none, upstream: none, iprev: pass, spam: pass, virus: pass}", True),
        ("{dmarc_policy: REJECT}", True),
        ("{dmarc_policy: [none, quarantine]}", False),
        ("{blocked: no}", True),
        ("{dnsbl: {present: yes}}", False),
        ("{attachment.name: {glob: '*.pdf'}}", True),
        ("{attachment.name: ''}", False),
        ("{attachment.type: [application/pdf, Application/X-DosExec]}", True),
        ("{attachment.type: {starts_with: image/}}", True),
    ],
)
def test_a_condition_is_true_of_a_mail_or_not(text: str, truth: bool) -> None:
    known = facts(WRITTEN)
    assert weigh(text, known).truth is truth
    assert weigh(f"{{not: {text}}}", known).truth is not truth


def test_every_attribute_has_been_compared() -> None:
    (marker,) = test_a_condition_is_true_of_a_mail_or_not.pytestmark  # type: ignore[attr-defined]
    texts = " ".join(row[0] for row in marker.args[1])
    missing = [name for name in ATTRIBUTES if name.split("<")[0] not in texts]
    assert missing == ["list"]  # it needs a list file: test_ruleset_load


BROKEN = Status.PROCESSING_FAILED


@pytest.mark.parametrize(
    ("found", "text", "truth"),
    [
        ({"spf": SpfVerdict(status=Status.FAIL, result="softfail")}, "{spf: fail}", True),
        ({"spf": SpfVerdict(status=Status.FAIL, result="softfail")}, "{spf: softfail}", True),
        ({"spf": SpfVerdict(status=Status.FAIL, result="fail")}, "{spf: softfail}", False),
        ({"spf": SpfVerdict(status=Status.GRAY, result="none")}, "{spf: gray}", True),
        ({"spf": SpfVerdict(status=Status.GRAY, result="none")}, "{spf: [neutral, permerror]}", False),
        ({"spf": SpfVerdict(status=BROKEN, result="temperror")}, "{spf: pass}", None),
        ({"spf": SpfVerdict(status=BROKEN, result="temperror")}, "{spf: [pass, softfail]}", None),
        ({"spf": SpfVerdict(status=BROKEN, result="temperror")}, "{spf: temperror}", True),
        ({"spf": SpfVerdict(status=BROKEN, result="temperror")}, "{spf: [fail, processing_failed]}", True),
        ({"spf": SpfVerdict(status=BROKEN, result="temperror")}, "{not: {spf: processing_failed}}", False),
        ({"spf": SpfVerdict(status=Status.DISABLED, result="none")}, "{spf: disabled}", True),
        ({"spf": SpfVerdict(status=Status.DISABLED, result="none")}, "{spf: pass}", False),
        # A signature passes, but not one of the author's domain: that is no pass.
        ({"dkim": DkimVerdict(status=Status.GRAY, result="pass")}, "{dkim: pass}", False),
        ({"dkim": DkimVerdict(status=Status.GRAY, result="pass")}, "{dkim: gray}", True),
        ({"dkim": DkimVerdict(status=Status.GRAY, result="none")}, "{dkim: none}", True),
        # DNS trouble on the aligned one, while another passes: nothing can be said.
        ({"dkim": DkimVerdict(status=BROKEN, result="pass")}, "{dkim: pass}", None),
        ({"dkim": DkimVerdict(status=BROKEN, result="pass")}, "{dkim: none}", None),
        ({"dkim": DkimVerdict(status=BROKEN, result="pass")}, "{dkim: temperror}", True),
        ({"dmarc": DmarcVerdict(status=BROKEN, result="temperror")}, "{dmarc_policy: reject}", None),
        ({"dmarc": DmarcVerdict(status=BROKEN, result="temperror")}, "{dmarc: fail, dmarc_policy: reject}", None),
        ({"dmarc": DmarcVerdict(status=BROKEN, result="temperror")}, "{spam: fail, dmarc: fail}", False),
        ({"dmarc": DmarcVerdict(status=BROKEN, result="temperror")}, "{any: [{spam: pass}, {dmarc: fail}]}", True),
        ({"dmarc": DmarcVerdict(status=Status.GRAY, result="none")}, "{dmarc_policy: none}", False),
        ({"arc": ArcVerdict(result="temperror")}, "{arc: pass}", None),
        ({"arc": ArcVerdict(result="temperror")}, "{arc: [pass, temperror]}", True),
        ({"arc": ArcVerdict(result="fail")}, "{arc: fail}", True),
        ({"upstream": UpstreamVerdict(result="pass")}, "{upstream: pass}", True),
        ({"upstream": UpstreamVerdict(result="temperror")}, "{upstream: pass}", None),
        ({"iprev": IprevVerdict(result="temperror")}, "{iprev: fail}", None),
        ({"iprev": IprevVerdict(result="permerror")}, "{iprev: fail}", False),
        ({"spam": SpamVerdict(status=BROKEN)}, "{spam_score: {above: 1}}", None),
        ({"spam": SpamVerdict(status=BROKEN)}, "{spam: pass}", None),
        ({"spam": SpamVerdict(status=Status.DISABLED)}, "{spam_score: {below: 1}}", False),
        ({"spam": SpamVerdict(status=Status.DISABLED)}, "{spam: disabled}", True),
        ({"virus": VirusVerdict(status=BROKEN)}, "{virus: fail}", None),
        ({"virus": VirusVerdict(status=BROKEN)}, "{virus: processing_failed}", True),
        ({"virus": VirusVerdict(status=Status.DISABLED)}, "{virus: fail}", False),
        ({"virus": VirusVerdict(status=Status.GRAY)}, "{virus: [fail, gray]}", True),
    ],
)
def test_a_broken_check_is_undecided_unless_it_is_named(found: dict[str, Any], text: str, truth: bool | None) -> None:
    assert weigh(text, facts(found=verdicts(**found))).truth is truth


LISTED = BlockVerdict(
    blocked=True,
    listings=(
        Listing(list="deny", entry="192.0.2.0/24"),
        Listing(list="zen.dnsbl.example", entry="127.0.0.2"),
        Listing(list="allow", entry="192.0.2.1"),
    ),
    unanswered=("slow.dnsbl.example",),
)


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("{blocked: yes}", True),
        ("{dnsbl: ZEN.dnsbl.example}", True),
        ("{dnsbl: {present: yes}}", True),
        ("{dnsbl: [deny, allow]}", False),
        ("{dnsbl: slow.dnsbl.example}", False),
    ],
)
def test_block_lists_can_be_asked_for(text: str, truth: bool) -> None:
    assert weigh(text, facts(found=replace(PASSED, block=LISTED))).truth is truth


@pytest.mark.parametrize(
    ("client", "text", "truth"),
    [
        (Client(ip=ip_address("::ffff:192.0.2.1")), "{client_ip: 192.0.2.0/24}", True),
        (Client(ip=ip_address("2001:db8::1")), "{client_ip: '2001:db8::/32'}", True),
        (Client(ip=ip_address("2001:db8::1")), "{client_ip: 0.0.0.0/0}", False),
        (Client(ip=ip_address("192.0.2.1")), "{tls: no}", True),
        (Client(ip=ip_address("192.0.2.1")), "{tls_version: {below: TLSv1.2}}", False),
        (Client(ip=ip_address("192.0.2.1")), "{helo: ''}", True),
        (replace(CLIENT, tls=Tls(version="TLSv1", cipher="x")), "{tls_version: 1.0}", True),
    ],
)
def test_clients_of_all_kinds_can_be_asked_for(client: Client, text: str, truth: bool) -> None:
    assert weigh(text, facts(mail(client=client))).truth is truth


def test_what_only_the_message_tells_is_undecided_before_it() -> None:
    at_rcpt = facts(mail=None, verdicts=None, parts=None)
    for attribute in ATTRIBUTES.values():
        known = attribute.read(at_rcpt, "X-Any")
        assert isinstance(known, tuple) is (attribute.known == "RCPT"), attribute.name


def test_attachments_are_looked_for_only_where_a_condition_asks_for_them_and_once() -> None:
    calls: list[int] = []

    def parts() -> tuple[Attachment, ...]:
        calls.append(1)
        return (Attachment(name="a.exe"),)

    known = facts(parts=parts)
    assert weigh("{spam: fail, attachment.name: {glob: '*.exe'}}", known).truth is False
    assert calls == []
    assert weigh("{attachment.name: {glob: '*.exe'}}", known).truth is True
    assert weigh("{attachment.name: {glob: '*.exe'}}", replace(known, recipient="other@example.com")).truth is True
    assert calls == [1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{dmarc: fail}", "dmarc is FAIL (fail)"),
        ("{dmarc: pass}", "dmarc is FAIL (fail), not pass"),
        ("{dmarc: [pass, gray]}", "dmarc is FAIL (fail), not pass or gray"),
        ("{dmarc: fail, dmarc_policy: reject}", "dmarc is FAIL (fail); dmarc_policy is reject"),
        (
            "{any: [{dmarc: pass}, {dmarc_policy: none}]}",
            "dmarc is FAIL (fail), not pass; dmarc_policy is reject, not none",
        ),
        ("{spam_score: {above: 5}}", "spam_score is 0.5, not above 5"),
        ("{size: {below: 1 MiB}}", "size is 61, below 1 MiB"),
        ("{subject: {starts_with: hel}}", 'subject is "Hello", which starts with "hel"'),
        (
            "{subject: {contains: [a, b, c, d, f]}}",
            'subject is "Hello", which does not contain "a" or "b" or "c" or 2 more',
        ),
        ("{subject: {regex: 'l+'}}", 'subject is "Hello", which matches "l+"'),
        ("{subject: other}", 'subject is "Hello", not "other"'),
        ("{header.X-A: b}", "header.x-a is absent"),
        ("{header.X-A: {present: no}}", "header.x-a is absent"),
        ("{client_ip: 10.0.0.0/8}", "client_ip is 192.0.2.1, not 10.0.0.0/8"),
        ("{tls: no}", "tls is yes, not no"),
        ("{tls_version: TLSv1.3}", "tls_version is 1.3"),
        ("{attachment.name: {glob: '*.exe'}}", 'attachment.name is "Invoice.PDF", which does not fit "*.exe"'),
        (
            "{attachment.type: a/b}",
            'attachment.type is "application/x-dosexec" and "image/png", not "a/b"',
        ),
        ("{virus: fail}", "virus is PROCESSING_FAILED: clamd is down"),
    ],
)
def test_a_finding_names_the_condition_and_the_values_that_made_it_so(text: str, says: str) -> None:
    found = verdicts(
        dmarc=DmarcVerdict(status=Status.FAIL, result="fail", applied_policy="reject"),
        virus=VirusVerdict(status=BROKEN, reason="clamd is down"),
    )
    assert weigh(text, facts(found=found)).why == says


def test_an_explanation_is_one_clean_line_however_the_mail_looks() -> None:
    message = mail(header=f"Subject: =?utf-8?b?DQo=?= {'x' * 500}\u202e\r\n" + "To: a@b.example\r\n" * 50)
    why = weigh("{any: [{subject: {contains: zzz}}, {to: c@d.example}]}", facts(message)).why
    assert why.isprintable()
    assert len(why) < 300
    assert 'to is "a@b.example" and "a@b.example" and "a@b.example" and 47 more, not "c@d.example"' in why


@pytest.mark.parametrize("subject", ["\udcff", "a" * 200_000 + "!", "\x00", "😀"])
def test_hostile_text_is_compared_in_linear_time_and_breaks_nothing(subject: str) -> None:
    message = mail(header=f"Subject: {subject}\r\n")
    for text in ("{regex: '^(a+)+$'}", "{glob: '*a*a*a*a*b'}", "{contains: ab}"):
        assert weigh(f"{{subject: {text}}}", facts(message)).truth is False


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "expected a condition such as {virus: fail}, found a mapping"),
        ("[{virus: fail}]", "found a list; write all: or any: before a list"),
        ("spam", "expected a condition such as {virus: fail}, found 'spam'"),
        ("", "expected a condition such as {virus: fail}, found nothing"),
        ("{any: []}", "any needs a list of conditions, found a list"),
        ("{all: {spam: fail}}", "all needs a list of conditions, found a mapping"),
        ("{not: [{spam: fail}]}", "write all: or any: before a list"),
        ("{spma: fail}", "unknown attribute 'spma', did you mean 'spam'?"),
        ("{And: []}", "unknown attribute 'And', did you mean"),
        ("{'header.': x}", "unknown attribute 'header.'"),
        ("{'header.X Y': x}", "unknown attribute 'header.X Y'"),
        ("{'header.<Name>': x}", "unknown attribute 'header.<Name>'"),
        ("{spam: yes}", "unknown value for spam 'yes'; there are disabled, fail, gray, pass, processing_failed"),
        ("{virus: temperror}", "unknown value for virus 'temperror'"),
        ("{arc: gray}", "unknown value for arc 'gray'; there are fail, none, pass, temperror"),
        ("{spf: sotfail}", "unknown value for spf 'sotfail', did you mean 'softfail'?"),
        ("{spf: {}}", "spf is compared with nothing"),
        ("{spf: []}", "an empty list fits nothing"),
        ("{spf: [pass, [fail]]}", "expected a value, found a list"),
        ("{spf: [pass, ~]}", 'expected a value, found nothing; write "" for the empty text'),
        ("{spf: {above: 1}}", "spf cannot be compared with 'above'; there are is"),
        ("{size: {starts_with: 1}}", "size cannot be compared with 'starts_with'; there are above, below, is"),
        ("{list: {is: a}}", "list cannot be compared with 'is'"),
        ("{subject: {equals: a}}", "unknown operator 'equals'"),
        ("{subject: {start_with: a}}", "unknown operator 'start_with', did you mean 'starts_with'?"),
        ("{size: 10 potatoes}", "expected a number, found '10 potatoes'"),
        ("{size: 1e9}", "expected a number, found '1e9'"),
        ("{size: nan}", "expected a number, found 'nan'"),
        ("{recipient_count: 1 KiB}", "expected a number, found '1 KiB'"),
        ("{spam_score: -}", "expected a number, found '-'"),
        ("{spam_score: 1-2}", "expected a number, found '1-2'"),
        ("{tls: TLSv1.2}", "expected yes or no, found 'TLSv1.2'"),
        ("{tls_version: SSLv3}", "'SSLv3' is no TLS version such as TLSv1.2"),
        ("{client_ip: 10.0.0.0/33}", "'10.0.0.0/33' is no IP address and no CIDR network"),
        ("{client_ip: 10.0.0.1/8}", "'10.0.0.1/8' has bits behind its prefix, did you mean '10.0.0.0/8'?"),
        ("{subject: {regex: '('}}", "no regular expression of RE2: missing ): ("),
        ("{subject: {regex: '(?<=a)b'}}", "no regular expression of RE2: invalid perl operator: (?<"),
        ("{subject: {regex: '\\1'}}", "no regular expression of RE2: invalid escape sequence"),
        ("{subject: {regex: '((a{100}){100}){100}'}}", "no regular expression of RE2"),
        (f"{{subject: {'x' * 4097}}}", "longer than 4096 characters"),
        (f"{{subject: [{', '.join(['x'] * 1001)}]}}", "1001 values; more than 1000 belong into a list file"),
        ("{from: {in: friends}}", "unknown list 'friends'"),
        ("{from: {in: {files: a}}}", "expected the name of a list or {file: path}, found a mapping"),
    ],
)
def test_what_is_no_condition_is_told(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        condition(text)
    (problem,) = caught.value.problems
    assert says in problem.message
    assert problem.line == 1
    assert problem.column > 10


def test_every_kind_of_attribute_has_an_operator() -> None:
    kinds = {attribute.kind for attribute in ATTRIBUTES.values()}
    assert kinds == set().union(*OPERATORS.values())


def test_versions_are_numbers() -> None:
    assert [tls_number(text) for text in ("TLSv1", "tls1_2", " 1.3 ")] == [1.0, 1.2, 1.3]
