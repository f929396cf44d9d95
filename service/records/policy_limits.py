"""The limits of policies, as permits: how many guests of a policy may be in the window at once on a host, and how many of its jobs may
transfer at once into a repository. A job that finds none waits in the queue, and lets the jobs behind it pass.

The permit of a window is given back when the guest is thawed, and that of a transfer when the job has ended.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, literal, or_, select, update
from sqlalchemy.orm import Session

from service.db.tables import Slot
from service.model.backup_policy import Limits
from service.model.kinds import Kind, Lane
from service.model.lifecycle import PhaseName
from service.model.origin import POLICY_LABEL
from service.records import slots
from service.records.slots import POLICY

_HOST, _REPOSITORY = ":host:", ":repository:"
_WINDOW, _TRANSFER = ":window", ":transfer"
_AT_ONCE = {"synchronize_session": False}


def windows_of(policy: str, host_id: str) -> str:
    return f"{POLICY}{policy}{_HOST}{host_id}{_WINDOW}"


def transfers_of(policy: str, repository_id: str) -> str:
    return f"{POLICY}{policy}{_REPOSITORY}{repository_id}{_TRANSFER}"


# --- how many there are ---------------------------------------------------------------------------


def allow(session: Session, policy: str, limits: Limits, host_id: str, repository_id: str | None) -> None:
    """The permits that a new job of the policy needs. Without a limit there are none, and none are needed."""
    if limits.guests_in_window_per_host is not None:
        slots.ensure_slots(session, windows_of(policy, host_id), limits.guests_in_window_per_host)
    if limits.transfers_per_repository is not None and repository_id is not None:
        slots.ensure_slots(session, transfers_of(policy, repository_id), limits.transfers_per_repository)


def follow(session: Session, policies: Mapping[str, Limits]) -> None:
    """Bring the permits that there are to the limits that the policies have now. `policies`: by name, all of them."""
    for resource in session.scalars(select(Slot.resource).where(Slot.resource.startswith(POLICY)).distinct()).all():
        limits = policies.get(resource.removeprefix(POLICY).partition(":")[0], Limits())
        n = limits.guests_in_window_per_host if resource.endswith(_WINDOW) else limits.transfers_per_repository
        if n is None:
            session.execute(delete(Slot).where(Slot.resource == resource).execution_options(**_AT_ONCE))
        else:
            slots.ensure_slots(session, resource, n)


# --- who may begin --------------------------------------------------------------------------------


def have_permits(job: Any, of_kinds: Sequence[Kind], full: Collection[str]) -> list[ColumnElement[bool]]:
    """Conditions for jobs that may begin. `full`: the permits of policies of which none is left."""
    policy = job.labels[POLICY_LABEL].as_string()
    freezing = [kind.name.value for kind in of_kinds if kind.freezes]
    transferring = [kind.name.value for kind in of_kinds if kind.lane is Lane.transfer]
    window = literal(POLICY) + policy + _HOST + job.host_id + _WINDOW
    transfer = literal(POLICY) + policy + _REPOSITORY + job.repository_id + _TRANSFER
    return [
        or_(policy.is_(None), job.kind.not_in(freezing), window.not_in(full)),
        or_(policy.is_(None), job.repository_id.is_(None), job.kind.not_in(transferring), transfer.not_in(full)),
    ]


def take(session: Session, job: Any, kind: Kind) -> None:
    """Take what the job needs. Raises SlotGone."""
    policy = job.labels.get(POLICY_LABEL)
    if policy is None:
        return
    if kind.freezes and not _was_thawed(job.phases):
        slots.take_if_limited(session, job.id, windows_of(policy, job.host_id))
    if kind.lane is Lane.transfer and job.repository_id is not None:
        slots.take_if_limited(session, job.id, transfers_of(policy, job.repository_id))


def _was_thawed(phases: Sequence[Mapping[str, Any]]) -> bool:
    """An earlier attempt took the point, and this one only copies it."""
    return any(phase["name"] == PhaseName.thaw.value for phase in phases)


def window_is_over(session: Session, job_id: str) -> None:
    """The job freezes no guest any more."""
    windows = update(Slot).where(Slot.job_id == job_id, Slot.resource.startswith(POLICY), Slot.resource.endswith(_WINDOW))
    session.execute(windows.values(job_id=None).execution_options(**_AT_ONCE))
