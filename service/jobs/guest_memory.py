"""What is remembered of a Windows guest between jobs, and what changed since (an update that resets VssOption, a writer that is gone)."""

from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import GuestMemory
from service.errors import VssNotUsable
from service.jobs.vss_evidence import VssEvidence
from service.model import drift, known_writers, vss_usable
from service.model.drift import Change, Fact, FactValue
from service.model.inventory import Survey
from service.model.moment import rfc3339

_WRITERS = "known_writers"
_WATCHED = ("guest-exec", "guest-exec-status", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-get-osinfo", "guest-get-fsinfo")


def remember(session: Session, domain_id: str, found: Survey, evidence: VssEvidence) -> list[Change]:
    """Compare with what was known, keep what is known now, and answer the changes.

    `evidence` is given the writers that earlier jobs saw: whether one is missing is judged when the list after the thaw is there.
    """
    now = database_now(session)
    known = session.get(GuestMemory, domain_id)
    facts = dict(known.facts) if known else {}
    memory, changes = drift.compare(drift.memory_from(facts), _facts(found, evidence), rfc3339(now))
    writers = known_writers.known_from(facts.get(_WRITERS, []))
    listed = evidence.before.report
    evidence.known_writers = known_writers.updated(writers, listed, rfc3339(now))
    changes += known_writers.changes(known_writers.missing(evidence.known_writers, listed), rfc3339(now))
    if known is None:
        known = GuestMemory(domain_id=domain_id)
        session.add(known)
    known.facts = {**drift.memory_document(memory), _WRITERS: known_writers.as_documents(evidence.known_writers)}
    known.updated_at = now
    return changes


def _facts(found: Survey, evidence: VssEvidence) -> dict[Fact, FactValue | None]:
    return {
        Fact.agent_version: found.agent.version,
        Fact.vss_option: drift.vss_option_fact(evidence.option),
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
