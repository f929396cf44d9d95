"""Rules of plain English that a program can check, for every comment, docstring and text in service/.

The rules are in docs/development.md. What a program cannot check stays a matter of review.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[1] / "service"
FILES = sorted(SERVICE.rglob("*.py"))

#: "is no": say "is not a". "There is no ..." and "is no longer", "is no more than" are plain English.
_IS_NO = re.compile(
    r"(?<!there )\b(?:is|are|was|were|be) no\b(?! (?:longer|more than|better|worse|older|newer|later|earlier|larger|smaller))", re.I
)
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s|\n\s*\n|\n\s*[-*|]\s")
#: Programs and tables that stand in a string: their semicolons are not those of a sentence.
_CODE = re.compile(r"; then\b|; do\b|^echo @|-src '|^SET ", re.MULTILINE)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each string and of each run of comment lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    yield from _comments(source)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    lines: list[str] = []
    first, last = 0, -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1 and lines:
            yield first, " ".join(lines)
            lines = []
        if not lines:
            first = token.start[0]
        lines.append(token.string.lstrip("#: "))
        last = token.start[0]
    if lines:
        yield first, " ".join(lines)


def breaches(file: Path) -> Iterator[str]:
    for line, text in texts(file.read_text()):
        if found := _IS_NO.search(text):
            yield f"{file.relative_to(SERVICE.parent)}:{line}: “{found[0]}” instead of “not a”"
        if _CODE.search(text):
            continue
        for sentence in _SENTENCE_END.split(text):
            if sentence.count("; ") > 1:
                yield f"{file.relative_to(SERVICE.parent)}:{line}: two semicolons in one sentence: {sentence.strip()[:80]}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SERVICE)))
def test_texts_follow_the_rules_that_can_be_checked(file: Path) -> None:
    assert list(breaches(file)) == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ('"This is no path."', True),
        ('"Two of them are no disks."', True),
        ('"There is no path."', False),
        ('"It is no longer there."', False),
        ('"One; two; three."', True),
        ('"One; two. Three; four."', False),
        ("# One;\n# two; three.", True),
    ],
)
def test_the_check_finds_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, is_found: bool) -> None:
    monkeypatch.setattr("tests.test_plain_english.SERVICE", tmp_path / "service")
    file = tmp_path / "module.py"
    file.write_text(f"{text}\n")
    assert bool(list(breaches(file))) is is_found
