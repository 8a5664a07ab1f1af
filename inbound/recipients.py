"""Whose mail is it: the patterns of `recipients` and of address lists, in one normal form.

    user@example.com        that address, and user+label@example.com with any label
    user+label@example.com  only that labelled form
    example.com             every address at the domain, none below it
    .example.com            every address at the domains below it, none at itself
    SRS0=@example.com       every SRS0 address at the domain, whatever is behind the `=`; SRS1= likewise

Local parts fold case; domains are lower-case A-labels. An address meets a pattern when one of its `forms` is the pattern,
so a look-up in a set of patterns is one for each form, whatever the size of the set.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

from inbound.addresses import a_labels
from inbound.errors import Problem
from inbound.schema import Place

LARGEST_LIST = 16 * 1024 * 1024  # octets of a list file
MOST_PROBLEMS = 20  # told of one list file
POSTMASTER = "postmaster"  # RFC 5321 4.5.1: taken without a domain too

_LONGEST_LOCAL = 256  # RFC 5321 4.5.3.1.1 says 64; real ones exceed it


def pattern(text: str) -> str:
    """The normal form of a pattern. Raises ValueError that says what is wrong with it."""
    text = text.strip()
    local, at, domain = text.rpartition("@")
    if not at:
        below = domain.startswith(".")
        name = a_labels(domain[1:] if below else domain)
        if "*" in domain:
            raise ValueError(
                f"{text!r}: there are no wildcards; write .{domain.lstrip('*.')} for all domains below one"
            )
        if not name:
            raise ValueError(f"{text!r} is no address and no domain")
        return f".{name}" if below else name
    if "*" in local:
        raise ValueError(f"{text!r}: there are no wildcards; write {domain} for all addresses at the domain")
    quoted = len(local) > 2 and local[0] == local[-1] == '"'  # noqa: PLR2004 - quotes with something inside
    impossible = set(local) & set("\r\n\t" if quoted else ' "(),:;<>@[\\]\r\n\t')  # RFC 5321 4.1.2
    if not local or len(local) > _LONGEST_LOCAL or impossible:
        raise ValueError(f"{text!r} has no local part that could be an address")
    name = a_labels(domain)
    if not name:
        raise ValueError(f"{text!r}: {domain!r} is no domain")
    return f"{_folded(local)}@{name}"


def sender(text: str) -> str:
    """An address that mail of ours may come from, as written; "" is none. Raises ValueError."""
    if text and (not text.isascii() or "@" not in pattern(text)):
        raise ValueError(f"{text!r} is no address that every mail system can answer: local@domain, in ASCII")
    return text


@functools.lru_cache(1024)  # asked several times of each recipient; addresses are as short as a command line
def forms(address: str) -> tuple[str, ...]:
    """Every pattern in normal form that the address meets, the nearest first; none when its domain is no domain name."""
    local, at, domain = address.rpartition("@")
    name = a_labels(domain)
    if not at or not local or not name:
        return ()
    local = _folded(local)
    bare = local.partition("+")[0]
    addresses = (f"{local}@{name}", f"{bare}@{name}") if bare and bare != local else (f"{local}@{name}",)
    labels = name.split(".")
    tag = local.removeprefix('"')[:5]
    if tag[:4] in ("srs0", "srs1") and tag[4:] in ("=", "+", "-"):
        addresses = (*dict.fromkeys((*addresses, f"{tag[:4]}=@{name}")),)
    return (*addresses, name, *("." + ".".join(labels[at:]) for at in range(1, len(labels))))


class Domains:
    """Our domains as the settings have them: `d` for the domain, `.d` for those below it."""

    def __init__(self, domains: Iterable[str]) -> None:
        domains = tuple(domains)
        self._themselves = frozenset(a_labels(name) for name in domains if not name.startswith("."))
        self._above = frozenset(a_labels(name[1:]) for name in domains if name.startswith("."))

    def include(self, domain: str) -> bool:
        """The domain is one of them."""
        name = a_labels(domain)
        labels = name.split(".")
        return bool(name) and (
            name in self._themselves or any(".".join(labels[at:]) in self._above for at in range(1, len(labels)))
        )


def _folded(local: str) -> str:
    """The local part without needless quotes (RFC 5321 4.1.2: `"user"@d` is user@d), case folded."""
    if len(local) > 2 and local[0] == local[-1] == '"':  # noqa: PLR2004 - quotes with something inside
        inner = local[1:-1].replace("\\", "")
        if not set(inner) & set(' "@,:;<>()[]\\'):
            local = inner
    return local.lower()


def read_list(path: Path, place: Place, problems: list[Problem]) -> frozenset[str]:
    """The patterns of a list file: one address or domain a line, `#` begins a comment. `place` is where it is named."""
    try:
        with path.open("rb") as file:
            octets = file.read(LARGEST_LIST + 1)
        text = octets.decode("utf-8-sig")
    except OSError as error:
        problems.append(place.problem(f"the list {path} cannot be read: {error.strerror}"))
        return frozenset()
    except UnicodeDecodeError:
        problems.append(place.problem(f"the list {path} is not UTF-8 text"))
        return frozenset()
    if len(octets) > LARGEST_LIST:
        problems.append(place.problem(f"the list {path} is larger than {LARGEST_LIST} octets"))
        return frozenset()
    patterns: set[str] = set()
    mistakes: list[Problem] = []
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.partition("#")[0].strip()
        try:
            if entry:
                patterns.add(pattern(entry))
        except ValueError as error:
            column = line.index(entry) + 1
            mistakes.append(Problem(file=str(path), line=number, column=column, message=str(error)))
    problems += mistakes[:MOST_PROBLEMS]
    if len(mistakes) > MOST_PROBLEMS:
        rest = len(mistakes) - MOST_PROBLEMS
        problems.append(Place(file=str(path)).problem(f"and {rest} more lines that are no address and no domain"))
    return frozenset(patterns)
