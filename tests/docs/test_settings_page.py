"""docs/settings.md says what inbound/settings.py says."""

from pathlib import Path

from tests.docs.settings_page import SECTIONS, page

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_of_settings_is_made_of_the_settings() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "python -m tests.docs.settings_page > docs/settings.md"


def test_every_key_says_what_it_is_for() -> None:
    text = page()
    assert [line for line in text.splitlines() if line.startswith("| `") and line.endswith("|  |")] == []
    assert all(f"## {title}" in text for title in SECTIONS.values())
