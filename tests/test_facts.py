"""docs/facts.md has every fact that is cited by number, and no fact that nobody cites."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "facts.md"
CITING = ("service", "tests", "docs", "demo", "benchmarks", "contrib", "migrations", "scripts", "README.md")

_NUMBER = r"\d+(?:\.\d+)*"
_CITATION = re.compile(rf"([A-Z]?)§({_NUMBER})")
_ENTRY = re.compile(rf"^(?:#+ |- \*\*)([A-Z]§{_NUMBER})\b", re.MULTILINE)


def citations(files: list[Path]) -> dict[str, set[str]]:
    """Each cited number to the files that cite it."""
    found: dict[str, set[str]] = {}
    for file in files:
        for letter, number in _CITATION.findall(file.read_text(errors="replace")):
            found.setdefault(f"{letter}§{number}", set()).add(str(file.relative_to(ROOT)))
    return found


def entries() -> list[str]:
    return _ENTRY.findall(PAGE.read_text())


def cited() -> dict[str, set[str]]:
    files = [file for place in CITING for file in [ROOT / place, *(ROOT / place).rglob("*")] if file.is_file()]
    return citations([file for file in files if file not in (PAGE, Path(__file__)) and not {"static", "__pycache__"} & set(file.parts)])


def test_every_number_that_is_cited_is_on_the_page() -> None:
    known = set(entries())
    assert {number: files for number, files in cited().items() if number not in known} == {}


def test_the_page_cites_only_its_own_numbers() -> None:
    assert set(citations([PAGE])) <= set(entries())


def test_every_fact_is_cited_or_stands_in_a_section_that_is() -> None:
    numbers = set(cited())
    assert [entry for entry in entries() if entry not in numbers and _section(entry) not in numbers] == []


def test_no_number_stands_twice_on_the_page() -> None:
    assert sorted(entries()) == sorted(set(entries()))


@pytest.mark.parametrize("trap", [entry for entry in entries() if entry.startswith("F§7.")])
def test_every_trap_has_a_test_of_its_number(trap: str) -> None:
    number = trap.partition(".")[2]
    names = re.findall(r"def (test_traps?_[0-9_and]+)", "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py")))
    assert any(number in re.findall(r"\d+", name) for name in names)


def _section(entry: str) -> str:
    return entry.rpartition(".")[0]
