"""The certificates: one for each name a client may ask for, read again without a restart."""

import ssl
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509

from inbound.errors import ConfigurationError, Problem
from inbound.settings import Certificate, Tls


class Certificates:
    """Server contexts, TLS 1.2 or better, no renegotiation: that of the settings, and those of its `more` by SNI.

    A client that asks for a name (RFC 6066 3) gets the certificate that was issued for it; any other the first.
    Raises ConfigurationError when files cannot be read or do not belong together, with every problem found.
    """

    def __init__(self, settings: Tls) -> None:
        self._settings = settings
        self._first, self._by_name = self._load()
        # Every handshake begins with this context, which stays the same; what it goes on with is chosen each time.
        self.context = self._first
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Read the files again. Raises ConfigurationError; then the certificates in force stay in force."""
        self._first, self._by_name = self._load()

    def _load(self) -> tuple[ssl.SSLContext, Mapping[str, ssl.SSLContext]]:
        problems: list[Problem] = []
        by_name: dict[str, ssl.SSLContext] = {}
        contexts: list[ssl.SSLContext] = []
        pairs: tuple[Tls | Certificate, ...] = (self._settings, *self._settings.more)
        for pair in pairs:
            found = _files_problems(pair.certificate, pair.key)
            if found:
                problems += found
                continue
            try:
                context = _context(pair.certificate, pair.key)
                names = _names(pair.certificate)
            except (ssl.SSLError, ValueError) as error:
                reason = getattr(error, "reason", None) or str(error)
                problems.append(_problem(pair.certificate, f"no certificate for this key ({reason})"))
                continue
            contexts.append(context)
            for name in names:
                by_name.setdefault(name, context)
        if problems:
            raise ConfigurationError(problems)
        return contexts[0], by_name

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _begun_with: ssl.SSLContext) -> None:
        wanted = (name or "").lower().rstrip(".")
        chosen = self._by_name.get(wanted) or self._by_name.get("*." + wanted.partition(".")[2])  # RFC 6125 6.4.3
        connection.context = chosen or self._first


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # A pass phrase would be asked for on the terminal; "" makes it an error instead.
    context.load_cert_chain(certificate, key, password="")
    return context


def _names(certificate: Path) -> list[str]:
    """The DNS names that the certificate was issued for, as in RFC 5280 4.2.1.6."""
    leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def _files_problems(*paths: Path) -> list[Problem]:
    problems = []
    for path in paths:
        try:
            path.read_bytes()
        except OSError as error:
            problems.append(_problem(path, error.strerror or "cannot be read"))
    return problems


def _problem(path: Path, message: str) -> Problem:
    return Problem(file=str(path), line=0, column=0, message=message)
