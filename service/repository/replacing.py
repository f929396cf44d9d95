"""Steps that put other files in the place of a sealed point, in one rename: the guest sees the same in them.

The new files are made in a partial folder beside the point. Where the filesystem can exchange two names at once, the point is never away.
Elsewhere the old folder is set aside for an instant; what a process leaves that dies then is put back by the next merge or sweep.
"""

import ctypes
import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import bounded_io
from service.clock import rfc3339
from service.errors import ForeignEntry, PointDamaged, RepositoryBad
from service.model.repository import MANIFEST_FILE, PARTIAL_PREFIX
from service.repository import durable, failures, manifests, places, seal
from service.repository.folder import must_be
from service.repository.partial import MARKER, drop_partial
from service.repository.removing import REMOVED_PREFIX, is_folder, of_point, remove_folder
from service.repository.report import Report
from service.repository.stamps import stamp_of

MERGED_PREFIX = f"{PARTIAL_PREFIX}merged-"
"""The start of the name of the folder in which the new files of a point are made."""
ASIDE_PREFIX = ".aside-"
"""The start of the name of a point while its new folder gets its name, where two names cannot be exchanged."""
LINKED_FROM_BYTES = 16 << 20
"""A file of so many bytes that stays gets a second name. A smaller one is copied: a link changes what the filesystem says of the file."""
MAX_MARKER_BYTES = 65536
"""Bytes of the marker. A larger one is not ours."""
_CANNOT_LINK = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EXDEV, errno.EACCES})
_CANNOT_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_RENAME_EXCHANGE = 2


