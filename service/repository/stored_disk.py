"""A disk in a sealed point: its digests, and what an error of reading it means."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from service.errors import StillpointError
from service.repository import stored_chain
from service.repository.digests import Digests
from service.repository.failures import in_repository
from service.repository.image_key import is_about_the_key, need_key, wrong_key
from service.repository.nbd_server import ServerFailed
from service.repository.reading import Opened, ReadFailed, opened_image
from service.repository.report import Report
from service.repository.stored_chain import StoredImage, damaged


def stored_digests(repository: str, folder: str, blocks_file: str, virtual_size: int) -> Digests:
    """Raises PointDamaged, PointIncomplete, ForeignEntry, RepositoryRefused and its like."""
    path = stored_chain.regular_file(repository, folder, blocks_file)
    with in_repository(path, "reading", is_write=False):
        try:
            return Digests.of_file(path, virtual_size)
        except ValueError as error:
            raise damaged(folder, path, str(error)) from error


@contextmanager
def opened(chain: Sequence[StoredImage], virtual_size: int, report: Report, *, is_encrypted: bool) -> Iterator[Opened]:
    """The whole chain. Errors inside become PointDamaged, KeyUnusable, or an error of the repository."""
    need_key(is_encrypted, report, str(chain[0].path))
    image = stored_chain.as_image(list(chain), is_encrypted=is_encrypted)
    try:
        with opened_image(image, None if is_encrypted else [str(stored.path) for stored in chain], report) as disk:
            if disk.size != virtual_size:
                raise damaged(chain[0].folder, chain[0].path, f"it shows {disk.size} bytes, and the disk has {virtual_size} bytes")
            yield disk
    except (ServerFailed, ReadFailed) as failed:
        raise _explained(chain, failed.reason) from failed


def _explained(chain: Sequence[StoredImage], reason: str) -> StillpointError:
    if is_about_the_key(reason):
        return wrong_key(str(chain[0].path))
    # QEMU tells a mount that is gone and a file that is bad with one number. What the system says of the files is exact.
    for image in chain:
        with in_repository(image.path, "reading", is_write=False):
            _read_once(image)
    return damaged(chain[0].folder, chain[0].path, f"QEMU cannot read it: {reason}")


def _read_once(image: StoredImage) -> None:
    descriptor = os.open(image.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.pread(descriptor, 1, 0)
    finally:
        os.close(descriptor)
