"""What points a repository has, from the repository alone: parents first, and which of them are incomplete."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from service.model.manifest import Manifest
from service.repository.store import StoredPoint


@dataclass(frozen=True)
class CataloguedPoint:
    """`missing`: the ids of all points that this one needs, directly or not, and that are not there or cannot be read."""

    stored: StoredPoint
    manifest: Manifest
    missing: frozenset[str]

    @property
    def is_complete(self) -> bool:
        return not self.missing


@dataclass(frozen=True)
class Catalog:
    """`points`: each after those that it inherits from, otherwise by their time. `unusable`: folders that are not to be put on record."""

    points: tuple[CataloguedPoint, ...]
    unusable: tuple[StoredPoint, ...]


def catalog_of(stored: Iterable[StoredPoint]) -> Catalog:
    """Unusable is what has an error, a wrong signature, or the folder of another point: backing names are relative to the folder."""
    manifests: dict[str, Manifest] = {}
    origins: dict[str, StoredPoint] = {}
    unusable = []
    for point in stored:
        manifest = point.manifest
        if manifest is None or point.is_signed is False or manifest.folder != point.folder or manifest.point_id in manifests:
            unusable.append(point)
        else:
            manifests[manifest.point_id] = manifest
            origins[manifest.point_id] = point
    missing = _missing(manifests)
    return Catalog(
        tuple(CataloguedPoint(origins[each], manifests[each], missing[each]) for each in _parents_first(manifests)), tuple(unusable)
    )


def _direct(manifests: Mapping[str, Manifest], point_id: str) -> tuple[set[str], set[str]]:
    """The parents that are there, and those that are not. One of another folder is not the one that the images name."""
    there: set[str] = set()
    absent: set[str] = set()
    for disk in manifests[point_id].disks:
        if disk.parent is not None:
            parent = manifests.get(disk.parent)
            (there if parent is not None and parent.folder == disk.parent_folder else absent).add(disk.parent)
    return there, absent


def _parents_first(manifests: Mapping[str, Manifest]) -> list[str]:
    """Without recursion: a chain may have thousands of points."""
    ordered: dict[str, None] = {}
    for begin in sorted(manifests, key=lambda each: (manifests[each].point_in_time_at, each)):
        path, on_path = [begin], {begin}
        while path:
            waiting = sorted(_direct(manifests, path[-1])[0] - ordered.keys() - on_path)
            if waiting:
                path.append(waiting[0])
                on_path.add(waiting[0])
            else:
                ordered.setdefault(path[-1])
                on_path.discard(path.pop())
    return list(ordered)


def _missing(manifests: Mapping[str, Manifest]) -> dict[str, frozenset[str]]:
    """Points that are each other's parents are missing to each other: no chain of them ends in a point that stands alone."""
    missing: dict[str, frozenset[str]] = {}
    for each in _parents_first(manifests):
        there, absent = _direct(manifests, each)
        # In a circle there is a parent that comes later.
        circular = {parent for parent in there if parent not in missing}
        missing[each] = frozenset(absent | circular).union(*(missing[parent] for parent in there - circular))
    return missing
