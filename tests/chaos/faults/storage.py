"""Faults of the database and of the disks of the host."""

import sqlite3
from contextlib import suppress

from tests.chaos.faults.strike import Strike, fault
from tests.lab.command import run


@fault()
def sqlite_locked(strike: Strike) -> None:
    strike.wait_at_random()
    database = sqlite3.connect(strike.stage.state_dir / "stillpoint.db", timeout=5, isolation_level=None)
    with suppress(sqlite3.OperationalError):
        database.execute("BEGIN EXCLUSIVE")
        strike.pause(0.2, 2.0)
        database.execute("ROLLBACK")
    database.close()


@fault()
def sqlite_read_only(strike: Strike) -> None:
    """Every write fails, also of those who have the files open: root is not stopped by permissions, but by `chattr +i`."""
    if not strike.stage.has_small_disk:
        return
    strike.wait_at_random()
    # Named one by one: without a write-ahead log there is only the first.
    files = sorted(strike.stage.state_dir.glob("stillpoint.db")) + sorted(strike.stage.state_dir.glob("stillpoint.db-wal"))
    run(["chattr", "+i", *files])
    try:
        strike.pause(0.2, 2.0)
    finally:
        run(["chattr", "-i", *files])


@fault()
def state_disk_full(strike: Strike) -> None:
    """The disk with the database, the log and the guards' reports."""
    if not strike.stage.has_small_disk:
        return
    strike.wait_at_random()
    ballast = strike.stage.state_dir / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(65536)):
            pass
    strike.pause(0.2, 2.0)
    ballast.unlink()
