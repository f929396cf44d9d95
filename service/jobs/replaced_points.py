"""A job that begins to read a point waits for the moment in which a merge replaces its files, or those of a point below it."""

import threading
from collections.abc import Iterable

from service.errors import RecordUnreadable, RecoveryPointNotFound, VersionUnknown
from service.jobs.run import JobRun
from service.model.lifecycle import PhaseName
from service.records import merging
from service.repository import manifests, signing

TICK_S = 0.2
"""Seconds between two looks. The moment is short; only if the worker of the merge dies in it, it lasts until its job is recovered."""


def wait_until_in_place(run: JobRun, phase: PhaseName, repository_id: str, domain_id: str, read: Iterable[str] | None = None) -> None:
    """`read`: the points that will be read; None: any of the domain. From now on a merge waits for this job, which has begun.

    Raises JobCancelled, LeaseLost.
    """
    wanted = list(read) if read is not None else None
    pause = threading.Event()
    while run.in_transaction(lambda session: merging.being_replaced(session, repository_id, domain_id, wanted)):
        run.safe_point(phase)
        pause.wait(TICK_S)


def is_the_next(run: JobRun, manifest: str) -> bool:
    """Whether a merge that died for good had put this manifest in the place of the one on record. Then it is on record afterwards."""
    try:
        seen = manifests.parsed(manifest)
        return run.in_transaction(lambda session: merging.settled(session, seen.point_id, seen, signing.digest(manifest.encode())))
    except (RecordUnreadable, VersionUnknown, RecoveryPointNotFound):
        return False
