"""The judges of the rounds with backups: each is shown a sound round first, and then the breach that it is for."""

import hashlib
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.chaos.__main__ import _named
from tests.chaos.backups import backing_up, invariants
from tests.chaos.backups.repository import LaneRepository, Moment
from tests.chaos.faults import FAULTS, Strike
from tests.chaos.invariants import Breach
from tests.chaos.rounds import fault_of
from tests.chaos.stage import Stage
from tests.lab import disks
from tests.lab.command import run
from tests.lab.console import Stall

LIMIT_MS = 1_500.0
MB = 1 << 20
NEWEST = 20


def stalls(*spans_ms: float) -> list[Stall]:
    return [Stall(at_ms=place, ms=ms, mount="/data", call="fdatasync") for place, ms in enumerate(spans_ms)]


def job(state: str = "succeeded", windows: int = 1, **more: Any) -> dict[str, Any]:
    phases = [{"name": "preflight"}, *({"name": "freeze"} for _ in range(windows))]
    return {"id": "j", "state": state, "verdict": "filesystem", "error": None, "phases": phases, **more}


def kinds(breaches: Any) -> list[str]:
    return [breach.kind for breach in cast("list[Breach]", list(breaches))]


# --- the guest ------------------------------------------------------------------------------------


def test_one_hold_for_each_window_is_allowed_and_nothing_long_beyond() -> None:
    assert kinds(invariants.guest_hurt(stalls(20, 1_400, 30), job(), LIMIT_MS, 0)) == []
    assert kinds(invariants.guest_hurt(stalls(3_000, 1_900), job(), LIMIT_MS, 0)) == []
    assert kinds(invariants.guest_hurt(stalls(3_000, 2_900), job(), LIMIT_MS, 0)) == ["guests_hurt"]
    assert kinds(invariants.guest_hurt(stalls(3_000, 2_900), job(windows=2), LIMIT_MS, 0)) == []


def test_a_hold_beyond_every_deadline_is_not_explained_by_a_window() -> None:
    assert kinds(invariants.guest_hurt(stalls(8_000), job(), LIMIT_MS, 0)) == ["guests_hurt"]
    assert kinds(invariants.guest_hurt(stalls(8_000), job(), LIMIT_MS, obstacle_s=6.0)) == []


def test_a_job_without_a_window_explains_no_hold() -> None:
    assert kinds(invariants.guest_hurt(stalls(100), job(windows=0), 0, 0)) == []
    assert kinds(invariants.guest_hurt(stalls(2_500), job(windows=0), 0, 0)) == ["guests_hurt"]


def test_a_moment_of_pause_hurts() -> None:
    assert kinds(invariants.guest_paused(0)) == []
    assert kinds(invariants.guest_paused(1)) == ["guests_hurt"]


# --- the points -----------------------------------------------------------------------------------


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """A folder with a disk and what the manifest tells of it; signatures are the business of the service's own command."""
    folder = tmp_path / "point"
    folder.mkdir()
    raw, written = tmp_path / "raw", tmp_path / "meter.dat"
    disks.make_ext4(raw, mb=16, label="data")
    written.write_bytes(b"".join(f"SEQ {number:020}\n".encode().ljust(4096, b".") for number in range(1, NEWEST + 1)))
    run(["debugfs", "-w", "-R", f"write {written} meter.dat", raw])
    run(["qemu-img", "convert", "-O", "qcow2", raw, folder / "vda.qcow2"])
    tell(folder)
    return folder


def tell(folder: Path) -> None:
    raw = folder.parent / "raw"
    run(["qemu-img", "convert", "-O", "raw", folder / "vda.qcow2", raw])
    told = {"disks": [{"target": "vda", "file": "vda.qcow2", "content": invariants.content_of(raw)}]}
    (folder / "manifest.json").write_text(json.dumps(told))


def bad(folder: Path, moment: Moment | None = None) -> list[str]:
    return list(invariants._content_bad(folder, "filesystem", moment))


def test_a_point_whose_bytes_are_not_what_its_manifest_says_is_unrestorable(point: Path) -> None:
    assert bad(point) == []
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 8M 64k", point / "vda.qcow2"])
    assert len(bad(point)) == 1


def test_a_point_that_lacks_a_write_from_before_its_job_is_unrestorable(point: Path) -> None:
    assert bad(point, Moment(NEWEST)) == []
    assert len(bad(point, Moment(NEWEST + 1))) == 1


def test_a_point_without_its_disk_is_unrestorable(point: Path) -> None:
    (point / "vda.qcow2").unlink()
    assert len(bad(point)) == 1


