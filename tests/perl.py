"""The machine's Perl, whose modules some tests ask for another opinion."""

import shutil
import subprocess


def perl_has(module: str) -> bool:
    """There is a Perl, and it loads the module. What is there and does not load counts as missing."""
    perl = shutil.which("perl")
    return (
        perl is not None
        and not subprocess.run([perl, f"-M{module}", "-e1"], check=False, capture_output=True).returncode
    )
