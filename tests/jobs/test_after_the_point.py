"""Whatever goes wrong once the point may have been taken: no job tells that there is none, and the point and its file are found."""

import sqlite3
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import event

from service.db.engine import Database, open_engine
from service.db.tables import Job
from service.errors import DatabaseUnavailable, JobCancelled, StillpointError
from service.jobs import snapshot_outcome
from service.jobs.run import JobRun
from service.records.raw_texts import Texts
from tests.fakes import FakeDomain
from tests.scenes.deaths import recovered
from tests.scenes.host import THAW, Scene, error_of
from tests.scenes.windows import WindowsScene

ROOMS = ("jobs", "freeze", "disks", "records", "model")
PACKAGES = (*(f"/service/{room}/" for room in ROOMS), "/service/bounded_io.py", "/service/clock.py", "/service/metrics.py")


class Stumble(StillpointError):
    """An error that nobody foresaw at its place."""


class Calls:
    """The functions of the service that this thread enters once the snapshot was taken; the first call of one of them may fail."""

    def __init__(self, domain: FakeDomain, victim: str | None = None, error: type[Exception] = Stumble) -> None:
        self.seen: list[str] = []
        self.has_failed = False
        self._domain = domain
        self._victim = victim
        self._error = error

    def __enter__(self) -> "Calls":
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, what: str, _: Any) -> None:
        code = frame.f_code
        if what != "call" or not self._domain.points or not any(package in code.co_filename for package in PACKAGES):
            return
        name = f"{Path(code.co_filename).stem}.{code.co_qualname}"
        if name not in self.seen:
            self.seen.append(name)
        if name == self._victim and not self.has_failed:
            self.has_failed = True
            raise self._error


def run_with(scene: Scene, domain: FakeDomain, victim: str | None = None, error: type[Exception] = Stumble, **request: Any) -> JobRun:
    scene.ask(domain=domain, max_attempts=1, **request)
    run = scene.claim()
    with Calls(domain, victim, error) as calls:
        scene.execution.execute(run)
    assert calls.has_failed is (victim is not None)
    return run


def in_the_end(scene: Scene, run: JobRun) -> Job:
    """The job as its worker ended it, or as recovery did."""
    if scene.job(run.claim.job_id).state == "running":
        scene.die_in(run)
        return recovered(scene, run.claim.job_id)
    return scene.job(run.claim.job_id)


def assert_told_truly(scene: Scene, domain: FakeDomain, job: Job) -> None:
    overlay = f"{domain.name()}-vda.{job.id[:8]}.qcow2"
    assert scene.sources(domain) == {"vda": overlay}
    assert (scene.images / overlay).exists()
    (point,) = [point for point in scene.points() if point.job_id == job.id]
    assert [disk["file"] for disk in point.disks] == [str(scene.images / f"{domain.name()}-vda.qcow2")]
    assert job.recovery_point is not None
    assert job.verdict == point.verdict
    assert job.verdict in ("filesystem", "crash")
    assert "no_snapshot" not in [reason["code"] for reason in job.verdict_reasons]
    assert job.state == "succeeded" or error_of(job)["code"] in ("worker_lost", "verdict_below_required")
    assert not domain.agent.frozen


class StrayCancel(JobCancelled):
    def __init__(self) -> None:
        super().__init__(phase="a place where nobody may cancel")


@pytest.mark.parametrize(("mode", "error"), [("required", Stumble), ("off", StrayCancel)])
def test_an_error_out_of_any_function_after_the_point_hides_no_point(
    sqlite_database: Database, tmp_path: Path, mode: str, error: type[Exception]
) -> None:
    scene = Scene(sqlite_database, tmp_path)
    seen = Calls(scene.domain)
    scene.ask(freeze={"mode": mode})
    with seen:
        scene.execution.execute(scene.claim())
    assert {"snapshot.record_window", "snapshot_outcome.timing_document", "verdict.judge", "run.JobRun.finish"} <= set(seen.seen)

    for number, victim in enumerate(seen.seen):
        domain = scene.add(f"victim{number}")
        run = run_with(scene, domain, victim, error, freeze={"mode": mode})
        assert_told_truly(scene, domain, in_the_end(scene, run))
        scene.host.domains.remove(domain)


@pytest.mark.parametrize("limits", [{"hold_limit_ms": 20_000}, {"hold_soft_ms": 15_000}, {"hold_limit_ms": 10_000, "hold_soft_ms": 9_999}])
def test_what_windows_cannot_hold_is_no_matter_where_nothing_is_held(
    sqlite_database: Database, tmp_path: Path, limits: dict[str, int]
) -> None:
    scene = WindowsScene(sqlite_database, tmp_path)
    scene.play("healthy-2022", ("vda",))
    job = scene.take(freeze={"mode": "off", **limits})
    assert (job.state, job.verdict, job.error) == ("succeeded", "crash", None)
    assert_told_truly(scene, scene.windows, job)


def test_what_windows_cannot_hold_is_still_refused_where_it_would_be_held(sqlite_database: Database, tmp_path: Path) -> None:
    scene = WindowsScene(sqlite_database, tmp_path)
    scene.play("healthy-2022", ("vda",))
    assert error_of(scene.take(freeze={"hold_limit_ms": 20_000}))["code"] == "hold_limit_too_long"
    assert scene.windows.points == []


def test_a_database_that_is_away_while_the_worker_is_told_to_stop_hides_no_point(new_sqlite_url: str, tmp_path: Path) -> None:
    engine = open_engine(new_sqlite_url)

    @event.listens_for(engine, "connect")
    def _impatient(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA busy_timeout=20")

    scene = Scene(Database(engine), tmp_path)
    intruder = sqlite3.connect(new_sqlite_url.removeprefix("sqlite:///"), isolation_level=None)

    class Impatient(JobRun):
        """The database is back when the job would be ended with the error."""

        def write(self, values: dict[str, Any], texts: Texts | None = None) -> None:
            try:
                super().write(values, texts)
            except DatabaseUnavailable:
                intruder.execute("ROLLBACK")
                raise

    def stop_and_lock() -> None:
        scene.abandoned.set()
        intruder.execute("BEGIN IMMEDIATE")

    job_id = scene.ask(max_attempts=1)
    run = Impatient(scene.claim().claim, scene.database, scene.abandoned)
    scene.domain.when_next(THAW, stop_and_lock)
    scene.execution.execute(run)
    intruder.close()
    assert scene.job(job_id).state == "running"
    assert_told_truly(scene, scene.domain, in_the_end(scene, run))
    scene.database.dispose()


def test_an_error_before_the_window_still_ends_the_job_without_a_point(sqlite_database: Database, tmp_path: Path) -> None:
    scene = Scene(sqlite_database, tmp_path)
    scene.domain.fail_next("instance", Stumble())
    job = scene.run()
    assert (job.state, job.verdict, scene.points(), scene.overlays()) == ("failed", "none", [], [])


def test_an_error_after_an_opened_gate_does_not_tell_that_it_never_opened(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(sqlite_database, tmp_path)

    def stumble(*_: object) -> None:
        raise Stumble

    monkeypatch.setattr(snapshot_outcome, "timing_document", stumble)
    job_id = scene.ask("quiesce", max_attempts=1, freeze={"mode": "required", "hold_limit_ms": 200})
    run = scene.claim()
    scene.execution.execute(run)
    assert scene.job(job_id).state == "running"
    assert not scene.domain.agent.frozen
    assert error_of(in_the_end(scene, run))["code"] == "worker_lost"
