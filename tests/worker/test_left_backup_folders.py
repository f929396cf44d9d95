"""What a backup kept in the state folder goes at the next start of the worker, once no job can continue with it."""

import os
import time
import uuid
from pathlib import Path

import pytest

from service.db.engine import Database
from service.jobs.backup_folder import BackupFolder
from service.model.backup_intent import Firmware
from service.worker import left_backup_folders
from service.worker.left_backup_folders import UNKNOWN_KEPT_S
from tests.api.world import add_job


def folder(state_dir: Path, job_id: str, *, age_s: float = 0) -> Path:
    """With a secret in it."""
    (state_dir / "vars.fd").write_text("variables")
    kept = BackupFolder(state_dir, job_id)
    kept.keep(Firmware(str(state_dir / "vars.fd"), ()))
    os.utime(kept.path, (time.time() - age_s,) * 2)
    return kept.path


@pytest.mark.parametrize(
    ("state", "stays"), [("running", True), ("interrupted", True), ("queued", True), ("failed", False), ("succeeded", False)]
)
def test_the_folder_of_a_job_goes_when_the_job_has_ended(database: Database, tmp_path: Path, state: str, *, stays: bool) -> None:
    with database.write() as session:
        job_id = add_job(session, state=state)
    path = folder(tmp_path, job_id, age_s=2 * UNKNOWN_KEPT_S)
    assert left_backup_folders.sweep(database, tmp_path) == ([] if stays else [job_id])
    assert path.exists() is stays


@pytest.mark.parametrize(("age_s", "stays"), [(UNKNOWN_KEPT_S - 600, True), (UNKNOWN_KEPT_S + 600, False)])
def test_the_folder_of_a_job_that_a_lost_database_knew_goes_after_a_day(
    database: Database, tmp_path: Path, age_s: float, *, stays: bool
) -> None:
    path = folder(tmp_path, str(uuid.uuid4()), age_s=age_s)
    left_backup_folders.sweep(database, tmp_path)
    assert path.exists() is stays


def test_a_state_folder_without_backups_has_nothing_to_remove(database: Database, tmp_path: Path) -> None:
    assert left_backup_folders.sweep(database, tmp_path) == []
