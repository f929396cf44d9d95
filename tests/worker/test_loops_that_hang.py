"""A loop that hangs does nothing and tells nobody: it is found by the turns that it does not make."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import heartbeat, metrics
from service.db.engine import Database
from service.errors import LoopHangs
from service.heartbeat import Heartbeat
from service.hypervisor import connection
from service.worker.libvirt_events import LibvirtEvents
from service.worker.worker import Worker
from tests.scenes.plant import METHODS, Plant, wait_for

HANGS = """
import time
from service.hypervisor import connection

connection.EVENT_BEAT_S = 0.02
connection.start_event_loop()
end = time.monotonic() + 30
first = connection._event_beat_at
while connection._event_beat_at == first:
    assert time.monotonic() < end, "it never came round"
    time.sleep(0.01)
connection.libvirt.virEventAddTimeout(0, lambda *_: time.sleep(60), None)
while connection.event_loop_silent_s() < 1:
    assert time.monotonic() < end, "it still goes round"
    time.sleep(0.01)
"""


@pytest.fixture
def plant(sqlite_database: Database, tmp_path: Path) -> Iterator[Plant]:
    made = Plant(sqlite_database, tmp_path)
    yield made
    made.close()


def test_a_loop_may_be_late_by_its_interval_and_the_patience_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    beats = Heartbeat("worker-claims", 10.0)
    now[0] += 3 * 10.0 + heartbeat.PATIENCE_S
    assert beats.problem() is None
    now[0] += 1
    found = beats.problem()
    assert isinstance(found, LoopHangs)
    assert (found.facts["thread"], found.facts["silent_s"], found.facts["limit_s"]) == ("worker-claims", 91, 90.0)
    beats.beat()
    assert beats.problem() is None


@pytest.mark.parametrize("loop", metrics.LOOPS)
def test_a_loop_of_the_worker_that_hangs_is_a_problem_and_a_metric_until_it_goes_on(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    go_on = threading.Event()
    worker = plant.start(lease_seconds=1, inventory_seconds=0.2)
    wait_for(lambda: plant.frozen() is not None, "the first publication")
    monkeypatch.setattr(Worker, METHODS[loop], lambda _worker: go_on.wait(60))
    monkeypatch.setattr(heartbeat, "PATIENCE_S", 1.0)
    plant.wake.wake()
    plant.scene.host.change()
    try:
        wait_for(lambda: isinstance(worker.problem(), LoopHangs), "the problem")
        problem = worker.problem()
        assert isinstance(problem, LoopHangs)
        assert problem.facts["thread"] == loop
        assert hangs(loop) == 1.0
    finally:
        monkeypatch.setattr(heartbeat, "PATIENCE_S", 60.0)
        go_on.set()
    wait_for(lambda: worker.problem() is None, "its end")
    assert hangs(loop) == 0.0


def hangs(thread: str) -> float:
    samples = [sample for family in metrics.LOOP_HANGS.collect() for sample in family.samples]
    return next(sample.value for sample in samples if sample.labels["thread"] == thread)


def test_an_event_thread_that_does_not_come_round_is_a_problem_of_the_worker(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = plant.start()
    wait_for(lambda: worker.problem() is None, "a worker that can work")
    monkeypatch.setattr(connection, "_event_loop_running", True)
    monkeypatch.setattr(connection, "_event_beat_at", time.monotonic() - 1000)
    problem = worker.problem()
    assert isinstance(problem, LoopHangs)
    assert (problem.facts["thread"], hangs("libvirt-events")) == ("libvirt-events", 1.0)


def test_an_event_thread_that_nobody_has_needed_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_event_loop_running", False)
    monkeypatch.setattr(connection, "_event_beat_at", time.monotonic() - 1000)
    assert LibvirtEvents().problem() is None


def test_a_timer_of_libvirts_event_loop_beats_until_a_callback_hangs() -> None:
    """In a process of its own: libvirt has one event loop in each, for ever."""
    told = subprocess.run(
        [sys.executable, "-c", HANGS.format(what="time.sleep(60)")], capture_output=True, text=True, timeout=60, check=False
    )
    assert told.returncode == 0, told.stderr
