"""A gate whose hold ends before its time: its caller is told at once and truly, and not at the release or the deadline."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.jobs import gate_hold
from service.model.gate import GateState, GateTrouble
from service.records.queue import release_expired
from service.worker.worker import Worker
from tests.scenes.host import FREEZE, HOST, STATUS, Scene, error_of
from tests.scenes.plant import Plant, wait_for
from tests.scenes.windows import reasons_of

LONG_MS = 60_000
"""`Scene.running` waits a third of it."""


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(gate_hold, "LOOK_S", 0.05)
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def open_until(scene: Scene, something: Callable[[], object]) -> Job:
    """A gate that nobody releases, and something that happens while it is open."""
    job_id = scene.ask_for_a_gate(deadline_ms=LONG_MS)
    with scene.running(job_id):
        scene.wait_for(job_id, GateState.open)
        something()
    return scene.job(job_id)


def must_have_closed_early(scene: Scene, job: Job, trouble: GateTrouble) -> None:
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "gate_closed_early")
    assert error_of(job)["facts"]["trouble"] == trouble
    assert reasons_of(job)[0] == "gate_not_released"
    assert job.result is not None
    assert (job.result["held"], job.result["released_at"]) == (False, None)
    assert scene.domain.agent.frozen == set()
    assert scene.gate(job.id).state == GateState.closed


# --- thawed by others -----------------------------------------------------------------------------


def test_an_emergency_thaw_closes_the_gate(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_hold, "LOOK_S", 3600)
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    thaws: list[Job] = []
    job = open_until(scene, lambda: thaws.append(scene.run("thaw")))
    must_have_closed_early(scene, job, GateTrouble.emergency_thaw)
    (thaw,) = thaws
    assert thaw.result is not None
    assert (thaw.state, thaw.result["was_frozen"], thaw.result["thawed"]) == ("succeeded", True, 2)


def test_the_gate_is_closed_when_the_thaw_has_ended_and_a_release_after_it_changes_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A look between the thaw and the end of its job would see a guest that somebody thawed.
    monkeypatch.setattr(gate_hold, "LOOK_S", 3600)
    job_id = scene.ask_for_a_gate(deadline_ms=LONG_MS)
    with scene.running(job_id):
        scene.wait_for(job_id, GateState.open)
        scene.run("thaw")
        assert scene.gate(job_id).state == GateState.closed
        scene.release(job_id)
    must_have_closed_early(scene, scene.job(job_id), GateTrouble.emergency_thaw)


def test_a_gate_that_was_about_to_open_does_not_open_after_an_emergency_thaw(scene: Scene) -> None:
    job_id = scene.ask_for_a_gate(deadline_ms=LONG_MS)
    scene.domain.when_next(FREEZE, lambda: scene.run("thaw"))
    job = scene.run_alone(job_id)
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "gate_not_opened")
    assert error_of(job)["facts"]["trouble"] == GateTrouble.emergency_thaw
    assert scene.domain.agent.frozen == set()


def test_the_gate_of_another_domain_stays_open(scene: Scene) -> None:
    other = scene.add("db2")
    job_id = scene.ask_for_a_gate(deadline_ms=LONG_MS)

    def thaw_the_other() -> None:
        scene.run("thaw", other)
        assert scene.gate(job_id).state == GateState.open

    assert scene.pass_through(job_id, thaw_the_other).state == "succeeded"


def test_a_gate_whose_guest_somebody_thaws_with_other_means_closes(scene: Scene) -> None:
    job = open_until(scene, scene.domain.agent.thaw_by_somebody_else)
    must_have_closed_early(scene, job, GateTrouble.thawed_by_another)


def test_an_agent_that_does_not_say_whether_it_is_frozen_closes_no_gate(scene: Scene) -> None:
    def be_silent_for_a_while() -> None:
        scene.domain.agent.answers = False
        asked = scene.domain.log.count(STATUS)
        wait_for(lambda: scene.domain.log.count(STATUS) > asked + 2, "a question to the silent agent")
        scene.domain.agent.answers = True

    job = scene.pass_through(scene.ask_for_a_gate(deadline_ms=LONG_MS), be_silent_for_a_while)
    assert (job.state, job.verdict) == ("succeeded", "filesystem")


def test_an_agent_that_hangs_in_the_question_keeps_no_release_waiting(scene: Scene) -> None:
    job_id = scene.ask_for_a_gate(deadline_ms=LONG_MS)
    with scene.running(job_id):
        scene.wait_for(job_id, GateState.open)
        hung = scene.domain.hang_next(STATUS)
        asked = scene.domain.log.count(STATUS)
        wait_for(lambda: scene.domain.log.count(STATUS) > asked, "the question")
        scene.release(job_id)
    assert scene.job(job_id).state == "succeeded"
    hung.set()


# --- a worker that is told to stop -----------------------------------------------------------------


@pytest.fixture
def plant(sqlite_database: Database, tmp_path: Path) -> Iterator[Plant]:
    built = Plant(sqlite_database, tmp_path)
    yield built
    built.close()


def opened(plant: Plant, deadline_ms: int) -> tuple[Worker, Scene, str]:
    scene = plant.scene
    job_id = scene.ask_for_a_gate(deadline_ms=deadline_ms)
    worker = plant.start()
    scene.wait_for(job_id, GateState.open)
    return worker, scene, job_id


def test_a_worker_that_stops_thaws_a_gate_that_would_outlive_it_and_says_why(plant: Plant) -> None:
    worker, scene, job_id = opened(plant, LONG_MS)

    assert worker.stop(4.0) is True

    must_have_closed_early(scene, scene.job(job_id), GateTrouble.worker_stops)


def test_it_holds_the_gate_as_long_as_it_can(plant: Plant) -> None:
    worker, scene, job_id = opened(plant, LONG_MS)
    began = time.monotonic()
    worker.stop(1.0)
    assert time.monotonic() - began > 0.4
    assert error_of(scene.job(job_id))["code"] == "gate_closed_early"


def test_it_leaves_a_gate_open_until_a_deadline_that_comes_sooner(plant: Plant) -> None:
    worker, scene, job_id = opened(plant, 700)
    assert worker.stop(30.0) is True
    assert error_of(scene.job(job_id))["code"] == "gate_deadline_passed"


def test_a_gate_that_is_released_while_the_worker_stops_has_held(plant: Plant) -> None:
    worker, scene, job_id = opened(plant, LONG_MS)
    scene.release(job_id)
    assert worker.stop(10.0) is True
    assert scene.job(job_id).state == "succeeded"
    with scene.database.write() as session:
        assert release_expired(session, HOST, all_running=True) == []
