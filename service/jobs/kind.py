"""A handler: the three functions of one kind of job, for the worker. `service.model.kinds` tells all other rooms what a kind is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from sqlalchemy.orm import Session

from service.db.engine import Database
from service.db.tables import Job, RecoveryPoint
from service.disks.at_rest import GuestsOfHost
from service.errors import StillpointError
from service.freeze.guard import GuardSource
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.jobs.ending import Ending
from service.jobs.run import JobRun
from service.model.intent import Intent
from service.model.verdict import Judgement

T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """The parts of its host that a job may use. `guest` takes an id or a name, and raises DomainGone, LibvirtUnavailable."""

    guest: Callable[[str], Guest]
    guests: GuestsOfHost
    guards: GuardSource
    #: For what is about no domain that exists: to define one, and to ask for the host's security drivers.
    connection: HostConnection


@dataclass
class LostJob:
    """A job whose worker died. The handler gets the job after its guest was thawed, when nothing can move the disks any more."""

    job: Job
    intent: Intent
    database: Database
    #: Sentences about what recovery saw and did. The job shows them.
    story: list[str] = field(default_factory=list)
    #: None: the domain is not on this host any more, or the job is not about a domain.
    guest: Guest | None = None

    def in_transaction(self, work: Callable[[Session], T]) -> T:
        with self.database.write() as session:
            return work(session)


@dataclass(frozen=True)
class Resolution:
    """What is true of a lost job, and what follows.

    `is_tried_again`: run the job again, if an attempt is left and nobody asked to cancel the job. Otherwise the job ends with `error`, or
    with WorkerLost if `error` is None.
    """

    is_tried_again: bool = False
    #: What the next attempt begins with. None: the next attempt begins from nothing. With an intent the job keeps its evidence, its timing
    #: and its verdict, and the next attempt continues where this one was lost.
    continues_with: Intent | None = None
    error: StillpointError | None = None
    #: The judgement of a job that is not tried again. None: the judgement in the job's row is true.
    judgement: Judgement | None = None
    result: dict[str, Any] | None = None
    point: RecoveryPoint | None = None
    #: The point that the job had judged was discarded, as the job asks for.
    was_rolled_back: bool = False


class Handler(Protocol):
    """All jobs of a kind share one handler, so a handler keeps no state of a job."""

    def run(self, run: JobRun, host: Host) -> Ending:
        """Every phase of the job. An error before `JobRun.point_is_pending` goes to `ended_early`, a later error to recovery."""
        ...

    def recover(self, lost: LostJob, host: Host) -> Resolution:
        """Decide about a job whose worker died. Raises LibvirtUnavailable, DatabaseUnavailable: the handler is then asked again later."""
        ...

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:
        """The ending of a job whose error came before anything was frozen or taken."""
        ...


Handlers = Mapping[str, Handler]
"""The key is the name of the kind, as the job's row has the name."""
