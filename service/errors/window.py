"""Freezing a guest: why a guest cannot be frozen, held or thawed, and why a gate does not open or hold."""

from collections.abc import Mapping

from service.errors.base import StillpointError

_OWNERS = {
    "job": "Job {job_id} of Stillpoint froze the guest, and its thaw was never answered.",
    "not_stillpoint": "No job of Stillpoint froze the guest.",
    "unknown": "It is not known who froze the guest.",
}


class GuestAlreadyFrozen(StillpointError):
    code = "guest_already_frozen"
    title = "The guest is already frozen by another client"
    remedy_template = (
        "The guest was left frozen. Find the client that froze it (another backup tool?), and try again when the guest is thawed. "
        "If no client owns the freeze: POST /api/v1/domains/{{id}}/thaw, or `stillpoint thaw {domain}` on the host."
    )

    def __init__(self, *, domain: str, frozen_by: Mapping[str, str | None] | None = None, frozen_since: str | None = None) -> None:
        """`frozen_by` as in `service.model.foreign_freeze`; None: unknown. `frozen_since` None: the time is not on record."""
        super().__init__(domain=domain, frozen_by=dict(frozen_by or {"kind": "unknown", "job_id": None}), frozen_since=frozen_since)

    @property
    def detail(self) -> str:
        by, since = self.facts["frozen_by"], self.facts["frozen_since"]
        who = _OWNERS[by["kind"]].format(job_id=by["job_id"])
        seen = f" The guest was first seen frozen at {since}." if since else ""
        return f"The agent of {self.facts['domain']} says that the guest is frozen, and this job did not freeze it. {who}{seen}"


class NothingToFreeze(StillpointError):
    code = "nothing_to_freeze"
    title = "The disks of the job have nothing to freeze"
    detail_template = "{domain}: {why}."
    remedy_template = 'Name disks with filesystems, or send {{"freeze": {{"mode": "off"}}}} and accept a crash-consistent point.'


class VssNotUsable(StillpointError):
    code = "vss_not_usable"
    title = "VSS cannot be used in the guest"
    detail_template = "Windows in {domain} cannot be frozen, because VSS cannot be used there: {why}."
    remedy_template = (
        'In the guest, as administrator: `sc qc VSS` and `sc qc "QEMU Guest Agent VSS Provider"` must show both services, and neither may '
        "be DISABLED (`sc config VSS start= demand` enables VSS). qga-vss.dll must be in the folder of qemu-ga.exe, and both must be "
        "64-bit on a 64-bit Windows. If one of these is missing, install virtio-win-guest-tools.exe of a current virtio-win image again. "
        "Then restart the service QEMU-GA. Until then freeze.mode `preferred` gives a crash-consistent point."
    )


class VssFreezeFailed(StillpointError):
    code = "vss_freeze_failed"
    title = "VSS did not freeze the guest"
    detail_template = "{domain}: {what} The agent said: {message}"
    remedy_template = "{advice}"


class HoldLimitTooLong(StillpointError):
    code = "hold_limit_too_long"
    title = "Windows cannot hold writes for so long"
    detail_template = "The request asks for a hold of {asked_ms} ms. Windows releases the writes after {limit_ms} ms."
    remedy_template = (
        "Leave freeze.hold_limit_ms and freeze.hold_soft_ms out, or set both below 10000. For a quiesce, set deadline_ms below 10000."
    )


class FreezeFailed(StillpointError):
    code = "freeze_failed"
    title = "The guest could not be frozen"
    detail_template = "{domain}: {message}."
    remedy_template = (
        "No snapshot was taken. Read GET /api/v1/jobs/{{id}}/explain, remove the cause, and retry. "
        'Or send {{"freeze": {{"mode": "preferred"}}}} to accept a crash-consistent point.'
    )


class NothingFrozen(StillpointError):
    code = "nothing_frozen"
    title = "The guest's agent froze nothing"
    detail_template = (
        "{domain}: {expected} filesystems that can be frozen are mounted, and the agent froze none of them. "
        "Either a program in the guest has frozen them already, or they refuse the freeze."
    )
    remedy_template = (
        "No snapshot was taken. Find the program in the guest that froze the filesystems (`fsfreeze`, another backup tool), and let it "
        "finish. If that program is gone, run `fsfreeze --unfreeze MOUNTPOINT` in the guest. Then retry."
    )


