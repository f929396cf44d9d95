"""A merge of points beside the disk: the overlay of each point is committed into the files of the point, while the guest runs or is off.

What lies in the chain is the truth about how far a merge is, and not what an earlier attempt has noted. The point is given up on record
before the first byte moves. An overlay is deleted only after the points that named it name the file below it.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Job, RecoveryPoint
from service.disks import chain_users, merge_space, overlays
from service.disks.chain_merging import chain_of, merge_below
from service.disks.putting_back import put_back
from service.errors import (
    ImageInUse,
    JobCancelled,
    LeaseLost,
    OverlaysLeft,
    PointFilesShared,
    PointMergeUnfinished,
    PointPinned,
    RecoveryPointNotFound,
)
from service.hypervisor.guest import Guest
from service.jobs.backup_end import Way, merge_all, remarks
from service.jobs.ending import Ending
from service.jobs.kind import Host
from service.jobs.merge_progress import MergeProgress
from service.jobs.run import JobRun, MustRecover
from service.model.chain_links import Link, Place, links_of
from service.model.intent import Intent, Overlay
from service.model.lifecycle import PhaseName
from service.model.requests import MergeRequest
from service.records import chain_points, queue, removal

PATIENCE_S = 600.0
"""Seconds that an attempt waits for the program of an earlier one that still merges. After that the job fails."""
TICK_S = 0.2
"""Seconds between two looks at it."""
VERSION = 1
"""The version of the intent's own part: the point that goes, and by target the overlays of which the merge was begun."""


class _Stoppable(MergeProgress):
    """Raises JobCancelled at a wish to cancel. Raises MustRecover where the service stops: QEMU continues, and the next attempt looks."""

    def __call__(self, target: str, done_bytes: int, total_bytes: int) -> None:
        super().__call__(target, done_bytes, total_bytes)
        if self._run.ends_at is not None:
            raise MustRecover(what="The service was told to stop")
        self._run.safe_point(PhaseName.merge)


