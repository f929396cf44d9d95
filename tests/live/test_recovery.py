"""Recovery on real guests: a discard that was cut short, and a frozen guest that is paused when the worker comes back."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from service.model.story import DISCARD_BEGUN, DISCARD_FINISHED, PHASE, WAITED, WORKER_LOST
from tests.lab.disks import chain
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.libvirt_relay import LibvirtRelay
from tests.live.test_main_job import overlays_beside
from tests.scenes.told import pattern
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live


@pytest.fixture
def slow(relay: LibvirtRelay, tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service whose every call to libvirt takes long enough to be interrupted."""
    with ServiceProcess(tmp_path / "state", libvirt_uri=relay.uri) as process:
        yield process


def merging(guest: LabGuest) -> set[str]:
    """Disks with a block job that writes them into another file."""
    targets = ElementTree.fromstring(guest.domain.XMLDesc(0)).iterfind("./devices/disk[mirror]/target")
    return {target.get("dev", "") for target in targets}


def wait_for(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


@pytest.mark.parametrize("disk", ["vda", "vdb"])
def test_killed_while_a_point_is_merged_back_the_merge_is_finished(
    slow: ServiceProcess, relay: LibvirtRelay, make_guest: MakeGuest, disk: str
) -> None:
    guest = make_guest(GuestOptions(disks=2)).start_and_wait()
    guest.exec("/bin/sh", "-c", "echo before > /data/before; sync")
    slow.run(guest.name, kind="preflight")
    relay.snapshots_pass.clear()
    job_id = slow.create(guest.name, freeze={"mode": "off"}, required_verdict="filesystem", on_shortfall="discard")
    relay.wait_for_snapshot()
    relay.delay_s = 0.3
    relay.snapshots_pass.set()
    wait_for(lambda: disk in merging(guest), f"{disk} was never seen merging")
    slow.kill()
    relay.delay_s = 0
    guest.exec("/bin/sh", "-c", "echo between > /data/between; sync")

    slow.start()
    job = slow.wait(job_id)

    assert (job["state"], job["error"]["code"], job["recovery_point"]) == ("failed", "verdict_below_required", None)
    recovered = job["phases"][-1]
    assert recovered["name"] == "recover"
    beginning = WORKER_LOST.format(place=PHASE.format(phase="discard"), attempt=1)
    assert recovered["detail"].startswith(f"{beginning} {DISCARD_BEGUN} {DISCARD_FINISHED}")
    assert guest.active_sources() == guest.disks
    assert (overlays_beside(guest), merging(guest)) == (set(), set())
    assert chain(guest.disks["vda"]) == [guest.disks["vda"]]
    assert guest.exec("/bin/sh", "-c", "cat /data/before /data/between").split() == ["before", "between"]
    assert slow.request("GET", f"/api/v1/recovery-points?domain={guest.name}").json()["items"] == []
    assert slow.run(guest.name)["verdict"] == "filesystem"


def test_a_frozen_guest_that_is_paused_is_waited_for_and_thawed_when_it_runs_again(
    slow: ServiceProcess, relay: LibvirtRelay, lab_guest: LabGuest
) -> None:
    slow.run(lab_guest.name, kind="preflight")
    relay.snapshots_pass.clear()
    job_id = slow.create(lab_guest.name, freeze={"preflush": False})
    relay.wait_for_snapshot()
    # Before the guard can thaw.
    lab_guest.domain.suspend()
    slow.kill()
    relay.snapshots_pass.set()

    slow.start()
    wait_for(lambda: slow.job(job_id)["error"] is not None, "the note of the wait")
    waiting = slow.job(job_id)
    assert (waiting["state"], waiting["error"]["code"]) == ("interrupted", "guest_may_be_frozen")
    time.sleep(5)
    assert slow.log_text().count("recovery_waits") == 1
    lab_guest.domain.resume()
    resumed = time.monotonic()
    wait_for(lambda: lab_guest.freeze_status() == "thawed", "the thaw")

    # Long before the lease of a minute, or a poll for other reasons, would have shown it.
    assert time.monotonic() - resumed < 9
    job = slow.wait(job_id)
    assert (job["state"], job["attempt"], job["verdict"]) == ("succeeded", 2, "filesystem")
    recovered = next(phase for phase in job["phases"] if phase["name"] == "recover")
    assert re.search(pattern(WAITED), recovered["detail"])
