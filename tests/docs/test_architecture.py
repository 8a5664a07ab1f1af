"""One module (or package) for each foreign library: what is replaced later is replaced in one place."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "inbound"

# Where each library may be imported: modules, or packages with everything in them.
HOMES = {
    "aiosmtpd": {"receive"},
    "aiosmtplib": {"clients.smtp", "clients.smtp_wire"},
    "boto3": {"clients.aws_clients"},
    "botocore": {"clients.aws", "clients.aws_clients", "clients.aws_direct", "clients.aws_errors", "clients.aws_parts"},
    "checkdmarc": {"doctor", "stages.dmarc"},
    "clamd": {"clients.clamd"},
    "cryptography": {"clients.local", "demo", "receive.tls", "seal", "stages.signatures"},
    "dkim": {"stages.arc", "stages.canonical", "stages.dkim", "stages.signatures"},
    "dns": {"clients.dns", "testing"},
    "greenlet": {"offload"},
    "idna": {"addresses", "stages.spam"},
    "orjson": {"journal"},
    "pydantic": {"actions", "cases", "schema", "settings"},
    "re2": {"grammar", "stages.spam"},
    "spf": {"stages.spf"},
    "uvloop": {"commands.check", "commands.demo", "commands.reports", "commands.serve", "serve", "receive"},
    "yaml": {"schema"},
}


def imports() -> list[tuple[str, str]]:
    """Every (module of ours, foreign top-level package) that is imported."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            found |= {(module, name.partition(".")[0]) for name in names}
    return sorted((ours, theirs) for ours, theirs in found if theirs not in sys.stdlib_module_names | {"inbound"})


@pytest.mark.parametrize(("module", "library"), imports())
def test_a_foreign_library_is_imported_where_it_belongs(module: str, library: str) -> None:
    assert any(module == home or module.startswith(f"{home}.") for home in HOMES.get(library, ())), (
        f"inbound.{module} imports {library}, whose home is {HOMES.get(library)}"
    )


def test_every_home_is_lived_in() -> None:
    used = {library for _, library in imports()}
    assert sorted(set(HOMES) - used) == []
