"""A point that was damaged only by points below it is good again when all of those are."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from service.clock import rfc3339
from service.db.engine import Database
from service.model.lifecycle import PointState
from service.model.proofs import KEPT_OF_EACH_KIND, Proof
from service.model.repository import ProofKind
from service.records import damage, points
from tests.records.test_damage import NAMES, NOW, folder_of, nas, state
from tests.records.test_events import read
from tests.scenes.documents import stale_texts
from tests.scenes.repositories import id_of_point

LATER = NOW + timedelta(hours=1)
BAD = Proof(ProofKind.bytes, ok=False, facts={"reason": "one byte"})

__all__ = ["nas"]


def note(database: Database, read: str, place: str, kind: ProofKind = ProofKind.bytes) -> None:
    with database.write() as session:
        point = points.get(session, id_of_point(read))
        damage.put_on_record(session, point, [place], replace(BAD, kind=kind), now=NOW, facts={"by": "a test"})


def good(database: Database, read: str, kind: ProofKind = ProofKind.bytes, begun: datetime = LATER) -> list[str]:
    """A read of the point finds nothing wrong. Returns the names of the points that are sealed again."""
    names = {id_of_point(name): name for name in NAMES}
    with database.write() as session:
        point = points.get(session, id_of_point(read))
        again = damage.take_back(session, point, Proof(kind, ok=True), begun=begun, now=LATER, facts={"by": "a test"})
    return sorted(names[point_id] for point_id in again)


@pytest.mark.parametrize("read", ["full1", "inc1", "top1"])
@pytest.mark.parametrize("kind", [ProofKind.bytes, ProofKind.structure])
def test_points_are_good_again_when_the_point_that_spoiled_them_is(database: Database, nas: str, read: str, kind: ProofKind) -> None:
    note(database, read, f"{folder_of(database, 'full1')}/vda.qcow2", kind)
    assert good(database, "full1", kind) == ["full1", "inc1", "top1"]
    assert [state(database, name) for name in NAMES] == ["sealed"] * 4
    assert stale_texts(database) == []


def test_a_point_that_was_found_bad_itself_stays_damaged_when_the_point_below_is_good_again(database: Database, nas: str) -> None:
    note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2")
    note(database, "inc1", f"{folder_of(database, 'inc1')}/vda.qcow2")
    assert good(database, "full1") == ["full1"]
    assert [state(database, name) for name in NAMES] == ["sealed", "damaged", "damaged", "sealed"]
    assert good(database, "inc1") == ["inc1", "top1"]


def test_its_own_damage_counts_however_often_a_point_below_was_to_blame_after_it(database: Database, nas: str) -> None:
    note(database, "top1", f"{folder_of(database, 'top1')}/vda.qcow2")
    for _ in range(2 * KEPT_OF_EACH_KIND):
        note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2")
    assert good(database, "full1") == ["full1", "inc1"]
    assert state(database, "top1") == "damaged"
    with database.read() as session:
        assert len(points.get(session, id_of_point("top1")).proofs or ()) == KEPT_OF_EACH_KIND + 1


def test_a_point_that_two_kinds_of_proof_call_bad_waits_for_both(database: Database, nas: str) -> None:
    for kind in (ProofKind.bytes, ProofKind.structure):
        note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2", kind)
    assert good(database, "full1") == []
    assert good(database, "full1", ProofKind.structure) == ["full1", "inc1", "top1"]


def test_a_point_above_waits_for_every_point_that_was_to_blame(database: Database, nas: str) -> None:
    with database.write() as session:
        places = [points.get(session, id_of_point(name)).folder or "" for name in ("full1", "inc1")]
        damage.put_on_record(session, points.get(session, id_of_point("top1")), places, BAD, now=NOW, facts={})
    # Another read of the lower point: of what its own guest saw.
    note(database, "inc1", f"{folder_of(database, 'inc1')}/vda.qcow2")
    assert good(database, "full1") == ["full1"]
    assert good(database, "inc1") == ["inc1", "top1"]


def test_a_point_above_is_not_sealed_again_while_another_point_below_it_is_missing(database: Database, nas: str) -> None:
    note(database, "top1", f"{folder_of(database, 'inc1')}/vda.qcow2")
    with database.write() as session:
        points.set_state(session, id_of_point("full1"), PointState.missing, now=NOW)
    assert good(database, "inc1") == ["inc1"]
    assert state(database, "top1") == "damaged"
    with database.write() as session:
        points.set_state(session, id_of_point("full1"), PointState.sealed, now=NOW)
    assert good(database, "full1") == ["top1"]


def test_damage_that_was_found_while_the_point_was_read_is_not_taken_back_by_that_read(database: Database, nas: str) -> None:
    note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2")
    assert good(database, "full1", begun=NOW - timedelta(seconds=1)) == []
    assert [state(database, name) for name in NAMES] == ["damaged", "damaged", "damaged", "sealed"]
    assert good(database, "full1") == ["full1", "inc1", "top1"]


def test_a_point_above_says_why_it_is_good_again_and_gets_no_proof_of_what_was_not_read(database: Database, nas: str) -> None:
    note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2")
    good(database, "full1")
    with database.read() as session:
        (proof,) = points.get(session, id_of_point("top1")).proofs or []
    assert (proof["ok"], proof["at"]) == (None, rfc3339(NOW))
    assert proof["facts"] == {
        "reason": "one byte",
        "damaged_below": [id_of_point("full1")],
        "whole_again": [id_of_point("full1")],
        "taken_back_at": rfc3339(LATER),
    }
    (event,) = [
        event for event in read(database) if event.point_id == id_of_point("top1") and event.moved_to == "sealed" and event.moved_from
    ]
    assert event.facts == {"by": "a test", "whole_again": [id_of_point("full1")]}


def test_a_point_that_is_given_up_is_not_sealed_again(database: Database, nas: str) -> None:
    note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2")
    with database.write() as session:
        points.set_state(session, id_of_point("top1"), PointState.leaving, now=NOW)
    assert good(database, "full1") == ["full1", "inc1"]
    assert state(database, "top1") == "leaving"


def test_one_point_turns_bad_and_another_one_good_at_the_same_time_and_neither_is_lost(database: Database, nas: str) -> None:
    """Two transactions for the same points wait for each other. Whichever is first, the point with the bad file is damaged at the end."""
    for _ in range(10):
        note(database, "top1", f"{folder_of(database, 'full1')}/vda.qcow2")
        start = threading.Barrier(2)

        def found_good(start: threading.Barrier = start) -> None:
            start.wait()
            good(database, "full1")

        def found_bad(start: threading.Barrier = start) -> None:
            start.wait()
            note(database, "top1", f"{folder_of(database, 'inc1')}/vda.qcow2")

        with ThreadPoolExecutor(2) as pool:
            for outcome in [pool.submit(found_good), pool.submit(found_bad)]:
                outcome.result()
        assert [state(database, name) for name in NAMES] == ["sealed", "damaged", "damaged", "sealed"]
        good(database, "inc1")
        assert [state(database, name) for name in NAMES] == ["sealed"] * 4
