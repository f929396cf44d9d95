"""One door to `state`: in the code, in the table of moves, and in the page about it."""

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

import service
from service.model.lifecycle import MOVES, POINT_MOVES, JobState, PointState

SERVICE = Path(service.__file__).parent
PAGE = SERVICE.parent / "docs" / "life-of-a-job.md"
DOORS = {"records/moves.py": ("move", "add"), "records/points.py": ("move",)}
STATES = {"JobState", "PointState"} | {state.value for state in (*JobState, *PointState)}
ROWS = {"Job", "RecoveryPoint"}
OTHER_TABLES = {"Gate", "PrunedJobs"}


def sources() -> dict[str, str]:
    """Without the examples of what the API answers."""
    files = (path for path in SERVICE.rglob("*.py") if not path.is_relative_to(SERVICE / "api" / "schemas"))
    return {path.relative_to(SERVICE).as_posix(): path.read_text() for path in files}


def writes_of_state(source: str, doors: Collection[str] = ()) -> Iterator[int]:
    """The lines in which a `state` gets a state of a job or of a point, or a row of them is made with one."""
    for node in _outside(ast.parse(source), doors):
        match node:
            case ast.Assign(targets=targets, value=value):
                written = [inner.attr for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Attribute)]
                if "state" in written and _names_a_state(value):
                    yield node.lineno
            case ast.Call(func=called, keywords=keywords):
                for keyword in keywords:
                    is_write = _name(called) in ROWS or (_name(called) == "values" and not _is_of_another_table(called))
                    if keyword.arg == "state" and is_write:
                        yield node.lineno
                if _name(called) == "setattr" and len(node.args) == 3 and _is_text(node.args[1], "state"):
                    yield node.lineno
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if _is_text(key, "state") and _names_a_state(value):
                        yield node.lineno
            case ast.Constant(value=str(words)) if re.search(r"\bSET\b[^;]*\bstate\s*=", words):
                yield node.lineno


def _outside(tree: ast.AST, doors: Collection[str]) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.FunctionDef) and node.name in doors):
            yield node
            yield from _outside(node, doors)


def _names_a_state(value: ast.AST) -> bool:
    """Also by a parameter or a variable that is called like the function's own: `to`, `state`."""
    for node in ast.walk(value):
        if isinstance(node, ast.Name) and node.id in ("to", *STATES):
            return True
        if isinstance(node, ast.Constant) and node.value in STATES:
            return True
    return False


def _is_of_another_table(called: ast.AST) -> bool:
    """`update(Gate)`: only a table that is named, and is not that of jobs or points, is believed."""
    calls = [node for node in ast.walk(called) if isinstance(node, ast.Call) and _name(node.func) in ("insert", "update")]
    tables = [node.args[0].id for node in calls if node.args and isinstance(node.args[0], ast.Name)]
    return bool(tables) and set(tables) <= OTHER_TABLES


def _name(called: ast.AST) -> str | None:
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)


def _is_text(node: ast.AST | None, text: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == text


def test_only_the_doors_write_a_state() -> None:
    found = {name: lines for name, text in sources().items() if (lines := list(writes_of_state(text, DOORS.get(name, ()))))}
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "job.state = JobState.failed.value",
        "job.domain_id, job.state = domain_id, 'running'",
        "session.add(Job(id=new, state=wanted))",
        "session.execute(update(Job).values(state=JobState.queued.value))",
        "session.execute(update(Job).values({'state': 'queued', 'phase': None}))",
        "values = {'state': to.value}",
        "setattr(job, 'state', wanted)",
        "session.execute(text('UPDATE jobs SET phase = NULL, state = :state'))",
        "def move(job):\n    pass\ndef also(job):\n    job.state = JobState.failed",
    ],
)
def test_a_write_beside_the_doors_is_found(line: str) -> None:
    assert list(writes_of_state(line, ("move",))) != []


def test_only_the_doors_ask_the_table_of_moves() -> None:
    asking = {name for name, text in sources().items() if re.search(r"\b(MOVES|may_move)\b", text)}
    points = {name for name, text in sources().items() if re.search(r"\b(POINT_MOVES|point_may_move)\b", text)}
    assert asking == {"model/lifecycle.py", "records/moves.py"}
    assert points == {"model/lifecycle.py", "records/points.py"}


def test_the_page_has_a_sentence_for_each_arrow_and_for_nothing_else() -> None:
    arrows = re.findall(r"^- \*\*(\w)\*\*: `(\w+)` to `(\w+)`\. \w.+\.$", PAGE.read_text().replace("\n  ", " "), re.MULTILINE)
    told = [(source, to) for _letter, source, to in arrows]
    assert sorted(told) == sorted(_arrows())
    letters = [letter for letter, _source, _to in arrows]
    of_points = {letter for letter, source, to in arrows if {source, to} & set(PointState)}
    assert len(letters) == len(set(letters))
    for page in (PAGE.read_text(), (SERVICE / "model" / "lifecycle.py").read_text()):
        assert set(re.findall(r"--(\w)-->", page)) == set(letters) - of_points, "the diagram is of jobs"


def _arrows() -> Iterator[tuple[str, str]]:
    for table in (MOVES, POINT_MOVES):
        for source, ends in table.items():
            for to in ends:
                yield source.value if source is not None else "nothing", to.value
