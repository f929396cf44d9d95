"""Disks of kinds that a snapshot must name and leave out, or treat with care."""

import os
import uuid
from itertools import count
from pathlib import Path

from tests.lab import disks
from tests.lab.command import run
from tests.lab.domain_xml import Disk
from tests.lab.options import Odd
from tests.lab.places import LabError

PASSPHRASE = "wonderland"
_LOOP_FILE = "loop-device.raw"
_MAX_TRIES = 50


def make(kind: Odd, target: str, folder: Path, mb: int) -> Disk:
    if kind is Odd.EMPTY_CDROM:
        return Disk(target, None, "raw", device="cdrom", readonly=True)
    if kind is Odd.CDROM:
        image = folder / f"{target}.iso"
        disks.make_ext4(image, mb=4, label="cdrom")  # what is on it does not matter
        return Disk(target, image, "raw", device="cdrom", readonly=True)
    if kind is Odd.BLOCK_DEVICE:
        return Disk(target, _loop_device(folder, target, mb), "raw", kind="block")
    if kind is Odd.EMPTY:
        image = folder / f"{target}.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", image, f"{mb}M"])
        image.chmod(0o644)
        return Disk(target, image)
    image_format = "raw" if kind in (Odd.RAW_FILE, Odd.SHAREABLE) else "qcow2"
    image = folder / f"{target}.{image_format}"
    if kind is Odd.LUKS:
        _encrypted(image, folder, mb, target)
        return Disk(target, image, image_format, secret=secret_of(folder))
    disks.data_disk(image, mb=mb, label=f"data-{target}", image_format=image_format)
    return Disk(
        target,
        image,
        image_format,
        readonly=kind is Odd.READONLY,
        snapshot="no" if kind is Odd.SNAPSHOT_NO else None,
        says=(kind.value,) if kind in (Odd.SHAREABLE, Odd.TRANSIENT) else (),
        copy_on_read=kind is Odd.COPY_ON_READ,
        bus=kind.value if kind in (Odd.SCSI, Odd.IDE) else "virtio",
    )


def secret_of(folder: Path) -> str:
    """UUID of the secret of the guest whose disks lie in this folder."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, str(folder)))


def _encrypted(image: Path, folder: Path, mb: int, target: str) -> None:
    plain = folder / f"{target}.plain"
    disks.data_disk(plain, mb=mb, label=f"data-{target}")
    key = ["--object", f"secret,id=key,data={PASSPHRASE}"]
    options = ["-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"]
    for attempt in count():
        try:
            run(["qemu-img", "convert", *key, *options, plain, image])
            break
        except LabError as error:
            # qemu-img measures the processor for the key, and fails where the clock of its thread did not move meanwhile.
            if "CPU usage" not in str(error) or attempt == _MAX_TRIES:
                raise
    plain.unlink()
    image.chmod(0o644)


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
