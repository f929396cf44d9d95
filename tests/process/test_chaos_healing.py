"""The judges of the rounds with a heal and with a copy: each is shown a sound round first, and then the breach that it is for."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.chaos.backups import copying, healing
from tests.chaos.backups import invariants as of_backups
from tests.chaos.backups.repository import Damage, LaneRepository
from tests.chaos.backups.struck import Struck

GOOD, DAMAGED = b"good", b"gooe"


def kinds(breaches: Any) -> list[str]:
    return [breach.kind for breach in breaches]


class Lane(LaneRepository):
    """A repository without a service: the states of its points are what a test says."""

    def __init__(self, path: Path) -> None:
        self.file = path / "vda.qcow2"
        self.file.write_bytes(DAMAGED)
        self.damage = Damage(self.file, "some bits", GOOD)
        self.states = {"bad": "damaged", "above": "damaged", "other": "sealed"}

    def point(self, point_id: str) -> dict[str, Any]:
        return {"state": self.states[point_id]}

    def nobodys(self) -> list[str]:
        return []

    def nobodys_in_state_folder(self) -> list[str]:
        return []


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    return Lane(tmp_path)


def untrue(lane: Lane, state: str) -> list[str]:
    points = [{"id": point_id, "folder": point_id} for point_id in lane.states]
    return kinds(healing._untrue(lane, points, {"bad", "above"}, {"state": state, "error": None}))


def test_the_damaged_file_and_the_good_one_may_be_in_its_place_and_no_other(lane: Lane) -> None:
    for content, expected in ((DAMAGED, 0), (GOOD, 0), (b"", 1), (b"another", 1)):
        lane.file.write_bytes(content)
        assert len(kinds(healing._another_file(lane, lane.file, DAMAGED))) == expected, content
    lane.file.unlink()
    assert kinds(healing._another_file(lane, lane.file, DAMAGED)) == ["points_unrestorable"]


def test_what_is_not_healed_is_damaged_with_all_that_stands_on_it_and_nothing_else(lane: Lane) -> None:
    assert untrue(lane, "failed") == []
    assert untrue(lane, "succeeded") == ["stories_untrue"]
    lane.states["above"] = "sealed"
    assert untrue(lane, "failed") == ["points_unrestorable"]
    lane.states |= {"above": "damaged", "other": "damaged"}
    assert untrue(lane, "failed") == ["stories_untrue"]


def test_what_is_healed_is_good_again(lane: Lane) -> None:
    lane.file.write_bytes(GOOD)
    assert untrue(lane, "succeeded") == ["stories_untrue"] * 2
    lane.states |= {"bad": "sealed", "above": "sealed"}
    assert untrue(lane, "succeeded") == []


def test_a_heal_is_cancelled_only_where_that_was_asked() -> None:
    def breaches(state: str, *, asks: bool) -> list[str]:
        strike = SimpleNamespace(asks_to_cancel=asks)
        return kinds(healing._cancelled_unasked(cast(Struck, SimpleNamespace(job={"state": state}, strike=strike, fault="heal_nothing"))))

    assert breaches("failed", asks=False) == breaches("cancelled", asks=True) == []
    assert breaches("cancelled", asks=False) == ["stories_untrue"]


def test_a_file_that_nobody_owns_is_counted(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kinds(of_backups.nobodys(lane)) == []
    monkeypatch.setattr(lane, "nobodys", lambda: ["domains/d/.partial-x"])
    monkeypatch.setattr(lane, "nobodys_in_state_folder", lambda: [".room.7"])
    assert kinds(of_backups.nobodys(lane)) == ["files_of_nobody"] * 2


# --- copies -----------------------------------------------------------------------------------------


class Listed(copying._Copy):
    """A copy on which a service has listed the one point as whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def whole(self) -> list[dict[str, Any]]:
        return [{"recovery_point": "p", "folder": "domains/d/p", "state": "whole"}]


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of a point: in the repository, and on the copy."""
    both = tmp_path / "repository" / "domains" / "d" / "p", tmp_path / "copy" / "domains" / "d" / "p"
    files = [{"name": "vda.qcow2", "sha256": hashlib.sha256(GOOD).hexdigest()}]
    for folder in both:
        folder.mkdir(parents=True)
        (folder / "vda.qcow2").write_bytes(GOOD)
        (folder / "manifest.json").write_text(json.dumps({"files": files}))
    return both


def another(places: tuple[Path, Path]) -> list[str]:
    here, there = (folder.parents[2] for folder in places)
    return kinds(Listed(there).another_content(cast(LaneRepository, SimpleNamespace(path=here))))


def test_a_point_that_is_whole_on_the_copy_has_the_bytes_of_the_repository(places: tuple[Path, Path]) -> None:
    here, there = places
    assert another(places) == []
    (there / "vda.qcow2").write_bytes(DAMAGED)
    assert set(another(places)) == {"points_unrestorable"}
    (there / "vda.qcow2").write_bytes(GOOD)
    (here / "another.file").touch()
    assert another(places) == ["points_unrestorable"]


def test_a_point_that_was_pruned_or_merged_here_is_what_was_sent(places: tuple[Path, Path]) -> None:
    here, there = places
    (here / "manifest.json").write_text(json.dumps({"files": []}))
    assert another(places) == []
    for file in here.iterdir():
        file.unlink()
    here.rmdir()
    assert another(places) == []
    (there / "vda.qcow2").unlink()
    assert another(places) == ["points_unrestorable"]


def test_a_draft_on_the_copy_is_nobodys(places: tuple[Path, Path]) -> None:
    copy = Listed(places[1].parents[2])
    assert kinds(copy.nobodys()) == []
    (places[1] / ".draft-7-ab").touch()
    assert kinds(copy.nobodys()) == ["files_of_nobody"]


def test_after_an_undisturbed_job_all_has_arrived(places: tuple[Path, Path]) -> None:
    copy = Listed(places[1].parents[2])
    for body in ({"action": "send"}, {"action": "fetch", "recovery_points": ["p"]}):
        assert kinds(copy.incomplete(body, [{"id": "p"}])) == []
    assert kinds(copy.incomplete({"action": "send"}, [{"id": "p"}, {"id": "q"}])) == ["points_unrestorable"]
    assert kinds(copy.incomplete({"action": "fetch", "recovery_points": ["q"]}, [{"id": "p"}])) == ["points_unrestorable"]


def test_a_file_of_the_repository_that_a_copy_has_changed_is_a_breach(places: tuple[Path, Path]) -> None:
    here = places[0].parents[2]
    repository = cast(LaneRepository, SimpleNamespace(path=here))
    before = copying._contents(here)
    (places[0] / "new.file").touch()
    assert kinds(copying._changed_here(repository, before)) == []
    (places[0] / "vda.qcow2").write_bytes(DAMAGED)
    assert kinds(copying._changed_here(repository, before)) == ["points_unrestorable"]