class GateNotFound(StillpointError):
    code = "gate_not_found"
    title = "No such gate"
    detail_template = "Job {job_id} is not a quiesce of {domain}."
    remedy_template = "POST /api/v1/domains/{{domain}}/quiesce makes a gate and gives the id of its job."


class GateTokenWrong(StillpointError):
    code = "gate_token_wrong"
    title = "This is not the token of the gate"
    detail_template = "The token does not release the gate of job {job_id}."
    remedy_template = "Send the token that the quiesce answered. POST /api/v1/domains/{{domain}}/thaw thaws the guest without that token."


class GateClosed(StillpointError):
    code = "gate_closed"
    title = "This gate is closed"
    detail_template = "The gate of job {job_id} is closed: the gate was released, or its deadline has passed."
    remedy_template = "GET /api/v1/jobs/{job_id} says how the hold went. A new quiesce needs another Idempotency-Key."


class GateNotOpened(StillpointError):
    code = "gate_not_opened"
    title = "The gate did not open"
    detail_template = "{domain} was frozen, but {why}. The guest was thawed."
    remedy_template = "Request a new quiesce, with a longer deadline_ms if the time was too short."


class GateDeadlinePassed(StillpointError):
    code = "gate_deadline_passed"
    title = "The gate was not released in time"
    detail_template = "No client released the gate of {domain} within {hold_budget_ms} ms, so the guest was thawed."
    remedy_template = (
        "A copy that was made meanwhile is crash-consistent at most. Request a new quiesce, with a longer deadline_ms if needed."
    )


class GateClosedEarly(StillpointError):
    code = "gate_closed_early"
    title = "The guest was thawed before the gate was released"
    detail_template = "{domain} was thawed before its gate was released: {why}."
    remedy_template = "A copy that was made meanwhile is crash-consistent at most. Request a new quiesce."


class GuardNotReady(StillpointError):
    code = "guard_not_ready"
    title = "The guest was not frozen, because its thaw guard was not ready"
    detail_template = "The thaw guard for {domain} did not start: {reason}."
    remedy_template = "Nothing was changed. Check libvirt and the free memory of this host, then try again."


class HoldSpent(StillpointError):
    code = "hold_spent"
    title = "The time of the hold ran out, so no snapshot was taken"
    detail_template = "{domain} was frozen, but {why}. The guest was thawed, and no snapshot was taken."
    remedy_template = "Try again. If this happens often, check the load of this host, or raise freeze.hold_limit_ms."


class GuestStillFrozen(StillpointError):
    code = "guest_still_frozen"
    title = "The guest could not be thawed"
    detail_template = "{domain} did not answer a thaw within {tried_ms} ms: {message}."
    remedy_template = (
        "Act now. Run `stillpoint thaw {domain}` on the host. If that does not help, run `fsfreeze --unfreeze MOUNTPOINT` in the guest's "
        "console. If libvirt has lost the agent, restart the agent in the guest: that thaws the guest. As the last resort, reset the guest."
    )


class ThawUnanswered(StillpointError):
    code = "thaw_unanswered"
    title = "The thaw was never answered, but the guest writes to its disks again"
    detail_template = "{domain} did not answer the thaw: {message}. The guest writes to its disks, so the guest is not frozen."
    remedy_template = (
        "Nothing proves how long the freeze held. Restart the agent in the guest (`systemctl restart qemu-guest-agent`; on Windows the "
        "service QEMU-GA), then try again."
    )


class GuestHookHangs(StillpointError):
    code = "guest_hook_hangs"
    title = "The guest's fsfreeze hook does not end"
    detail_template = (
        "{domain} did not answer {command} within {tried_ms} ms, and writes to {disks}. The guest is not frozen: "
        "its agent waits for the fsfreeze hook ({hook})."
    )
    remedy_template = (
        "End the hook in the guest and restart the agent there (`systemctl restart qemu-guest-agent`). Until then the agent is silent. "
        "If the hook ends late, the agent freezes the guest after all, and the thaw guard thaws it. "
        "Then set a time limit for the programs that the hook calls."
    )


class GuestMayBeFrozen(StillpointError):
    code = "guest_may_be_frozen"
    title = "The guest may be frozen, and cannot be thawed now"
    detail_template = "{domain} is {state}, so its agent cannot answer. The guest may still be frozen by the worker that died."
    remedy_template = (
        "Resume the domain (`virsh resume {domain}`): the service then thaws the guest. The job waits until then, or until the domain is "
        "shut off."
    )
