"""Points that inherit from other points: which ones a point needs, and which point is the next good one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(slots=True)
class Link:
    """A point as a part of chains. `is_good`: sealed, and its own files are not known to be bad.

    Nobody changes a link. It is not frozen, as tens of thousands are made for one answer, and frozen ones take four times as long to make.
    """

    id: str
    at: datetime
    parents: tuple[str, ...]
    is_good: bool


def ancestors(point_id: str, links: Mapping[str, Link]) -> set[str]:
    """The ids of all points that the point needs, without itself. Also of points that are not among `links`."""
    needed: set[str] = set()
    further = list(links[point_id].parents) if point_id in links else []
    while further:
        parent = further.pop()
        if parent not in needed:
            needed.add(parent)
            further += links[parent].parents if parent in links else ()
    return needed - {point_id}


def with_all_below(point_id: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    """The point itself, and all points below it. `parents`: by the id of a point."""
    chain, further = {point_id}, [point_id]
    while further:
        below = set(parents.get(further.pop(), ())) - chain
        chain |= below
        further += below
    return chain


def tops_first(point_ids: Iterable[str], parents: Mapping[str, Sequence[str]]) -> list[str]:
    """So that no point comes before those that stand on it. `parents`: by the id of a point. Each point is looked at once."""
    heights: dict[str, int] = {}
    for point_id in point_ids:
        _measure(point_id, parents, heights)
    return sorted(point_ids, key=lambda each: (-heights[each], each))


def _measure(point_id: str, parents: Mapping[str, Sequence[str]], heights: dict[str, int]) -> None:
    """Note how many points are below each other under the point, and under all below it. A circle ends where it began."""
    further, open_ids = [point_id], set[str]()
    while further:
        current = further[-1]
        below = [each for each in parents.get(current, ()) if each not in heights and each not in open_ids]
        if current not in heights and current not in open_ids and below:
            open_ids.add(current)
            further += below
            continue
        heights[current] = 1 + max((heights.get(each, 0) for each in parents.get(current, ())), default=0)
        further.pop()


def next_good(point_id: str, links: Iterable[Link]) -> str | None:
    """The point to restore instead of `point_id`: the newest good one before it, or else the oldest good one after it.

    A point is good only with all points that it needs, and never if it needs `point_id`.
    """
    known = {link.id: link for link in links}
    asked = known.get(point_id)
    good = sorted(_good(point_id, known), key=lambda link: (link.at, link.id))
    before = [link for link in good if asked is None or (link.at, link.id) < (asked.at, asked.id)]
    best = before[-1] if before else next(iter(good), None)
    return best.id if best is not None else None


def _good(point_id: str, known: Mapping[str, Link]) -> Iterator[Link]:
    for link in known.values():
        needed = ancestors(link.id, known)
        is_whole = link.is_good and all(parent in known and known[parent].is_good for parent in needed)
        if is_whole and link.id != point_id and point_id not in needed:
            yield link
