"""The images of a sealed point, down to the one that stands alone.

The names of the images below come from the headers, and a header can be altered. Only a name that this service writes is followed:
a file of an earlier point of the same domain. QEMU is told each file of the chain, and follows no header.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from service.errors import ForeignEntry, PointDamaged, PointIncomplete
from service.model.image_header import READ_BYTES, ImageHeader, parse
from service.repository.failures import in_repository
from service.repository.images import ALONE, Image

_BELOW = re.compile(r"\.\./(?P<point>[^/]+)/(?P<file>[^/]+)", re.DOTALL)
MAX_LAYERS = 2000
"""Images of one chain. A longer one is reported as damaged."""


@dataclass(frozen=True)
class StoredImage:
    """`folder`: relative to the repository."""

    folder: str
    file: str
    path: Path
    header: ImageHeader


def chain(repository: str, folder: str, file: str) -> list[StoredImage]:
    """The image, then what is below it. Raises PointIncomplete, PointDamaged, ForeignEntry, RepositoryRefused and its like."""
    images: list[StoredImage] = []
    top = folder
    while len(images) < MAX_LAYERS:
        image = _stored(repository, folder, file, of_point=top)
        images.append(image)
        if image.header.below is None:
            return images
        match = _BELOW.fullmatch(image.header.below)
        if match is None or match["point"] in (".", "..") or image.header.below_format not in ("qcow2", None):
            raise damaged(image.folder, image.path, f"its header names {image.header.below!r} as the file below")
        folder, file = str(Path(folder).parent / match["point"]), match["file"]
    raise damaged(top, images[0].path, f"more than {MAX_LAYERS} images stand on each other")


def as_image(images: list[StoredImage], *, is_encrypted: bool) -> Image:
    """The whole chain for QEMU."""
    below: Image | str = ALONE
    for image in reversed(images):
        below = Image(str(image.path), "qcow2", backing=below, is_encrypted=is_encrypted)
    assert isinstance(below, Image)
    return below


def _stored(repository: str, folder: str, file: str, *, of_point: str) -> StoredImage:
    path = regular_file(repository, folder, file, of_point=of_point)
    with in_repository(path, "reading", is_write=False):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            header = parse(os.pread(descriptor, READ_BYTES, 0))
        finally:
            os.close(descriptor)
    if header is None:
        raise damaged(folder, path, "it is not a qcow2")
    if header.has_data_file:
        raise damaged(folder, path, "its header names a file with data elsewhere")
    return StoredImage(folder, file, path, header)


def regular_file(repository: str, folder: str, file: str, *, of_point: str | None = None) -> Path:
    """The path of a file of a point: no part of it below the repository is a link. Raises PointIncomplete, ForeignEntry, ..."""
    path = Path(repository)
    for part in (*Path(folder).parts, *Path(file).parts):
        path = path / part
        with in_repository(path, "looking at", is_write=False):
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError as error:
                raise PointIncomplete(point=of_point or folder, missing=_missing(repository, folder, path), next_good=None) from error
        if stat.S_ISLNK(mode) or part == "..":
            raise ForeignEntry(path=str(path), reason="a symbolic link")
    if not stat.S_ISREG(mode):
        raise ForeignEntry(path=str(path), reason="not a file")
    return path


def _missing(repository: str, folder: str, path: Path) -> str:
    """The whole folder, if that is not there, or the file."""
    relative = path.relative_to(repository)
    return folder if Path(folder).is_relative_to(relative) else str(relative)


def damaged(folder: str, path: Path | str, reason: str) -> PointDamaged:
    """The job that knows the other points adds `next_good`."""
    return PointDamaged(point=Path(folder).name, path=str(path), reason=reason, next_good=None)
