"""Public test suites come from their own source packages when tests run, and stay in `.cache/`; nothing of them is copied."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.archives import unpack

CACHE = Path(__file__).parents[2] / ".cache" / "suites"


def sdist(package: str, version: str) -> Path:
    """The unpacked source package. Skips the test where no registry can be reached."""
    folder = CACHE / f"{package}-{version}"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", str(CACHE), f"{package}=={version}"], check=False, capture_output=True, timeout=300
        )
        archives = sorted(CACHE.glob(f"{package}-{version}*.tar.gz"))
        if done.returncode or not archives:
            pytest.skip(f"{package} {version} could not be fetched: {done.stderr.decode(errors='replace')[-300:]}")
        with tarfile.open(archives[0]) as archive:
            unpack(archive, CACHE)
    return folder


def wheel(package: str, version: str) -> Path:
    """The unpacked wheel of a package that has no source package. Skips the test where no registry can be reached."""
    folder = CACHE / f"{package}-{version}-wheel"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(CACHE)]
        done = subprocess.run([*command, f"{package}=={version}"], check=False, capture_output=True, timeout=300)
        archives = sorted(CACHE.glob(f"{package}-{version}-*.whl"))
        if done.returncode or not archives:
            pytest.skip(f"{package} {version} could not be fetched: {done.stderr.decode(errors='replace')[-300:]}")
        with zipfile.ZipFile(archives[0]) as archive:
            archive.extractall(folder)
    return folder
