"""Guests that cannot be frozen, or whose freeze does not hold: a clear error or an honest verdict, and nothing left behind."""

import pytest

from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.live.test_main_job import overlays_beside, reasons
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

PREFERRED = {"mode": "preferred"}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (GuestOptions(agent_channel=False), "no_agent_channel"),
        (GuestOptions(agent="none"), "agent_not_answering"),
        (GuestOptions(agent_args=("--block-rpcs=guest-fsfreeze-freeze",)), "agent_command_blocked"),
        (GuestOptions(agent_args=("--block-rpcs=guest-fsfreeze-thaw",)), "agent_command_blocked"),
    ],
    ids=["no channel", "no agent", "freeze blocked", "thaw blocked"],
)
def test_a_freeze_that_is_known_to_be_impossible(options: GuestOptions, code: str, service: ServiceProcess, make_guest: MakeGuest) -> None:
    """Required: refused before anything is made. Preferred: taken, with the verdict that it deserves."""
    guest = make_guest(options).start()
    if options.agent == "qga" and options.agent_channel:
        guest.wait_agent()
    else:
        guest.wait_ready()

    required = service.run(guest.name)
    preferred = service.run(guest.name, freeze=PREFERRED)
    strict = service.run(guest.name, freeze=PREFERRED, required_verdict="filesystem")

    assert (required["state"], required["verdict"], required["error"]["code"]) == ("failed", "none", code)
    assert required["error"]["remedy"]
    assert (preferred["state"], preferred["verdict"], reasons(preferred)) == ("succeeded", "crash", ["freeze_not_possible"])
    assert preferred["freeze"]["outcome"] == "not_possible"
    assert (strict["state"], strict["verdict"], strict["error"]["code"]) == ("failed", "crash", "verdict_below_required")
    assert strict["recovery_point"] is not None
    assert len(overlays_beside(guest)) == 2


@pytest.mark.parametrize("freeze", [{}, PREFERRED], ids=["required", "preferred"])
def test_a_guest_that_somebody_else_froze_is_refused_and_not_thawed(
    freeze: dict[str, str], service: ServiceProcess, lab_guest: LabGuest
) -> None:
    """By the API when the host has published it already, else by the job."""
    service.run(lab_guest.name, kind="preflight")
    lab_guest.domain.fsFreeze()

    answer = service.request("POST", "/api/v1/jobs", json={"kind": "snapshot", "domain": lab_guest.name, "freeze": freeze})
    error = service.wait(answer.json()["id"])["error"] if answer.status_code == 202 else answer.json()
    status = lab_guest.freeze_status()
    lab_guest.domain.fsThaw()

    assert error["code"] == "guest_already_frozen"
    assert status == "frozen"
    assert overlays_beside(lab_guest) == set()


def test_the_emergency_thaw_thaws_it(service: ServiceProcess, lab_guest: LabGuest) -> None:
    service.run(lab_guest.name, kind="preflight")
    lab_guest.domain.fsFreeze()

    answer = service.request("POST", f"/api/v1/domains/{lab_guest.name}/thaw")
    job = service.wait(answer.json()["id"])

    assert answer.status_code == 202
    assert (job["result"]["was_frozen"], job["result"]["thawed"], job["result"]["frozen_now"]) == (True, 1, False)
    assert lab_guest.freeze_status() == "thawed"


def test_a_hook_that_refuses_the_freeze_fails_the_job_and_leaves_nothing(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(hook="fail")).start_and_wait()

    job = service.run(guest.name)

    assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "none", "freeze_failed")
    assert job["freeze"]["outcome"] == "hook_failed"
    assert guest.freeze_status() == "thawed"
    assert guest.active_sources() == guest.disks
    assert overlays_beside(guest) == set()


def test_where_freeze_is_preferred_a_refusing_hook_gives_a_crash_point(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(hook="fail")).start_and_wait()

    job = service.run(guest.name, freeze=PREFERRED)

    assert (job["state"], job["verdict"], reasons(job)) == ("succeeded", "crash", ["freeze_hook_failed"])
    assert [phase["name"] for phase in job["phases"]].count("point_in_time") == 1


def test_a_hook_that_fails_on_thaw_costs_the_application_and_not_the_filesystem(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(hook="fail_thaw")).start_and_wait()

    job = service.run(guest.name)

    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem")
    assert job["freeze"]["thaw_outcome"] == "hook_failed"
    assert "thaw_hook_failed" in reasons(job)
    assert guest.freeze_status() == "thawed"


def test_the_stock_hook_swallows_failures_and_so_proves_nothing(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(hook="swallow")).start_and_wait()

    job = service.run(guest.name)

    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem")
    assert "hook_swallows_failures" in reasons(job)


def test_a_hook_that_reports_failures_lifts_the_point_to_application(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(hook="ok")).start_and_wait()
    hook = "/etc/qemu/fsfreeze-hook"
    script = (
        f"mkdir -p {hook}.d; printf '#!/bin/sh\\nexit 0\\n' > {hook}.d/app; chmod 755 {hook}.d/app; "
        f"echo '# stillpoint: reports-failures' >> {hook}"
    )
    guest.exec("/bin/sh", "-c", script)

    job = service.run(guest.name, required_verdict="application")

    assert (job["state"], job["verdict"], reasons(job)) == ("succeeded", "application", ["held", "hook_truthful"])
    assert "HOOK freeze" in guest.serial_text()
    assert "HOOK thaw" in guest.serial_text()


def test_a_hook_that_reports_failures_and_runs_no_script_proves_nothing(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(hook="ok")).start_and_wait()
    hook = "/etc/qemu/fsfreeze-hook"
    script = f"mkdir -p {hook}.d; echo text > {hook}.d/README; cp {hook} {hook}.d/app.bak; echo '# stillpoint: reports-failures' >> {hook}"
    guest.exec("/bin/sh", "-c", script)

    job = service.run(guest.name)

    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem")
    assert "no_hook" in reasons(job)


def test_guest_exec_blocked_costs_only_what_it_would_have_told(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(agent_args=("--block-rpcs=guest-exec",))).start_and_wait()

    job = service.run(guest.name)

    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem")
    assert "hook_not_inspected" in reasons(job)
    assert job["freeze"]["preflush"] is None
