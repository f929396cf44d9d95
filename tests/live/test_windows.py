"""The Windows job through real libvirt and the real service: only the agent in the guest is simulated."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.freeze.windows_evidence import EXEC_BLOCKED
from tests.lab.guests import LabGuest
from tests.lab.windows import scenario
from tests.lab.windows.guest import WindowsGuest, windows_options
from tests.lab.windows.scenario import Freeze
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.live, pytest.mark.windows, pytest.mark.usefixtures("another_guest_each_time")]


@pytest.fixture(scope="module")
def guest(lab: None) -> Iterator[WindowsGuest]:
    """One running guest with two disks. Each test begins with `play`; its disks grow a chain."""
    guest = WindowsGuest("healthy-2022", guest=LabGuest(windows_options(name=f"lab-t-windows-jobs-{os.getpid()}", disks=2)))
    try:
        yield guest.start()
    finally:
        guest.destroy()


def reasons(job: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in job["verdict_reasons"]]


def steps(job: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The ten steps by their number."""
    rows = job["vss"]["steps"]
    assert [row["step"] for row in rows] == list(range(1, 11))
    return {row["step"]: row for row in rows}


def writer(job: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [row for row in job["vss"]["writers"] if row["name"] == name]
    return dict(found)


def found_by(service: ServiceProcess, query: str) -> list[str]:
    """Ids of the jobs that a filter of the list finds."""
    return [job["id"] for job in service.request("GET", f"/api/v1/jobs?{query}").json()["items"]]


def moved(guest: WindowsGuest, job: dict[str, Any]) -> bool:
    """Whether every disk of the point is on its overlay, and no other disk is anywhere else."""
    return guest.guest.active_sources() == {disk["target"]: Path(disk["overlay"]) for disk in job["recovery_point"]["disks"]}


def test_a_healthy_windows_comes_to_application_within_the_limits_of_windows(service: ServiceProcess, guest: WindowsGuest) -> None:
    agent = guest.play("healthy-2022")

    job = service.run(guest.name)

    assert (job["state"], job["verdict"]) == ("succeeded", "application"), job["error"]
    assert set(reasons(job)) == {"held", "vss_completed", "sql_server_events", "writers_healthy"}
    assert job["timing"]["limits"] == {"freeze_ms": 120_000, "hold_ms": 8_000, "freeze_to_thaw_ms": 60_000}
    assert moved(guest, job)
    (session,) = agent.sessions
    assert session.ended_by == "thaw"


def test_a_job_shows_the_ten_steps_the_writers_and_what_whoever_restores_must_expect(service: ServiceProcess, guest: WindowsGuest) -> None:
    guest.play("healthy-2022")

    job = service.run(guest.name)

    rows = steps(job)
    seen = {number: row["observation"] for number, row in rows.items()}
    assert [number for number, what in seen.items() if what == "observed"] == [1, 5, 6]
    assert [number for number, what in seen.items() if what == "did_not_happen"] == [9, 10]
    assert {number for number, row in rows.items() if row["duration_ms"] is not None} == {6}
    assert rows[6]["duration_ms"] == job["timing"]["hold_ms"] < job["timing"]["limits"]["hold_ms"]
    assert rows[1]["started_at"] < rows[6]["started_at"] < rows[7]["started_at"]
    assert (job["vss"]["outcome"], job["vss"]["backup_type"], job["vss"]["context"]) == ("completed", "copy", "0x0200002B")
    assert {row["change"] for row in job["vss"]["writers"]} == {"unchanged"}
    assert writer(job, "SqlServerWriter")["after"]["state"] == 1
    assert job["auto_recovery"]["mode"] == "disabled_by_requester"


def test_both_disks_are_one_point_and_never_a_list_of_volumes_is_frozen(service: ServiceProcess, guest: WindowsGuest) -> None:
    agent = guest.play("healthy-2022")

    both = service.run(guest.name)
    one = service.run(guest.name, disks=["vdb"])

    assert [disk["target"] for disk in both["recovery_point"]["disks"]] == ["vda", "vdb"]
    assert [disk["target"] for disk in one["recovery_point"]["disks"]] == ["vdb"]
    assert both["freeze"]["filesystems_frozen"] == one["freeze"]["filesystems_frozen"] == len(agent.volumes)
    assert "guest-fsfreeze-freeze-list" not in agent.commands


def test_a_failed_writer_is_named_although_freeze_and_thaw_were_good(service: ServiceProcess, guest: WindowsGuest) -> None:
    guest.play("sql-writer-failed")

    job = service.run(guest.name)

    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem"), job["error"]
    (failed,) = [reason for reason in job["verdict_reasons"] if reason["code"] == "writer_newly_failed"]
    assert "SqlServerWriter" in failed["detail"]
    sql = writer(job, "SqlServerWriter")
    assert (sql["before"]["failed"], sql["after"]["failed"], sql["after"]["error"], sql["newly_failed"]) == (False, True, "timed_out", True)
    assert [row["name"] for row in job["vss"]["writers"] if row["newly_failed"]] == ["SqlServerWriter"]
    assert (job["vss"]["outcome"], job["writer_failed"]) == ("completed", True)
    assert job["id"] in found_by(service, "writer_failed=true")


def test_a_german_writer_is_understood_by_its_numbers(service: ServiceProcess, guest: WindowsGuest) -> None:
    guest.play("german-retryable")

    job = service.run(guest.name)

    assert (job["verdict"], "writer_newly_failed" in reasons(job)) == ("filesystem", True)


def test_a_lost_hold_is_a_crash_point_a_failed_job_and_a_thawed_guest(service: ServiceProcess, guest: WindowsGuest) -> None:
    guest.play("hold-lost")

    job = service.run(guest.name)

    assert (job["state"], job["verdict"], reasons(job)) == ("failed", "crash", ["vss_hold_writes_timeout"])
    assert job["error"]["code"] == "verdict_below_required"
    assert (steps(job)[6]["duration_ms"], steps(job)[9]["observation"], job["vss"]["outcome"]) == (None, "observed", "hold_writes_timeout")
    assert job["id"] in found_by(service, "vss_outcome=hold_writes_timeout")
    assert guest.guest.freeze_status() == "thawed"
    assert moved(guest, job)


def test_without_guest_exec_the_applications_are_unverified(service: ServiceProcess, guest: WindowsGuest) -> None:
    guest.play("exec-blocked")

    job = service.run(guest.name)

    assert (job["state"], job["verdict"]) == ("succeeded", "application_unverified"), job["error"]
    assert "writers_unavailable" in reasons(job)
    assert job["vss"]["writers_unavailable_reason"] == EXEC_BLOCKED
    assert job["vss"]["backup_type"] == "unknown"


@pytest.mark.parametrize("name", ["vss-dead-old", "vss-dead-new"])
def test_a_guest_whose_vss_is_dead_is_not_frozen_and_told_what_to_do_in_windows(
    service: ServiceProcess, guest: WindowsGuest, name: str
) -> None:
    agent = guest.play(name)
    before = guest.guest.active_sources()

    job = service.run(guest.name)

    assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "none", "vss_not_usable")
    assert "QEMU Guest Agent VSS Provider" in job["error"]["remedy"]
    assert "guest-fsfreeze-freeze" not in agent.commands
    assert guest.guest.active_sources() == before


