"""What is remembered of a Windows guest between jobs, and what changed since (an update that resets VssOption, a writer that is gone)."""

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
    """`writers`: those that earlier jobs saw, and this one. Whether one is missing is judged when the list after the thaw is there."""

    changes: list[Change]
    writers: tuple[KnownWriter, ...]


def remember(session: Session, domain_id: str, found: Survey, option: VssOption, listed: WriterReport | None) -> Remembered:
    """Compare with what was known, keep what is known now, and answer both. `listed`: the writers before the freeze."""
    now = database_now(session)
    known = session.get(GuestMemory, domain_id)
    facts = dict(known.facts) if known else {}
    memory, changes = drift.compare(drift.memory_from(facts), _facts(found, option), rfc3339(now))
    writers = known_writers.known_from(facts.get(_WRITERS, []))
    writers = known_writers.updated(writers, listed, rfc3339(now))
    changes += known_writers.changes(known_writers.missing(writers, listed), rfc3339(now))
    if known is None:
        known = GuestMemory(domain_id=domain_id)
        session.add(known)
    known.facts = {**drift.memory_document(memory), _WRITERS: known_writers.as_documents(writers)}
    known.updated_at = now
    return Remembered(changes, writers)


def _facts(found: Survey, option: VssOption) -> dict[Fact, FactValue | None]:
    return {
        Fact.agent_version: found.agent.version,
        Fact.vss_option: drift.vss_option_fact(option),
        Fact.vss_provider: _provider(found),
        Fact.blocked_commands: [name for name in _WATCHED if not found.agent.allows(name)] if found.agent.commands else None,
    }


def _provider(found: Survey) -> str | None:
    """Agents up to 9.0 tell by what they disable; later ones only in an error, and where a command is blocked nobody can tell."""
    if not found.agent.commands:
        return None
    match vss_usable.why_not_offered(found):
        case None:
            return "usable"
        case VssNotUsable():
            return "not usable"
        case _:
            return None
