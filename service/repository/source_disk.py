"""The disk that is copied: its layers, and whether a bitmap tells all that was written since a checkpoint.

The image must be still: the guest writes into an overlay above it. `inspect` also works while QEMU writes to the image. The flag
`in-use` then only means that QEMU has the bitmap in memory.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import StorageRefused
from service.model.image_header import READ_BYTES, parse
from service.repository import extents
from service.repository.digests import Digests
from service.repository.failures import of_source
from service.repository.images import ALONE, Image, QemuImgFailed, qemu_img
from service.repository.nbd_server import NbdServer, ServerFailed
from service.repository.parent import digests_of_parent, why_not_of
from service.repository.reading import ReadFailed, opened_image
from service.repository.report import Report

IN_USE = "in-use"
WHOLE = "whole"
OTHER_CONTENT = "other-content"
"""The bitmap is whole, but the disk is not the one of the parent."""
RECORDS = "auto"


@dataclass(frozen=True)
class Layer:
    """One file of the source, the active one first. `bitmaps`: their flags by name."""

    file: str
    format: str
    bitmaps: Mapping[str, list[str]]


@dataclass(frozen=True)
class Source:
    file: str
    format: str
    virtual_size: int
    layers: tuple[Layer, ...]

    def image(self) -> Image:
        # QEMU has the files open as well: their locks are not asked for, because the caller says that they are still.
        return Image(self.file, self.format, is_in_use=True)

    def state_of(self, bitmap: str) -> tuple[str, str | None]:
        """`whole`, `absent`, `in-use` or `broken-chain`, and the reason."""
        flags = [layer.bitmaps.get(bitmap) for layer in self.layers]
        layers_with_it = [index for index, its in enumerate(flags) if its is not None]
        if not layers_with_it:
            return "absent", f"the disk has no bitmap {bitmap}"
        for index in layers_with_it:
            if IN_USE in (flags[index] or []):
                return IN_USE, f"the bitmap in {self.layers[index].file} is marked in-use: QEMU has it in memory, or was killed"
        if layers_with_it != list(range(len(layers_with_it))):
            without = next(index for index in range(len(flags)) if flags[index] is None)
            return "broken-chain", f"{self.layers[without].file} was written without the bitmap"
        if RECORDS not in (flags[0] or []):
            return "broken-chain", f"the bitmap in {self.layers[0].file} does not record"
        return WHOLE, None

    def layers_below_with(self, bitmap: str) -> list[Image]:
        """What was written before a snapshot that lies between two backups is in the bitmap of the layer below."""
        return [Image(layer.file, layer.format, backing=ALONE, is_in_use=True) for layer in self.layers[1:] if bitmap in layer.bitmaps]


def read(file: str, image_format: str) -> Source:
    """Raises StorageRefused."""
    try:
        image = Image(file, image_format, is_in_use=True)
        chain = json.loads(qemu_img("info", ["-U", "--backing-chain", "--output=json", image.name()]))
    except QemuImgFailed as failed:
        raise unreadable(file, failed.reason) from failed
    except OSError as error:
        raise of_source(error, file, "reading") from error
    layers = tuple(Layer(_file_of(entry["filename"]), entry["format"], _bitmaps(entry)) for entry in chain)
    return Source(file, image_format, int(chain[0]["virtual-size"]), (Layer(file, image_format, layers[0].bitmaps), *layers[1:]))


def _file_of(name: str) -> str:
    """QEMU writes a name as JSON where the plain name would not say all."""
    if not name.startswith("json:"):
        return name
    node: dict[str, Any] = json.loads(name.removeprefix("json:"))
    inner = node.get("file", node)
    return str(inner.get("filename", name)) if isinstance(inner, dict) else name


def _bitmaps(entry: Mapping[str, Any]) -> dict[str, list[str]]:
    known = entry.get("format-specific", {}).get("data", {}).get("bitmaps", [])
    return {bitmap["name"]: list(bitmap["flags"]) for bitmap in known}


def files(file: str, image_format: str) -> list[str]:
    """The files of the chain, the active one first. Raises StorageRefused."""
    header = parse(_head(file)) if image_format == "qcow2" else None
    if header is None or header.below is None:
        return [file]
    return [layer.file for layer in read(file, image_format).layers]


def _head(file: str) -> bytes:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, READ_BYTES, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise of_source(error, file, "reading") from error


def dirty_extents(source: Source, bitmap: str, top: Any, report: Report) -> list[extents.Extent]:
    """What was written since the bitmap began, in all layers. `top`: a handle of the whole disk, with the bitmap's context.

    Raises StorageRefused.
    """
    servers = [NbdServer(image, connections=1, report=report, bitmap=bitmap) for image in source.layers_below_with(bitmap)]
    parts = [extents.dirty(top, bitmap, report)]
    for server in servers:
        try:
            with server:
                parts.append(extents.dirty(server.connect([extents.bitmap_context(bitmap)])[0], bitmap, report))
        except ServerFailed as failed:
            raise unreadable(failed.image.path, failed.reason) from failed
    size = top.get_size()
    return extents.union([(start, min(end, size)) for start, end in part if start < size] for part in parts)


def unreadable(path: str, reason: str) -> StorageRefused:
    return StorageRefused(what="reading", path=path, reason=reason, errno=None)


def inspect_source(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """The step: what a disk is, and whether `bitmap` is good for an increment.

    `parent`: a disk of a point, as `copy_disk` takes it. Then the disk must be still, and is compared with it. Raises what
    `digests_of_parent` raises.
    """
    source = read(arguments["file"], arguments["format"])
    bitmap = arguments.get("bitmap")
    state, reason = source.state_of(bitmap) if bitmap is not None else ("absent", None)
    changed = None
    if bitmap is not None and state == WHOLE:
        older = digests_of_parent(arguments["path"], arguments["parent"]) if arguments.get("parent") is not None else None
        changed, reason = _changes(source, bitmap, older, report)
        state = WHOLE if reason is None else OTHER_CONTENT
    return {
        "virtual_size": source.virtual_size,
        "layers": [{"file": layer.file, "format": layer.format, "bitmaps": dict(layer.bitmaps)} for layer in source.layers],
        "bitmap": state,
        "reason": reason,
        "changed_bytes": changed,
    }


def _changes(source: Source, bitmap: str, older: Digests | None, report: Report) -> tuple[int, str | None]:
    """The bytes that were written, and why the disk is not the one of `older`."""
    try:
        with NbdServer(source.image(), connections=1, report=report, bitmap=bitmap) as server:
            handle = server.connect([extents.bitmap_context(bitmap)])[0]
            dirty = dirty_extents(source, bitmap, handle, report)
            if older is None:
                return extents.total(dirty), None
            with opened_image(source.image(), [layer.file for layer in source.layers], report) as disk:
                return extents.total(dirty), why_not_of(older, disk, dirty, report)
    except ServerFailed as failed:
        raise unreadable(failed.image.path, failed.reason) from failed
    except ReadFailed as failed:
        raise unreadable(source.file, failed.reason) from failed
