"""Which file is merged into which, and which points have their content elsewhere then."""

from typing import Any

import pytest

from service.errors import PointFilesShared, PointOffChain
from service.model.chain_links import DiskPoint, Link, Place, PointDisk, links_of, renamed
from service.model.intent import Overlay

SIZE = 1 << 20
CHAIN = {"vda": ["F3", "F2", "F1", "F0"]}


def point(name: str, file: str, overlay: str, *, is_given_up: bool = False) -> DiskPoint:
    return DiskPoint(name, [PointDisk("vda", file, "qcow2", overlay, SIZE)], is_given_up)


FIRST, SECOND, THIRD = point("first", "F0", "F1"), point("second", "F1", "F2"), point("third", "F2", "F3")


def link(going: DiskPoint, *others: DiskPoint, chain: list[str] | None = None) -> Link:
    (only,) = links_of(going, others, {"vda": chain} if chain is not None else CHAIN, "db1")
    return only


def test_the_overlay_of_a_point_in_the_middle_is_merged_into_its_file_and_the_next_point_has_that_file() -> None:
    found = link(SECOND, FIRST, THIRD)
    assert (found.place, found.heirs) == (Place.below, ("third",))
    assert (found.overlay.path, found.overlay.base) == ("F2", "F1")


def test_the_overlay_of_the_newest_point_is_the_file_that_the_guest_writes_to() -> None:
    assert (link(THIRD, FIRST, SECOND).place, link(THIRD, FIRST, SECOND).heirs) == (Place.active, ())


def test_a_link_that_was_merged_is_seen_by_the_chain() -> None:
    given_up = point("second", "F1", "F2", is_given_up=True)
    found = link(given_up, FIRST, THIRD, chain=["F3", "F1", "F0"])
    assert found == Link(Overlay("vda", "F1", "qcow2", "F2", SIZE), Place.merged, ("third",))


def test_a_link_that_was_merged_is_seen_after_its_heirs_were_renamed() -> None:
    given_up = point("second", "F1", "F2", is_given_up=True)
    with pytest.raises(PointFilesShared):
        link(given_up, point("third", "F1", "F3"), chain=["F3", "F2", "F1", "F0"])
    assert link(given_up, point("third", "F1", "F3"), chain=["F3", "F1", "F0"]).place is Place.merged


@pytest.mark.parametrize(
    "chain",
    {
        "the disk is on the file of the point": ["F0"],
        "the disk is on other files": ["X1", "X0"],
        "another overlay lies between": ["F3", "F2", "F1", "X", "F0"],
        "all of it was pulled up": ["F3"],
        "there is no such disk": [],
    }.values(),
)
def test_a_disk_that_does_not_stand_on_the_point_is_told(chain: list[str]) -> None:
    with pytest.raises(PointOffChain) as told:
        link(FIRST, SECOND, chain=chain)
    assert (told.value.facts["point"], told.value.facts["disk"], told.value.facts["file"]) == ("first", "vda", "F0")


def test_what_another_program_has_merged_beyond_the_next_point_is_not_taken_for_the_merge() -> None:
    """F1 and F2 went into F0: what the second point shows is lost, and it must not be told that its content is in F0."""
    given_up = point("first", "F0", "F1", is_given_up=True)
    with pytest.raises(PointOffChain):
        link(given_up, SECOND, THIRD, chain=["F3", "F0"])
    assert link(given_up, SECOND, THIRD, chain=["F3", "F2", "F0"]).place is Place.merged


def test_a_point_of_which_another_one_names_the_file_is_refused_with_its_name() -> None:
    with pytest.raises(PointFilesShared) as told:
        link(FIRST, point("other", "F0", "X"))
    assert (told.value.facts["needed_by"], told.value.facts["file"]) == (["other"], "F0")


def test_a_point_that_names_the_file_to_which_the_guest_writes_stops_the_merge() -> None:
    with pytest.raises(PointFilesShared) as told:
        link(THIRD, point("other", "F3", "X"))
    assert (told.value.facts["needed_by"], told.value.facts["file"]) == (["other"], "F3")


def test_only_the_disk_with_the_file_is_renamed_and_it_gets_the_format_of_the_file_below() -> None:
    other: dict[str, Any] = {"target": "vdb", "file": "G2"}
    disk: dict[str, Any] = {"target": "vda", "file": "F2", "format": "qcow2", "allocated": 1, "overlay": "F3"}
    merged = Overlay("vda", "F1", "raw", "F2", SIZE)
    now = renamed([disk, other], merged, 7)
    assert now == [{"target": "vda", "file": "F1", "format": "raw", "allocated": 7, "overlay": "F3"}, other]
    assert renamed(now, merged, 7) == now
