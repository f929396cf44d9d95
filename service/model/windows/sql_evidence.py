"""SQL Server's own events about a freeze: 3197 (I/O is frozen on a database) and 3198 (I/O was resumed).

Events are read by id and number, never by text, so that this works in every language. They belong to the job, because only records count
that are newer than the record which was remembered before its freeze. They are a proof only if every database of every instance has its
events, because a database that was left out writes no event.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service.model.windows.event_xml import WrittenEvent
from service.model.windows.sql_server import SYSTEM_DATABASES, InstanceState, SqlInstance, is_source

IO_FROZEN = 3197
IO_RESUMED = 3198
NOT_PRINTABLE = "?"
"""What Windows prints for a character that its code page does not have."""


class SqlProblem(StrEnum):
    """Why the events prove nothing."""

    not_remembered = "not_remembered"
    """The newest record before the freeze is not known, so nothing ties an event to this job."""
    unreadable = "unreadable"
    """They could not be read, or not completely."""
    no_events = "no_events"
    unbalanced = "unbalanced"
    """A database was frozen and not resumed, or the other way round."""
    incomplete = "incomplete"
    """A database that should be among them is not."""
    not_known = "not_known"
    """Which instances and databases should be among them could not be asked for."""


@dataclass(frozen=True)
class SqlEvent:
    """`source`: the SQL Server instance, as the event's provider; two instances may have a database of the same name."""

    record_id: int
    event_id: int
    source: str
    database: str
    at: str | None = None


@dataclass(frozen=True)
class SqlEvidence:
    """`about`: the databases that the problem is about. `instances` None: what should be there was not asked for, or is not known."""

    events: tuple[SqlEvent, ...]
    problem: SqlProblem | None
    about: tuple[str, ...] = ()
    instances: tuple[SqlInstance, ...] | None = None

    @property
    def is_proof(self) -> bool:
        return self.problem is None

    @property
    def databases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(event.database for event in self.events))

    @property
    def detail(self) -> str:
        names = _named(self.databases if self.problem is None else self.about)
        match self.problem:
            case None:
                return f"SQL Server's events 3197 and 3198 of this job show that I/O was frozen and resumed on every database: {names}."
            case SqlProblem.not_remembered:
                return "SQL Server's events cannot be tied to this job: the newest record before the freeze is not known."
            case SqlProblem.unreadable:
                return "SQL Server's events could not be read completely."
            case SqlProblem.no_events:
                return "SQL Server reported no freeze of a database (events 3197 and 3198) since this job began."
            case SqlProblem.unbalanced:
                return f"SQL Server's events 3197 and 3198 do not pair up for: {names}."
            case SqlProblem.incomplete:
                return f"SQL Server's events 3197 and 3198 are missing for: {names}."
            case SqlProblem.not_known:
                what = f"of the instance {names} " if self.about else ""
                return f"SQL Server's events prove nothing, because which databases {what}should be among them is not known."

    def as_document(self) -> dict[str, Any]:
        return {
            "is_proof": self.is_proof,
            "problem": self.problem,
            "databases": list(self.databases),
            "about": list(self.about),
            "instances": [each.as_document() for each in self.instances] if self.instances is not None else None,
            "events": [vars(event) for event in self.events],
            "detail": self.detail,
        }


def not_remembered() -> SqlEvidence:
    return SqlEvidence((), SqlProblem.not_remembered)


def unreadable(written: Iterable[WrittenEvent] = ()) -> SqlEvidence:
    """`written`: what could be read."""
    return SqlEvidence(_of_sql_server(written), SqlProblem.unreadable)


def paired(written: Iterable[WrittenEvent]) -> SqlEvidence:
    """All events since the remembered record. Pairs alone prove nothing: the expected databases are `not_known` until `complete`."""
    events = _of_sql_server(written)
    if not events:
        return SqlEvidence((), SqlProblem.no_events)
    unbalanced = tuple(_unbalanced(events))
    return SqlEvidence(events, SqlProblem.unbalanced if unbalanced else SqlProblem.not_known, unbalanced)


def complete(evidence: SqlEvidence, instances: Sequence[SqlInstance] | None) -> SqlEvidence:
    """`evidence`: from `paired`. `instances`: those that the guest has; None or none: not known."""
    if not instances or not pairs_up(evidence):
        return evidence
    running = [each for each in instances if each.state is not InstanceState.stopped]
    missing = tuple(_missing(evidence.events, running))
    unknown = tuple(each.name for each in running if each.databases is None)
    problem = SqlProblem.incomplete if missing or not running else SqlProblem.not_known if unknown else None
    return SqlEvidence(evidence.events, problem, missing or unknown, tuple(instances))


def pairs_up(evidence: SqlEvidence) -> bool:
    return evidence.problem is SqlProblem.not_known


def _missing(events: Sequence[SqlEvent], running: Sequence[SqlInstance]) -> Iterator[str]:
    seen = {(event.source.upper(), event.database.casefold()) for event in events}
    for instance in running:
        expected = dict.fromkeys([*SYSTEM_DATABASES, *(instance.databases or ())])
        for database in expected:
            if (instance.source.upper(), database.casefold()) not in seen:
                yield f"{instance.source}/{database}"


def is_waiting(evidence: SqlEvidence) -> bool:
    """Whether a database that was frozen has not said yet that it was resumed, and nothing else is wrong."""
    if evidence.problem is not SqlProblem.unbalanced:
        return False
    return all(
        sequence[-1] == IO_FROZEN and sequence[:-1] == _in_pairs(sequence[:-1]) for sequence in _unbalanced_sequences(evidence.events)
    )


def _of_sql_server(written: Iterable[WrittenEvent]) -> tuple[SqlEvent, ...]:
    """The events that come from SQL Server. Another program may write events with these numbers."""
    events = (
        SqlEvent(each.record_id, each.event_id, each.source, each.data[0] if each.data else "", each.at)
        for each in written
        if each.event_id in (IO_FROZEN, IO_RESUMED) and is_source(each.source)
    )
    return tuple(sorted(events, key=lambda event: event.record_id))


# --- pairs ----------------------------------------------------------------------------------------


def _unbalanced(events: tuple[SqlEvent, ...]) -> Iterator[str]:
    """The databases whose events do not alternate between freeze and resumption, in the order of their records."""
    for (source, database), sequence in _sequences(events).items():
        if not _is_balanced(database, sequence):
            yield f"{source}/{database or '(no name)'}"


def _unbalanced_sequences(events: tuple[SqlEvent, ...]) -> list[list[int]]:
    return [sequence for (_, database), sequence in _sequences(events).items() if not _is_balanced(database, sequence)]


def _sequences(events: tuple[SqlEvent, ...]) -> dict[tuple[str, str], list[int]]:
    sequences: dict[tuple[str, str], list[int]] = {}
    for event in events:
        sequences.setdefault((event.source, event.database), []).append(event.event_id)
    return sequences


def _is_balanced(database: str, sequence: list[int]) -> bool:
    if NOT_PRINTABLE in database:
        # Two databases whose names the code page does not have may read alike.
        return sequence[0] == IO_FROZEN and sequence[-1] == IO_RESUMED and sequence.count(IO_FROZEN) == sequence.count(IO_RESUMED)
    return bool(database) and sequence == _in_pairs(sequence)


def _in_pairs(sequence: list[int]) -> list[int]:
    return [IO_FROZEN, IO_RESUMED] * (len(sequence) // 2)


def _named(names: Sequence[str], limit: int = 20) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
