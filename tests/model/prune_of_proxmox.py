"""The prune rules of Proxmox Backup, written down a second time from what they say, to compare with.

Each point has a mark: kept, passed over, or none yet. The text of a period is what `strftime` says of the local time.
"""

from collections.abc import Sequence
from datetime import datetime, tzinfo

FORMATS = {"hourly": "%Y/%m/%d/%H", "daily": "%Y/%m/%d", "weekly": "%G/%V", "monthly": "%Y/%m", "yearly": "%Y"}


def kept_by_prune(times: Sequence[datetime], numbers: dict[str, int], zone: tzinfo) -> set[datetime]:
    """`times`: all different. `numbers`: by "last", "hourly", ..."""
    newest_first = sorted(times, reverse=True)
    marks: dict[datetime, bool] = {}
    for rule in ("last", *FORMATS):
        text = {at: at.isoformat() if rule == "last" else at.astimezone(zone).strftime(FORMATS[rule]) for at in times}
        filled_before = {text[at] for at, is_kept in marks.items() if is_kept}
        free = [at for at in newest_first if at not in marks and text[at] not in filled_before]
        filled: list[str] = []
        for at in free:
            if text[at] in filled:
                marks[at] = False
            elif len(filled) < numbers[rule]:
                filled.append(text[at])
                marks[at] = True
            else:
                break
    return {at for at, is_kept in marks.items() if is_kept}