def test_another_backup_in_the_guest_fails_this_job_and_not_the_next(service: ServiceProcess, guest: WindowsGuest) -> None:
    guest.play("other-requester")
    before = guest.guest.active_sources()

    refused = service.run(guest.name)
    unmoved = guest.guest.active_sources()
    job = service.run(guest.name)

    assert (refused["error"]["code"], refused["error"]["facts"]["transient"]) == ("vss_freeze_failed", True)
    assert [steps(refused)[number]["observation"] for number in (6, 7, 8)] == ["did_not_happen"] * 3
    assert unmoved == before
    assert (job["state"], job["verdict"]) == ("succeeded", "application"), job["error"]


def test_an_agent_that_restarts_in_the_hold_is_noticed_by_the_count_of_the_thaw(service: ServiceProcess, guest: WindowsGuest) -> None:
    restarting = scenario.load("agent-restart")
    assert restarting.restart is not None
    at_once = restarting.restart.model_copy(update={"after_freeze_s": 0.0, "away_s": 0.0})
    agent = guest.play(restarting.model_copy(update={"restart": at_once}))

    job = service.run(guest.name)

    assert (job["state"], job["verdict"], reasons(job)) == ("failed", "crash", ["vss_lost"])
    assert [session.ended_by for session in agent.sessions] == ["restart"]
    assert guest.guest.freeze_status() == "thawed"


def test_a_freeze_that_comes_after_the_host_gave_up_is_thawed_before_the_job_ends(service: ServiceProcess, guest: WindowsGuest) -> None:
    agent = guest.play(scenario.load("orphan-freeze").model_copy(update={"freeze": (Freeze(delay_s=5.0),)}))
    before = guest.guest.active_sources()

    job = service.run(guest.name, freeze={"timeout_ms": 2000})

    assert (job["state"], job["verdict"], job["freeze"]["outcome"]) == ("failed", "none", "unanswered")
    assert [session.ended_by for session in agent.sessions] == ["thaw"]
    assert not agent.holds_writes()
    assert guest.guest.freeze_status() == "thawed"
    assert guest.guest.active_sources() == before
