"""In plain words: why a recovery point is only what it is, and what would lift it."""

from collections.abc import Mapping
from typing import Any

from service.model.inventory import FREEZABLE_TYPES
from service.model.kinds import names_of

WITH_VERDICT = names_of(lambda kind: kind.has_verdict)

_MEANING = {
    "application": "The applications in the guest were told, the filesystems were frozen, and both held until the point in time was taken.",
    "application_unverified": "The freeze held and the applications were told, but nothing shows that every one of them succeeded.",
    "filesystem": "The filesystems were frozen while the point in time was taken: they need no recovery. "
    "Applications were not shown to be consistent.",
    "crash": "The point is what the disks would hold after a power cut: filesystems and applications recover at the first start.",
    "offline": "The domain was shut off when the point was taken: nothing was running.",
    "none": "There is no recovery point from this job.",
}

_REMEDIES = {
    "no_snapshot": "Mend what the error names, then POST /api/v1/jobs/{id}/retry.",
    "disks_in_doubt": "Do what the error says for each disk, then POST /api/v1/jobs/{id}/retry.",
    "point_is_written": "End what writes to the file that the error names, then POST /api/v1/jobs/{id}/retry.",
    "freeze_skipped": "Retry the job: the guest was started while the point was taken.",
    "thaw_not_sent": "Retry the job, and report the evidence of this one: a window without a thaw must not happen.",
    "freeze_off": "Leave freeze.mode at its default, `required`.",
    "freeze_not_possible": "Make the guest freezable: POST /api/v1/domains/{id}/preflight names every obstacle with its remedy.",
    "freeze_refused": "Look at the agent's log in the guest; run `virsh domfsfreeze` by hand when nothing depends on the guest.",
    "freeze_blocked": "See that no second backup tool freezes this guest at the same time.",
    "freeze_hook_failed": "Run the fsfreeze hook by hand in the guest with the argument `freeze`, and mend the script that fails.",
    "freeze_unanswered": "Raise freeze.timeout_ms, and find out what the guest's disks or hooks are waiting for.",
    "freeze_count_invalid": "Update qemu-guest-agent in the guest.",
    "nothing_frozen": "Mount the data on a filesystem that can be frozen (ext4, xfs, btrfs), on a disk of this job.",
    "outside_the_hold": "Retry the job; if it happens again, another tool thaws this guest: find it.",
    "hold_limit_exceeded": "Make the point in time faster (storage latency, number of disks), "
    "or raise freeze.hold_limit_ms if the guest may wait.",
    "thaw_count_differs": "See that no second backup tool freezes or thaws this guest.",
    "thaw_lost": "See that no second backup tool thaws this guest, and that its agent is not restarted during a backup.",
    "fuse_fired": "Find out why nobody on the host thawed the guest in time: the worker's log, libvirt, the guest's agent.",
    "fuse_unknown": "Mend the fsfreeze hook in the guest: its failure hid the agent's count; and see why the agent was started anew.",
    "thaw_refused": "Read the message; the guest's agent log has the rest.",
    "thaw_unanswered": "Find out why the agent stopped answering; the guest may still be frozen: `stillpoint thaw DOMAIN`.",
    "hold_not_proven": "Mend the fsfreeze hook in the guest: its failure hid the agent's count.",
    "fewer_frozen_than_mounted": "Look in the guest which filesystem refuses `fsfreeze -f`, or is frozen already by somebody there.",
    "no_hook": "Install an fsfreeze hook that quiesces your applications and reports failures: contrib/fsfreeze-hook.",
    "hook_swallows_failures": "Replace the stock hook by contrib/fsfreeze-hook, which passes the failures of its scripts on.",
    "hook_truth_unknown": "Let the hook exit with the status of its scripts, and declare it: see contrib/fsfreeze-hook.",
    "hook_not_inspected": "Allow guest-exec in the agent, so that the hook can be read.",
    "thaw_hook_failed": "Run the fsfreeze hook by hand in the guest with the argument `thaw`, and mend it.",
    "shut_off_by_force": "Shut the guest down (`virsh shutdown`) instead of destroying it.",
    "shut_off_unknown": "Take the next point soon after a clean shutdown, or while the guest runs.",
    "vss_lost": "See that no second backup tool thaws this guest, and that its agent is not restarted during a backup.",
    "vss_hold_writes_timeout": "Make the point in time faster, or take it when the guest writes less; on_shortfall: retry tries again.",
    "vss_provider_error": "Restart the guest agent and its VSS provider in the guest; on_shortfall: retry tries again.",
    "vss_failed": "Read the Application event log of the guest for VSS and volsnap, and retry the job.",
    "vss_unknown": "Find out why the agent stopped answering; the guest may still be frozen: `stillpoint thaw DOMAIN`.",
    "vss_not_frozen": "POST /api/v1/domains/{id}/preflight names what keeps VSS from freezing.",
    "vss_complete_failed": "Read the guest's Application event log: the writers were told that the backup failed.",
    "vss_abort_may_be_hidden": "Upgrade the guest to Windows 8 / Server 2012 or newer: older ones hide that VSS aborted.",
    "windows_version_unknown": "Update the guest agent: guest-get-osinfo came with QEMU 2.10.",
    "volumes_not_frozen": "Keep data on fixed NTFS or ReFS volumes: VSS holds no others.",
    "disk_not_covered": "Put the data of this disk on a filesystem that is frozen, or leave the disk out: name the others in `disks`.",
    "filesystems_not_held": "Keep data on a filesystem that can be frozen (ext4, xfs, btrfs), or unmount these for the backup.",
    "mounted_data_left_out": "Back the disk up by other means, or name the disks of the job: then its absence is meant.",
    "volume_not_proven": "Allow guest-exec in the agent, and give the domain's disks serials: then it is known which volumes were held.",
    "volumes_unknown": "Update the guest agent, or allow guest-get-fsinfo in it.",
    "writer_newly_failed": "Restart the service of the writer in the guest and read its event log; then retry the job.",
    "writers_unavailable": "Allow guest-exec and guest-exec-status in the agent, and run `vssadmin list writers` in the guest by hand.",
    "writers_not_settled": "Look at `vssadmin list writers` in the guest: a writer that hangs needs its service restarted.",
    "writer_state_not_understood": "Look at `vssadmin list writers` in the guest, and report its text: its language is not known here.",
    "writer_vanished": "See in the guest why the service of this writer stopped during the backup.",
    "writer_missing": "Start the service of the writer in the guest; one that was taken out of the guest is forgotten after 30 days.",
    "writer_failure_pre_existing": "Restart the service of the writer in the guest until `vssadmin list writers` shows no failure; "
    "then retry the job.",
    "writer_appeared": "Retry the job: the writer was not listed before the freeze.",
    "writer_restarted": "Retry the job: the service of the writer was started anew during it.",
    "gate_not_opened": "Mend what the error names, then POST /api/v1/domains/{domain}/quiesce again.",
    "gate_not_released": "Release the gate before its deadline, or ask for a longer deadline_ms.",
    "host_forgotten": "Look at the disks of the domain, then retry the job: it runs on the host that has the domain now.",
    "worker_lost": "Retry the job: a new point carries its own evidence.",
}


