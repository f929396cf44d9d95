"""Hosts as their workers would have left them, for tests that let them die."""

from datetime import UTC, datetime, timedelta

from service.db.engine import Database
from service.db.tables import Domain, Host
from service.worker.host_lock import LockId
from service.worker.registration import Registration, Terms

LEASE_S, INVENTORY_S = 60.0, 30.0
SILENCE_S = 90.0
"""What follows from both."""


def a_registration(host: str = "hv1", lease_seconds: float = LEASE_S, inventory_seconds: float = INVENTORY_S) -> Registration:
    return Registration(host, Terms(lease_seconds, inventory_seconds, "fake:///system"))


def a_lock(file: str = "a-state-folder", boot: str = "this-boot", inode: str = "1:1") -> LockId:
    return LockId(file, boot, inode)


def register(database: Database, host: str = "hv1", lock: LockId | None = None) -> Registration:
    registration = a_registration(host)
    with database.write() as session:
        registration.take(session, lock or a_lock(f"state-of-{host}"))
    return registration


def heard_ago(database: Database, seconds: float, host: str = "hv1") -> None:
    with database.write() as session:
        session.get_one(Host, host).last_seen = datetime.now(UTC) - timedelta(seconds=seconds)


def publish(database: Database, host: str, domain_id: str, name: str = "db1", state: str = "running", **document: object) -> None:
    with database.write() as session:
        session.merge(Domain(host_id=host, id=domain_id, name=name, state=state, published_at=datetime.now(UTC), document=document))
