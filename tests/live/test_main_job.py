"""The main job on a real guest, asked for over HTTP, with the guest's own stall meter as the judge of the timing."""

from pathlib import Path
from typing import Any

import pytest

from service.model.scope import NOT_NAMED
from tests.lab.disks import chain, needs_recovery
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions, Odd
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live


def reasons(job: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in job["verdict_reasons"]]


def files(job: dict[str, Any]) -> list[Path]:
    return [Path(disk["file"]) for disk in job["recovery_point"]["disks"]]


def overlays_beside(guest: LabGuest) -> set[Path]:
    """Every file next to the guest's disks that is not one of them."""
    folder = next(iter(guest.disks.values())).parent
    return set(folder.glob("*.qcow2")) - set(guest.disks.values())


def test_a_running_guest_is_frozen_taken_and_thawed_with_evidence(service: ServiceProcess, lab_guest: LabGuest) -> None:
    before = lab_guest.active_sources()
    mark = lab_guest.mark()

    job = service.run(lab_guest.name, labels={"why": "test"})

    assert job["state"] == "succeeded", job["error"]
    assert job["verdict"] == "filesystem"
    assert reasons(job) == ["held", "no_hook"]
    assert [phase["name"] for phase in job["phases"]] == ["preflight", "prepare", "freeze", "point_in_time", "thaw", "evaluate"]
    assert {phase["outcome"] for phase in job["phases"]} == {"ok"}
    assert lab_guest.freeze_status() == "thawed"
    assert files(job) == list(before.values())
    assert not any(needs_recovery(file) for file in files(job))
    assert lab_guest.active_sources() == {disk["target"]: Path(disk["overlay"]) for disk in job["recovery_point"]["disks"]}
    lab_guest.wait_serial("METER", 5, since=lab_guest.mark())
    longest = max(stall.ms for stall in lab_guest.stalls(mark))
    assert job["timing"]["hold_ms"] <= longest <= job["timing"]["window_ms"] + 20


def test_all_disks_of_a_job_share_one_point_in_time(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(disks=3)).start_and_wait()

    job = service.run(guest.name)

    assert job["verdict"] == "filesystem"
    assert job["freeze"]["filesystems_frozen"] == 3
    assert [disk["target"] for disk in job["recovery_point"]["disks"]] == ["vda", "vdb", "vdc"]
    assert [phase["name"] for phase in job["phases"]].count("point_in_time") == 1
    assert not any(needs_recovery(file) for file in files(job))


def test_only_the_filesystems_on_the_disks_of_the_job_are_frozen(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(disks=2)).start_and_wait()

    job, held = job_and_what_it_held(service, guest, disks=["vdb"])
    # A busy host can hold the other writes as long as a short freeze, but not at each freeze.
    further = [job_and_what_it_held(service, guest, disks=["vdb"])[1] for _ in range(3) if held != {"/data-vdb"}]

    assert job["verdict"] == "filesystem"
    assert job["freeze"]["mountpoints"] == ["/data-vdb"]
    assert job["freeze"]["filesystems_frozen"] == 1
    assert guest.active_sources()["vda"] == guest.disks["vda"]
    assert job["evidence"]["left_out"] == {"vda": NOT_NAMED}
    assert {"/data-vdb"} in [held, *further]


def job_and_what_it_held(service: ServiceProcess, guest: LabGuest, *, disks: list[str]) -> tuple[dict[str, Any], set[str]]:
    """A freeze holds the writes. An fdatasync may be late because the host is busy."""
    mark = guest.mark()
    job = service.run(guest.name, disks=disks)
    guest.wait_serial("METER", 5, since=guest.mark())
    held = [stall for stall in guest.stalls(mark) if stall.call == "write" and stall.ms >= job["timing"]["hold_ms"]]
    return job, {stall.mount for stall in held}


