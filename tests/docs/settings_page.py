"""docs/settings.md, made of inbound/settings.py: each key with its default and the comment beside it.

python -m tests.docs.settings_page > docs/settings.md
"""

import ast
import inspect
import textwrap
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from inbound import settings

SECTIONS = {
    "Settings": "The file",
    "Listener": "An entry of `listen` may have keys",
    "Tls": "`tls`",
    "Certificate": "An entry of `tls.more`",
    "BlockList": "`block_list`",
    "DnsblZone": "An entry of `block_list.dnsbl`",
    "Dsn": "`dsn`",
    "Greylist": "`greylist`",
    "Spam": "`spam`",
    "Trusted": "`trusted`",
    "Reports": "`reports`",
    "Relay": "`relay`",
    "Limits": "`limits`",
    "Deadlines": "`deadlines`",
}

HEAD = """\
# Settings

One file, `inbound.yaml` where the program is started, or the one that `--config` or `INBOUND_CONFIG` names. Every key is also
a variable of the environment, which wins: `INBOUND_HOSTNAME=mx.example.com`, `INBOUND_LIMITS__RECIPIENTS=50` for a key of a
mapping. Lists and mappings are written as YAML there: `INBOUND_DOMAINS='[example.com, example.org]'`. Paths are relative to
the file's directory. A mistake is told with file, line and column, and all at once. Secrets belong in the environment.

This page is made of `inbound/settings.py`, and a test keeps them alike.
"""


def page() -> str:
    """The whole page."""
    tree = ast.parse(inspect.getsource(settings))
    lines = inspect.getsource(settings).splitlines()
    parts = [HEAD]
    for name, title in SECTIONS.items():
        record = getattr(settings, name)
        node = next(one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == name)
        said = {
            one.target.id: lines[(one.end_lineno or 1) - 1].partition("  # ")[2]
            for one in node.body
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        }
        rows = [f"| `{one.name}` | {default(one)} | {said[one.name]} |" for one in fields(record)]
        text = textwrap.fill(inspect.cleandoc(record.__doc__ or ""), 124)
        parts.append("\n".join([f"## {title}", "", text, "", "| key | default | |", "| --- | --- | --- |", *rows, ""]))
    return "\n".join(parts)


def default(one: Any) -> str:
    """A field's default as one would write it."""
    value = (
        one.default
        if one.default is not MISSING
        else one.default_factory()
        if one.default_factory is not MISSING
        else MISSING
    )
    if value is MISSING:
        return "required"
    if value is None or value in ("", (), {}) or is_dataclass(value):
        return ""
    if isinstance(value, bool):
        return "`yes`" if value else "`no`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
