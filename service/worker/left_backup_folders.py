"""Removes the folders of backups that no job will continue: those in the state folder whose job has ended, or is not on record any more.

A backup keeps the state of firmware and TPM there, which may hold secrets. If the database is lost while a backup runs, nothing else
removes the folder.
"""

import os
import time
from pathlib import Path

from sqlalchemy import select

from service import log
from service.db.engine import Database
from service.db.tables import Job
from service.errors import DatabaseUnavailable
from service.jobs.backup_folder import FOLDER, BackupFolder
from service.model.lifecycle import FINAL_STATES, JobState

UNKNOWN_KEPT_S = 86400.0
"""Seconds for which a folder is kept whose job is not on record: the database may be an older copy, and the right one may come back."""

_logger = log.get(__name__)


def sweep(database: Database, state_dir: Path) -> list[str]:
    """The ids of the jobs whose folders were removed. Raises nothing: a folder that stays is looked at again at the next start."""
    try:
        changed = {entry.name: entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(state_dir / FOLDER) if entry.is_dir()}
        states = _states_of(database, list(changed)) if changed else {}
    except (OSError, DatabaseUnavailable) as error:
        if not isinstance(error, FileNotFoundError):
            _logger.warning("backup_folders_not_swept", reason=str(error))
        return []
    before = time.time() - UNKNOWN_KEPT_S
    left = [job_id for job_id in sorted(changed) if _is_left(states.get(job_id), changed[job_id] < before)]
    for job_id in left:
        BackupFolder(state_dir, job_id).remove()
        _logger.info("backup_folder_removed", job_id=job_id)
    return left


def _states_of(database: Database, job_ids: list[str]) -> dict[str, str]:
    with database.read() as session:
        return {row.id: row.state for row in session.execute(select(Job.id, Job.state).where(Job.id.in_(job_ids)))}


def _is_left(state: str | None, is_old: bool) -> bool:
    return is_old if state is None else JobState(state) in FINAL_STATES
