"""The gate on a real guest: what is copied while it is open needs no recovery, and the guest's own stall meter says that it was held."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.disks import needs_recovery
from tests.lab.guests import LabGuest
from tests.lab.windows.guest import WindowsGuest, windows_options
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live


def open_gate(service: ServiceProcess, domain: str, deadline_ms: int, **body: Any) -> dict[str, Any]:
    """The domain may have been defined a moment ago: it is waited for."""
    deadline = time.monotonic() + 60
    while True:
        answer = service.request("POST", f"/api/v1/domains/{domain}/quiesce", json={"deadline_ms": deadline_ms, "wait_ms": 20_000, **body})
        if answer.status_code == 201:
            gate: dict[str, Any] = answer.json()
            return gate
        assert answer.status_code == 404, answer.text
        assert time.monotonic() < deadline
        time.sleep(0.1)


def release(service: ServiceProcess, gate: dict[str, Any]) -> dict[str, Any]:
    answer = service.request("POST", gate["job"]["links"]["release"], json={"token": gate["token"]})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_what_is_copied_while_the_gate_is_open_needs_no_recovery(service: ServiceProcess, shared_guest: LabGuest, tmp_path: Path) -> None:
    mark = shared_guest.mark()
    disk = shared_guest.active_sources()["vda"]

    gate = open_gate(service, shared_guest.name, 20_000)
    assert shared_guest.freeze_status() == "frozen"
    time.sleep(0.4)
    copy = Path(shutil.copy(disk, tmp_path / disk.name))
    answer = release(service, gate)

    job = answer["job"]
    assert (answer["held"], job["state"], job["verdict"]) == (True, "succeeded", "filesystem"), job["error"]
    assert shared_guest.freeze_status() == "thawed"
    assert not needs_recovery(copy)
    assert shared_guest.active_sources()["vda"] == disk
    assert job["recovery_point"] is None
    shared_guest.wait_serial("METER", 60, since=shared_guest.mark())
    longest = max(stall.ms for stall in shared_guest.stalls(mark))
    assert 400 <= job["timing"]["hold_ms"] <= longest <= job["timing"]["window_ms"] + 20


def test_the_same_copy_without_a_gate_needs_recovery(shared_guest: LabGuest, tmp_path: Path) -> None:
    """So the test above would notice a gate that is not one."""
    disk = shared_guest.active_sources()["vda"]
    assert needs_recovery(Path(shutil.copy(disk, tmp_path / disk.name)))


def test_a_gate_that_nobody_releases_is_thawed_at_its_deadline_and_says_so(service: ServiceProcess, shared_guest: LabGuest) -> None:
    mark = shared_guest.mark()
    gate = open_gate(service, shared_guest.name, 700)

    job = service.wait(gate["job"]["id"])

    assert shared_guest.freeze_status() == "thawed"
    assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "crash", "gate_deadline_passed")
    assert job["freeze"]["watchdog_fired"]
    assert release(service, gate)["held"] is False
    shared_guest.wait_serial("METER", 60, since=shared_guest.mark())
    assert 700 <= max(stall.ms for stall in shared_guest.stalls(mark)) < 4_500


def test_a_guest_that_somebody_else_has_frozen_is_refused_and_left_alone(service: ServiceProcess, lab_guest: LabGuest) -> None:
    release(service, open_gate(service, lab_guest.name, 5_000))
    lab_guest.agent({"execute": "guest-fsfreeze-freeze"})
    answer = service.request("POST", f"/api/v1/domains/{lab_guest.name}/quiesce", json={"deadline_ms": 5_000})
    assert (answer.status_code, answer.json()["code"]) == (409, "guest_already_frozen")
    assert lab_guest.freeze_status() == "frozen"
    lab_guest.thaw_for_sure()


def test_a_gate_whose_service_is_killed_is_thawed_at_once_and_was_not_held(service: ServiceProcess, lab_guest: LabGuest) -> None:
    """Service and worker are killed while it is open: the guard thaws, and the release afterwards is told that it did not hold."""
    mark = lab_guest.mark()
    gate = open_gate(service, lab_guest.name, 60_000)
    service.kill()
    deadline = time.monotonic() + 60
    while lab_guest.freeze_status() != "thawed":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    service.start()

    job = service.wait(gate["job"]["id"])
    answer = release(service, gate)

    assert (job["state"], job["verdict"], job["error"]["code"], job["attempt"]) == ("failed", "crash", "worker_lost", 1)
    assert (answer["held"], answer["job"]) == (False, job)
    assert max(stall.ms for stall in lab_guest.stalls(mark)) < 6_000


def test_an_emergency_thaw_closes_the_gate_at_once(service: ServiceProcess, lab_guest: LabGuest) -> None:
    gate = open_gate(service, lab_guest.name, 60_000)
    asked = service.request("POST", f"/api/v1/domains/{lab_guest.name}/thaw")
    thaw = service.wait(asked.json()["id"])
    job = service.wait(gate["job"]["id"])

    assert (thaw["state"], thaw["result"]["was_frozen"], thaw["result"]["thawed"]) == ("succeeded", True, 1)
    assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "crash", "gate_closed_early")
    assert release(service, gate)["held"] is False


def test_a_thaw_that_nobody_told_the_service_of_closes_the_gate(service: ServiceProcess, lab_guest: LabGuest) -> None:
    gate = open_gate(service, lab_guest.name, 60_000)
    lab_guest.agent({"execute": "guest-fsfreeze-thaw"})
    job = service.wait(gate["job"]["id"])
    assert (job["state"], job["error"]["code"]) == ("failed", "gate_closed_early")
    assert job["error"]["facts"]["trouble"] == "thawed_by_another"


def test_a_service_that_is_stopped_thaws_its_gate_by_itself_and_says_why(shared_guest: LabGuest, tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "state", libvirt_uri=shared_guest.connection.getURI(), shutdown_seconds="6") as service:
        gate = open_gate(service, shared_guest.name, 60_000)
        assert service.stop() == 0
        assert shared_guest.freeze_status() == "thawed"
        job = service.start().job(gate["job"]["id"])
    assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "crash", "gate_closed_early")
    assert job["error"]["facts"]["trouble"] == "worker_stops"
    assert job["freeze"]["guard"] is None


def test_a_gate_is_released_while_the_service_is_stopping(shared_guest: LabGuest, tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "state", libvirt_uri=shared_guest.connection.getURI(), shutdown_seconds="60") as service:
        gate = open_gate(service, shared_guest.name, 50_000)
        service.signal(signal.SIGTERM)
        released = release(service, gate)
        assert service.stop() == 0
        job = service.start().job(gate["job"]["id"])
    assert released["held"] is True
    assert (job["state"], job["verdict"], job["error"]) == ("succeeded", "filesystem", None)


@pytest.fixture
def windows(lab: None) -> Iterator[WindowsGuest]:
    guest = WindowsGuest("healthy-2022", guest=LabGuest(windows_options(name=f"lab-t-windows-gate-{os.getpid()}", disks=1)))
    try:
        yield guest.start()
    finally:
        guest.destroy()


@pytest.mark.windows
def test_the_gate_of_a_windows_guest_comes_to_application(service: ServiceProcess, windows: WindowsGuest) -> None:
    agent = windows.play("healthy-2022")

    gate = open_gate(service, windows.name, 6_000)
    assert agent.holds_writes()
    answer = release(service, gate)

    assert (answer["held"], answer["job"]["verdict"]) == (True, "application"), answer["job"]["error"]
    (session,) = agent.sessions
    assert session.ended_by == "thaw"
