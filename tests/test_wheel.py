"""The wheel holds the rules and the samples, and what it installs runs where no source tree is."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_wheel_brings_rules_and_samples_and_runs(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-qq",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True, timeout=60)
    (wheel,) = tmp_path.glob("inbound-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shipped = site / "inbound" / "_shipped"
    assert sorted(path.name for path in (shipped / "rules").iterdir()) == sorted(
        path.name for path in (ROOT / "rules").iterdir()
    )
    assert {path.name for path in (ROOT / "samples").glob("*.eml")} == {
        path.name for path in (shipped / "samples").glob("*.eml")
    }
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INBOUND_")}
    ran = subprocess.run(
        [sys.executable, "-m", "inbound", "check", str(shipped / "samples" / "good.eml")],
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert "\n  reply      250 2.0.0 OK " in ran.stdout
    assert "support" in ran.stdout
