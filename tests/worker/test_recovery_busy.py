"""A snapshot that libvirtd still executes for a dead worker: the guest is thawed at once, and the disks are judged when it has ended."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from service.db.engine import Database
from service.errors import LibvirtCallTimedOut
from service.freeze import after_death
from service.model.story import NOT_JUDGED_YET, WAITED
from tests.fakes import FakeDomain, libvirt_error
from tests.scenes.deaths import PATIENCE_S, die, recovered, story
from tests.scenes.host import FREEZE, Scene, error_of, phases_of
from tests.scenes.told import tells

LOCKED = "Timed out during operation: cannot acquire state change lock (held by monitor=remoteDispatchDomainSnapshotCreateXML)"


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def left_in_the_snapshot(scene: Scene) -> tuple[str, threading.Event]:
    """A job whose worker died in a snapshot call that libvirtd goes on with until the answered event is set."""
    scene.ask()
    going_on, begun = threading.Event(), threading.Event()

    def take_long() -> None:
        scene.domain.domain_job = libvirt.VIR_DOMAIN_JOB_UNBOUNDED
        begun.set()
        going_on.wait()

    scene.domain.when_next("snapshot_create", take_long)
    return die(scene, begun), going_on


def end_it(scene: Scene, going_on: threading.Event) -> None:
    going_on.set()
    deadline = time.monotonic() + PATIENCE_S
    while not scene.domain.points:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    scene.domain.domain_job = libvirt.VIR_DOMAIN_JOB_NONE


def refuse_to_say(domain: FakeDomain) -> None:
    domain.fail_next("job_type", libvirt_error(libvirt.VIR_ERR_OPERATION_TIMEOUT, LOCKED))


def hang(domain: FakeDomain) -> None:
    domain.fail_next("job_type", LibvirtCallTimedOut(call="virDomainGetJobInfo", domain="db1", timeout_ms=15_000, why="it did not return"))


def test_the_guest_is_thawed_while_the_snapshot_goes_on_and_no_disk_is_judged(scene: Scene) -> None:
    job_id, going_on = left_in_the_snapshot(scene)
    assert scene.domain.agent.frozen
    overlays = scene.overlays()

    job = recovered(scene, job_id)

    assert scene.domain.agent.frozen == set()
    assert (job.state, error_of(job)["code"]) == ("interrupted", "domain_busy")
    assert (scene.overlays(), scene.points(), job.finished_at) == (overlays, [], None)
    assert phases_of(job)[-1] == ("recover", "warning")
    assert after_death.THAWED.format(count=2) in story(job)
    assert tells(job, NOT_JUDGED_YET, why=error_of(job)["detail"])
    going_on.set()


def test_the_point_that_it_takes_in_the_end_is_kept_and_told(scene: Scene) -> None:
    job_id, going_on = left_in_the_snapshot(scene)
    for _ in range(2):
        recovered(scene, job_id)
    end_it(scene, going_on)

    job = recovered(scene, job_id)

    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "worker_lost")
    assert len(scene.points()) == 1
    assert scene.overlays() == sorted(scene.sources().values())
    assert [name for name, _ in phases_of(job)].count("recover") == 1
    assert tells(job, WAITED)


@pytest.mark.parametrize("trouble", [refuse_to_say, hang])
def test_a_libvirt_that_does_not_say_what_it_does_is_waited_for(scene: Scene, trouble: Callable[[FakeDomain], None]) -> None:
    scene.ask()
    job_id = die(scene, scene.domain.die_in(FREEZE, after=True))
    overlays = scene.overlays()
    trouble(scene.domain)
    job = recovered(scene, job_id)
    assert (job.state, scene.overlays(), scene.domain.agent.frozen) == ("interrupted", overlays, set())
    assert recovered(scene, job_id).state == "queued"
    assert scene.overlays() == []


def test_a_domain_that_is_shut_off_has_no_job_to_wait_for(scene: Scene) -> None:
    job_id, going_on = left_in_the_snapshot(scene)
    scene.domain.shut_off(cleanly=False)
    assert recovered(scene, job_id).state == "queued"
    assert "job_type" not in scene.domain.log[scene.domain.log.index("snapshot_create") :]
    going_on.set()


def test_a_job_that_had_made_nothing_waits_for_nobody(scene: Scene) -> None:
    scene.ask()
    job_id = die(scene, scene.domain.die_in("guest-ping"))
    scene.domain.domain_job = libvirt.VIR_DOMAIN_JOB_UNBOUNDED
    assert recovered(scene, job_id).state == "queued"
