"""Whatever goes wrong once the point may have been taken: no job tells that there is none, and the point and its file are found."""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

import service
from service.db.engine import Database, open_engine
from service.db.tables import Job
from service.disks import image_users, overlays, rehearsal
from service.errors import DatabaseUnavailable, JobCancelled, StillpointError
from service.jobs.run import JobRun
from service.model.gate import GateState
from service.model.intent import Overlay
from service.records import gates
from service.records.raw_texts import Texts
from tests.fakes import FakeDomain
from tests.scenes.deaths import recovered
from tests.scenes.host import THAW, Scene, error_of
from tests.scenes.windows import WindowsScene

NEEDED = ("FrozenPass.record", "timing_document", "evidence_document", "judge", "JobRun.finish")
"""The record, the timing, the evidence, the verdict and the database."""
CONDUCT = ("frozen_pass", "snapshot", "point_taking", "point_outcome", "snapshot_outcome", "gate", "run", "execution")
"""Modules that do one thing after the other: an error between two of them leaves what no error of a call leaves."""
GATE_ERRORS = ("worker_lost", "freeze_failed", "gate_not_opened", "verdict_below_required")
ALWAYS_OPEN_MS = 60_000
"""A gate whose deadline does not pass, on a busy machine that is watched line by line."""
OWN_CODE = str(Path(service.__file__).parent)


class Stumble(StillpointError):
    """An error that nobody foresaw at its place."""


def _touch(planned: list[Overlay]) -> list[Overlay]:
    for overlay in planned:
        Path(overlay.path).touch()
    return planned


