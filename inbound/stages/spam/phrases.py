"""Phrases to seek in a text, by whole words: the text is taken apart once, and each list of phrases asks where its words are."""

import re
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import NamedTuple

_NO_WORD = re.compile(r"[^\w\x00-\x7f]+")
_KEPT = b"abcdefghijklmnopqrstuvwxyz0123456789$%" + bytes(range(128, 256))
_APART = bytes(octet if octet in _KEPT else 32 for octet in range(256))
_MARKS = ("$", "%")  # words by themselves, wherever they stand
_BEGINNING = 4  # letters of a word by which stems are found


class Tokens:
    """The words of a text in lower case, `$` and `%` among them: `text` is all of them with one blank around each.

    `words` are those that there are, `beginnings` their first letters.
    """

    def __init__(self, text: str) -> None:
        words = text if text.isascii() else _NO_WORD.sub(" ", text)
        octets = words.encode("utf-8", "replace").translate(_APART)
        for mark in map(str.encode, _MARKS):
            octets = octets.replace(mark, b" %c " % mark) if mark in octets else octets
        in_order = octets.decode("utf-8", "replace").split()
        self.text = f" {' '.join(in_order)} "
        self.words: AbstractSet[str] = set(in_order)
        self.beginnings: AbstractSet[str] = {word[:_BEGINNING] for word in self.words}


class _Phrase(NamedTuple):
    """What to seek in the text, if these words are in it."""

    words: frozenset[str]
    sought: str
    written: str


class Phrases:
    """A list of phrases in lower case. Punctuation between words does not matter; one that ends in `*` ends in a stem.

    Raises ValueError for a stem by itself that is shorter than four letters, and for a phrase that begins with a mark.
    """

    def __init__(self, *phrases: str) -> None:
        self._words: dict[str, str] = {}
        self._stems: dict[str, list[str]] = {}
        self._by_first: dict[str, list[_Phrase]] = {}
        self.patterns: list[str] = []
        for phrase in phrases:
            written = phrase.rstrip("*")
            stem = written != phrase
            words = Tokens(written).text.split()
            if words[0] in _MARKS:
                raise ValueError(f"the phrase {phrase!r} begins with a mark")
            self.patterns.append(_pattern(words, stem=stem))
            if len(words) > 1:
                whole = words[1:-1] if stem else words[1:]
                sought = f" {' '.join(words)}" if stem else f" {' '.join(words)} "
                self._by_first.setdefault(words[0], []).append(_Phrase(frozenset(whole), sought, written))
            elif not stem:
                self._words[words[0]] = written
            elif len(written) < _BEGINNING:
                raise ValueError(f"the stem {phrase!r} is too short")
            else:
                self._stems.setdefault(written[:_BEGINNING], []).append(written)

    def within(self, tokens: Tokens) -> list[str]:
        """Those of the phrases that stand in the text. Linear in the text."""
        found = [self._words[word] for word in self._words.keys() & tokens.words]
        found += [
            stem
            for beginning in self._stems.keys() & tokens.beginnings
            for stem in self._stems[beginning]
            if f" {stem}" in tokens.text
        ]
        found += [
            phrase.written
            for first in self._by_first.keys() & tokens.words
            for phrase in self._by_first[first]
            if phrase.words <= tokens.words and phrase.sought in tokens.text
        ]
        return sorted(found)

    @staticmethod
    def pattern(*lists: "Phrases") -> str:
        """A regular expression, for octets in lower case, of what may be a phrase of one of the lists. It may match more."""
        return f"(?:^|[^a-z0-9])(?:{'|'.join(sorted({one for phrases in lists for one in phrases.patterns}))})"


def _pattern(words: list[str], *, stem: bool) -> str:
    """A regular expression of these words in a row, whatever is between them."""
    written = re.escape(words[0])
    for word, following in pairwise(words):
        marked = word in _MARKS or following in _MARKS  # and then nothing need be between them
        written += f"[^a-z0-9]{'*' if marked else '+'}{re.escape(following)}"
    return written if stem or words[-1] in _MARKS else f"{written}(?:[^a-z0-9]|$)"
