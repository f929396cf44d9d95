"""The worker: one per host, claims and runs jobs, keeps their leases, and hands to recovery what it lost."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service import metrics
from service.db.engine import Database
from service.db.tables import Domain, Host, Job
from service.errors import LibvirtUnavailable, LoopDied, StateFolderUnwritable, StillpointError, WorkerAlreadyRuns
from service.records import forgotten_host, queue
from service.worker import worker as worker_module
from service.worker.worker import Worker
from tests.api.world import change_job
from tests.scenes.host import FREEZE, HOST, THAW, error_of
from tests.scenes.plant import METHODS, PATIENCE_S, Plant, wait_for
from tests.scenes.registered_hosts import a_lock, heard_ago, register


@pytest.fixture
def plant(sqlite_database: Database, tmp_path: Path) -> Iterator[Plant]:
    built = Plant(sqlite_database, tmp_path)
    yield built
    built.close()


def test_a_job_is_claimed_run_and_ended(database: Database, tmp_path: Path) -> None:
    plant = Plant(database, tmp_path)
    plant.start()
    job_id = plant.scene.ask()
    plant.wake.wake()
    assert plant.wait_end(job_id).state == "succeeded"
    plant.close()


def test_a_stopped_worker_claims_nothing_more_and_says_that_all_jobs_ended(plant: Plant) -> None:
    worker = plant.start()
    assert worker.stop(5) is True
    job_id = plant.scene.ask()
    plant.wake.wake()
    time.sleep(0.2)
    assert plant.scene.job(job_id).state == "queued"
    assert plant.scene.host.closed


def test_a_stopping_worker_waits_for_its_running_job(plant: Plant) -> None:
    worker = plant.start()
    plant.scene.domain.delay_next("snapshot_create", 0.3)
    job_id = plant.scene.ask()
    plant.wake.wake()
    plant.wait_call(plant.scene.domain, FREEZE)
    assert worker.stop(10) is True
    assert plant.scene.job(job_id).state == "succeeded"


def test_a_stopping_worker_waits_for_the_job_that_it_is_just_claiming(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    claims, may_go_on = threading.Event(), threading.Event()
    plant.scene.hung.append(may_go_on)
    claim = queue.claim

    def claim_slowly(*arguments: Any, **options: Any) -> queue.Claim | None:
        claimed = claim(*arguments, **options)
        if claimed is not None:
            claims.set()
            may_go_on.wait(PATIENCE_S)
        return claimed

    monkeypatch.setattr(queue, "claim", claim_slowly)
    plant.scene.domain.delay_next("snapshot_create", 0.5)
    worker = plant.start()
    job_id = plant.scene.ask()
    plant.wake.wake()
    assert claims.wait(PATIENCE_S)
    stopped: list[bool] = []
    stop = threading.Thread(target=lambda: stopped.append(worker.stop(10)))
    stop.start()
    wait_for(lambda: worker.is_stopping, "the stop")
    may_go_on.set()
    stop.join()
    assert (stopped, plant.scene.job(job_id).state) == ([True], "succeeded")


def test_a_kind_that_this_version_does_not_know_waits_for_a_worker_that_does(plant: Plant) -> None:
    unknown = plant.scene.ask()
    with plant.scene.database.write() as session:
        change_job(session, unknown, kind="kind-of-next-year")
    plant.start()
    assert plant.wait_end(plant.scene.ask()).state == "succeeded"
    assert (plant.scene.job(unknown).state, plant.scene.job(unknown).attempt) == ("queued", 0)


def test_a_job_that_does_not_end_in_time_is_told_and_left_to_the_next_start(plant: Plant) -> None:
    worker = plant.start()
    gate = plant.hang(plant.scene.domain, "block_capacity")
    job_id = plant.scene.ask()
    plant.wake.wake()
    plant.wait_call(plant.scene.domain, "block_capacity")
    assert worker.stop(0.1) is False
    assert plant.scene.job(job_id).state == "running"
    plant.start()
    wait_for(lambda: plant.scene.job(job_id).attempt == 2, "the second attempt")
    gate.set()
    assert plant.wait_end(job_id).state == "succeeded"


def test_a_host_has_one_worker(plant: Plant) -> None:
    first = plant.start()
    second = plant.worker()
    with pytest.raises(WorkerAlreadyRuns) as refused:
        second.start()
    assert refused.value.facts["host"] == HOST
    first.stop(5)
    plant.start()


def test_a_worker_whose_host_another_one_took_claims_nothing_until_that_one_is_silent(plant: Plant) -> None:
    """It was cut off for so long that another machine with its name was let in."""
    worker = plant.start(lease_seconds=1)
    wait_for(lambda: plant.frozen() is not None, "the first publication")
    heard_ago(plant.scene.database, 3_600, HOST)
    with plant.scene.database.write() as session:
        session.get_one(Host, HOST).instance_id, session.get_one(Host, HOST).lock_id = "another", str(a_lock())
        session.get_one(Host, HOST).last_seen = datetime.now(UTC)
    job_id = plant.scene.ask()
    plant.wake.wake()
    wait_for(lambda: (worker.problem() or StillpointError()).code == "host_taken", "the worker to notice")
    assert not worker.has_host
    assert plant.scene.job(job_id).state == "queued"
    heard_ago(plant.scene.database, 3_600, HOST)
    assert plant.wait_end(job_id).state == "succeeded"
    assert worker.has_host


def test_a_worker_whose_host_was_forgotten_registers_anew_and_thaws_what_it_left(plant: Plant) -> None:
    scene = plant.scene
    job_id = scene.ask(max_attempts=1)
    scene.claim().write({"phase": "freeze", "intent": {"will_freeze": True, "overlays": []}})
    scene.domain.agent.freeze_by_somebody_else()
    register(scene.database, HOST)
    heard_ago(scene.database, 3_600, HOST)
    with scene.database.write() as session:
        session.get_one(Job, job_id).lease_until = datetime.now(UTC) - timedelta(seconds=1)
        forgotten_host.forget(session, HOST)

    plant.start(lease_seconds=1)

    wait_for(lambda: scene.job(job_id).forgotten_at is None, "the look at the forgotten job")
    assert not scene.domain.agent.frozen
    assert (scene.job(job_id).state, error_of(scene.job(job_id))["code"]) == ("failed", "host_forgotten")
    assert plant.wait_end(scene.ask()).state == "succeeded"


def test_a_running_worker_that_was_forgotten_writes_no_more_to_its_job_and_goes_on_with_others(plant: Plant) -> None:
    scene = plant.scene
    plant.start(lease_seconds=1)
    gate = plant.hang(scene.domain, "block_capacity")
    job_id = scene.ask()
    plant.wake.wake()
    plant.wait_call(scene.domain, "block_capacity")
    with scene.database.write() as session:
        # In one transaction, as if nothing had been heard of it for long.
        session.get_one(Host, HOST).last_seen = datetime.now(UTC) - timedelta(hours=1)
        session.get_one(Job, job_id).lease_until = datetime.now(UTC) - timedelta(seconds=1)
        session.flush()
        forgotten_host.forget(session, HOST)
    gate.set()
    assert plant.wait_end(scene.ask()).state == "succeeded"
    assert (scene.job(job_id).state, error_of(scene.job(job_id))["code"], scene.overlays()[1:]) == ("failed", "host_forgotten", [])


def test_what_a_dead_worker_left_is_recovered_at_the_start(plant: Plant) -> None:
    job_id = plant.scene.ask()
    plant.scene.claim()
    plant.start()
    job = plant.wait_end(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert job.phases[0]["name"] == "recover"


def test_a_guest_that_a_dead_worker_left_frozen_is_thawed_at_the_start(plant: Plant) -> None:
    plant.scene.ask(max_attempts=1)
    plant.scene.claim().write({"phase": "freeze", "intent": {"will_freeze": True, "overlays": []}})
    plant.scene.domain.agent.freeze_by_somebody_else()
    plant.start()
    wait_for(lambda: not plant.scene.domain.agent.frozen, "the thaw")


def test_a_hung_libvirt_call_does_not_hold_up_the_jobs_of_other_domains(plant: Plant) -> None:
    other = plant.scene.add("db2")
    plant.start()
    gate = plant.hang(plant.scene.domain, "block_capacity")
    hung = plant.scene.ask()
    plant.wake.wake()
    plant.wait_call(plant.scene.domain, "block_capacity")
    free = plant.scene.ask(domain=other)
    plant.wake.wake()
    assert plant.wait_end(free).state == "succeeded"
    assert plant.scene.job(hung).state == "running"
    gate.set()
    assert plant.wait_end(hung).state == "succeeded"


def test_a_guest_that_holds_up_the_first_inventory_does_not_hold_up_the_jobs_of_others(plant: Plant) -> None:
    other = plant.scene.add("db2")
    plant.hang(other, "guest-ping")
    plant.start()
    plant.wait_call(other, "guest-ping")
    assert plant.wait_end(plant.scene.ask()).state == "succeeded"


def test_a_second_job_of_a_domain_waits_and_a_thaw_does_not(plant: Plant) -> None:
    plant.start()
    gate = plant.hang(plant.scene.domain, "block_capacity")
    first = plant.scene.ask()
    plant.wake.wake()
    plant.wait_call(plant.scene.domain, "block_capacity")
    second, thaw = plant.scene.ask(), plant.scene.ask("thaw")
    plant.wake.wake()
    assert plant.wait_end(thaw).state == "succeeded"
    assert plant.scene.job(second).state == "queued"
    gate.set()
    assert plant.wait_end(first).state == plant.wait_end(second).state == "succeeded"


def test_a_running_job_is_cancelled_at_its_next_safe_point(plant: Plant) -> None:
    plant.start()
    gate = plant.hang(plant.scene.domain, "block_capacity")
    job_id = plant.scene.ask()
    plant.wake.wake()
    plant.wait_call(plant.scene.domain, "block_capacity")
    with plant.scene.database.write() as session:
        queue.request_cancel(session, job_id)
    time.sleep(1.3)  # a third of the lease, after which the worker sees it
    gate.set()
    job = plant.wait_end(job_id)
    assert (job.state, error_of(job)["code"]) == ("cancelled", "job_cancelled")
    assert plant.scene.overlays() == []
    assert FREEZE not in plant.scene.domain.log


def test_a_lease_is_kept_while_a_job_takes_longer_than_it(plant: Plant) -> None:
    plant.start(lease_seconds=1)
    gate = plant.hang(plant.scene.domain, "block_capacity")
    job_id = plant.scene.ask()
    plant.wake.wake()
    plant.wait_call(plant.scene.domain, "block_capacity")
    time.sleep(1.5)
    gate.set()
    job = plant.wait_end(job_id)
    assert (job.state, job.attempt) == ("succeeded", 1)


def test_a_lease_that_was_taken_away_stops_the_job_and_recovery_takes_it_after_that(plant: Plant) -> None:
    plant.start(lease_seconds=1)
    gate = plant.hang(plant.scene.domain, "block_capacity")
    job_id = plant.scene.ask()
    plant.wake.wake()
    plant.wait_call(plant.scene.domain, "block_capacity")
    with plant.scene.database.write() as session:
        assert queue.release_expired(session, HOST, all_running=True) == [job_id]
    time.sleep(0.6)
    gate.set()
    job = plant.wait_end(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert plant.scene.domain.log.count(FREEZE) == 1


def test_a_job_that_could_not_read_its_disks_is_recovered_by_the_same_worker(plant: Plant) -> None:
    plant.start(lease_seconds=1)

    def explode() -> None:
        raise ZeroDivisionError

    plant.scene.domain.when_next("snapshot_create", explode)
    job_id = plant.scene.ask()
    plant.wake.wake()
    job = plant.wait_end(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert len(plant.scene.domain.points) == 1


def test_while_libvirt_is_away_jobs_wait_and_run_when_it_is_back(plant: Plant) -> None:
    plant.scene.host.is_away = True
    plant.start()
    job_id = plant.scene.ask()
    plant.wake.wake()
    time.sleep(0.3)
    assert plant.scene.job(job_id).state == "queued"
    with plant.scene.database.read() as session:
        host = session.get(Host, HOST)
        assert host is not None
        assert (host.libvirt_connected, host.libvirt_error) == (False, "No connection to fake:///system: Failed to connect socket.")
    plant.scene.host.is_away = False
    assert plant.wait_end(job_id).state == "succeeded"


def test_a_libvirt_that_goes_away_is_a_problem_and_one_line_of_the_log_until_it_is_back(plant: Plant) -> None:
    host = plant.scene.host
    with capture_logs() as lines:
        worker = plant.start()
        wait_for(lambda: plant.frozen() is not None, "the first publication")
        assert worker.problem() is None
        host.is_away = True
        host.change()
        wait_for(lambda: isinstance(worker.problem(), LibvirtUnavailable), "the problem")
        host.change()
        host.is_away = False
        host.change()
        wait_for(lambda: worker.problem() is None, "its end")
        wait_for(lambda: "libvirt_back" in [line["event"] for line in lines], "the line of its end")
    told = [line for line in lines if line["event"] == "libvirt_away"]
    assert [line["code"] for line in told] == ["libvirt_unavailable"]


@pytest.mark.parametrize("loop", metrics.LOOPS)
def test_a_loop_that_died_is_a_problem_counted_and_logged(plant: Plant, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    before = metrics.LOOPS_DIED.labels(thread=loop)._value.get()

    def dies(_worker: Worker) -> None:
        raise SystemExit("out of everything")

    with capture_logs() as lines:
        worker = plant.start(lease_seconds=1)
        wait_for(lambda: plant.frozen() is not None, "the first publication")
        monkeypatch.setattr(Worker, METHODS[loop], dies)
        plant.wake.wake()
        plant.scene.host.change()
        wait_for(lambda: worker.problem() is not None, "the problem")
    problem = worker.problem()
    assert isinstance(problem, LoopDied)
    assert problem.facts["thread"] == loop
    assert metrics.LOOPS_DIED.labels(thread=loop)._value.get() == before + 1
    assert [line["thread"] for line in lines if line["event"] == "loop_died"] == [loop]


def test_a_state_folder_that_is_gone_is_a_problem_a_line_of_the_log_and_a_metric(plant: Plant, tmp_path: Path) -> None:
    with capture_logs() as lines:
        worker = plant.start(lease_seconds=1)
        assert worker.problem() is None
        (tmp_path / "state").rename(tmp_path / "elsewhere")
        wait_for(lambda: "state_folder_away" in [line["event"] for line in lines], "the line")
        assert isinstance(worker.problem(), StateFolderUnwritable)
        assert metrics.STATE_FOLDER_WRITABLE._value.get() == 0
        (tmp_path / "elsewhere").rename(tmp_path / "state")
        assert worker.problem() is None
        assert metrics.STATE_FOLDER_WRITABLE._value.get() == 1


def test_loops_that_were_stopped_have_not_died(plant: Plant) -> None:
    worker = plant.start()
    worker.stop(5)
    assert worker.problem() is None


def test_a_guest_that_answers_nonsense_does_not_stop_the_worker(plant: Plant) -> None:
    plant.scene.domain.answer_next("guest-info", {"return": [None]}, times=1)
    plant.start()
    other = plant.scene.add("db2")
    plant.scene.host.change()
    job_id = plant.scene.ask(domain=other)
    plant.wake.wake()
    assert plant.wait_end(job_id).state == "succeeded"


def test_a_guest_that_somebody_else_thawed_is_soon_published_as_thawed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of a guest that is published frozen are refused: nobody tells of its thaw, so it is asked more often than the others."""
    monkeypatch.setattr(worker_module, "FOREIGN_FREEZE_POLL_S", 0.1)
    plant.scene.domain.agent.freeze_by_somebody_else()
    plant.start(inventory_seconds=60)

    wait_for(lambda: plant.frozen() is True, "the first publication")
    time.sleep(0.3)
    plant.scene.domain.agent.thaw_by_somebody_else()
    wait_for(lambda: plant.frozen() is False, "the publication of the thaw")
    assert THAW not in plant.scene.domain.log


def test_a_thaw_that_was_asked_for_is_published_at_once(plant: Plant) -> None:
    plant.scene.domain.agent.freeze_by_somebody_else()
    plant.start(inventory_seconds=60)

    wait_for(lambda: plant.frozen() is True, "the first publication")
    plant.wait_end(plant.scene.ask("thaw"))
    started = time.monotonic()
    wait_for(lambda: plant.frozen() is False, "the publication of the thaw")
    assert time.monotonic() - started < 30


def test_a_change_on_the_host_is_published_at_once(plant: Plant) -> None:
    plant.start(inventory_seconds=60)

    def state() -> str | None:
        with plant.scene.database.read() as session:
            row = session.get(Domain, (HOST, plant.scene.domain.uuid()))
            return row.state if row else None

    wait_for(lambda: state() == "running", "the first publication")
    plant.scene.domain.shut_off()
    plant.scene.host.change()
    wait_for(lambda: state() == "shut_off", "the publication of the change")
