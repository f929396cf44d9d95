"""Whether a point is whole, before it is restored: by reading every byte, or for an instant restore by a fresh proof on record.

An instant restore must not take longer for a larger disk. So where the bytes of the point were read lately and no file was written since
then, the domain starts first, and the bytes are read right after that.
"""

from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Any

from service.db.tables import RecoveryPoint
from service.errors import PointDamaged
from service.jobs.restore_source import Archive, Source
from service.model import proofs
from service.model.repository import ProofKind

FRESH = timedelta(days=1)
"""How long a proof of bytes, or the seal itself, stands for the bytes at the start of an instant restore. An older point is read first."""


def read_all(archive: Archive, source: Source) -> None:
    """Every stored byte of the point and of those below. Raises PointDamaged, the errors of a repository."""
    _refuse(archive, source, archive.call("verify_point", folder=source.manifest.folder, checks=["bytes"])["bytes"]["faults"])


def is_proven(archive: Archive, source: Source, point: RecoveryPoint, now: datetime) -> bool:
    """Whether the point was read or sealed lately, and no file of it was written since then. Raises PointDamaged."""
    seen = archive.call("look_at_files", folder=source.manifest.folder)
    _refuse(archive, source, seen["faults"])
    since = max([datetime.fromisoformat(source.manifest.sealed_at), *_proven_at(point)])
    return now - since < FRESH and datetime.fromtimestamp(seen["newest"], UTC) <= since


def _proven_at(point: RecoveryPoint) -> list[datetime]:
    newest = proofs.newest(point.proofs, ProofKind.bytes)
    return [datetime.fromisoformat(newest["at"])] if newest is not None and newest["ok"] else []


def _refuse(archive: Archive, source: Source, faults: list[dict[str, Any]]) -> None:
    if faults:
        first = faults[0]
        path = str(PurePath(archive.path, first["folder"], first["file"] or ""))
        raise PointDamaged(point=source.manifest.point_id, path=path, reason=first["reason"], next_good=None)
