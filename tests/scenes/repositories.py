"""A registered repository, and manifests of points in it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from sqlalchemy.orm import Session

from service.db.tables import RecoveryPoint, Repository
from service.model.manifest import DiskOfPoint, LeftOut, Manifest, StoredFile
from service.model.repository import DiskLevel, point_folder
from service.records import points, repositories, sealed_points
from service.records.repositories import Registration

FIRST_NIGHT = datetime(2026, 1, 31, 22, 0, tzinfo=UTC)
DB1 = "c7a5fdbd-edaf-9455-926a-d65c16db1809"


def add_repository(session: Session, name: str = "nas", path: str | None = None, host_id: str = "hv1", **terms: Any) -> Repository:
    wanted = Registration(name=name, path=path or f"/srv/{name}", host_id=host_id, **terms)
    return repositories.add(session, wanted, datetime.now(UTC))


def id_of_point(name: str) -> str:
    return str(uuid5(NAMESPACE_OID, name))


def a_manifest(name: str, repository_id: str, *, parent: str | None = None, nights: int = 0, **fields: Any) -> Manifest:
    """`name`, `parent`: names of points, from which their ids follow. `nights`: after the first one."""
    at = FIRST_NIGHT + timedelta(days=nights)
    disk = DiskOfPoint(
        target="vda",
        file="vda.qcow2",
        virtual_size=1 << 30,
        level=DiskLevel.bitmap if parent else DiskLevel.full,
        reason="",
        content="",
        blocks_file="vda.blocks",
        copied_bytes=1000,
        parent=id_of_point(parent) if parent else None,
    )
    values: dict[str, Any] = {
        "point_id": id_of_point(name),
        "repository_id": repository_id,
        "folder": point_folder(DB1, name),
        "job_id": id_of_point(f"job of {name}"),
        "host_id": "hv1",
        "domain_id": DB1,
        "domain_name": "db1",
        "point_in_time_at": at.isoformat(),
        "sealed_at": (at + timedelta(minutes=1)).isoformat(),
        "verdict": "filesystem",
        "verdict_reasons": [],
        "disks": (disk,),
        "left_out": (LeftOut("sda", "kept elsewhere"),),
        "files": (StoredFile("vda.qcow2", 1000, ""), StoredFile("vda.blocks", 32, "")),
    }
    return Manifest(**(values | fields))


def add_sealed(session: Session, name: str, repository_id: str, **fields: Any) -> RecoveryPoint:
    manifest = a_manifest(name, repository_id, **fields)
    sealed_points.import_point(session, manifest, f"digest of {name}", repository_id, datetime.now(UTC))
    return points.get(session, manifest.point_id)
