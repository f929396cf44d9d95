"""Remembers facts of a Windows guest between jobs, and finds what changed: an update reset VssOption, or a writer is missing."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.engine import database_now
from service.db.tables import GuestMemory
from service.errors import VssNotUsable
from service.model.inventory import Survey
from service.model.windows import drift, known_writers, vss_usable
from service.model.windows.auto_recovery import VssOption
from service.model.windows.drift import Change, Fact, FactValue
from service.model.windows.known_writers import KnownWriter
from service.model.windows.vss_writers import WriterReport

_WRITERS = "known_writers"
_WATCHED = ("guest-exec", "guest-exec-status", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-get-osinfo", "guest-get-fsinfo")


@dataclass(frozen=True)
class Remembered:
    """`writers`: all writers that this job and earlier jobs saw. A missing writer is judged when the list after the thaw is known."""

    changes: list[Change]
    writers: tuple[KnownWriter, ...]


def remember(session: Session, domain_id: str, survey: Survey, option: VssOption, listed: WriterReport | None) -> Remembered:
    """Compare the guest with its memory, update the memory, and return the changes. `listed`: the writers before the freeze."""
    now = database_now(session)
    known = session.get(GuestMemory, domain_id)
    facts = dict(known.facts) if known else {}
    memory, changes = drift.compare(drift.memory_from(facts), _facts(survey, option), rfc3339(now))
    writers = known_writers.known_from(facts.get(_WRITERS, []))
    writers = known_writers.updated(writers, listed, rfc3339(now))
    changes += known_writers.changes(known_writers.missing(writers, listed), rfc3339(now))
    if known is None:
        known = GuestMemory(domain_id=domain_id)
        session.add(known)
    known.facts = {**drift.memory_document(memory), _WRITERS: known_writers.as_documents(writers)}
    known.updated_at = now
    return Remembered(changes, writers)


def _facts(survey: Survey, option: VssOption) -> dict[Fact, FactValue | None]:
    return {
        Fact.agent_version: survey.agent.version,
        Fact.vss_option: drift.vss_option_fact(option),
        Fact.vss_provider: _provider(survey),
        Fact.blocked_commands: [name for name in _WATCHED if not survey.agent.allows(name)] if survey.agent.commands else None,
    }


USABLE = "usable"
NOT_USABLE = "not usable"


def _provider(survey: Survey) -> str | None:
    """Whether VSS is usable. None: not known.

    Agents up to 9.0 disable commands if VSS is not usable. Later agents say so only in an error. A blocked command hides it.
    """
    if not survey.agent.commands:
        return None
    match vss_usable.why_not_offered(survey):
        case None:
            return USABLE
        case VssNotUsable():
            return NOT_USABLE
        case _:
            return None
