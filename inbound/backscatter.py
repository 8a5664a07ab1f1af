"""May this sender be told? Not everybody whose name is on a message has sent it, and not everything that is sent is read.

1. A notification goes to the envelope sender, so that has to be somebody who is known to have sent the message: SPF passed for
   its domain, or a signature of that domain did. Where neither passed because DNS gave no answer, a later try can differ.
2. No notification answers what a program sent (RFC 3834 2), what came by a list, or what may have gone round in a circle.
3. A sender is told so often in an hour and no more. What was not sent does not count.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from inbound.addresses import a_labels
from inbound.errors import TemporaryFailure
from inbound.mail import Mail
from inbound.sqlite import shared, transaction
from inbound.verdicts import Status, Verdicts

NULL_SENDER = "null sender"
OURSELVES = "sender is ourselves"
MAIL_SYSTEM = "sender is a mail system"
AUTOMATIC = "message was sent by a program"
LIST_MAIL = "message came by a list"
BULK_MAIL = "message is bulk mail"
REPORT = "message is a report"
LOOP = "message has come too far"
NOT_AUTHENTICATED = "sender is not authenticated"
TOO_MANY = "sender was told too often"
NOT_YET = "sender cannot be authenticated yet"

MOST_HOPS = 50  # Received fields; postfix hopcount_limit
HOUR = 3600
MOST_SENDERS = 100_000  # told in one hour, some 50 octets each; then nobody is told

_MAIL_SYSTEMS = frozenset({"mailer-daemon", "postmaster", "double-bounce", "mail-daemon"})
_BULK = frozenset({"bulk", "junk", "list", "auto_reply"})
_COMMENT = re.compile(r"\([^()]*\)")


@dataclass(frozen=True, slots=True)
class Guard:
    """One reason not to tell, and when it holds."""

    reason: str
    holds: Callable[[Mail, Verdicts], bool]


def why_not(mail: Mail, verdicts: Verdicts, *, ours: Collection[str] = ()) -> str:
    """Why the sender of this mail is told nothing; "" when it may be. `ours` are the addresses that we tell from.

    Raises TemporaryFailure when it cannot be known yet.
    """
    if mail.mail_from and _mailbox(mail.mail_from) in map(_mailbox, ours):
        return OURSELVES
    return next((guard.reason for guard in GUARDS if guard.holds(mail, verdicts)), "")


def _mailbox(address: str) -> str:
    """One mailbox, whatever label it is written with."""
    local, _, domain = address.lower().rpartition("@")
    return "@".join((local.strip('"').partition("+")[0], a_labels(domain) or domain))


def _is_a_mail_system(mail: Mail, _: Verdicts) -> bool:
    return _mailbox(mail.mail_from).rpartition("@")[0] in _MAIL_SYSTEMS


def _words(mail: Mail, name: str) -> list[str]:
    """The first word of each field of that name, comments and parameters left out, lower case."""
    values = [_COMMENT.sub(" ", field.value[:500]).partition(";")[0] for field in mail.headers.all(name)]
    return [(value.split() or [""])[0].lower() for value in values]


def _is_automatic(mail: Mail, _: Verdicts) -> bool:
    """RFC 3834 5: everything but `no`."""
    return any(word != "no" for word in _words(mail, "Auto-Submitted"))


def _came_by_a_list(mail: Mail, _: Verdicts) -> bool:
    """RFC 2369, RFC 2919."""
    return any(field.name.lower().startswith("list-") for field in mail.headers.fields)


def _is_bulk(mail: Mail, _: Verdicts) -> bool:
    return not _BULK.isdisjoint(_words(mail, "Precedence"))


def _is_a_report(mail: Mail, _: Verdicts) -> bool:
    """RFC 6522: a DSN, a read receipt or the like, whoever sent it."""
    return "multipart/report" in _words(mail, "Content-Type")


def _has_come_far(mail: Mail, _: Verdicts) -> bool:
    """RFC 5321 6.3."""
    return len(mail.headers.all("Received")) > MOST_HOPS


def _is_not_authenticated(mail: Mail, verdicts: Verdicts) -> bool:
    """Raises TemporaryFailure where an answer of DNS is missing that could have said who it is."""
    domain = a_labels(mail.mail_from.rpartition("@")[2])
    if not domain:
        return True
    spf, dkim = verdicts.spf, verdicts.dkim
    signed = [it for it in dkim.signatures if _speaks_for(it.domain, domain, verdicts.dmarc.organizational_domain)]
    if (spf.identity == "mailfrom" and spf.result == "pass" and spf.domain == domain) or any(
        signature.result == "pass" for signature in signed
    ):
        return False
    spf_broke = spf.identity == "mailfrom" and spf.status is Status.PROCESSING_FAILED
    dkim_broke = dkim.status is Status.PROCESSING_FAILED and not dkim.signatures
    if spf_broke or dkim_broke or any(signature.result == "temperror" for signature in signed):
        raise TemporaryFailure(NOT_YET, f"SPF of {domain}: {spf.result}, DKIM: {dkim.result}")
    return True


def _speaks_for(signer: str, domain: str, organizational_domain: str) -> bool:
    """A signature of `signer` is aligned: the same domain or one above it, or both belong to the author's organization."""
    name = a_labels(signer)
    if not name:
        return False
    return _is_within(domain, name) or (
        bool(organizational_domain)
        and _is_within(domain, organizational_domain)
        and _is_within(name, organizational_domain)
    )


