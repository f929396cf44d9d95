"""Which points are merged into those that need them, as nothing else makes them stay. A pure rule, told in ids.

A merge writes each point again that stands on what goes. So a track says how many such points a chain must have before it is worth that.
"""

from collections.abc import Collection, Mapping, Sequence


def to_merge(needed_by: Mapping[str, Sequence[str]], limits: Mapping[str, int], whole: Collection[str]) -> list[str]:
    """The ids of the points that are merged, in order.

    `needed_by`: by the id of a point, the points that stay and stand directly on it. `limits`: by the ids of the points that only such a
    need makes stay, how many of them a chain must have. `whole`: points that are good with all that they need. Nothing is merged into a
    point that is not whole, because its own clusters, or others below it, cannot be trusted.
    """
    if not limits:
        return []
    candidates = [each for each in limits if each in whole and all(heir in whole for heir in needed_by[each])]
    chain_of = _chains(needed_by)
    counts: dict[int, int] = {}
    for each in candidates:
        counts[chain_of[each]] = counts.get(chain_of[each], 0) + 1
    return sorted(each for each in candidates if counts[chain_of[each]] >= limits[each])


def _chains(needed_by: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The number of the chain of each point. Points that are connected in any way are of one chain. Each point is looked at once."""
    neighbours: dict[str, list[str]] = {}
    for parent, heirs in needed_by.items():
        for heir in heirs:
            neighbours.setdefault(parent, []).append(heir)
            neighbours.setdefault(heir, []).append(parent)
    chain_of: dict[str, int] = {}
    for number, first in enumerate(neighbours):
        further = [first]
        while further:
            if (each := further.pop()) not in chain_of:
                chain_of[each] = number
                further += neighbours[each]
    return chain_of
