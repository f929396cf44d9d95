"""The rules of plain English that also hold outside service/: for pages, contributed files, the demo, benchmarks and migrations."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import test_plain_english as rules

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(file for file in (ROOT / "contrib").rglob("*") if file.is_file())])
PROGRAMS = sorted(file for folder in ("demo", "benchmarks", "migrations") for file in (ROOT / folder).rglob("*.py"))

_IS_NO = re.compile(rf"(?<!there may )(?<!there can ){rules._IS_NO.pattern}", re.IGNORECASE)
_FENCED = re.compile(r"```.*?```", re.DOTALL)
_QUOTED = re.compile(r"`[^`]*`|\"is no\"")
_BEGINS = re.compile(r"\s*(?:[-*|#]|\d+\.) |\s*\|")


def paragraphs(page: str) -> Iterator[tuple[int, str]]:
    """Line and text of each paragraph, list item and row of a table, without code."""
    begin, lines = 1, list[str]()
    for number, line in enumerate(_FENCED.sub(lambda fenced: "\n" * fenced[0].count("\n"), page).splitlines(), 1):
        if _BEGINS.match(line) or not line.strip():
            yield begin, " ".join(lines)
            begin, lines = number, []
        lines.append(_QUOTED.sub("`", line))
    yield begin, " ".join(lines)


def breaches(file: Path) -> Iterator[str]:
    split = rules.texts if file.suffix == ".py" else paragraphs
    for line, text in split(file.read_text()):
        yield from (f"{file.name}:{line}: {wrong}" for wrong in _wrong_in(text.strip()))


def _wrong_in(text: str) -> Iterator[str]:
    if match := _IS_NO.search(text):
        yield f"“{match[0]}” instead of “not a”"
    # A row of a table and a line of sources list things.
    if rules._CODE.search(text) or text.startswith(("|", "Source")):
        return
    for sentence in rules._SENTENCE_END.split(text):
        if sentence.count("; ") > 1:
            yield f"two semicolons in one sentence: {sentence.strip()[:80]}"


@pytest.mark.parametrize("file", [*PAGES, *PROGRAMS], ids=lambda file: str(file.relative_to(ROOT)))
def test_what_people_read_follows_the_rules_that_can_be_checked(file: Path) -> None:
    assert list(breaches(file)) == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("This is\nno page.", True),
        ("There is no page.", False),
        ("There may be no page.", False),
        ("- One; two; three.", True),
        ("- One; two.\n- Three; four.", False),
        ("| one; two; three | four |", False),
        ("| this is no row |", True),
        ("```sh\necho this is no code; true; true\n```", False),
        ("Say `is no` in code.", False),
    ],
)
def test_the_check_finds_what_it_should(tmp_path: Path, text: str, is_found: bool) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{text}\n")
    assert bool(list(breaches(page))) is is_found