@pytest.fixture
def database(new_sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """It survives no power cut, and what comes before the window is not tried: a test runs hundreds of jobs."""
    monkeypatch.setattr(rehearsal, "must_work", lambda *_: None)
    monkeypatch.setattr(image_users, "_process_that_writes", lambda *_: None)
    monkeypatch.setattr(overlays, "create", _touch)
    engine = open_engine(new_sqlite_url)

    @event.listens_for(engine, "connect")
    def _hasten(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    database = Database(engine)
    yield database
    database.dispose()


class Place(NamedTuple):
    """`line` 0: the beginning of the function."""

    module: str
    function: str
    line: int = 0


Wanted = Callable[[Place], bool]


def line_of_conduct(place: Place) -> bool:
    return place.line > 0


def any_call(place: Place) -> bool:
    # An error inside the turn to write would keep the turn for ever: that is another fault than the one looked for.
    # What SQLAlchemy asks of a type it asks once for each statement, so no second run comes there.
    return place.line == 0 and place.module != "turns" and not place.function.endswith("result_processor")


def call_in_conduct(place: Place) -> bool:
    return place.line == 0 and place.module in CONDUCT


class Steps:
    """What this thread does for a job from the moment its point is pending: function by function, and line by line in CONDUCT.

    The first time it comes to `victim`, it stumbles there.
    """

    def __init__(self, run: JobRun, victim: Place | None = None, error: type[Exception] = Stumble) -> None:
        self.seen: list[Place] = []
        self.has_failed = False
        self._run = run
        self._victim = victim
        self._error = error
        self._has_begun = False

    def __enter__(self) -> "Steps":
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, _what: str, _: Any) -> Callable[[FrameType, str, Any], Any] | None:
        file = frame.f_code.co_filename
        if not file.startswith(OWN_CODE):
            return None
        self._come_to(frame)
        return self._trace_lines if Path(file).stem in CONDUCT else None

    def _trace_lines(self, frame: FrameType, what: str, _: Any) -> Callable[[FrameType, str, Any], Any]:
        if what == "line":
            self._come_to(frame, frame.f_lineno)
        return self._trace_lines

    def _come_to(self, frame: FrameType, line: int = 0) -> None:
        self._has_begun = self._has_begun or self._run.may_have_point
        if not self._has_begun:
            return
        place = Place(Path(frame.f_code.co_filename).stem, frame.f_code.co_qualname, line)
        if place not in self.seen:
            self.seen.append(place)
        if place == self._victim and not self.has_failed:
            self.has_failed = True
            raise self._error


def steps_of(scene: Scene, run: JobRun) -> list[Place]:
    """Every step of a run without an error."""
    with Steps(run) as steps:
        scene.execution.execute(run)
    assert scene.job(run.claim.job_id).state == "succeeded"
    assert {place.module for place in steps.seen} >= {"frozen_pass", "run", "execution"}
    for needed in NEEDED:
        assert any(place.function.endswith(needed) for place in steps.seen), needed
    return steps.seen


def stumble_at(scene: Scene, run: JobRun, victim: Place, error: type[Exception] = Stumble) -> Job:
    """The job as its worker ended it, or as recovery did."""
    # Whatever comes out of the very last lines, the thread of the worker notes.
    with Steps(run, victim, error) as steps, suppress(error):
        scene.execution.execute(run)
    assert steps.has_failed, f"{victim} was not reached again"
    return in_the_end(scene, run)


def in_the_end(scene: Scene, run: JobRun) -> Job:
    if scene.job(run.claim.job_id).state == "running":
        scene.die_in(run)
        return recovered(scene, run.claim.job_id)
    return scene.job(run.claim.job_id)


def assert_told_truly(scene: Scene, domain: FakeDomain, job: Job) -> None:
    assert not domain.agent.frozen
    if domain.points:
        assert_point_is_told(scene, domain, job)
    else:
        assert_no_point_is_told(scene, domain, job)


def assert_point_is_told(scene: Scene, domain: FakeDomain, job: Job) -> None:
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


def assert_no_point_is_told(scene: Scene, domain: FakeDomain, job: Job) -> None:
    assert scene.sources(domain) == {"vda": f"{domain.name()}-vda.qcow2"}
    assert [name for name in scene.overlays() if job.id[:8] in name] == []
    assert [point for point in scene.points() if point.job_id == job.id] == []
    assert (job.state, job.verdict, job.recovery_point) == ("failed", "none", None)
    assert error_of(job)["code"] in ("worker_lost", "freeze_failed", "snapshot_failed", "nothing_frozen")


def release_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the caller of every gate is done as soon as it is open."""
    try_to_open = gates.try_to_open

    def open_and_release(session: Session, job_id: str, filesystems_frozen: int, left: timedelta) -> bool:
        was_opened = try_to_open(session, job_id, filesystems_frozen, left)
        gates.request_release(session, job_id)
        return was_opened

    monkeypatch.setattr(gates, "try_to_open", open_and_release)


class StrayCancel(JobCancelled):
    def __init__(self) -> None:
        super().__init__(phase="a place where nobody may cancel")


class Away(DatabaseUnavailable):
    def __init__(self) -> None:
        super().__init__(reason="it is away for a moment")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("wanted", "mode", "error"),
    [
        (line_of_conduct, "required", Stumble),
        (any_call, "required", StrayCancel),
        (call_in_conduct, "required", Away),
        (call_in_conduct, "off", RuntimeError),
    ],
)
def test_an_error_out_of_any_step_after_the_point_hides_no_point(
    database: Database, tmp_path: Path, wanted: Wanted, mode: str, error: type[Exception]
) -> None:
    scene = Scene(database, tmp_path)
    scene.ask(freeze={"mode": mode})

    for number, victim in enumerate(filter(wanted, steps_of(scene, scene.claim()))):
        domain = scene.add(f"victim{number}")
        scene.ask(domain=domain, max_attempts=1, freeze={"mode": mode})
        assert_told_truly(scene, domain, stumble_at(scene, scene.claim(), victim, error))
        scene.host.domains.remove(domain)


@pytest.mark.timeout(600)
def test_an_error_out_of_any_step_after_a_gate_was_opened_does_not_tell_that_it_never_was(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(database, tmp_path)
    release_at_once(monkeypatch)
    scene.ask_for_a_gate(ALWAYS_OPEN_MS)
    for number, victim in enumerate(filter(line_of_conduct, steps_of(scene, scene.claim()))):
        domain = scene.add(f"victim{number}")
        job_id = scene.ask_for_a_gate(ALWAYS_OPEN_MS, domain=domain)
        job = stumble_at(scene, scene.claim(), victim)
        gate = scene.gate(job_id)
        assert gate.state == GateState.closed
        assert not domain.agent.frozen
        assert job.verdict in (("filesystem", "crash") if gate.opened_at else ("none",))
        assert ("gate_not_opened" in [reason["code"] for reason in job.verdict_reasons]) is (gate.opened_at is None)
        assert job.state == "succeeded" or error_of(job)["code"] in GATE_ERRORS
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
