"""The kernel modules of the guest, in an order in which insmod can load them."""

import lzma
import re
from collections.abc import Sequence
from pathlib import Path

from tests.lab.command import run

REQUIRED = ("virtio_pci", "virtio_blk", "virtio_console", "ext4", "loop")
OPTIONAL = ("button", "evdev")  # the ACPI power button
SCSI = ("sd_mod", "virtio_scsi", "ata_piix")
"""For guests with such disks only: the other guests boot without these modules."""


def ordered_modules(root: Path, wanted: Sequence[str] = REQUIRED + OPTIONAL) -> dict[str, bytes]:
    """Name to content, dependencies first. What is not there as a file is built into the kernel."""
    files = {_name(path): path for path in root.glob("**/kernel/**/*.ko*")}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered or name not in files:
            return
        content = _content(files[name])
        for needed in _needs(content):
            add(needed)
        ordered[name] = content

    for module in wanted:
        add(module)
    return ordered


def _name(path: Path) -> str:
    return path.name.split(".")[0].replace("-", "_")


def _content(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        unpacked = path.with_suffix("")
        run(["zstd", "-dqf", path, "-o", unpacked])
        return unpacked.read_bytes()
    return path.read_bytes()


def _needs(content: bytes) -> list[str]:
    """What the module's own .modinfo names; depmod's index is not part of the package."""
    depends = re.search(rb"\0depends=([^\0]*)\0", content)
    names = depends.group(1).decode().split(",") if depends else []
    for soft in re.findall(rb"\0softdep=pre: ([^\0]*)\0", content):
        names = [*soft.decode().split(), *names]
    return [name.replace("-", "_") for name in names if name]
