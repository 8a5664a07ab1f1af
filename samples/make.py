"""Makes the .eml files of this directory, the same octets each time: `python samples/make.py [DIRECTORY]`.

The signatures are real (RFC 6376, 8463, 8617), by the keys in `keys/`, so one changed letter needs a new run. What DNS says
of the keys stands in the samples' YAML files; `python samples/make.py --dns` prints it. Files have LF line ends, signatures
are over the form with CRLF, in which a message travels.
"""

import base64
import hashlib
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

HERE = Path(__file__).parent
THEN = 1_795_000_000  # Wed, 18 Nov 2026 11:06:40 UTC, when all this happens
DAY = 86_400

SIGNED = ("from", "to", "subject", "date", "message-id", "mime-version", "content-type")

# EICAR's test file (https://www.eicar.org/download-anti-malware-testfile/), never in the clear: scanners would take this file.
EICAR = "WDVPIVAlQEFQWzRcUFpYNTQoUF4pN0NDKTd9JEVJQ0FSLVNUQU5EQVJELUFOVElWSVJVUy1URVNULUZJTEUhJEgrSCo="

# https://spamassassin.apache.org/gtube/
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

# Info-ZIP's `zip -P infected`: invoice.txt, 64 octets.
LOCKED_ZIP = """
UEsDBBQACQAIAABQcl3N2b+OSAAAAEAAAAALAAAAaW52b2ljZS50eHQuFsrRMQIue1Qn86C0oxCz
ZCsnsPxSDPJp9kLk5Z32Rh+6aHewJt0Lpqn2ivKHv4gnT91/dGfimVtJY4YbUg/0F8HKHEpq1l5Q
SwcIzdm/jkgAAABAAAAAUEsBAh4DFAAJAAgAAFByXc3Zv45IAAAAQAAAAAsAAAAAAAAAAQAAAKSB
AAAAAGludm9pY2UudHh0UEsFBgAAAAABAAEAOQAAAIEAAAAAAA==
"""

SAMPLES: dict[str, Callable[[], str]] = {}


def sample(make: Callable[[], str]) -> Callable[[], str]:
    """Enter a function as the maker of the sample of its name."""
    SAMPLES[make.__name__.replace("_", "-")] = make
    return make


# The messages


@sample
def good() -> str:
    return signed(
        letter(
            """
            From: Pat Parker <pat@sender.example>
            To: support@example.com
            Subject: Invoice for October
            Date: Wed, 18 Nov 2026 11:05:58 +0000
            Message-ID: <20261118110558.1@sender.example>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=us-ascii

            Hello,

            could you send me the invoice for October once more? The copy I have
            lacks the second page.

            Thank you,
            Pat Parker
            """
        ),
        "sender.example",
    )


@sample
def by_hand() -> str:
    return letter(
        """
        From: You <you@laptop.example>
        To: support@example.com
        Subject: test
        Date: Wed, 18 Nov 2026 11:06:02 +0000
        Message-ID: <20261118110602.1@laptop.example>

        A first mail by hand, written at this machine.
        """
    )


@sample
def order() -> str:
    return signed(
        letter(
            """
            From: Kim Novak <kim@customer.example>
            To: orders@example.com
            Subject: Order 4711
            Date: Wed, 18 Nov 2026 11:06:10 +0000
            Message-ID: <20261118110610.7@customer.example>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=utf-8
            Content-Transfer-Encoding: 8bit

            Dear all,

            please send us

                2 x  article 1042, blue
                1 x  article 1077

            to our usual address: Hauptstraße 12, the yard at the back.

            Kind regards
            Kim Novak
            """
        ),
        "customer.example",
    )


@sample
def double_signed() -> str:
    message = letter(
        """
        From: Robin <robin@modern.example>
        To: support@example.com
        Subject: Which ports does the new model have?
        Date: Wed, 18 Nov 2026 11:05:40 +0000
        Message-ID: <b7c1@modern.example>
        MIME-Version: 1.0
        Content-Type: text/plain; charset=us-ascii

        Hi,

        the data sheet of the new model names two ports, the picture shows
        three. Which is right?

        Robin
        """
    )
    message = signed(message, "modern.example", "rsa2026")
    return signed(message, "modern.example", "ed2026", algorithm="ed25519-sha256")


