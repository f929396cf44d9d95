"""The table of kinds: whole, frozen, and free of contradictions."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import service
from service.model.kinds import KINDS, JobKind, Kind, Locks, kind_of


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
IN_SQL = re.compile(r"\bkind\s*(=|<>|!=|in\b)\s*\(?'", re.IGNORECASE)


def kinds_in(tree: ast.AST) -> Iterator[ast.expr]:
    """Where a single kind is named: an attribute of JobKind, its name as a text, or SQL about one.

    A text that only names a field, a phase or a command is not meant: the key of a dict, what `get` is asked for, a member of an
    enumeration.
    """
    fields = {id(node) for node in ast.walk(tree) for node in names_of_fields(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="JobKind")):
                yield node
            case ast.Constant(value=str(text)) if IN_SQL.search(text) or (text in set(JobKind) and id(node) not in fields):
                yield node


def names_of_fields(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Dict(keys=keys):
            yield from (key for key in keys if key is not None)
        case ast.Call(func=ast.Attribute(attr="get" | "command"), args=[ast.Constant(), *_] as names):
            # Also the default: what an attribute of XML says where it is left out.
            yield from names
        case ast.keyword(arg="alias", value=name):
            yield name
        case ast.ClassDef(bases=[ast.Name(id="StrEnum")], body=body):
            yield from (member.value for member in body if isinstance(member, ast.Assign))


@pytest.mark.parametrize(
    "text",
    [
        "JobKind.thaw",
        "job.kind == 'snapshot'",
        "job.kind in ('snapshot', 'quiesce')",
        "{'kind': 'preflight'}",
        "NewJob(kind='thaw')",
        "Job.kind.in_(['quiesce'])",
        "def add(kind='snapshot'): ...",
        "match kind:\n    case 'preflight': ...",
        "text(\"state = 'queued' AND kind <> 'thaw'\")",
    ],
)
def test_a_name_of_a_kind_is_seen(text: str) -> None:
    assert list(kinds_in(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "JobKind(name)",
        "PhaseName.thaw",
        "class PhaseName(StrEnum):\n    thaw = 'thaw'",
        "{'thaw': reply}",
        "element.get('snapshot')",
        "element.get('job', 'copy')",
        "Field(alias='copy')",
        "app.command('verify')",
        "kind_of(name).freezes",
    ],
)
def test_what_only_looks_like_a_kind_is_not_taken_for_one(text: str) -> None:
    assert not list(kinds_in(ast.parse(text)))


def test_nobody_else_names_a_kind() -> None:
    """Whoever compares kinds has to be found when there is a new one."""
    named = {}
    for path in sorted(SERVICE.rglob("*.py")):
        file = path.relative_to(SERVICE).as_posix()
        lines = sorted({node.lineno for node in kinds_in(ast.parse(path.read_text()))})
        if lines and file not in OWN_FILES and "examples" not in file:
            named[file] = lines
    assert named == {}
