"""What a backup leaves in its job: the judgement of its point, and what was copied."""

from typing import Any

from service.freeze import vss_record
from service.freeze.documents import raw_texts
from service.freeze.passed import Passed
from service.jobs.ending import Ending
from service.jobs.point_outcome import Outcome, Taken, points_evidence
from service.model.backup_intent import BackupIntent
from service.records.queue import NewJob


def ending_of(passed: Passed, taken: Taken, outcome: Outcome, *, next_try: NewJob | None) -> Ending:
    vss = vss_record.record(passed, outcome.judgement, is_tried_again=next_try is not None)
    evidence = points_evidence(passed, taken)
    return Ending(outcome.error, outcome.judgement, evidence, raw_texts(passed), vss=vss, next_try=next_try)


def document(own: BackupIntent) -> dict[str, Any]:
    return {
        "repository": own.repository_id,
        "point": own.point_id,
        "folder": own.folder,
        "disks": [
            {
                "target": disk.target,
                "level": disk.level.value,
                "reason": disk.reason,
                "copied_bytes": (disk.copied or {}).get("copied_bytes"),
                "stored_bytes": (disk.copied or {}).get("stored_bytes"),
            }
            for disk in own.disks
        ],
        "impact": own.impact,
        # For `service.records.doubtful_points`.
        **({"may_be_sealed": True, "partial": own.partial} if own.may_be_sealed else {}),
    }
