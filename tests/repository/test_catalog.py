"""The list of points can be made again from the repository alone."""

from pathlib import Path

from service.model.manifest import DiskOfPoint, Manifest
from service.model.repository import DiskLevel
from service.repository.catalog import Catalog, catalog_of
from service.repository.signing import SigningKey
from service.repository.store import Repository, StoredPoint
from tests.repository.manifests import DOMAIN, manifest


def _disk(parent: str | None, target: str = "vda", folder: str | None = None) -> DiskOfPoint:
    level = DiskLevel.bitmap if parent else DiskLevel.full
    parent_folder = folder or (f"domains/{DOMAIN}/{parent}" if parent else None)
    return DiskOfPoint(target, f"{target}.qcow2", 1, level, "", "", f"{target}.blocks", 0, parent=parent, parent_folder=parent_folder)


def _point(name: str, *parents: str | None, at: int = 0) -> Manifest:
    disks = tuple(_disk(parent, f"vd{number}") for number, parent in enumerate(parents or (None,)))
    return manifest(name, [], point_id=name, disks=disks, point_in_time_at=f"2026-11-27T21:00:{at:02}Z")


def _catalog(*points: Manifest) -> Catalog:
    return catalog_of([StoredPoint(point.folder, point, None, is_signed=True) for point in points])


def _names(catalog: Catalog) -> list[str]:
    return [point.manifest.point_id for point in catalog.points]


def _missing(catalog: Catalog) -> dict[str, set[str]]:
    return {point.manifest.point_id: set(point.missing) for point in catalog.points}


def test_parents_come_first_whatever_the_clock_said() -> None:
    catalog = _catalog(_point("c", "b", at=1), _point("b", "a", at=2), _point("a", at=3), _point("x", at=0))
    assert _names(catalog) == ["x", "a", "b", "c"]
    assert all(point.is_complete for point in catalog.points)


def test_a_point_with_two_parents_comes_after_both() -> None:
    assert _names(_catalog(_point("c", "b", "a", at=0), _point("a", at=2), _point("b", at=1))) == ["a", "b", "c"]


def test_all_that_inherit_from_a_missing_point_are_incomplete() -> None:
    catalog = _catalog(_point("c", "b"), _point("b", "a"), _point("d"), _point("e", "c", "d"))
    assert _missing(catalog) == {"b": {"a"}, "c": {"a"}, "d": set(), "e": {"a"}}


def test_a_parent_in_another_folder_than_the_images_name_is_missing() -> None:
    child = manifest("b", [], point_id="b", disks=(_disk("a", folder=f"domains/{DOMAIN}/elsewhere"),))
    assert _missing(_catalog(_point("a"), child)) == {"a": set(), "b": {"a"}}


def test_points_that_are_each_others_parents_are_incomplete() -> None:
    catalog = _catalog(_point("a", "c"), _point("b", "a"), _point("c", "b"), _point("d", "c"), _point("own", "own"), _point("good"))
    assert {point.manifest.point_id for point in catalog.points if point.is_complete} == {"good"}
    assert len(catalog.points) == 6


def test_a_chain_of_thousands_is_not_too_deep() -> None:
    points = [_point(f"{number:05}", f"{number - 1:05}" if number else None) for number in range(3000)]
    assert _names(_catalog(*reversed(points))) == [point.point_id for point in points]


def test_what_cannot_be_trusted_is_not_listed_and_leaves_its_heirs_incomplete() -> None:
    good, heir = _point("a"), _point("b", "a")
    moved = StoredPoint(f"domains/{DOMAIN}/moved", good, None, is_signed=True)
    unsigned = StoredPoint(good.folder, good, None, is_signed=False)
    catalog = catalog_of([moved, unsigned, StoredPoint(heir.folder, heir, None)])
    assert catalog.unusable == (moved, unsigned)
    assert _missing(catalog) == {"b": {"a"}}


def test_of_two_folders_with_one_id_the_second_is_not_listed() -> None:
    first, second = (StoredPoint(f"domains/{DOMAIN}/{name}", manifest(name, [], point_id="a"), None) for name in ("x", "y"))
    catalog = catalog_of([first, second])
    assert [point.stored for point in catalog.points] == [first]
    assert catalog.unusable == (second,)


def test_a_real_repository_is_catalogued_without_a_database(repository: Repository, tmp_path: Path) -> None:
    key = SigningKey.of_service(tmp_path / "state")
    for name, parents in (("b", ("a",)), ("a", (None,)), ("damaged", (None,))):
        unfinished = repository.begin_point(DOMAIN, name).partial
        repository.publish(unfinished, _point(name, *parents), key)
    Path(repository.path, "domains", DOMAIN, "damaged", "manifest.json").write_text("{")
    catalog = catalog_of(repository.points())
    assert _names(catalog) == ["a", "b"]
    assert [Path(point.folder).name for point in catalog.unusable] == ["damaged"]