def begin_merge(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Make the partial folder of a merge, or take that of an earlier try with the same plan. What another plan has left is removed.

    Returns also the stamp of the point as it was before. Raises PointDamaged (there is no such point), RepositoryGone and others.
    """
    path, folder = arguments["path"], arguments["folder"]
    domain, name = of_point(folder)
    partial = f"{domain}/{MERGED_PREFIX}{name}"
    with places.opened_folder(path) as root:
        must_be(root, path, arguments.get("id"))
    with places.opened_folder(path, domain) as parent:
        settle(parent, name, Path(path, domain), report)
    earlier = _marker(path, partial)
    if earlier is not None and earlier.get("plan") == arguments["plan"]:
        return {"partial": partial, "stamp": earlier["stamp"]}
    drop_partial({"path": path, "partial": partial}, report)
    stamp = stamp_of(path, folder, manifests.parsed(_manifest_of(path, folder)))
    marker = {"begun_at": rfc3339(datetime.now(UTC)), "owner": arguments.get("owner"), "plan": arguments["plan"], "stamp": stamp}
    with places.opened_folder(path, partial, is_made=True) as made:
        places.write_text(made, MARKER, Path(path, partial, MARKER), json.dumps(marker) + "\n")
    return {"partial": partial, "stamp": stamp}


def take_over(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Give files of the point, which stay what they are, a place in the partial folder. `names`: relative to the folder of the point."""
    path, folder, partial = arguments["path"], arguments["folder"], arguments["partial"]
    for name in arguments["names"]:
        from_folder, file = places.split(f"{folder}/{name}")
        to_folder, _ = places.split(f"{partial}/{name}")
        shown = Path(path, folder, name)
        try:
            with (
                places.opened_folder(path, from_folder) as source,
                places.opened_folder(path, partial) as top,
                places.opened_folder(path, to_folder, is_made=True) as target,
            ):
                if not _is_linked(source, target, file):
                    _copy(source, (top, target), file, shown, report)
        except FileNotFoundError as error:
            raise _damaged(path, folder, name, "it is missing") from error
    return {}


def put_in_place(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Write the manifest, and exchange the folders. What was done already by an earlier try is not done again.

    `replaces`: the digest of the manifest that the point has now. Raises RepositoryBad if it has another one.
    """
    path, folder, partial = arguments["path"], arguments["folder"], arguments["partial"]
    domain, name = of_point(folder)
    shown = Path(path, domain)
    with places.opened_folder(path, domain) as parent:
        settle(parent, name, shown, report)
        there = seal.manifest_at(parent, name, Path(path, folder))
        if there != arguments["manifest"]:
            if hashlib.sha256((there or "").encode()).hexdigest() != arguments["replaces"]:
                raise RepositoryBad(path=bounded_io.printable(shown / name), reason="its manifest is not the one that the merge began with")
            seal.write_manifest(path, partial, arguments["manifest"], arguments.get("signature"), report)
            _exchange(parent, name, shown, report)
        places.sync_folder(parent, shown)
        remove_folder(parent, f"{REMOVED_PREFIX}{name}", shown / f"{REMOVED_PREFIX}{name}", report)
    return {"stamp": stamp_of(path, folder, manifests.parsed(arguments["manifest"]))}


def settle(parent: int, name: str, shown: Path, report: Report) -> None:
    """Finish or undo what a process has left that died while it put a folder in place of another."""
    aside, removed = f"{ASIDE_PREFIX}{name}", f"{REMOVED_PREFIX}{name}"
    if is_folder(parent, aside):
        with failures.in_repository(shown / name, "putting back"):
            if is_folder(parent, name):
                remove_folder(parent, removed, shown / removed, report)
                os.rename(aside, removed, src_dir_fd=parent, dst_dir_fd=parent)
            else:
                os.rename(aside, name, src_dir_fd=parent, dst_dir_fd=parent)
        places.sync_folder(parent, shown)
    remove_folder(parent, removed, shown / removed, report)


def settle_all(parent: int, shown: Path, report: Report) -> None:
    """Every point of a domain whose folder was set aside. A process that still works there meets a folder in its way, and gives up."""
    for name in places.names(parent):
        if name.startswith(ASIDE_PREFIX):
            settle(parent, name.removeprefix(ASIDE_PREFIX), shown, report)


# --- the exchange ---------------------------------------------------------------------------------


def _exchange(parent: int, name: str, shown: Path, report: Report) -> None:
    """Afterwards the old folder has the name of one that is being removed."""
    new, aside, removed = f"{MERGED_PREFIX}{name}", f"{ASIDE_PREFIX}{name}", f"{REMOVED_PREFIX}{name}"
    with failures.in_repository(shown / name, "replacing"):
        # If the process dies now, the new folder is of use to nobody: the point itself is still there.
        os.rename(new, removed, src_dir_fd=parent, dst_dir_fd=parent)
        try:
            exchange(parent, removed, name)
            return
        except OSError as error:
            if error.errno not in _CANNOT_EXCHANGE:
                raise
        os.rename(removed, new, src_dir_fd=parent, dst_dir_fd=parent)
        os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
        os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)
        places.sync_folder(parent, shown)
        report.alive()
        os.rename(aside, removed, src_dir_fd=parent, dst_dir_fd=parent)


def exchange(parent: int, one: str, other: str) -> None:
    """Each gets the name of the other, at once. Raises OSError, also where the filesystem cannot do that."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(parent, os.fsencode(one), parent, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), one)


# --- small parts ----------------------------------------------------------------------------------


def _is_linked(source: int, target: int, file: str) -> bool:
    """Whether the file has its second name now. What an earlier try has left is removed in any case. Raises FileNotFoundError."""
    with suppress(FileNotFoundError):
        os.unlink(file, dir_fd=target)
    status = os.lstat(file, dir_fd=source)
    if not stat.S_ISREG(status.st_mode) or status.st_size < LINKED_FROM_BYTES:
        return False
    try:
        os.link(file, file, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        return False
    return True


def _copy(source: int, into: tuple[int, int], file: str, shown: Path, report: Report) -> None:
    """`into`: the partial folder, where the draft lies, and the folder in it that gets the file."""
    original = places.opened_file(source, file, shown)
    try:
        with places.drafted(*into, file, shown) as draft:
            while piece := memoryview(os.read(original, durable.READ_BYTES)):
                while piece:
                    piece = piece[os.write(draft, piece) :]
                report.alive()
            durable.sync(draft, report)
    finally:
        os.close(original)


def _marker(path: str, partial: str) -> Mapping[str, Any] | None:
    with suppress(FileNotFoundError, ForeignEntry, ValueError), places.opened_folder(path, partial) as folder:
        marker = json.loads(places.text_of(folder, MARKER, Path(path, partial, MARKER), MAX_MARKER_BYTES))
        return marker if isinstance(marker, dict) else None
    return None


def _manifest_of(path: str, folder: str) -> str:
    try:
        with places.opened_folder(path, folder) as opened:
            return places.text_of(opened, MANIFEST_FILE, Path(path, folder, MANIFEST_FILE), manifests.MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise _damaged(path, folder, MANIFEST_FILE, "it is missing") from error


def _damaged(path: str, folder: str, name: str, reason: str) -> PointDamaged:
    return PointDamaged(point=Path(folder).name, path=bounded_io.printable(Path(path, folder, name)), reason=reason, next_good=None)


STEPS = {"begin_merge": begin_merge, "take_over": take_over, "put_in_place": put_in_place}
