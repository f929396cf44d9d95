"""The policies on record as one reader sees them, and which of them has a domain."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from service import log
from service.db.tables import Policy
from service.errors import PolicyInvalid
from service.model.backup_policy import BackupPolicy
from service.model.selectors import Domain, Selected, Selector, Tie, policy_of

MAX_REMEMBERED = 50_000
"""Domains whose policy a book remembers. Above the limit it forgets all of them, and finds them again."""

_logger = log.get(__name__)


@dataclass(frozen=True)
class Entry:
    """A policy that this version can read."""

    id: str
    revision: int
    updated_at: datetime
    policy: BackupPolicy

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def selector(self) -> Selector:
        return self.policy.selector


@dataclass(frozen=True)
class PolicyBook:
    """`unreadable`: ids of policies that a newer version wrote. Their schedules are left to that version."""

    entries: Mapping[str, Entry]
    unreadable: frozenset[str]
    _by_name: dict[str, Entry] = field(init=False, repr=False, compare=False)
    _remembered: dict[tuple[object, ...], Entry | Tie | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {entry.name: entry for entry in self.entries.values()})

    @property
    def updated_at(self) -> datetime | None:
        """When a policy was last added or changed."""
        return max((entry.updated_at for entry in self.entries.values()), default=None)

    @property
    def is_empty(self) -> bool:
        return not self.entries and not self.unreadable

    def policy_of(self, domain: Domain) -> Entry | Tie | None:
        """None: nobody has asked to protect the domain."""
        key = (domain.id, domain.name, domain.host, *sorted(domain.labels.items()))
        if key not in self._remembered:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = self._find(domain)
        return self._remembered[key]

    def _find(self, domain: Domain) -> Entry | Tie | None:
        selected = policy_of(domain, self.entries.values())
        return self._by_name[selected.policy] if isinstance(selected, Selected) else selected

    def tracks(self, domains: Iterable[Domain]) -> dict[tuple[str, str, str], Domain]:
        """What must have a schedule: by the id of the policy, the track, and the id of the domain."""
        wanted: dict[tuple[str, str, str], Domain] = {}
        for domain in domains:
            entry = self.policy_of(domain)
            if isinstance(entry, Entry):
                wanted |= {(entry.id, track.name, domain.id): domain for track in entry.policy.tracks}
        return wanted


class PolicyReader:
    """Reads each form of a policy once. For one thread."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, int, datetime], Entry | None] = {}
        self._book = PolicyBook({}, frozenset())

    def book(self, session: Session, *, locked: Collection[str] = ()) -> PolicyBook:
        """`locked`: the ids of policies that no other transaction may change or remove until this one has ended."""
        if locked:
            session.execute(select(Policy.id).where(Policy.id.in_(locked)).order_by(Policy.id).with_for_update(read=True)).all()
        forms = [(row.id, row.revision, row.updated_at) for row in session.execute(_FORMS)]
        if forms != list(self._read):
            self._learn(session, forms)
        return self._book

    def _learn(self, session: Session, forms: list[tuple[str, int, datetime]]) -> None:
        new = [form[0] for form in forms if form not in self._read]
        rows = {row.id: row for row in session.execute(_DOCUMENTS.where(Policy.id.in_(new)))} if new else {}
        # A policy that was changed since the first statement has another form now: it is read at the next call.
        self._read = {
            form: self._read[form] if form in self._read else _entry(rows[form[0]])
            for form in forms
            if form in self._read or form[0] in rows
        }
        entries = {form[0]: entry for form, entry in self._read.items() if entry is not None}
        self._book = PolicyBook(entries, frozenset(form[0] for form, entry in self._read.items() if entry is None))


_FORMS = select(Policy.id, Policy.revision, Policy.updated_at).order_by(Policy.name)
_DOCUMENTS = select(Policy.id, Policy.name, Policy.revision, Policy.updated_at, Policy.document)


def _entry(row: Row[Any]) -> Entry | None:
    try:
        return Entry(row.id, row.revision, row.updated_at, BackupPolicy.from_document(row.document))
    except PolicyInvalid as error:
        _logger.warning("policy_cannot_be_read", policy=row.name, detail=error.detail)
        return None
