"""Phrases to seek in a text, by whole words: the text is taken apart once, and each list of phrases asks where its words are."""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence

_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[$%]")
_MOST_PLACES = 1000  # of one word that are looked at


class Tokens:
    """The words of a text in lower case, `$` and `%` among them, and where each stands."""

    def __init__(self, text: str) -> None:
        self.words: Sequence[str] = _TOKEN.findall(text)
        self.places: Mapping[str, list[int]] = _places(self.words)
        self.in_order: Sequence[str] = sorted(self.places)


class Phrases:
    """A list of phrases in lower case. Punctuation between words does not matter; one that ends in `*` ends in a stem."""

    def __init__(self, *phrases: str) -> None:
        self._by_first: dict[str, list[tuple[list[str], bool, str]]] = {}
        self._stems: tuple[str, ...] = ()
        for phrase in phrases:
            words, stem = _TOKEN.findall(phrase.rstrip("*")), phrase.endswith("*")
            if len(words) == 1 and stem:
                self._stems += (words[0],)
            else:
                self._by_first.setdefault(words[0], []).append((words, stem, phrase.rstrip("*")))

    def within(self, tokens: Tokens) -> list[str]:
        """Those of the phrases that stand in the text. Linear in the text."""
        found = [
            phrase
            for first, phrases in self._by_first.items()
            if first in tokens.places
            for words, stem, phrase in phrases
            if any(_stands(words, stem, tokens.words, at) for at in tokens.places[first][:_MOST_PLACES])
        ]
        return sorted([*found, *(stem for stem in self._stems if _begins(stem, tokens.in_order))])


def _begins(stem: str, in_order: Sequence[str]) -> bool:
    at = bisect_left(in_order, stem)
    return at < len(in_order) and in_order[at].startswith(stem)


def _places(words: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for at, word in enumerate(words):
        places.setdefault(word, []).append(at)
    return places


def _stands(words: list[str], stem: bool, text: Sequence[str], at: int) -> bool:
    here = text[at : at + len(words)]
    if not stem:
        return here == words
    return len(here) == len(words) and here[:-1] == words[:-1] and here[-1].startswith(words[-1])
