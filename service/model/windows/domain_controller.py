"""Whether a guest is a domain controller, as the VSS record of a job tells it."""

from collections.abc import Mapping
from typing import Any

from service.model.windows.well_known_writers import NTDS


def is_domain_controller(vss: Mapping[str, Any] | None) -> bool | None:
    """`vss`: the column of a job, or the field of a manifest. None: the record does not tell."""
    if vss is None:
        return None
    if not vss.get("applicable"):
        return False
    if any(str(writer.get("class_id", "")).lower() == NTDS for writer in vss.get("writers") or ()):
        return True
    return False if vss.get("writers_source") is not None else None
