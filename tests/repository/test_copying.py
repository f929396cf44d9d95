"""What is copied is what the guest's disk holds, whatever lies between two copies."""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import KeyUnusable, RepositoryFull, StorageRefused
from tests.repository.disks import MIB, Disk, Points, are_identical, qemu
from tests.repository.step_process import progress_of, result_of, run_step, start_step
from tests.repository.test_source_disk import writer


def test_a_full_copy_is_identical_and_holds_no_zeroes(disk: Disk, points: Points) -> None:
    result = points.take("p1", disk)

    assert are_identical(points.image("p1"), disk.path)
    assert result["copied_bytes"] == 3 * MIB + 65536 + MIB
    assert result["changed_blocks"] == 5
    assert points.verify("p1", "bytes")["bytes"]["ok"]


def test_an_increment_holds_what_was_written_since_and_nothing_else(disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.write((7, MIB, 65536), (8, 9 * MIB, 2 * MIB))

    result = points.take("p2", disk, "bitmap", bitmap="c1")

    assert are_identical(points.image("p2"), disk.path)
    assert not are_identical(points.image("p1"), disk.path)
    assert result["copied_bytes"] == 65536 + 2 * MIB
    assert result["changed_blocks"] == 3
    assert points.verify("p2", "bytes")["bytes"]["ok"]


def test_zeroes_and_discards_hide_what_the_parent_holds(disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.write((0, 0, MIB), (0, 2 * MIB, 65536))
    disk.discard(15 * MIB, MIB)

    points.take("p2", disk, "bitmap", bitmap="c1")

    assert are_identical(points.image("p2"), disk.path)
    assert points.verify("p2", "bytes")["bytes"]["ok"]


def test_an_increment_is_whole_across_snapshots_that_lie_between(tmp_path: Path, disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.write((7, 0, 65536))
    middle = Disk.make(tmp_path / "middle.qcow2", backing=disk)
    middle.checkpoint("c1")
    middle.write((8, 6 * MIB, 65536))
    top = Disk.make(tmp_path / "top.qcow2", backing=middle)
    top.checkpoint("c1")
    top.write((9, 11 * MIB, 65536))

    points.take("p2", top, "bitmap", bitmap="c1")

    assert are_identical(points.image("p2"), top.path)


def test_a_disk_that_has_grown_is_incremental(disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.grow(20 * MIB + 512)
    disk.write((5, 19 * MIB, MIB + 512))

    result = points.take("p2", disk, "bitmap", bitmap="c1")

    assert are_identical(points.image("p2"), disk.path)
    assert result["changed_blocks"] == 2
    assert points.verify("p2", "bytes")["bytes"]["ok"]


def test_the_last_block_of_a_disk_that_has_grown_has_a_new_digest(disk: Disk, points: Points) -> None:
    """Nothing was written there, but the block is longer now."""
    disk.grow(16 * MIB + 512)
    disk.write((4, 16 * MIB, 512))
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.grow(18 * MIB)

    points.take("p2", disk, "bitmap", bitmap="c1")

    assert are_identical(points.image("p2"), disk.path)
    assert points.verify("p2", "bytes")["bytes"]["ok"]


@pytest.mark.parametrize("size", [16 * MIB, 16 * MIB + 512, 16 * MIB - 65536 + 1024])
def test_an_increment_by_content_writes_only_what_differs(tmp_path: Path, points: Points, size: int) -> None:
    """A raw disk, as it has no bitmap."""
    disk = Disk.make(tmp_path / "disk.raw", size, image_format="raw")
    disk.write((1, 0, 4 * MIB), (2, 14 * MIB, size - 14 * MIB))
    points.take("p1", disk)
    disk.write((3, 2 * MIB, 4096), (0, 0, MIB), (4, size - 512, 512))

    result = points.take("p2", disk, "content")

    assert are_identical(points.image("p2"), disk.path, formats=("qcow2", "raw"))
    assert result["changed_blocks"] == 3
    assert points.verify("p2", "bytes")["bytes"]["ok"]


def test_a_disk_over_a_template_is_copied_whole(tmp_path: Path, disk: Disk, points: Points) -> None:
    top = Disk.make(tmp_path / "top.qcow2", backing=disk)
    top.write((9, MIB, 65536), (0, 2 * MIB, MIB))

    points.take("p1", top)

    assert are_identical(points.image("p1"), top.path)
    assert points.verify("p1", "bytes", "structure")["structure"]["ok"]


@pytest.mark.parametrize("source", ["qcow2", "compressed", "raw"])
def test_what_the_source_is_made_of_does_not_show(tmp_path: Path, disk: Disk, points: Points, source: str) -> None:
    image_format = "raw" if source == "raw" else "qcow2"
    other = Disk(tmp_path / "other", image_format)
    qemu("qemu-img", "convert", *(["-c"] if source == "compressed" else []), "-O", image_format, disk.path, other.path)

    points.take("p1", other)

    assert are_identical(points.image("p1"), disk.path)


@pytest.mark.parametrize("size", [512, 65536, MIB + 512, 16 * MIB - 512])
@pytest.mark.parametrize("compress", [False, True])
def test_a_disk_of_any_size_is_copied_to_its_last_byte(tmp_path: Path, points: Points, size: int, compress: bool) -> None:
    disk = Disk.make(tmp_path / "disk.raw", size, image_format="raw")
    disk.write((1, 0, 512), (2, size - 512, 512))

    points.take("p1", disk, compress=compress)
    disk.write((3, size - 512, 512))
    points.take("p2", disk, "content", compress=compress)

    assert are_identical(points.image("p2"), disk.path, formats=("qcow2", "raw"))
    assert points.image("p2").stat().st_size < 4 * MIB
    assert points.verify("p2", "structure") == {"structure": {"ok": True, "images": 2, "leaks": 0, "faults": []}}


def test_an_empty_disk_is_copied(tmp_path: Path, points: Points) -> None:
    result = points.take("p1", disk := Disk.make(tmp_path / "disk.qcow2", 100 << 30))

    assert are_identical(points.image("p1"), disk.path)
    assert result["stored_bytes"] < MIB


def test_a_large_disk_has_its_data_where_it_belongs(tmp_path: Path, points: Points) -> None:
    """Several L2 tables, blocks of refcounts and tables of them."""
    disk = Disk.make(tmp_path / "disk.qcow2", (3 << 40) + 512)
    disk.write((1, 0, 4096), (2, (512 << 20) - 65536, 131072), (3, 2 << 40, 65536), (4, 3 << 40, 512))

    points.take("p1", disk)

    assert are_identical(points.image("p1"), disk.path)
    assert points.verify("p1", "structure")["structure"]["ok"]


@pytest.mark.parametrize("kind", ["compress", "encrypted"])
def test_compressed_and_encrypted_points_are_identical_and_sound(tmp_path: Path, disk: Disk, kind: str) -> None:
    points = Points(tmp_path / "points", key=b"a good passphrase" if kind == "encrypted" else None)
    disk.checkpoint("c1")
    full = points.take("p1", disk, compress=kind == "compress")
    disk.write((7, 0, 65536), (0, MIB, MIB), (8, 9 * MIB, 2 * MIB))
    points.take("p2", disk, "bitmap", bitmap="c1", compress=kind == "compress")

    assert full["stored_bytes"] < MIB if kind == "compress" else full["stored_bytes"] > 4 * MIB
    points.restore("p2", tmp_path / "restored")
    assert are_identical(tmp_path / "restored", disk.path)
    assert points.verify("p2", "bytes", "structure")["bytes"]["contents"] == 1
    assert points.verify("p2", "structure")["structure"]["ok"]


def test_names_with_any_characters(tmp_path: Path) -> None:
    folder = tmp_path / "a b,c:d\ne=f%g'\"h"
    folder.mkdir()
    disk = Disk.make(folder / "disk,file.filename=x:y\nz.qcow2")
    disk.checkpoint("c1")
    disk.write((1, 0, MIB))
    points = Points(folder / "nbd:points")
    points.take("p1", disk)
    disk.write((2, 0, 65536))
    points.take("p2", disk, "bitmap", bitmap="c1")

    points.restore("p2", folder / "json:{} restored")

    assert are_identical(folder / "json:{} restored", disk.path)
    assert points.verify("p2", "bytes", "structure")["structure"]["ok"]


def test_what_was_copied_is_told_with_its_checksum_and_its_progress(disk: Disk, points: Points) -> None:
    process = start_step("copy_disk", points.request("p1", disk))
    output, _ = process.communicate()

    result = result_of(output)

    assert result["stored_sha256"] == hashlib.sha256(points.image("p1").read_bytes()).hexdigest()
    assert progress_of(output)[-1] == (5 * MIB, 5 * MIB)


def test_a_copy_that_was_killed_is_begun_again_and_a_finished_one_is_kept(disk: Disk, points: Points) -> None:
    request = points.request("p1", disk)
    process = start_step("copy_disk", request, pace=100_000)
    wait_for(points.image("p1").exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not are_identical_files(points.image("p1"), disk.path)

    result = run_step("copy_disk", request)
    assert are_identical(points.image("p1"), disk.path)
    before = points.image("p1").stat()

    assert run_step("copy_disk", request) == result
    assert points.image("p1").stat().st_ino == before.st_ino


@pytest.mark.parametrize("compress", [False, True])
def test_a_repository_that_gets_full_is_told(tmp_path: Path, small_filesystem: Path, compress: bool) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(4 * MIB))

    with pytest.raises(RepositoryFull):
        Points(small_filesystem / "points").take("p1", Disk(noise, "raw"), compress=compress)


def test_no_process_is_left_when_a_copy_is_killed(disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.write((1, 0, 8 * MIB))
    process = start_step("copy_disk", points.request("p2", disk, "bitmap", bitmap="c1", compress=True), pace=100_000)
    wait_for(lambda: len(programs_of(process.pid)) > 2)

    process.kill()
    process.communicate()

    wait_for(lambda: not programs_of(process.pid))


def test_an_increment_by_a_bitmap_that_is_not_whole_is_refused(tmp_path: Path, disk: Disk, points: Points) -> None:
    """Whatever the caller believes: what such a bitmap leaves out would be lost."""
    disk.checkpoint("c1")
    points.take("p1", disk)
    with writer(disk) as process:
        process.kill()
        process.wait()
    top = Disk.make(tmp_path / "top.qcow2", backing=disk)

    for source, bitmap in ((disk, "c1"), (disk, "other"), (top, "c1")):
        with pytest.raises(StorageRefused):
            run_step("copy_disk", points.request("p2", source, "bitmap", bitmap=bitmap))


def test_a_disk_that_has_another_size_than_it_should_is_refused(disk: Disk, points: Points) -> None:
    with pytest.raises(StorageRefused):
        run_step("copy_disk", points.request("p1", disk) | {"virtual_size": 15 * MIB})


@pytest.mark.parametrize("key", [None, b"another passphrase"])
def test_an_increment_needs_the_key_of_its_parent(tmp_path: Path, disk: Disk, key: bytes | None) -> None:
    points = Points(tmp_path / "points", key=b"a good passphrase")
    points.take("p1", disk)

    with pytest.raises(KeyUnusable):
        run_step("copy_disk", points.request("p2", disk, "content"), key=key)


def programs_of(session: int) -> list[str]:
    """The processes of a session, by their command."""
    lines = subprocess.run(["ps", "-o", "comm=", "-s", str(session)], capture_output=True, text=True, check=False).stdout
    return [line for line in lines.splitlines() if line.strip()]


def are_identical_files(one: Path, other: Path) -> bool:
    return one.exists() and one.read_bytes() == other.read_bytes()


def wait_for(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
