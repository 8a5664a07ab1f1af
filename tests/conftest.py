"""What tests of any folder may ask for."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from hypothesis import settings

from tests.servers import RunningClamd, clamd

settings.register_profile("inbound", deadline=None)  # no test depends on how fast the machine is
settings.load_profile("inbound")


@pytest.fixture(scope="session")
def running_clamd() -> Iterator[RunningClamd]:
    """A real clamd that knows EICAR and ClamAV's test file, on a unix socket and on TCP."""
    with tempfile.TemporaryDirectory(prefix="clamd-") as directory, clamd(Path(directory)) as running:
        yield running


@pytest.fixture
def clamd_socket(running_clamd: RunningClamd) -> str:
    """The address of a real clamd as the settings write it: `unix:/path`."""
    return running_clamd.unix


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who makes certificates."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority's own certificate, for who trusts it."""
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return file
