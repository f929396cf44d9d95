"""Every reason of retention has a sentence, made of its facts."""

from typing import Any

import pytest

from service.model.retention import Goes, Ground, Stays
from service.model.retention_rules import Rule
from service.model.retention_words import sentence

FACTS: dict[str, Any] = {
    "number": 3,
    "wanted": 7,
    "period": "2026-W05",
    "minimum_age_s": 3600,
    "points": ["p1", "p2"],
    "jobs": ["j1"],
    "domains": [],
    "policy": "production",
    "track": "nightly",
    "repository": "nas",
    "state": "gone",
    "by": "p9",
    "rule": "weekly",
    "verdict": "filesystem",
}
ALL_BUT_RULES = [code for code in (*Stays, *Goes) if code.value not in frozenset(Rule)]


@pytest.mark.parametrize("code", [*Stays, *Goes])
def test_every_reason_has_a_sentence(code: Stays | Goes) -> None:
    assert sentence(Ground(code, FACTS))


def test_no_two_reasons_have_the_same_sentence() -> None:
    assert len({sentence(Ground(code, FACTS)) for code in (*Stays, *Goes)}) == len([*Stays, *Goes])


def test_a_rule_is_told_with_its_number_and_its_period() -> None:
    told = sentence(Ground(Stays.weekly, FACTS))
    assert all(fact in told for fact in ("keep_weekly", "3", "7", "2026-W05"))


def test_the_point_in_the_place_of_another_is_named_where_no_period_is() -> None:
    assert "p9" in sentence(Ground(Goes.replaced, {"by": "p9", "rule": "last", "period": "p1"}))
