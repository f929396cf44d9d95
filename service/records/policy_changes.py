"""Changes of policies, as the API asks for them: one, or several of which all are done or none. Callers commit.

A document is checked against what is on record: its repositories, and the other policies. A change that leaves a domain to two policies
which are equally specific is refused. Ties that come later, with new domains and labels, are shown and refuse nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy.orm import Session

from service.db.engine import take_turn
from service.db.tables import Policy
from service.errors import (
    CopyNotKnown,
    FieldRepeated,
    PolicyFault,
    PolicyInvalid,
    PolicyUnknown,
    RepositoryNotKnown,
    RepositoryNotWritable,
)
from service.model.backup_policy import BackupPolicy
from service.model.document_fields import can_be_stored, shown
from service.model.repository import RepositoryState
from service.model.request_limits import MAX_NAME, PRINTABLE
from service.model.selectors import Domain, Named, Selector, Tie, error_of, policy_of
from service.records import copies, listed_domains, policies, repositories

UNWRITABLE = (RepositoryState.read_only, RepositoryState.bad)
"""What a person has to mend. A repository that is full, away or not looked at yet may be well before the first run."""
MAX_REPOSITORIES_NAMED = 20
"""Repositories, or copies, that a fault names. The others are left out."""


def create(session: Session, document: Any) -> Policy:
    """Raises PolicyInvalid, PolicyTaken, PolicyTie."""
    with _without_new_ties(session) as now:
        return policies.add(session, read(session, document).as_document(), now)


def replace(session: Session, id_or_name: str, document: Any, revision: int | None) -> Policy:
    """`revision`: the one that the caller has read; None: any.

    Raises PolicyUnknown, PolicyInvalid, PolicyChanged, PolicyTaken, PolicyTie.
    """
    with _without_new_ties(session) as now:
        policy = policies.get(session, id_or_name)
        canonical = read(session, document, before=policy.document).as_document()
        return policies.change(session, policy, canonical, now, revision=revision)


def set_paused(session: Session, id_or_name: str, *, paused: bool) -> Policy:
    """Raises PolicyUnknown."""
    now = take_turn(session, policies.TURN)
    policy = policies.get(session, id_or_name)
    return policies.change(session, policy, {**policy.document, "paused": paused}, now)


def remove(session: Session, id_or_name: str, revision: int | None) -> Policy:
    """Raises PolicyUnknown, PolicyChanged, PolicyTie."""
    with _without_new_ties(session) as now:
        return policies.remove(session, id_or_name, now, revision=revision)


# --- several at once ------------------------------------------------------------------------------


class Change(StrEnum):
    created = "created"
    changed = "changed"
    unchanged = "unchanged"
    removed = "removed"


@dataclass(frozen=True)
class Wanted:
    """`revision`: the one that the caller has read; 0: the policy must be new; None: any."""

    document: Any
    revision: int | None = None


@dataclass(frozen=True)
class Unwanted:
    """`policy`: its name or id."""

    policy: str
    revision: int | None = None


@dataclass(frozen=True)
class Applied:
    change: Change
    name: str
    revision: int


def apply(session: Session, wanted: Sequence[Wanted], unwanted: Sequence[Unwanted]) -> list[Applied]:
    """Ties are judged by what stands at the end, so two policies may exchange their domains.

    Raises PolicyInvalid with the faults of all documents, PolicyUnknown, PolicyChanged, PolicyTaken, PolicyTie.
    """
    with _without_new_ties(session) as now:
        on_record = {policy.name: policy for policy in policies.list_all(session)}
        read_policies = _read_all(session, [each.document for each in wanted], on_record)
        removed = [policies.remove(session, each.policy, now, revision=each.revision) for each in unwanted]
        gone = {policy.name for policy in removed}
        applied = [
            _apply(session, policy, each.revision, on_record.get(policy.name) if policy.name not in gone else None, now)
            for policy, each in zip(read_policies, wanted, strict=True)
        ]
        return applied + [Applied(Change.removed, policy.name, policy.revision) for policy in removed]


def _apply(session: Session, wanted: BackupPolicy, revision: int | None, policy: Policy | None, now: datetime) -> Applied:
    document = wanted.as_document()
    if policy is None and revision:
        raise PolicyUnknown(policy=wanted.name)
    if policy is None or revision == 0:
        return Applied(Change.created, wanted.name, policies.add(session, document, now).revision)
    before = policy.revision
    changed = policies.change(session, policy, document, now, revision=revision)
    return Applied(Change.changed if changed.revision > before else Change.unchanged, changed.name, changed.revision)


def _read_all(session: Session, documents: Sequence[Any], on_record: Mapping[str, Policy]) -> list[BackupPolicy]:
    """A path begins with the place of the document in the list."""
    read_policies: list[BackupPolicy] = []
    faults: list[PolicyFault] = []
    for n, document in enumerate(documents):
        before = on_record.get(str(document.get("name"))) if isinstance(document, Mapping) else None
        try:
            policy = read(session, document, before=before.document if before is not None else None)
        except PolicyInvalid as invalid:
            faults += [type(fault)(**{**fault.facts, "path": f"policies[{n}].{fault.facts['path']}"}) for fault in invalid.faults]
            continue
        if any(policy.name == earlier.name for earlier in read_policies):
            faults.append(FieldRepeated(path=f"policies[{n}].name", value=shown(policy.name)))
        read_policies.append(policy)
    if faults:
        raise PolicyInvalid(f"{len(documents)} documents", faults)
    return read_policies


# --- documents ------------------------------------------------------------------------------------


def read(session: Session, document: Any, *, before: Mapping[str, Any] | None = None) -> BackupPolicy:
    """With its repositories. `before`: what the document takes the place of. Raises PolicyInvalid, with everything that is wrong.

    A document that does not say `paused` leaves that as it is: who applies a file does not resume what another person has paused.
    """
    faults = [*_repository_faults(session, document, _repositories_in(before)), *_copy_faults(session, document, before)]
    if before is not None and isinstance(document, Mapping) and document.get("paused") is None:
        document = {**document, "paused": before["paused"]}
    try:
        policy = BackupPolicy.from_document(document)
    except PolicyInvalid as invalid:
        raise PolicyInvalid(invalid.facts["policy"], [*invalid.faults, *faults]) from invalid
    if faults:
        raise PolicyInvalid(shown(policy.name), faults)
    return policy


def _repository_faults(session: Session, document: Any, named_before: Sequence[str]) -> Iterator[PolicyFault]:
    """A policy may keep a repository that it has named before, whatever became of that: otherwise nothing else of it could be changed."""
    named = list(_named_repositories(document))
    known = repositories.list_all(session) if named else ()
    by_name = {each.name: each for each in known} | {id_: each for each in known for id_ in (each.registered_id, each.id)}
    for path, name in named:
        repository = by_name.get(name)
        if repository is None:
            listed = ", ".join([each.name for each in known][:MAX_REPOSITORIES_NAMED])
            yield RepositoryNotKnown(path=path, value=shown(name), known=listed or "none")
        elif repository.state in UNWRITABLE and name not in named_before:
            yield RepositoryNotWritable(path=path, value=shown(name), state=repository.state)


def _copy_faults(session: Session, document: Any, before: Mapping[str, Any] | None) -> Iterator[PolicyFault]:
    """As for repositories. The copies of a repository that is not known are not looked for: one fault is enough."""
    before_named = {(repository, name) for _, repository, name in _named_copies(before)}
    named = list(_named_copies(document))
    known = repositories.list_all(session) if named else ()
    ids = {each.name: each for each in known} | {id_: each for each in known for id_ in (each.registered_id, each.id)}
    for path, name, copy in named:
        repository = ids.get(name)
        if repository is None or (name, copy) in before_named:
            continue
        there = copies.of_repository(session, repository.id)
        if not any(copy in (each.name, each.id) for each in there):
            listed = ", ".join([each.name for each in there][:MAX_REPOSITORIES_NAMED])
            yield CopyNotKnown(path=path, value=shown(copy), repository=repository.name, known=listed or "none")


def _named_copies(document: Any) -> Iterator[tuple[str, str, str]]:
    """The path of each, its repository, and the copy. The document may have any form."""
    for path, repository in _named_repositories(document):
        track = path.removesuffix(".job.repository")
        copies_of = document["tracks"][int(track[len("tracks[") : -1])].get("copies")
        for n, name in enumerate(copies_of if isinstance(copies_of, list) else ()):
            if isinstance(name, str) and _may_be_a_name(name):
                yield f"{track}.copies[{n}]", repository, name


def _repositories_in(document: Mapping[str, Any] | None) -> list[str]:
    return [name for _, name in _named_repositories(document)] if document is not None else []


def _named_repositories(document: Any) -> Iterator[tuple[str, str]]:
    """With their paths. The document may have any form. A name that the document may not have is a fault of the document."""
    tracks = document.get("tracks") if isinstance(document, Mapping) else None
    for n, track in enumerate(tracks if isinstance(tracks, list) else ()):
        job = track.get("job") if isinstance(track, Mapping) else None
        name = job.get("repository") if isinstance(job, Mapping) else None
        if isinstance(name, str) and _may_be_a_name(name):
            yield f"tracks[{n}].job.repository", name


def _may_be_a_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and re.fullmatch(PRINTABLE, text) is not None and can_be_stored(text)


# --- ties -----------------------------------------------------------------------------------------


@contextmanager
def _without_new_ties(session: Session) -> Iterator[datetime]:
    """Yields the time. No other change of policies comes between. Raises PolicyTie for ties that were not there before."""
    now = take_turn(session, policies.TURN)
    before = _selectors(session)
    yield now
    session.flush()
    ties = list(_new_ties(sorted(listed_domains.listed(session, now).values(), key=_by_name), before, _selectors(session)))
    if ties:
        names = {policy.id: policy.name for policy in policies.list_all(session)}
        raise error_of((domain, Tie(tuple(sorted(names[each] for each in tie.policies)), tie.specificity)) for domain, tie in ties)


def _selectors(session: Session) -> list[Named]:
    """By the ids of the policies, as a name may change."""
    return [Named(policy.id, Selector.from_document(policy.document["selector"])) for policy in policies.list_all(session)]


def _new_ties(domains: Sequence[Domain], before: Sequence[Named], after: Sequence[Named]) -> Iterator[tuple[Domain, Tie]]:
    """Only a domain that a changed selector selects can have got another policy."""
    changed = [*_only_in(before, after), *_only_in(after, before)]
    for domain in domains:
        if all(selector.specificity(domain) is None for selector in changed):
            continue
        tie = policy_of(domain, after)
        if not isinstance(tie, Tie):
            continue
        earlier = policy_of(domain, before)
        if not (isinstance(earlier, Tie) and set(tie.policies) <= set(earlier.policies)):
            yield domain, tie


def _by_name(domain: Domain) -> tuple[str, str]:
    return domain.name, domain.id


def _only_in(policies: Sequence[Named], others: Sequence[Named]) -> Iterator[Selector]:
    there = dict(others)
    return (selector for name, selector in policies if there.get(name) != selector)
