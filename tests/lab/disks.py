"""Disk images: made without root, and read back without a mount."""

import filecmp
import json
import re
import tempfile
from pathlib import Path

from tests.lab.command import run
from tests.lab.places import LabError, locked, open_dir, run_dir

_BLOCK = 4096
_METER_FILE = "/meter.dat"
COPIES = 50


def make_ext4(path: Path, *, mb: int, label: str) -> None:
    """A raw image with a finished ext4: nothing is left to initialise, so an idle guest writes only what the stall meter writes."""
    with path.open("wb") as image:
        image.truncate(mb * 1024 * 1024)
    extended = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    run(["mkfs.ext4", "-q", "-F", "-b", str(_BLOCK), "-I", "256", "-L", label, "-E", extended, path])


def data_disk(target: Path, *, mb: int, label: str, image_format: str = "qcow2") -> None:
    """A full copy of a cached image, without a backing file."""
    run(["cp", "--reflink=auto", "--sparse=always", _base_image(mb, label, image_format), target])
    target.chmod(0o644)


def _base_image(mb: int, label: str, image_format: str) -> Path:
    base = open_dir(run_dir() / "base") / f"{label}-{mb}.{image_format}"
    with locked("base"):
        if not base.exists():
            raw, fresh = base.with_suffix(".build"), base.with_suffix(".new")
            make_ext4(raw, mb=mb, label=label)
            run(["qemu-img", "convert", "-f", "raw", "-O", image_format, raw, fresh])
            raw.unlink()
            fresh.replace(base)
    return base


def chain(image: Path) -> list[Path]:
    """The image and everything below it, top first; a file that is gone ends the chain."""
    if not image.is_file():
        return []
    try:
        listing = json.loads(run(["qemu-img", "info", "--force-share", "--backing-chain", "--output=json", image]))
    except LabError:  # the backing file is gone
        return [image]
    return [Path(entry["filename"]) for entry in listing]


def needs_recovery(image: Path, scratch: Path | None = None) -> bool:
    """Whether the ext4 in the image (with its backing chain) must replay its journal: true unless it was frozen or unmounted."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        return needs_recovery_raw(_as_raw(image, Path(folder)))


def needs_recovery_raw(raw: Path) -> bool:
    """The same of a raw image that nobody writes to."""
    features = re.search(r"^Filesystem features:(.*)$", run(["dumpe2fs", "-h", raw]), re.MULTILINE)
    if features is None:
        raise LabError(f"no ext4 in {raw}")
    return "needs_recovery" in features.group(1).split()


def sequences(image: Path, scratch: Path | None = None) -> list[int]:
    """The sequence numbers that the stall meter left in the image, sorted. Needs an ext4 without needs_recovery."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        return sequences_raw(_as_raw(image, Path(folder)))


def sequences_raw(raw: Path) -> list[int]:
    """The same of a raw image that nobody writes to."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "meter.dat"
        run(["debugfs", "-R", f"dump {_METER_FILE} {copy}", raw])
        content = copy.read_bytes()
    blocks = (content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK))
    return sorted(int(block[4:24]) for block in blocks if block.startswith(b"SEQ "))


def _as_raw(image: Path, folder: Path) -> Path:
    """A copy that ext4's own tools read; the image may be open in a running QEMU."""
    raw = folder / "disk.raw"
    run(["qemu-img", "convert", "--force-share", "-O", "raw", _still(image, folder), raw])
    return raw


def _still(image: Path, folder: Path) -> Path:
    """The file of the image as it was at one instant: two copies, one after the other, that are equal.

    qemu-img must not read a file that QEMU writes to. It asks for the length of the file once, when it opens the file, and takes
    everything beyond for zeros; the table that tells where the clusters are it reads later. A cluster that was added to the file
    in between reads as zeros, and hides what the same place held before in a file below.
    """
    older, newer = folder / "older", folder / "newer"
    _copy(image, newer)
    for _ in range(COPIES):
        older, newer = newer, older
        _copy(image, newer)
        if filecmp.cmp(older, newer, shallow=False):
            return newer
    raise LabError(f"{image} was written to during each of {COPIES} copies")


def _copy(image: Path, target: Path) -> None:
    run(["cp", "--sparse=always", image, target])
