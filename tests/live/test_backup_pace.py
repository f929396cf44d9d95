"""A copy that goes slower than it could: by its own limit, or since the guest's disk suffers. It can be cancelled all the time."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.lab.disks import chain
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.live.folders import folder_for_qemu
from tests.live.repositories import eventually, register, wait_for_phase
from tests.live.test_backup import write
from tests.live.test_main_job import overlays_beside
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

DATA_MB = 24
SLOW_BYTES_S = 4 << 20
SLOWEST_BYTES_S = 256 << 10
"""So slow that the copy would last for minutes."""
STEADY_BYTES_S = 1 << 20
STILL_S = 6.0
LIMIT_MS = 200
HELD_BACK_BYTES_S = 64 << 10
"""Of the guest's disk. Its program wants to write more, so each write waits for far longer than the limit."""
WRITER = {"interval_us": 5_000, "sync_every": 16}


@pytest.fixture(scope="module")
def guest(lab: None) -> Iterator[LabGuest]:
    """One for all tests here."""
    guest = LabGuest(GuestOptions(name=f"lab-t-pace-{os.getpid()}", meter=WRITER))
    try:
        guest.start_and_wait()
        write(guest, "bulk", DATA_MB)
        yield guest
    finally:
        guest.destroy()


@pytest.fixture(scope="module")
def repository(service: ServiceProcess) -> Iterator[tuple[str, Path]]:
    with folder_for_qemu("repository") as folder:
        yield register(service, folder / "nas"), folder / "nas"


def cancel(service: ServiceProcess, job_id: str) -> None:
    assert service.request("POST", f"/api/v1/jobs/{job_id}/cancel").status_code in (200, 202)


def begin(service: ServiceProcess, guest: LabGuest, repository_id: str, **more: Any) -> str:
    """A full copy, of which something is on record already."""
    job_id = service.create(guest.name, "backup", repository=repository_id, level="full", compare="nothing", **more)
    wait_for_phase(service, job_id)
    eventually(lambda: (service.job(job_id)["progress"] or {}).get("done_bytes"), lambda: service.job(job_id))
    return job_id


def progress_with_time_left(service: ServiceProcess, job_id: str) -> dict[str, Any]:
    """A rate can be told only when something was copied for a while."""
    seen: list[dict[str, Any]] = []

    def look() -> bool:
        seen.append(service.job(job_id)["progress"] or {})
        return seen[-1].get("seconds_left") is not None

    eventually(look, lambda: service.job(job_id))
    return seen[-1]


def is_as_before(guest: LabGuest) -> bool:
    disk = guest.disks["vda"]
    return guest.active_sources() == guest.disks and overlays_beside(guest) == set() and chain(disk) == [disk]


def test_a_copy_keeps_to_its_rate_and_says_how_long_it_takes(
    service: ServiceProcess, guest: LabGuest, repository: tuple[str, Path]
) -> None:
    job_id = begin(service, guest, repository[0], rate_limit_bytes=SLOW_BYTES_S)
    progress = progress_with_time_left(service, job_id)
    job = service.wait(job_id)

    assert (job["state"], job["error"]) == ("succeeded", None)
    assert (progress["phase"], progress["disk"]) == ("transfer", "vda")
    assert 0 < progress["done_bytes"] < progress["total_bytes"]
    assert progress["seconds_left"] > 0
    (seconds,) = [phase["duration_ms"] / 1000 for phase in job["phases"] if phase["name"] == "transfer"]
    # Not all of it is held back: what is in hand when the copy begins may be written at once.
    assert seconds > 0.7 * DATA_MB * (1 << 20) / SLOW_BYTES_S
    assert is_as_before(guest)


def test_a_slow_copy_that_is_cancelled_leaves_nothing(service: ServiceProcess, guest: LabGuest, repository: tuple[str, Path]) -> None:
    before = {checkpoint.getName() for checkpoint in guest.domain.listAllCheckpoints()}
    job_id = begin(service, guest, repository[0], rate_limit_bytes=SLOWEST_BYTES_S)
    write(guest, "during")

    cancel(service, job_id)
    job = service.wait(job_id, timeout=20)

    assert (job["state"], job["recovery_point"], job["verdict"]) == ("cancelled", None, "none")
    assert is_as_before(guest)
    assert guest.exec("/bin/ls", "/data").split().count("during") == 1
    assert list(repository[1].rglob(".partial-*")) == []
    assert {checkpoint.getName() for checkpoint in guest.domain.listAllCheckpoints()} == before


def hold_back(guest: LabGuest, bytes_s: int) -> None:
    """0: no more."""
    guest.domain.setBlockIoTune("vda", {"total_bytes_sec": bytes_s}, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def test_a_copy_yields_while_the_guests_disk_suffers_and_goes_on_when_it_does_not(
    service: ServiceProcess, guest: LabGuest, repository: tuple[str, Path]
) -> None:
    job_id = begin(service, guest, repository[0], rate_limit_bytes=STEADY_BYTES_S, impact_limit_ms=LIMIT_MS)
    hold_back(guest, HELD_BACK_BYTES_S)
    try:
        done = wait_until_nothing_is_copied(service, job_id)
    finally:
        hold_back(guest, 0)
    eventually(lambda: done_bytes(service, job_id) > done, lambda: service.job(job_id))
    cancel(service, job_id)
    job = service.wait(job_id, timeout=20)

    impact = job["result"]["backup"]["impact"]
    assert (job["state"], impact["limit_ms"], impact["paused_by_error"]) == ("cancelled", LIMIT_MS, False)
    assert impact["slowed_s"] > 0
    assert impact["halted_s"] > 0
    assert impact["stages"]["copy"]["vda"]["worst_write_ms"] > LIMIT_MS
    assert is_as_before(guest)


def done_bytes(service: ServiceProcess, job_id: str) -> int:
    return int((service.job(job_id)["progress"] or {}).get("done_bytes") or 0)


def wait_until_nothing_is_copied(service: ServiceProcess, job_id: str) -> int:
    """The bytes that were copied until then. A copy at its limit would say each second that it has come further."""
    done, since = done_bytes(service, job_id), time.monotonic()
    until = since + 60
    while time.monotonic() - since < STILL_S:
        assert time.monotonic() < until, service.job(job_id)
        time.sleep(0.1)
        if (now := done_bytes(service, job_id)) != done:
            done, since = now, time.monotonic()
    return done