def _is_within(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")


GUARDS = (
    Guard(NULL_SENDER, lambda mail, _: not mail.mail_from),
    Guard(MAIL_SYSTEM, _is_a_mail_system),
    Guard(AUTOMATIC, _is_automatic),
    Guard(LIST_MAIL, _came_by_a_list),
    Guard(BULK_MAIL, _is_bulk),
    Guard(REPORT, _is_a_report),
    Guard(LOOP, _has_come_far),
    Guard(NOT_AUTHENTICATED, _is_not_authenticated),
)


class Rates:
    """How often each sender was told in this hour: one SQLite file, shared by all workers of a machine.

    Its methods block, and raise sqlite3.Error when the file cannot be used.
    """

    def __init__(self, path: Path, *, per_hour: int, now: Callable[[], float] = time.time) -> None:
        """Raises OSError or sqlite3.Error when the file cannot be used at all."""
        self._per_hour = per_hour
        self._now = now
        self._lock = threading.Lock()
        self._connection = shared(
            path,
            "CREATE TABLE IF NOT EXISTS told (hour INTEGER, sender BLOB, times INTEGER, PRIMARY KEY (hour, sender))"
            " WITHOUT ROWID",
        )

    def take(self, sender: str) -> bool:
        """Count one more for this sender. False: it was told as often as it may be, or everybody was."""
        hour, key = int(self._now() // HOUR), _key(sender)
        with self._lock, transaction(self._connection) as cursor:
            cursor.execute("DELETE FROM told WHERE hour < ?", (hour,))
            (senders,) = cursor.execute("SELECT COUNT(*) FROM told").fetchone()
            row = cursor.execute("SELECT times FROM told WHERE hour = ? AND sender = ?", (hour, key)).fetchone()
            (times,) = row or (0,)
            taken = times < self._per_hour and (times > 0 or senders < MOST_SENDERS)
            if taken:
                cursor.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?)", (hour, key, times + 1))
        return bool(taken)

    def give_back(self, sender: str) -> None:
        """It was not told after all."""
        hour, key = int(self._now() // HOUR), _key(sender)
        with self._lock:
            self._connection.execute(
                "UPDATE told SET times = times - 1 WHERE hour = ? AND sender = ? AND times > 0", (hour, key)
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def _key(sender: str) -> bytes:
    return hashlib.blake2b(_mailbox(sender).encode("utf-8", "surrogateescape"), digest_size=16).digest()
