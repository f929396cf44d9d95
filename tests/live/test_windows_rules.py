"""The rules of F§6.4 and F§6.5 and the traps of F§7 that cross libvirt: through real libvirt, against the simulated Windows agent."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import AgentCommandBlocked
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from tests.lab.daemon import uri
from tests.lab.guests import LabGuest
from tests.lab.windows import scenario
from tests.lab.windows.guest import WindowsGuest, windows_options
from tests.lab.windows.scenario import Thaw
from tests.live.windows_job import snapshot_in_time
from tests.service_process import ServiceProcess

pytestmark = [pytest.mark.live, pytest.mark.windows, pytest.mark.usefixtures("another_guest_each_time")]

FREEZE, THAW = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"


@pytest.fixture(scope="module")
def guest(lab: None) -> Iterator[WindowsGuest]:
    """One running guest with two disks. Each test begins with `play`; its disks grow a chain."""
    guest = WindowsGuest("healthy-2022", guest=LabGuest(windows_options(name=f"lab-t-windows-rules-{os.getpid()}", disks=2)))
    try:
        yield guest.start()
    finally:
        guest.destroy()


@pytest.fixture
def hypervisor_guest(guest: WindowsGuest) -> Iterator[Guest]:
    """The same guest as the service sees it."""
    connection = HostConnection(uri())
    yield connection.guest(guest.name)
    connection.close()


def checks(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["code"]: check for check in result["checks"] if check["status"] != "pass"}


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "outcome", "verdict"),
    [
        ("server-2008r2", "completed", "application_unverified"),
        ("thawed-by-another", "lost", "crash"),
        ("hold-lost-hex", "hold_writes_timeout", "crash"),
        ("thaw-provider-error", "provider_error", "crash"),
        ("thaw-snapshot-set-failed", "failed", "crash"),
        ("thaw-complete-failed", "complete_failed", "filesystem"),
    ],
)
def test_rule_of_the_thaw_reply(service: ServiceProcess, guest: WindowsGuest, name: str, outcome: str, verdict: str) -> None:
    """F§6.4. Whatever the agent answered, the disks have moved, the point is recorded, and the guest is thawed (traps 2, 3 and 9)."""
    agent, job = snapshot_in_time(service, guest, name)

    assert (job["vss"]["outcome"], job["verdict"]) == (outcome, verdict)
    overlays = {disk["target"]: Path(disk["overlay"]) for disk in job["recovery_point"]["disks"]}
    assert guest.guest.active_sources() == overlays
    assert agent.commands.count(THAW) == 1
    assert guest.guest.freeze_status() == "thawed"


def test_a_thaw_reply_later_than_the_deadline_of_the_guard_costs_nothing(service: ServiceProcess, guest: WindowsGuest) -> None:
    """Windows may take a minute to answer. The guard's thaw waits behind the worker's, and has nothing left to do."""
    slow = scenario.load("thaw-slow").model_copy(update={"thaw": (Thaw(delay_s=6.0),)})

    agent, job = snapshot_in_time(service, guest, slow, freeze={"hold_limit_ms": 3_000})

    assert (job["freeze"]["guard"]["reason"], job["freeze"]["guard"]["outcome"]) == ("deadline", "lost")
    assert (job["vss"]["outcome"], job["verdict"]) == ("completed", "application")
    assert [session.ended_by for session in agent.sessions] == ["thaw"]


@pytest.mark.parametrize("name", ["count-zero", "count-negative", "count-uninitialised"])
def test_rule_a_count_that_is_none_takes_no_point_and_is_thawed(service: ServiceProcess, guest: WindowsGuest, name: str) -> None:
    agent = guest.play(name)
    before = guest.guest.active_sources()

    job = service.run(guest.name)

    assert (job["verdict"], job["error"]["code"]) == ("none", "freeze_failed")
    assert THAW in agent.commands
    assert guest.guest.active_sources() == before


@pytest.mark.parametrize("name", ["freeze-exited", "freeze-exited-hex", "volume-refused", "writer-infrastructure"])
def test_rule_a_freeze_that_vss_refuses_takes_no_point(service: ServiceProcess, guest: WindowsGuest, name: str) -> None:
    guest.play(name)
    before = guest.guest.active_sources()

    job = service.run(guest.name)

    assert (job["verdict"], job["error"]["code"], job["vss"]["outcome"]) == ("none", "vss_freeze_failed", "not_frozen")
    assert guest.guest.active_sources() == before


@pytest.mark.parametrize("name", ["cut-off-output", "vssadmin-garbage-after", "vssadmin-error"])
def test_rule_writers_that_cannot_be_read_leave_the_applications_unverified(
    service: ServiceProcess, guest: WindowsGuest, name: str
) -> None:
    _, job = snapshot_in_time(service, guest, name)
    assert (job["verdict"], job["writer_failed"]) == ("application_unverified", None)


@pytest.mark.parametrize("name", ["french-timed-out", "japanese-timed-out", "stable-with-error"])
def test_rule_a_newly_failed_writer_leaves_the_filesystem(service: ServiceProcess, guest: WindowsGuest, name: str) -> None:
    """In any code page (trap 15): its bytes come through the agent and libvirt as they are."""
    _, job = snapshot_in_time(service, guest, name)
    assert (job["verdict"], job["writer_failed"]) == ("filesystem", True)


def test_rule_a_volume_outside_the_set_leaves_the_filesystem(service: ServiceProcess, guest: WindowsGuest) -> None:
    _, job = snapshot_in_time(service, guest, "volumes-not-frozen")
    assert job["verdict"] == "filesystem"


# --- traps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exec-blocked", "exec-blocked-new"])
def test_trap_4_a_refusal_is_known_though_libvirt_drops_its_class(guest: WindowsGuest, hypervisor_guest: Guest, name: str) -> None:
    guest.play(name)
    with pytest.raises(AgentCommandBlocked):
        hypervisor_guest.execute("vssadmin.exe", ["list", "writers"], budget_ms=5_000)


def test_trap_12_a_paused_guest_is_refused_before_the_freeze(service: ServiceProcess, guest: WindowsGuest) -> None:
    agent = guest.play("healthy-2022")
    guest.domain.suspend()
    try:
        job = service.run(guest.name)
    finally:
        guest.domain.resume()

    assert job["error"]["code"] == "domain_paused"
    assert FREEZE not in agent.commands


def test_trap_14_a_list_whose_reply_was_lost_is_not_asked_for_again(service: ServiceProcess, guest: WindowsGuest) -> None:
    _, job = snapshot_in_time(service, guest, "exec-reply-lost")

    assert job["verdict"] == "application", job["error"]
    (note,) = [reason for reason in job["verdict_reasons"] if reason["code"] == "writers_not_comparable"]
    assert "guest-exec-status" in note["detail"]


# --- preflight and drift --------------------------------------------------------------------------


def test_a_preflight_names_the_disks_under_the_volumes_by_serial_or_pci_address(service: ServiceProcess, guest: WindowsGuest) -> None:
    for name in ("disks-without-serials", "healthy-2022"):
        agent = guest.play(name)

        result = service.run(guest.name, kind="preflight")["result"]

        assert (result["would_work"], result["expected_verdict"]) == (True, "application"), result["checks"]
        under = {volume["mountpoint"]: volume["disks"] for volume in result["windows"]["volumes"]}
        assert under == {"System Reserved": ["vda"], "C:\\": ["vda"], "D:\\": ["vdb"]}, name
        assert FREEZE not in agent.commands


def test_an_update_that_resets_copy_to_full_is_warned_of(service: ServiceProcess, guest: WindowsGuest) -> None:
    guest.play("healthy-2022")
    service.run(guest.name)
    guest.play("full-backup-with-sql")

    warned = checks(service.run(guest.name, kind="preflight")["result"])

    assert {"vss_option_reset", "backup_type_full_with_sql_server"} <= set(warned)
    assert "/d 5" in warned["vss_option_reset"]["remedy"]
