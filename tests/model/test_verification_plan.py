"""What is verified next: missing proofs before old ones, promises before both, and no point twice."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from service.model import chains
from service.model.lifecycle import PointState
from service.model.repository import ProofKind
from service.model.verification_plan import OLD, PAUSE, READS_OF_A_BYTE, PromisedProof, StoredPoint, Why, plan

NOW = datetime(2026, 3, 20, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SINCE = NOW - 400 * DAY


def point(name: str, days_ago: float, *parents: str, proven: float | None = None, **more: object) -> StoredPoint:
    """`a2` is a point of the domain `a`. `proven`: days since its bytes were."""
    proofs = {ProofKind.bytes.value: NOW - proven * DAY} if proven is not None else {}
    plain = StoredPoint(name, name[0], NOW - days_ago * DAY, parents, stored_bytes=10, proven=proofs)
    return replace(plain, **more)  # type: ignore[arg-type]


def planned(*points: StoredPoint, promises: dict[str, PromisedProof] | None = None) -> list[tuple[str, str]]:
    return [(each.point_id, each.why.value) for each in plan(points, promises or {}, NOW)]


def test_missing_proofs_come_first_and_of_them_the_newest_of_each_domain() -> None:
    points = [point("a1", 9), point("a2", 2), point("b1", 8), point("b2", 3), point("c1", 1, proven=30), point("c2", 99, proven=40)]
    assert planned(*points) == [
        ("a2", "missing"),
        ("b2", "missing"),
        ("b1", "missing"),
        ("a1", "missing"),
        ("c2", "old"),
        ("c1", "old"),
    ]


def test_a_chain_is_read_once_from_its_highest_point() -> None:
    points = [point("a1", 3), point("a2", 2, "a1"), point("a3", 1, "a2"), point("a4", 5, "a1")]
    found = plan(points, {}, NOW)
    assert [(each.point_id, each.cost_bytes) for each in found] == [("a3", 3 * 10 * READS_OF_A_BYTE), ("a4", 2 * 10 * READS_OF_A_BYTE)]


def test_the_proof_of_a_point_is_a_proof_of_what_it_stands_on() -> None:
    assert planned(point("a1", 3), point("a2", 2, "a1"), point("a3", 1, "a2", proven=1)) == []
    assert planned(point("a1", 3, proven=1), point("a2", 2, "a1"), point("a3", 1, "a2")) == [("a3", "missing")]


def test_a_proof_that_is_young_enough_is_not_renewed() -> None:
    assert planned(point("a1", 90, proven=OLD / DAY - 0.1)) == []
    assert planned(point("a1", 90, proven=OLD / DAY + 0.1)) == [("a1", "old")]


def test_a_promise_counts_by_its_deadline() -> None:
    points = [point("a1", 9), point("b1", 9, proven=29), point("b2", 1), point("c1", 9, proven=28.5)]
    a_month = PromisedProof(ProofKind.bytes, 30 * DAY, SINCE)
    found = plan(points, {"b": a_month, "c": a_month}, NOW)
    assert [(each.point_id, each.why) for each in found] == [
        ("b2", Why.promised),
        ("c1", Why.promised),
        ("a1", Why.missing),
        ("b1", Why.old),
    ]
    assert [each.due_at for each in found[:2]] == [NOW + DAY, NOW + 1.5 * DAY]


def test_a_promise_that_is_kept_for_long_asks_for_nothing() -> None:
    a_month = PromisedProof(ProofKind.bytes, 30 * DAY, SINCE)
    assert planned(point("a1", 9, proven=3), promises={"a": a_month}) == []


def test_a_promise_of_another_kind_looks_at_the_proofs_of_that_kind() -> None:
    proofs = {"bytes": NOW, "filesystem": NOW - 31 * DAY}
    promise = PromisedProof(ProofKind.filesystem, 30 * DAY, SINCE)
    assert planned(point("a1", 9, proven=0), promises={"a": promise}) == [("a1", "promised")]
    assert planned(replace(point("a1", 9), proven=proofs), promises={"a": promise}) == [("a1", "promised")]


def test_a_promise_of_hours_is_not_read_without_a_pause() -> None:
    promise = PromisedProof(ProofKind.bytes, timedelta(hours=12), SINCE)
    assert planned(point("a1", 9, proven=0.2), promises={"a": promise}) == []
    assert planned(point("a1", 9, proven=0.3), promises={"a": promise}) == [("a1", "promised")]


def test_a_promise_that_begins_now_has_its_whole_time() -> None:
    assert planned(point("a1", 9, proven=6), promises={"a": PromisedProof(ProofKind.bytes, 5 * DAY, NOW)}) == []


def test_what_is_being_read_is_not_read_again_nor_what_it_stands_on() -> None:
    reading = point("a2", 8, "a1", tried_at=NOW, is_being_read=True)
    assert planned(point("a1", 9), reading) == []
    assert planned(point("a1", 9), replace(reading, is_being_read=False)) == [("a1", "missing")]


def test_a_point_that_was_tried_waits_for_a_day() -> None:
    assert planned(point("a1", 9, tried_at=NOW - PAUSE / 2), point("a2", 10)) == [("a2", "missing")]
    assert planned(point("a1", 9, tried_at=NOW - PAUSE)) == [("a1", "missing")]
    assert planned(point("a1", 9, tried_at=NOW + 3 * DAY)) == [("a1", "missing")]


def test_what_is_damaged_is_tried_again_when_something_has_changed() -> None:
    bad = point("a1", 9, state=PointState.damaged.value, tried_at=NOW - 3 * DAY)
    above = point("a2", 8, "a1", state=PointState.damaged.value, blamed=("a1",), tried_at=NOW - 3 * DAY)
    assert planned(bad, above) == []
    assert planned(replace(bad, tried_at=None), above) == [("a1", "damaged")]
    assert planned(bad, above, point("a3", 1, proven=1)) == [("a2", "damaged")]
    assert planned(bad, above, point("a3", 9, proven=1), point("a4", 1, "a3", proven=1)) == [], "an increment has few blocks"
    assert planned(bad, above, point("a3", 9, proven=1, healed_at=NOW - DAY)) == [("a2", "damaged")]
    assert planned(point("a1", 9, proven=1), above) == [("a2", "damaged")]


def test_points_that_are_not_there_are_not_read() -> None:
    assert planned(*(point(f"a{n}", n, state=state.value) for n, state in enumerate((PointState.missing, PointState.leaving)))) == []


def test_a_proof_of_a_clock_that_was_ahead_counts_for_nothing() -> None:
    assert planned(point("a1", 9, proven=-30)) == [("a1", "missing")]


_STATES = st.sampled_from([PointState.sealed, PointState.sealed, PointState.sealed, PointState.damaged, PointState.missing])


@st.composite
def repositories(draw: st.DrawFn) -> list[StoredPoint]:
    points: list[StoredPoint] = []
    for n in range(draw(st.integers(0, 25))):
        domain = draw(st.sampled_from("abc"))
        below = [each.id for each in points if each.domain_id == domain]
        parents = draw(st.lists(st.sampled_from(below), max_size=1)) if below else []
        proven = draw(st.none() | st.floats(0, 60))
        tried = draw(st.none() | st.floats(0, 5))
        made = point(f"{domain}{n}", 100 - n, *parents, proven=proven, state=draw(_STATES).value)
        points.append(replace(made, tried_at=NOW - tried * DAY if tried is not None else None))
    return points


promised = st.dictionaries(
    st.sampled_from("abc"), st.builds(PromisedProof, st.just(ProofKind.bytes), st.integers(1, 60).map(lambda n: n * DAY), st.just(SINCE))
)


@given(repositories(), promised)
def test_whatever_there_is_the_plan_is_in_order_and_reads_no_point_twice(
    points: list[StoredPoint], promises: dict[str, PromisedProof]
) -> None:
    found = plan(points, promises, NOW)
    by_id = {each.id: each for each in points}
    order = list(Why)
    assert [order.index(each.why) for each in found] == sorted(order.index(each.why) for each in found)
    read: set[str] = set()
    for each in found:
        assert each.point_id not in read
        read |= chains.with_all_below(each.point_id, {one.id: one.parents for one in points})
        its = by_id[each.point_id]
        assert its.state in (PointState.sealed, PointState.damaged)
        assert its.tried_at is None or NOW - its.tried_at >= PAUSE
        assert each.cost_bytes >= READS_OF_A_BYTE * its.stored_bytes


@given(repositories(), promised)
def test_the_order_of_the_points_does_not_matter_and_a_short_plan_is_the_beginning_of_a_long_one(
    points: list[StoredPoint], promises: dict[str, PromisedProof]
) -> None:
    found = plan(points, promises, NOW)
    assert plan(reversed(points), promises, NOW) == found
    assert plan(points, promises, NOW, limit=2) == found[:2]


@given(repositories())
@settings(max_examples=50)
def test_who_follows_the_plan_soon_has_a_young_proof_of_every_sealed_point(points: list[StoredPoint]) -> None:
    now, by_id = NOW, {each.id: replace(each, tried_at=None) for each in points}
    for _ in range(len(points) + 1):
        found = plan(by_id.values(), {}, now)
        for each in found[:1]:
            its = by_id[each.point_id]
            proven = {ProofKind.bytes.value: now} if its.state == PointState.sealed else {}
            by_id[its.id] = replace(its, tried_at=now, proven={**its.proven, **proven})
    assert plan(by_id.values(), {}, now) == []
