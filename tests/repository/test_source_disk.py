"""Whether a bitmap is good for an increment: what is not certain makes a full copy."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.errors import StorageRefused
from tests.repository.disks import MIB, Disk, qemu
from tests.repository.step_process import run_step


def inspect(disk: Disk, bitmap: str | None = "c1") -> dict[str, Any]:
    return run_step("inspect_source", {"file": str(disk.path), "format": disk.format, "bitmap": bitmap})


def test_a_bitmap_that_records_is_whole_and_tells_how_much_was_written(disk: Disk) -> None:
    disk.checkpoint("c1")
    disk.write((7, MIB, 65536), (8, 4 * MIB, 131072))

    told = inspect(disk)

    assert (told["bitmap"], told["changed_bytes"]) == ("whole", 65536 + 131072)
    assert told["virtual_size"] == 16 * MIB
    assert told["layers"] == [{"file": str(disk.path), "format": "qcow2", "bitmaps": {"c1": ["auto"]}}]


def test_a_disk_without_the_bitmap_says_so(disk: Disk) -> None:
    assert inspect(disk)["bitmap"] == "absent"


def test_a_raw_disk_has_no_bitmap(tmp_path: Path) -> None:
    raw = Disk.make(tmp_path / "disk.raw", image_format="raw")
    assert (inspect(raw)["bitmap"], inspect(raw)["virtual_size"]) == ("absent", 16 * MIB)


def test_the_bitmap_of_a_qemu_that_was_killed_is_in_use(disk: Disk) -> None:
    disk.checkpoint("c1")
    with writer(disk) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()

    told = inspect(disk)

    assert (told["bitmap"], told["changed_bytes"]) == ("in-use", None)
    assert str(disk.path) in told["reason"]


def test_a_disk_is_inspected_while_another_program_writes_to_it(disk: Disk) -> None:
    disk.checkpoint("c1")
    with writer(disk):
        assert inspect(disk)["bitmap"] == "in-use"


def test_a_layer_on_top_without_the_bitmap_breaks_it(tmp_path: Path, disk: Disk) -> None:
    disk.checkpoint("c1")
    top = Disk.make(tmp_path / "top.qcow2", backing=disk)

    assert inspect(top)["bitmap"] == "broken-chain"


def test_a_layer_between_without_the_bitmap_breaks_it(tmp_path: Path, disk: Disk) -> None:
    disk.checkpoint("c1")
    middle = Disk.make(tmp_path / "middle.qcow2", backing=disk)
    top = Disk.make(tmp_path / "top.qcow2", backing=middle)
    top.checkpoint("c1")

    told = inspect(top)

    assert told["bitmap"] == "broken-chain"
    assert str(middle.path) in told["reason"]


def test_a_bitmap_that_begins_above_older_layers_is_whole(tmp_path: Path, disk: Disk) -> None:
    top = Disk.make(tmp_path / "top.qcow2", backing=disk)
    top.checkpoint("c1")

    assert inspect(top)["bitmap"] == "whole"


def test_a_bitmap_that_does_not_record_is_broken(disk: Disk) -> None:
    disk.checkpoint("c1")
    qemu("qemu-img", "bitmap", "--disable", disk.path, "c1")

    assert inspect(disk)["bitmap"] == "broken-chain"


@pytest.mark.parametrize("content", [None, b"", b"no qcow2"])
def test_a_source_that_cannot_be_read_is_told_from_the_repository(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "disk.qcow2"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(StorageRefused):
        inspect(Disk(path))


@contextmanager
def writer(disk: Disk) -> Iterator["subprocess.Popen[bytes]"]:
    """A program of QEMU that has the disk open for writing."""
    process = subprocess.Popen(
        ["qemu-io", "-f", disk.format, str(disk.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"write -P 9 0 65536\n")
    process.stdin.flush()
    while b"ops" not in process.stdout.readline():
        assert process.poll() is None
    try:
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()
