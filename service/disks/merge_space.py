"""What a merge takes: the file below grows by what the overlay holds, and the overlay gives its space back only at the end."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from service import bounded_io
from service.errors import MergeWithoutSpace, StillpointError
from service.model.intent import Overlay

FLOOR_BYTES = 32 << 20
"""Free bytes that a merge leaves on a filesystem. Below that the merge is stopped, unless what is left of it fits: the guest would be
paused by QEMU when its overlay finds no space."""


def free_bytes(folder: Path) -> int | None:
    """What is free there for QEMU, which has no share in the blocks that are reserved for root. None: the storage does not say."""
    try:
        state = bounded_io.call("look at the space of", folder / "*", lambda: os.statvfs(folder))
    except (OSError, StillpointError):
        return None
    return state.f_bavail * state.f_frsize


def device_of(folder: Path) -> int | None:
    """Two folders of the same filesystem have the same number."""
    status = _status(folder)
    return status.st_dev if status is not None else None


def growth_bytes(overlay: Overlay) -> int:
    """The most by which the file below grows in the merge. 0: it has all of its space already, or the storage does not say."""
    above, below = _status(Path(overlay.path)), _status(Path(overlay.base))
    if above is None or below is None or not stat.S_ISREG(below.st_mode):
        return 0
    return max(0, min(above.st_blocks * 512, overlay.virtual_size - below.st_blocks * 512))


def allocated_bytes(path: str) -> int:
    status = _status(Path(path))
    return status.st_blocks * 512 if status is not None else 0


def growth_by_folder(overlays: Sequence[Overlay], folders: Sequence[Path]) -> dict[Path, int]:
    """For each folder: the most that the merges of these overlays take on its filesystem."""
    grown = [(device_of(Path(overlay.base).parent), growth_bytes(overlay)) for overlay in overlays]
    return {folder: sum(growth for device, growth in grown if device == device_of(folder)) for folder in folders}


def why_not_enough(overlay: Overlay, left_bytes: int) -> StillpointError | None:
    """`left_bytes`: what the merge has still to write. The error says that it would fill the filesystem."""
    folder = Path(overlay.base).parent
    free = free_bytes(folder)
    if free is None or free >= FLOOR_BYTES or left_bytes <= free:
        return None
    return MergeWithoutSpace(target=overlay.target, folder=str(folder), free_bytes=free, needed_bytes=left_bytes)


def _status(path: Path) -> os.stat_result | None:
    try:
        return bounded_io.call("looking at", path, path.stat)
    except (OSError, StillpointError):
        return None
