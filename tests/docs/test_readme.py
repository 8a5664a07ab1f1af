"""What README and docs show was run: every console block is run again, and every table names what the code knows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_VOLATILE = [
    (re.compile(r"\b[0-9a-v]{40}\b"), "ID"),
    (re.compile(r"^  time .*$", re.MULTILINE), "  time"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID"),
]


def blocks() -> list[tuple[str, str, str]]:
    """(page, command, output) of each command in each console block."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, output = piece.partition("\n")
                found.append((page.name, command, output))
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a reader has, in a directory that commands may write to."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("rules", "samples"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.mark.parametrize(("page", "command", "output"), blocks())
def test_a_command_prints_what_the_page_shows(page: str, command: str, output: str, checkout: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INBOUND_")}
    environ |= {"PATH": f"{Path(sys.executable).parent}:{environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        ["/bin/sh", "-c", command], cwd=checkout, env=environ, capture_output=True, text=True, timeout=50, check=False
    )
    assert output.strip(), f"{page}: {command} shows no output"
    assert plain(output) == plain(ran.stdout), f"{page}: {command}\n{ran.stderr}"


def plain(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, word in _VOLATILE:
        text = pattern.sub(word, text)
    return text.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
