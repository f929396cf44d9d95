"""Schedulers in real processes that are killed while they work: each run that is due has one outcome, and one job where it began."""

import multiprocessing
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from service.config import Settings
from service.db.engine import Database, open_engine
from service.db.tables import Job, Schedule, ScheduleRun
from service.scheduler.scheduling import Scheduler
from tests.scenes.scheduled import Scheduled, for_databases, nightly

DOMAINS = 120
PATIENCE_S = 90.0


def work(url: str) -> None:
    """A process of the service, as far as schedules go."""
    scheduler = Scheduler(Settings(state_dir=Path("/nowhere")), Database(open_engine(url)))
    while True:
        time.sleep(min(scheduler.look(), 0.05))


def decided(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(ScheduleRun)) or 0


def wait_for(database: Database, runs: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while decided(database) < runs:
        assert time.monotonic() < deadline, f"{decided(database)} of {runs} runs within {PATIENCE_S} s"
        time.sleep(0.01)


@pytest.mark.timeout(400)
def test_each_run_has_one_outcome_and_one_job_although_schedulers_are_killed(database: Database, database_url: str) -> None:
    began = datetime.now(UTC) - timedelta(hours=2)
    due_at = (began + timedelta(hours=1)).replace(second=0, microsecond=0)
    scene = Scheduled(database, began)
    scene.domains(DOMAINS)
    scene.policy(for_databases(nightly(cron=f"{due_at.minute} {due_at.hour} * * *")))
    scene.look()
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=work, args=(database_url,), daemon=True) for _ in range(4)]
    for process in processes:
        process.start()
    try:
        # At different instants: in the midst of a transaction, in a commit, or in a rest.
        for n, process in enumerate(processes[:3]):
            wait_for(database, 20 * n + 5)
            process.kill()
            process.join()
        wait_for(database, DOMAINS)
    finally:
        for process in processes:
            process.kill()
            process.join()
    with database.read() as session:
        runs = session.scalars(select(ScheduleRun)).all()
        jobs = list(session.scalars(select(Job.id)))
        next_due = set(session.scalars(select(Schedule.next_due_at)))
    assert {run.due_at for run in runs} == {due_at}
    assert len({run.schedule_id for run in runs}) == len(runs) == DOMAINS
    assert sorted(jobs) == sorted(str(run.job_id) for run in runs)
    assert next_due == {due_at + timedelta(days=1)}
