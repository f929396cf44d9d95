"""The service is killed at the worst moments; what the next start finds is thawed, known and told."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.model.story import POINT_KEPT
from tests.lab.disks import needs_recovery
from tests.lab.guests import LabGuest
from tests.libvirt_relay import LibvirtRelay
from tests.live.test_libvirt_goes_away import wait_until_thawed
from tests.live.test_main_job import overlays_beside
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live


@pytest.fixture
def slow(relay: LibvirtRelay, tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service whose every call to libvirt takes long enough to be interrupted."""
    with ServiceProcess(tmp_path / "state", libvirt_uri=relay.uri) as process:
        yield process


def test_killed_while_the_guest_is_frozen_and_before_the_point_in_time(
    slow: ServiceProcess, relay: LibvirtRelay, lab_guest: LabGuest
) -> None:
    slow.run(lab_guest.name, kind="preflight")
    relay.snapshots_pass.clear()
    job_id = slow.create(lab_guest.name, freeze={"preflush": False})
    relay.wait_for_snapshot()

    mark = lab_guest.mark()
    killed = time.monotonic()
    slow.kill()
    # Nobody but the guard is there to do it.
    wait_until_thawed(lab_guest)
    # Long before the limit of the hold, which is 30 s.
    assert time.monotonic() - killed < 15
    assert lab_guest.stalls(mark)
    relay.snapshots_pass.set()
    slow.start()
    job = slow.wait(job_id)

    assert "recover" in [phase["name"] for phase in job["phases"]]
    assert (job["state"], job["attempt"], job["verdict"]) == ("succeeded", 2, "filesystem")
    assert len(overlays_beside(lab_guest)) == 1


def test_stopped_while_the_guest_is_frozen_it_is_thawed_at_the_deadline_and_the_job_tells_by_whom(
    slow: ServiceProcess, relay: LibvirtRelay, lab_guest: LabGuest
) -> None:
    slow.run(lab_guest.name, kind="preflight")
    relay.snapshots_pass.clear()
    mark = lab_guest.mark()
    # Long enough that a busy machine asks for the point in time before the limit, and far below the limit by default.
    job_id = slow.create(lab_guest.name, freeze={"preflush": False, "hold_limit_ms": 4_000})
    relay.wait_for_snapshot()

    slow.signal(signal.SIGSTOP)
    wait_until_thawed(lab_guest)
    assert max(stall.ms for stall in lab_guest.stalls(mark)) < 15_000
    assert lab_guest.freeze_status() == "thawed"
    relay.snapshots_pass.set()
    slow.signal(signal.SIGCONT)
    job = slow.wait(job_id)

    assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "crash", "verdict_below_required")
    assert (job["freeze"]["guard"]["reason"], job["freeze"]["guard"]["count"]) == ("deadline", 1)
    assert "guard_thawed" in [reason["code"] for reason in job["verdict_reasons"]]
    assert slow.run(lab_guest.name)["verdict"] == "filesystem"


def test_killed_after_the_point_in_time_keeps_the_point_as_crash_consistent(
    slow: ServiceProcess, relay: LibvirtRelay, lab_guest: LabGuest
) -> None:
    slow.run(lab_guest.name, kind="preflight")
    relay.snapshots_pass.clear()
    job_id = slow.create(lab_guest.name, freeze={"preflush": False})
    relay.wait_for_snapshot()
    # The thaw is held back, and the worker dies before it comes to that.
    relay.delay_s = 1.5
    relay.snapshots_pass.set()
    while lab_guest.active_sources() == lab_guest.disks:
        pass

    slow.kill()
    relay.delay_s = 0
    slow.start()
    job = slow.wait(job_id)

    assert lab_guest.freeze_status() == "thawed"
    assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "crash", "worker_lost")
    assert POINT_KEPT.rstrip(".") in job["error"]["detail"]
    point = slow.request("GET", f"/api/v1/recovery-points/{job['recovery_point']['id']}").json()
    assert [Path(disk["file"]) for disk in point["disks"]] == list(lab_guest.disks.values())
    assert not needs_recovery(lab_guest.disks["vda"])
    assert slow.run(lab_guest.name)["verdict"] == "filesystem"
