"""The registered repositories: what a caller asks for, and what the worker of the host last saw of them. Callers commit.

The API touches no repository. It leaves wishes (`ask_check`, `ask_import`) in the row, and the worker of the host looks for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db import documents
from service.db.base import table_of
from service.db.tables import Job, Repository, Slot
from service.errors import RepositoryInUse, RepositoryTaken, RepositoryUnknown, StillpointError
from service.model.kinds import Lane
from service.model.lifecycle import FINAL_STATES, JobState
from service.model.repository import RepositoryState
from service.records import free_space, points, policies, slots

UNFINISHED = tuple(state.value for state in JobState if state not in FINAL_STATES)


@dataclass(frozen=True)
class Registration:
    """`max_transfers` None: no limit but that of each host. `key_reference`: where the key is, and never the key."""

    name: str
    path: str
    host_id: str
    key_reference: str | None = None
    max_transfers: int | None = None
    reserve_bytes: int = 0


@dataclass(frozen=True)
class Look:
    """What a worker saw. `error` None: nothing is wrong. Numbers that were not seen are None, and leave the row as it is."""

    state: RepositoryState
    error: StillpointError | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    format_version: int | None = None


def add(session: Session, wanted: Registration, now: datetime) -> Repository:
    """Raises RepositoryTaken. Another name of the same folder that no text shows, a link say, is found by the first look (`adopt`)."""
    wanted = replace(wanted, path=_in_one_spelling(wanted.path))
    taken = _taken_by(session, wanted)
    repository_id = str(uuid4())
    repository = Repository(
        id=repository_id,
        registered_id=repository_id,
        created_at=now,
        state=RepositoryState.unknown.value,
        check_asked_at=now,
        **vars(wanted),
    )
    if taken is None:
        try:
            with session.begin_nested():
                session.add(repository)
        except IntegrityError:
            # Another request has registered it at the same time.
            taken = _taken_by(session, wanted)
    if taken is not None:
        raise RepositoryTaken(repository=f"{wanted.name} ({wanted.path} on {wanted.host_id})", taken_by=f"{taken.name} ({taken.path})")
    if wanted.max_transfers is not None:
        slots.ensure_slots(session, slots.repository_lane(repository_id, Lane.transfer), wanted.max_transfers)
    return repository


def _in_one_spelling(path: str) -> str:
    """Without slashes and dots that name the same folder again. `..` stays, as it may follow a link."""
    return str(PurePosixPath("/" + path.lstrip("/")))


def get(session: Session, id_or_name: str) -> Repository:
    """Raises RepositoryUnknown."""
    named = or_(Repository.id == id_or_name, Repository.registered_id == id_or_name, Repository.name == id_or_name)
    repositories = list(session.scalars(select(Repository).where(named).execution_options(populate_existing=True)))
    if not repositories:
        raise RepositoryUnknown(repository=id_or_name)
    # A repository may have the id of another one as its name.
    return next((one for one in repositories if id_or_name in (one.id, one.registered_id)), repositories[0])


def list_all(session: Session) -> Sequence[Repository]:
    """By name."""
    return session.scalars(select(Repository).order_by(Repository.name)).all()


def of_host(session: Session, host_id: str) -> Sequence[Repository]:
    """The repositories at which the worker of the host looks."""
    return session.scalars(select(Repository).where(Repository.host_id == host_id).order_by(Repository.name)).all()


def _taken_by(session: Session, wanted: Registration) -> Repository | None:
    same_place = (Repository.host_id == wanted.host_id) & (Repository.path == wanted.path)
    return session.scalars(select(Repository).where(or_(Repository.name == wanted.name, same_place))).first()


def forget(session: Session, id_or_name: str, *, forget_points: bool = False) -> tuple[Repository, int]:
    """Take it off the list, and with `forget_points` its points. Its files stay. Returns it, and how many points were taken off.

    Raises RepositoryUnknown, RepositoryInUse.
    """
    repository = get(session, id_or_name)
    count, jobs = points.count_in(session, repository.id), _jobs_at_work(session, repository)
    named_by = policies.naming(session, (repository.id, repository.registered_id, repository.name))
    if jobs or named_by or (count and not forget_points):
        raise RepositoryInUse(repository=repository.name, points=count, jobs=jobs, policies=named_by)
    points.forget_of(session, repository.id)
    session.execute(delete(Slot).where(Slot.resource == slots.repository_lane(repository.id, Lane.transfer)))
    session.execute(delete(Repository).where(Repository.id == repository.id))
    return repository, count


def _jobs_at_work(session: Session, repository: Repository) -> int:
    ids = (repository.id, repository.registered_id)
    at_work = select(func.count()).select_from(Job).where(Job.repository_id.in_(ids), Job.state.in_(UNFINISHED))
    return session.scalar(at_work) or 0


# --- what a caller wants the worker to do ---------------------------------------------------------


def ask_check(session: Session, id_or_name: str, now: datetime) -> Repository:
    """Raises RepositoryUnknown."""
    return _change(session, get(session, id_or_name).id, check_asked_at=now)


def ask_import(session: Session, id_or_name: str, now: datetime) -> Repository:
    """Raises RepositoryUnknown."""
    return _change(session, get(session, id_or_name).id, import_asked_at=now)


# --- what the worker saw --------------------------------------------------------------------------


def note_look(session: Session, repository_id: str, look: Look, now: datetime, *, asked_at: datetime | None = None) -> Repository:
    """`asked_at`: the wish that this look fulfils, as it stood in `check_asked_at`. A later wish stays.

    Raises RepositoryUnknown: it was forgotten meanwhile.
    """
    seen = {"free_bytes": look.free_bytes, "total_bytes": look.total_bytes, "format_version": look.format_version}
    values: dict[str, Any] = {name: value for name, value in seen.items() if value is not None}
    values |= {"state": look.state.value, "state_error": look.error.as_document() if look.error else None, "looked_at": now}
    repository = get(session, repository_id)
    if asked_at is not None and repository.check_asked_at == asked_at:
        values["check_asked_at"] = None
    if look.free_bytes is not None:
        free_space.note(session, repository.id, look.free_bytes, now)
    return _change(session, repository.id, **values)


def note_import(
    session: Session, repository_id: str, result: dict[str, Any], now: datetime, *, asked_at: datetime | None = None
) -> Repository:
    """`result`: what the import found, as a JSON object. `asked_at`: as for `note_look`. Raises RepositoryUnknown."""
    repository = get(session, repository_id)
    values: dict[str, Any] = {"import_result": result, "imported_at": now}
    if asked_at is not None and repository.import_asked_at == asked_at:
        values["import_asked_at"] = None
    return _change(session, repository.id, **values)


def adopt(session: Session, repository_id: str, folder_id: str) -> Repository:
    """The folder was a repository already, with the id `folder_id`: that becomes the id of the row, and the earlier id still finds it.

    Only for a repository in which nothing was done under its earlier id. Raises RepositoryUnknown, RepositoryTaken.
    """
    repository = get(session, repository_id)
    if repository.id == folder_id:
        return repository
    taken = session.get(Repository, folder_id)
    if taken is not None:
        raise RepositoryTaken(repository=f"{repository.name} ({repository.path})", taken_by=f"{taken.name} ({taken.path})")
    old, new = repository.id, folder_id
    session.execute(update(Repository).where(Repository.id == old).values(id=new), execution_options={"synchronize_session": False})
    documents.change_jobs(session, update(table_of(Job)).where(Job.repository_id == old).values(repository_id=new))
    lanes = slots.repository_lane(old, Lane.transfer), slots.repository_lane(new, Lane.transfer)
    session.execute(
        update(Slot).where(Slot.resource == lanes[0]).values(resource=lanes[1]), execution_options={"synchronize_session": False}
    )
    points.tell_repository(session, new)
    session.expire_all()
    return get(session, new)


def _change(session: Session, repository_id: str, **values: Any) -> Repository:
    session.execute(update(Repository).where(Repository.id == repository_id).values(values))
    return get(session, repository_id)
