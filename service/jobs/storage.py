"""File system calls on the storage of disks: a mount that hangs (NFS) blocks them for ever, so each has a limit."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from service.errors import StorageNotAnswering
from service.hypervisor.deadlines import HELPERS, GivenUp

T = TypeVar("T")

PATIENCE_S = 20.0


def answered(what: str, path: str | Path, function: Callable[[], T], limit_s: float | None = None) -> T:
    """What `function` returns or raises, within `limit_s` (PATIENCE_S). `what`: in words, before the path.

    Raises StorageNotAnswering; what was asked for may still happen when the mount answers again.
    """
    try:
        return HELPERS.run(function, PATIENCE_S if limit_s is None else limit_s, call=what, lane=f"storage {Path(path).parent}")
    except GivenUp as hung:
        raise StorageNotAnswering(what=what, path=str(path), timeout_ms=hung.waited_s * 1000, why=hung.why) from hung
