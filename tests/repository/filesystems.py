"""Filesystems for repositories that are full, read-only, or hang. They need root, as the lab does."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SMALL_BYTES = 1 << 20
IMAGE_BYTES = 32 << 20


@contextmanager
def small(place: Path) -> Iterator[Path]:
    """A tmpfs of SMALL_BYTES."""
    place.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", str(place))
    try:
        yield place
    finally:
        _run("umount", str(place))


@contextmanager
def read_only(place: Path) -> Iterator[Path]:
    """What is in the folder, as it can be read and not written. Leaving makes it as it was."""
    _run("mount", "--bind", str(place), str(place))
    try:
        _run("mount", "-o", "remount,bind,ro", str(place))
        yield place
    finally:
        _run("umount", str(place))


class Freezable:
    """An ext4. While it is frozen, who writes hangs in the kernel and cannot be killed, as with a server of NFS that is gone."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._is_frozen = False

    def freeze(self) -> None:
        _run("fsfreeze", "--freeze", str(self.place))
        self._is_frozen = True

    def thaw(self) -> None:
        if self._is_frozen:
            _run("fsfreeze", "--unfreeze", str(self.place))
            self._is_frozen = False


@contextmanager
def freezable(folder: Path) -> Iterator[Freezable]:
    folder.mkdir()
    image, place = folder / "image", folder / "mounted"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    _run("mkfs.ext4", "-q", str(image))
    place.mkdir()
    _run("mount", "-o", "loop", str(image), str(place))
    freezable = Freezable(place)
    try:
        yield freezable
    finally:
        freezable.thaw()
        # A process that hung ends when it is thawed, and holds the mount until then.
        _run("umount", "--lazy", str(place))


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
