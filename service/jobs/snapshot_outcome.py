"""The end of a snapshot: the verdict, the recovery point, and what follows from a point that is worse than the request requires."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import bounded_io
from service.db.tables import RecoveryPoint
from service.errors import DiscardFailed, StorageNotAnswering
from service.freeze import vss_record
from service.freeze.documents import count, raw_texts
from service.freeze.passed import Passed
from service.hypervisor.guest import Guest
from service.jobs.ending import Ending
from service.jobs.point_outcome import Taken, judge_point, points_evidence
from service.jobs.run import JobRun
from service.jobs.shortfall import Shortfall
from service.model.intent import Overlay
from service.model.lifecycle import PhaseName
from service.model.verdict import Judgement
from service.model.windows.writer_rules import WriterRules


def conclude(run: JobRun, guest: Guest, passed: Passed, taken: Taken, rules: WriterRules) -> Ending:
    """Judge the point, and remove overlays that are not used."""
    with run.phase_that_cannot_be_cancelled(PhaseName.evaluate) as phase:
        outcome = judge_point(run, guest, passed, taken, rules=rules, phase=phase)
        judgement, error = outcome.judgement, outcome.error
        point = _recovery_point(run, passed, taken, judgement) if outcome.is_point else None
    shortfall = Shortfall(run, taken.overlays if taken.is_point and passed.terms.is_running else (), error)
    next_try = shortfall.next_try
    vss = vss_record.record(passed, judgement, is_tried_again=next_try is not None)
    ending = Ending(error, judgement, points_evidence(passed, taken), raw_texts(passed), vss=vss, point=point, next_try=next_try)
    if shortfall.is_discarded:
        run.write({"phase": PhaseName.discard.value, "intent": shortfall.discard_intent.as_document(), **ending.judged()}, ending.texts)
        with run.phase_that_cannot_be_cancelled(PhaseName.discard):
            error = shortfall.discard(guest)
        ending = replace(ending, error=error, point=point if isinstance(error, DiscardFailed) else None)
    count(passed)
    return ending


def _recovery_point(run: JobRun, passed: Passed, taken: Taken, judgement: Judgement) -> RecoveryPoint:
    instant = passed.window.instants.point_done
    return RecoveryPoint(
        id=str(uuid.uuid4()),
        job_id=run.claim.job_id,
        kind=run.claim.kind,
        domain_id=run.claim.domain_id,
        domain_name=run.claim.domain_name,
        host_id=run.claim.host_id,
        created_at=datetime.now(UTC),
        point_in_time_at=passed.wall.at(instant) if instant else datetime.now(UTC),
        verdict=judgement.verdict.value,
        labels=run.claim.labels,
        disks=[disk_document(overlay) for overlay in taken.overlays],
        size_bytes=sum(_allocated(overlay.base) or 0 for overlay in taken.overlays),
    )


def disk_document(overlay: Overlay) -> dict[str, Any]:
    return {
        "target": overlay.target,
        "file": overlay.base,
        "format": overlay.base_format,
        "virtual_size": overlay.virtual_size,
        "allocated": _allocated(overlay.base),
        "overlay": overlay.path,
    }


def _allocated(path: str) -> int | None:
    try:
        return bounded_io.call("looking at", path, Path(path).stat).st_blocks * 512
    except (OSError, StorageNotAnswering):
        return None
