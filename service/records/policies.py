"""The policies on record, and the labels of domains by which they select. Callers commit.

A document is stored in its canonical form. The caller has read it with `service.model.backup_policy` before.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import uuid4

from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db.engine import database_now, take_turn
from service.db.tables import DomainLabels, Policy
from service.errors import PolicyChanged, PolicyTaken, PolicyUnknown
from service.records import schedules

TURN = "policies"
"""The turn that a transaction takes before it changes a policy by what other policies and repositories say."""


def add(session: Session, document: Mapping[str, Any], now: datetime) -> Policy:
    """Raises PolicyTaken."""
    name = str(document["name"])
    _must_be_free(session, name)
    policy = Policy(id=str(uuid4()), name=name, document=dict(document), revision=1, created_at=now, updated_at=now)
    try:
        with session.begin_nested():
            session.add(policy)
    except IntegrityError:
        # Another request has made it at the same time.
        _must_be_free(session, name)
        raise
    return policy


def get(session: Session, id_or_name: str) -> Policy:
    """Raises PolicyUnknown."""
    named = or_(Policy.id == id_or_name, Policy.name == id_or_name)
    policies = list(session.scalars(select(Policy).where(named).execution_options(populate_existing=True)))
    if not policies:
        raise PolicyUnknown(policy=id_or_name)
    # A policy may have the id of another one as its name.
    return next((policy for policy in policies if policy.id == id_or_name), policies[0])


def list_all(session: Session) -> Sequence[Policy]:
    """By name."""
    return session.scalars(select(Policy).order_by(Policy.name)).all()


def naming(session: Session, names: Collection[str]) -> list[str]:
    """The policies that name one of these repositories. None more of them comes before the transaction ends."""
    take_turn(session, TURN)
    return [policy.name for policy in list_all(session) if any(_repository_of(track) in names for track in policy.document["tracks"])]


def naming_copy(session: Session, repository: Collection[str], copy: Collection[str]) -> list[str]:
    """The policies that name one of these copies of the repository, whose names and ids are given. None more comes, as with `naming`."""
    take_turn(session, TURN)
    return [policy.name for policy in list_all(session) if any(_has_copy(track, repository, copy) for track in policy.document["tracks"])]


def _has_copy(track: Mapping[str, Any], repository: Collection[str], copy: Collection[str]) -> bool:
    return _repository_of(track) in repository and any(name in copy for name in track.get("copies") or ())


def _repository_of(track: Mapping[str, Any]) -> str | None:
    """None: its job uses none."""
    return cast("str | None", track["job"].get("repository"))


def change(session: Session, policy: Policy, document: Mapping[str, Any], now: datetime, *, revision: int | None = None) -> Policy:
    """`revision`: the one that the caller has read; None: whatever is on record. The same document again changes nothing.

    Raises PolicyChanged, PolicyTaken, PolicyUnknown.
    """
    if revision is not None and policy.revision != revision:
        raise PolicyChanged(policy=policy.name, revision=revision, now=policy.revision)
    if policy.document == document:
        return policy
    name = str(document["name"])
    if name != policy.name:
        _must_be_free(session, name)
    values = {"name": name, "document": dict(document), "revision": policy.revision + 1, "updated_at": now}
    # Only what was read is changed, also where another transaction came between.
    changed = session.execute(
        update(Policy).where(Policy.id == policy.id, Policy.revision == policy.revision).values(values).returning(Policy.id)
    )
    if changed.first() is None:
        current = get(session, policy.id)
        raise PolicyChanged(policy=current.name, revision=policy.revision, now=current.revision)
    return get(session, policy.id)


def remove(session: Session, id_or_name: str, now: datetime | None = None, *, revision: int | None = None) -> Policy:
    """With its schedules. What became of their runs stays on record, and jobs that are on record run to their end.

    `revision`: as for `change`. Raises PolicyUnknown, PolicyChanged.
    """
    policy = get(session, id_or_name)
    if revision is not None and policy.revision != revision:
        raise PolicyChanged(policy=policy.name, revision=revision, now=policy.revision)
    schedules.give_up_all(session, policy.id, policy.name, now or database_now(session))
    session.execute(delete(Policy).where(Policy.id == policy.id))
    return policy


def _must_be_free(session: Session, name: str) -> None:
    taken = session.scalar(select(Policy.id).where(Policy.name == name))
    if taken is not None:
        raise PolicyTaken(policy=name, policy_id=taken)


# --- labels of domains ----------------------------------------------------------------------------


def set_labels(session: Session, domain_id: str, labels: Mapping[str, str], now: datetime) -> None:
    """In the place of all earlier ones. They belong to the domain, whichever host it is on."""
    session.merge(DomainLabels(domain_id=domain_id, labels=dict(labels), updated_at=now))


def labels_of(session: Session, domain_id: str) -> dict[str, str]:
    row = session.get(DomainLabels, domain_id)
    return dict(row.labels) if row is not None else {}


def all_labels(session: Session) -> dict[str, dict[str, str]]:
    """By the id of the domain."""
    return {row.domain_id: dict(row.labels) for row in session.scalars(select(DomainLabels))}