_REMEDIES_WHERE_DONE = {
    "nothing_frozen": "See in the guest who froze its filesystems (`fsfreeze`, another backup tool) and let it end; "
    "`fsfreeze --unfreeze MOUNTPOINT` ends what nobody ends.",
    "hook_not_inspected": "guest-exec is allowed: see in the log of the agent why the hook could not be read with it, and retry the job.",
    "writers_unavailable": "guest-exec is allowed: run `vssadmin list writers` in the guest as administrator, and mend what it prints.",
    "hold_limit_exceeded": "Make the point in time faster (storage latency, fewer disks): Windows holds writes for no longer than 10 s.",
}
"""Instead, where the guest of the job is so already that the usual advice is followed."""


def explain(job: Mapping[str, Any]) -> dict[str, Any]:
    """`job`: the job document of the API. Returns {"summary", "because", "would_lift"}."""
    error = job.get("error")
    reasons = list(job.get("verdict_reasons") or [])
    return {
        "summary": _summary(job),
        "because": [*([error["detail"]] if error else []), *[reason["detail"] for reason in reasons]],
        "would_lift": _would_lift(error, reasons, _done_already(job)),
    }


def _summary(job: Mapping[str, Any]) -> str:
    state, verdict, kind = job["state"], job.get("verdict"), job["kind"]
    if state in ("queued", "running", "interrupted"):
        return f"The job is {state}{_phase(job)}; nothing is decided yet."
    if kind not in WITH_VERDICT:
        return f"This {kind} {state}; a verdict belongs to jobs that take a point."
    meaning = _MEANING.get(verdict or "none", "")
    outcome = {"succeeded": "The job succeeded.", "failed": "The job failed.", "cancelled": "The job was cancelled."}[state]
    return f"{outcome} Verdict {verdict or 'none'}: {meaning}"


def _phase(job: Mapping[str, Any]) -> str:
    return f" in phase {job['phase']}" if job.get("phase") else ""


def _would_lift(error: Mapping[str, Any] | None, reasons: list[Mapping[str, Any]], done: frozenset[str]) -> list[str]:
    remedies = [error["remedy"]] if error and error.get("remedy") else []
    codes = [reason["code"] for reason in reasons if reason["effect"] == "lowers" and reason["code"] in _REMEDIES]
    remedies += [_REMEDIES_WHERE_DONE[code] if code in done else _REMEDIES[code] for code in codes]
    return list(dict.fromkeys(remedies))


def _done_already(job: Mapping[str, Any]) -> frozenset[str]:
    """Reasons whose usual advice the survey of the guest shows to be followed."""
    survey = (job.get("evidence") or {}).get("survey") or {}
    allows_exec = (survey.get("agent") or {}).get("exec_enabled") is True
    is_windows = (survey.get("os") or {}).get("id") == "mswindows"
    can_be_frozen = any(filesystem["type"] in FREEZABLE_TYPES for filesystem in survey.get("filesystems") or ())
    done = {"nothing_frozen": can_be_frozen, "hold_limit_exceeded": is_windows}
    done |= {"hook_not_inspected": allows_exec, "writers_unavailable": allows_exec}
    return frozenset(code for code, is_done in done.items() if is_done)
