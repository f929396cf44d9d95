"""Tests compare codes and facts, never a sentence of the service: then a sentence can be improved without an edit of a test.

A program sees this much of it: a text in an assertion or in `match=` that also stands in a text of service/. A test that needs a whole
sentence builds it from the error's type, or from the name that service/ has for the sentence.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SERVICE = TESTS.parent / "service"
FILES = sorted(TESTS.rglob("*.py"))

SAID_BY_OTHERS = (
    'Bearer realm="stillpoint"',
    "Expecting value",
    "No error",
    "No space left on device",
    "PRAGMA foreign_keys",
    "No error",
    "database is locked",
    "domain is not running",
    "fsfreeze not possible as VSS failed to initialize",
    "has been disabled",
    "nie ma błędów",
    "this feature or command is not currently supported",
)
"""Words of Python, SQLite, libvirt, the agent, Windows and HTTP, which the service reads or passes on. Those programs alone change them."""

_SEVERAL_WORDS = re.compile(r"[^\W\d_]{2,},? [a-z]{2,}")
_ONE_WORD = re.compile(r"[a-z]{3,}")
_PROSE = re.compile(r"\b(detail|remedy|story|summary|because|would_lift|why|why_not|stderr|as_sentence|message)\b")
"""Names of what is written for people. A single plain word that is looked for in it is a part of a sentence, too."""
_QUOTED = re.compile(r"`[^`]*`|<[^>]*>")


def strings(node: ast.AST) -> Iterator[ast.Constant]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str))


@cache
def sentences() -> str:
    """Every text in service/ of more than one word. Left out: docstrings, and what stands in backticks, because commands are facts."""
    found: list[str] = []
    for file in SERVICE.rglob("*.py"):
        tree = ast.parse(file.read_text())
        documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [_QUOTED.sub("`", str(each.value)) for each in strings(tree) if id(each) not in documented and " " in str(each.value)]
    return "\n".join(found)


def _compared(tree: ast.AST) -> Iterator[tuple[ast.Constant, bool]]:
    """The texts that a test compares, each with: it is looked for in a text for people."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "match":
            yield from ((each, True) for each in strings(node.value))
        if isinstance(node, ast.Assert):
            looked_for = [
                id(each.left)
                for each in ast.walk(node.test)
                if isinstance(each, ast.Compare) and isinstance(each.ops[0], ast.In) and _PROSE.search(ast.unparse(each.comparators[0]))
            ]
            yield from ((each, id(each) in looked_for) for each in strings(node.test))


def breaches(source: str, of_the_service: str) -> Iterator[str]:
    tree = ast.parse(source)
    compared = list(_compared(tree))
    seen = {id(each) for each, _ in compared}
    # What the test feeds to the service, the service may repeat.
    others = [str(each.value) for each in strings(tree) if id(each) not in seen] + list(SAID_BY_OTHERS)
    for each, is_looked_for in compared:
        words = str(each.value).strip()
        if words.startswith("`"):
            continue
        is_prose = _SEVERAL_WORDS.search(words) or (is_looked_for and _ONE_WORD.fullmatch(words))
        if is_prose and not any(words in other for other in others) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", of_the_service):
            yield f"{each.lineno}: {words!r}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(TESTS)))
def test_no_sentence_of_the_service_is_compared(file: Path) -> None:
    assert list(breaches(file.read_text(), sentences())) == []


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ('assert "is frozen and" in error.detail', True),
        ('assert detail.startswith("The guest")', True),
        ('assert job == {"detail": "The guest is frozen"}', True),
        ('pytest.raises(Error, match="guest is")', True),
        ('pytest.raises(Error, match="frozen")', True),
        ('assert "frozen" in error.detail', True),
        ('assert "frozen" in job.freeze', False),
        ('assert job.state == "frozen"', False),
        ('assert "db1" in error.detail', False),
        ('assert "virsh start db1" in error.remedy', False),
        ('assert "`resume db1" in error.remedy', False),
        ('refuse("guest is frozen")\nassert "guest is frozen" in error.detail', False),
        ('assert "another program" in error.detail', False),
    ],
)
def test_the_check_finds_what_it_should(source: str, is_found: bool) -> None:
    assert bool(list(breaches(source, "The guest is frozen and waits. Then resume db1."))) is is_found
