"""A preview of a policy, in lines for people."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_NAMED = 10
"""Domains that a line names. The others are counted."""


def lines_of(preview: Mapping[str, Any]) -> Iterator[str]:
    yield f"{preview['policy']}, from {preview['begin']} to {preview['until']}:"
    yield f"  domains    {_group(preview['domains'])}"
    for name, sentence in _GROUPS.items():
        if preview[name]["count"]:
            yield f"  {name:<9}  {_group(preview[name])}: {sentence}"
    runs = preview["runs"]
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in runs["by_outcome"].items() if count)
    left_out = f"; without those of {runs['domains_left_out']} domains, which are too many" if runs["domains_left_out"] else ""
    yield f"  runs       {runs['count']}{f' ({outcomes})' if outcomes else ''}{left_out}"
    busiest = preview["busiest_hour"]
    if busiest is not None:
        yield f"  busiest    {busiest['starts']} begin in the hour from {busiest['hour']}"
    for day, starts in _days(preview["load"]).items():
        yield f"    {day}  {starts:>6}"


_GROUPS = {
    "takes": "other policies have them now, or none",
    "loses": "it would not have them any more",
    "outranked": "a more specific policy has them",
    "ties": "several policies select them equally well, so it would not be written",
}


def _group(group: Mapping[str, Any]) -> str:
    named = [_domain(domain) for domain in group["items"][:MAX_NAMED]]
    rest = group["count"] - len(named)
    listed = ", ".join(named + ([f"{rest} more"] if rest else []))
    return f"{group['count']} ({listed})" if named else str(group["count"])


def _domain(domain: Mapping[str, Any]) -> str:
    policies: Sequence[str] = domain.get("policies", ())
    return f"{domain['name']}: {', '.join(policies)}" if policies else str(domain["name"])


def _days(load: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """How many runs begin on each day, in UTC and in order."""
    days: Counter[str] = Counter()
    for hour in load:
        days[hour["hour"][:10]] += hour["starts"]
    return days
