"""The step that tries the key of a repository on the points that are in it: a backup asks before it freezes its guest.

A point that is made with another key than those before it would be good, and the key that its owner keeps would not open it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from service.errors import ForeignEntry, KeyUnusable
from service.model.image_header import READ_BYTES, parse
from service.model.repository import STATE_FILE
from service.repository import images, places
from service.repository.image_key import is_about_the_key, need_key, wrong_key
from service.repository.images import ALONE, Image
from service.repository.partial import DOMAINS
from service.repository.report import Report
from service.repository.state_archive import NotAnArchive, decrypted

NEWEST_OF_DOMAIN = 2
"""Points of each domain that are looked at. Older ones are not."""
MAX_TRIED = 3
"""Files on which the key is tried. If it opens none of them, it is another key. One alone may be damaged, or be made with another key."""


def check_key(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """`domain_id`: its points are tried first. `tried`: how many files were; 0: nothing there is encrypted, so every key is right.

    Raises KeyUnusable.
    """
    path = arguments["path"]
    need_key(True, report, path)
    wrong: list[KeyUnusable] = []
    for folder, name in _encrypted_files(path, arguments["domain_id"]):
        try:
            with suppress(FileNotFoundError, ForeignEntry, NotAnArchive, images.QemuImgFailed):
                _open(path, folder, name, report)
                return {"tried": len(wrong) + 1}
        except KeyUnusable as error:
            wrong.append(error)
        report.alive()
        if len(wrong) == MAX_TRIED:
            break
    if wrong:
        raise wrong[0]
    return {"tried": 0}


def _encrypted_files(path: str, first: str) -> Iterator[tuple[str, str]]:
    """Folder and name of one encrypted file of each point, the newest points of each domain first."""
    for domain in sorted(_names(path, DOMAINS), key=lambda each: (each != first, each)):
        for point in sorted(_names(path, f"{DOMAINS}/{domain}"), reverse=True)[:NEWEST_OF_DOMAIN]:
            folder = f"{DOMAINS}/{domain}/{point}"
            there = _names(path, folder)
            if STATE_FILE in there:
                yield folder, STATE_FILE
            elif (image := next((each for each in there if _is_encrypted_image(path, folder, each)), None)) is not None:
                yield folder, image


def _names(path: str, folder: str) -> list[str]:
    """Without the folders of unfinished points."""
    with suppress(FileNotFoundError, ForeignEntry), places.opened_folder(path, folder) as opened:
        return sorted(name for name in places.names(opened) if not name.startswith("."))
    return []


def _is_encrypted_image(path: str, folder: str, name: str) -> bool:
    if not name.endswith(".qcow2"):
        return False
    with suppress(FileNotFoundError, ForeignEntry), _opened(path, folder, name) as descriptor:
        header = parse(os.pread(descriptor, READ_BYTES, 0))
        return header is not None and header.encryption is not None
    return False


@contextmanager
def _opened(path: str, folder: str, name: str) -> Iterator[int]:
    with places.opened_folder(path, folder) as opened:
        descriptor = places.opened_file(opened, name, Path(path, folder, name))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: str, folder: str, name: str, report: Report) -> None:
    """Raises KeyUnusable, and errors that say nothing of the key."""
    shown = Path(path, folder, name)
    if name == STATE_FILE:
        with _opened(path, folder, name) as descriptor:
            decrypted(descriptor, shown, report)
        return
    try:
        images.read_first_sector(Image(str(shown), "qcow2", backing=ALONE, is_encrypted=True), report)
    except images.QemuImgFailed as failed:
        if is_about_the_key(failed.reason):
            raise wrong_key(str(shown)) from failed
        raise


STEPS = {"check_key": check_key}
