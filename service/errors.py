"""Every error Stillpoint raises on purpose: a stable code, the facts, and what to do about it.

Errors are raised deep, where the facts are known, and translated once: to HTTP in
`service.api.problems`, to the job row in `service.jobs.worker`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class StillpointError(Exception):
    """Base of all errors. Subclasses give templates; the keyword arguments fill them and stay readable as `facts`."""

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Something went wrong inside Stillpoint"
    detail_template: ClassVar[str] = "An unexpected error happened."
    remedy_template: ClassVar[str] = "Look at the service's log for the error, and report it."

    def __init__(self, **facts: Any) -> None:
        self.facts: Mapping[str, Any] = facts
        super().__init__(self.detail)

    @property
    def detail(self) -> str:
        """What was found."""
        return self.detail_template.format(**self.facts)

    @property
    def remedy(self) -> str:
        """What the reader can do."""
        return self.remedy_template.format(**self.facts)

    def as_document(self) -> dict[str, Any]:
        """The error as it stands in a job row and, with a status added, in a problem body."""
        return {
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
            "remedy": self.remedy,
            "facts": dict(self.facts),
        }


# --- what a caller asked for does not exist -------------------------------------------------------


class JobNotFound(StillpointError):
    code = "job_not_found"
    title = "No such job"
    detail_template = "There is no job {job_id}."
    remedy_template = "List the jobs with GET /api/v1/jobs."


class RecoveryPointNotFound(StillpointError):
    code = "recovery_point_not_found"
    title = "No such recovery point"
    detail_template = "There is no recovery point {recovery_point_id}."
    remedy_template = "List them with GET /api/v1/recovery-points."


class DomainUnknown(StillpointError):
    code = "domain_unknown"
    title = "No host has this domain"
    detail_template = "No domain named {domain!r} (nor with that UUID) was published by {hosts}."
    remedy_template = (
        "Look at GET /api/v1/domains for the names, and at GET /api/v1/hosts for when each host was last seen. "
        "A domain that was only just defined appears within seconds."
    )


class DomainAmbiguous(StillpointError):
    code = "domain_ambiguous"
    title = "More than one host has a domain of this name"
    detail_template = "{domain!r} exists on the hosts {hosts}."
    remedy_template = 'Give the UUID instead of the name, or add "host" to the request.'


class PathNotFound(StillpointError):
    code = "path_not_found"
    title = "There is nothing at this path"
    detail_template = "{path} is no path of this service."
    remedy_template = "GET /openapi.json lists every call; all of them but health, metrics and documentation start with /api/v1/."


class MethodNotAllowed(StillpointError):
    code = "method_not_allowed"
    title = "This path does not answer to this method"
    detail_template = "{path} does not answer to {method}."
    remedy_template = "The header Allow of this answer names the methods that it knows."


class TokenNotFound(StillpointError):
    code = "token_not_found"
    title = "No such token"
    detail_template = "There is no token {token_id}."
    remedy_template = "`stillpoint token list` shows the ids."


# --- what a caller asked for cannot be read -------------------------------------------------------


class UnsupportedMediaType(StillpointError):
    code = "unsupported_media_type"
    title = "The body is not sent as JSON"
    detail_template = "The request has a body with Content-Type {content_type!r}."
    remedy_template = "Send Content-Type: application/json (curl: -H 'Content-Type: application/json')."


class MalformedJson(StillpointError):
    code = "malformed_json"
    title = "The body is not JSON"
    detail_template = "The request body could not be read as JSON: {reason}."
    remedy_template = "Send one JSON object, with Content-Type: application/json."


class ValidationFailed(StillpointError):
    code = "validation_failed"
    title = "The request is not valid"
    detail_template = "{count} field(s) were refused: {summary}."
    remedy_template = "Correct the fields named in facts.fields; /docs shows every field with an example."


class BodyTooLarge(StillpointError):
    code = "body_too_large"
    title = "The body is too large"
    detail_template = "The request body is larger than {limit_bytes} bytes."
    remedy_template = "A job fits in a few hundred bytes; shorten the labels."


class CursorInvalid(StillpointError):
    code = "cursor_invalid"
    title = "The cursor is not one that was given out"
    detail_template = "The cursor {cursor!r} cannot be read."
    remedy_template = "Use next_cursor of the page before unchanged, or leave cursor out to start at the newest."


class IdempotencyMismatch(StillpointError):
    code = "idempotency_mismatch"
    title = "This Idempotency-Key was used for another request"
    detail_template = "The key {key!r} belongs to job {job_id}, which was created from another body."
    remedy_template = "Use a new Idempotency-Key for a new request; repeat the same body to get the same job."


# --- who is asking --------------------------------------------------------------------------------


class TokenMissing(StillpointError):
    code = "token_missing"
    title = "A bearer token is needed"
    detail_template = "The request has no Authorization: Bearer header."
    remedy_template = "Send the token of the file that the service printed at its first start, or make one with `stillpoint token create`."


class TokenRefused(StillpointError):
    code = "token_refused"
    title = "This bearer token is not valid"
    detail_template = "The token is not known, was revoked, or has expired."
    remedy_template = "Make one on the host with `stillpoint token create`, and look at `stillpoint token list`."


class TokenFileUnwritable(StillpointError):
    code = "token_file_unwritable"
    title = "The file of the first token cannot be written"
    detail_template = "{path}: {reason}."
    remedy_template = "Give the service a STILLPOINT_STATE_DIR that it may write to. No token was stored; the next start tries again."


# --- what cannot be done now ----------------------------------------------------------------------


class CancelRefused(StillpointError):
    code = "cancel_refused"
    title = "This job cannot be cancelled"
    detail_template = "Job {job_id} is {state}: {reason}."
    remedy_template = "Only jobs that are queued or running can be cancelled."


class RetryRefused(StillpointError):
    code = "retry_refused"
    title = "This job cannot be retried"
    detail_template = "Job {job_id} is {state}: {reason}."
    remedy_template = "Only failed and cancelled jobs can be retried; create a new job instead."


class DatabaseUnavailable(StillpointError):
    code = "database_unavailable"
    title = "The database cannot be reached"
    detail_template = "The database did not answer: {reason}."
    remedy_template = "Nothing was changed. Repeat the request in a few seconds; `stillpoint doctor` says what is wrong."


class SchemaOutdated(StillpointError):
    code = "schema_outdated"
    title = "The database schema does not fit this version"
    detail_template = "The database is at revision {found}, this version needs {needed}."
    remedy_template = "Run `stillpoint migrate`."


class SchemaUnknown(StillpointError):
    code = "schema_unknown"
    title = "The database was made by another version"
    detail_template = "The database is at revision {found}, which this version does not know; it needs {needed}."
    remedy_template = "Start the version that made it, or restore a copy of the database from before the upgrade. Nothing was changed."


class SettingInvalid(StillpointError):
    code = "setting_invalid"
    title = "A setting cannot be used"
    detail_template = "{setting}: {reason}."
    remedy_template = "Correct it; `stillpoint doctor` prints the effective settings."


class WorkerAlreadyRuns(StillpointError):
    code = "worker_already_runs"
    title = "A worker of this host already runs"
    detail_template = "{lock} is locked by another process: the worker of host {host} is already running."
    remedy_template = "Stop the other one, or give this one another STILLPOINT_STATE_DIR and STILLPOINT_HOST_ID."


# --- the host and its domains ---------------------------------------------------------------------


class LibvirtUnavailable(StillpointError):
    code = "libvirt_unavailable"
    title = "libvirt cannot be reached"
    detail_template = "No connection to {uri}: {reason}."
    remedy_template = "Start libvirtd on the host; the worker connects again by itself. `stillpoint doctor` checks it."


class LibvirtCallFailed(StillpointError):
    code = "libvirt_call_failed"
    title = "libvirt refused a call"
    detail_template = "{call} failed with libvirt error {libvirt_code}: {message}."
    remedy_template = "Read the message; the host's libvirt log has the rest."


class LibvirtCallTimedOut(StillpointError):
    code = "libvirt_call_timed_out"
    title = "A call to libvirt hangs"
    detail_template = "{call} on {domain} was given up after {timeout_ms:.0f} ms: {why}."
    remedy_template = (
        "libvirtd or the domain's QEMU hangs on the host: read their logs (`virsh domstate {domain}` hangs, too?), then retry."
    )


class StorageNotAnswering(StillpointError):
    code = "storage_not_answering"
    title = "The storage of the overlays does not answer"
    detail_template = "{what} {path} was given up after {timeout_ms:.0f} ms: {why}."
    remedy_template = (
        "Look at the mount on the host (`stat {path}` hangs, too?). What was asked for may still happen when it answers again."
    )


class DomainGone(StillpointError):
    code = "domain_gone"
    title = "The domain no longer exists"
    detail_template = "{uri} has no domain {domain}."
    remedy_template = "It was undefined after the job was created, or moved to another host: see GET /api/v1/domains."


class DomainPaused(StillpointError):
    code = "domain_paused"
    title = "The domain is paused"
    detail_template = "{domain} is {state}, so its guest agent cannot answer and nothing can be frozen."
    remedy_template = (
        'Resume it (`virsh resume {domain}`), or set {{"freeze": {{"mode": "off"}}}} for a point that is only crash-consistent.'
    )


class DomainStateUnsuitable(StillpointError):
    code = "domain_state_unsuitable"
    title = "The domain is in a state in which no snapshot can be taken"
    detail_template = "{domain} is {state}."
    remedy_template = "Wait until it is running or shut off, then try again."


class DomainBusy(StillpointError):
    code = "domain_busy"
    title = "Another job of libvirt runs on this domain"
    detail_template = "{domain}: {what}."
    remedy_template = "Wait until it ends (`virsh domjobinfo {domain}`, `virsh blockjob {domain} DISK`), then retry the job."


class DiskUnknown(StillpointError):
    code = "disk_unknown"
    title = "The domain has no such disk"
    detail_template = "{domain} has no disk {disks}; it has {known}."
    remedy_template = "Name disks by their target, as GET /api/v1/domains/{{id}} lists them."


class DisksCannotTakePart(StillpointError):
    code = "disks_cannot_take_part"
    title = "Disks that were asked for cannot take part in a snapshot"
    detail_template = "{summary}."
    remedy_template = "Leave them out of `disks`, or leave `disks` out to take every disk that can take part."


class NoDiskCanTakePart(StillpointError):
    code = "no_disk_can_take_part"
    title = "No disk of the domain can take part in a snapshot"
    detail_template = "{domain}: {summary}."
    remedy_template = "A snapshot needs at least one writable file or block device with a known format."


class NoAgentChannel(StillpointError):
    code = "no_agent_channel"
    title = "The domain has no guest agent channel"
    detail_template = "The XML of {domain} has no channel named org.qemu.guest_agent.0."
    remedy_template = (
        "Add the channel (`virsh edit {domain}`), install qemu-guest-agent in the guest and start the domain again; "
        'or ask for {{"freeze": {{"mode": "preferred"}}}} and accept a crash-consistent point.'
    )


class AgentNotAnswering(StillpointError):
    code = "agent_not_answering"
    title = "The guest agent does not answer"
    detail_template = "The agent of {domain} did not answer {command} within {timeout_ms} ms: {message}."
    remedy_template = (
        "Check that qemu-guest-agent runs in the guest (`systemctl status qemu-guest-agent`); "
        "a guest that was started seconds ago may need longer."
    )


class AgentBusy(StillpointError):
    """Nothing was sent to the agent: libvirt never got to it."""

    code = "agent_busy"
    title = "Somebody else is talking to the guest agent"
    detail_template = "The agent of {domain} was not free within {timeout_ms:.0f} ms for {command}; held by {held_by}."
    remedy_template = (
        "libvirt passes one command at a time to an agent, and another client's still runs (another backup tool, monitoring?). "
        "Retry when it has ended; a command that never ends is ended by restarting the agent in the guest."
    )


class AgentCommandBlocked(StillpointError):
    code = "agent_command_blocked"
    title = "The guest agent is not allowed to run a command"
    detail_template = "The agent of {domain} refuses {command}: {message}."
    remedy_template = (
        "Allow it in the guest: BLACKLIST_RPC, BLOCK_RPCS or FILTER_RPC_ARGS in /etc/sysconfig/qemu-ga, "
        "or block-rpcs/allow-rpcs in qemu-ga.conf; then restart the agent."
    )


class WindowsCommandBlocked(AgentCommandBlocked):
    """The same in Windows, where it is mended in another place."""

    remedy_template = (
        "Allow it in the guest: --block-rpcs (--blacklist in older agents) or --allow-rpcs in the command line of the service QEMU-GA "
        "(`sc qc QEMU-GA` shows it), or block-rpcs/allow-rpcs in its qemu-ga.conf; then restart that service."
    )


class AgentCommandFailed(StillpointError):
    code = "agent_command_failed"
    title = "The guest agent answered with an error"
    detail_template = "{command} on {domain} failed: {message}."
    remedy_template = "The message comes from the guest's agent; its log in the guest has the rest."


class AgentAnswerUnreadable(StillpointError):
    code = "agent_answer_unreadable"
    title = "The guest agent's answer makes no sense"
    detail_template = "The agent of {domain} answered {command} in a form that it must not have ({reason})."
    remedy_template = "Update qemu-guest-agent in the guest. Nothing of the answer was believed."


class GuestAlreadyFrozen(StillpointError):
    code = "guest_already_frozen"
    title = "Somebody else has frozen this guest"
    remedy_template = (
        "It was left as it is. Ask whoever froze it (another backup tool?), and try again when it is thawed. "
        "If nobody owns the freeze: POST /api/v1/domains/{{id}}/thaw, or `stillpoint thaw {domain}` on the host."
    )

    def __init__(self, *, domain: str, frozen_by: str | Mapping[str, str] = "unknown", frozen_since: str | None = None) -> None:
        """`frozen_by` and `frozen_since` as in `service.model.foreign_freeze`; None: nobody has noted since when."""
        super().__init__(domain=domain, frozen_by=frozen_by, frozen_since=frozen_since)

    @property
    def detail(self) -> str:
        by, since = self.facts["frozen_by"], self.facts["frozen_since"]
        if isinstance(by, Mapping):
            who = f"job {by['job_id']} of Stillpoint froze it, and its thaw was never answered"
        else:
            who = "no job of Stillpoint froze it" if by == "not_stillpoint" else "by whom is not known"
        seen = f"; it was first seen frozen at {since}" if since else ""
        return f"The agent of {self.facts['domain']} says it is frozen, and not by this job: {who}{seen}."


class NothingToFreeze(StillpointError):
    code = "nothing_to_freeze"
    title = "There is nothing that could be frozen"
    detail_template = "{domain}: {why}."
    remedy_template = 'Name disks with filesystems, or ask for {{"freeze": {{"mode": "off"}}}} and accept a crash-consistent point.'


class VssNotUsable(StillpointError):
    code = "vss_not_usable"
    title = "VSS cannot be used in the guest"
    detail_template = "Windows in {domain} cannot be frozen, because VSS cannot be used there: {why}."
    remedy_template = (
        'In the guest, as administrator: `sc qc VSS` and `sc qc "QEMU Guest Agent VSS Provider"` must find both services and not say '
        "DISABLED (`sc config VSS start= demand` mends the first); qga-vss.dll must lie beside qemu-ga.exe, both 64-bit on a 64-bit "
        "Windows. Where one of these is missing, install virtio-win-guest-tools.exe of a current virtio-win image again. Then restart the "
        "service QEMU-GA. Until then freeze.mode `preferred` gives a crash-consistent point."
    )


class VssFreezeFailed(StillpointError):
    code = "vss_freeze_failed"
    title = "VSS did not freeze the guest"
    detail_template = "{domain}: {what} The agent said: {message}"
    remedy_template = "{advice}"


class DiscardFailed(StillpointError):
    code = "discard_failed"
    title = "The point that fell short could not be removed"
    detail_template = "The verdict is {verdict}; {required} was required. Merging the overlays back failed: {message}."
    remedy_template = (
        "The recovery point is kept with its true verdict. `virsh blockjob {domain} DISK` shows what still runs; "
        "`virsh blockcommit {domain} DISK --active --pivot` merges by hand."
    )


class DiscardUnfinished(StillpointError):
    code = "discard_unfinished"
    title = "The point was being removed, and that could not be finished"
    detail_template = (
        "The verdict is {verdict}; {required} was required, so the point was to be removed. "
        "Back on their own file: {merged}; not: {unmerged}. {message}."
    )
    remedy_template = (
        "No data is lost: each disk goes on with the file that it is on, and nothing in use was deleted. There is no recovery point: "
        "the files below the overlays were written to. While the domain runs, `virsh blockjob {domain} DISK` shows what still runs, and "
        "`virsh blockcommit {domain} DISK --active --pivot` merges the rest."
    )


class HoldLimitTooLong(StillpointError):
    code = "hold_limit_too_long"
    title = "Windows cannot hold writes for so long"
    detail_template = "A hold of {asked_ms} ms was asked for; Windows lets writes go after {limit_ms} ms."
    remedy_template = (
        "Leave freeze.hold_limit_ms and freeze.hold_soft_ms out, or set both below 10000; the same for deadline_ms of a quiesce."
    )


class FreezeFailed(StillpointError):
    code = "freeze_failed"
    title = "The guest could not be frozen"
    detail_template = "{domain}: {message}."
    remedy_template = (
        "No snapshot was taken. Read GET /api/v1/jobs/{{id}}/explain, mend the cause, and retry; "
        'or ask for {{"freeze": {{"mode": "preferred"}}}} to accept a crash-consistent point.'
    )


class SpaceInsufficient(StillpointError):
    code = "space_insufficient"
    title = "There is not enough space for the overlays"
    detail_template = "{path} has {free_bytes} bytes free; {needed_bytes} are needed."
    remedy_template = "Free space there, or set STILLPOINT_OVERLAY_DIR to a folder that has it."


class OverlayPreparationFailed(StillpointError):
    code = "overlay_preparation_failed"
    title = "The overlays could not be made"
    detail_template = "{path}: {reason}."
    remedy_template = "Nothing was frozen or changed. Check the folder's rights and space on the host."


class SnapshotFailed(StillpointError):
    code = "snapshot_failed"
    title = "libvirt could not take the snapshot"
    detail_template = "{domain}: {message}. The disks were read afterwards: {disks_state}."
    remedy_template = "The domain goes on with its disks as they were. Read the message and retry the job."


class DisksInDoubt(StillpointError):
    code = "disks_in_doubt"
    title = "Some disks were switched to their overlays and some were not"
    detail_template = "{domain}: on their overlay: {switched}; not: {unswitched}."
    remedy_template = (
        "Nothing was deleted. For each switched disk, `virsh blockcommit {domain} DISK --active --pivot` "
        "brings the data back into the file below."
    )


class VerdictBelowRequired(StillpointError):
    code = "verdict_below_required"
    title = "The recovery point is worse than what was required"
    detail_template = "The verdict is {verdict}; {required} was required. The recovery point {kept}."
    remedy_template = "GET /api/v1/jobs/{{id}}/explain says what lowered it and what would lift it."


class WorkerLost(StillpointError):
    code = "worker_lost"
    title = "The worker died or lost its lease while the job ran"
    detail_template = "{story}."
    remedy_template = "Retry the job. What recovery found and did stands in the job's evidence."


class GateNotFound(StillpointError):
    code = "gate_not_found"
    title = "No such gate"
    detail_template = "Job {job_id} is no quiesce of {domain}."
    remedy_template = "POST /api/v1/domains/{{domain}}/quiesce makes one; its answer has the id of the job."


class GateTokenWrong(StillpointError):
    code = "gate_token_wrong"
    title = "This is not the token of the gate"
    detail_template = "The token does not release the gate of job {job_id}."
    remedy_template = (
        "Send the token that the quiesce was answered with. Without it, POST /api/v1/domains/{{domain}}/thaw thaws the guest all the same."
    )


class GateClosed(StillpointError):
    code = "gate_closed"
    title = "This gate is closed"
    detail_template = "The gate of job {job_id} is closed: it was released, or its time is over."
    remedy_template = "Read the job for how it went. A new quiesce needs another Idempotency-Key."


class GateNotOpened(StillpointError):
    code = "gate_not_opened"
    title = "The gate did not open"
    detail_template = "{domain} was frozen, but {why}; it was thawed."
    remedy_template = "Ask for a new quiesce, with a longer deadline_ms if the time was too short."


class GateDeadlinePassed(StillpointError):
    code = "gate_deadline_passed"
    title = "The gate was not released in time"
    detail_template = "Nobody released the gate of {domain} within {hold_budget_ms} ms, so the guest was thawed."
    remedy_template = "What was copied meanwhile is crash-consistent at most. Ask for a new quiesce, with a longer deadline_ms if need be."


class GateClosedEarly(StillpointError):
    code = "gate_closed_early"
    title = "The guest was thawed before the gate was released"
    detail_template = "{domain} was thawed before its gate was released: {why}."
    remedy_template = "What was copied meanwhile is crash-consistent at most. Ask for a new quiesce."


class GuardNotReady(StillpointError):
    code = "guard_not_ready"
    title = "The guest was not frozen, because nothing stood ready to thaw it"
    detail_template = "The thaw guard for {domain} did not come up: {reason}."
    remedy_template = "Nothing was changed. Look at libvirt and at the memory of this host, then try again."


class HoldSpent(StillpointError):
    code = "hold_spent"
    title = "It was too late for the point in time, so none was taken"
    detail_template = "{domain} was frozen, but {why}; it was thawed and nothing was taken."
    remedy_template = "Try again. If it happens often, look at the load of this host, or allow more with freeze.hold_limit_ms."


class GuestStillFrozen(StillpointError):
    code = "guest_still_frozen"
    title = "The guest could not be thawed"
    detail_template = "{domain} did not answer a thaw within {tried_ms} ms: {message}."
    remedy_template = (
        "Act now: `stillpoint thaw {domain}` on the host; in the guest's console `fsfreeze --unfreeze MOUNTPOINT`; "
        "at the last, reset the guest."
    )


class GuestMayBeFrozen(StillpointError):
    code = "guest_may_be_frozen"
    title = "The guest may be frozen, and cannot be thawed now"
    detail_template = "{domain} is {state}: its agent cannot answer, and what the dead worker froze may still be frozen."
    remedy_template = (
        "It is thawed by itself as soon as it runs (`virsh resume {domain}`); shutting it off ends the wait too. Until then the job waits."
    )


class JobCancelled(StillpointError):
    code = "job_cancelled"
    title = "The job was cancelled"
    detail_template = "Cancelled at the safe point before {phase}."
    remedy_template = "Retry the job to run it again."


class LeaseLost(StillpointError):
    code = "lease_lost"
    title = "This worker no longer owns the job"
    detail_template = "The lease of job {job_id} is held by somebody else."
    remedy_template = "The outcome is recorded by recovery; nothing needs to be done."