def test_disks_that_cannot_take_part_are_named_with_the_reason(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(odd_disks=(Odd.CDROM, Odd.READONLY))).start_and_wait()
    odd = sorted(set(guest.active_sources()) - {"vda"})

    job = service.run(guest.name)
    refused = service.run(guest.name, disks=odd)

    assert job["state"] == "succeeded", job["error"]
    assert sorted(job["evidence"]["left_out"]) == odd
    assert refused["error"]["code"] == "disks_cannot_take_part"
    assert sorted(refused["error"]["facts"]["reasons"]) == odd
    assert refused["freeze"] is None


def test_a_point_without_freeze_is_only_crash_consistent_and_its_filesystem_needs_recovery(
    service: ServiceProcess, lab_guest: LabGuest
) -> None:
    mark = lab_guest.mark()

    job = service.run(lab_guest.name, freeze={"mode": "off"})

    assert (job["state"], job["verdict"], reasons(job)) == ("succeeded", "crash", ["freeze_off"])
    assert all(needs_recovery(file) for file in files(job))
    assert "HOOK" not in lab_guest.serial_text()[mark:]


def test_a_guest_that_was_shut_down_gives_an_offline_point_that_satisfies_everything(service: ServiceProcess, lab_guest: LabGuest) -> None:
    lab_guest.shutdown()

    job = service.run(lab_guest.name, required_verdict="application")

    assert (job["state"], job["verdict"], reasons(job)) == ("succeeded", "offline", ["shut_down_cleanly"])
    assert not any(needs_recovery(file) for file in files(job))
    lab_guest.start_and_wait()
    assert lab_guest.active_sources() == {disk["target"]: Path(disk["overlay"]) for disk in job["recovery_point"]["disks"]}


def test_a_domain_that_was_destroyed_is_offline_but_not_taken_for_clean(service: ServiceProcess, lab_guest: LabGuest) -> None:
    lab_guest.power_off()

    job = service.run(lab_guest.name)
    strict = service.run(lab_guest.name, required_verdict="filesystem")

    assert (job["state"], job["verdict"], reasons(job)) == ("succeeded", "offline", ["shut_off_by_force"])
    assert (strict["state"], strict["error"]["code"]) == ("failed", "verdict_below_required")


def test_a_paused_domain_is_refused_with_the_remedy_unless_freeze_is_off(service: ServiceProcess, lab_guest: LabGuest) -> None:
    lab_guest.domain.suspend()

    refused = service.run(lab_guest.name)
    off = service.run(lab_guest.name, freeze={"mode": "off"})
    lab_guest.domain.resume()

    assert refused["error"]["code"] == "domain_paused"
    assert f"`virsh resume {lab_guest.name}`" in refused["error"]["remedy"]
    assert (off["state"], off["verdict"]) == ("succeeded", "crash")


def test_points_can_be_taken_one_after_another_and_each_stays_readable(service: ServiceProcess, lab_guest: LabGuest) -> None:
    jobs = [service.run(lab_guest.name) for _ in range(3)]

    assert [job["verdict"] for job in jobs] == ["filesystem"] * 3
    top = lab_guest.active_sources()["vda"]
    assert chain(top)[1:] == [files(job)[0] for job in reversed(jobs)]
    assert not any(needs_recovery(files(job)[0]) for job in jobs)
    assert overlays_beside(lab_guest) == {Path(job["recovery_point"]["disks"][0]["overlay"]) for job in jobs}


def test_the_same_idempotency_key_freezes_the_guest_once(service: ServiceProcess, lab_guest: LabGuest) -> None:
    first = service.wait(service.create(lab_guest.name))
    body = {"kind": "snapshot", "domain": lab_guest.name}
    answers = [service.request("POST", "/api/v1/jobs", json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)]

    service.wait(answers[0].json()["id"])
    assert answers[0].json()["id"] == answers[1].json()["id"] != first["id"]
    assert len(overlays_beside(lab_guest)) == 2
