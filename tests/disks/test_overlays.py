"""Overlays: named after disk and job, made by the real qemu-img, and never made or removed over somebody's file."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.disks import overlays
from service.errors import OverlayPreparationFailed, SpaceInsufficient
from service.model.intent import Overlay
from service.model.inventory import Disk
from tests.fakes import FakeDisk, FakeDomain, FakeHost

JOB = "1a2b3c4d-0000-0000-0000-000000000000"


def disks_in(*sources: Path, image_format: str = "qcow2") -> list[Disk]:
    for source in sources:
        source.parent.mkdir(exist_ok=True, parents=True)
        source.touch()
    return [Disk(f"vd{letter}", "disk", "file", str(source), image_format, False) for letter, source in zip("abc", sources, strict=False)]


def planned(disks: list[Disk], attempt: int = 1, folder: Path | None = None) -> list[Overlay]:
    domain = FakeDomain("db1", [FakeDisk(disk.target, disk.source, size=1 << 20) for disk in disks])
    return overlays.plan(FakeHost(domain).guest("db1"), disks, JOB, attempt, folder)


def names(found: list[Overlay]) -> list[str]:
    return [Path(overlay.path).name for overlay in found]


def test_an_overlay_lies_beside_its_disk_and_is_named_after_it_and_the_job(tmp_path: Path) -> None:
    (overlay,) = planned(disks_in(tmp_path / "vm.qcow2"))
    assert overlay == Overlay("vda", str(tmp_path / "vm.qcow2"), "qcow2", str(tmp_path / "vm.1a2b3c4d.qcow2"), 1 << 20)


def test_a_later_attempt_has_names_of_its_own(tmp_path: Path) -> None:
    assert names(planned(disks_in(tmp_path / "vm.qcow2"), attempt=2)) == ["vm.1a2b3c4d-2.qcow2"]


@pytest.mark.parametrize("source", ["vm.ffffffff.qcow2", "vm.ffffffff-2.qcow2", "vm.raw"])
def test_names_do_not_grow_with_the_chain(tmp_path: Path, source: str) -> None:
    assert names(planned(disks_in(tmp_path / source))) == ["vm.1a2b3c4d.qcow2"]


def test_disks_of_one_name_in_two_folders_get_two_overlays_in_one_folder(tmp_path: Path) -> None:
    found = planned(disks_in(tmp_path / "system" / "vm.qcow2", tmp_path / "data" / "vm.qcow2"), folder=tmp_path)
    assert names(found) == ["vm.1a2b3c4d.qcow2", "vm-vdb.1a2b3c4d.qcow2"]
    overlays.create(found)


def test_what_is_made_is_a_qcow2_of_the_right_size_on_the_right_base(tmp_path: Path) -> None:
    found = planned(disks_in(tmp_path / "vm.raw", image_format="raw"))
    overlays.create(found)
    told = subprocess.run(["qemu-img", "info", "--output=json", found[0].path], check=True, capture_output=True, text=True)
    information = json.loads(told.stdout)
    assert (information["format"], information["virtual-size"]) == ("qcow2", 1 << 20)
    assert (information["backing-filename"], information["backing-filename-format"]) == (str(tmp_path / "vm.raw"), "raw")
    assert Path(found[0].path).stat().st_mode & 0o777 == 0o600


def test_all_are_made_or_none_and_a_file_that_is_there_stays(tmp_path: Path) -> None:
    found = planned(disks_in(tmp_path / "a.qcow2", tmp_path / "b.qcow2"))
    Path(found[1].path).write_text("precious")
    with pytest.raises(OverlayPreparationFailed) as refused:
        overlays.create(found)
    assert (refused.value.facts["path"], refused.value.facts["errno"]) == (found[1].path, "EEXIST")
    assert not Path(found[0].path).exists()
    assert Path(found[1].path).read_text() == "precious"


def test_what_qemu_img_says_is_in_the_error(tmp_path: Path) -> None:
    (good,) = planned(disks_in(tmp_path / "vm.qcow2"))
    bad = Overlay(good.target, good.base, "no-such-format", good.path, good.virtual_size)
    with pytest.raises(OverlayPreparationFailed, match="no-such-format"):
        overlays.create([bad])
    assert not Path(good.path).exists()


@pytest.mark.parametrize("is_dangling", [True, False])
def test_a_link_in_the_place_of_an_overlay_is_neither_followed_nor_removed(tmp_path: Path, is_dangling: bool) -> None:
    (overlay,) = planned(disks_in(tmp_path / "images" / "vm.qcow2"))
    aim = tmp_path / "shadow"
    if not is_dangling:
        aim.write_text("precious")
    before = aim.stat().st_uid if aim.exists() else None
    Path(overlay.path).symlink_to(aim)
    for make in (overlays.refuse_existing, overlays.create):
        with pytest.raises(OverlayPreparationFailed) as refused:
            make([overlay])
        assert refused.value.facts["errno"] == "EEXIST"
    assert Path(overlay.path).readlink() == aim
    assert (aim.stat().st_uid, aim.read_text()) == (before, "precious") if not is_dangling else not aim.exists()


def test_a_link_that_replaces_the_overlay_while_it_is_made_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (overlay,) = planned(disks_in(tmp_path / "images" / "vm.qcow2"))
    aim = tmp_path / "shadow"
    aim.write_text("precious")
    aim.chmod(0o640)
    run = subprocess.run

    def swap(command: list[str], **options: Any) -> Any:
        Path(overlay.path).unlink()
        Path(overlay.path).symlink_to(aim)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", swap)
    with pytest.raises(OverlayPreparationFailed) as refused:
        overlays.create([overlay])
    assert (refused.value.facts["path"], refused.value.facts["errno"]) == (overlay.path, "EEXIST")
    assert Path(overlay.path).readlink() == aim
    assert (aim.read_text(), aim.stat().st_mode & 0o777) == ("precious", 0o640)


def test_an_overlay_belongs_to_the_owner_of_its_base(tmp_path: Path) -> None:
    (overlay,) = planned(disks_in(tmp_path / "vm.qcow2"))
    # Only root can give a file away.
    owner = (64055, 108) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(overlay.base, *owner)
    overlays.create([overlay])
    made = Path(overlay.path).stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (*owner, 0o600)


def test_removing_what_was_never_made_is_no_error(tmp_path: Path) -> None:
    overlays.remove(planned(disks_in(tmp_path / "vm.qcow2")))


def test_an_overlay_survives_the_row_of_its_job(tmp_path: Path) -> None:
    (overlay,) = planned(disks_in(tmp_path / "vm.qcow2"))
    assert Overlay.from_document(json.loads(json.dumps(overlay.as_document()))) == overlay


def test_whether_a_disk_uses_an_overlay_is_said_only_where_it_is_known() -> None:
    overlay = Overlay("vda", "/base", "raw", "/overlay", 1)
    assert [overlay.is_in_use(source) for source in ("/overlay", "/base", "/a-third-file", None)] == [True, False, None, None]


def test_the_reserves_of_disks_on_one_file_system_add_up(tmp_path: Path) -> None:
    disks = disks_in(tmp_path / "a" / "a.qcow2", tmp_path / "b" / "b.qcow2")
    (space,) = overlays.spaces(disks, None, 1000)
    assert space.needed_bytes == 2000
    assert space.path == str(tmp_path / "a")
    overlays.check_space([space])


def test_too_little_space_is_an_error_with_both_numbers(tmp_path: Path) -> None:
    found = overlays.spaces(disks_in(tmp_path / "a.qcow2"), tmp_path, 1 << 62)
    with pytest.raises(SpaceInsufficient, match=str(1 << 62)):
        overlays.check_space(found)
