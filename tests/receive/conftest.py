"""A certificate by trustme, and a client that trusts it."""

import ssl

import pytest
import trustme

from inbound.settings import Tls


@pytest.fixture(scope="session")
def tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """The certificate of mx.test (ECDSA), as the settings name it."""
    folder = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("mx.test")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "chain.pem")
    return Tls(certificate=folder / "chain.pem", key=folder / "key.pem")


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client that knows the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
