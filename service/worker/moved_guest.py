"""The files that are left on this host if the guest of a job whose worker died is on another host now."""

from pathlib import Path

from service import bounded_io
from service.errors import StorageNotAnswering
from service.model.intent import Intent


def tell_of_files(intent: Intent) -> list[str]:
    """Nothing is deleted: another host may write to these files."""
    left = [overlay.path for overlay in intent.overlays if _exists(overlay.path)]
    return [f"Files of this job were left, because another host may use them: {', '.join(left)}."] if left else []


def _exists(path: str) -> bool:
    try:
        return bounded_io.call("looking for", path, Path(path).exists)
    except (OSError, StorageNotAnswering):
        return True
