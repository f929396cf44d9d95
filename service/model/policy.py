"""What a job may demand: how to freeze, and which verdict counts as success."""

from dataclasses import dataclass
from enum import StrEnum


class FreezeMode(StrEnum):
    required = "required"
    """No freeze, no snapshot: the job fails before anything is taken."""
    preferred = "preferred"
    """Freeze where it works; otherwise take the point and give it the verdict it deserves."""
    off = "off"
    """Do not freeze: the verdict is `crash`, or `offline` for a domain that is shut off."""


DEFAULT_FREEZE_TIMEOUT_MS = 120_000
"""F§6.1: VSS alone may take 60 s to freeze and more to prepare; a hook in a Linux guest may dump a database."""
DEFAULT_HOLD_LIMIT_MS = 30_000
"""F§6.1: the default for Linux, which has no limit of its own."""


@dataclass(frozen=True)
class FreezePolicy:
    mode: FreezeMode = FreezeMode.required
    timeout_ms: int = DEFAULT_FREEZE_TIMEOUT_MS
    hold_limit_ms: int = DEFAULT_HOLD_LIMIT_MS
    preflush: bool = True
