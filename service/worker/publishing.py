"""Publishes that the host lives, and its domains. The API knows hosts only by these rows."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

import service
from service import log
from service.clock import rfc3339
from service.db.engine import Database, database_now
from service.db.tables import Domain, Host
from service.errors import LibvirtCallTimedOut, LibvirtUnavailable, StillpointError
from service.freeze.survey import read_agent
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.model.foreign_freeze import in_one_shape
from service.model.inventory import AgentFacts, DomainState
from service.model.restore_facts import Definition
from service.records import freeze_lease
from service.worker.parallel_reads import ParallelReads, Reading

READERS = 8
"""Threads that ask guests at the same time. If all hang, no other guest is asked until one returns."""
PUBLISH_S = 30.0
"""Seconds between two publications, without a setting and without events."""
AGENT_FIELDS = ("filesystems", "agent", "os", "frozen", "frozen_since", "frozen_by")
"""Fields read from the agent. The agent is not asked while a job has the guest. The last published values are kept then."""
FIRST_PATIENCE_S = 0.5
"""Seconds. Then the domains that were read by then are published, so that a guest that hangs does not hide a new domain."""
LOOK_PATIENCE_S = 1.0
"""Seconds for a guest to answer whether it is still frozen by another client. After that its published state stays."""
READ_PATIENCE_S = 20.0
"""Seconds that one publication waits for its slowest domain. After them that domain keeps its last published row."""

Row = dict[str, Any] | None
_GONE: dict[str, Any] = {}
"""The row of a domain that does not exist any more."""

_logger = log.get(__name__)


@dataclass(frozen=True)
class _Before:
    """The rows that were published last. `read_at`: the database's time when they were read, before any guest is asked."""

    read_at: datetime
    rows: dict[str, Domain]

    def agent_fields(self, uuid: str) -> dict[str, Any]:
        row = self.rows.get(uuid)
        return {name: row.document.get(name) for name in AGENT_FIELDS} if row is not None else {}


