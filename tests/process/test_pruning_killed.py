"""Pruning that is killed in the middle: what is gone is counted, what is left goes the next time."""

import os
import subprocess
import sys
import time
from pathlib import Path

from service.db.engine import Database, open_engine
from service.db.tables import Job, JobLabel, PrunedJobs, RecoveryPoint
from tests.api.world import add_recovery_point
from tests.scenes.aged import add_ended, count_of, rows_of

OLD = 300
KEPT = 30


def test_a_pruning_that_was_killed_is_gone_on_with(database_url: str, tmp_path: Path) -> None:
    database = Database(open_engine(database_url))
    with database.write() as session:
        for n in range(OLD):
            job_id = add_ended(session, 400, labels={"n": str(n)})
            if n % (OLD // KEPT) == 0:
                add_recovery_point(session, job_id)
    points = rows_of(database, RecoveryPoint)
    victim = _prune(database_url, tmp_path)
    deadline = time.monotonic() + 300
    while count_of(database, Job) == OLD and time.monotonic() < deadline:
        time.sleep(0.002)
    victim.kill()
    victim.wait()
    left = count_of(database, Job)
    assert KEPT < left < OLD
    assert sum(row[2] for row in rows_of(database, PrunedJobs)) == OLD - left

    assert _prune(database_url, tmp_path).wait(300) == 0
    assert count_of(database, Job) == count_of(database, JobLabel) == KEPT
    assert sum(row[2] for row in rows_of(database, PrunedJobs)) == OLD - KEPT
    assert rows_of(database, RecoveryPoint) == points
    database.dispose()


def _prune(url: str, state_dir: Path) -> subprocess.Popen[bytes]:
    settings = {"STILLPOINT_DATABASE_URL": url, "STILLPOINT_STATE_DIR": str(state_dir), "STILLPOINT_SETTINGS_FILE": "/dev/null"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STILLPOINT_")}
    return subprocess.Popen([sys.executable, "-m", "service.cli", "prune"], env=kept | settings, stdout=subprocess.DEVNULL)
