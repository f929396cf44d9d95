"""Preflight on real guests: what stands in the way is said before anything is frozen."""

from typing import Any

import libvirt
import pytest

from tests.lab.daemon import uri
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.live.test_main_job import overlays_beside
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live


def checks(job: dict[str, Any]) -> dict[str, str]:
    """Code to the worst status of it."""
    order = {"pass": 0, "warn": 1, "fail": 2}
    worst: dict[str, str] = {}
    for check in job["result"]["checks"]:
        worst[check["code"]] = max(worst.get(check["code"], "pass"), check["status"], key=order.__getitem__)
    return worst


def test_a_sound_guest_passes_and_nothing_is_frozen_or_made(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(hook="ok")).start_and_wait()
    mark = guest.mark()

    job = service.run(guest.name, kind="preflight")

    assert job["state"] == "succeeded"
    assert (job["result"]["would_work"], job["result"]["expected_verdict"]) == (True, "filesystem")
    assert checks(job)["freeze"] == "pass"
    assert checks(job)["guest_booted_recently"] == "warn"
    assert all(check["remedy"] for check in job["result"]["checks"] if check["status"] != "pass")
    assert guest.active_sources() == guest.disks
    assert overlays_beside(guest) == set()
    assert guest.freeze_status() == "thawed"
    assert job["verdict"] is None
    # The agent calls its hook with each freeze and each thaw; a stall alone may be a host that is busy.
    assert "HOOK" not in guest.console.text(mark)


def test_what_preflight_expects_is_what_the_snapshot_gets(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(hook="swallow")).start_and_wait()

    expected = service.run(guest.name, kind="preflight")
    job = service.run(guest.name)

    assert expected["result"]["expected_verdict"] == job["verdict"]
    assert checks(expected)["fsfreeze_hook"] == "warn"


def test_loop_mounts_in_the_guest_are_warned_of(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(loop_mount=True)).start_and_wait()

    job = service.run(guest.name, kind="preflight")

    assert checks(job)["loop_mounts"] == "warn"
    assert job["result"]["would_work"] is True


def test_a_disk_left_out_and_its_filesystem_are_named(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(disks=2)).start_and_wait()

    job = service.run(guest.name, kind="preflight", disks=["vda"])

    assert checks(job)["filesystem_not_covered"] == "warn"
    assert any("/data-vdb" in check["detail"] for check in job["result"]["checks"])


def test_a_blocked_freeze_is_found_before(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(agent_args=("--block-rpcs=guest-fsfreeze-freeze",))).start_and_wait()

    job = service.run(guest.name, kind="preflight")
    preferred = service.run(guest.name, kind="preflight", freeze={"mode": "preferred"})

    assert (job["result"]["would_work"], job["result"]["expected_verdict"]) == (False, "none")
    assert checks(job)["agent_command_blocked"] == "fail"
    assert (preferred["result"]["would_work"], preferred["result"]["expected_verdict"]) == (True, "crash")


def test_a_block_job_that_runs_is_found_before_and_refused(service: ServiceProcess, lab_guest: LabGuest) -> None:
    service.run(lab_guest.name)
    # 1 KiB/s: after its first piece it waits for minutes.
    lab_guest.domain.blockPull("vda", 1024, libvirt.VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES)
    try:
        job = service.run(lab_guest.name, kind="preflight")
        refused = service.run(lab_guest.name)
    finally:
        lab_guest.domain.blockJobAbort("vda", 0)

    assert checks(job)["libvirt_job"] == "fail"
    assert (refused["state"], refused["error"]["code"]) == ("failed", "domain_busy")
    assert len(overlays_beside(lab_guest)) == 1


def test_a_long_chain_is_told_and_the_snapshot_refused(lab: None, lab_guest: LabGuest, tmp_path_factory: pytest.TempPathFactory) -> None:
    with ServiceProcess(tmp_path_factory.mktemp("short"), libvirt_uri=uri(), max_chain_depth="2") as service:
        for _ in range(2):
            service.run(lab_guest.name)
        job = service.run(lab_guest.name, kind="preflight")
        refused = service.run(lab_guest.name)

    assert checks(job)["chain_depth"] == "fail"
    assert (refused["state"], refused["error"]["code"]) == ("failed", "chain_too_deep")


def test_too_little_space_is_refused_before_anything_is_frozen(
    lab: None, lab_guest: LabGuest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ServiceProcess(tmp_path_factory.mktemp("full"), libvirt_uri=uri(), overlay_reserve_bytes=str(1 << 50)) as service:
        mark = lab_guest.mark()
        preflight = service.run(lab_guest.name, kind="preflight")
        job = service.run(lab_guest.name)

    assert checks(preflight)["space"] == "fail"
    assert (job["state"], job["error"]["code"], job["freeze"]) == ("failed", "space_insufficient", None)
    assert not [stall for stall in lab_guest.stalls(mark) if stall.ms > 1000]
    assert overlays_beside(lab_guest) == set()


def test_explain_says_what_would_lift_a_point(service: ServiceProcess, lab_guest: LabGuest) -> None:
    job = service.run(lab_guest.name)

    explanation = service.request("GET", f"/api/v1/jobs/{job['id']}/explain").json()

    assert explanation["because"] == [reason["detail"] for reason in job["verdict_reasons"]]
    assert {"no_hook", "hook_swallows_failures"} & {reason["code"] for reason in job["verdict_reasons"]}
    assert any("contrib/fsfreeze-hook" in remedy for remedy in explanation["would_lift"])
