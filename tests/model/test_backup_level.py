"""Which disks are copied in full and which as an increment: every event after which a bitmap may lie."""

from dataclasses import replace
from typing import Any

import pytest

from service.errors import LevelImpossible
from service.model.backup_level import MAX_CHAIN, BitmapState, Decision, DiskNow, Earlier, decide, must_be_incremental, parents_bitmap
from service.model.manifest import DiskOfPoint, Manifest
from service.model.repository import DiskLevel, Level
from service.model.retention_rules import NewFull

GIB = 1 << 30
CHECKPOINT = "stillpoint-12345678-aaaaaaaa"


def earlier(*, depth: int = 1, **changed: object) -> Earlier:
    disk = DiskOfPoint(
        target="vda",
        file="vda.qcow2",
        virtual_size=GIB,
        level=DiskLevel.full,
        reason="",
        content="",
        blocks_file="vda.blocks",
        copied_bytes=0,
        checkpoint=CHECKPOINT,
    )
    manifest = Manifest(
        point_id="p1",
        repository_id="r1",
        folder="domains/d1/p1",
        job_id="j1",
        host_id="hv1",
        domain_id="d1",
        domain_name="db1",
        point_in_time_at="2026-11-27T20:00:00Z",
        sealed_at="2026-11-27T20:00:01Z",
        verdict="filesystem",
        verdict_reasons=(),
        disks=(DiskOfPoint(**{**vars(disk), **changed}),),
        left_out=(),
        files=(),
    )
    return Earlier(manifest, depth)


def decided(
    bitmap: BitmapState | None = BitmapState.whole,
    *,
    asked: Level = Level.auto,
    source_format: str = "qcow2",
    size: int = GIB,
    is_encrypted: bool = False,
    target: str = "vda",
    before: Earlier | None = None,
) -> Decision:
    return decide(asked, DiskNow(target, source_format, size, bitmap), before or earlier(), is_encrypted=is_encrypted)


FILES = ("/images/db1-overlay.qcow2", "/images/db1.qcow2")


@pytest.mark.parametrize(
    ("before", "now", "level"),
    [
        pytest.param({"serial": "S1"}, {"serial": "S1"}, DiskLevel.bitmap, id="the same serial"),
        pytest.param({"serial": "S1"}, {"serial": "S2"}, DiskLevel.full, id="another serial"),
        pytest.param({"serial": "S1"}, {}, DiskLevel.full, id="no serial any more"),
        pytest.param({"source_files": FILES}, {"source_files": FILES[1:]}, DiskLevel.bitmap, id="the overlay was merged"),
        pytest.param({"source_files": FILES[1:]}, {"source_files": FILES}, DiskLevel.bitmap, id="a snapshot was taken"),
        pytest.param({"source_files": FILES}, {"source_files": ("/images/db2.qcow2",)}, DiskLevel.full, id="another file"),
        pytest.param({}, {"source_files": FILES}, DiskLevel.bitmap, id="a manifest of an earlier version"),
    ],
)
def test_a_bitmap_counts_only_for_the_disk_of_the_last_point(before: dict[str, Any], now: dict[str, Any], level: DiskLevel) -> None:
    disk = DiskNow("vda", "qcow2", GIB, BitmapState.whole, **now)
    decision = decide(Level.auto, disk, earlier(**before), is_encrypted=False)
    assert (decision.level, bool(decision.reason)) == (level, True)


def test_a_template_below_two_disks_says_nothing_of_either() -> None:
    template = "/images/template.qcow2"
    before = earlier(source_files=("/images/a.qcow2", template))
    other = replace(before.manifest.disks[0], target="vdb", source_files=("/images/b.qcow2", template))
    before = Earlier(replace(before.manifest, disks=(*before.manifest.disks, other)))
    exchanged = DiskNow("vda", "qcow2", GIB, BitmapState.whole, source_files=("/images/b.qcow2", template))
    assert decide(Level.auto, exchanged, before, is_encrypted=False).level is DiskLevel.full


def test_a_disk_whose_bitmap_is_whole_is_an_increment_on_the_last_point() -> None:
    decision = decided()
    assert (decision.level, decision.parent_id, decision.parent_folder) == (DiskLevel.bitmap, "p1", "domains/d1/p1")
    assert decision.bitmap == CHECKPOINT


@pytest.mark.parametrize("state", [state for state in BitmapState if state is not BitmapState.whole] + [None])
def test_every_doubt_about_the_bitmap_makes_the_copy_a_full_one(state: BitmapState | None) -> None:
    decision = decided(state)
    assert (decision.level, decision.parent, decision.bitmap) == (DiskLevel.full, None, None)
    assert decision.reason


def test_each_doubt_has_a_reason_of_its_own() -> None:
    states = [state for state in BitmapState if state is not BitmapState.whole]
    assert len({decided(state).reason for state in states}) == len(states)


def test_what_libvirt_says_of_the_bitmap_is_in_the_reason() -> None:
    disk = DiskNow("vda", "qcow2", GIB, BitmapState.unusable, "missing or broken bitmap")
    assert "missing or broken bitmap" in decide(Level.auto, disk, earlier(), is_encrypted=False).reason


def test_the_first_point_is_full_and_says_what_the_caller_of_the_rule_knows() -> None:
    disk = DiskNow("vda", "qcow2", GIB)
    first = decide(Level.auto, disk, None, is_encrypted=False)
    gone = decide(Level.auto, disk, None, is_encrypted=False, no_earlier="the last point is gone")
    assert (first.level, gone.level, gone.reason) == (DiskLevel.full, DiskLevel.full, "the last point is gone")
    assert first.reason != gone.reason