def test_a_point_that_the_command_for_evidence_refuses_is_unrestorable(point: Path) -> None:
    assert len(list(invariants._evidence_bad(point))) == 1


def test_content_is_the_digest_of_the_digests_of_each_mib(tmp_path: Path) -> None:
    raw, blocks = tmp_path / "raw", [random.Random(1).randbytes(MB), b"short"]
    raw.write_bytes(b"".join(blocks))
    digests = b"".join(hashlib.sha256(block).digest() for block in blocks)
    assert invariants.content_of(raw) == hashlib.sha256(digests).hexdigest()


# --- the story ------------------------------------------------------------------------------------


class Listed:
    """A repository that answers what a test says."""

    def __init__(self, *folders: str, published: set[str] | None = None, job_id: str = "j") -> None:
        self._points = [{"folder": folder, "job_id": job_id} for folder in folders]
        self._published = set(folders) if published is None else published

    def points(self) -> list[dict[str, Any]]:
        return self._points

    def published(self) -> set[str]:
        return self._published


STAGE = cast(Stage, SimpleNamespace(is_running=lambda: False))


def untrue(repository: Listed, told: dict[str, Any]) -> list[str]:
    return kinds(invariants.story_untrue(STAGE, cast(LaneRepository, repository), told))


def test_a_backup_that_succeeded_has_one_point_on_record() -> None:
    assert untrue(Listed("a"), job()) == []
    assert untrue(Listed(), job()) == ["stories_untrue"]
    assert untrue(Listed("a", "b"), job()) == ["stories_untrue"]
    assert untrue(Listed("a"), job(verdict="crash")) == ["stories_untrue"]


def test_a_failure_has_an_error_and_only_a_failure() -> None:
    error = {"code": "repository_full"}
    assert untrue(Listed(), job("failed", error=error)) == []
    assert untrue(Listed(), job("failed")) == ["stories_untrue"]
    assert untrue(Listed("a"), job(error=error)) == ["stories_untrue"]
    assert untrue(Listed(), job("running")) == ["stories_untrue"]


def test_what_is_published_is_on_record_and_what_is_on_record_is_there() -> None:
    def breaches(repository: Listed) -> list[str]:
        return kinds(invariants.unlisted(cast(LaneRepository, repository)))

    assert breaches(Listed("a")) == []
    assert breaches(Listed("a", published={"a", "b"})) == ["stories_untrue"]
    assert breaches(Listed("a", "b", published={"a"})) == ["stories_untrue"]


def test_an_undisturbed_job_succeeds_and_only_a_cancel_cancels() -> None:
    def breaches(state: str, fault: str, *, asks: bool = False) -> list[str]:
        return kinds(backing_up.allowed(job(state), fault, cast(Strike, SimpleNamespace(asks_to_cancel=asks))))

    assert breaches("succeeded", "backup_nothing") == []
    assert breaches("failed", "backup_nothing") == ["stories_untrue"]
    assert breaches("failed", "backup_repository_full") == []
    assert breaches("cancelled", "backup_cancelled", asks=True) == []
    assert breaches("cancelled", "backup_repository_full") == ["stories_untrue"]


# --- damages, and which rounds are played ---------------------------------------------------------


def test_a_damaged_file_is_another_one_and_is_mended_whole(point: Path, tmp_path: Path) -> None:
    repository = LaneRepository.__new__(LaneRepository)
    vars(repository).update(damage=None, _stage=SimpleNamespace(note=lambda _text: None), _storage=SimpleNamespace(path=tmp_path))
    repository.points = lambda: [{"folder": "point"}]  # type: ignore[method-assign]  # the service that would list it is not there
    whole = {file.name: file.read_bytes() for file in point.iterdir()}
    for damage in (repository.flip_byte, repository.truncate):
        damage(random.Random(3))
        changed = [name for name, content in whole.items() if (point / name).read_bytes() != content]
        assert changed == ["vda.qcow2"]
        assert (repository.mend(), repository.mend()) == (True, False)
        assert {file.name: file.read_bytes() for file in point.iterdir()} == whole


def test_the_beginnings_of_names_choose_the_faults_of_a_run() -> None:
    chosen = _named("backup_,restore_,verify_,prune_,merge_,heal_,copy_")
    assert {FAULTS[name].plays for name in chosen} == {"backup", "restore", "verify", "prune", "merge", "heal", "copy"}
    assert {name for name in FAULTS if FAULTS[name].plays != "snapshot"} == set(chosen)
    assert {fault_of(5, number, chosen) for number in range(6_000)} == set(chosen)
    with pytest.raises(Exception, match="no_such"):
        _named("no_such")
