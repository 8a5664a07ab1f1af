"""YAML read as text with places, and records built of it with every mistake told."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field

from inbound.errors import Problem
from inbound.reply import Reply
from inbound.schema import DEEPEST, LARGEST_FILE, MOST_VALUES, Node, build, keys, parse


def read(text: str) -> Node:
    problems: list[Problem] = []
    node = parse(text, "f", problems)
    assert problems == []
    assert node is not None
    return node


def mistakes(text: str) -> list[str]:
    problems: list[Problem] = []
    parse(text, "f", problems)
    return [str(problem) for problem in problems]


@pytest.mark.parametrize(
    "word",
    ["no", "yes", "on", "off", "true", "12:30", "010", "0x1F", "1e3", "1_000", "2026-01-01", ".inf", "=", "+1", "NaN"],
)
def test_a_scalar_is_the_text_that_was_written(word: str) -> None:
    assert read(f"key: {word}").plain() == {"key": word}


@pytest.mark.parametrize("word", ["", "~", "null", "Null", "NULL"])
def test_nothing_is_no_value(word: str) -> None:
    assert read(f"key: {word}").plain() == {"key": None}


@pytest.mark.parametrize("word", ['""', "''", '"~"', "'null'"])
def test_what_is_quoted_is_text(word: str) -> None:
    assert read(f"key: {word}").plain() == {"key": word[1:-1]}


def test_every_value_and_key_has_its_place() -> None:
    node = read("a:\n  - b: c\n    d: [e, f]\n")
    assert node.entries is not None
    (item,) = node.entries["a"].items or ()
    assert item.entries is not None
    d = item.entries["d"]
    assert ((d.key.line, d.key.column), (d.place.line, d.place.column)) == ((3, 5), (3, 8))
    assert [(one.place.line, one.place.column) for one in d.items or ()] == [(3, 9), (3, 12)]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~\n"])
def test_an_empty_file_is_no_value_and_no_mistake(text: str) -> None:
    problems: list[Problem] = []
    assert parse(text, "f", problems) is None
    assert problems == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1: the key 'a' was there before, at line 1"),
        ("a: {b: 1, b: 2}\n", "f:1:11: the key 'b' was there before, at line 1"),
        ("a: &x 1\nb: *x\n", "f:1:4: anchors and aliases are not taken: write the value out"),
        ("a: *x\n", "f:1:4: anchors and aliases are not taken: write the value out"),
        ("a: &x [1]\n", "f:1:4: anchors and aliases are not taken: write the value out"),
        ("a: !!int 1\n", "f:1:4: the tag tag:yaml.org,2002:int is not taken: the key says what its value is"),
        ("a: !x 1\n", "f:1:4: the tag !x is not taken: the key says what its value is"),
        ("a: 1\n---\nb: 2\n", "f:2:1: a second document; one file holds one"),
        ("? [a]\n: b\n", "f:1:3: a key must be text"),
        ("~: b\n", "f:1:1: a key must be text"),
        ("a: [\n", "f:2:1: cannot be read as YAML: did not find expected node content"),
        ("a:\n\t- b\n", "f:2:1: cannot be read as YAML: found character that cannot start any token"),
        ("a: b: c\n", "f:1:5: cannot be read as YAML: mapping values are not allowed in this context"),
        (
            "a: \x00\n",
            "f:1:1: cannot be read as YAML: unacceptable character #x0000: control characters are not allowed",
        ),
    ],
)
def test_what_is_not_taken_is_told_at_its_place(text: str, says: str) -> None:
    assert mistakes(text) == [says]


def test_a_merge_key_is_a_key_like_any_other() -> None:
    assert read("<<: {a: 1}\n").plain() == {"<<": {"a": "1"}}


def test_two_mistakes_are_told_at_once() -> None:
    assert len(mistakes("a: 1\na: 2\nb: 1\nb: 2\n")) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, f"nested deeper than {DEEPEST} levels"),
        ("- " * 5000, f"nested deeper than {DEEPEST} levels"),
        ("- a\n" * (MOST_VALUES + 1), f"more than {MOST_VALUES} values"),
        ("#" * (LARGEST_FILE + 1), f"at most {LARGEST_FILE} are read"),
    ],
)
def test_a_file_that_is_too_much_is_told(text: str, says: str) -> None:
    (problem,) = mistakes(text)
    assert says in problem


def test_laughs_are_not_multiplied() -> None:
    laughs = "a: &a [x]\n" + "".join(f"{name}: &{name} [*{below}, *{below}]\n" for below, name in ("ab", "bc", "cd"))
    assert len(mistakes(laughs)) == 1


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    problems: list[Problem] = []
    node = parse(text, "f", problems)
    assert node is None or isinstance(node, Node)


def _even(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


@keys
class Inner:
    word: Literal["one", "two"] = "one"
    number: int = 0


@keys
class Outer:
    text: str
    count: Annotated[int, Field(gt=0), AfterValidator(_even)] = 2
    share: float = 0.5
    flag: bool = False
    path: Path = Path()
    words: tuple[str, ...] = ()
    inner: Inner = Inner()
    either: tuple[str | Inner, ...] = ()
    by_name: dict[str, Inner] | None = None
    code: Annotated[str, Field(pattern="^[0-9]+$")] = "1"
    from_: str = ""


@keys
class Says:
    code: int = 250

    def __post_init__(self) -> None:
        Reply(self.code, "2.0.0", "x")


def built(text: str, wanted: type = Outer) -> tuple[object, list[str]]:
    problems: list[Problem] = []
    record = build(read(text), wanted, problems)
    return record, [str(problem) for problem in problems]


def test_a_record_is_made_of_text_as_its_fields_want_it() -> None:
    record, problems = built(
        "text: no\ncount: '4'\nshare: 1e-1\nflag: on\npath: a/b\nwords: [no, 010]\n"
        "inner: {word: two, number: -3}\neither: [a, {number: 1}]\nby_name: {x: {number: 2}}\nfrom: 12:30\n"
    )
    assert problems == []
    assert record == Outer(
        text="no",
        count=4,
        share=0.1,
        flag=True,
        path=Path("a/b"),
        words=("no", "010"),
        inner=Inner(word="two", number=-3),
        either=("a", Inner(number=1)),
        by_name={"x": Inner(number=2)},
        from_="12:30",
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "f:1:1: the key 'text' is missing"),
        ("text: [a]", "f:1:7: expected text, found a list"),
        ("text:", "f:1:6: expected text, found nothing"),
        ("text: a\ncount: x", "f:2:8: expected a whole number, found 'x'"),
        ("text: a\ncount: 1.5", "f:2:8: expected a whole number, found '1.5'"),
        ("text: a\ncount: 3", "f:2:8: 3 is odd"),
        ("text: a\ncount: -2", "f:2:8: input should be greater than 0"),
        ("text: a\nshare: much", "f:2:8: expected a number, found 'much'"),
        ("text: a\nflag: maybe", "f:2:7: expected yes or no, found 'maybe'"),
        ("text: a\nwords: one", "f:2:8: expected a list, found 'one': write [one]"),
        ("text: a\nwords: {a: b}", "f:2:8: expected a list, found a mapping"),
        ("text: a\nwords: [a, [b]]", "f:2:12: expected text, found a list"),
        ("text: a\ninner: x", "f:2:8: expected a mapping of keys, found 'x'"),
        ("text: a\ninner: {word: tow}", "f:2:15: expected 'one' or 'two', found 'tow', did you mean 'two'?"),
        ("text: a\ninner: {numbr: 1}", "f:2:9: unknown key 'numbr', did you mean 'number'?"),
        ("text: a\neither: [{numbr: 1}]", "f:2:11: unknown key 'numbr', did you mean 'number'?"),
        ("text: a\neither: [[]]", "f:2:10: expected text, found a list"),
        ("text: a\nby_name: {x: {zzz: 1}}", "f:2:15: unknown key 'zzz'; there are number, word"),
        ("tekst: a", "f:1:1: unknown key 'tekst', did you mean 'text'?"),
        ("text: a\nform: b", "f:2:1: unknown key 'form', did you mean 'from'?"),
        ("text: a\ncode: x1", "f:2:7: 'x1' has not the form ^[0-9]+$"),
        ("[a]", "f:1:1: expected a mapping of keys, found a list"),
    ],
)
def test_what_does_not_fit_is_told_in_plain_words_at_its_place(text: str, says: str) -> None:
    assert built(text) == (None, [says])


def test_all_mistakes_of_a_record_are_told_at_once() -> None:
    _, problems = built("txt: a\ncount: x\nflag: x\ninner: {word: x, number: y}\n")
    assert len(problems) == 5


def test_an_error_of_ours_in_a_record_is_told_where_the_record_stands() -> None:
    assert built("code: 999", Says)[1] == ["f:1:1: 999 is not a final reply code (2xx, 4xx or 5xx)"]
