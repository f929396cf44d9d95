"""The guest of a job whose worker died: nothing is assumed, the agent is asked and a thaw is answered."""

from service import log
from service.errors import GuestMayBeFrozen, GuestStillFrozen, LibvirtUnavailable, StillpointError
from service.freeze import fuse
from service.freeze.window import thaw_until_answered
from service.hypervisor.guest import Guest
from service.model.fuse import FuseState
from service.model.inventory import DomainState
from service.model.window import ThawOutcome

_logger = log.get(__name__)

_FUSE_STORIES = {
    FuseState.disarmed: "The fuse that was left in the guest was put out.",
    FuseState.fired: "The fuse that was left in the guest had burned down: the guest had thawed itself.",
    FuseState.armed: "The fuse that was left in the guest was left to burn; it ends by itself.",
}


def thaw(guest: Guest, instance: int | None, story: list[str], patience_s: float, *, may_have_fuse: bool = False) -> StillpointError | None:
    """End the freeze that may have been sent. An error: it could not be ended now, and must be tried again.

    `instance`: `Guest.instance` of the guest that was to be frozen; None: it is not known.
    `may_have_fuse`: the dead worker may have left one in the guest; it is put out once the agent has said that the guest is thawed.
    """
    state = guest.state()
    if state is DomainState.shut_off:
        story.append("The domain is shut off, so nothing is frozen.")
        return None
    if state is not DomainState.running:
        shown = "paused" if state is DomainState.paused else "neither running nor shut off"
        story.append(f"The domain is {shown}: its agent cannot answer, and it may be frozen.")
        return GuestMayBeFrozen(domain=guest.name, state=shown)
    try:
        was_frozen = guest.is_frozen()
    except LibvirtUnavailable:
        raise
    except StillpointError as error:
        story.append(f"The agent did not say whether the guest is frozen ({error.detail}).")
        was_frozen = True
    if not was_frozen:
        story.append("The guest was not frozen.")
        _disarm_left_fuse(guest, story, may_have_fuse)
        return None
    reply = thaw_until_answered(guest, None, patience_s)
    if reply.outcome is ThawOutcome.unanswered:
        # Only where nobody answers: a domain that was migrated away and back has a new number too, and may be frozen.
        if instance is not None and guest.instance() not in (instance, -1):
            story.append("The domain was started anew since, so nothing of that freeze is left.")
            return None
        story.append("The guest could not be thawed.")
        return GuestStillFrozen(domain=guest.name, tried_ms=patience_s * 1000, message=reply.message)
    if reply.outcome is ThawOutcome.lost and reply.message:
        story.append(f"There is nothing left to thaw: {reply.message}.")
    else:
        story.append(
            f"The guest was frozen and was thawed ({reply.count} filesystems)." if reply.count else "A thaw was sent and answered."
        )
    _disarm_left_fuse(guest, story, may_have_fuse)
    return None


def _disarm_left_fuse(guest: Guest, story: list[str], may_have_fuse: bool) -> None:
    """Only after an answer: a fuse that fails to be put out ends by itself, one that is put out too early saves nobody."""
    told = _FUSE_STORIES.get(fuse.disarm_left_fuse(guest)) if may_have_fuse else None
    if told is not None:
        story.append(told)


def report_foreign_freeze(guest: Guest, story: list[str]) -> None:
    """This job holds nothing: a guest that is frozen all the same is somebody else's, and is left to them."""
    if guest.state() is not DomainState.running or not guest.agent_is_connected():
        return
    try:
        is_frozen = guest.is_frozen()
    except LibvirtUnavailable:
        raise
    except StillpointError:
        return
    if is_frozen:
        story.append("The guest is frozen, and not by this job: it was left as it is.")
        _logger.warning("guest_frozen_by_somebody_else", domain=guest.name)
