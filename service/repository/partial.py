"""Steps on the folder of a point that is not sealed yet: `domains/<domain>/.partial-<name>`."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import bounded_io
from service.clock import rfc3339
from service.errors import ForeignEntry, StorageRefused
from service.model.repository import PARTIAL_PREFIX
from service.repository import durable, failures, places
from service.repository.folder import must_be
from service.repository.report import Report

DOMAINS = "domains"
MARKER = "partial.json"
"""The file in a partial folder that says who began it. It is not a part of the point."""
DONE_SUFFIX = ".done.json"
"""The end of the names of files that say which disks are copied already. They are not a part of the point."""


def begin_point(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Make the partial folder, or take the one of an earlier try. `is_published`: a sealed point of this name is there already.

    A process of the earlier try may still hang in the kernel: a file that is copied again is removed and made, never opened.
    """
    path, name = arguments["path"], _name(arguments["name"])
    domain = f"{DOMAINS}/{_name(arguments['domain_id'])}"
    partial = f"{domain}/{PARTIAL_PREFIX}{name}"
    with places.opened_folder(path) as root:
        # Below a share that is not mounted is an empty folder of the host, which would take the whole point.
        must_be(root, path, arguments.get("id"))
    with places.opened_folder(path, domain, is_made=True) as folder:
        report.alive()
        if is_published := _is_folder(folder, name):
            # The earlier try may have ended between its rename and its sync.
            places.sync_folder(folder, Path(path, domain))
        is_resumed = _is_folder(folder, f"{PARTIAL_PREFIX}{name}")
    with places.opened_folder(path, partial, is_made=True) as folder:
        marker = {"begun_at": rfc3339(datetime.now(UTC)), "owner": arguments.get("owner")}
        if MARKER not in places.names(folder):
            places.write_text(folder, MARKER, Path(path, partial, MARKER), json.dumps(marker) + "\n")
    return {"partial": partial, "resumed": is_resumed, "is_published": is_published}


def put_file(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Write `text`, or what is in the file `source`, as `name` in the partial folder. One that is there is replaced."""
    path, partial = arguments["path"], must_be_unfinished(arguments["partial"])
    between, name = places.split(f"{partial}/{arguments['name']}")
    shown = Path(path, between, name)
    with places.opened_folder(path, partial) as top, places.opened_folder(path, between, is_made=True) as folder:
        if arguments.get("text") is not None:
            places.write_text(folder, name, shown, arguments["text"])
        else:
            with places.drafted(top, folder, name, shown) as draft:
                _copy_in(arguments["source"], draft, report)
        report.alive()
        return {"bytes": os.lstat(name, dir_fd=folder).st_size}


def drop_partial(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Remove a partial folder. One that is not there is removed already."""
    path, partial = arguments["path"], must_be_unfinished(arguments["partial"])
    try:
        with places.opened_folder(path, partial):
            report.alive()
    except FileNotFoundError:
        return {"dropped": False}
    _remove(path, partial)
    return {"dropped": True}


def _copy_in(source: str, draft: int, report: Report) -> None:
    for piece in pieces_of(source, report):
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(draft, rest) :]
    durable.sync(draft, report)


def pieces_of(source: str, report: Report) -> Iterator[bytes]:
    """The content of a file of the host. Raises StorageRefused."""
    try:
        original = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise failures.of_source(error, source, "opening") from error
    try:
        if not stat.S_ISREG(os.fstat(original).st_mode):
            raise StorageRefused(what="opening", path=bounded_io.printable(source), reason="it is not a regular file", errno=None)
        while piece := _read(original, source):
            yield piece
            report.alive()
    finally:
        os.close(original)


def _read(descriptor: int, source: str) -> bytes:
    try:
        return os.read(descriptor, durable.READ_BYTES)
    except OSError as error:
        raise failures.of_source(error, source, "reading") from error


def _name(name: str) -> str:
    if len(places.parts(name)) != 1 or name.startswith("."):
        raise ForeignEntry(path=bounded_io.printable(name), reason="not a name of a domain or a point")
    return name


def must_be_unfinished(relative: str) -> str:
    """The path of the folder of an unfinished point. Raises ForeignEntry for any other."""
    between, name = places.split(relative)
    if between.count("/") != 1 or not between.startswith(f"{DOMAINS}/") or not name.startswith(PARTIAL_PREFIX):
        raise ForeignEntry(path=bounded_io.printable(relative), reason="not the folder of an unfinished point")
    return relative


def _is_folder(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode)
    except FileNotFoundError:
        return False


def _remove(path: str, partial: str) -> None:
    """The marker is removed last: a folder that is removed in part is known as ours."""
    shown = Path(path, partial)
    with failures.in_repository(shown, "removing"):
        with places.opened_folder(path, partial) as folder:
            for name in sorted(places.names(folder), key=lambda each: each == MARKER):
                # A symbolic link is removed, and never what it points to.
                if _is_folder(folder, name):
                    shutil.rmtree(name, dir_fd=folder)
                else:
                    os.unlink(name, dir_fd=folder)
        with places.opened_folder(path, partial.rpartition("/")[0]) as parent:
            os.rmdir(shown.name, dir_fd=parent)
            places.sync_folder(parent, shown.parent)


STEPS = {"begin_point": begin_point, "put_file": put_file, "drop_partial": drop_partial}
