"""States of a host in which libvirt or QEMU refuses the overlays of a job, made around a real guest, and taken back."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.lab.command import run
from tests.lab.guests import LabGuest
from tests.lab.places import open_dir

Settings = dict[str, str]
OddHost = Callable[[LabGuest], AbstractContextManager[Settings]]
"""Enters the state, gives the settings of the service, and takes the state back."""


def in_a_folder(guest: LabGuest) -> Path:
    """Beside the guest, where QEMU can enter."""
    return open_dir(guest.folder / "overlays")


@contextmanager
def folder_of_root(guest: LabGuest) -> Iterator[Settings]:
    folder = in_a_folder(guest)
    folder.chmod(0o700)
    os.chown(folder, 0, 0)
    yield {"overlay_dir": str(folder)}
    shutil.rmtree(folder)


@contextmanager
def folder_below_one_of_root(guest: LabGuest) -> Iterator[Settings]:
    closed = in_a_folder(guest)
    folder = open_dir(closed / "open")
    closed.chmod(0o700)
    yield {"overlay_dir": str(folder)}
    shutil.rmtree(closed)


@contextmanager
def folder_is_a_file(guest: LabGuest) -> Iterator[Settings]:
    file = guest.folder / "not-a-folder"
    file.touch()
    yield {"overlay_dir": str(file)}
    file.unlink()


@contextmanager
def folder_is_missing(guest: LabGuest) -> Iterator[Settings]:
    yield {"overlay_dir": str(guest.folder / "nowhere")}


@contextmanager
def folder_is_a_loop(guest: LabGuest) -> Iterator[Settings]:
    link = guest.folder / "loop"
    link.symlink_to(link)
    yield {"overlay_dir": str(link)}
    link.unlink()


@contextmanager
def folder_is_read_only(guest: LabGuest) -> Iterator[Settings]:
    folder = in_a_folder(guest)
    run(["mount", "-t", "tmpfs", "-o", "mode=0755,ro", "stillpoint-test", folder])
    try:
        yield {"overlay_dir": str(folder), "overlay_reserve_bytes": "0"}
    finally:
        run(["umount", folder])
    shutil.rmtree(folder)


@contextmanager
def folder_is_full(guest: LabGuest) -> Iterator[Settings]:
    """Of blocks; the reserve is set so low that only the making of the overlay finds it."""
    folder = in_a_folder(guest)
    run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=64k", "stillpoint-test", folder])
    try:
        (folder / "filler").write_bytes(b"x" * (64 << 10))
        yield {"overlay_dir": str(folder), "overlay_reserve_bytes": "0"}
    finally:
        run(["umount", folder])
    shutil.rmtree(folder)


@contextmanager
def folder_has_too_long_a_path(guest: LabGuest) -> Iterator[Settings]:
    yield {"overlay_dir": str(guest.folder / ("x" * 300))}


@contextmanager
def no_qemu_img(guest: LabGuest) -> Iterator[Settings]:
    """A PATH with all but that."""
    tools = open_dir(guest.folder / "bin")
    yield {"path": str(tools)}
    shutil.rmtree(tools)


@contextmanager
def qemu_img_that_fails(guest: LabGuest) -> Iterator[Settings]:
    tools = open_dir(guest.folder / "bin")
    stand_in = tools / "qemu-img"
    stand_in.write_text("#!/bin/sh\necho 'qemu-img: error while loading shared libraries: liburing.so.2' >&2\nexit 127\n")
    stand_in.chmod(0o755)
    yield {"path": f"{tools}:{os.environ['PATH']}"}
    shutil.rmtree(tools)


@contextmanager
def image_is_deleted(guest: LabGuest) -> Iterator[Settings]:
    """Under the running guest; a second name keeps the file."""
    image = guest.disks["vda"]
    kept = image.with_suffix(".kept")
    kept.hardlink_to(image)
    image.unlink()
    yield {}
    kept.rename(image)


@contextmanager
def image_is_replaced(guest: LabGuest) -> Iterator[Settings]:
    image = guest.disks["vda"]
    kept = image.with_suffix(".kept")
    image.rename(kept)
    shutil.copyfile(kept, image)
    yield {}
    kept.rename(image)


@contextmanager
def other_mounts(guest: LabGuest) -> Iterator[Settings]:
    """The service has a mount over the folder that libvirt does not see."""
    folder = in_a_folder(guest)
    yield {"overlay_dir": str(folder), "hidden": str(folder)}
    shutil.rmtree(folder)