class ChainMerge:
    """One attempt of one job. Points that an earlier attempt has removed are not looked for again."""

    def __init__(self, run: JobRun, host: Host) -> None:
        self._run, self._host = run, host
        earlier = run.in_transaction(lambda session: session.scalar(select(Job.result).where(Job.id == run.claim.job_id))) or {}
        self._removed: list[dict[str, Any]] = list((earlier.get("prune") or {}).get("removed", ()))
        own = Intent.from_document(run.claim.intent).own or {}
        self._begun: dict[str, dict[str, str]] = {str(own["point"]): dict(own["begun"])} if own.get("v") == VERSION else {}

    def run(self) -> Ending:
        for point_id in self._run.request(MergeRequest).recovery_points:
            if all(point_id != removed["id"] for removed in self._removed):
                self._merge(point_id)
        return Ending(result=self._result(), is_undone=True)

    def _result(self) -> dict[str, Any]:
        freed = sum(point["freed_bytes"] for point in self._removed)
        return {"merge": {"merged": []}, "prune": {"removed": self._removed, "stayed": [], "freed_bytes": freed}}

    def _merge(self, point_id: str) -> None:
        with self._run.phase(PhaseName.plan):
            guest = self._host.guest(self._run.claim.guest_id)
            links = self._plan(guest, point_id)
        before = _allocated(links)
        with self._run.phase(PhaseName.merge) as phase:
            self._run.in_transaction(lambda session: self._given_up(session, point_id))
            warnings = [warning for link in links for warning in self._link(guest, point_id, link)]
            if warnings:
                phase.warn("; ".join(warnings))
        with self._run.phase_that_cannot_be_cancelled(PhaseName.remove):
            freed = max(0, before - _allocated(links))
            self._run.in_transaction(lambda session: self._off_the_list(session, point_id, freed))

    # --- the plan -----------------------------------------------------------------------------------

    def _plan(self, guest: Guest, point_id: str) -> list[Link]:
        """Everything that can refuse the merge is asked before the point is given up."""
        there = self._run.in_transaction(lambda session: chain_points.of_domain(session, guest.uuid))
        point = _pinned_or_gone(point_id, there)
        chain_users.must_be_at_home(guest)
        going = chain_points.as_disk_point(point)
        targets = [disk.target for disk in going.disks]
        chain_users.must_be_known_to_libvirt(guest, targets)
        chains = {target: chain_of(guest, target) for target in targets}
        others = [chain_points.as_disk_point(other) for other in there if other.id != point_id]
        links = links_of(going, others, chains, guest.name)
        files = [path for link in links for path in (link.overlay.base, link.overlay.path)]
        self._wait_until_ours_alone(guest, files, is_given_up=going.is_given_up)
        for file, domains in chain_users.domains_on(guest, files, self._host.guests).items():
            raise PointFilesShared(point=point_id, file=file, needed_by=[], domains=sorted(domains))
        for link in links:
            if link.place is not Place.merged:
                chain_users.must_not_shrink(guest, link.overlay)
        return links

    def _wait_until_ours_alone(self, guest: Guest, files: Sequence[str], *, is_given_up: bool) -> None:
        """The qemu-img of a worker that was killed continues, and is waited for. Raises ImageInUse, JobCancelled, LeaseLost."""
        until, pause = time.monotonic() + PATIENCE_S, threading.Event()
        while True:
            try:
                chain_users.must_be_ours_alone(guest, files, self._host.guests)
            except ImageInUse:
                if not is_given_up or time.monotonic() > until:
                    raise
            else:
                return
            self._run.safe_point(PhaseName.plan)
            pause.wait(TICK_S)

    # --- one disk -----------------------------------------------------------------------------------

    def _link(self, guest: Guest, point_id: str, link: Link) -> list[str]:
        """Returns what is to be told. The overlay is merged, then no point names it, then it is deleted."""
        self._run.safe_point(PhaseName.merge)
        if link.place is not Place.merged:
            self._note_begun(point_id, link.overlay)
        # Also of one that was merged: an attempt may have died before the definition of the next start followed.
        warnings = self._committed(guest, point_id, link)
        self._run.in_transaction(lambda session: self._renamed(session, link))
        if link.place is Place.merged and not self._has_begun(point_id, link.overlay):
            return [*warnings, f"{link.overlay.path} was merged by another job, and is left"]
        try:
            overlays.remove([link.overlay], were_merged=True)
        except OverlaysLeft as error:
            warnings.append(error.detail)
        return warnings

    def _committed(self, guest: Guest, point_id: str, link: Link) -> list[str]:
        way: Way = put_back if link.place is Place.active else merge_below
        merge = merge_all(guest, [link.overlay], _Stoppable(self._run, PhaseName.merge), way=way)
        for error in merge.errors.values():
            if isinstance(error, JobCancelled | LeaseLost | MustRecover):
                raise error
        if merge.errors:
            raise PointMergeUnfinished(point=point_id, domain=guest.name, disks=", ".join(merge.errors), why=merge.message)
        return remarks(merge)

    # --- on record ----------------------------------------------------------------------------------

    def _note_begun(self, point_id: str, overlay: Overlay) -> None:
        """Committed before QEMU is asked: only an overlay that is named here is deleted when the chain does not have it any more."""
        begun = {**self._begun.get(point_id, {}), overlay.target: overlay.path}
        self._begun = {point_id: begun}
        self._run.write({"intent": Intent(own={"v": VERSION, "point": point_id, "begun": begun}).as_document()})

    def _has_begun(self, point_id: str, overlay: Overlay) -> bool:
        return self._begun.get(point_id, {}).get(overlay.target) == overlay.path

    def _given_up(self, session: Session, point_id: str) -> None:
        chain_points.give_up(session, point_id, now=database_now(session), facts={"job_id": self._run.claim.job_id})

    def _renamed(self, session: Session, link: Link) -> None:
        self._fence(session)
        chain_points.rename(session, link.heirs, link.overlay, _allocated_of(link.overlay.base))

    def _off_the_list(self, session: Session, point_id: str, freed: int) -> None:
        facts = {"job_id": self._run.claim.job_id, "freed_bytes": freed}
        removal.take_off_the_list(session, point_id, now=database_now(session), facts=facts)
        self._removed.append({"id": point_id, "folder": None, "freed_bytes": freed, "retention": None, "copies": []})
        self._fence(session)

    def _fence(self, session: Session) -> None:
        """Raises LeaseLost: what this worker knows of the chain may be old."""
        queue.write(session, self._run.claim.job_id, self._run.claim.lease_token, {"result": self._result()})


def _pinned_or_gone(point_id: str, there: Sequence[RecoveryPoint]) -> RecoveryPoint:
    """Raises RecoveryPointNotFound, PointPinned."""
    point = next((point for point in there if point.id == point_id), None)
    if point is None:
        raise RecoveryPointNotFound(recovery_point_id=point_id)
    if point.pinned:
        raise PointPinned(point=point_id)
    return point


def _allocated(links: Sequence[Link]) -> int:
    return sum(merge_space.allocated_bytes(path) for link in links for path in (link.overlay.base, link.overlay.path))


def _allocated_of(path: str) -> int | None:
    return merge_space.allocated_bytes(path) or None
