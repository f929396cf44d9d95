"""Damage is put on every point that it spoils: the one whose file is bad, and all that stand on it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.db.engine import Database
from service.model.proofs import KEPT_OF_EACH_KIND, Proof, is_known_bad
from service.model.repository import ProofKind
from service.records import damage, points
from tests.records.test_sealed_points import add_points
from tests.scenes.documents import stale_texts
from tests.scenes.repositories import DB1, add_repository, id_of_point

NOW = datetime(2026, 2, 2, tzinfo=UTC)
NAMES = ("full1", "inc1", "top1", "full2")


@pytest.fixture
def nas(database: Database) -> str:
    with database.write() as session:
        nas = add_repository(session).id
    add_points(database, nas, "full1 inc1 top1", "full2")
    return nas


def note(database: Database, read: str, place: str, *, at: datetime = NOW) -> None:
    with database.write() as session:
        point = points.get(session, id_of_point(read))
        proof = Proof(ProofKind.bytes, ok=False, facts={"reason": "one byte"})
        damage.put_on_record(session, point, [place], proof, now=at, facts={"by": "a test"})


def damaged(database: Database) -> list[str]:
    with database.read() as session:
        rows = {name: points.get(session, id_of_point(name)) for name in NAMES}
    assert all((row.state == "damaged") is any(not proof["ok"] for proof in row.proofs or ()) for row in rows.values())
    assert stale_texts(database) == []
    return [name for name, row in rows.items() if row.state == "damaged"]


def folder_of(database: Database, name: str) -> str:
    with database.read() as session:
        return str(points.get(session, id_of_point(name)).folder)


@pytest.mark.parametrize("read", ["full1", "inc1", "top1"])
@pytest.mark.parametrize("root", ["", "/srv/nas/"])
def test_a_bad_file_of_the_full_point_spoils_all_that_stand_on_it(database: Database, nas: str, read: str, root: str) -> None:
    note(database, read, f"{root}{folder_of(database, 'full1')}/vda.qcow2")
    assert damaged(database) == ["full1", "inc1", "top1"]


def test_a_bad_file_of_an_increment_does_not_spoil_what_is_below_it(database: Database, nas: str) -> None:
    note(database, "top1", f"{folder_of(database, 'inc1')}/vda.qcow2")
    assert damaged(database) == ["inc1", "top1"]


def test_a_point_that_is_named_by_its_id_is_to_blame(database: Database, nas: str) -> None:
    note(database, "top1", id_of_point("inc1"))
    assert damaged(database) == ["inc1", "top1"]


@pytest.mark.parametrize("place", ["", "elsewhere/vda.qcow2", "full2"])
def test_what_is_not_in_the_chain_is_the_fault_of_the_point_that_was_read(database: Database, nas: str, place: str) -> None:
    note(database, "inc1", folder_of(database, place) if place in NAMES else place)
    assert damaged(database) == ["inc1", "top1"]


def test_the_proof_of_each_point_says_what_is_to_blame(database: Database, nas: str) -> None:
    note(database, "top1", f"{folder_of(database, 'inc1')}/vda.qcow2")
    with database.read() as session:
        facts: dict[str, Any] = {name: (points.get(session, id_of_point(name)).proofs or [])[0]["facts"] for name in ("inc1", "top1")}
    assert facts["inc1"] == {"reason": "one byte", "found_in_chain_of": id_of_point("top1")}
    assert facts["top1"] == {"reason": "one byte", "damaged_below": [id_of_point("inc1")]}


def test_no_point_that_needs_the_bad_one_is_good_or_becomes_a_parent(database: Database, nas: str) -> None:
    note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2")
    with database.read() as session:
        assert points.next_good(session, points.get(session, id_of_point("top1"))) == id_of_point("full2")
        last = points.last_sealed(session, DB1, nas)
        assert last is not None
        assert last.id == id_of_point("full2")


def test_a_good_read_of_the_chain_takes_back_what_an_earlier_read_said_of_the_points_below(database: Database, nas: str) -> None:
    note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2")
    assert good(database, "inc1") == ["full1", "inc1", "top1"]
    assert [state(database, name) for name in NAMES] == ["sealed"] * 4


def test_a_good_read_of_the_chain_does_not_take_back_what_a_read_of_the_point_itself_said(database: Database, nas: str) -> None:
    note(database, "full1", f"{folder_of(database, 'full1')}/vda.qcow2")
    assert good(database, "inc1") == ["inc1"]
    assert state(database, "full1") == "damaged"


def test_a_read_that_began_before_damage_was_found_does_not_take_that_back(database: Database, nas: str) -> None:
    """The file was altered behind the place that this read had passed, and another read found that meanwhile."""
    note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2")
    assert good(database, "inc1", begun=NOW - timedelta(minutes=5)) == []
    assert [state(database, name) for name in NAMES] == ["damaged", "damaged", "damaged", "sealed"]
    with database.read() as session:
        last = (points.get(session, id_of_point("inc1")).proofs or [])[-1]
    assert (last["ok"], last["facts"]["damage_found_meanwhile"]) == (None, True)


def test_a_read_does_not_take_back_what_was_found_of_a_point_below_since_it_began(database: Database, nas: str) -> None:
    note(database, "full1", f"{folder_of(database, 'full1')}/vda.qcow2", at=NOW - timedelta(hours=2))
    assert good(database, "top1", begun=NOW - timedelta(hours=1)) == ["inc1", "top1"]
    note(database, "inc1", f"{folder_of(database, 'full1')}/vda.qcow2")
    assert good(database, "top1", begun=NOW - timedelta(minutes=5)) == []
    assert state(database, "full1") == "damaged"


def test_the_last_word_on_a_point_outlives_all_proofs_that_could_tell_nothing(database: Database, nas: str) -> None:
    note(database, "full1", f"{folder_of(database, 'full1')}/vda.qcow2")
    with database.write() as session:
        for _ in range(3 * KEPT_OF_EACH_KIND):
            points.add_proofs(session, id_of_point("full1"), [Proof(ProofKind.bytes, ok=None)], NOW)
        proofs = points.get(session, id_of_point("full1")).proofs
    assert is_known_bad(proofs)
    assert len(proofs or ()) == KEPT_OF_EACH_KIND + 1


def good(database: Database, read: str, *, begun: datetime = NOW + timedelta(hours=1)) -> list[str]:
    names = {id_of_point(name): name for name in NAMES}
    with database.write() as session:
        point = points.get(session, id_of_point(read))
        again = damage.take_back(session, point, Proof(ProofKind.bytes, ok=True), begun=begun, now=NOW, facts={})
    return sorted(names[point_id] for point_id in again)


def state(database: Database, name: str) -> str:
    with database.read() as session:
        return points.get(session, id_of_point(name)).state


# --- a read that found damage elsewhere in the chain ------------------------------------------------


def good_below(database: Database, read: str, *bad: str, begun: datetime = NOW + timedelta(hours=1), **facts: Any) -> list[str]:
    names = {id_of_point(name): name for name in NAMES}
    with database.write() as session:
        point = points.get(session, id_of_point(read))
        proof = Proof(ProofKind.bytes, ok=False, facts=facts)
        again = damage.take_back_below(session, point, list(bad), proof, begun=begun, now=NOW, facts={})
    return sorted(names[point_id] for point_id in again)


def test_what_was_healed_below_is_good_again_also_where_the_point_that_was_read_is_not(database: Database, nas: str) -> None:
    """As an earlier read of the same chain found both to be bad."""
    with database.write() as session:
        point = points.get(session, id_of_point("top1"))
        places = [f"{points.get(session, id_of_point(name)).folder}/vda.qcow2" for name in ("full1", "top1")]
        damage.put_on_record(session, point, places, Proof(ProofKind.bytes, ok=False), now=NOW, facts={})
    healed = [{"file": "vda.qcow2"}]
    assert good_below(database, "top1", folder_of(database, "top1"), healed=healed) == ["full1", "inc1"]
    assert [state(database, name) for name in NAMES] == ["sealed", "sealed", "damaged", "sealed"]
    with database.read() as session:
        last = (points.get(session, id_of_point("full1")).proofs or [])[-1]
    assert (last["ok"], last["facts"]) == (True, {"found_in_chain_of": id_of_point("top1"), "healed": healed})


def test_a_point_that_stands_on_a_bad_one_is_not_good(database: Database, nas: str) -> None:
    note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2")
    assert good_below(database, "top1", folder_of(database, "full1")) == []


@pytest.mark.parametrize("place", ["", "elsewhere/vda.qcow2"])
def test_a_fault_at_an_unknown_place_leaves_all_as_they_are(database: Database, nas: str, place: str) -> None:
    note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2")
    assert good_below(database, "top1", folder_of(database, "top1"), place) == []


def test_a_read_of_its_own_and_a_newer_read_are_not_overruled_from_above(database: Database, nas: str) -> None:
    note(database, "full1", f"{folder_of(database, 'full1')}/vda.qcow2")
    assert good_below(database, "top1", folder_of(database, "top1")) == ["inc1"]
    note(database, "top1", f"{folder_of(database, 'inc1')}/vda.qcow2")
    assert good_below(database, "top1", folder_of(database, "top1"), begun=NOW - timedelta(minutes=5)) == []