@sample
def mailing_list() -> str:
    posted = signed(
        letter(
            """
            From: Carol Cook <carol@strict.example>
            To: users@lists.example
            Subject: Labels on parcels
            Date: Wed, 18 Nov 2026 11:01:00 +0000
            Message-ID: <9f2@strict.example>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=us-ascii

            Has anybody found labels that stay on in the rain? Ours come off
            after an hour.

            Carol
            """
        ),
        "strict.example",
    )
    spread = posted.replace("Subject: Labels", "Subject: [users] Labels") + letter(
        """
        _______________________________________________
        users mailing list -- https://lists.example/users
        """
    )
    spread = (
        letter(
            """
            List-Id: Users of the thing <users.lists.example>
            List-Post: <mailto:users@lists.example>
            List-Unsubscribe: <https://lists.example/users>
            Sender: users-bounces@lists.example
            """
        )
        + spread
    )
    return sealed(
        signed(spread, "lists.example", headers=(*SIGNED, "sender", "list-id")),
        "lists.example",
        found="lists.example; dkim=pass header.d=strict.example; spf=pass smtp.mailfrom=carol@strict.example;\n"
        "\tdmarc=pass header.from=strict.example",
    )


@sample
def forwarded() -> str:
    sent = signed(
        letter(
            """
            From: Pat Parker <pat@sender.example>
            To: office@alumni.example
            Subject: Opening hours in December
            Date: Wed, 18 Nov 2026 11:04:20 +0000
            Message-ID: <20261118110420.4@sender.example>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=us-ascii

            Hello,

            are you open between Christmas and New Year?

            Pat Parker
            """
        ),
        "sender.example",
    )
    passed_on = letter(
        """
        Received: from mx.sender.example (mx.sender.example [192.0.2.10])
        \tby relay.alumni.example with ESMTPS for <office@alumni.example>;
        \tWed, 18 Nov 2026 11:04:23 +0000
        """
    )
    return passed_on + sent


SCARE = """
Your account has been suspended because of unusual activity. Confirm
your identity within 24 hours, or the money in it will be returned to
the senders:

    http://203.0.113.66/login
"""


@sample
def spoofed() -> str:
    head = """
        From: Security Desk <security@bank.example>
        To: support@example.com
        Subject: Account suspended
        Date: Wed, 18 Nov 2026 11:06:31 +0000
        Message-ID: <x1@host-66.dialup.example>
        MIME-Version: 1.0
        Content-Type: text/plain; charset=us-ascii
        """
    return letter(head) + "\nDear customer,\n" + SCARE


@sample
def nonexistent_subdomain() -> str:
    head = """
        From: Billing <billing@secure-login.utility.example>
        To: support@example.com
        Subject: Your electricity contract
        Date: Wed, 18 Nov 2026 11:06:33 +0000
        Message-ID: <x2@host-66.dialup.example>
        MIME-Version: 1.0
        Content-Type: text/plain; charset=us-ascii
        """
    body = """

        Update your payment details within 48 hours. Failure to do so means
        that we have to end your contract.

        Your electricity company
        """
    return letter(head) + letter(body)


@sample
def dns_trouble() -> str:
    head = """
        From: Mail Team <mail-team@flaky.example>
        To: support@example.com
        Subject: Mailbox almost full
        Date: Wed, 18 Nov 2026 11:06:35 +0000
        Message-ID: <5512@flaky.example>
        MIME-Version: 1.0
        Content-Type: text/plain; charset=us-ascii
        """
    body = """

        Your mailbox is almost full. Validate your mailbox within 24 hours at

            http://mailbox.flaky.example/

        The mail team
        """
    return letter(head) + letter(body)


