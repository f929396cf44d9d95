"""Explains in plain words why a recovery point has its verdict, and what would give the next point a better verdict."""

from collections.abc import Mapping
from typing import Any

from service.model.inventory import FREEZABLE_TYPES
from service.model.kinds import names_of

WITH_VERDICT = names_of(lambda kind: kind.has_verdict)

_MEANING = {
    "application": "The applications and the filesystems of the guest were frozen, and both freezes held until the snapshot was taken.",
    "application_unverified": "The freeze held and the applications took part, but not every application has proven that it succeeded.",
    "filesystem": "The filesystems were frozen while the snapshot was taken, so they need no recovery. "
    "Nothing shows that the applications are consistent.",
    "crash": "The point holds what the disks would hold after a power cut. Filesystems and applications recover at the first start.",
    "offline": "The domain was shut off when the snapshot was taken, so no program was running in the guest.",
    "none": "This job has no recovery point.",
}

REMEDIES = {
    "no_snapshot": "Solve the problem that the error names, then POST /api/v1/jobs/{id}/retry.",
    "disks_in_doubt": "Do what the error says for each disk, then POST /api/v1/jobs/{id}/retry.",
    "point_is_written": "End the program that writes to the file that the error names, then POST /api/v1/jobs/{id}/retry.",
    "freeze_skipped": "Retry the job: the guest was started while the snapshot was taken.",
    "thaw_not_sent": "Retry the job, and report the evidence of this job as a bug: every freeze window must end with a thaw.",
    "freeze_off": "Leave freeze.mode at its default, `required`.",
    "freeze_not_possible": "Make the guest freezable: POST /api/v1/domains/{id}/preflight names every obstacle with its remedy.",
    "freeze_refused": "Read the agent's log in the guest. When nothing depends on the guest, try `virsh domfsfreeze` by hand.",
    "freeze_blocked": "Make sure that no other backup tool freezes this guest at the same time.",
    "freeze_hook_failed": "Run the fsfreeze hook by hand in the guest with the argument `freeze`, and repair the script that fails.",
    "freeze_unanswered": "Raise freeze.timeout_ms, and find out why the disks or hooks of the guest are slow.",
    "freeze_count_invalid": "Update qemu-guest-agent in the guest.",
    "nothing_frozen": "Mount the data on a filesystem that can be frozen (ext4, xfs, btrfs), on a disk of this job.",
    "outside_the_hold": "Retry the job. If this happens again, find the other tool that thaws this guest.",
    "hold_limit_exceeded": "Make the snapshot faster (storage latency, number of disks), "
    "or raise freeze.hold_limit_ms if the guest can wait longer.",
    "thaw_count_differs": "Make sure that no other backup tool freezes or thaws this guest.",
    "thaw_lost": "Make sure that no other backup tool thaws this guest, and that the agent is not restarted during a backup.",
    "fuse_fired": "Find out why the host did not thaw the guest in time: read the worker's log, libvirt's log and the agent's log.",
    "fuse_unknown": "Repair the fsfreeze hook in the guest, because its failure hid the agent's count. Find out why the agent restarted.",
    "thaw_refused": "Read the message. The agent's log in the guest has more.",
    "thaw_unanswered": "Find out why the agent stopped answering. The guest may still be frozen: `stillpoint thaw DOMAIN`.",
    "hold_not_proven": "Repair the fsfreeze hook in the guest: its failure hid the agent's count.",
    "fewer_frozen_than_mounted": "Find out in the guest which filesystem refuses `fsfreeze -f`, or which one another program has frozen.",
    "no_hook": "Install an fsfreeze hook that quiesces your applications and reports failures: contrib/fsfreeze-hook.",
    "hook_swallows_failures": "Replace the stock hook by contrib/fsfreeze-hook, which reports the failures of its scripts.",
    "hook_truth_unknown": "Let the hook exit with the status of its scripts, and declare that: see contrib/fsfreeze-hook.",
    "hook_not_inspected": "Allow guest-exec in the agent, so that the hook can be read.",
    "thaw_hook_failed": "Run the fsfreeze hook by hand in the guest with the argument `thaw`, and repair the hook.",
    "shut_off_by_force": "Shut the guest down (`virsh shutdown`) instead of destroying it.",
    "shut_off_unknown": "Take the next snapshot soon after a clean shutdown, or while the guest runs.",
    "vss_lost": "Make sure that no other backup tool thaws this guest, and that the agent is not restarted during a backup.",
    "vss_hold_writes_timeout": "Make the snapshot faster, or take it when the guest writes less. on_shortfall `retry` tries again.",
    "vss_provider_error": "Restart the guest agent and its VSS provider in the guest. on_shortfall `retry` tries again.",
    "vss_failed": "Read the Application event log of the guest for VSS and volsnap, and retry the job.",
    "vss_unknown": "Find out why the agent stopped answering. The guest may still be frozen: `stillpoint thaw DOMAIN`.",
    "vss_not_frozen": "POST /api/v1/domains/{id}/preflight says why VSS does not freeze.",
    "vss_complete_failed": "Read the guest's Application event log: VSS told the writers that the backup failed.",
    "vss_abort_may_be_hidden": "Upgrade the guest to Windows 8 / Server 2012 or newer: older releases may hide that VSS aborted.",
    "windows_version_unknown": "Update the guest agent: guest-get-osinfo came with QEMU 2.10.",
    "volumes_not_frozen": "Keep data on fixed NTFS or ReFS volumes: VSS does not hold other volumes.",
    "disk_not_covered": "Put the data of this disk on a filesystem that is frozen, or leave the disk out: name the other disks in `disks`.",
    "filesystems_not_held": "Keep data on a filesystem that can be frozen (ext4, xfs, btrfs), or unmount these filesystems for the backup.",
    "mounted_data_left_out": "Back the disk up by other means. Or name the disks of the job in `disks`, to leave this disk out on purpose.",
    "volume_not_proven": "Allow guest-exec in the agent, and give the domain's disks serials: both show which volumes were held.",
    "volumes_unknown": "Update the guest agent, or allow guest-get-fsinfo in the agent.",
    "writer_newly_failed": "Restart the service of the writer in the guest and read its event log. Then retry the job.",
    "writers_unavailable": "Allow guest-exec and guest-exec-status in the agent, and run `vssadmin list writers` in the guest by hand.",
    "writers_not_settled": "Run `vssadmin list writers` in the guest, and restart the service of the writer that hangs.",
    "writer_state_not_understood": "Run `vssadmin list writers` in the guest, and report its text: this version does not know it.",
    "writer_vanished": "Find out in the guest why the service of this writer stopped during the backup.",
    "writer_missing": "Start the service of the writer in the guest. If the writer was removed, this service forgets it after 30 days.",
    "writer_failure_pre_existing": "Restart the service of the writer in the guest until `vssadmin list writers` shows no failure. "
    "Then retry the job.",
    "writer_appeared": "Retry the job: the writer was not listed before the freeze.",
    "writer_restarted": "Retry the job: the service of the writer restarted during the job.",
    "gate_not_opened": "Solve the problem that the error names, then POST /api/v1/domains/{domain}/quiesce again.",
    "gate_not_released": "Release the gate before its deadline, or request a longer deadline_ms.",
    "host_forgotten": "Check the disks of the domain, then retry the job. The new job runs on the host that has the domain now.",
    "worker_lost": "Retry the job: the new job has evidence of its own.",
}


