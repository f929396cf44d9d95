"""What the files of a disk say: encryption, data files, other chains; read before a disk is taken."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from service.disks import disk_images
from service.disks.disk_images import examined
from service.model.inventory import Disk, DiskWords
from tests.scenes.host import qcow2_header

LUKS, DATA_FILE, CORRUPT = 2, 1 << 2, 1 << 1


def why_not(path: Path, image_format: str = "qcow2", chain: tuple[str | None, ...] = ()) -> str | None:
    (disk,) = examined([Disk("vda", "disk", "file", str(path), image_format, False, chain=chain)])
    return disk.why_not


def image(path: Path, below: str = "", below_format: str = "qcow2", *, encryption: int = 0, features: int = 0) -> Path:
    path.write_bytes(qcow2_header(below=below, below_format=below_format, encryption=encryption, features=features))
    return path


def test_a_plain_chain_has_nothing_against_it(tmp_path: Path) -> None:
    image(tmp_path / "base.qcow2")
    image(tmp_path / "middle.qcow2", str(tmp_path / "base.qcow2"), "qcow2")
    (disk,) = examined([Disk("vda", "disk", "file", str(image(tmp_path / "top.qcow2", "middle.qcow2", "qcow2")), "qcow2", False)])
    assert disk.why_not is None
    assert disk.image is not None
    assert [Path(file).name for file in disk.image.files] == ["top.qcow2", "middle.qcow2", "base.qcow2"]


@pytest.mark.parametrize(("encryption", "features", "says"), [(LUKS, 0, "LUKS"), (1, 0, "AES"), (0, DATA_FILE, "external data file")])
def test_what_an_overlay_must_not_be_laid_on_is_found_in_the_file_and_below(
    tmp_path: Path, encryption: int, features: int, says: str
) -> None:
    below = image(tmp_path / "below.qcow2", encryption=encryption, features=features)
    assert says in (why_not(below) or "")
    found = why_not(image(tmp_path / "top.qcow2", str(below), "qcow2"))
    assert found is not None
    assert says in found
    assert str(below) in found


def test_raw_luks_below_is_found_by_the_format_that_the_header_names(tmp_path: Path) -> None:
    (tmp_path / "base.luks").write_bytes(b"LUKS\xba\xbe" + bytes(600))
    assert "LUKS" in (why_not(image(tmp_path / "top.qcow2", str(tmp_path / "base.luks"), "luks")) or "")


@pytest.mark.parametrize("content", [b"LUKS\xba\xbe" + bytes(600), qcow2_header(encryption=LUKS), qcow2_header(below="/etc/shadow")])
def test_what_the_guest_wrote_on_its_raw_disk_is_its_own_matter(tmp_path: Path, content: bytes) -> None:
    """A guest that encrypts its disk by itself, or keeps an image on it, loses nothing by an overlay."""
    raw = tmp_path / "disk.raw"
    raw.write_bytes(content)
    (disk,) = examined([Disk("vda", "disk", "file", str(raw), "raw", False)])
    assert disk.why_not is None
    assert disk.image is not None
    assert disk.image.files == (str(raw),)


def test_a_file_that_is_not_what_it_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(4096))
    assert why_not(tmp_path / "disk") == disk_images.NOT_QCOW2


def test_an_image_that_is_marked_as_corrupt(tmp_path: Path) -> None:
    assert why_not(image(tmp_path / "disk", features=CORRUPT)) == disk_images.MARKED_CORRUPT


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_at_all_is_not_waited_for(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "odd")
    assert why_not(tmp_path / "odd") == disk_images.NEITHER_FILE_NOR_DEVICE


def test_a_file_that_is_gone_is_told_by_who_makes_the_overlay(tmp_path: Path) -> None:
    assert why_not(tmp_path / "gone") is None


def test_a_chain_that_bites_its_tail_ends(tmp_path: Path) -> None:
    assert why_not(image(tmp_path / "a.qcow2", str(tmp_path / "a.qcow2"), "qcow2")) is None


def test_names_below_are_read_as_qemu_reads_them(tmp_path: Path) -> None:
    below = image(tmp_path / "b: a se.qcow2", encryption=LUKS)
    as_json = "json:" + json.dumps({"driver": "qcow2", "file": {"driver": "file", "filename": str(below)}})
    for name in (str(below), f"file:{below}", as_json, "json:" + json.dumps({"driver": "qcow2", "file.filename": str(below)})):
        assert "LUKS" in (why_not(image(tmp_path / "top.qcow2", name, "qcow2")) or ""), name
    for name in ("nbd://host/x", "json:{", "json:[]", "json:{}"):
        assert why_not(image(tmp_path / "top.qcow2", name, "qcow2")) is None, name


def test_a_definition_that_names_another_chain_than_the_files_do(tmp_path: Path) -> None:
    base, other = image(tmp_path / "base.qcow2"), image(tmp_path / "other.qcow2")
    top = image(tmp_path / "top.qcow2", "base.qcow2", "qcow2")
    (tmp_path / "link.qcow2").symlink_to(base)
    assert why_not(top, chain=(str(other),)) == disk_images.OTHER_CHAIN
    for named in (str(base), str(tmp_path / "link.qcow2"), "pool/volume", None):
        assert why_not(top, chain=(named,)) is None


def test_real_encrypted_images_of_old_are_known(tmp_path: Path) -> None:
    made = ["qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=k,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=k"]
    subprocess.run([*made, str(tmp_path / "aes.qcow2"), "1M"], check=True)
    assert "AES" in (why_not(tmp_path / "aes.qcow2") or "")


@pytest.mark.parametrize(
    "words",
    [
        DiskWords(shareable=True),
        DiskWords(transient=True),
        DiskWords(snapshot="no"),
        DiskWords(snapshot="manual"),
        DiskWords(encrypted=True),
        DiskWords(sliced=True),
        DiskWords(by_descriptor=True),
        DiskWords(has_data_store=True),
    ],
)
def test_what_the_definition_says_is_a_reason(tmp_path: Path, words: DiskWords) -> None:
    assert Disk("vda", "disk", "file", str(tmp_path / "a"), "qcow2", False, words=words).why_not


@pytest.mark.parametrize("snapshot", [None, "external", "internal"])
def test_what_the_definition_prefers_is_not_a_reason(tmp_path: Path, snapshot: str | None) -> None:
    """The snapshot that is asked for names its kind for each disk."""
    assert Disk("vda", "disk", "file", str(tmp_path / "a"), "qcow2", False, words=DiskWords(snapshot=snapshot)).why_not is None