def test_a_full_copy_that_was_asked_for_stands_alone_although_the_bitmap_is_whole() -> None:
    assert (decided(asked=Level.full).level, decided(asked=Level.full).parent) == (DiskLevel.full, None)


def test_a_disk_that_has_grown_is_still_an_increment() -> None:
    assert decided(size=2 * GIB).level is DiskLevel.bitmap


def test_a_disk_that_has_shrunk_is_full() -> None:
    assert decided(size=GIB // 2).level is DiskLevel.full


def test_a_disk_that_was_added_since_the_last_point_is_full() -> None:
    assert decided(target="vdb").level is DiskLevel.full
    assert parents_bitmap(earlier(), "vdb") is None


@pytest.mark.parametrize(
    ("source_format", "before"),
    [
        pytest.param("raw", earlier(source_format="raw", checkpoint=None), id="raw"),
        pytest.param("qcow2", earlier(checkpoint=None), id="the last point was taken of a domain that was off"),
        pytest.param("qcow2", earlier(source_format="raw", checkpoint=None), id="raw has become qcow2"),
        pytest.param("raw", earlier(), id="qcow2 has become raw"),
    ],
)
def test_a_disk_without_a_bitmap_is_compared_by_content(source_format: str, before: Earlier) -> None:
    decision = decided(None, source_format=source_format, before=before)
    assert (decision.level, decision.parent_id, decision.bitmap) == (DiskLevel.content, "p1", None)


def test_a_raw_disk_without_an_earlier_point_is_full() -> None:
    assert decide(Level.auto, DiskNow("vda", "raw", GIB), None, is_encrypted=False).level is DiskLevel.full


@pytest.mark.parametrize("is_encrypted", [True, False])
def test_an_increment_never_mixes_encrypted_and_plain_files(is_encrypted: bool) -> None:
    assert decided(is_encrypted=is_encrypted, before=earlier(is_encrypted=not is_encrypted)).level is DiskLevel.full
    assert decided(is_encrypted=is_encrypted, before=earlier(is_encrypted=is_encrypted)).level is DiskLevel.bitmap


def test_a_chain_does_not_grow_without_end() -> None:
    assert decided(before=earlier(depth=MAX_CHAIN - 1)).level is DiskLevel.bitmap
    assert decided(before=earlier(depth=MAX_CHAIN)).level is DiskLevel.full


def by_retention(sizes: list[int], limits: NewFull | None, asked: Level = Level.auto) -> DiskLevel:
    return decide(
        asked, DiskNow("vda", "qcow2", GIB, BitmapState.whole), replace(earlier(), sizes=sizes), is_encrypted=False, new_full=limits
    ).level


def test_a_chain_of_as_many_increments_as_the_policy_allows_is_followed_by_a_full() -> None:
    limits = NewFull(max_depth=2)
    assert [by_retention([100] * points, limits) for points in (1, 2, 3)] == [DiskLevel.bitmap, DiskLevel.bitmap, DiskLevel.full]


def test_increments_that_are_larger_than_the_policy_allows_are_followed_by_a_full() -> None:
    limits = NewFull(max_depth=None, max_ratio=0.5)
    assert [by_retention([100, 25, last], limits) for last in (25, 26)] == [DiskLevel.bitmap, DiskLevel.full]


def test_the_policy_makes_a_full_only_where_the_level_is_left_to_the_service() -> None:
    assert by_retention([100] * 9, NewFull(max_depth=1), Level.incremental) is DiskLevel.bitmap
    assert by_retention([100] * 9, None) is DiskLevel.bitmap


@pytest.mark.parametrize(
    ("sizes", "limits", "facts"),
    [([100, 1, 1], NewFull(max_depth=2), ("2", "max_depth")), ([100, 40, 40], NewFull(max_ratio=0.75), ("80", "100", "0.75", "max_ratio"))],
)
def test_the_reason_of_a_full_by_the_policy_has_the_numbers(sizes: list[int], limits: NewFull, facts: tuple[str, ...]) -> None:
    disk = DiskNow("vda", "qcow2", GIB, BitmapState.whole)
    reason = decide(Level.auto, disk, replace(earlier(), sizes=sizes), is_encrypted=False, new_full=limits).reason
    assert all(fact in reason for fact in facts)


def test_an_increment_that_was_asked_for_and_is_impossible_is_refused_with_the_disk_and_the_reason() -> None:
    full = decided(BitmapState.in_use, asked=Level.incremental)
    with pytest.raises(LevelImpossible) as refused:
        must_be_incremental("db1", Level.incremental, [decided(asked=Level.incremental), full])
    assert (refused.value.facts["disk"], refused.value.facts["reason"]) == ("vda", full.reason)


@pytest.mark.parametrize("asked", [Level.auto, Level.full])
def test_nothing_is_refused_that_was_not_asked_for(asked: Level) -> None:
    must_be_incremental("db1", asked, [decided(BitmapState.in_use, asked=asked)])


def test_an_increment_by_content_satisfies_the_wish_for_an_increment() -> None:
    by_content = decided(None, asked=Level.incremental, source_format="raw", before=earlier(source_format="raw", checkpoint=None))
    must_be_incremental("db1", Level.incremental, [by_content])
