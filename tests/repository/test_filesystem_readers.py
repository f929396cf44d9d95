"""What is said of a filesystem without mounting it is what its own tools made of it."""

import os
import random
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.repository.crc32c import crc32c
from service.repository.filesystem_readers import filesystems
from tests.repository.disks import MIB

MKFS: dict[str, tuple[int, list[str]]] = {
    "ext2": (8 * MIB, ["mkfs.ext2", "-q", "-F"]),
    "ext3": (16 * MIB, ["mkfs.ext3", "-q", "-F"]),
    "ext4": (16 * MIB, ["mkfs.ext4", "-q", "-F"]),
    "xfs": (320 * MIB, ["mkfs.xfs", "-q", "-f"]),
    "ntfs": (16 * MIB, ["mkfs.ntfs", "-q", "-F", "-f"]),
    "swap": (8 * MIB, ["mkswap"]),
}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def made(kind: str, *options: str) -> Path:
        size, command = MKFS[kind]
        path = tmp_path / kind
        path.touch()
        os.truncate(path, size)
        subprocess.run([*command, *options, path], check=True, capture_output=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        return path

    return made


@pytest.mark.parametrize(("kind", "state"), [(kind, "unknown" if kind == "swap" else "clean") for kind in MKFS])
def test_a_new_filesystem_is_clean(make: Callable[..., Path], kind: str, state: str) -> None:
    assert _told(make(kind)) == [(None, kind, state)]


@pytest.mark.parametrize("kind", ["ext2", "ext4", "xfs"])
def test_a_copy_of_a_mounted_filesystem_needs_recovery(make: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    path = make(kind)
    with _mounted(path, tmp_path / "mount") as folder:
        _write(folder / "file")
        copy = shutil.copy(path, tmp_path / "copy")
        assert _told(copy) == [(None, kind, "needs_recovery")]
    assert _told(path) == [(None, kind, "clean")]


def test_the_log_of_xfs_is_followed_round_its_end(make: Callable[..., Path], tmp_path: Path) -> None:
    path = make("xfs", "--unsupported", "-l", "size=6m")
    with _mounted(path, tmp_path / "mount") as folder:
        while not _xfs_log(path)[1]:
            _log_much(folder)
        copy = Path(shutil.copy(path, tmp_path / "copy"))
    for image, state in ((copy, "needs_recovery"), (path, "clean")):
        assert _told(image) == [(None, "xfs", state)]
        # What the tool of XFS says of the same log.
        assert _xfs_log(image) == ("DIRTY" if state == "needs_recovery" else "CLEAN", True)


def test_a_frozen_ext4_is_clean(make: Callable[..., Path], tmp_path: Path) -> None:
    path = make("ext4")
    with _mounted(path, tmp_path / "mount") as folder:
        _write(folder / "file")
        subprocess.run(["fsfreeze", "--freeze", folder], check=True)
        try:
            copy = shutil.copy(path, tmp_path / "copy")
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", folder], check=True)
    assert _told(copy) == [(None, "ext4", "clean")]


def test_an_ext4_that_has_recorded_errors_says_so(make: Callable[..., Path]) -> None:
    path = make("ext4")
    subprocess.run(["/usr/sbin/debugfs", "-w", "-R", "set_super_value state 2", path], check=True, capture_output=True)
    assert _told(path) == [(None, "ext4", "errors")]


@pytest.mark.parametrize(("kind", "at"), [("ext4", 1024 + 100), ("xfs", 200)])
def test_a_superblock_with_a_flipped_bit_has_errors(make: Callable[..., Path], kind: str, at: int) -> None:
    path = make(kind)
    _change(path, at, lambda content: bytes([content[0] ^ 1]), 1)
    assert _told(path) == [(None, kind, "errors")]


def test_an_ntfs_that_wants_chkdsk_says_so(make: Callable[..., Path]) -> None:
    path = make("ntfs")
    content = path.read_bytes()
    # The only resident attribute of this kind: $VOLUME_INFORMATION, whose value of 12 bytes begins 24 bytes further.
    at = content.index(struct.pack("<II", 0x70, 40), 0)
    _change(path, at + 24 + 10, lambda _: b"\1\0", 2)
    assert _told(path) == [(None, "ntfs", "errors")]


@pytest.mark.parametrize(("clients", "flags", "state"), [(0, 0, "needs_recovery"), (0, 2, "clean"), (0xFFFF, 0, "clean")])
def test_the_log_of_ntfs_tells_whether_windows_closed_it(make: Callable[..., Path], clients: int, flags: int, state: str) -> None:
    path = make("ntfs")
    content = path.read_bytes()
    at = next(at for at in range(0, len(content), 4096) if content[at : at + 8192] == b"\xff" * 8192)
    for position, number in ((at, 7), (at + 4096, 6)):
        page = _restart_page(number, clients if number == 7 else 0xFFFF, flags)
        _overwrite(path, position, page)
    assert _told(path) == [(None, "ntfs", state)]


def test_the_partitions_of_an_mbr_are_read_logical_ones_included(make: Callable[..., Path], tmp_path: Path) -> None:
    disk = _disk(tmp_path / "disk", 80 * MIB)
    _put(disk, 2 * MIB, make("ext4"))
    _put(disk, 24 * MIB, make("ext2"))
    _put(disk, 40 * MIB, make("ntfs"))
    sectors = MIB // 512
    _change(disk, 0, lambda _: _table([(0x83, 2 * sectors, 16 * sectors), (0x0F, 20 * sectors, 60 * sectors)]), 512)
    _change(disk, 20 * MIB, lambda _: _table([(0x83, 4 * sectors, 8 * sectors), (0x05, 18 * sectors, 40 * sectors)]), 512)
    _change(disk, 38 * MIB, lambda _: _table([(0x07, 2 * sectors, 16 * sectors)]), 512)

    assert _told(disk) == [(1, "ext4", "clean"), (5, "ext2", "clean"), (6, "ntfs", "clean")]


@pytest.mark.parametrize("sector", [512, 4096])
def test_the_partitions_of_a_gpt_are_read(make: Callable[..., Path], tmp_path: Path, sector: int) -> None:
    disk = _disk(tmp_path / "disk", 400 * MIB)
    _put(disk, MIB, make("ext4"))
    _put(disk, 20 * MIB, make("xfs"))
    _change(disk, 0, lambda _: _table([(0xEE, 1, 400 * MIB // 512 - 1)]), 512)
    entries = _gpt_entry(MIB, 16 * MIB, sector) + bytes(128) + _gpt_entry(20 * MIB, 320 * MIB, sector)
    _change(disk, 2 * sector, lambda _: entries, len(entries))
    _change(disk, sector, lambda _: _gpt_header(), 92)

    assert _told(disk) == [(1, "ext4", "clean"), (3, "xfs", "clean")]


def test_a_disk_of_noise_says_nothing_and_breaks_nothing() -> None:
    noise = bytearray(random.Random(1).randbytes(MIB))
    noise[510:512] = b"\x55\xaa"
    noise[1024 + 56 : 1024 + 58] = b"\x53\xef"
    for signature in (b"XFSB", b"\0\0\0NTFS    ", b""):
        noise[0 : len(signature)] = signature
        told = filesystems(lambda offset, length: bytes(noise[offset : offset + length]), len(noise))
        assert all(state["state"] in ("errors", "unknown", "needs_recovery") for state in told)


def test_the_checksum_is_that_of_castagnoli() -> None:
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def _told(path: str | Path) -> list[tuple[int | None, str, str]]:
    with Path(path).open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, offset)

        states: list[dict[str, Any]] = filesystems(read, os.fstat(file.fileno()).st_size)
    return [(state["partition"], state["type"], state["state"]) for state in states]


@contextmanager
def _mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def _write(path: Path) -> None:
    """What was written is on the disk, and the journal knows of it."""
    with path.open("a") as file:
        file.write("x" * 5000)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _log_much(folder: Path) -> None:
    for name in range(1000):
        (folder / f"{name}").touch()
        if name % 100 == 0:
            _write(folder / "file")
    for name in range(1000):
        (folder / f"{name}").unlink()
    _write(folder / "file")


def _xfs_log(image: Path) -> tuple[str, bool]:
    """Its state, and whether its first sector was written a second time."""
    shown = subprocess.run(["/usr/sbin/xfs_logprint", "-t", image], check=False, capture_output=True, text=True).stdout
    state = re.search(r"state: <(\w+)>", shown)
    sector = re.search(r"daddr: (\d+)", shown)
    assert state is not None and sector is not None
    with image.open("rb") as file:
        first, second = struct.unpack(">II", os.pread(file.fileno(), 8, int(sector[1]) * 512))
    return state[1], (second if first == 0xFEEDBABE else first) > 1


def _change(path: Path, at: int, change: Callable[[bytes], bytes], length: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        content = file.read(length)
        file.seek(at)
        file.write(change(content))


def _overwrite(path: Path, at: int, content: bytes) -> None:
    _change(path, at, lambda _: content, len(content))


def _disk(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def _put(disk: Path, at: int, content: Path) -> None:
    subprocess.run(["dd", f"if={content}", f"of={disk}", "bs=1M", f"seek={at // MIB}", "conv=notrunc,sparse", "status=none"], check=True)


def _table(entries: list[tuple[int, int, int]]) -> bytes:
    """A sector with a table of partitions: type, first sector, sectors."""
    packed = b"".join(struct.pack("<B3xB3xII", 0, kind, start, count) for kind, start, count in entries)
    return bytes(446) + packed.ljust(64, b"\0") + b"\x55\xaa"


def _gpt_entry(start: int, length: int, sector: int) -> bytes:
    return struct.pack("<16s16sQQ", b"type" * 4, b"name" * 4, start // sector, (start + length) // sector - 1).ljust(128, b"\0")


def _gpt_header() -> bytes:
    header = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, 99, 34, 98, b"disk" * 4, 2, 4, 128, 0)
    return header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]


def _restart_page(number: int, clients: int, flags: int) -> bytes:
    """A page of 4096 bytes with the marks at the ends of its sectors. Higher number: written later."""
    page = bytearray(4096)
    struct.pack_into("<4sHHQIIHHH", page, 0, b"RSTR", 30, 9, 0, 4096, 4096, 0x30, 1, 1)
    struct.pack_into("<QHHHH", page, 0x30, number, 1, 0, clients, flags)
    struct.pack_into("<H", page, 30, 0xABCD)
    for sector in range(8):
        struct.pack_into("<H", page, sector * 512 + 510, 0xABCD)
    # The two bytes of each sector that belong there: zeroes, as nothing lies there.
    return bytes(page)
