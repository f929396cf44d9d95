"""Rules of plain English that a program can check, for every comment, docstring, text and name in service/.

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
#: Words and phrases that make a reader guess who or what is meant, and what to say instead.
_INSTEAD = {
    r"who(?:m|so)?ever": "the process, the caller, ...",
    r"somebody|someone": "another client, a caller, ...",
    r"besides": "also, other",
    r"anew": "again, new",
    r"go(?:es)? on": "continue",
    r"all the same": "anyway, nevertheless",
    r"as good as": "the thing itself",
    r"that of it|of theirs": "the thing itself",
    r"puts? out": "disarm",
    r"answers (?:the|its|their|whether|how|which|what|an?)(?= [a-z]+\b)": "return",
}
#: The API answers, and so does an agent. A function returns.
_MAY_ANSWER = re.compile(r"\b(?:API|agent|server|service|gate|thaw|call) answers|\banswers the (?:first|second|full)")
#: A text that begins with a genitive has lost its noun.
_NO_NOUN = re.compile(r"\s*(?:Of (?!course)|Those |Whose |Whom )")
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s|\n\s*\n|\n\s*[-*|]\s")
#: Programs and tables that stand in a string: their semicolons are not those of a sentence.
_CODE = re.compile(r"; then\b|; do\b|^echo @|-src '|^SET ", re.MULTILINE)


#: Words that are not a part of a name, because they do not say what the thing is.
_NOT_IN_NAMES = frozenset({"found", "told", "beside", "besides", "moment", "anew", "most", "whoever", "heard", "said", "deed", "burning"})
#: Names that stand for words of the API, of Python or of HTTP.
_NAMES_ALLOWED = re.compile(r"not_?found$", re.IGNORECASE)
_LIMIT = re.compile(r"^_?(?:MAX|MIN)_|_(?:S|MS|SECONDS|BYTES)$")


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
    source = file.read_text()
    for line, breach in [*_of_texts(source), *_of_names(source), *_of_limits(source)]:
        yield f"{file.relative_to(SERVICE.parent)}:{line}: {breach}"


def _of_texts(source: str) -> Iterator[tuple[int, str]]:
    for line, text in texts(source):
        if match := _IS_NO.search(text):
            yield line, f"“{match[0]}” instead of “not a”"
        if match := _NO_NOUN.match(text):
            yield line, f"begins with “{match[0]}”: name the thing"
        if _CODE.search(text):
            continue
        for word, instead in _INSTEAD.items():
            for match in re.finditer(rf"\b(?:{word})\b", text, re.IGNORECASE):
                if not _MAY_ANSWER.search(text, max(0, match.start() - 12), match.end() + 12):
                    yield line, f"“{match[0]}”; say: {instead}"
        for sentence in _SENTENCE_END.split(text):
            if sentence.count("; ") > 1:
                yield line, f"two semicolons in one sentence: {sentence.strip()[:80]}"


def _of_names(source: str) -> Iterator[tuple[int, str]]:
    for line, name in _names(ast.parse(source)):
        parts = set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))
        if parts & _NOT_IN_NAMES and not _NAMES_ALLOWED.search(name):
            yield line, f"the name {name} does not say what the thing is"


def _names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What a module names itself. The keywords of a call are the names of others: facts of errors are a part of the API."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr
            case ast.arg():
                yield node.lineno, node.arg


def _of_limits(source: str) -> Iterator[tuple[int, str]]:
    """A constant that is a limit is followed by its docstring, which says the unit and what happens at the limit."""
    body = ast.parse(source).body
    for node, following in zip(body, [*body[1:], None], strict=False):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int() | float()) | ast.BinOp()):
                is_described = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                if _LIMIT.search(name) and name not in CONVERSIONS and not is_described:
                    yield node.lineno, f"the limit {name} says neither its unit nor what happens at it"


CONVERSIONS = frozenset({"NS_PER_MS", "_DAY_S"})


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
        ('"Whoever comes later waits."', True),
        ('"The guard goes on."', True),
        ('"It is begun anew."', True),
        ('"Writes the row; answers the id."', True),
        ('"The agent answers the second time."', False),
        ('"Of a disk that is frozen."', True),
        ('"The state of a disk."', False),
        ("found = 1", True),
        ("row.told_at = 1", True),
        ("def f(moment): ...", True),
        ("class JobNotFound: ...", False),
        ("error(found=1)", False),
        ("PAUSE_S = 0.1", True),
        ('PAUSE_S = 0.1\n"""Seconds between two looks."""', False),
        ("PAUSE_S = pause", False),
        ("MAX_ROWS = 16 * 2**20", True),
    ],
)
def test_the_check_finds_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, is_found: bool) -> None:
    monkeypatch.setattr("tests.test_plain_english.SERVICE", tmp_path / "service")
    file = tmp_path / "module.py"
    file.write_text(f"{text}\n")
    assert bool(list(breaches(file))) is is_found
