"""The guest of a job whose worker died: ask the agent, and thaw until the agent answers."""

from service import log
from service.errors import GuestMayBeFrozen, GuestStillFrozen, LibvirtUnavailable, StillpointError
from service.freeze import fuse
from service.freeze.window import thaw_until_answered
from service.hypervisor.guest import Guest
from service.model.fuse import FuseState
from service.model.inventory import DomainState
from service.model.window import ThawOutcome

_logger = log.get(__name__)

#: Sentences of the story that recovery writes. Tests compare with these names.
SHUT_OFF = "The domain is shut off, so nothing is frozen."
NOT_FROZEN = "The guest was not frozen."
THAWED = "The guest was frozen and was thawed ({count} filesystems)."
NOT_THAWED = "The guest could not be thawed."
RESTARTED = "The domain was started again since, so nothing of that freeze is left."
FROZEN_BY_ANOTHER = "The guest is frozen, and not by this job: it was left as it is."
FUSE_STORIES = {
    FuseState.disarmed: "The fuse that was left in the guest was disarmed.",
    FuseState.fired: "The fuse that was left in the guest had fired: the guest had thawed itself.",
    FuseState.armed: "The fuse that was left in the guest is still armed, and ends by itself.",
}


def thaw(guest: Guest, instance: int | None, story: list[str], patience_s: float, *, may_have_fuse: bool = False) -> StillpointError | None:
    """End a freeze that may have been sent. Returns an error if the thaw failed and must be tried again.

    `instance`: `Guest.instance` of the guest that was to be frozen; None: not known.
    `may_have_fuse`: the dead worker may have left a fuse in the guest. The fuse is disarmed after the agent has answered `thawed`.
    """
    state = guest.state()
    if state is DomainState.shut_off:
        story.append(SHUT_OFF)
        return None
    if state is not DomainState.running:
        shown = "paused" if state is DomainState.paused else "neither running nor shut off"
        story.append(f"The domain is {shown}: its agent cannot answer, and the guest may be frozen.")
        return GuestMayBeFrozen(domain=guest.name, state=shown)
    try:
        was_frozen = guest.is_frozen()
    except LibvirtUnavailable:
        raise
    except StillpointError as error:
        story.append(f"The agent did not say whether the guest is frozen ({error.detail}).")
        was_frozen = True
    if not was_frozen:
        story.append(NOT_FROZEN)
        _disarm_left_fuse(guest, story, may_have_fuse)
        return None
    reply = thaw_until_answered(guest, None, patience_s)
    if reply.outcome is ThawOutcome.unanswered:
        # Only if the agent is silent: a domain that was migrated away and back has a new number too, and may be frozen.
        if instance is not None and guest.instance() not in (instance, -1):
            story.append(RESTARTED)
            return None
        story.append(NOT_THAWED)
        return GuestStillFrozen(domain=guest.name, tried_ms=patience_s * 1000, message=reply.message)
    if reply.outcome is ThawOutcome.lost and reply.message:
        story.append(f"Nothing is left to thaw: {reply.message}.")
    else:
        story.append(THAWED.format(count=reply.count) if reply.count else "A thaw was sent and answered.")
    _disarm_left_fuse(guest, story, may_have_fuse)
    return None


def _disarm_left_fuse(guest: Guest, story: list[str], may_have_fuse: bool) -> None:
    """Only after the agent has answered: a fuse that is disarmed too early cannot help. A fuse that stays armed ends by itself."""
    sentence = FUSE_STORIES.get(fuse.disarm_left_fuse(guest)) if may_have_fuse else None
    if sentence is not None:
        story.append(sentence)


def report_foreign_freeze(guest: Guest, story: list[str]) -> None:
    """For a job that froze nothing. If the guest is frozen, another client froze the guest, and it is left frozen."""
    if guest.state() is not DomainState.running or not guest.agent_is_connected():
        return
    try:
        is_frozen = guest.is_frozen()
    except LibvirtUnavailable:
        raise
    except StillpointError:
        return
    if is_frozen:
        story.append(FROZEN_BY_ANOTHER)
        _logger.warning("guest_frozen_by_somebody_else", domain=guest.name)
