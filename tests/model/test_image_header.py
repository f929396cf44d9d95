"""What the first bytes of an image say, held against images that qemu-img makes."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from service.model.image_header import READ_BYTES, ImageHeader, parse


def made(path: Path, *options: str) -> ImageHeader | None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "1M"], check=True)
    return read(path.read_bytes()[:READ_BYTES])


def read(head: bytes) -> ImageHeader | None:
    """Without the size and the place of the L1 table, which have a test of their own."""
    header = parse(head)
    return replace(header, l1_at=0, l1_entries=0, virtual_size=0) if header is not None else None


def test_the_l1_table_is_found_where_qemu_writes_its_first_cluster_to(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    made(path)
    header = parse(path.read_bytes()[:READ_BYTES])
    assert header is not None
    assert header.virtual_size == 1 << 20
    table = slice(header.l1_at, header.l1_at + 8 * header.l1_entries)
    before = path.read_bytes()[table]
    subprocess.run(["qemu-io", "-c", "write 0 4096", str(path)], check=True, capture_output=True)
    assert (before, any(path.read_bytes()[table])) == (bytes(8), True)


def test_a_plain_image_says_nothing_special(tmp_path: Path) -> None:
    assert made(tmp_path / "a.qcow2") == ImageHeader()
    assert made(tmp_path / "b.qcow2", "-o", "compat=0.10") == ImageHeader()


@pytest.mark.parametrize("options", [["-o", "compat=0.10"], [], ["-o", "cluster_size=512"], ["-o", "extended_l2=on"]])
def test_the_file_below_and_its_format_are_read(tmp_path: Path, options: list[str]) -> None:
    below = "/somewhere/ä, b: 100%.img"
    assert made(tmp_path / "a.qcow2", "-u", "-b", below, "-F", "raw", *options) == ImageHeader(below, "raw")


def test_luks_inside_is_seen(tmp_path: Path) -> None:
    made(tmp_path / "a.qcow2")
    head = bytearray((tmp_path / "a.qcow2").read_bytes())
    head[32:36] = (2).to_bytes(4)  # qemu-img measures the processor first when it makes one, and fails now and then
    assert read(bytes(head)) == ImageHeader(encryption="LUKS")


def test_aes_of_old_is_seen(tmp_path: Path) -> None:
    header = made(tmp_path / "a.qcow2", "--object", "secret,id=key,data=wonderland", "-o", "encrypt.format=aes,encrypt.key-secret=key")
    assert header is not None
    assert header.encryption == "AES"


def test_an_external_data_file_is_seen(tmp_path: Path) -> None:
    header = made(tmp_path / "a.qcow2", "-o", f"data_file={tmp_path / 'a.data'}")
    assert header is not None
    assert header.has_data_file


def test_snapshots_and_bitmaps_inside_are_seen(tmp_path: Path) -> None:
    made(tmp_path / "a.qcow2")
    for name in ("one", "two"):
        subprocess.run(["qemu-img", "snapshot", "-c", name, str(tmp_path / "a.qcow2")], check=True)
    subprocess.run(["qemu-img", "bitmap", "--add", str(tmp_path / "a.qcow2"), "daily"], check=True)
    assert read((tmp_path / "a.qcow2").read_bytes()) == ImageHeader(internal_snapshots=2, has_bitmaps=True)


@pytest.mark.parametrize("head", [b"", b"QFI", b"QFI\xfb" + bytes(20), b"LUKS\xba\xbe" + bytes(600), bytes(4096)])
def test_what_is_no_qcow2_is_none(head: bytes) -> None:
    assert parse(head) is None


def test_a_header_that_lies_about_its_lengths_is_read_to_the_end_of_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    made(path, "-u", "-b", "/base", "-F", "qcow2")
    whole = path.read_bytes()[:READ_BYTES]
    for cut in range(72, 1024):
        header = parse(whole[:cut])
        assert header is not None
        assert "/base".startswith(header.below or "")
