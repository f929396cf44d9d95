"""A restored disk is the disk of its point, or there is none."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.errors import ForeignEntry, PointDamaged, PointIncomplete, StorageRefused, TargetFull
from tests.repository.disks import MIB, Disk, Points, are_identical, qemu


@pytest.mark.parametrize("target_format", ["qcow2", "raw"])
def test_a_disk_is_restored_from_full_and_increments(chain: Points, disk: Disk, tmp_path: Path, target_format: str) -> None:
    target = tmp_path / "restored"

    chain.restore("p3", target, target_format)

    assert are_identical(target, disk.path, formats=(target_format, "qcow2"))
    assert target.stat().st_blocks * 512 < 8 * MIB
    assert target.stat().st_mode & 0o777 == 0o600


def test_qemu_img_alone_restores_a_chain(chain: Points, disk: Disk, tmp_path: Path) -> None:
    qemu("qemu-img", "convert", "-O", "qcow2", chain.image("p3"), tmp_path / "by-hand.qcow2")

    assert are_identical(tmp_path / "by-hand.qcow2", disk.path)


def test_a_file_that_is_there_is_not_overwritten(chain: Points, tmp_path: Path) -> None:
    target = tmp_path / "restored"
    target.write_text("precious")

    with pytest.raises(StorageRefused) as refused:
        chain.restore("p3", target)

    assert refused.value.facts["errno"] == errno.errorcode[errno.EEXIST]
    assert target.read_text() == "precious"


@pytest.mark.parametrize("point", ["p1", "p2", "p3"])
def test_one_flipped_bit_anywhere_in_the_chain_is_not_restored(chain: Points, tmp_path: Path, point: str) -> None:
    flip(chain.image(point), at=data_in(chain.image(point)))

    with pytest.raises(PointDamaged):
        chain.restore("p3", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_truncated_image_is_not_restored(chain: Points, tmp_path: Path) -> None:
    os.truncate(chain.image("p2"), chain.image("p2").stat().st_size - 65536)

    with pytest.raises(PointDamaged):
        chain.restore("p3", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_a_point_without_its_parent_names_the_parent(chain: Points, tmp_path: Path) -> None:
    chain.image("p1").unlink()

    with pytest.raises(PointIncomplete) as incomplete:
        chain.restore("p3", tmp_path / "restored")
    assert "p1" in incomplete.value.facts["missing"]


def test_a_header_that_names_a_file_elsewhere_is_not_followed(chain: Points, tmp_path: Path) -> None:
    secret = Disk.make(tmp_path / "secret.qcow2")
    qemu("qemu-img", "rebase", "-u", "-b", secret.path, "-F", "qcow2", chain.image("p3"))

    with pytest.raises(PointDamaged):
        chain.restore("p3", tmp_path / "restored")


def test_a_link_in_the_repository_is_not_followed(chain: Points, tmp_path: Path) -> None:
    chain.image("p1").rename(tmp_path / "elsewhere.qcow2")
    chain.image("p1").symlink_to(tmp_path / "elsewhere.qcow2")

    with pytest.raises(ForeignEntry):
        chain.restore("p3", tmp_path / "restored")


@pytest.mark.parametrize("target_format", ["qcow2", "raw"])
def test_a_target_that_gets_full_is_told_and_nothing_is_left(chain: Points, small_filesystem: Path, target_format: str) -> None:
    with pytest.raises(TargetFull) as full:
        chain.restore("p3", small_filesystem / "restored", target_format)

    assert full.value.facts["folder"] == str(small_filesystem)
    assert list(small_filesystem.iterdir()) == []


def test_a_device_is_overwritten_with_the_zeroes_of_the_disk_as_well(chain: Points, disk: Disk, tmp_path: Path) -> None:
    with loop_device(tmp_path / "device", 16 * MIB) as device:
        device.write_bytes(b"x" * 16 * MIB)
        chain.restore("p3", device, is_device=True)
        qemu("qemu-img", "convert", "-f", "host_device", "-O", "qcow2", device, tmp_path / "read.qcow2")

    assert are_identical(tmp_path / "read.qcow2", disk.path)


def test_a_device_that_is_too_small_and_a_file_in_its_place_are_refused(chain: Points, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with loop_device(tmp_path / "device", 15 * MIB) as device:
        for target in (device, tmp_path / "file"):
            with pytest.raises(StorageRefused):
                chain.restore("p3", target, is_device=True)
    assert (tmp_path / "file").exists()


@contextmanager
def loop_device(file: Path, size: int) -> Iterator[Path]:
    file.touch()
    os.truncate(file, size)
    device = qemu("losetup", "--find", "--show", file).strip()
    try:
        yield Path(device)
    finally:
        qemu("losetup", "--detach", device)


def data_in(image: Path) -> int:
    """An offset in the file where data of the guest is: the file ends with it."""
    return image.stat().st_size - 1000


def flip(file: Path, *, at: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)[0]
        opened.seek(at)
        opened.write(bytes([byte ^ 1]))
