"""The table of kinds: whole, frozen, and free of contradictions."""

import ast
import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import service
from service.model.kinds import KINDS, JobKind, Kind, Lane, Locks, kind_of


def test_every_kind_has_its_row() -> None:
    assert set(KINDS) == set(JobKind)
    assert all(row.name is name for name, row in KINDS.items())


def test_nobody_changes_the_table() -> None:
    with pytest.raises(TypeError):
        KINDS[JobKind.thaw] = KINDS[JobKind.snapshot]  # type: ignore[index]  # what the type forbids is tried
    with pytest.raises(dataclasses.FrozenInstanceError):
        KINDS[JobKind.thaw].freezes = True  # type: ignore[misc]  # what the type forbids is tried


@pytest.mark.parametrize("row", KINDS.values(), ids=lambda row: row.name)
def test_no_row_contradicts_itself(row: Kind) -> None:
    if row.freezes:
        # Two freezes of one guest would end each other.
        assert row.locks is Locks.domain
        # A guest that stands still waits for nobody's copy.
        assert row.lane is Lane.quick
    if row.is_urgent:
        assert row.locks is Locks.nothing
    assert not (row.makes_point and row.has_gate)
    assert row.attempts >= 1


def test_a_kind_of_a_newer_version_is_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="defrost"):
        kind_of("defrost")


# --- nobody else knows kinds ---------------------------------------------------------------------------

SERVICE = Path(service.__file__).parent
OWN_FILES = frozenset({"model/kinds.py", "model/requests.py", "app.py", "jobs/emergency.py"} | {f"jobs/{kind}.py" for kind in JobKind})
#: What may run beside what is asked of the database by the name of the kind still.
NOT_YET = frozenset({"db/tables.py", "records/claim.py", "records/new_job.py", "records/next_job.py"})
IN_SQL = re.compile(r"\bkind\s*(=|<>|!=|in\b)\s*\(?'", re.IGNORECASE)


def kinds_in(tree: ast.AST) -> Iterator[ast.expr]:
    """Where a single kind is named: an attribute of JobKind, and a text that is compared, is a `kind`, or is SQL about one."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="JobKind")):
                yield node
            case ast.Compare(left=left, comparators=comparators):
                yield from (side for side in flat([left, *comparators]) if is_kind(side))
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                yield from (value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "kind" and is_kind(value))
            case ast.keyword(arg="kind", value=value) if is_kind(value):
                yield value
            case ast.Constant(value=str(text)) if IN_SQL.search(text):
                yield node


def flat(nodes: Iterable[ast.expr]) -> Iterator[ast.expr]:
    for node in nodes:
        yield from node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]


def is_kind(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value in set(JobKind)


@pytest.mark.parametrize(
    "text",
    [
        "JobKind.thaw",
        "job.kind == 'snapshot'",
        "job.kind in ('snapshot', 'quiesce')",
        "{'kind': 'preflight'}",
        "NewJob(kind='thaw')",
        "text(\"state = 'queued' AND kind <> 'thaw'\")",
    ],
)
def test_a_name_of_a_kind_is_seen(text: str) -> None:
    assert list(kinds_in(ast.parse(text)))


@pytest.mark.parametrize("text", ["JobKind(name)", "PhaseName.thaw", "{'thaw': reply}", "element.get('snapshot')", "kind_of(name).freezes"])
def test_what_only_looks_like_a_kind_is_not_taken_for_one(text: str) -> None:
    assert not list(kinds_in(ast.parse(text)))


def test_nobody_else_names_a_kind() -> None:
    """Whoever compares kinds has to be found when there is a new one."""
    named = {}
    for path in sorted(SERVICE.rglob("*.py")):
        file = path.relative_to(SERVICE).as_posix()
        lines = sorted({node.lineno for node in kinds_in(ast.parse(path.read_text()))})
        if lines and file not in OWN_FILES | NOT_YET and "examples" not in file:
            named[file] = lines
    assert named == {}
