"""What the hand can do: each step by its name. A module with steps has a dictionary `STEPS`, which is joined here."""

from collections.abc import Callable, Mapping
from typing import Any

from service.repository import folder, key_check, partial, points, removing, replacing, seal, state_archive, sweeping
from service.repository.report import Report

#: Arguments and result are what JSON can say. Raises a StillpointError, or an OSError, which is told as one of the repository's errors.
Step = Callable[[dict[str, Any], Report], dict[str, Any]]
#: Why steps are missing. None: none is missing.
WHY_MISSING: str | None = None

try:
    from service.repository import copy_steps, reach

    _with_images: dict[str, Step] = copy_steps.STEPS | reach.STEPS
except ImportError as error:
    # Without libnbd no image is read. The points can still be listed, and their stored bytes be checked.
    _with_images, WHY_MISSING = {}, str(error)


def able(arguments: dict[str, Any], report: Report) -> dict[str, Any]:  # noqa: ARG001 - as every step has them
    """The names of all steps, and why some are missing."""
    return {"steps": sorted(STEPS), "why_missing": WHY_MISSING}


_of_folders = folder.STEPS | partial.STEPS | key_check.STEPS | state_archive.STEPS | seal.STEPS | points.STEPS
_of_folders |= removing.STEPS | replacing.STEPS | sweeping.STEPS
STEPS: Mapping[str, Step] = _of_folders | _with_images | {"able": able}