@sample
def newsletter_softfail() -> str:
    return signed(
        letter(
            """
            From: The Corner Bookshop <news@bookshop.example>
            To: support@example.com
            Subject: New in November
            Date: Wed, 18 Nov 2026 11:00:00 +0000
            Message-ID: <nov.2026.8841@mailer.example>
            List-Unsubscribe: <https://mailer.example/u/8841>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=us-ascii

            Our three books of the month:

            - A Short History of the Envelope
            - Sorting Office: Stories
            - The Postmaster's Daughter

            On Friday at seven the author of the first one reads in our shop.

            You asked for this letter in our shop. To end it:
            https://mailer.example/u/8841
            """
        ),
        "mailer.example",
    )


@sample
def gtube() -> str:
    head = """
        From: Test <test@tester.example>
        To: orders@example.com
        Subject: A test of the spam check
        Date: Wed, 18 Nov 2026 11:06:36 +0000
        Message-ID: <gtube@tester.example>
        MIME-Version: 1.0
        Content-Type: text/plain; charset=us-ascii

        This is the test string that every spam check takes for spam:

        """
    return signed(letter(head) + f"{GTUBE}\n", "tester.example")


@sample
def eicar() -> str:
    text = "The scanner should find something in the attachment.\n"
    attachment = part("application/octet-stream", "eicar.com", EICAR)
    return signed(
        multipart(
            """
            From: Test <test@tester.example>
            To: support@example.com
            Subject: A test of the virus check
            Date: Wed, 18 Nov 2026 11:06:37 +0000
            Message-ID: <eicar@tester.example>
            """,
            part("text/plain; charset=us-ascii", "", text),
            attachment,
        ),
        "tester.example",
    )


@sample
def locked_zip() -> str:
    text = "Hello,\n\nattached is our invoice. You have the password by telephone.\n\nA. Count\n"
    return signed(
        multipart(
            """
            From: A. Count <office@accountant.example>
            To: support@example.com
            Subject: Our invoice 2026-1118
            Date: Wed, 18 Nov 2026 11:06:38 +0000
            Message-ID: <2026-1118@accountant.example>
            """,
            part("text/plain; charset=us-ascii", "", text),
            part("application/zip", "invoice.zip", LOCKED_ZIP.strip()),
        ),
        "accountant.example",
    )


@sample
def disguised_program() -> str:
    program = base64.encodebytes(
        b"MZ\x90\x00\x03" + bytes(59) + b"This is no program, it only begins like one."
    ).decode()
    text = "Please find attached the invoice. Payment is due today.\n"
    return multipart(
        """
        From: Accounts <accounts@supplies.example>
        To: orders@example.com
        Subject: Invoice 88213
        Date: Wed, 18 Nov 2026 11:06:39 +0000
        Message-ID: <88213@supplies.example>
        """,
        part("text/plain; charset=us-ascii", "", text),
        part("application/pdf", "invoice.pdf.exe", program.strip()),
    )


@sample
def advance_fee() -> str:
    return signed(
        letter(
            """
            From: Barrister James Okoro <james.okoro@webmail.example>
            To: undisclosed-recipients:;
            Subject: URGENT BUSINESS PROPOSAL
            Date: Wed, 18 Nov 2026 11:05:11 +0000
            Message-ID: <CA0031@webmail.example>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=us-ascii

            Dear Friend,

            I am the barrister of a deceased client who left the sum of
            US$18,500,000 with a security company and no next of kin. I seek
            your assistance as a foreign partner to stand as the beneficiary
            of this inheritance. For your remuneration thirty percent is set
            aside. Send me your full name and your bank account. This is
            strictly confidential.

            Barrister James Okoro
            """
        ),
        "webmail.example",
    )


@sample
def unknown_recipient() -> str:
    return signed(
        letter(
            """
            From: Pat Parker <pat@sender.example>
            To: suport@example.com
            Subject: Invoice for October
            Date: Wed, 18 Nov 2026 11:06:05 +0000
            Message-ID: <20261118110605.2@sender.example>

            With a slip of the finger.
            """
        ),
        "sender.example",
    )


@sample
def relay_attempt() -> str:
    return letter(
        """
        From: someone@elsewhere.example
        To: victim@faraway.example
        Subject: relay test
        Date: Wed, 18 Nov 2026 11:06:06 +0000
        Message-ID: <relay@host-66.dialup.example>

        If this arrives, your server can be abused.
        """
    )


