"""The emergency thaw: as a job, and as a command that needs neither database nor API."""

from dataclasses import asdict, dataclass
from typing import Any

from service.errors import DomainPaused, GuestStillFrozen, NoAgentChannel, StillpointError
from service.freeze.window import thaw_until_answered
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.run import JobRun
from service.model.inventory import DomainState
from service.model.lifecycle import PhaseName
from service.model.window import ThawOutcome
from service.records import gates

PATIENCE_S = 60.0
"""Seconds for which thaw is sent until the agent answers. After that GuestStillFrozen is raised."""


@dataclass(frozen=True)
class ThawResult:
    """`was_frozen` None: the agent did not say. `thawed`: the number of filesystems; None: the agent answered with `message` instead."""

    domain: str
    was_frozen: bool | None
    thawed: int | None
    message: str | None
    frozen_now: bool | None

    def as_document(self) -> dict[str, Any]:
        return asdict(self)


def thaw(uri: str, domain: str) -> ThawResult:
    """Thaw the guest of a domain of this host, by name or UUID. Raises DomainGone, LibvirtUnavailable, GuestStillFrozen, ..."""
    connection = HostConnection(uri)
    try:
        return thaw_guest(connection.guest(domain))
    finally:
        connection.close()


def thaw_guest(guest: Guest, patience_s: float = PATIENCE_S) -> ThawResult:
    """Send thaw until the agent answers, also if the agent says that the guest is not frozen."""
    if guest.state() is not DomainState.running:
        raise DomainPaused(domain=guest.name, state=guest.state().value.replace("_", " "))
    if not guest.has_agent_channel():
        raise NoAgentChannel(domain=guest.name)
    was_frozen = _status(guest)
    reply = thaw_until_answered(guest, None, patience_s)
    if reply.outcome is ThawOutcome.unanswered:
        raise GuestStillFrozen(domain=guest.name, tried_ms=patience_s * 1000, message=reply.message)
    return ThawResult(guest.name, was_frozen, reply.count, reply.message, _status(guest))


class Thaw:
    """The handler of the kind."""

    def run(self, run: JobRun, host: Host) -> Ending:
        with run.phase_that_cannot_be_cancelled(PhaseName.thaw):
            result = thaw_guest(host.guest(run.claim.guest_id))
        # After the thaw, because the database must not delay a thaw. The caller of an open gate learns of the thaw now, not at the release.
        run.in_transaction(lambda session: gates.close_of_domain(session, run.claim.guest_id))
        return Ending(result=result.as_document())

    def recover(self, lost: LostJob, host: Host) -> Resolution:  # noqa: ARG002 - as every handler has it
        return Resolution(is_tried_again=lost.guest is not None)

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        return Ending(error)


def _status(guest: Guest) -> bool | None:
    try:
        return guest.is_frozen()
    except StillpointError:
        return None
