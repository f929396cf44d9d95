"""An overlay is removed when no program has it open and no guest wrote to it."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from service.disks import overlays
from service.errors import OverlayInUse
from service.model.intent import Overlay
from tests.disks.test_at_rest import held_open
from tests.fakes.qemu import guest_writes, lock
from tests.scenes.host import qcow2_header


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    base = tmp_path / "vm.qcow2"
    base.write_bytes(qcow2_header())
    (made,) = overlays.create([Overlay("vda", str(base), "qcow2", str(tmp_path / "vm.1a2b3c4d.qcow2"), 1 << 30)])
    return made


def assert_stays(overlay: Overlay) -> str:
    with pytest.raises(OverlayInUse) as left:
        overlays.remove([overlay])
    assert left.value.facts["paths"] == overlay.path
    assert Path(overlay.path).exists()
    return str(left.value.facts["reason"])


def test_one_that_a_program_writes_to_stays(overlay: Overlay) -> None:
    with held_open(Path(overlay.path), "r+b") as pid:
        assert str(pid) in assert_stays(overlay)
    overlays.remove([overlay])
    assert not Path(overlay.path).exists()


def test_one_that_a_qemu_has_below_another_file_stays(overlay: Overlay) -> None:
    with held_open(Path(overlay.path), "rb", "-uuid", "any"):
        assert_stays(overlay)


def test_one_that_is_open_under_another_name_stays(overlay: Overlay, tmp_path: Path) -> None:
    (tmp_path / "other").hardlink_to(overlay.path)
    with held_open(tmp_path / "other", "r+b"):
        assert_stays(overlay)


def test_one_that_is_locked_by_a_program_that_is_not_seen_stays(overlay: Overlay) -> None:
    descriptor = lock(overlay.path, is_written=False)
    assert_stays(overlay)
    os.close(descriptor)
    overlays.remove([overlay])


def test_one_that_a_guest_wrote_to_stays_unless_its_data_was_merged(overlay: Overlay) -> None:
    guest_writes(overlay.path)
    assert_stays(overlay)
    overlays.remove([overlay], were_merged=True)
    assert not Path(overlay.path).exists()


@pytest.mark.parametrize("reader", [lambda path: held_open(path, "rb"), nullcontext], ids=["read by a backup", "closed"])
def test_others_are_removed(overlay: Overlay, reader: Callable[[Path], AbstractContextManager[object]]) -> None:
    with reader(Path(overlay.path)):
        overlays.remove([overlay])
    assert not Path(overlay.path).exists()
