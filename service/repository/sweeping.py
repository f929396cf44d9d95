"""The step that removes what processes have left that died: partial folders, folders of removed points, files of looks, drafts."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.errors import ForeignEntry
from service.model.repository import PARTIAL_PREFIX
from service.repository import places, removing, replacing
from service.repository.folder import KEYS, PROBE_PREFIX
from service.repository.partial import DOMAINS, MARKER, drop_partial
from service.repository.report import Report

MIN_STALE_S = 86400
"""Seconds since the last change in a partial folder. A younger one is never removed: its job may be about to continue."""
MAX_MARKER_BYTES = 65536
"""Bytes of the marker. A folder with a larger one is not ours, and stays."""


def sweep(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Remove the partial folders that nobody continues, but none of `keep`, none that was changed within a day, and none of others.
    What removals have left is removed after a day, whichever service removed the point, and so are files of looks and drafts beside
    the points. A point that a merge had set aside is put back.

    `owner`: only folders that were begun with this owner are removed.
    """
    path, keep, owner = arguments["path"], frozenset(arguments["keep"]), arguments.get("owner")
    before = time.time() - arguments.get("stale_s", MIN_STALE_S)
    dropped = []
    for partial in _partials(path):
        with suppress(FileNotFoundError, ForeignEntry):
            if partial not in keep and _is_stale(path, partial, before, owner):
                drop_partial({"path": path, "partial": partial}, report)
                dropped.append(partial)
        report.alive()
    _remove_what_removals_left(path, before, report)
    _remove_files(path, "", (PROBE_PREFIX, places.DRAFT_PREFIX), before)
    _remove_files(path, KEYS, (places.DRAFT_PREFIX,), before)
    return {"dropped": dropped}


def _partials(path: str) -> list[str]:
    partials = []
    for domain in _domains(path):
        with suppress(FileNotFoundError, ForeignEntry), places.opened_folder(path, domain) as folder:
            partials += [f"{domain}/{name}" for name in places.names(folder) if name.startswith(PARTIAL_PREFIX)]
    return partials


def _domains(path: str) -> Iterator[str]:
    with suppress(FileNotFoundError), places.opened_folder(path, DOMAINS) as domains:
        yield from [f"{DOMAINS}/{domain}" for domain in places.names(domains)]


def _is_stale(path: str, partial: str, before: float, owner: str | None) -> bool:
    with places.opened_folder(path, partial) as folder:
        there = places.names(folder)
        changed = [os.fstat(folder).st_mtime, *(os.lstat(name, dir_fd=folder).st_mtime for name in there)]
        if max(changed) >= before or all(name.startswith(places.DRAFT_PREFIX) for name in there):
            # One without a file was made, or was removed, by a process that was killed just then. Its marker may be a draft still.
            return max(changed) < before
        marker = places.text_of(folder, MARKER, Path(path, partial, MARKER), MAX_MARKER_BYTES)
    with suppress(ValueError, KeyError, TypeError):
        return owner is None or json.loads(marker)["owner"] == owner
    return False


def _remove_what_removals_left(path: str, before: float, report: Report) -> None:
    for domain in _domains(path):
        with suppress(FileNotFoundError, ForeignEntry), places.opened_folder(path, domain) as parent:
            replacing.settle_all(parent, Path(path, domain), report)
            removing.remove_left(parent, Path(path, domain), before, report)


def _remove_files(path: str, relative: str, prefixes: tuple[str, ...], before: float) -> None:
    """Remove what looks and writes have left that were killed: a draft in a partial folder goes with the folder."""
    with suppress(FileNotFoundError, ForeignEntry), places.opened_folder(path, relative) as folder:
        for name in places.names(folder):
            with suppress(OSError):
                if name.startswith(prefixes) and os.lstat(name, dir_fd=folder).st_mtime < before:
                    os.unlink(name, dir_fd=folder)


STEPS = {"sweep": sweep}
