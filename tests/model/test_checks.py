"""Preflight: each check, its status, and what to do."""

from dataclasses import replace
from typing import Any

import pytest

from service.errors import AgentNotAnswering, GuestAlreadyFrozen, NoDiskCanTakePart, StillpointError
from service.model.check import Check, CheckStatus
from service.model.checks import Circumstances, evaluate, why_not_freezable
from service.model.foreign_freeze import ForeignFreeze, FrozenBy, by_another, by_job, by_unknown
from service.model.inventory import AgentFacts, Disk, DomainState, Filesystem, LinuxFacts, Space, Survey
from service.model.policy import FreezeMode
from service.model.scope import DiskSelection, freeze_scope
from service.model.verdict import HookState, Verdict

VDA = Disk("vda", "disk", "file", "/images/vda.qcow2", "qcow2", False)
COMMANDS = ("guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-fsfreeze-status", "guest-fsfreeze-freeze-list", "guest-exec")


def a_survey(**changes: Any) -> Survey:
    agent = AgentFacts(channel=True, version="7.2", commands=dict.fromkeys(COMMANDS, True), frozen=False, os={"id": "debian"})
    linux = LinuxFacts(uptime_s=4000.0, hook=HookState.absent)
    root = [Filesystem("/", "vda1", "ext4", ("vda",))]
    return replace(Survey("db1", DomainState.running, [VDA], agent, filesystems=root, linux=linux), **changes)


def circumstances(survey: Survey | None = None, **changes: Any) -> Circumstances:
    found = survey or a_survey()
    selection = DiskSelection([VDA], {})
    plain = Circumstances(
        survey=found,
        selection=selection,
        selection_fault=None,
        scope=freeze_scope(found, [VDA]),
        spaces=[Space("/images", 10 << 20, 1 << 20)],
        freeze_mode=FreezeMode.required,
        max_chain_depth=16,
    )
    return replace(plain, **changes)


def check(found: Circumstances, code: str) -> Check:
    result = evaluate(found)
    matching = [check for check in result.checks if check.code == code]
    assert len(matching) == 1, [check.code for check in result.checks]
    assert matching[0].status is CheckStatus.passed or matching[0].remedy
    return matching[0]


def blocking(found: Circumstances) -> list[str]:
    return [check.code for check in evaluate(found).checks if check.status is CheckStatus.fail]


def agent(**changes: Any) -> Survey:
    return a_survey(agent=replace(a_survey().agent, **changes))


def test_a_healthy_guest_passes_every_check() -> None:
    result = evaluate(circumstances())
    assert {check.status for check in result.checks} == {CheckStatus.passed}
    assert (result.would_work, result.expected_verdict) == (True, Verdict.filesystem)


def test_the_result_is_a_document_of_plain_values() -> None:
    result = evaluate(circumstances())
    document, first = result.as_document(), result.checks[0]
    assert (document["would_work"], document["expected_verdict"]) == (True, "filesystem")
    assert document["checks"][0] == {"code": "domain_state", "status": "pass", "detail": first.detail, "remedy": None}


def test_a_hook_that_reports_failures_lets_application_be_expected() -> None:
    survey = a_survey(linux=LinuxFacts(uptime_s=4000.0, hook=HookState.truthful, hook_path="/etc/qemu/fsfreeze-hook"))
    assert evaluate(circumstances(survey)).expected_verdict is Verdict.application
    assert check(circumstances(survey), "fsfreeze_hook").status is CheckStatus.passed


@pytest.mark.parametrize("by", [by_unknown(), by_another(), by_job("j1")], ids=lambda by: by["kind"])
def test_a_guest_that_somebody_else_holds_is_refused_with_who_and_since_when(by: FrozenBy) -> None:
    survey = a_survey(agent=replace(a_survey().agent, frozen=True), foreign_freeze=ForeignFreeze("2026-03-01T11:00:00Z", by))
    fault = why_not_freezable(survey)
    assert fault is not None
    assert fault.facts == {"domain": "db1", "frozen_by": by, "frozen_since": "2026-03-01T11:00:00Z"}
    assert "2026-03-01T11:00:00Z" in fault.detail


def test_each_owner_of_a_freeze_is_told_in_words_of_his_own() -> None:
    owners = [by_unknown(), by_another(), by_job("j1"), by_job("j2")]
    assert len({GuestAlreadyFrozen(domain="db1", frozen_by=by).detail for by in owners}) == len(owners)


def test_without_anything_known_it_is_refused_all_the_same() -> None:
    fault = why_not_freezable(a_survey(agent=replace(a_survey().agent, frozen=True)))
    assert fault is not None
    assert fault.facts == {"domain": "db1", "frozen_by": by_unknown(), "frozen_since": None}


@pytest.mark.parametrize("hook", [HookState.swallowing, HookState.unknown, HookState.not_inspected])
def test_a_hook_that_proves_nothing_is_a_warning(hook: HookState) -> None:
    assert check(circumstances(a_survey(linux=LinuxFacts(hook=hook))), "fsfreeze_hook").status is CheckStatus.warn


# --- what fails -----------------------------------------------------------------------------------


def test_a_paused_domain_fails_unless_no_freeze_is_wanted() -> None:
    paused = a_survey(state=DomainState.paused)
    assert "virsh resume db1" in (check(circumstances(paused), "domain_state").remedy or "")
    assert blocking(circumstances(paused)) == ["domain_state"]
    assert blocking(circumstances(paused, freeze_mode=FreezeMode.off)) == []


def test_a_domain_in_another_state_fails() -> None:
    assert blocking(circumstances(a_survey(state=DomainState.other))) == ["domain_state"]


