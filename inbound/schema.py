"""From YAML text to frozen records whose fields are the keys, with every mistake found at its line and column."""

from typing import TypeVar, cast, dataclass_transform

import pydantic
import pydantic.dataclasses

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def keys(cls: type[T]) -> type[T]:
    """Make a class whose fields are the keys of a YAML mapping: frozen, keyword-only, no unknown key, values checked."""
    config = pydantic.ConfigDict(extra="forbid")
    make = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, slots=True, config=config)
    return cast("type[T]", make(cls))
