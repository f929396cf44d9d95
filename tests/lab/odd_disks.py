"""Disks of kinds that a snapshot must name and leave out, or treat with care."""

import os
from pathlib import Path

from tests.lab import disks
from tests.lab.command import run
from tests.lab.domain_xml import Disk
from tests.lab.options import Odd
from tests.lab.places import LabError

_LOOP_FILE = "loop-device.raw"


def make(kind: Odd, target: str, folder: Path, mb: int) -> Disk:
    if kind is Odd.EMPTY_CDROM:
        return Disk(target, None, "raw", device="cdrom", readonly=True)
    if kind is Odd.CDROM:
        image = folder / f"{target}.iso"
        disks.make_ext4(image, mb=4, label="cdrom")  # what is on it does not matter
        return Disk(target, image, "raw", device="cdrom", readonly=True)
    if kind is Odd.BLOCK_DEVICE:
        return Disk(target, _loop_device(folder, target, mb), "raw", kind="block")
    image_format = "raw" if kind is Odd.RAW_FILE else "qcow2"
    image = folder / f"{target}.{image_format}"
    disks.data_disk(image, mb=mb, label=f"data-{target}", image_format=image_format)
    return Disk(target, image, image_format, readonly=kind is Odd.READONLY)


def _loop_device(folder: Path, target: str, mb: int) -> Path:
    if os.geteuid() != 0:
        raise LabError("a host block device needs root")
    backing = folder / f"{target}-{_LOOP_FILE}"
    disks.data_disk(backing, mb=mb, label=f"data-{target}", image_format="raw")
    return Path(run(["losetup", "--find", "--show", backing]).strip())


def detach_loop_devices(folder: Path) -> None:
    for backing in folder.glob(f"*-{_LOOP_FILE}"):
        for line in run(["losetup", "--associated", backing]).splitlines():
            run(["losetup", "--detach", line.split(":")[0]])
