"""Public test suites come from their own source packages when tests run, and stay in `.cache/`; nothing of them is copied."""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
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


def debian_source(package: str, version: str, *, release: str, sha256: str) -> Path:
    """The unpacked upstream sources of one of Debian's packages, from the mirror that this machine's apt uses.

    `release` is the Debian release whose sources have that version; the machine itself can run another one. Skips the test where
    there is no apt, or no mirror has it.
    """
    folder = CACHE / f"{package}-{version}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as place:
            problem = _apt_source(package, release, Path(place))
            archive = next(Path(place).glob(f"*_{version}.orig.tar.[gx]z"), None)  # the sources may have another name
            if archive is None:
                pytest.skip(f"the sources of {package} {version} could not be fetched: {problem[-300:]}")
            assert sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
            part = folder.with_name(f"{folder.name}.part")  # what is broken off is no suite
            with tarfile.open(archive) as opened:
                unpack(opened, part)
            part.rename(folder)
    return folder


def mail_dkim() -> Path:
    """The sources of Mail::DKIM, which hold its corpus and ValiMail's ARC suite."""
    return debian_source(
        "libmail-dkim-perl",
        "1.20240923",
        release="trixie",
        sha256="45de46f5dc4d23bcb6ad6401759881dd43968eab20e73f6f79d9557467de20ee",
    )


def _apt_source(package: str, release: str, place: Path) -> str:
    """Have apt download a package's sources, with lists of its own; what it complained of."""
    sources, lists, cache = place / "sources.list", place / "lists", place / "cache"
    for folder in (lists, cache):
        (folder / "partial").mkdir(parents=True)
    own = {"Etc::sourcelist": sources, "Etc::sourceparts": "-", "State::lists": lists, "Cache": cache}
    options = [f"--option=Dir::{name}={value}" for name, value in own.items()]
    try:
        mirrors = _apt(
            "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"
        ).stdout.split()
        sources.write_text(f"deb-src [trusted=yes] {mirrors[0] if mirrors else ''} {release} main\n", "utf-8")
        updated = _apt("update", *options)
        fetched = _apt("source", "--download-only", *options, package, place=place)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return str(error)
    return updated.stderr + fetched.stderr


def _apt(*arguments: str, place: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-qq", *arguments], check=False, capture_output=True, text=True, cwd=place, timeout=300
    )