@sample
def retired_address() -> str:
    return signed(
        letter(
            """
            From: Kim Novak <kim@customer.example>
            To: Old shop <old-shop@example.com>
            Subject: Still there?
            Date: Wed, 18 Nov 2026 11:06:07 +0000
            Message-ID: <20261118110607.8@customer.example>

            Are you still there?
            """
        ),
        "customer.example",
    )


@sample
def payroll_in_clear() -> str:
    return payroll("<hours-46@bureau.example>")


@sample
def payroll_over_tls() -> str:
    return payroll("<hours-47@bureau.example>")


def payroll(message_id: str) -> str:
    return signed(
        letter(
            f"""
            From: Salary bureau <data@bureau.example>
            To: payroll@example.com
            Subject: Hours of October
            Date: Wed, 18 Nov 2026 11:06:08 +0000
            Message-ID: {message_id}
            MIME-Version: 1.0
            Content-Type: text/plain; charset=us-ascii

            Employee 17: 152 hours
            Employee 23: 160 hours
            """
        ),
        "bureau.example",
    )


@sample
def two_recipients() -> str:
    return signed(
        letter(
            """
            From: Kim Novak <kim@customer.example>
            To: orders@example.com
            Cc: support@example.com
            Subject: Order 4712, and a question
            Date: Wed, 18 Nov 2026 11:06:12 +0000
            Message-ID: <20261118110612.9@customer.example>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=us-ascii

            Once more article 1077, please.

            And is the manual of the old one still to be had?

            Kim Novak
            """
        ),
        "customer.example",
    )


@sample
def separate_answers() -> str:
    return signed(
        letter(
            """
            From: Pat Parker <pat@sender.example>
            To: postmaster@example.com
            Cc: support@example.com
            Subject: Your mail to us comes back
            Date: Wed, 18 Nov 2026 11:06:13 +0000
            Message-ID: <20261118110613.3@sender.example>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=us-ascii

            Since Monday your replies do not reach me. Is it your side or ours?

            Pat Parker
            """
        ),
        "sender.example",
    )


@sample
def bounce() -> str:
    said = """
        This is the mail server of partner.example. Your message could not be
        delivered to

            sales@partner.example

        because that mailbox is full.
        """
    status = """
        Reporting-MTA: dns; mx.partner.example

        Final-Recipient: rfc822; sales@partner.example
        Action: failed
        Status: 5.2.2
        Diagnostic-Code: smtp; 552 5.2.2 Mailbox full
        """
    original = """
        From: Support <support@example.com>
        To: sales@partner.example
        Subject: Prices of 2027
        Date: Wed, 18 Nov 2026 11:06:00 +0000
        Message-ID: <prices@example.com>
        """
    return multipart(
        """
        From: Mail Delivery <MAILER-DAEMON@mx.partner.example>
        To: support@example.com
        Subject: Undelivered mail
        Date: Wed, 18 Nov 2026 11:06:14 +0000
        Message-ID: <bounce-1@mx.partner.example>
        Auto-Submitted: auto-replied
        """,
        part("text/plain; charset=us-ascii", "", letter(said)),
        part("message/delivery-status", "", letter(status)),
        part("text/rfc822-headers", "", letter(original)),
        kind="report; report-type=delivery-status",
    )


@sample
def spam_report() -> str:
    text = "This came from one of your machines, please look into it.\n"
    reported = """
        From: Shop <info@example.com>
        To: somebody@provider.example
        Subject: Hello
        Date: Wed, 18 Nov 2026 10:00:00 +0000
        Message-ID: <1@example.com>

        """
    return multipart(
        """
        From: Abuse desk <abuse@provider.example>
        To: abuse@example.com
        Subject: Spam from your network
        Date: Wed, 18 Nov 2026 11:06:15 +0000
        Message-ID: <report-1@provider.example>
        """,
        part("text/plain; charset=us-ascii", "", text),
        part("message/rfc822", "", letter(reported) + f"{GTUBE}\n"),
    )


