"""From the code of the error that a job ended with to the cause that a person can remove.

One row for each cause, with the sentence that the list of protection says. `since` and `jobs` are said in words
(`service.model.protection_reasons`). The remedy is that of the error itself, which knows the paths and names.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class ErrorCause(NamedTuple):
    cause: str
    sentence: str
    #: The codes of `service.errors` that come from this cause.
    codes: tuple[str, ...]


_ROWS = (
    # --- the guest and its agent
    ErrorCause("agent_not_answering", "The guest agent has not answered {since:since}; {jobs:jobs} failed.", ("agent_not_answering",)),
    ErrorCause("agent_lost", "libvirt has lost the guest agent {since:since}; {jobs:jobs} failed.", ("agent_lost",)),
    ErrorCause("agent_missing", "The domain has no channel for a guest agent; {jobs:jobs} failed {since:since}.", ("no_agent_channel",)),
    ErrorCause("agent_busy", "Another client has used the guest agent {since:since}; {jobs:jobs} failed.", ("agent_busy",)),
    ErrorCause(
        "agent_refuses",
        "The guest agent has refused commands {since:since}; {jobs:jobs} failed.",
        ("agent_command_blocked", "agent_command_failed", "agent_answer_unreadable"),
    ),
    ErrorCause(
        "guest_frozen_by_another",
        "Another client has kept the guest frozen {since:since}; {jobs:jobs} failed.",
        ("guest_already_frozen",),
    ),
    ErrorCause(
        "guest_not_thawed",
        "The guest may have been frozen {since:since}, and a thaw was not confirmed; {jobs:jobs} failed.",
        ("guest_still_frozen", "guest_may_be_frozen", "thaw_unanswered"),
    ),
    ErrorCause("guest_hook_hangs", "The fsfreeze hook of the guest has hung {since:since}; {jobs:jobs} failed.", ("guest_hook_hangs",)),
    ErrorCause("vss_fails", "VSS has not frozen the guest {since:since}; {jobs:jobs} failed.", ("vss_not_usable", "vss_freeze_failed")),
    ErrorCause(
        "freeze_fails",
        "The guest could not be frozen {since:since}; {jobs:jobs} failed.",
        ("freeze_failed", "nothing_to_freeze", "nothing_frozen", "hold_spent", "hold_limit_too_long", "guard_not_ready"),
    ),
    ErrorCause("verdict_too_low", "Points were worse than required {since:since}; {jobs:jobs} failed.", ("verdict_below_required",)),
    ErrorCause(
        "guest_suffers",
        "The backup has disturbed the guest too much {since:since}; {jobs:jobs} failed.",
        ("impact_above_limit", "guest_paused_by_io_error"),
    ),
    # --- the domain and its disks
    ErrorCause("domain_gone", "The host has not listed the domain {since:since}; {jobs:jobs} failed.", ("domain_gone", "domain_unknown")),
    ErrorCause("domain_paused", "The domain has been paused {since:since}; {jobs:jobs} failed.", ("domain_paused",)),
    ErrorCause(
        "domain_unsuitable",
        "The domain was in an unsuitable state {since:since}; {jobs:jobs} failed.",
        ("domain_state_unsuitable",),
    ),
    ErrorCause("domain_busy", "Another client has worked on the domain {since:since}; {jobs:jobs} failed.", ("domain_busy",)),
    ErrorCause("domain_queue_full", "Too many jobs have waited for the domain {since:since}.", ("domain_queue_full",)),
    ErrorCause("domain_ambiguous", "Two hosts have listed the domain {since:since}.", ("domain_ambiguous",)),
    ErrorCause(
        "disks_unsuitable",
        "The disks that the policy asks for could not be backed up {since:since}; {jobs:jobs} failed.",
        ("disk_unknown", "disks_cannot_take_part", "no_disk_can_take_part"),
    ),
    ErrorCause(
        "disk_image_lost",
        "The image of a disk has been missing {since:since}; {jobs:jobs} failed.",
        ("disk_image_missing", "disk_image_deleted"),
    ),
    ErrorCause(
        "disk_written_by_another",
        "Another program has written to a disk of the domain {since:since}; {jobs:jobs} failed.",
        ("image_in_use", "point_is_written", "source_written", "point_lost_before_copied"),
    ),
    ErrorCause(
        "chain_too_deep",
        "The disks have had too many files below them for another snapshot {since:since}; {jobs:jobs} failed.",
        ("chain_too_deep",),
    ),
    ErrorCause("saved_state_waits", "The domain has had a managed save {since:since}; {jobs:jobs} failed.", ("saved_state_waits",)),
    ErrorCause(
        "checkpoints_in_the_way",
        "The checkpoints of another backup tool have been in the way {since:since}; {jobs:jobs} failed.",
        ("checkpoints_in_the_way",),
    ),
    ErrorCause(
        "disks_not_merged",
        "Disks of the domain have been on unfinished overlays {since:since}; {jobs:jobs} failed.",
        (
            "disks_in_doubt",
            "libvirt_behind_qemu",
            "discard_failed",
            "discard_unfinished",
            "merge_unfinished",
            "backup_not_undone",
        ),
    ),
    ErrorCause("increment_impossible", "An increment has not been possible {since:since}; {jobs:jobs} failed.", ("increment_impossible",)),
    # --- the host
    ErrorCause(
        "host_storage_full",
        "The host has had too little space for the overlays {since:since}; {jobs:jobs} failed.",
        ("space_insufficient", "overlay_space_low", "merge_without_space"),
    ),
    ErrorCause(
        "host_storage_fails",
        "The storage of the host has failed {since:since}; {jobs:jobs} failed.",
        (
            "storage_not_answering",
            "storage_refused",
            "overlay_preparation_failed",
            "overlays_left",
            "overlay_replaced",
            "overlay_in_use",
            "state_folder_unwritable",
        ),
    ),
    ErrorCause(
        "host_not_set_up",
        "The worker has not had what it needs on the host {since:since}; {jobs:jobs} failed.",
        ("qemu_img_unusable", "qemu_cannot_open_overlay", "libvirt_sees_other_files", "host_out_of_descriptors", "setting_invalid"),
    ),
    ErrorCause(
        "libvirt_fails",
        "libvirt has failed on the host {since:since}; {jobs:jobs} failed.",
        ("libvirt_unavailable", "libvirt_call_failed", "libvirt_call_timed_out", "snapshot_failed"),
    ),
    ErrorCause(
        "worker_lost",
        "The worker of the host has not finished its jobs {since:since}; {jobs:jobs} failed.",
        ("worker_lost", "lease_lost", "loop_died", "loop_hangs", "worker_already_runs", "host_taken"),
    ),
    ErrorCause(
        "host_forgotten",
        "The host of the domain has been forgotten {since:since}; {jobs:jobs} failed.",
        ("host_forgotten", "host_unknown", "host_not_named"),
    ),
    # --- the repository
    ErrorCause("repository_full", "The repository has been full {since:since}; {jobs:jobs} failed.", ("repository_full",)),
    ErrorCause("repository_gone", "The repository has not been at its path {since:since}; {jobs:jobs} failed.", ("repository_gone",)),
    ErrorCause(
        "repository_not_answering",
        "The storage of the repository has not answered {since:since}; {jobs:jobs} failed.",
        ("repository_not_answering", "point_may_be_sealed"),
    ),
    ErrorCause("repository_read_only", "The repository could not be written {since:since}; {jobs:jobs} failed.", ("repository_read_only",)),
    ErrorCause(
        "repository_bad", "Another thing has been at the path of the repository {since:since}; {jobs:jobs} failed.", ("repository_bad",)
    ),
    ErrorCause(
        "repository_fails",
        "The repository has refused to work {since:since}; {jobs:jobs} failed.",
        ("repository_refused", "repository_process_failed", "repository_foreign_entry"),
    ),
    ErrorCause("repository_forgotten", "The repository of the policy is not registered; {jobs:jobs} failed.", ("repository_not_found",)),
    ErrorCause("key_unusable", "The key of the repository could not be used {since:since}; {jobs:jobs} failed.", ("key_unusable",)),
    ErrorCause(
        "copy_differs",
        "Copies have differed from the disk {since:since}, so they were not kept; {jobs:jobs} failed.",
        ("copy_differs",),
    ),
    ErrorCause(
        "point_damaged",
        "A verify has found a damaged or incomplete point {since:since}; {jobs:jobs} failed.",
        ("point_damaged", "point_incomplete"),
    ),
    ErrorCause(
        "point_not_trusted",
        "The signature of a point is missing or wrong {since:since}; {jobs:jobs} failed.",
        ("signature_wrong", "point_unsigned"),
    ),
    ErrorCause(
        "point_out_of_reach",
        "The point that was to be verified is not in a repository; {jobs:jobs} failed.",
        ("point_not_sealed", "recovery_point_not_found"),
    ),
    # --- the service
    ErrorCause(
        "service_database_fails",
        "The database of the service has failed {since:since}; {jobs:jobs} failed.",
        ("database_unavailable", "database_replaced", "database_unusable", "database_lost", "schema_outdated", "schema_unknown"),
    ),
    ErrorCause(
        "version_unknown",
        "The jobs were made by another version of the service {since:since}; {jobs:jobs} failed.",
        ("kind_unknown", "version_unknown", "record_unreadable"),
    ),
    ErrorCause("request_refused", "The service has refused what the policy asks for {since:since}.", ("validation_failed",)),
    ErrorCause("job_cancelled", "{jobs:jobs} have been cancelled {since:since}.", ("job_cancelled",)),
)

OTHER = ErrorCause("job_fails", "{jobs:jobs} failed {since:since} ({error_code}).", ("internal_error",))
"""The cause for a code that has no row, as that of a newer version."""

_TABLE = {code: row for row in (*_ROWS, OTHER) for code in row.codes}
ERROR_CAUSES: Mapping[str, ErrorCause] = MappingProxyType(_TABLE)


def cause_of(error_code: str) -> ErrorCause:
    return ERROR_CAUSES.get(error_code, OTHER)
