"""What a change of a policy changes for its domains, held against what each domain has before and after."""

from hypothesis import given, settings

from service.model.policy_reach import reach_of
from service.model.selectors import Domain, Named, Selected, policy_of
from tests.model.test_selectors import any_domain, any_policies, any_selector


def has(domain: Domain, name: str, policies: list[Named]) -> bool:
    chosen = policy_of(domain, policies)
    return isinstance(chosen, Selected) and chosen.policy == name


@settings(max_examples=300)
@given(any_domain, any_policies, any_selector, any_selector)
def test_every_domain_is_where_the_policies_before_and_after_say(domain: Domain, found: list[Named], new: object, old: object) -> None:
    others = [Named(each.name, each.selector) for each in found]
    policy, current = Named("mine", new), Named("mine", old)  # type: ignore[arg-type]  # hypothesis does not tell
    reach = reach_of(policy, current, others, [domain])
    before, after = has(domain, "mine", [*others, current]), has(domain, "mine", [*others, policy])
    assert bool(reach.has) == after
    assert bool(reach.takes) == (after and not before)
    assert bool(reach.loses) == (before and not after)
    selected = policy.selector.specificity(domain) is not None
    assert len(reach.has) + len(reach.outranked) + len(reach.ties) == int(selected)
    assert all("mine" in policies and len(policies) > 1 for _, policies in reach.ties)
    assert all("mine" not in policies and policies for _, policies in reach.outranked)