def test_another_job_of_libvirt_fails_and_is_named() -> None:
    jobs = {"vda": "one job", "": "another job"}
    found = circumstances(a_survey(busy=jobs))
    assert all(named in check(found, "libvirt_job").detail for named in (*jobs, *jobs.values()))
    assert blocking(found) == ["libvirt_job"]


def test_disks_that_cannot_be_taken_fail_in_the_words_of_the_error() -> None:
    fault = NoDiskCanTakePart(domain="db1", summary="hda: it is a cdrom", reasons={})
    assert check(circumstances(selection=None, selection_fault=fault, scope=None), "disks").detail == fault.detail


def test_too_little_space_fails_with_both_numbers() -> None:
    found = circumstances(spaces=[Space("/images", 1 << 20, 256 << 20)])
    assert all(fact in check(found, "space").detail for fact in ("/images", "1 MiB", "256 MiB"))
    assert blocking(found) == ["space"]


SILENT = AgentNotAnswering(domain="db1", command="guest-ping", timeout_ms=5000, message="silence")
UNFREEZABLE: dict[str, tuple[Survey, str]] = {
    "no channel": (agent(channel=False), "no_agent_channel"),
    "no answer": (agent(fault=SILENT), "agent_not_answering"),
    "frozen by somebody else": (agent(frozen=True), "guest_already_frozen"),
    "freeze blocked": (agent(commands=dict.fromkeys(COMMANDS[1:], True)), "agent_command_blocked"),
    "thaw blocked": (agent(commands=dict.fromkeys(COMMANDS, True) | {"guest-fsfreeze-thaw": False}), "agent_command_blocked"),
    "status blocked": (agent(commands=dict.fromkeys(COMMANDS, True) | {"guest-fsfreeze-status": False}), "agent_command_blocked"),
    "nothing to freeze": (a_survey(filesystems=[]), "nothing_to_freeze"),
}


@pytest.mark.parametrize(("survey", "code"), UNFREEZABLE.values(), ids=UNFREEZABLE.keys())
def test_what_makes_a_freeze_impossible_fails_where_it_is_required_and_warns_where_it_is_preferred(survey: Survey, code: str) -> None:
    required, preferred = circumstances(survey), circumstances(survey, freeze_mode=FreezeMode.preferred)
    fault = why_not_freezable(survey, required.scope)
    assert isinstance(fault, StillpointError)
    assert fault.code == code
    assert check(required, code).status is CheckStatus.fail
    assert evaluate(required).expected_verdict is Verdict.none
    assert check(preferred, code).status is CheckStatus.warn
    assert evaluate(preferred).expected_verdict is Verdict.crash


# --- what warns -----------------------------------------------------------------------------------


def test_no_freeze_wanted_is_a_warning_and_crash_is_expected() -> None:
    found = circumstances(freeze_mode=FreezeMode.off)
    assert check(found, "freeze").status is CheckStatus.warn
    assert evaluate(found).expected_verdict is Verdict.crash


def test_a_shut_off_domain_is_expected_to_be_offline_and_its_agent_is_not_asked_for() -> None:
    found = circumstances(a_survey(state=DomainState.shut_off, agent=AgentFacts(channel=True), filesystems=None, linux=None), scope=None)
    assert evaluate(found).expected_verdict is Verdict.offline
    assert [check.code for check in evaluate(found).checks] == [
        "domain_state",
        "libvirt_job",
        "disks",
        "image_in_use",
        "libvirt_snapshots",
        "chain_depth",
        "space",
    ]


WARNINGS: dict[str, tuple[Circumstances, str, str]] = {
    "loop mounts": (circumstances(a_survey(linux=LinuxFacts(loop_mounts=("/mnt/image",)))), "loop_mounts", "/mnt/image"),
    "network mounts": (circumstances(a_survey(linux=LinuxFacts(network_mounts=("/home",)))), "network_mounts", "/home"),
    "a young guest": (circumstances(a_survey(linux=LinuxFacts(uptime_s=59.0))), "guest_booted_recently", "59 s"),
    "guest-exec blocked": (circumstances(agent(commands=dict.fromkeys(COMMANDS[:4], True))), "agent_exec_blocked", "guest-exec"),
    "a disk left out": (circumstances(selection=DiskSelection([VDA], {"vdb": "it is read-only"})), "disk_left_out", "vdb"),
    "a chain that gets deep": (circumstances(max_chain_depth=1), "chain_depth", "vda"),
    "a filesystem outside": (
        circumstances(a_survey(filesystems=[*(a_survey().filesystems or []), Filesystem("/srv", "vdb1", "ext4", ("vdb",))])),
        "filesystem_not_covered",
        "/srv",
    ),
    "a disk that nothing covers": (
        circumstances(selection=DiskSelection([VDA, replace(VDA, target="vdb")], {}), freeze_mode=FreezeMode.preferred),
        "disk_not_covered",
        "vdb",
    ),
    "a filesystem that cannot be frozen": (
        circumstances(a_survey(filesystems=[*(a_survey().filesystems or []), Filesystem("/efi", "vda2", "vfat", ("vda",))])),
        "filesystem_not_freezable",
        "/efi",
    ),
    "filesystems not listed": (circumstances(a_survey(filesystems=None)), "coverage", ""),
}


@pytest.mark.parametrize(("found", "code", "word"), WARNINGS.values(), ids=WARNINGS.keys())
def test_what_is_warned_of_says_what_and_what_to_do_and_stops_nothing(found: Circumstances, code: str, word: str) -> None:
    warned = check(found, code)
    assert warned.status is CheckStatus.warn
    assert word in warned.detail
    assert warned.remedy
    assert evaluate(found).would_work


def test_a_guest_that_runs_for_a_minute_is_old_enough() -> None:
    assert check(circumstances(a_survey(linux=LinuxFacts(uptime_s=60.0))), "guest_booted_recently").status is CheckStatus.passed
