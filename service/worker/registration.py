"""Registers one process as the worker of a host. The database refuses a second worker of that host, on any machine.

A worker reports every few seconds. The row of the host names the instance that reports, and the lock file that it holds. A new worker
takes over at once if it holds the same lock file, because the earlier worker is dead then. Any other worker must wait until the earlier
worker has been silent for longer than the leases of its jobs last.
"""

import os
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import service
from service.db.engine import database_now
from service.db.tables import Host
from service.errors import HostTaken
from service.records.host_silence import silence_of
from service.worker.host_lock import LockId

REPORT_S = 5.0
"""Seconds between two reports of a worker, at most."""
REPORTS_MISSED = 3
"""Missing reports, after a reboot, until the other worker counts as dead. Until then the other worker may run on a copy of this machine."""


@dataclass(frozen=True)
class Terms:
    """Facts that a worker stores about itself. Other processes use them to decide whether the worker is silent."""

    lease_seconds: float
    inventory_seconds: float
    libvirt_uri: str


class Registration:
    """The registration of one process. Each function is a part of the caller's transaction."""

    def __init__(self, host_id: str, terms: Terms) -> None:
        self.instance_id = str(uuid4())
        self._host_id = host_id
        self._terms = terms

    def take(self, session: Session, lock: LockId) -> bool:
        """Become the worker of this host. Returns whether the host was known before. Raises HostTaken."""
        now = database_now(session)
        host = _locked(session, self._host_id)
        was_known = host is not None
        if host is None:
            host = self._added(session, now)
        if host.instance_id not in (None, self.instance_id):
            self._refuse(host, lock, now)
        host.instance_id, host.lock_id = self.instance_id, str(lock)
        host.held_by = f"process {os.getpid()} on {socket.gethostname()}"
        host.started_at = host.last_seen = now
        host.version = service.__version__
        host.lease_seconds, host.inventory_seconds = self._terms.lease_seconds, self._terms.inventory_seconds
        session.flush()
        return was_known

    def report(self, session: Session) -> bool:
        """Report that the worker lives. False: another worker took the host, or the host was forgotten."""
        seen = update(Host).where(Host.id == self._host_id, Host.instance_id == self.instance_id)
        return session.scalar(seen.values(last_seen=database_now(session)).returning(Host.id)) is not None

    def holds(self, session: Session) -> bool:
        mine = select(Host.id).where(Host.id == self._host_id, Host.instance_id == self.instance_id)
        return session.scalar(mine) is not None

    def release(self, session: Session) -> None:
        """Give up the host, so that the next worker need not wait."""
        session.execute(update(Host).where(Host.id == self._host_id, Host.instance_id == self.instance_id).values(instance_id=None))

    def _added(self, session: Session, now: datetime) -> Host:
        new = Host(
            id=self._host_id,
            started_at=now,
            last_seen=now,
            version=service.__version__,
            libvirt_uri=self._terms.libvirt_uri,
            versions={},
            libvirt_connected=False,
            libvirt_error="the worker has not asked libvirt yet",
        )
        try:
            with session.begin_nested():
                session.add(new)
        except IntegrityError:
            # Two workers of a new host started at the same time, and the other worker was first.
            other = _locked(session, self._host_id)
            if other is None:
                raise
            return other
        return new

    def _refuse(self, host: Host, lock: LockId, now: datetime) -> None:
        """Raises HostTaken, unless the other worker is dead or has been silent for long enough."""
        other = LockId.read(host.lock_id)
        if lock.proves_death_of(other):
            return
        silence = silence_of(host)
        if lock.is_of_an_earlier_boot(other):
            silence = min(silence, timedelta(seconds=REPORTS_MISSED * REPORT_S))
        seen_ago = abs(now - host.last_seen)
        if seen_ago <= silence:
            raise HostTaken(
                host=host.id,
                held_by=host.held_by or "another process",
                seen_ago_s=round(seen_ago.total_seconds(), 1),
                free_in_s=round((silence - seen_ago).total_seconds(), 1),
            )


def _locked(session: Session, host_id: str) -> Host | None:
    return session.get(Host, host_id, with_for_update=True, populate_existing=True)
