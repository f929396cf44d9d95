"""The state of a TPM is replaced and put back whole, however often either is tried, and wherever it was cut off."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.engine import Database
from service.jobs.restore_tpm import TpmSwap
from tests.fakes.domain import RUNNING
from tests.jobs.restoring import RestoreScene
from tests.scenes.host import error_of


@pytest.fixture(autouse=True)
def _a_service_that_keeps_its_files_to_itself() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def swap_of(folder: Path, *, had_state: bool) -> TpmSwap:
    state = folder / "uuid" / "tpm2"
    if had_state:
        state.mkdir(parents=True)
        (state / "permall").write_text("old")
    return TpmSwap(str(state), f"{state}.mark.new", f"{state}.before-mark", had_state)


def stage(swap: TpmSwap) -> None:
    swap.stage(["tpm/permall"], lambda _name, path: Path(path).write_text("restored"))


def content(path: str) -> str | None:
    file = Path(path) / "permall"
    return file.read_text() if file.exists() else None


@pytest.mark.parametrize("had_state", [False, True])
def test_the_restored_state_takes_the_place_and_the_old_one_is_kept(tmp_path: Path, *, had_state: bool) -> None:
    swap = swap_of(tmp_path, had_state=had_state)
    stage(swap)
    assert content(swap.state) == ("old" if had_state else None)
    swap.put_in_place()
    swap.put_in_place()
    assert (content(swap.state), content(swap.old)) == ("restored", "old" if had_state else None)
    assert not Path(swap.staged).exists()


@pytest.mark.parametrize("was_put_in_place", [False, True])
@pytest.mark.parametrize("had_state", [False, True])
def test_taken_back_everything_is_as_before(tmp_path: Path, *, had_state: bool, was_put_in_place: bool) -> None:
    swap = swap_of(tmp_path, had_state=had_state)
    stage(swap)
    if was_put_in_place:
        swap.put_in_place()
    swap.take_back()
    swap.take_back()
    assert content(swap.state) == ("old" if had_state else None)
    assert [path.name for path in tmp_path.rglob("*") if "mark" in path.name] == []
    assert (tmp_path / "uuid").exists() is had_state


def test_a_state_is_not_touched_by_taking_back_a_restore_that_had_made_nothing_yet(tmp_path: Path) -> None:
    swap = swap_of(tmp_path, had_state=True)
    swap.take_back()
    assert content(swap.state) == "old"


def test_a_replacement_that_was_cut_off_in_the_middle_is_completed(tmp_path: Path) -> None:
    swap = swap_of(tmp_path, had_state=True)
    stage(swap)
    Path(swap.state).rename(swap.old)
    swap.put_in_place()
    assert (content(swap.state), content(swap.old)) == ("restored", "old")


def test_a_domain_that_was_started_with_the_restored_state_keeps_it_and_the_error_names_the_earlier_one(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = RestoreScene(sqlite_database, tmp_path)
    swap = swap_of(tmp_path / "swtpm", had_state=True)
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "permall").write_text("restored")
    scene.write_disk(2)
    point = scene.seal(tpm=saved)
    monkeypatch.setattr(TpmSwap, "of", lambda _definition, _mark: swap)
    scene.domain.when_next("define", scene.domain.start)
    job = scene.restore("in_place", point, start=True)
    assert (job.state, error_of(job)["code"]) == ("failed", "restore_refused")
    assert swap.old in error_of(job)["detail"]
    assert (content(swap.state), content(swap.old)) == ("restored", "old")
    assert (scene.domain.state_now, scene.domain.log.count("destroy")) == (RUNNING, 0)
    assert scene.new_files() == []
    scene.domain.shut_off()
    assert scene.domain.source("vda") == str(scene.disk_file)


def test_the_folder_of_a_new_domain_can_be_passed_by_the_user_of_swtpm(tmp_path: Path) -> None:
    swap = swap_of(tmp_path, had_state=False)
    stage(swap)
    assert stat.S_IMODE(Path(swap.state).parent.stat().st_mode) == 0o711
