"""The certificate, and what TLS must be at least."""

import ssl

from inbound.errors import ConfigurationError, Problem
from inbound.settings import Tls


class Certificate:
    """A server context for the certificate chain and key of the settings: TLS 1.2 or better, no renegotiation.

    Raises ConfigurationError when the files cannot be read or do not belong together.
    """

    def __init__(self, settings: Tls) -> None:
        self._settings = settings
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        for path in (self._settings.certificate, self._settings.key):
            try:
                path.read_bytes()
            except OSError as error:
                raise _unusable(str(path), error.strerror or "cannot be read") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        try:
            # A pass phrase would be asked for on the terminal; "" makes it an error instead.
            context.load_cert_chain(self._settings.certificate, self._settings.key, password="")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise _unusable(str(self._settings.certificate), f"no certificate for this key ({reason})") from error
        return context


def _unusable(file: str, message: str) -> ConfigurationError:
    return ConfigurationError([Problem(file=file, line=0, column=0, message=message)])
