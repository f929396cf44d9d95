"""The headers of a disk's image files, compared with the definition. They are read before a job decides which disks it takes."""

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from service import bounded_io
from service.model.image_header import READ_BYTES, ImageHeader, parse
from service.model.inventory import DATA_FILE, ENCRYPTED, Disk, ImageFacts

MAX_FILES = 512
"""Files of one chain that are read. The files below the last one are not examined."""
OTHER_CHAIN = "the definition names other files below the image than its header: a restore would show other data than the guest sees"
_PROTOCOL = re.compile(r"[^/]+:")
"""QEMU's own rule: a name with a colon before the first slash begins with a protocol."""
NEITHER_FILE_NOR_DEVICE = "the image is neither a file nor a block device"
NOT_QCOW2 = "the definition says qcow2, but the image is not the qcow2 format"
MARKED_CORRUPT = "QEMU has marked the image as corrupt"


def examined(disks: Sequence[Disk]) -> list[Disk]:
    """All disks. Those that could take part carry what their files say. Raises StorageNotAnswering."""
    return [replace(disk, image=_facts(disk)) if disk.why_not is None else disk for disk in disks]


@dataclass(frozen=True)
class _File:
    """One file of a chain. `header` None: the file is not a qcow2."""

    path: str
    format: str | None
    mode: int
    header: ImageHeader | None
    #: The path with all symbolic links resolved.
    real: str


def _facts(disk: Disk) -> ImageFacts:
    files = list(_chain(disk))
    reasons = [reason for depth, file in enumerate(files) if (reason := _why_not(file, is_active=depth == 0))]
    if not reasons and _differs(disk, files):
        reasons.append(OTHER_CHAIN)
    return ImageFacts(
        files=tuple(file.path for file in files),
        why_not=reasons[0] if reasons else None,
        is_block_device=bool(files) and stat.S_ISBLK(files[0].mode),
        internal_snapshots={file.path: file.header.internal_snapshots for file in files if file.header and file.header.internal_snapshots},
    )


def _chain(disk: Disk) -> Iterator[_File]:
    """The chain from the active file down. It ends at a missing file, and at a file that only a protocol reaches.

    Making the overlay fails for such a file as well, so that the chain need not report it.
    """
    path, image_format = disk.source, disk.format
    for _ in range(MAX_FILES):
        if path is None:
            return
        with suppress(OSError):
            file = bounded_io.call("reading the header of", path, partial(_read, path, image_format))
            yield file
            path, image_format = _below(file)
            continue
        return


def _read(path: str, image_format: str | None) -> _File:
    mode, real = Path(path).stat().st_mode, os.path.realpath(path)
    # A guest can write anything to the beginning of its raw disk, also what looks like a qcow2 header.
    if image_format not in ("qcow2", None) or not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        return _File(path, image_format, mode, None, real)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _File(path, image_format, mode, parse(os.pread(descriptor, READ_BYTES, 0)), real)
    finally:
        os.close(descriptor)


def _why_not(file: _File, *, is_active: bool) -> str | None:
    def located(reason: str) -> str:
        return reason if is_active else f"{file.path} below: {reason}"

    if not (stat.S_ISREG(file.mode) or stat.S_ISBLK(file.mode)):
        return located(NEITHER_FILE_NOR_DEVICE)
    if file.format == "luks":
        return located(f"{ENCRYPTED} (LUKS): an overlay would store the data of the guest unencrypted")
    header = file.header
    if header is None:
        return located(NOT_QCOW2) if file.format == "qcow2" else None
    if header.encryption:
        return located(f"{ENCRYPTED} ({header.encryption}): an overlay would store the data of the guest unencrypted")
    if header.has_data_file:
        return located(DATA_FILE)
    return located(MARKED_CORRUPT) if header.is_corrupt else None


def _below(file: _File) -> tuple[str | None, str | None]:
    """Path and format of the file below. No path: there is no file below, or it is not a local file."""
    if file.header is None or file.header.below is None:
        return None, None
    name, image_format = file.header.below, file.header.below_format
    if name.startswith("json:"):
        name, image_format = _of_json(name, image_format)
    elif name.startswith("file:"):
        name = name.removeprefix("file:")
    elif _PROTOCOL.match(name):
        return None, None
    return (os.path.join(os.path.dirname(file.path), name) if name else None), image_format  # noqa: PTH118, PTH120 - as QEMU joins them


def _of_json(name: str, image_format: str | None) -> tuple[str, str | None]:
    try:
        node: dict[str, Any] = json.loads(name.removeprefix("json:"))
        file = node.get("file", node)
        path = file.get("filename") if isinstance(file, dict) else None
        driver = node.get("driver", image_format)
        return str(path or node.get("file.filename") or ""), str(driver) if driver not in ("file", "host_device", None) else image_format
    except (ValueError, AttributeError):
        return "", image_format


def _differs(disk: Disk, files: Sequence[_File]) -> bool:
    """Whether the definition names another chain than the headers. Only the part that both know is compared."""
    pairs = [(named, file.real) for named, file in zip(disk.chain, files[1:], strict=False) if named and named.startswith("/")]
    return any(bounded_io.call("looking at", named, partial(os.path.realpath, named)) != real for named, real in pairs)
