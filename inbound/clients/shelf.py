"""Keys as paths below a bucket's directory, and which keys lie there."""

import os
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from urllib.parse import quote, unquote

from inbound.clients import Listed

METADATA = ".metadata.json"


def segment(text: str) -> str:
    """One segment of a key as a file name: readable, and never empty, `.`, `..`, hidden, or a metadata file's."""
    name = quote(text.encode("utf-8", "replace"), safe=" !#$&'()+,;=@[]~")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if name.endswith(METADATA):
        name = name.removesuffix(METADATA) + "%2Emetadata.json"
    return name or "%"


def text_of(name: str) -> str:
    """The segment that a file name stands for."""
    return "" if name == "%" else unquote(name)


def beside(path: str | Path) -> str:
    """Where the metadata of an object lies."""
    return f"{path}{METADATA}"


def listed(directory: Path, prefix: str, above: str = "") -> Iterator[Listed]:
    """The objects whose keys begin with `prefix`, in the order of their keys. Lazy; raises OSError.

    `above` is what their keys have in common, with its slash. An object that goes away meanwhile is left out.
    """
    for key, entry, many in sorted(_entries(directory, above), key=itemgetter(0)):
        if many:
            if key.startswith(prefix) or prefix.startswith(key):
                yield from listed(Path(entry.path), prefix, key)
        elif key.startswith(prefix):
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            yield Listed(key=key, size=status.st_size, modified=status.st_mtime)


def _entries(directory: Path, above: str) -> Iterator[tuple[str, "os.DirEntry[str]", bool]]:
    """Keys, and with a slash at the end what many keys have in common: sorted, both are in the order of S3."""
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if not entry.name.startswith(".") and not entry.name.endswith(METADATA):
                many = entry.is_dir()
                yield above + text_of(entry.name) + ("/" if many else ""), entry, many
