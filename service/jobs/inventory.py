"""Publishing the host: that it lives, and what its domains are. The API knows hosts through this alone."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Session

import service
from service import log
from service.db.engine import Database
from service.db.tables import Domain, Host
from service.errors import LibvirtCallTimedOut, LibvirtUnavailable, StillpointError
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.jobs.readers import Readers
from service.jobs.survey import read_agent
from service.model.inventory import AgentFacts, DomainState

READERS = 8
READ_PATIENCE_S = 20.0
"""How long one publication waits for its slowest domain; that one stays as it was last seen."""

_GONE: dict[str, Any] = {}
"""The row of a domain that is no more."""

_logger = log.get(__name__)


class Inventory:
    """Reads the host and writes what it saw. One instance per worker; `publish` is called from one thread."""

    def __init__(self, database: Database, connection: HostConnection, host_id: str, read_patience_s: float = READ_PATIENCE_S) -> None:
        self._database = database
        self._connection = connection
        self._host_id = host_id
        self._started_at = datetime.now(UTC)
        #: What each guest said when it was last asked; shown while a job has it and it is not asked.
        self._said_last: dict[str, dict[str, Any]] = {}
        self._readers: Readers[dict[str, Any] | None] = Readers(READERS)
        self._read_patience_s = read_patience_s

    def publish(self, busy_domains: frozenset[str]) -> bool:
        """Read libvirt and write hosts and domains; False while libvirt is away. Agents of busy domains are not asked."""
        versions: dict[str, Any] = {}
        rows: dict[str, dict[str, Any] | None] = {}
        problem: str | None = None
        try:
            versions = self._connection.versions()
            rows = self._rows(self._connection.guests(), busy_domains)
        except LibvirtUnavailable as error:
            problem = error.detail
        with self._database.write() as session:
            self._write_host(session, versions, problem)
            if problem is None:
                self._write_domains(session, rows)
        return problem is None

    def libvirt_answers(self) -> bool:
        try:
            self._connection.versions()
        except LibvirtUnavailable:
            return False
        return True

    def heartbeat(self) -> None:
        """Only that the worker lives."""
        with self._database.write() as session:
            host = session.get(Host, self._host_id)
            if host is not None:
                host.last_seen = datetime.now(UTC)

    def _rows(self, guests: list[Guest], busy: frozenset[str]) -> dict[str, dict[str, Any] | None]:
        """By domain id; None: it could not be read, and stays as it was last seen."""
        # Side by side: an agent that hangs costs ten seconds, and must not hide the other domains for so long.
        read = self._readers.read({guest.uuid: partial(self._row, guest, busy) for guest in guests}, self._read_patience_s)
        for guest in guests:
            if guest.uuid not in read:
                _logger.warning("domain_not_answering", domain=guest.name, reason="reading it takes too long")
        return {guest.uuid: read.get(guest.uuid) for guest in guests if read.get(guest.uuid) is not _GONE}

    def _row(self, guest: Guest, busy: frozenset[str]) -> dict[str, Any] | None:
        try:
            return {"id": guest.uuid, "name": guest.name, "state": guest.state().value, "document": self._document(guest, busy)}
        except LibvirtUnavailable:
            raise
        except LibvirtCallTimedOut as error:
            _logger.warning("domain_not_answering", domain=guest.name, reason=error.detail)
            return None
        except StillpointError as error:
            # It was undefined between the list and the look: the next publication is right again.
            _logger.info("domain_left_out", domain=guest.name, reason=error.detail)
            return _GONE

    def _document(self, guest: Guest, busy: frozenset[str]) -> dict[str, Any]:
        agent = AgentFacts(channel=guest.has_agent_channel())
        filesystems = None
        # libvirt runs one agent command at a time: asking a guest that is being frozen would stand in the way.
        ask = guest.state() is DomainState.running and agent.channel and guest.agent_is_connected() is not False and guest.uuid not in busy
        if ask:
            read_agent(guest, agent)
        if ask and agent.answers and not agent.frozen:
            filesystems = _filesystems(guest)
        said = {
            "filesystems": filesystems,
            "agent": {**agent.as_document(), "connected": agent.answers if ask else guest.agent_is_connected()},
            "os": _os_document(agent),
            "frozen": agent.frozen,
        }
        if guest.uuid in busy:
            said = self._said_last.get(guest.uuid, said)
        else:
            self._said_last[guest.uuid] = said
        return {"persistent": guest.is_persistent(), "disks": [disk.as_document() for disk in guest.disks()], **said}

    def _write_host(self, session: Session, versions: dict[str, Any], problem: str | None) -> None:
        now = datetime.now(UTC)
        host = session.get(Host, self._host_id)
        if host is None:
            host = Host(id=self._host_id, versions={})
            session.add(host)
        host.started_at = self._started_at
        host.last_seen = now
        host.version = service.__version__
        host.libvirt_uri = self._connection.uri
        host.libvirt_connected = problem is None
        host.libvirt_error = problem
        if problem is None:
            host.versions = versions
            host.inventory_at = now
        session.flush()

    def _write_domains(self, session: Session, rows: dict[str, dict[str, Any] | None]) -> None:
        now = datetime.now(UTC)
        for row in rows.values():
            if row is not None:
                session.merge(Domain(host_id=self._host_id, published_at=now, **row))
        session.execute(delete(Domain).where(Domain.host_id == self._host_id, Domain.id.not_in(rows)))


def _filesystems(guest: Guest) -> list[dict[str, Any]] | None:
    try:
        return [filesystem.as_document() for filesystem in guest.filesystems()]
    except StillpointError:
        return None


def _os_document(agent: AgentFacts) -> dict[str, Any] | None:
    if agent.os is None:
        return None
    return {
        "family": agent.os_family.value,
        "name": agent.os.get("pretty-name") or agent.os.get("name"),
        "version": agent.os.get("version-id") or agent.os.get("version"),
        "kernel": agent.os.get("kernel-release"),
    }
