"""The manifest of a backup: what its job's row and the copy say, in the form that stays readable without the service."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

import service
from service.clock import rfc3339
from service.db.tables import Host, Job
from service.jobs.run import JobRun
from service.model.backup_intent import BackupIntent, PlannedDisk
from service.model.manifest import DiskOfPoint, LeftOut, Manifest, StoredFile
from service.model.repository import DEFINITION_FILE, STATE_FILE
from service.model.requests import BackupRequest


def manifest_of(run: JobRun, own: BackupIntent, files: Sequence[StoredFile], *, key_id: str, is_encrypted: bool) -> Manifest:
    row, versions = run.in_transaction(lambda session: _recorded(session, run.claim.job_id, run.claim.host_id))
    request = run.request(BackupRequest)
    assert own.point_in_time_at is not None
    return Manifest(
        point_id=own.point_id,
        repository_id=own.repository_id,
        folder=own.folder,
        job_id=run.claim.job_id,
        host_id=run.claim.host_id,
        domain_id=own.domain_id,
        domain_name=run.claim.domain_name or "",
        point_in_time_at=own.point_in_time_at,
        sealed_at=rfc3339(datetime.now(UTC)),
        verdict=row["verdict"],
        verdict_reasons=row["verdict_reasons"],
        disks=[_disk(disk, is_compressed=request.compress, is_encrypted=is_encrypted) for disk in own.disks],
        left_out=[LeftOut(target, reason) for target, reason in own.left_out.items()],
        files=files,
        evidence=row["evidence"],
        timing=row["timing"],
        vss=row["vss"],
        state_files=_state_files(own) | ({"archive": STATE_FILE} if is_encrypted else {}),
        labels=dict(run.claim.labels),
        pinned=request.pinned,
        versions=versions,
        key_id=key_id,
    )


def _recorded(session: Session, job_id: str, host_id: str) -> tuple[Mapping[str, Any], dict[str, str]]:
    job, host = session.get_one(Job, job_id, populate_existing=True), session.get(Host, host_id)
    row = {name: getattr(job, name) for name in ("verdict", "verdict_reasons", "evidence", "timing", "vss")}
    return row, {**{name: str(value) for name, value in (host.versions if host else {}).items()}, "stillpoint": service.__version__}


def _disk(disk: PlannedDisk, *, is_compressed: bool, is_encrypted: bool) -> DiskOfPoint:
    assert disk.copied is not None
    return DiskOfPoint(
        target=disk.target,
        file=disk.file,
        virtual_size=disk.virtual_size,
        level=disk.level,
        reason=disk.reason,
        content=disk.copied["content"],
        blocks_file=disk.copied["blocks_file"],
        copied_bytes=disk.copied["copied_bytes"],
        parent=disk.parent_id,
        parent_folder=disk.parent_folder,
        checkpoint=disk.checkpoint,
        is_compressed=is_compressed and not is_encrypted,
        is_encrypted=is_encrypted,
        source_format=disk.source_format,
        serial=disk.serial,
        source_files=disk.source_files,
    )


def _state_files(own: BackupIntent) -> dict[str, Any]:
    nvram = [name for name in own.stored if name == "nvram"]
    tpm = [it for it in own.stored if it.startswith("tpm/")]
    taken_at = own.firmware_taken_at if nvram or tpm else None
    return {"definition": DEFINITION_FILE, "nvram": nvram[0] if nvram else None, "tpm": tpm, "taken_at": taken_at}
