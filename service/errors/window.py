"""Freezing a guest: what keeps it from being frozen, held, or thawed, and gates that hold it for a caller."""

from collections.abc import Mapping

from service.errors.base import StillpointError


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


class NothingFrozen(StillpointError):
    code = "nothing_frozen"
    title = "The guest's agent froze nothing"
    detail_template = (
        "{domain}: {expected} filesystems that can be frozen are mounted, and the agent froze none of them: "
        "they are frozen already, from inside the guest, or refuse it."
    )
    remedy_template = (
        "No snapshot was taken. See in the guest who froze them (`fsfreeze`, another backup tool) and let it end; "
        "`fsfreeze --unfreeze MOUNTPOINT` ends what nobody ends. Then retry."
    )


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
        "Act now: `stillpoint thaw {domain}` on the host; in the guest's console `fsfreeze --unfreeze MOUNTPOINT`, "
        "or restart the agent there where libvirt has lost the agent (the guest is thawed then); at the last, reset the guest."
    )


class ThawUnanswered(StillpointError):
    code = "thaw_unanswered"
    title = "The thaw was never answered, but the guest writes to its disks again"
    detail_template = "{domain} did not answer the thaw: {message}. The guest is seen to write to its disks, so the guest is not frozen."
    remedy_template = (
        "Nothing proves how long the freeze held. Restart the agent in the guest (`systemctl restart qemu-guest-agent`; on Windows the "
        "service QEMU-GA), then try again."
    )


class GuestHookHangs(StillpointError):
    code = "guest_hook_hangs"
    title = "The guest's fsfreeze hook does not end"
    detail_template = (
        "{domain} did not answer {command} within {tried_ms} ms, and goes on writing to {disks}: it is not frozen, "
        "its agent waits for the fsfreeze hook ({hook})."
    )
    remedy_template = (
        "End the hook in the guest and restart its agent (`systemctl restart qemu-guest-agent`): until then the agent answers nobody, and "
        "after a hook that ends late the agent goes on to freeze, which the thaw guard ends. Then give what the hook calls a time limit."
    )


class GuestMayBeFrozen(StillpointError):
    code = "guest_may_be_frozen"
    title = "The guest may be frozen, and cannot be thawed now"
    detail_template = "{domain} is {state}: its agent cannot answer, and what the dead worker froze may still be frozen."
    remedy_template = (
        "It is thawed by itself as soon as it runs (`virsh resume {domain}`); shutting it off ends the wait too. Until then the job waits."
    )
