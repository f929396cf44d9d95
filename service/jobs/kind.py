"""What a kind of job is to the worker: three functions. The table of kinds (`service.model.kinds`) says what it is to everybody else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from sqlalchemy.orm import Session

from service.db.engine import Database
from service.db.tables import Job, RecoveryPoint
from service.disks.at_rest import GuestsOfHost
from service.errors import StillpointError
from service.freeze.guard import GuardSource
from service.hypervisor.guest import Guest
from service.jobs.ending import Ending
from service.jobs.run import JobRun
from service.model.intent import Intent
from service.model.verdict import Judgement

T = TypeVar("T")


@dataclass(frozen=True)
class Host:
    """What a job may use of the host that it runs on. `guest`: by id or name; raises DomainGone, LibvirtUnavailable."""

    guest: Callable[[str], Guest]
    guests: GuestsOfHost
    guards: GuardSource


@dataclass
class LostJob:
    """A job whose worker died. Its handler gets it once the guest is thawed, and nothing moves the disks any more."""

    job: Job
    intent: Intent
    database: Database
    #: What recovery saw and did, sentence by sentence; the job tells it.
    story: list[str] = field(default_factory=list)
    #: None: the domain is not on this host any more.
    guest: Guest | None = None

    def in_transaction(self, work: Callable[[Session], T]) -> T:
        with self.database.write() as session:
            return work(session)


@dataclass(frozen=True)
class Resolution:
    """What is true of a lost job, and what follows.

    `is_tried_again`: if an attempt is left and nobody wants it cancelled. Otherwise the job ends with `error`; None: with WorkerLost.
    """

    is_tried_again: bool = False
    error: StillpointError | None = None
    #: Of a job that is not tried again; None: what stands in its row is true.
    judgement: Judgement | None = None
    result: dict[str, Any] | None = None
    point: RecoveryPoint | None = None
    #: What the job had judged was undone, as the job asks for.
    was_rolled_back: bool = False


class Handler(Protocol):
    """Of one kind. Handlers keep nothing of a job: all jobs of the kind share one."""

    def run(self, run: JobRun, host: Host) -> Ending:
        """Every phase of the job. An error before `JobRun.point_is_pending` goes to `ended_early`; one after it, to recovery."""
        ...

    def recover(self, lost: LostJob, host: Host) -> Resolution:
        """Raises LibvirtUnavailable, DatabaseUnavailable: nothing is decided then, and it is asked again later."""
        ...

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:
        """Nothing was frozen and nothing taken."""
        ...


Handlers = Mapping[str, Handler]
"""By the name of the kind, as a job's row has it."""
