"""A second client of libvirt has frozen the guest: it is named, refused, shown and counted, and never thawed behind its back."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from service.model.explain import REMEDIES
from tests.lab.guests import LabGuest
from tests.lab.places import LabError
from tests.libvirt_relay import LibvirtRelay
from tests.live.test_main_job import overlays_beside
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

SOON_S = 20.0
"""Sooner than the next publication of all domains, which comes after 30 s and shows everything anyway."""


def shown(service: ServiceProcess, guest: LabGuest) -> dict[str, Any]:
    answer = service.request("GET", f"/api/v1/domains/{guest.name}")
    return answer.json() if answer.status_code == 200 else {}


def wait_shown(service: ServiceProcess, guest: LabGuest, *, frozen: bool, within_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while (found := shown(service, guest)).get("frozen") is not frozen:
        assert time.monotonic() < deadline, f"not shown as frozen={frozen} within {within_s} s: {found}"
        time.sleep(0.1)
    return found


def wait_until_frozen_for(service: ServiceProcess, guest: LabGuest, seconds: float) -> float:
    """By the metric of an API: what it says at the end."""
    deadline = time.monotonic() + 60
    while (told := gauge(service, "stillpoint_guest_frozen_seconds", guest.name) or 0.0) < seconds:
        assert time.monotonic() < deadline, f"not told as frozen for {seconds} s within a minute"
        time.sleep(0.1)
    return told


def gauge(service: ServiceProcess, name: str, domain: str) -> float | None:
    for line in service.request("GET", "/metrics").text.splitlines():
        if line.startswith(f'{name}{{domain="{domain}"'):
            return float(line.rpartition(" ")[2])
    return None


def test_it_is_published_refused_and_left_frozen_and_taken_again_soon_after_its_owner_thawed_it(
    service: ServiceProcess, lab_guest: LabGuest
) -> None:
    wait_shown(service, lab_guest, frozen=False, within_s=60)
    lab_guest.domain.fsFreeze()
    # Any job makes its host look at once; this one says what it found, too.
    preflight = service.run(lab_guest.name, kind="preflight")
    found = wait_shown(service, lab_guest, frozen=True, within_s=SOON_S)
    refused = service.request("POST", "/api/v1/jobs", json={"kind": "snapshot", "domain": lab_guest.name})
    seconds = gauge(service, "stillpoint_guest_frozen_seconds", lab_guest.name)
    status = lab_guest.freeze_status()
    lab_guest.domain.fsThaw()
    wait_shown(service, lab_guest, frozen=False, within_s=SOON_S)
    job = service.run(lab_guest.name)

    another = {"kind": "not_stillpoint", "job_id": None}
    facts = {"domain": lab_guest.name, "frozen_by": another, "frozen_since": found["frozen_since"]}
    assert [check["code"] for check in preflight["result"]["checks"] if check["status"] == "fail"] == ["guest_already_frozen"]
    assert (found["frozen_by"], refused.status_code, refused.json()["facts"]) == (another, 409, facts)
    assert seconds is not None
    assert gauge(service, "stillpoint_guest_frozen_deadline_seconds", lab_guest.name) is None
    assert status == "frozen"
    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem")
    assert len(overlays_beside(lab_guest)) == 1


def test_after_our_own_thaw_a_job_is_taken_at_once(service: ServiceProcess, lab_guest: LabGuest) -> None:
    wait_shown(service, lab_guest, frozen=False, within_s=60)
    lab_guest.domain.fsFreeze()
    service.run(lab_guest.name, kind="preflight")
    wait_shown(service, lab_guest, frozen=True, within_s=SOON_S)
    thaw = service.request("POST", f"/api/v1/domains/{lab_guest.name}/thaw").json()

    assert service.wait(thaw["id"])["state"] == "succeeded"
    assert service.run(lab_guest.name)["state"] == "succeeded"


def fsfreeze(guest: LabGuest, how: str) -> bool:
    """As an administrator does in the guest; False: the kernel refused."""
    try:
        guest.exec("/bin/busybox", "fsfreeze", how, "/data")
    except LabError:
        return False
    return True


def test_a_filesystem_that_was_frozen_from_inside_the_guest_stays_frozen(service: ServiceProcess, lab_guest: LabGuest) -> None:
    assert fsfreeze(lab_guest, "--freeze")
    try:
        job = service.run(lab_guest.name)
        is_frozen_still = not fsfreeze(lab_guest, "--freeze")
        explained = service.request("GET", f"/api/v1/jobs/{job['id']}/explain").json()
    finally:
        was_thawed_by_us = fsfreeze(lab_guest, "--unfreeze")
    after = service.run(lab_guest.name)

    assert (job["state"], job["error"]["code"], job["freeze"]["outcome"]) == ("failed", "nothing_frozen", "empty")
    assert job["freeze"]["thaw_outcome"] == "not_needed"
    assert is_frozen_still
    assert was_thawed_by_us
    assert REMEDIES["nothing_frozen"] not in explained["would_lift"]
    assert overlays_beside(lab_guest) == {Path(disk["overlay"]) for disk in after["recovery_point"]["disks"]}
    assert (after["state"], after["verdict"]) == ("succeeded", "filesystem")


def test_a_worker_that_stands_still_in_its_window_is_told_by_the_api(
    relay: LibvirtRelay, lab_guest: LabGuest, new_sqlite_url: str, tmp_path: Path
) -> None:
    """From what was committed before the freeze: a guest that is over its deadline pages although nobody reports it."""
    api = ServiceProcess(tmp_path / "api", libvirt_uri="unreachable:///", command="serve", database_url=new_sqlite_url)
    worker = ServiceProcess(tmp_path / "worker", libvirt_uri=relay.uri, command="worker", database_url=new_sqlite_url)
    with api, worker:
        api.run(lab_guest.name, kind="preflight")
        relay.snapshots_pass.clear()
        asked = time.monotonic()
        job_id = api.create(lab_guest.name, freeze={"timeout_ms": 2_000, "hold_limit_ms": 4_000, "preflush": False})
        relay.wait_for_snapshot()
        worker.signal(signal.SIGSTOP)
        deadline_s = gauge(api, "stillpoint_guest_frozen_deadline_seconds", lab_guest.name)
        found = shown(api, lab_guest)
        seconds = wait_until_frozen_for(api, lab_guest, 3.0)
        assert seconds < time.monotonic() - asked
        relay.snapshots_pass.set()
        worker.signal(signal.SIGCONT)
        api.wait(job_id)

        assert (found["frozen"], found["frozen_by"], deadline_s) == (True, {"kind": "job", "job_id": job_id}, 6.0)
        assert gauge(api, "stillpoint_guest_frozen_seconds", lab_guest.name) is None
    assert lab_guest.freeze_status() == "thawed"
