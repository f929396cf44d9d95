"""Which policy has a domain."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import PolicyTie
from service.model.selectors import Domain, Selected, Selector, Specificity, Tie, error_of, policy_of, ties


@dataclass(frozen=True)
class Named:
    name: str
    selector: Selector = field(default_factory=Selector)


def policy(name: str, *names: str, **more: Any) -> Named:
    return Named(name, Selector(names=names, **more))


def domain(name: str = "db-1", host: str = "host-a", **labels: str) -> Domain:
    return Domain(f"id-of-{name}", name, host, labels)


REST = Named("rest", Selector(all_the_rest=True))


def winner(domain: Domain, *policies: Named) -> str | tuple[str, ...] | None:
    match policy_of(domain, policies):
        case Selected(policy=name):
            return name
        case Tie(policies=names):
            return names
    return None


# --- one selector ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "is_selected"),
    [
        ("db-*", "db-1", True),
        ("db-*", "DB-1", False),
        ("db-?", "db-12", False),
        ("db-[12]", "db-2", True),
        ("db-[!12]", "db-2", False),
        ("db[", "db[", True),
        ("[*]", "*", True),
        ("db-1", "db-1", True),
        ("db-1", "db-10", False),
        ("*", "a\nb", True),
    ],
)
def test_names_are_patterns_of_a_shell_and_case_counts(pattern: str, name: str, is_selected: bool) -> None:
    assert (winner(domain(name), policy("p", pattern)) == "p") is is_selected


def test_one_of_the_names_is_enough_and_one_of_the_hosts() -> None:
    chosen = policy("p", "web-*", "db-*", hosts=("host-b", "host-a"))
    assert winner(domain(), chosen) == "p"
    assert winner(domain(host="host-c"), chosen) is None


def test_all_labels_must_match_and_others_do_not_matter() -> None:
    chosen = Named("p", Selector(labels={"tier": "gold", "site": "a"}))
    assert winner(domain(tier="gold", site="a", more="x"), chosen) == "p"
    assert winner(domain(tier="gold"), chosen) is None
    assert winner(domain(tier="Gold", site="a"), chosen) is None


def test_names_labels_and_hosts_must_all_match() -> None:
    chosen = policy("p", "db-*", labels={"tier": "gold"}, hosts=("host-a",))
    assert winner(domain(tier="gold"), chosen) == "p"
    assert winner(domain("web", tier="gold"), chosen) is None
    assert winner(domain(tier="gold", host="host-b"), chosen) is None
    assert winner(domain(), chosen) is None


# --- the most specific one ------------------------------------------------------------------------

FROM_WEAK_TO_STRONG = [
    REST,
    Named("host", Selector(hosts=("host-a",))),
    Named("label", Selector(labels={"tier": "gold"})),
    Named("label and host", Selector(labels={"tier": "gold"}, hosts=("host-a",))),
    Named("two labels", Selector(labels={"tier": "gold", "site": "a"})),
    policy("any name", "*"),
    policy("short pattern", "d*"),
    policy("longer pattern", "db-*"),
    policy("longer pattern with host", "db-*", hosts=("host-a",)),
    policy("longer pattern with label", "db-*", labels={"tier": "gold"}),
    policy("exact name", "db-1"),
    policy("exact name with label", "db-1", labels={"tier": "gold"}),
]


def test_what_is_more_specific_wins() -> None:
    asked = domain(tier="gold", site="a")
    for n, chosen in enumerate(FROM_WEAK_TO_STRONG):
        assert winner(asked, *FROM_WEAK_TO_STRONG[: n + 1]) == chosen.name


def test_the_best_pattern_of_a_policy_counts() -> None:
    assert winner(domain(), policy("p", "*", "db-1"), policy("q", "db-*")) == "p"


def test_a_set_of_characters_is_not_a_literal() -> None:
    assert winner(domain(), policy("p", "db[-_]*"), policy("q", "db-*")) == "q"


def test_a_pattern_that_does_not_match_lends_nothing() -> None:
    assert winner(domain(), policy("p", "*", "database-server-*"), policy("q", "db*")) == "q"


# --- ties -----------------------------------------------------------------------------------------


def test_equal_policies_are_a_tie_that_names_both() -> None:
    assert winner(domain(), policy("q", "db-*"), policy("p", "d*-1")) == ("p", "q")


def test_a_tie_of_weaker_policies_does_not_matter() -> None:
    assert winner(domain(), policy("p", "d*"), policy("q", "*1"), policy("exact", "db-1")) == "exact"


def test_two_policies_for_all_the_rest_are_a_tie_only_where_they_are_needed() -> None:
    other = Named("other rest", Selector(all_the_rest=True))
    assert winner(domain(), REST, other) == ("other rest", "rest")
    assert winner(domain(), REST, other, policy("p", "*")) == "p"


def test_ties_names_the_domains_that_no_policy_has() -> None:
    clear, tied = domain("web"), domain("db-1")
    ((found, tie),) = ties([clear, tied], [policy("p", "db-*"), policy("q", "*b-1"), REST])
    assert (found, tie.policies) == (tied, ("p", "q"))


def test_the_error_of_a_tie_has_the_domain_and_both_policies() -> None:
    error = error_of([(domain(), Tie(("p", "q"), Specificity()))])
    assert isinstance(error, PolicyTie)
    assert error.facts["domains"] == [{"id": "id-of-db-1", "name": "db-1", "policies": ["p", "q"]}]


# --- for all policies -----------------------------------------------------------------------------

any_name = st.sampled_from(["db-1", "db-2", "web", "d"])
any_pattern = any_name | st.sampled_from(["*", "d*", "db-*", "db-?", "[dw]*", "*-1"])
any_labels = st.dictionaries(st.sampled_from(["tier", "site"]), st.sampled_from(["a", "b"]))
any_hosts = st.lists(st.sampled_from(["host-a", "host-b"]), max_size=2, unique=True).map(tuple)
narrow = st.builds(Selector, names=st.lists(any_pattern, max_size=3, unique=True).map(tuple), labels=any_labels, hosts=any_hosts).filter(
    lambda selector: bool(selector.names or selector.labels or selector.hosts)
)
any_selector = st.just(Selector(all_the_rest=True)) | narrow
any_policies = st.lists(any_selector, max_size=6).map(lambda found: [Named(f"p{n}", each) for n, each in enumerate(found)])
any_domain = st.builds(Domain, st.just("id"), any_name, st.sampled_from(["host-a", "host-b"]), any_labels)
MANY = settings(max_examples=300)


@MANY
@given(any_domain, any_policies, st.randoms(use_true_random=False))
def test_the_order_of_policies_does_not_matter(asked: Domain, policies: list[Named], random: Any) -> None:
    shuffled = list(policies)
    random.shuffle(shuffled)
    assert policy_of(asked, shuffled) == policy_of(asked, policies)


@MANY
@given(any_domain, any_policies, any_selector)
def test_a_less_specific_policy_never_changes_the_winner(asked: Domain, policies: list[Named], added: Selector) -> None:
    before = policy_of(asked, policies)
    weight = added.specificity(asked)
    if before is None or (weight is not None and weight >= before.specificity):
        return
    assert policy_of(asked, [*policies, Named("added", added)]) == before


@MANY
@given(any_domain, any_policies)
def test_a_domain_has_one_policy_unless_none_asks_for_it_or_equals_do(asked: Domain, policies: Sequence[Named]) -> None:
    selecting = {each.name: weight for each in policies if (weight := each.selector.specificity(asked)) is not None}
    best = sorted(name for name, weight in selecting.items() if weight == max(selecting.values()))
    assert winner(asked, *policies) == (None if not best else best[0] if len(best) == 1 else tuple(best))


@MANY
@given(any_domain, any_policies)
def test_all_the_rest_has_what_no_other_policy_selects(asked: Domain, policies: list[Named]) -> None:
    others = [each for each in policies if not each.selector.all_the_rest]
    expected = REST.name if policy_of(asked, others) is None else winner(asked, *others)
    assert winner(asked, *others, REST) == expected
