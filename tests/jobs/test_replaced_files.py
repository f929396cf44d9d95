"""A file that somebody put where ours was is never removed as ours: not by the job, not by recovery, not by a guard or doctor."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.disks import file_identity, overlays, rehearsal
from service.errors import OverlayPreparationFailed, OverlayReplaced
from service.model.file_identity import FileIdentity
from service.model.intent import Overlay
from tests.disks.test_overlays import disks_in, planned
from tests.scenes.deaths import story
from tests.scenes.host import FREEZE, Scene, error_of, phases_of
from tests.worker.test_recovery import Corpse


@pytest.fixture
def made(tmp_path: Path) -> Overlay:
    (overlay,) = overlays.create(planned(disks_in(tmp_path / "vm.qcow2")))
    return overlay


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def moved_away(path: str | Path) -> Path:
    """Ours, under another name; the name is free."""
    return Path(path).rename(f"{path}.moved")


def replaced(path: str | Path, content: str = "precious") -> Path:
    moved_away(path)
    Path(path).write_text(content)
    return Path(path)


def test_what_was_made_is_known_and_removed(made: Overlay) -> None:
    assert made.made == FileIdentity.of(Path(made.path).stat())
    overlays.remove([made])
    assert not Path(made.path).exists()


def test_which_file_it_is_survives_the_row_of_the_job(made: Overlay) -> None:
    assert Overlay.from_document(json.loads(json.dumps(made.as_document()))) == made


def test_a_file_that_was_put_in_its_place_stays(made: Overlay) -> None:
    strange = replaced(made.path)
    with pytest.raises(OverlayReplaced) as refused:
        overlays.remove([made])
    assert (refused.value.facts["paths"], strange.read_text()) == (made.path, "precious")


def test_an_overlay_of_somebody_else_on_the_same_base_stays_too(made: Overlay) -> None:
    moved_away(made.path)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", made.base, "-F", "qcow2", made.path, "1M"], check=True)
    with pytest.raises(OverlayReplaced):
        overlays.remove([made])
    assert Path(made.path).exists()


@pytest.mark.parametrize("aim_is_ours", [True, False])
def test_so_does_a_link_whatever_it_points_at(made: Overlay, tmp_path: Path, aim_is_ours: bool) -> None:
    away = moved_away(made.path)
    Path(made.path).symlink_to(away if aim_is_ours else tmp_path / "nowhere")
    with pytest.raises(OverlayReplaced):
        overlays.remove([made])
    assert Path(made.path).is_symlink()
    assert away.exists()


def test_the_others_are_removed_all_the_same(tmp_path: Path) -> None:
    first, second = overlays.create(planned(disks_in(tmp_path / "a.qcow2", tmp_path / "b.qcow2")))
    replaced(first.path)
    with pytest.raises(OverlayReplaced) as refused:
        overlays.remove([first, second])
    assert refused.value.facts["paths"] == first.path
    assert not Path(second.path).exists()


def test_after_a_boot_the_number_of_the_device_says_nothing(made: Overlay) -> None:
    assert made.made is not None
    renumbered = replace(made, made=replace(made.made, device=made.made.device + 1))
    with pytest.raises(OverlayReplaced):
        overlays.remove([renumbered])
    assert renumbered.made is not None
    overlays.remove([replace(renumbered, made=replace(renumbered.made, boot="an-earlier-one"))])
    assert not Path(made.path).exists()


@pytest.mark.parametrize(
    ("content", "is_ours"), [(b"", True), (b"\0" * 512, True), (b"precious", False), (b"QFI\xfb", False), (None, True)]
)
def test_a_maker_that_died_before_it_could_tell_left_a_file_that_shows_it(made: Overlay, content: bytes | None, is_ours: bool) -> None:
    """None: a whole overlay."""
    if content is not None:
        Path(made.path).write_bytes(content)
    untold = replace(made, made=None)
    if is_ours:
        overlays.remove([untold])
    else:
        with pytest.raises(OverlayReplaced):
            overlays.remove([untold])
    assert Path(made.path).exists() == (not is_ours)


def test_an_overlay_on_another_base_is_not_what_such_a_maker_left(made: Overlay) -> None:
    with pytest.raises(OverlayReplaced):
        overlays.remove([replace(made, made=None, base="/another/base.qcow2")])
    assert Path(made.path).exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_neither_waited_for_nor_removed(made: Overlay, make: Any) -> None:
    moved_away(made.path)
    make(made.path)
    with pytest.raises(OverlayReplaced):
        overlays.remove([replace(made, made=None)])
    assert Path(made.path).exists()


# --- a job ----------------------------------------------------------------------------------------


def test_a_job_whose_overlay_was_replaced_before_its_window_freezes_nothing_and_says_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "must_work", lambda guest, user, made: replaced(made[0].path))
    job = scene.run()
    assert (job.state, error_of(job)["code"]) == ("failed", OverlayPreparationFailed.code)
    assert FREEZE not in scene.domain.log
    (strange,) = [path for path in scene.images.iterdir() if path.read_bytes() == b"precious"]
    assert ("evaluate", "warning") in phases_of(job)
    assert strange.name in str([phase["detail"] for phase in job.phases])


def test_recovery_leaves_a_file_that_it_finds_in_the_place_of_an_overlay(scene: Scene) -> None:
    corpse = Corpse(scene)
    corpse.left(will_freeze=False)
    strange = scene.images / corpse.overlays[0]
    strange.write_text("precious")
    job = corpse.recover()
    assert strange.read_text() == "precious"
    assert str(strange) in story(job)
    assert not (scene.images / corpse.overlays[1]).exists()


# --- others of the kind ---------------------------------------------------------------------------


def test_a_probe_is_removed_only_where_it_is_the_one_that_was_made(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.touch()
    made = FileIdentity.of(probe.stat())
    replaced(probe)
    file_identity.unlink(probe, made)
    assert probe.read_text() == "precious"
    probe.unlink()
    (tmp_path / "probe.moved").rename(probe)
    file_identity.unlink(probe, made)
    file_identity.unlink(probe, made)
    assert not probe.exists()
