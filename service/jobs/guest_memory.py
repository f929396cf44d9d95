"""What is remembered of a Windows guest between jobs, and what changed since (an update that resets VssOption)."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from service.db.tables import GuestMemory
from service.errors import VssNotUsable
from service.jobs.vss_evidence import VssEvidence
from service.model import drift, vss_usable
from service.model.drift import Change, Fact, FactValue
from service.model.inventory import Survey
from service.model.moment import rfc3339

_WATCHED = ("guest-exec", "guest-exec-status", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-get-osinfo", "guest-get-fsinfo")


def remember(session: Session, domain_id: str, found: Survey, evidence: VssEvidence) -> list[Change]:
    """Compare with what was known, keep what is known now, and answer the changes."""
    now = datetime.now(UTC)
    known = session.get(GuestMemory, domain_id)
    memory, changes = drift.compare(drift.memory_from(known.facts if known else {}), _facts(found, evidence), rfc3339(now))
    if known is None:
        known = GuestMemory(domain_id=domain_id)
        session.add(known)
    known.facts, known.updated_at = drift.memory_document(memory), now
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