@sample
def smtputf8() -> str:
    return signed(
        letter(
            """
            From: Jörg Müller <jörg@müller.example>
            To: support@example.com
            Subject: Grüße aus Köln
            Date: Wed, 18 Nov 2026 11:06:16 +0000
            Message-ID: <gruesse@xn--mller-kva.example>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=utf-8
            Content-Transfer-Encoding: 8bit

            Guten Tag,

            nehmen Sie auch Adressen mit Umlauten an?

            Jörg Müller
            """
        ),
        "xn--mller-kva.example",
    )


@sample
def several_authors() -> str:
    return letter(
        """
        From: Director <director@bank.example>
        From: Newsletter <letter@elsewhere.example>
        To: support@example.com
        Subject: The transfer we spoke of
        Date: Wed, 18 Nov 2026 11:06:17 +0000
        Message-ID: <two@elsewhere.example>
        MIME-Version: 1.0
        Content-Type: text/plain; charset=us-ascii

        Please see to it today. I am in a meeting and cannot be reached.
        """
    )


@sample
def appended() -> str:
    """A member's own letter, signed with l=, which somebody sends on with an end of his own."""
    open_ended = signed(
        letter(
            """
            From: Chess club <secretary@club.example>
            To: members@club.example
            Subject: Next meeting
            Date: Wed, 18 Nov 2026 09:30:00 +0000
            Message-ID: <meeting@club.example>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=us-ascii

            We meet on Thursday at eight.
            """
        ),
        "club.example",
        open_end=True,
    )
    return open_ended + letter(
        """


        SPECIAL OFFER for members: herbal weight loss, no prescription, 100%
        guaranteed. Order now, limited time, buy now at

            http://203.0.113.68/pills
        """
    )


@sample
def expired_signature() -> str:
    return signed(
        letter(
            """
            From: Weather station <station@slow.example>
            To: support@example.com
            Subject: Daily report
            Date: Mon, 16 Nov 2026 06:00:00 +0000
            Message-ID: <report-16@slow.example>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=us-ascii

            No rain. Two days late, the line was down.
            """
        ),
        "slow.example",
        at=THEN - 2 * DAY,
        expires=THEN - DAY,
    )


# How they are put together


def letter(text: str) -> str:
    """The text as it is indented here, without its first line end."""
    return textwrap.dedent(text).removeprefix("\n")


def part(kind: str, name: str, content: str) -> str:
    """One part of a multipart message. One with a name is an attached file, and its content in base64."""
    attached = (
        f'Content-Disposition: attachment; filename="{name}"\nContent-Transfer-Encoding: base64\n' if name else ""
    )
    return f"Content-Type: {kind}\n{attached}\n{content.rstrip()}\n"


def multipart(head: str, *parts: str, kind: str = "mixed") -> str:
    """A message of several parts."""
    subtype, _, more = kind.partition("; ")
    boundary = "part-of-the-sample"
    tags = "".join(f"; {tag}" for tag in (more, f'boundary="{boundary}"') if tag)
    body = "".join(f"--{boundary}\n{one}\n" for one in parts)
    return f"{letter(head)}MIME-Version: 1.0\nContent-Type: multipart/{subtype}{tags}\n\n{body}--{boundary}--\n"


# Signatures


def signed(
    message: str,
    domain: str,
    selector: str = "s1",
    *,
    algorithm: str = "rsa-sha256",
    headers: Sequence[str] = SIGNED,
    at: int = THEN - 30,
    expires: int = 0,
    open_end: bool = False,
) -> str:
    """The message with a DKIM-Signature on top, relaxed/relaxed. `open_end` signs the length of the body with it (l=)."""
    fields, body = taken_apart(message)
    there = {name.lower() for name, _ in fields}
    names = [name for name in headers if name in there]
    tags = {"v": "1", "a": algorithm, "c": "relaxed/relaxed", "d": domain, "s": selector, "t": str(at)}
    tags |= {"x": str(expires)} if expires else {}
    tags |= {"l": str(len(body))} if open_end else {}
    tags |= {"h": ":".join(names), "bh": digest(body)}
    return signature("DKIM-Signature", tags, [last(fields, name) for name in names]) + message