class Inventory:
    """Reads the host and writes its rows. One instance per worker. `publish` is called from one thread."""

    def __init__(
        self,
        database: Database,
        connection: HostConnection,
        host_id: str,
        *,
        inventory_seconds: float = PUBLISH_S,
        read_patience_s: float = READ_PATIENCE_S,
        has_job: Callable[[str], bool] = lambda _: False,
        is_mine: Callable[[Session], bool] = lambda _: True,
        must_begin_again: Callable[[], bool] = lambda: False,
    ) -> None:
        """`inventory_seconds`: how often `publish` is called.

        `has_job`: whether a job has this domain now. The job may have begun after the publication.
        `is_mine`: whether this worker is still the worker of the host. Otherwise nothing is published.
        `must_begin_again`: something has happened on the host, so a publication must not wait longer for a slow guest.
        """
        self._database = database
        self._connection = connection
        self._host_id = host_id
        self._inventory_seconds = inventory_seconds
        #: By the clock of the database, because other processes compare this time. None: nothing was written yet.
        self._started_at: datetime | None = None
        #: UUIDs of the guests that are published as frozen by another client.
        self._foreign: frozenset[str] = frozenset()
        self._readers: ParallelReads[dict[str, Any] | None] = ParallelReads(READERS)
        self._lookers: ParallelReads[bool] = ParallelReads(READERS)
        self._read_patience_s = read_patience_s
        self._has_job = has_job
        self._is_mine = is_mine
        self._must_begin_again = must_begin_again
        self.away: LibvirtUnavailable | None = None
        """Why libvirt did not answer the last question. None: libvirt answered, or was not asked yet."""

    def publish(self, busy_domains: frozenset[str]) -> bool:
        """Read libvirt and write hosts and domains; False while libvirt is away. Agents of busy domains are not asked."""
        versions: dict[str, Any] = {}
        rows: dict[str, dict[str, Any] | None] = {}
        problem: str | None = None
        before = self._before()
        reading, guests = None, []
        try:
            versions = self._connection.versions()
            guests = self._connection.guests()
            # At the same time: an agent that hangs costs ten seconds, and must not hide the other domains for so long.
            reading = self._readers.begin({guest.uuid: partial(self._row, guest, busy_domains, before) for guest in guests})
            rows = self._first_rows(guests, reading, before)
            self.away = None
        except LibvirtUnavailable as error:
            self.away = error
            problem = error.detail
        with self._database.write() as session:
            if self._is_mine(session):
                self._write_host(session, versions, problem)
                if problem is None:
                    self._write_domains(session, rows, before)
        if reading is not None:
            self._publish_the_slow(guests, reading, rows, before)
        return problem is None

    def look_again(self, busy_domains: frozenset[str]) -> bool:
        """Ask the guests that another client has frozen whether they are still frozen. False: a guest is not, so publish again."""
        asked = self._foreign - busy_domains
        if not asked:
            return True
        with self._database.read() as session:
            now = database_now(session)
        # A guest that does not answer in time keeps its state, and must not delay the next publication.
        answers = self._lookers.read({uuid: partial(self._is_still_frozen, uuid) for uuid in asked}, LOOK_PATIENCE_S)
        still = {uuid for uuid, is_frozen in answers.items() if is_frozen}
        with self._database.write() as session:
            seen = update(Domain).where(Domain.host_id == self._host_id, Domain.id.in_(still))
            session.execute(seen.values(published_at=now))
        return still == answers.keys()

    @property
    def sees_foreign_freezes(self) -> bool:
        return bool(self._foreign)

    def libvirt_answers(self) -> bool:
        try:
            self._connection.versions()
        except LibvirtUnavailable as error:
            self.away = error
        else:
            self.away = None
        return self.away is None

    def _before(self) -> _Before:
        with self._database.read() as session:
            rows = session.scalars(select(Domain).where(Domain.host_id == self._host_id))
            return _Before(database_now(session), {row.id: row for row in rows})

    def _is_still_frozen(self, uuid: str) -> bool:
        if self._has_job(uuid):
            return True
        try:
            return self._connection.guest(uuid).is_frozen()
        except StillpointError:
            return False

    def _first_rows(self, guests: list[Guest], reading: Reading[Row], before: _Before) -> dict[str, Row]:
        """By domain id. None: the domain is not read yet, and its row stays. A new domain gets a row without the agent's fields."""
        read = reading.results(min(FIRST_PATIENCE_S, self._read_patience_s))
        rows = {guest.uuid: read.get(guest.uuid) for guest in guests if read.get(guest.uuid) is not _GONE}
        for guest in guests:
            if guest.uuid not in read and guest.uuid not in before.rows:
                rows[guest.uuid] = self._unasked(guest)
        return {uuid: row for uuid, row in rows.items() if row is not _GONE}

    def _publish_the_slow(self, guests: list[Guest], reading: Reading[Row], first: dict[str, Row], before: _Before) -> None:
        read: dict[str, Row] = {}
        try:
            read = reading.results(self._read_patience_s, self._must_begin_again)
        except LibvirtUnavailable as error:
            self.away = error
        reading.stop()
        for guest in guests:
            if guest.uuid not in read:
                _logger.warning("domain_not_answering", domain=guest.name, reason="reading it takes too long")
        late = {uuid: row for uuid, row in read.items() if row and first.get(uuid) is not row}
        if late:
            with self._database.write() as session:
                if self._is_mine(session):
                    self._write_domains(session, dict.fromkeys(first) | late, before)

    def _unasked(self, guest: Guest) -> Row:
        """The row of a new domain, without asking its agent. If libvirt hangs for this domain, this may take a few seconds."""
        try:
            return self._row_of(guest, _ask_agent(guest, lambda: False))
        except LibvirtUnavailable:
            raise
        except StillpointError as error:
            _logger.info("domain_left_out", domain=guest.name, reason=error.detail)
            return _GONE

    def _row(self, guest: Guest, busy: frozenset[str], before: _Before) -> dict[str, Any] | None:
        try:
            return self._row_of(guest, self._agent_fields(guest, busy, before))
        except LibvirtUnavailable:
            raise
        except LibvirtCallTimedOut as error:
            _logger.warning("domain_not_answering", domain=guest.name, reason=error.detail)
            return None
        except StillpointError as error:
            # The domain was undefined after libvirt listed it. The next publication is right again.
            _logger.info("domain_left_out", domain=guest.name, reason=error.detail)
            return _GONE

    @staticmethod
    def _row_of(guest: Guest, agent_fields: dict[str, Any]) -> dict[str, Any]:
        document = agent_fields | {"persistent": guest.is_persistent(), "disks": [disk.as_document() for disk in guest.disks()]}
        # For restores on other hosts, which must not give an address a second time.
        document["macs"] = list(Definition.of_xml(guest.xml()).macs)
        return {"id": guest.uuid, "name": guest.name, "state": guest.state().value, "document": document}

    def _agent_fields(self, guest: Guest, busy: frozenset[str], before: _Before) -> dict[str, Any]:
        # libvirt runs one agent command at a time, so a question to a guest that is being frozen would delay its thaw.
        def may_ask() -> bool:
            return guest.uuid not in busy and not self._has_job(guest.uuid)

        answers = _ask_agent(guest, may_ask) if may_ask() else {}
        # If a job began during the questions, the answers may be incomplete, and a freeze may be that job's own.
        return answers if answers and may_ask() else before.agent_fields(guest.uuid) or _ask_agent(guest, lambda: False)

    def _write_host(self, session: Session, versions: dict[str, Any], problem: str | None) -> None:
        now = database_now(session)
        self._started_at = self._started_at or now
        host = session.get(Host, self._host_id)
        if host is None:
            host = Host(id=self._host_id, versions={})
            session.add(host)
        host.started_at = self._started_at
        host.last_seen = now
        host.version = service.__version__
        host.inventory_seconds = self._inventory_seconds
        host.libvirt_uri = self._connection.uri
        host.libvirt_connected = problem is None
        host.libvirt_error = problem
        if problem is None:
            host.versions = versions
            host.inventory_at = now
        session.flush()

    def _write_domains(self, session: Session, rows: dict[str, dict[str, Any] | None], before: _Before) -> None:
        """A row None leaves the row of that domain unchanged."""
        read = [row for row in rows.values() if row is not None]
        for row in read:
            row["document"] |= _freeze(session, row, before)
            first = {} if row["id"] in before.rows else {"appeared_at": before.read_at}
            session.merge(Domain(host_id=self._host_id, published_at=before.read_at, **first, **row))
        session.execute(delete(Domain).where(Domain.host_id == self._host_id, Domain.id.not_in(rows)))
        unread = self._foreign & {uuid for uuid, row in rows.items() if row is None}
        self._foreign = unread | {row["id"] for row in read if row["document"]["frozen"] and row["document"]["frozen_since"]}


