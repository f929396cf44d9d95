"""Verifies by plan: made within the budget of a repository, one at a time, each once, and what came of them is on record."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from service.db.engine import Database
from service.db.tables import Job, Repository, VerificationRun
from service.errors import RepositoryGone
from service.model.blackouts import Blackout, Weekday
from service.model.lifecycle import JobState, PointState
from service.model.proofs import Proof
from service.model.repository import ProofKind, RepositoryState
from service.model.verification_budget import Budget
from service.records import points, policies, queue, repositories, verification
from service.records.repositories import Look
from service.scheduler.verification import IDLE_S, VerificationLooks
from tests.api.world import add_domain, add_host
from tests.records.test_sealed_points import add_points
from tests.scenes.queue import claimed
from tests.scenes.repositories import DB1, add_repository, id_of_point

DAY = timedelta(days=1)
COST = 2 * 1032
"""Bytes that a verify of a full point of `tests.scenes.repositories` reads."""


@pytest.fixture
def nas(database: Database) -> str:
    with database.write() as session:
        add_host(session)
        add_domain(session, "db1", DB1)
        nas = add_repository(session).id
        repositories.note_look(session, nas, Look(RepositoryState.ready), datetime.now(UTC))
        queue.ensure_slots(session, "host:hv1:maintenance", 2)
    return nas


def give(database: Database, nas: str, budget: Budget | None) -> None:
    with database.write() as session:
        verification.set_budget(session, nas, budget)


def loop_of(database: Database, clock: list[float] | None = None) -> VerificationLooks:
    ticks = clock or [1000.0]
    return VerificationLooks(database, lambda: None, lambda: ticks[0])


def runs(database: Database, nas: str) -> list[VerificationRun]:
    """Oldest first."""
    with database.read() as session:
        return list(reversed(verification.runs_since(session, nas, datetime(2026, 1, 1, tzinfo=UTC))))


def read(database: Database, nas: str) -> list[str]:
    """The points for which jobs were made."""
    with database.read() as session:
        jobs = session.scalars(select(Job).where(Job.repository_id == nas).order_by(Job.created_at, Job.id))
        return [str(job.request["recovery_point"]) for job in jobs]


def end(database: Database, *, ok: bool | None = True, read_bytes: int = COST, state: JobState = JobState.succeeded) -> None:
    """The job that waits is done, as a worker does it."""
    claim = claimed(database)
    point_id = str(claim.request.recovery_point)  # type: ignore[union-attr]
    proof = Proof(ProofKind.bytes, ok=ok, job_id=claim.job_id)
    shown: dict[str, Any] = {"kind": "bytes", "ok": ok, "facts": {}}
    result = {"verify": {"point": point_id, "proofs": [shown], "read_bytes": read_bytes}} if ok is not None else None
    with database.write() as session:
        if ok is not None:
            points.add_proofs(session, point_id, [proof], datetime.now(UTC))
        if ok is False:
            points.set_state(session, point_id, PointState.damaged, now=datetime.now(UTC))
        queue.finish(session, claim.job_id, claim.lease_token, state, {"phase": None, "result": result})


def test_without_a_budget_nothing_is_verified(database: Database, nas: str) -> None:
    add_points(database, nas, "full1")
    assert loop_of(database).look() == 0
    assert read(database, nas) == []


def test_a_job_is_made_that_says_that_nobody_asked_and_one_at_a_time(database: Database, nas: str) -> None:
    add_points(database, nas, "full1 inc1", "full2")
    give(database, nas, Budget(checks=(ProofKind.bytes, ProofKind.filesystem), rate_limit_bytes=1 << 20))
    loop = loop_of(database)
    assert [loop.look() for _ in range(3)] == [1, 0, 0]
    (run,) = runs(database, nas)
    assert (run.number, run.point_id, run.why, run.cost_bytes, run.outcome) == (1, id_of_point("full2"), "missing", COST, None)
    with database.read() as session:
        request = session.get_one(Job, run.job_id).request
    expected = {"by_plan": True, "checks": ["bytes", "filesystem"], "rate_limit_bytes": 1 << 20, "recovery_point": id_of_point("full2")}
    assert request.items() >= expected.items()


def test_the_next_point_follows_when_a_read_has_ended_until_all_are_proven(database: Database, nas: str) -> None:
    add_points(database, nas, "full1 inc1", "full2")
    give(database, nas, Budget())
    clock = [1000.0]
    loop = loop_of(database, clock)
    for _ in range(2):
        assert loop.look() == 1
        end(database, read_bytes=1234)
    assert loop.look() == 0
    assert read(database, nas) == [id_of_point("full2"), id_of_point("inc1")], "the chain of inc1 is read once"
    assert [(run.outcome, run.read_bytes, run.took_ms is not None) for run in runs(database, nas)] == [("good", 1234, True)] * 2
    add_points(database, nas, "full3")
    assert loop.look() == 0, "what was planned a moment ago is not planned again"
    clock[0] += IDLE_S
    assert loop.look() == 1


def test_what_a_read_found_is_on_record_and_a_failure_says_nothing_of_the_point(database: Database, nas: str) -> None:
    add_points(database, nas, "full1", "full2", "full3")
    give(database, nas, Budget())
    loop = loop_of(database)
    for ok, state in ((False, JobState.failed), (None, JobState.failed), (True, JobState.succeeded)):
        assert loop.look() == 1
        end(database, ok=ok, state=state)
    assert loop.look() == 0, "what has failed waits for a day"
    assert [run.outcome for run in runs(database, nas)] == ["damaged", "failed", "good"]


def test_no_more_is_spent_than_the_days_bytes(database: Database, nas: str) -> None:
    add_points(database, nas, "full1", "full2", "full3")
    give(database, nas, Budget(bytes_per_day=2 * COST))
    clock = [1000.0]
    loop = loop_of(database, clock)
    for _ in range(2):
        assert loop.look() == 1
        end(database)
    clock[0] += IDLE_S
    assert loop.look() == 0
    with database.write() as session:
        session.execute(update(VerificationRun).values(begun_at=datetime.now(UTC) - DAY))
    assert loop.look() == 1


def test_nothing_begins_outside_the_hours_of_the_budget(database: Database, nas: str) -> None:
    add_points(database, nas, "full1")
    today = tuple(Weekday)[datetime.now(UTC).weekday()]
    before_or_after = [day for day in Weekday if day is not today]
    closed = Blackout((before_or_after[2],), "00:00", "24:00", "UTC")
    give(database, nas, Budget(hours=closed))
    assert loop_of(database).look() == 0
    give(database, nas, Budget(hours=Blackout((today, before_or_after[0], before_or_after[-1]), "00:00", "24:00", "UTC")))
    assert loop_of(database).look() == 1


def test_a_repository_that_cannot_be_read_costs_nothing_of_its_budget(database: Database, nas: str) -> None:
    add_points(database, nas, "full1")
    give(database, nas, Budget())
    with database.write() as session:
        repositories.note_look(session, nas, Look(RepositoryState.gone, RepositoryGone(path="/srv", reason="away")), datetime.now(UTC))
    assert loop_of(database).look() == 0
    assert runs(database, nas) == []


def test_of_many_processes_that_look_at_once_one_makes_the_job(database: Database, nas: str) -> None:
    add_points(database, nas, *(f"full{n}" for n in range(8)))
    give(database, nas, Budget())
    together, made = threading.Barrier(6), []

    def look() -> None:
        loop = loop_of(database)
        together.wait()
        made.append(loop.look())

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [0, 0, 0, 0, 0, 1]
    assert len(runs(database, nas)) == len(read(database, nas)) == 1


def test_a_point_that_is_removed_meanwhile_is_passed_over(database: Database, nas: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add_points(database, nas, "full1", "full2")
    give(database, nas, Budget())
    loop = loop_of(database)

    def given_up(session: Any, *_: Any) -> bool:
        points.set_state(session, id_of_point("full2"), PointState.leaving, now=datetime.now(UTC))
        return True

    with monkeypatch.context() as patched:
        patched.setattr(verification, "turn_of", given_up)
        assert loop.look() == 0
    assert loop.look() == 1
    assert [(run.outcome, run.job_id is None, run.cost_bytes) for run in runs(database, nas)] == [("refused", True, 0), (None, False, COST)]
    assert read(database, nas) == [id_of_point("full1")]


def test_a_promised_proof_comes_first(database: Database, nas: str) -> None:
    """Another domain, whose newest point was never read, would be first otherwise."""
    add_points(database, nas, "full1", "full2")
    with database.write() as session:
        points.add_proofs(session, id_of_point("full2"), [Proof(ProofKind.bytes, ok=True)], datetime.now(UTC) - 3 * DAY)
        track = {"name": "nightly", "job": {"kind": "backup", "repository": "nas"}, "schedule": {"cron": "0 2 * * *", "time_zone": "UTC"}}
        promise = {"proof": {"kind": "bytes", "max_age_s": 4 * 86400}}
        document = {"name": "gold", "selector": {"names": ["db1"]}, "tracks": [track], "promise": promise}
        policies.add(session, document, datetime.now(UTC) - 30 * DAY)
    give(database, nas, Budget())
    assert loop_of(database).look() == 1
    (run,) = runs(database, nas)
    assert (run.point_id, run.why) == (id_of_point("full2"), "promised")


def test_a_job_that_was_removed_because_of_its_age_has_failed(database: Database, nas: str) -> None:
    add_points(database, nas, "full1")
    give(database, nas, Budget())
    loop = loop_of(database)
    loop.look()
    with database.write() as session:
        session.execute(update(VerificationRun).values(job_id=id_of_point("a job that is not there")))
    assert loop.look() == 0
    assert [run.outcome for run in runs(database, nas)] == ["failed"]


def test_a_repository_that_is_forgotten_takes_its_reads_along(database: Database, nas: str) -> None:
    add_points(database, nas, "full1")
    give(database, nas, Budget())
    loop_of(database).look()
    end(database)
    with database.write() as session:
        repositories.forget(session, nas, forget_points=True)
    assert runs(database, nas) == []
    with database.read() as session:
        assert session.scalar(select(Repository.id)) is None
