"""Files that nobody owns, in a repository, on a copy of one, and in the state folder of a service: judged by names and manifests alone.

A repository owns its description, the public keys, and what the manifests of its points name. All else is something that a process has
left that died. Ask when no job works there.
"""

import json
import os
import time
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

_OF_A_REPOSITORY = ("repository.json", "keys/*.pub", "sentinels/*")
_OF_A_STATE_FOLDER = (
    *("stillpoint.db", "stillpoint.db-wal", "stillpoint.db-shm", "stillpoint.db-journal", "database.id"),
    *("admin.token", "signing.key", "worker-*.lock", "*.log", "*.sock"),
)
_OF_THE_FILESYSTEM = "lost+found"
LONG_AGO_S = 3 * 86400
"""Seconds for which a file was not changed that a sweep may take for one that nobody continues."""


def in_repository(path: Path, besides: Collection[str] = ()) -> list[str]:
    """Relative to the repository. A copy in a folder has the same files. `besides`: the folders of points that have no manifest yet."""
    owned = {f"{folder}/{name}" for folder, names in _points(path) for name in names}
    strange = [file for file in _below(path) if file not in owned and not _is_one_of(file, _OF_A_REPOSITORY)]
    return sorted(file for file in strange if not any(_is_plainly_in(file, folder) for folder in besides))


def in_state_folder(path: Path, running: Collection[str] = ()) -> list[str]:
    """Relative to the folder. `running`: the ids of the jobs that have not ended."""
    of_jobs = [pattern for job in running for pattern in (f"guards/{job}.json", f"backups/{job}/*", f"backups/{job}")]
    return sorted(file for file in _below(path) if not _is_one_of(file, (*_OF_A_STATE_FOLDER, *of_jobs)))


def make_old(path: Path) -> None:
    """As if nobody had changed the hidden files and folders there for some days: what a sweep leaves then, it leaves for ever."""
    then = time.time() - LONG_AGO_S
    for each in path.rglob("*"):
        if any(name.startswith(".") for name in each.relative_to(path).parts):
            os.utime(each, (then, then), follow_symlinks=False)


def _points(path: Path) -> Iterator[tuple[str, list[str]]]:
    """By folder, the files that a point should have."""
    for manifest in path.glob("domains/*/[!.]*/manifest.json"):
        files = [file["name"] for file in json.loads(manifest.read_text())["files"]]
        yield str(manifest.parent.relative_to(path)), ["manifest.json", "manifest.sig", *files]


def _below(path: Path) -> Iterator[str]:
    """Every file, and every folder that is empty and belongs to a point or to nothing."""
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if name != _OF_THE_FILESYSTEM]
        here = Path(folder).relative_to(path)
        yield from (str(here / name) for name in files)
        if not folders and not files and (len(here.parts) > 2 or here.name.startswith(".")):
            yield str(here)


def _is_plainly_in(file: str, folder: str) -> bool:
    """A draft is nobody's in any folder."""
    return Path(file).is_relative_to(folder) and not Path(file).name.startswith(".")


def _is_one_of(file: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(file, pattern) for pattern in patterns)
