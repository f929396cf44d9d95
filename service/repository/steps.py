"""What the hand can do: each step by its name. A module with steps has a dictionary `STEPS`, which is joined here."""

from collections.abc import Callable, Mapping
from typing import Any

from service.repository import copy_steps, folder, partial, points, reach, seal
from service.repository.report import Report

#: Arguments and result are what JSON can say. Raises a StillpointError, or an OSError, which is told as one of the repository's errors.
Step = Callable[[dict[str, Any], Report], dict[str, Any]]

STEPS: Mapping[str, Step] = folder.STEPS | partial.STEPS | seal.STEPS | points.STEPS | copy_steps.STEPS | reach.STEPS
