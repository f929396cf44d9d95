"""Which domains a policy would have, and what that changes for them: for its preview."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from service.model.selectors import Domain, HasSelector, Selected, Tie, policy_of

Names = tuple[str, ...]
"""None: no policy has the domain. One: that policy has it. Several: they are a tie."""


class Moved(NamedTuple):
    """`policies`: who has the domain instead, or had it before."""

    domain: Domain
    policies: Names


@dataclass
class Reach:
    """`takes`: what it has and does not have yet. `loses`: the other way round. `outranked`: what its selector selects and another
    policy has. `ties`: with their policies, itself among them."""

    has: list[Domain] = field(default_factory=list)
    takes: list[Moved] = field(default_factory=list)
    loses: list[Moved] = field(default_factory=list)
    outranked: list[Moved] = field(default_factory=list)
    ties: list[Moved] = field(default_factory=list)


def reach_of(policy: HasSelector, current: HasSelector | None, others: Sequence[HasSelector], domains: Iterable[Domain]) -> Reach:
    """`current`: the policy as it is on record; None: it is new. `others`: all other policies."""
    reach = Reach()
    after, before = [*others, policy], [*others, *([current] if current is not None else [])]
    for domain in domains:
        is_selected = policy.selector.specificity(domain) is not None
        was_selected = current is not None and current.selector.specificity(domain) is not None
        if not is_selected and not was_selected:
            continue
        now, then = _names(domain, after), _names(domain, before)
        had_it = current is not None and then == (current.name,)
        has_it = now == (policy.name,)
        if has_it:
            reach.has.append(domain)
        elif is_selected:
            (reach.ties if policy.name in now else reach.outranked).append(Moved(domain, now))
        if has_it and not had_it:
            reach.takes.append(Moved(domain, then))
        if had_it and not has_it:
            reach.loses.append(Moved(domain, now))
    return reach


def _names(domain: Domain, policies: Sequence[HasSelector]) -> Names:
    match policy_of(domain, policies):
        case Selected(policy):
            return (policy,)
        case Tie(names):
            return names
        case None:
            return ()
