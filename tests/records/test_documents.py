"""The texts that the API passes on say what the rows say, whatever changed them."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, update

import service
from service.db import documents
from service.db.base import table_of
from service.db.engine import Database
from service.db.tables import Job, JobDocument, RecoveryPoint
from service.model.lifecycle import JobState
from service.records import queue
from tests.api.world import add_job, add_recovery_point
from tests.scenes.documents import stale_texts, texts
from tests.scenes.orders import a_snapshot
from tests.scenes.queue import add, allow, claimed, everything_expires

Step = Callable[[Database, str], object]
ERROR = {"code": "host_forgotten"}


def _in_a_transaction(step: Callable[..., object]) -> Step:
    def run(database: Database, job_id: str) -> None:
        with database.write() as session:
            step(session, job_id)

    return run


def _claim(database: Database, job_id: str) -> None:
    assert claimed(database).job_id == job_id


def _write(database: Database, job_id: str) -> None:
    claim = claimed(database)
    with database.write() as session:
        queue.write(session, job_id, claim.lease_token, {"phase": "prepare", "evidence": {"agent": {}}})


def _finish(database: Database, job_id: str) -> None:
    claim = claimed(database)
    with database.write() as session:
        queue.finish(session, job_id, claim.lease_token, JobState.succeeded, {"verdict": "filesystem"})


def _cancel_while_it_runs(database: Database, job_id: str) -> None:
    claimed(database)
    with database.write() as session:
        queue.request_cancel(session, job_id)


def _lose(database: Database, _job_id: str) -> None:
    claimed(database)
    everything_expires(database)


def _note(database: Database, job_id: str) -> None:
    _lose(database, job_id)
    with database.write() as session:
        queue.note_interrupted(session, job_id, {"phase": "recover"})


def _resolve(database: Database, job_id: str) -> None:
    _lose(database, job_id)
    with database.write() as session:
        queue.resolve_interrupted(session, job_id, JobState.failed, {"error": ERROR})


STEPS: dict[str, Step] = {
    "claimed": _claim,
    "written": _write,
    "finished": _finish,
    "cancelled": _in_a_transaction(queue.request_cancel),
    "to be cancelled": _cancel_while_it_runs,
    "lost": _lose,
    "waiting": _note,
    "resolved": _resolve,
    "cancelled with its host": _in_a_transaction(lambda session, _: queue.cancel_queued(session, "hv1", ERROR)),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_the_texts_of_a_job_follow_its_row(database: Database, step: Step) -> None:
    allow(database, "host:hv1:quick", 1)
    job_id = add(database, a_snapshot(labels={"a": "b"}))
    first = texts(database)[job_id]
    assert stale_texts(database) == []
    step(database, job_id)
    assert texts(database)[job_id] != first
    assert stale_texts(database) == []


def test_texts_that_are_missing_are_written_after_a_migration(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BATCH", 2)
    with database.write() as session:
        for _ in range(5):
            add_recovery_point(session, add_job(session))
    before = texts(database)
    with database.write() as session:
        session.execute(delete(table_of(JobDocument)))
        session.execute(update(table_of(RecoveryPoint)).values(document=None))
        documents.write_missing(session.connection())
    assert texts(database) == before
    assert stale_texts(database) == []


def test_a_stale_text_is_found(database: Database) -> None:
    with database.write() as session:
        point_id = add_recovery_point(session, add_job(session))
        job_id, missing = add_job(session), add_job(session)
        session.execute(update(table_of(Job)).where(Job.id == job_id).values(phase="thaw"))
        session.execute(update(table_of(RecoveryPoint)).values(verdict="none"))
        session.execute(delete(table_of(JobDocument)).where(JobDocument.job_id == missing))
    assert sorted(stale_texts(database)) == sorted([job_id, missing, point_id])
    with database.write() as session:
        session.execute(delete(Job).where(Job.id.in_((job_id, missing))))
        session.execute(delete(RecoveryPoint))


SERVICE = Path(service.__file__).parent
NO_TEXT = frozenset(
    {"lease_token", "lease_until", "lease_owner", "intent", "forgotten_at", "run_after", "updated_at"} | {"lock_key", "repository_id"}
)
"""Columns of a job of which its texts say nothing."""
OTHER_OBJECTS = frozenset(
    {"disks/overlays.py", "freeze/guard_process.py", "freeze/window.py", "jobs/gate_hold.py", "jobs/run.py"}
    | {"records/gates.py", "records/points.py", "worker/publishing.py", "worker/registration.py", "worker/repository_watch.py"}
    | {"jobs/restore.py", "jobs/restore_flatten.py", "jobs/restore_source.py", "repository/hand_start.py", "repository/reading.py"}
)
"""They set an attribute that is named like a column of a job."""


def test_no_code_changes_a_job_without_its_texts() -> None:
    sources = {str(path.relative_to(SERVICE)): ast.parse(path.read_text()) for path in SERVICE.rglob("*.py")}
    columns = {column.key for column in table_of(Job).columns} - NO_TEXT - {"id", "kind"}
    setting = {name for name, tree in sources.items() if any(_sets(node, columns) for node in ast.walk(tree))}
    updating = {name for name, tree in sources.items() if any(_updates_jobs(node) for node in ast.walk(tree))}
    assert setting == OTHER_OBJECTS
    # All but `renew`, which writes the lease alone, give their change to `documents.change_jobs` or `move`.
    own = {"records/claim.py", "records/doubtful_points.py", "records/queue.py", "records/repositories.py", "worker/returned_host.py"}
    assert updating == own


def _sets(node: ast.AST, columns: set[str]) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else []
    set_there = [name for target in targets for name in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return any(isinstance(name, ast.Attribute) and name.attr in columns for name in set_there)


def _updates_jobs(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node) in ("update(Job)", "update(_JOBS)", "update(table_of(Job))")
