"""The table of spam tests. Each is a small pure function: it says what it saw, or "" when it saw nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from inbound.stages.spam.look import Look

Saw = Callable[[Look], str]
Given = Callable[[Look], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpamTest:
    """One named test: its weight in the score when it fires, and the function whose docstring is its documentation.

    Where there is nothing `given`, it sees nothing and is not asked.
    """

    name: str
    weight: float
    saw: Saw
    given: Given

    @property
    def about(self) -> str:
        """One line that says when it fires."""
        return (self.saw.__doc__ or "").strip().splitlines()[0]


class Table(dict[str, SpamTest]):
    """Tests by name, in the order in which they are written."""

    def test(self, name: str, weight: float, *, given: Given | None = None) -> Callable[[Saw], Saw]:
        """Enter a function as the test of this name. Raises ValueError when the name is taken."""

        def enter(saw: Saw) -> Saw:
            if name in self:
                raise ValueError(f"two spam tests are called {name}")
            self[name] = SpamTest(name=name, weight=weight, saw=saw, given=given or _always)
            return saw

        return enter


def _always(_: Look) -> bool:
    return True