def sealed(message: str, domain: str, selector: str = "s1", *, found: str) -> str:
    """The message with a first ARC set on top (RFC 8617): what was found, a signature over the message, one over the set."""
    fields, body = taken_apart(message)
    common = {"i": "1", "a": "rsa-sha256", "d": domain, "s": selector, "t": str(THEN - 20)}
    names = ("from", "subject", "date", "message-id", "dkim-signature")
    results = f"ARC-Authentication-Results: i=1; {found}\n"
    over = common | {"c": "relaxed/relaxed", "h": ":".join(names), "bh": digest(body)}
    mark = signature("ARC-Message-Signature", over, [last(fields, name) for name in names])
    seal = signature(
        "ARC-Seal", common | {"cv": "none"}, [taken_apart(field + "\n")[0][0] for field in (results, mark)]
    )
    return seal + mark + results + message


def signature(name: str, tags: dict[str, str], fields: Iterable[tuple[str, str]]) -> str:
    """A signature field over other fields and itself."""
    pairs = list(tags.items())
    short = "; ".join(f"{tag}={value}" for tag, value in pairs if tag not in ("h", "bh"))
    long = "".join(f";\n\t{tag}={value}" for tag, value in pairs if tag in ("h", "bh"))
    field = f"{name}: {short}{long};\n\tb="
    covered = "".join(map(relaxed, fields)) + relaxed((name, field.partition(":")[2])).removesuffix("\r\n")
    octets = hashlib.sha256(covered.encode()).digest() if "ed25519" in tags["a"] else covered.encode()
    key = key_of(tags["a"])
    value = key.sign(octets) if isinstance(key, Ed25519PrivateKey) else key.sign(octets, PKCS1v15(), SHA256())
    return field + "\n\t ".join(textwrap.wrap(base64.b64encode(value).decode(), 72)) + "\n"


def taken_apart(message: str) -> tuple[list[tuple[str, str]], bytes]:
    """The header fields as names and values, and the body in its relaxed form (RFC 6376 3.4.4)."""
    head, _, body = message.partition("\n\n")
    fields = [
        (name, value) for name, _, value in (field.partition(":") for field in re.split(r"\n(?=\S)", head.rstrip()))
    ]
    lines = [re.sub(r"[ \t]+", " ", line).rstrip(" ") for line in body.rstrip("\n").split("\n")]
    return fields, ("\r\n".join(lines).rstrip("\r\n") + "\r\n").encode()


def relaxed(field: tuple[str, str]) -> str:
    """A header field in its relaxed form (RFC 6376 3.4.2)."""
    name, value = field
    squeezed = re.sub(r"[ \t\n]+", " ", value).strip(" ")
    return f"{name.lower()}:{squeezed}\r\n"


def last(fields: Iterable[tuple[str, str]], name: str) -> tuple[str, str]:
    """The lowest field of that name."""
    return [field for field in fields if field[0].lower() == name][-1]


def digest(octets: bytes) -> str:
    return base64.b64encode(hashlib.sha256(octets).digest()).decode()


@cache
def key_of(algorithm: str) -> RSAPrivateKey | Ed25519PrivateKey:
    key = load_pem_private_key((HERE / "keys" / f"{algorithm.partition('-')[0]}.pem").read_bytes(), password=None)
    assert isinstance(key, RSAPrivateKey | Ed25519PrivateKey)  # noqa: S101 - these are our own two files
    return key


def record(algorithm: str) -> str:
    """What DNS says of a key (RFC 6376 3.6.1, 8463 4.2)."""
    public = key_of(algorithm).public_key()
    if algorithm.startswith("ed25519"):
        octets = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    else:
        octets = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k={algorithm.partition('-')[0]}; p={base64.b64encode(octets).decode()}"


def main(arguments: Sequence[str]) -> None:
    """Write all files, or print the key records."""
    if list(arguments) == ["--dns"]:
        print(record("rsa-sha256"), record("ed25519-sha256"), sep="\n")
        return
    directory = Path(arguments[0]) if arguments else HERE
    for name, make in SAMPLES.items():
        (directory / f"{name}.eml").write_bytes(make().encode())


if __name__ == "__main__":
    main(sys.argv[1:])
