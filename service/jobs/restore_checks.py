"""Whether a point is whole, before it is restored: by reading every byte, or by a proof on record that still stands.

An instant restore must not take longer for a larger disk. So where every byte of the point was read lately, and the filesystem says that no
file was changed since then, the domain starts first, and the bytes are read right after that.
"""

from datetime import datetime, timedelta
from pathlib import PurePath
from typing import Any, NoReturn

from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.engine import database_now
from service.db.tables import RecoveryPoint
from service.errors import PointDamaged, RepositoryRefused
from service.jobs.restore_source import Archive, Source
from service.jobs.run import JobRun
from service.model.proofs import Proof
from service.model.repository import ProofKind
from service.records import damage, points, stamps


def read_all(run: JobRun, archive: Archive, source: Source) -> None:
    """Every stored byte of the point and of those below: a proof. Raises PointDamaged, the errors of a repository."""
    begun = run.in_transaction(database_now)
    seen = archive.call("verify_point", folder=source.manifest.folder, checks=["bytes"])["bytes"]
    _refuse(archive, source, seen["faults"])
    facts = {name: value for name, value in seen.items() if name not in ("ok", "faults")}
    proof = Proof(ProofKind.bytes, ok=True, facts={**facts, "by": run.claim.kind}, job_id=run.claim.job_id)

    def note(session: Session) -> None:
        point = points.get(session, source.manifest.point_id)
        facts = {"by": run.claim.kind, "job_id": run.claim.job_id}
        damage.take_back(session, point, proof, begun=begun, now=database_now(session), facts=facts)

    run.in_transaction(note)


def confirm(run: JobRun, archive: Archive, source: Source) -> NoReturn:
    """After a block that was not the sealed one. Raises PointDamaged, or RepositoryRefused if nothing is wrong now."""
    read_all(run, archive, source)
    reason = "a block of the point was not the sealed one when it was copied, and the point is whole when it is read again"
    raise RepositoryRefused(what="reading", path=source.manifest.folder, reason=reason)


def standing_proof(run: JobRun, archive: Archive, source: Source, point: RecoveryPoint, max_age: timedelta) -> dict[str, Any] | None:
    """On what a restore may rely instead of reading first: the oldest proof of the chain. None: it must read. Raises PointDamaged."""
    seen = archive.call("look_at_files", folder=source.manifest.folder)
    _refuse(archive, source, seen["faults"])

    def look(session: Session) -> tuple[stamps.Standing | None, datetime]:
        return stamps.standing(session, points.get(session, point.id), seen[stamps.STAMPS]), database_now(session)

    last_read, now = run.in_transaction(look)
    if last_read is None or now - last_read.at > max_age:
        return None
    return {"read_at": rfc3339(last_read.at), "age_s": round((now - last_read.at).total_seconds()), "job_id": last_read.job_id}


def _refuse(archive: Archive, source: Source, faults: list[dict[str, Any]]) -> None:
    if faults:
        first = faults[0]
        path = str(PurePath(archive.path, first["folder"], first["file"] or ""))
        raise PointDamaged(point=source.manifest.point_id, path=path, reason=first["reason"], next_good=None)
