"""Some rounds of `python -m tests.kills`, and its judges: each is shown a sound yard first, and then the breach that it is for."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from service.db.tables import RecoveryPoint
from tests import nobodys_files
from tests.kills import judges
from tests.kills.__main__ import as_document, play
from tests.kills.plays import PLAYS
from tests.kills.yard import Yard
from tests.repository.damages import flips_a_bit

ROUNDS = 6


@pytest.mark.timeout(300)
def test_no_kill_in_a_prune_merge_heal_or_copy_costs_a_point_or_leaves_a_file(tmp_path: Path) -> None:
    outcomes = play(tmp_path, 11, range(ROUNDS))
    assert [breach for outcome in outcomes for breach in outcome.breaches] == []
    document = as_document(11, outcomes, 0)
    assert document["rounds"] == ROUNDS
    assert document["kills"] > 0
    assert set(document["by_kind"]) <= set(PLAYS)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    """Its worker is not started."""
    yard = Yard(tmp_path, random.Random(1))
    yard.seal()
    yard.seal(is_full=False)
    yield yard
    yard.database.dispose()


@pytest.fixture
def newest(yard: Yard) -> Path:
    return yard.folder(list(yard.on_record())[-1])


def judged(yard: Yard, judge: Callable[[Yard], Iterator[str]]) -> int:
    return len(list(judge(yard)))


def test_a_bit_of_any_file_makes_a_point_that_is_listed_as_good_a_breach(yard: Yard, newest: Path) -> None:
    assert judged(yard, judges.listed_as_good_and_is_not) == 0
    for file in [file for file in newest.iterdir() if file.is_file()]:
        flips_a_bit(file, file.stat().st_size // 2)
        assert judged(yard, judges.listed_as_good_and_is_not) > 0, file.name
        flips_a_bit(file, file.stat().st_size // 2)
    assert judged(yard, judges.listed_as_good_and_is_not) == 0


def test_a_guest_that_would_see_something_else_is_a_breach(yard: Yard) -> None:
    newest = list(yard.seen)[-1]
    yard.seen[newest] = "another digest"
    assert judged(yard, judges.listed_as_good_and_is_not) == 1


def test_a_point_that_is_away_is_lost_and_one_that_is_not_on_record_is_unlisted(yard: Yard, newest: Path) -> None:
    kept = list(yard.on_record())
    assert list(judges.lost(yard, kept)) == list(judges.unlisted(yard)) == []
    newest.rename(newest.with_name(".removed-x"))
    assert (len(list(judges.lost(yard, kept))), judged(yard, judges.unlisted)) == (1, 1)
    newest.with_name(".removed-x").rename(newest)
    with yard.database.write() as session:
        session.execute(delete(RecoveryPoint).where(RecoveryPoint.id == kept[-1]))
    assert (len(list(judges.lost(yard, kept))), judged(yard, judges.unlisted)) == (1, 1)


def test_a_good_point_that_is_called_damaged_is_lost(yard: Yard) -> None:
    newest = list(yard.on_record())[-1]
    assert list(judges.lost(yard, [newest])) == []
    with yard.database.write() as session:
        session.execute(update(RecoveryPoint).where(RecoveryPoint.id == newest).values(state="damaged"))
    assert len(list(judges.lost(yard, [newest]))) == 1


@pytest.mark.parametrize(
    "name", ["repository/strange", "repository/keys/x.tmp", "copy/.draft-1-a", "state/.room.7", "state/backups/j/nvram"]
)
def test_a_file_that_nobody_owns_is_a_breach(yard: Yard, tmp_path: Path, name: str) -> None:
    assert judged(yard, judges.nobodys) == 0
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert judged(yard, judges.nobodys) == 1


def test_a_strange_file_in_the_folder_of_a_point_is_nobodys_and_one_that_a_sweep_removes_is_not(yard: Yard, newest: Path) -> None:
    left = newest.with_name(f".removed-{newest.name}")
    left.mkdir()
    (left / "vda.qcow2").touch()
    assert nobodys_files.in_repository(yard.sealed.path) != []
    assert judged(yard, judges.nobodys) == 0
    assert not left.exists()
    (newest / "vda.done.json").touch()
    assert judged(yard, judges.nobodys) == 1


def test_what_runs_owns_its_folder_in_the_state_folder(tmp_path: Path) -> None:
    for name in ("guards/j.json", "backups/j/nvram", "backups/j/tpm/2/permall", "stillpoint.db-wal", "worker-hv1.lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert nobodys_files.in_state_folder(tmp_path, ["j"]) == []
    assert len(nobodys_files.in_state_folder(tmp_path)) == 3