REMEDIES_WHERE_DONE = {
    "nothing_frozen": "Find the program in the guest that froze the filesystems (`fsfreeze`, another backup tool), and let it finish. "
    "If that program is gone, run `fsfreeze --unfreeze MOUNTPOINT` in the guest.",
    "hook_not_inspected": "guest-exec is allowed. Read in the log of the agent why the hook could not be read, and retry the job.",
    "writers_unavailable": "guest-exec is allowed. Run `vssadmin list writers` in the guest as administrator, and repair what it reports.",
    "hold_limit_exceeded": "Make the snapshot faster (storage latency, fewer disks): Windows holds writes for 10 s at most.",
}
"""The advice for a guest that follows the usual advice already."""


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
        return f"The job is {state}{_phase(job)}. Its outcome is not decided yet."
    if kind not in WITH_VERDICT:
        return f"This {kind} {state}. A {kind} takes no recovery point, so the job has no verdict."
    meaning = _MEANING.get(verdict or "none", "")
    outcome = {"succeeded": "The job succeeded.", "failed": "The job failed.", "cancelled": "The job was cancelled."}[state]
    return f"{outcome} Verdict {verdict or 'none'}: {meaning}"


def _phase(job: Mapping[str, Any]) -> str:
    return f" in phase {job['phase']}" if job.get("phase") else ""


def _would_lift(error: Mapping[str, Any] | None, reasons: list[Mapping[str, Any]], done: frozenset[str]) -> list[str]:
    remedies = [error["remedy"]] if error and error.get("remedy") else []
    codes = [reason["code"] for reason in reasons if reason["effect"] == "lowers" and reason["code"] in REMEDIES]
    remedies += [REMEDIES_WHERE_DONE[code] if code in done else REMEDIES[code] for code in codes]
    return list(dict.fromkeys(remedies))


def _done_already(job: Mapping[str, Any]) -> frozenset[str]:
    """The reasons whose usual advice the guest follows already, as the survey of the guest shows."""
    survey = (job.get("evidence") or {}).get("survey") or {}
    allows_exec = (survey.get("agent") or {}).get("exec_enabled") is True
    is_windows = (survey.get("os") or {}).get("id") == "mswindows"
    can_be_frozen = any(filesystem["type"] in FREEZABLE_TYPES for filesystem in survey.get("filesystems") or ())
    done = {"nothing_frozen": can_be_frozen, "hold_limit_exceeded": is_windows}
    done |= {"hook_not_inspected": allows_exec, "writers_unavailable": allows_exec}
    return frozenset(code for code, is_done in done.items() if is_done)