def _freeze(session: Session, row: dict[str, Any], before: _Before) -> dict[str, Any]:
    """`frozen`. For a freeze that no running job holds, also since when and by which client."""
    frozen = row["document"]["frozen"]
    earlier, published = before.rows.get(row["id"]), before.agent_fields(row["id"])
    if frozen is False or row["state"] not in (DomainState.running, DomainState.paused):
        return {"frozen": frozen, "frozen_since": None, "frozen_by": None}
    known = {"frozen_since": published.get("frozen_since"), "frozen_by": in_one_shape(published.get("frozen_by"))}
    if frozen is None or known["frozen_since"]:
        # A freeze does not end because its agent stops to answer.
        return {"frozen": frozen, **known}
    thawed_at = earlier.published_at if earlier is not None and published["frozen"] is False else None
    by = freeze_lease.freezer_of(session, row["id"], thawed_at=thawed_at, looked_at=before.read_at)
    if by is None:
        # One of our jobs started or ended during the read, so "frozen" does not prove a foreign freeze.
        return {"frozen": published.get("frozen"), **known}
    return {"frozen": True, "frozen_since": rfc3339(before.read_at), "frozen_by": by}


def _ask_agent(guest: Guest, may_ask: Callable[[], bool]) -> dict[str, Any]:
    agent = AgentFacts(channel=guest.has_agent_channel())
    filesystems = None
    ask = guest.state() is DomainState.running and agent.channel and guest.agent_is_connected() is not False and may_ask()
    if ask:
        read_agent(guest, agent, may_ask)
    if ask and agent.answers and not agent.frozen and may_ask():
        filesystems = _filesystems(guest)
    return {
        "filesystems": filesystems,
        "agent": {**agent.as_document(), "connected": agent.answers if ask else guest.agent_is_connected()},
        "os": _os_document(agent),
        "frozen": agent.frozen,
    }


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
