"""The gate from its claim to its end: what the caller is told, how long the guest is held, and what the job says of it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.db.bells import Bells
from service.db.engine import Database
from service.db.tables import Gate, Job
from service.errors import DatabaseUnavailable, GateClosedEarly, GateNotOpened
from service.freeze.window import Hold
from service.jobs.gate_hold import GateHold
from service.model.gate import GateState, GateTrouble
from service.records import gates, queue
from tests.fakes import agent_error
from tests.scenes.host import FREEZE, GATE_MS, HOST, Scene, error_of, phases_of
from tests.scenes.windows import WindowsScene, reasons_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def test_a_guest_is_held_from_the_opening_to_the_release(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    job_id = scene.ask_for_a_gate()
    held: list[set[str]] = []

    job = scene.pass_through(job_id, lambda: held.append(set(scene.domain.agent.frozen)))

    assert held == [{"vda", "vdb"}]
    assert scene.domain.agent.frozen == set()
    assert (job.state, job.verdict, job.error) == ("succeeded", "filesystem", None)
    assert phases_of(job) == [(name, "ok") for name in ("preflight", "prepare", "freeze", "point_in_time", "thaw", "evaluate")]
    assert reasons_of(job) == ["held", "no_hook"]


def test_the_row_tells_the_caller_what_is_frozen_and_until_when(scene: Scene) -> None:
    job_id = scene.ask_for_a_gate()
    with scene.running(job_id):
        gate = scene.wait_for(job_id, GateState.open)
        scene.release(job_id)

    assert gate.filesystems_frozen == 2
    assert gate.opened_at is not None
    assert gate.deadline_at is not None
    assert GATE_MS - 1_000 < (gate.deadline_at - gate.opened_at).total_seconds() * 1000 <= GATE_MS
    assert scene.gate(job_id).state == GateState.closed


def test_the_result_says_when_it_was_open_and_that_it_held(scene: Scene) -> None:
    job_id = scene.ask_for_a_gate()
    result = scene.pass_through(job_id).result
    assert result is not None
    assert (result["held"], result["hold_budget_ms"]) == (True, GATE_MS)
    assert result["opened_at"] < result["released_at"]


def test_a_gate_leaves_neither_an_overlay_nor_a_recovery_point(scene: Scene) -> None:
    job = scene.pass_through(scene.ask_for_a_gate())
    assert (job.recovery_point, scene.points(), scene.overlays()) == (None, [], [])


def test_what_recovery_needs_is_committed_before_the_freeze(scene: Scene) -> None:
    job_id = scene.ask_for_a_gate()
    seen: list[dict[str, Any]] = []
    scene.domain.when_next(FREEZE, lambda: seen.append(scene.job(job_id).intent or {}))
    scene.pass_through(job_id)
    assert [(intent["will_freeze"], intent["overlays"]) for intent in seen] == [(True, [])]


def test_a_gate_that_nobody_releases_is_thawed_at_its_deadline_and_says_so(scene: Scene) -> None:
    started = time.monotonic()
    job = scene.run_alone(scene.ask_for_a_gate(deadline_ms=300))

    assert 0.3 <= time.monotonic() - started < 20
    assert scene.domain.agent.frozen == set()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "gate_deadline_passed")
    assert reasons_of(job)[:2] == ["gate_not_released", "hold_limit_exceeded"]
    assert job.result is not None
    assert (job.result["held"], job.result["released_at"]) == (False, None)
    assert job.freeze is not None
    assert job.freeze["watchdog_fired"]


def test_a_release_after_the_deadline_does_not_make_it_held(scene: Scene) -> None:
    job_id = scene.ask_for_a_gate(deadline_ms=200)
    scene.run_alone(job_id)
    scene.release(job_id)
    gate = scene.gate(job_id)
    assert (gate.state, gate.release_requested_at) == (GateState.closed, None)


def test_a_guest_that_somebody_else_thaws_was_not_held(scene: Scene) -> None:
    job = scene.pass_through(scene.ask_for_a_gate(), scene.domain.agent.thaw_by_somebody_else)
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "verdict_below_required")
    assert job.result is not None
    assert job.result["held"] is False


def test_a_caller_to_whom_a_crash_point_is_enough_is_told_of_the_lost_hold_all_the_same(scene: Scene) -> None:
    job = scene.pass_through(scene.ask_for_a_gate(required_verdict="crash"), scene.domain.agent.thaw_by_somebody_else)
    assert job.result is not None
    assert (job.state, job.verdict, job.result["held"]) == ("succeeded", "crash", False)


def test_a_gate_that_the_caller_gave_up_does_not_stay_open(scene: Scene) -> None:
    job_id = scene.ask_for_a_gate(deadline_ms=60_000)
    scene.domain.when_next(FREEZE, lambda: scene.release(job_id))
    job = scene.run_alone(job_id)
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "gate_not_opened")
    assert scene.domain.agent.frozen == set()


def test_a_cancelled_gate_is_never_frozen(scene: Scene) -> None:
    job_id = scene.ask_for_a_gate()
    with scene.database.write() as session:
        queue.request_cancel(session, job_id)
    assert scene.job(job_id).state == "cancelled"
    with scene.database.write() as session:
        assert queue.claim(session, HOST, "worker", 60) is None


def test_a_gate_that_cannot_be_frozen_says_why_and_never_opened(scene: Scene) -> None:
    scene.domain.agent.freeze_by_somebody_else()
    job_id = scene.ask_for_a_gate()
    job = scene.run_alone(job_id)
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "guest_already_frozen")
    assert job.result == {"opened_at": None, "released_at": None, "hold_budget_ms": GATE_MS, "held": False}
    assert scene.gate(job_id).state == GateState.closed
    assert scene.domain.agent.is_frozen_flag


def test_a_freeze_that_the_agent_refuses_is_no_gate(scene: Scene) -> None:
    scene.domain.fail_next(FREEZE, agent_error(FREEZE, "failed to freeze /data"))
    job = scene.run_alone(scene.ask_for_a_gate())
    assert (job.verdict, error_of(job)["code"], reasons_of(job)) == ("none", "freeze_failed", ["gate_not_opened"])


def test_a_paused_guest_is_refused(scene: Scene) -> None:
    scene.domain.pause()
    assert error_of(scene.run_alone(scene.ask_for_a_gate()))["code"] == "domain_paused"


class DeafDatabase(Database):
    """Every call hangs until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.bells = Bells()

    @contextmanager
    def write(self, *, urgent: bool = False) -> Iterator[Any]:
        self.over.wait(20)
        raise DatabaseUnavailable(reason="it hung")
        yield


