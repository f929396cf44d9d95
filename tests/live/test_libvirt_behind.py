"""QEMU has switched a disk, and libvirt, whose daemon was killed in the snapshot, does not know it: no write of the guest is lost."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.lab import monitor
from tests.lab.daemon import uri
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.libvirt_relay import LibvirtRelay
from tests.live.test_libvirt_goes_away import wait_until_frozen
from tests.live.test_main_job import overlays_beside
from tests.live.test_preflight_and_job import failing
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

BEHIND = "libvirt_behind_qemu"


@pytest.fixture
def guest(make_guest: MakeGuest) -> LabGuest:
    """Its agent tells the console of every freeze and thaw, through the hook."""
    return make_guest(GuestOptions(hook="ok")).start_and_wait()


@pytest.fixture
def service(relay: LibvirtRelay, tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path / "state", libvirt_uri=relay.uri) as process:
        yield process


@pytest.fixture
def job(service: ServiceProcess, relay: LibvirtRelay, guest: LabGuest) -> dict[str, Any]:
    """Of a worker that died in its window. QEMU had carried out the snapshot, and libvirt has no record of it."""
    write(guest, "before")
    service.run(guest.name, kind="preflight")
    relay.snapshots_pass.clear()
    job_id = service.create(guest.name, freeze={"preflush": False})
    wait_until_frozen(guest)
    service.kill()
    (overlay,) = overlays_beside(guest)
    monitor.switch(guest, guest.disks["vda"], overlay)
    # Of a connection that is closed: the call does not go through.
    relay.snapshots_pass.set()
    service.start()
    found = service.wait(job_id)
    write(guest, "after")
    return found


def write(guest: LabGuest, name: str) -> None:
    guest.exec("/bin/sh", "-c", f"echo {name} > /data/{name}; sync")


def read(guest: LabGuest, *names: str) -> list[str]:
    return guest.exec("/bin/sh", "-c", "cat " + " ".join(f"/data/{name}" for name in names)).split()


def overlay_of(job: dict[str, Any]) -> Path:
    return Path(job["error"]["facts"]["qemu_file"])


def test_recovery_keeps_the_overlay_and_tells_the_point(job: dict[str, Any], guest: LabGuest) -> None:
    assert (job["state"], job["error"]["code"], job["verdict"]) == ("failed", BEHIND, "crash")
    facts = job["error"]["facts"]
    assert (facts["domain"], facts["disk"], facts["libvirt_file"]) == (guest.name, "vda", str(guest.disks["vda"]))
    (disk,) = job["recovery_point"]["disks"]
    assert (disk["file"], disk["overlay"]) == (facts["libvirt_file"], facts["qemu_file"])
    assert overlays_beside(guest) == {overlay_of(job)}
    assert guest.freeze_status() == "thawed"


def test_the_next_job_preflight_and_doctor_refuse_the_domain_and_nothing_is_frozen(
    job: dict[str, Any], guest: LabGuest, service: ServiceProcess
) -> None:
    mark = guest.mark()
    preflight, following = service.run(guest.name, kind="preflight"), service.run(guest.name)
    doctor = [sys.executable, "-m", "service.cli", "doctor"]
    told = subprocess.run(doctor, env=service.environment, capture_output=True, text=True, check=False)

    assert (preflight["result"]["would_work"], failing(preflight)) == (False, [BEHIND])
    assert (following["state"], following["error"]["code"], following["freeze"]) == ("failed", BEHIND, None)
    assert following["error"]["facts"] == job["error"]["facts"]
    assert [line for line in told.stdout.splitlines() if line.startswith("FAIL") and guest.name in line]
    assert "HOOK" not in guest.console.text(mark)
    assert overlays_beside(guest) == {overlay_of(job)}


def test_the_definition_is_corrected_and_the_guest_shut_down_and_started(
    job: dict[str, Any], guest: LabGuest, service: ServiceProcess
) -> None:
    """The remedy of the error. The point stays whole."""
    saved = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    base, overlay = job["error"]["facts"]["libvirt_file"], job["error"]["facts"]["qemu_file"]
    assert base in saved
    guest.connection.defineXML(saved.replace(f"'{base}'", f"'{overlay}'"))
    write(guest, "later")
    guest.shutdown()
    guest.start_and_wait()

    assert guest.active_sources()["vda"] == Path(overlay)
    assert read(guest, "before", "after", "later") == ["before", "after", "later"]
    assert service.run(guest.name)["verdict"] == "filesystem"


def test_the_overlay_is_merged_back_while_the_guest_runs(job: dict[str, Any], guest: LabGuest, service: ServiceProcess) -> None:
    """The other way of docs/reliability.md. It gives up the point."""
    monitor.merge_back(guest, guest.disks["vda"], overlay_of(job))
    overlay_of(job).unlink()
    write(guest, "later")

    following = service.run(guest.name)
    assert (following["state"], following["verdict"]) == ("succeeded", "filesystem")
    guest.shutdown()
    guest.start_and_wait()
    assert read(guest, "before", "after", "later") == ["before", "after", "later"]


def test_doctor_is_content_with_a_guest_whose_disks_moved_as_libvirt_knows(service: ServiceProcess, guest: LabGuest) -> None:
    assert service.run(guest.name)["state"] == "succeeded"
    told = subprocess.run(
        [sys.executable, "-m", "service.cli", "doctor"],
        env={**service.environment, "STILLPOINT_LIBVIRT_URI": uri()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not [line for line in told.stdout.splitlines() if line.startswith("FAIL") and "disks" in line], told.stdout
