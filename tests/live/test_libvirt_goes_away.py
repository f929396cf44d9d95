"""libvirt disappears and comes back, seen through a relay that belongs to the test."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.guests import LabGuest
from tests.libvirt_relay import LibvirtRelay
from tests.live.test_main_job import overlays_beside
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live


@pytest.fixture
def behind_relay(relay: LibvirtRelay, tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path / "state", libvirt_uri=relay.uri) as process:
        yield process


def test_a_job_created_while_libvirt_is_away_runs_when_it_is_back(
    behind_relay: ServiceProcess, relay: LibvirtRelay, lab_guest: LabGuest
) -> None:
    assert behind_relay.run(lab_guest.name)["state"] == "succeeded"
    relay.close()
    wait_for_host(behind_relay, connected=False)
    job_id = behind_relay.create(lab_guest.name)
    time.sleep(1.5)
    assert behind_relay.job(job_id)["state"] == "queued"

    relay.open()

    assert behind_relay.wait(job_id)["state"] == "succeeded"


def test_a_libvirt_that_is_away_is_told_everywhere(behind_relay: ServiceProcess, relay: LibvirtRelay) -> None:
    wait_for_host(behind_relay, connected=True)
    assert readiness(behind_relay) == (200, None)
    relay.close()
    wait_for_host(behind_relay, connected=False)
    assert readiness(behind_relay) == (503, "libvirt_unavailable")
    assert 'stillpoint_host_libvirt_connected{host="hv1"} 0.0' in behind_relay.request("GET", "/metrics").text
    command = [sys.executable, "-m", "service.cli", "doctor"]
    doctor = subprocess.run(command, env=behind_relay.environment, capture_output=True, text=True, timeout=60, check=False)
    assert (doctor.returncode, "FAIL  libvirt: " in doctor.stdout) == (1, True)

    relay.open()
    wait_for_host(behind_relay, connected=True)

    assert readiness(behind_relay) == (200, None)
    events = [json.loads(line)["event"] for line in behind_relay.log_text().splitlines() if line.startswith("{")]
    assert [event for event in events if event in ("libvirt_away", "libvirt_back")] == ["libvirt_away", "libvirt_back"]


def test_libvirt_lost_inside_the_window_leaves_the_guest_thawed_and_the_disks_known(
    behind_relay: ServiceProcess, relay: LibvirtRelay, lab_guest: LabGuest
) -> None:
    behind_relay.run(lab_guest.name, kind="preflight")
    relay.snapshots_pass.clear()
    job_id = behind_relay.create(lab_guest.name, freeze={"preflush": False})
    relay.wait_for_snapshot()

    relay.close()
    relay.snapshots_pass.set()
    relay.open()
    job = behind_relay.wait(job_id, timeout=90)

    assert lab_guest.freeze_status() == "thawed"
    switched = lab_guest.active_sources() != lab_guest.disks
    assert (job["recovery_point"] is not None) == switched
    assert len(overlays_beside(lab_guest)) == (1 if switched else 0)
    assert behind_relay.run(lab_guest.name)["verdict"] == "filesystem"


def readiness(service: ServiceProcess) -> tuple[int, str | None]:
    answer = service.request("GET", "/readyz")
    return answer.status_code, answer.json().get("code")


def wait_for_host(service: ServiceProcess, *, connected: bool) -> None:
    deadline = time.monotonic() + 60
    while service.request("GET", "/api/v1/hosts").json()["items"][0]["libvirt_connected"] is not connected:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_until_frozen(guest: LabGuest) -> None:
    _wait_until("frozen", guest)


def wait_until_thawed(guest: LabGuest) -> None:
    _wait_until("thawed", guest)


def _wait_until(status: str, guest: LabGuest) -> None:
    """By the guest's own words, asked for past the relay."""
    deadline = time.monotonic() + 60
    while guest.freeze_status() != status:
        assert time.monotonic() < deadline, f"the guest was never seen {status}"
        time.sleep(0.005)
