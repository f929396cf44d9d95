"""What changed in a guest since the last look is told once, with before, after and since when."""

import pytest

from service.model.windows.auto_recovery import VssOption, VssOptionState
from service.model.windows.drift import (
    ABSENT,
    INVALID,
    Fact,
    FactValue,
    Memory,
    Remembered,
    compare,
    memory_document,
    memory_from,
    vss_option_fact,
)

pytestmark = pytest.mark.windows

MONDAY, TUESDAY, WEDNESDAY = "2026-03-02T09:00:00Z", "2026-03-03T09:00:00Z", "2026-03-04T09:00:00Z"

FACTS: dict[Fact, FactValue | None] = {
    Fact.agent_version: "107.0.1",
    Fact.vss_option: 5,
    Fact.vss_provider: "{3629d4ed-ee09-4e0e-9a5c-6d8ba2872aef}",
    Fact.blocked_commands: [],
}


def after_monday_and_tuesday() -> Memory:
    memory, _ = compare({}, FACTS, MONDAY)
    memory, _ = compare(memory, FACTS, TUESDAY)
    return memory


def test_the_first_look_remembers_and_warns_of_nothing() -> None:
    memory, changes = compare({}, FACTS, MONDAY)
    assert changes == []
    assert memory[Fact.agent_version] == Remembered("107.0.1", MONDAY, MONDAY)


def test_a_look_at_the_same_remembers_since_when() -> None:
    assert after_monday_and_tuesday()[Fact.vss_option] == Remembered(5, MONDAY, TUESDAY)


@pytest.mark.parametrize(
    ("fact", "value", "code"),
    [
        (Fact.agent_version, "110.0.2", "agent_version_changed"),
        (Fact.vss_option, 2, "vss_option_changed"),
        (Fact.vss_provider, ABSENT, "vss_provider_changed"),
        (Fact.blocked_commands, ["guest-exec"], "blocked_commands_changed"),
    ],
)
def test_a_change_carries_before_after_and_since(fact: Fact, value: FactValue, code: str) -> None:
    memory, changes = compare(after_monday_and_tuesday(), {**FACTS, fact: value}, WEDNESDAY)
    (change,) = changes
    assert (change.code, change.fact, change.before, change.after) == (code, fact, FACTS[fact], value)
    assert (change.before_since, change.last_seen_before, change.since) == (MONDAY, TUESDAY, WEDNESDAY)
    assert memory[fact] == Remembered(value, WEDNESDAY, WEDNESDAY)
    assert change.as_document()["fact"] == fact.value


@pytest.mark.parametrize("value", [1, ABSENT, INVALID])
def test_an_update_that_resets_copy_to_full_has_a_warning_of_its_own(value: FactValue) -> None:
    _, (change,) = compare(after_monday_and_tuesday(), {**FACTS, Fact.vss_option: value}, WEDNESDAY)
    assert change.code == "vss_option_reset"
    assert "FULL" in change.detail
    assert "/d 5" in change.remedy


def test_full_to_copy_is_an_ordinary_change() -> None:
    memory, _ = compare({}, {**FACTS, Fact.vss_option: 1}, MONDAY)
    _, (change,) = compare(memory, FACTS, TUESDAY)
    assert change.code == "vss_option_changed"


def test_what_could_not_be_read_is_no_change_and_is_not_forgotten() -> None:
    memory, changes = compare(after_monday_and_tuesday(), dict.fromkeys(Fact), WEDNESDAY)
    assert (memory, changes) == (after_monday_and_tuesday(), [])


def test_the_next_look_after_a_change_is_silent() -> None:
    changed = {**FACTS, Fact.vss_option: 1}
    memory, _ = compare(after_monday_and_tuesday(), changed, TUESDAY)
    assert compare(memory, changed, WEDNESDAY)[1] == []


def test_the_order_of_blocked_commands_means_nothing() -> None:
    memory, _ = compare({}, {Fact.blocked_commands: ["b", "a", "a"]}, MONDAY)
    assert compare(memory, {Fact.blocked_commands: ["a", "b"]}, TUESDAY)[1] == []


def test_the_memory_survives_a_document() -> None:
    memory = after_monday_and_tuesday()
    assert memory_from(memory_document(memory)) == memory
    assert memory_from({"a_fact_of_a_later_version": {"value": 1, "since": MONDAY, "seen": MONDAY}}) == {}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (VssOption(VssOptionState.present, 5), 5),
        (VssOption(VssOptionState.absent), ABSENT),
        (VssOption(VssOptionState.invalid, 9), INVALID),
        (VssOption(VssOptionState.unreadable), None),
    ],
)
def test_vss_option_as_a_fact(option: VssOption, expected: FactValue | None) -> None:
    assert vss_option_fact(option) == expected