def test_a_database_that_hangs_keeps_nobody_beyond_the_deadline(scene: Scene) -> None:
    deaf = DeafDatabase()
    hold = GateHold(deaf, "no job", "db1", 300)
    started = time.monotonic()
    with pytest.raises(GateNotOpened) as unopened:
        hold.take(held_for(300))
    assert unopened.value.facts["trouble"] == GateTrouble.database_unavailable
    # The database would hang for 20 s.
    assert 0.3 <= time.monotonic() - started < 15
    deaf.over.set()


def held_for(milliseconds: int) -> Hold:
    return Hold(1, time.monotonic_ns() + milliseconds * 1_000_000, threading.Event())


def test_a_gate_whose_guard_dies_closes_at_once(scene: Scene) -> None:
    job_id = scene.ask_for_a_gate(deadline_ms=60_000)
    hold = held_for(60_000)

    def die() -> None:
        scene.wait_for(job_id, GateState.open)
        time.sleep(0.1)
        hold.cut_short.set()

    thread = threading.Thread(target=die)
    thread.start()
    with pytest.raises(GateClosedEarly) as closed:
        GateHold(scene.database, job_id, "db1", 60_000).take(hold)
    assert closed.value.facts["trouble"] == GateTrouble.guard_died
    thread.join()


@pytest.mark.parametrize(("was_opened", "verdict"), [(True, "crash"), (False, "none")])
def test_a_gate_whose_worker_died_is_thawed_and_not_run_again(scene: Scene, was_opened: bool, verdict: str) -> None:
    job_id = scene.ask_for_a_gate()
    run = scene.claim()
    run.write({"phase": "freeze", "intent": {"will_freeze": True, "overlays": []}})
    scene.domain.agent.freeze_by_somebody_else()
    if was_opened:
        with scene.database.write() as session:
            session.get_one(Gate, job_id).opened_at = scene.job(job_id).created_at
    scene.die_in(run)
    scene.recovery().recover(job_id)
    job = scene.job(job_id)
    assert (job.state, job.verdict, error_of(job)["code"], job.attempt) == ("failed", verdict, "worker_lost", 1)
    assert scene.domain.agent.frozen == set()
    assert scene.gate(job_id).state == GateState.closed


def test_the_gate_of_a_windows_guest_comes_to_application(sqlite_database: Database, tmp_path: Path) -> None:
    scene = WindowsScene(sqlite_database, tmp_path)
    scene.play("healthy-2022")
    job = _windows_gate(scene, lambda job_id: windows_release(scene, job_id))
    assert (job.state, job.verdict) == ("succeeded", "application"), job.error
    assert "writers_before" in dict(phases_of(job))
    assert "writers_after" in dict(phases_of(job))
    assert job.vss_outcome == "completed"


def test_a_deadline_that_windows_cannot_hold_is_refused_before_anything_is_frozen(sqlite_database: Database, tmp_path: Path) -> None:
    scene = WindowsScene(sqlite_database, tmp_path)
    scene.play("healthy-2022")
    job = _windows_gate(scene, lambda _: None, deadline_ms=10_000)
    assert error_of(job)["code"] == "hold_limit_too_long"


def windows_release(scene: Scene, job_id: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with scene.database.write() as session:
            if session.get_one(Gate, job_id).state == GateState.open:
                gates.request_release(session, job_id)
                return
        time.sleep(0.005)


def _windows_gate(scene: WindowsScene, caller: Callable[[str], None], deadline_ms: int = 8_000) -> Job:
    freeze = {"mode": "required", "hold_limit_ms": deadline_ms}
    job_id = scene.ask("quiesce", scene.windows, max_attempts=1, freeze=freeze)
    with scene.database.write() as session:
        gates.add(session, job_id, "secret", deadline_ms)
    thread = threading.Thread(target=scene.execution.execute, args=(scene.claim(),))
    thread.start()
    caller(job_id)
    thread.join(20)
    return scene.job(job_id)
