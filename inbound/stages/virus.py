"""Virus: what the scanner says, and never a pass where it could not look.

1. PASS when the scanner found the whole message clean, FAIL with the signature's name when it did not.
2. GRAY when it could not look inside: the message is over the engine's limits, or holds something encrypted. Whether clamd
   reports what is encrypted is its operator's choice (AlertEncrypted, off by default), so a clean message is looked at here
   too, for the two that travel by mail: ZIP archives and office documents.
3. PROCESSING_FAILED when the scanner is down, silent or not to be understood. DISABLED where there is none.
"""

from typing import Literal, Protocol

from inbound import mime
from inbound.errors import Failure
from inbound.magic import OLE
from inbound.mail import Mail
from inbound.offload import offload
from inbound.stages.skipped import Skipped
from inbound.verdicts import Status, VirusVerdict

NO_SCANNER = Skipped("virus", VirusVerdict(status=Status.DISABLED, reason="no virus scanner is set"))
ENCRYPTED_ARCHIVE = "an encrypted ZIP archive"
ENCRYPTED_DOCUMENT = "an encrypted office document"

# PKWARE APPNOTE 4.3.7 and 4.3.12: signature, octets to the version needed, and to the general purpose flags.
_ZIP_ENTRIES = ((b"PK\x03\x04", 4, 6), (b"PK\x01\x02", 6, 8))
_ZIP_VERSIONS = range(10, 64)
_MOST_ENTRIES = 10_000
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")  # MS-OFFCRYPTO 2.3.4.4: the name of the stream


class Scan(Protocol):
    """What a scanner says: `result`, the signature's name, and why it could not look inside."""

    @property
    def result(self) -> Literal["clean", "infected", "opaque"]:
        """The answer."""
        ...

    @property
    def signature(self) -> str:
        """The engine's name for what it found, or for what kept it from looking; "" if none."""
        ...

    @property
    def reason(self) -> str:
        """Why it could not look inside."""
        ...


class Scanner(Protocol):
    """A virus scanner."""

    async def scan(self, octets: bytes) -> Scan:
        """Scan a whole message. Raises Failure when the engine did not answer."""
        ...


class Virus:
    """The check by a scanner."""

    name = "virus"

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner

    def broken(self, reason: str) -> VirusVerdict:
        """The verdict when the check itself failed."""
        return VirusVerdict(status=Status.PROCESSING_FAILED, reason=reason)

    async def __call__(self, mail: Mail) -> VirusVerdict:
        """Have the message scanned as it was received."""
        try:
            scan = await self._scanner.scan(mail.raw)
        except Failure as failure:
            return self.broken(failure.reason)
        if scan.result == "infected":
            return VirusVerdict(status=Status.FAIL, signature=scan.signature)
        reason = scan.reason
        if scan.result == "clean":
            reason = await offload(_encrypted, mail) if mail.is_big else _encrypted(mail)
        if reason:
            return VirusVerdict(status=Status.GRAY, signature=scan.signature, reason=f"could not look inside: {reason}")
        return VirusVerdict(status=Status.PASS)


def _encrypted(mail: Mail) -> str:
    """What of the message is encrypted, "" if nothing that can be told. Linear."""
    for part in mime.parts(mail):
        head = part.content(4)
        if head.startswith(b"PK"):
            if _is_encrypted_zip(part.content(part.size)):
                return ENCRYPTED_ARCHIVE
        elif part.type == OLE and _ENCRYPTED_PACKAGE in part.content(part.size):
            return ENCRYPTED_DOCUMENT
    return ""


def _is_encrypted_zip(octets: bytes) -> bool:
    """Some entry has bit 0 of its general purpose flags set (APPNOTE 4.4.4), where it stands or in the directory."""
    for signature, version_at, flags_at in _ZIP_ENTRIES:
        at = octets.find(signature)
        for _ in range(_MOST_ENTRIES):
            if at < 0:
                break
            version = int.from_bytes(octets[at + version_at : at + version_at + 2], "little") & 0xFF
            if version in _ZIP_VERSIONS and octets[at + flags_at : at + flags_at + 1] and octets[at + flags_at] & 1:
                return True
            at = octets.find(signature, at + 4)
    return False
