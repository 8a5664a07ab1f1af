"""Frozen records as JSON and back, by the types of their fields: what is written down comes back equal.

Texts keep lone surrogates (octets that are no UTF-8), octets are base64, addresses text, tuples lists. A key that is not
there has the field's default; one that is not known is passed over, so that an older program reads what a newer one wrote.
"""

import base64
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal, TypeVar

from inbound.record import plain

Kind = TypeVar("Kind")


def written(record: object) -> bytes:
    """A record as one JSON document."""
    return json.dumps(plain(record), default=_text, separators=(",", ":")).encode("ascii")


def read(octets: bytes, kind: type[Kind]) -> Kind:
    """The record that was written. Raises ValueError, which says where it is not one."""
    try:
        found: Kind = _built(json.loads(octets), kind, "")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found


def _text(value: object) -> str:
    """What JSON has no form for."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, IPv4Address | IPv6Address):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be written down")


def _built(value: Any, kind: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return _one_of(value, arguments, where)
    if origin is Literal:
        return _checked(value, value in arguments and type(value) in set(map(type, arguments)), where)
    if origin is tuple:
        _checked(value, isinstance(value, list), where)
        return tuple(_built(one, arguments[0], f"{where}[{at}]") for at, one in enumerate(value))
    if origin in (dict, Mapping):
        _checked(value, isinstance(value, dict), where)
        return {key: _built(one, arguments[1], f"{where}.{key}") for key, one in value.items()}
    if is_dataclass(kind):
        return _record(value, kind, where)
    return _single(value, kind, where)


def _one_of(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if set(kinds) == {IPv4Address, IPv6Address}:
        return _made(ip_address, value, where)
    if value is None:
        return _checked(value, type(None) in kinds, where)
    (kind,) = (one for one in kinds if one is not type(None))
    return _built(value, kind, where)


def _record(value: Any, kind: Any, where: str) -> Any:
    _checked(value, isinstance(value, dict), where)
    found = {
        name: _built(value[name], hint, f"{where}.{name}") for name, hint in _fields(kind).items() if name in value
    }
    try:
        return kind(**found)
    except Exception as error:  # a record may refuse what it is given
        raise ValueError(f"{where or 'it'} is no {kind.__name__}: {error}") from error


def _single(value: Any, kind: Any, where: str) -> Any:
    if kind is bytes:
        return _made(lambda text: base64.b64decode(text, validate=True), value, where)
    if issubclass(kind, Enum):
        return _made(kind, value, where)
    if kind is float:
        return float(_checked(value, isinstance(value, int | float) and not isinstance(value, bool), where))
    return _checked(value, type(value) is kind, where)


def _made(make: Any, value: Any, where: str) -> Any:
    _checked(value, isinstance(value, str), where)
    try:
        return make(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _checked(value: Any, is_right: bool, where: str) -> Any:
    if not is_right:
        raise ValueError(f"{where or 'it'} is not what belongs there")
    return value


@cache
def _fields(kind: type) -> dict[str, Any]:
    """The fields of a record and their types."""
    hints = typing.get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind)}
