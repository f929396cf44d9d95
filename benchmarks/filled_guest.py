"""A guest whose disk holds a file of random bytes, which its backups have to copy, and which it can change by a part.

What the file holds is known at any time, so that a restored disk can be held against it.
"""

import hashlib
import random
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import libvirt

from tests.lab import disks
from tests.lab.command import run
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.lab.places import LabError, locked, run_dir

KNOWN = "known"
_MB = 1 << 20
#: Each sixteenth write of the meter is made durable, so that late fdatasyncs are seen.
METER = {"sync_every": 16, "interval_us": 5_000}


class FilledGuest(LabGuest):
    """`data_mb` of random bytes on its one disk, put there before it starts: the guest itself would need minutes."""

    def __init__(self, name: str, *, disk_mb: int, data_mb: int) -> None:
        super().__init__(GuestOptions(name=name, disk_mb=disk_mb, meter=METER, memory_mb=512))
        self.data_mb = data_mb
        #: By MB of the file, the byte that fills it since it was changed.
        self._changed: dict[int, int] = {}

    def define(self) -> "FilledGuest":
        super().define()
        self._changed.clear()
        image = _filled(self.options.disk_mb, self.data_mb)
        run(["cp", "--reflink=auto", "--sparse=always", image, self.disks["vda"]], timeout=600)
        self.disks["vda"].chmod(0o644)
        return self

    def change(self, mb: int, chance: random.Random) -> None:
        """So many MB of the file, in pieces of one MB, on the disk."""
        places = chance.sample(range(self.data_mb), mb)
        script = "; ".join(
            f"dd if=/dev/zero bs=64k count=16 2> /dev/null | tr '\\0' '{chr(97 + place % 26)}'"
            f" | dd of=/data/{KNOWN} bs=1M iflag=fullblock seek={place} conv=notrunc 2> /dev/null"
            for place in places
        )
        self.exec("/bin/sh", "-c", f"{script}; sync", timeout=120)
        self._changed |= {place: 97 + place % 26 for place in places}

    def must_be_in(self, image: Path, scratch: Path) -> None:
        """The restored image has the file as the guest has it. Raises LabError."""
        expected = _digests_file(self.options.disk_mb, self.data_mb).read_text().split()
        for place, byte in self._changed.items():
            expected[place] = hashlib.sha256(bytes([byte]) * _MB).hexdigest()
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            raw, file = Path(folder, "raw"), Path(folder, KNOWN)
            run(["qemu-img", "convert", "-O", "raw", image, raw], timeout=600)
            run(["debugfs", "-c", "-R", f"dump /{KNOWN} {file}", raw], timeout=600)
            found = _digests(file)
        if found != expected:
            wrong = [place for place, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]]
            raise LabError(f"{image} was restored wrongly: {len(found)} of {len(expected)} MB are there, and these differ: {wrong[:20]}")

    def disturb(self) -> None:
        """The file is written to all the time, until `rest`: what a guest does that works."""
        write = f"dd if=/dev/zero of=/data/{KNOWN} bs=256k count=4 seek=$((RANDOM % {self.data_mb * 4 - 4})) conv=notrunc,fsync"
        script = "\n".join(("rm -f /tmp/rest", "while [ ! -e /tmp/rest ]", f"do {write}", "sleep 0.05", "done"))
        self.agent({"execute": "guest-exec", "arguments": {"path": "/bin/sh", "arg": ["-c", script]}})

    def rest(self) -> None:
        self.exec("/bin/touch", "/tmp/rest", timeout=60)
        time.sleep(0.2)

    def drop(self, domain: str) -> None:
        """A restored domain and its files, but nothing that it may have below them."""
        with suppress(libvirt.libvirtError):
            found = self.connection.lookupByName(domain)
            if found.isActive():
                found.destroy()
            found.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)


def _filled(disk_mb: int, data_mb: int) -> Path:
    image, digests = run_dir() / "base" / f"filled-{disk_mb}-{data_mb}.qcow2", _digests_file(disk_mb, data_mb)
    with locked("base"):
        if image.exists() and digests.exists():
            return image
        image.parent.mkdir(exist_ok=True)
        raw, content = image.with_suffix(".build"), image.with_suffix(".content")
        try:
            disks.make_ext4(raw, mb=disk_mb, label="data")
            run(["dd", "if=/dev/urandom", f"of={content}", "bs=1M", f"count={data_mb}"], timeout=600)
            told = run(["debugfs", "-w", "-R", f"write {content} {KNOWN}", raw], timeout=600)
            if "Allocated inode" not in told:
                raise LabError(f"debugfs did not write the file: {told}")
            run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], timeout=600)
            digests.write_text("\n".join(_digests(content)))
        finally:
            raw.unlink(missing_ok=True)
            content.unlink(missing_ok=True)
    return image


def _digests_file(disk_mb: int, data_mb: int) -> Path:
    return run_dir() / "base" / f"filled-{disk_mb}-{data_mb}.digests"


def _digests(file: Path) -> list[str]:
    """Of each MB."""
    if not file.exists():
        return []
    with file.open("rb") as content:
        return [hashlib.sha256(piece).hexdigest() for piece in iter(lambda: content.read(_MB), b"")]
