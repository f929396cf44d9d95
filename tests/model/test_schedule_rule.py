"""The rule of a schedule: what is read, what is refused, and how far apart its runs are."""

from typing import Any

import pytest

from service.errors import CronNeverDue, CronUnreadable, FieldMissing, FieldRefused, JitterTooLong, TimeZoneUnknown
from service.model.document_fields import Faults, Fields
from service.model.schedule_rule import FIELDS, MAX_JITTER_S, CatchUp, ScheduleRule, shortest_gap_s


def read(**document: Any) -> tuple[ScheduleRule, list[tuple[type, str]]]:
    faults = Faults()
    rule = ScheduleRule.read(Fields({"cron": "0 2 * * *", "time_zone": "UTC", **document}, "schedule", FIELDS, faults))
    return rule, [(type(fault), fault.facts["path"]) for fault in faults.all]


def test_what_is_left_out_has_its_default() -> None:
    rule, faults = read()
    assert faults == []
    assert rule == ScheduleRule("0 2 * * *", "UTC", jitter_s=0, catch_up=CatchUp.run, catch_up_within_s=86_400)


def test_a_rule_is_written_as_it_is_read_with_one_space_between_its_fields() -> None:
    rule, faults = read(cron=" 0  2 *\t* * ", jitter_s=60, catch_up="skip", catch_up_within_s=5)
    assert faults == []
    document = rule.as_document()
    assert document == {"cron": "0 2 * * *", "time_zone": "UTC", "jitter_s": 60, "catch_up": "skip", "catch_up_within_s": 5}
    assert read(**document) == (rule, [])


@pytest.mark.parametrize(
    ("document", "fault", "field"),
    [
        ({"cron": "0 2 * *"}, CronUnreadable, "cron"),
        ({"cron": "0 0 2 * * *"}, CronUnreadable, "cron"),
        ({"cron": "@daily"}, CronUnreadable, "cron"),
        ({"cron": ""}, FieldRefused, "cron"),
        ({"cron": None}, FieldMissing, "cron"),
        ({"cron": "0 0 */31 2 1#5"}, CronNeverDue, "cron"),
        ({"time_zone": "Europe/Berln"}, TimeZoneUnknown, "time_zone"),
        ({"time_zone": "localtime"}, TimeZoneUnknown, "time_zone"),
        ({"time_zone": None}, FieldMissing, "time_zone"),
        ({"jitter_s": MAX_JITTER_S + 1}, FieldRefused, "jitter_s"),
        ({"jitter_s": 86_400}, JitterTooLong, "jitter_s"),
        ({"cron": "*/7 * * * *", "jitter_s": 240}, JitterTooLong, "jitter_s"),
        ({"catch_up": "maybe"}, FieldRefused, "catch_up"),
        ({"catch_up_within_s": -1}, FieldRefused, "catch_up_within_s"),
    ],
)
def test_a_fault_is_told_once_and_names_its_field(document: dict[str, Any], fault: type, field: str) -> None:
    _, faults = read(**document)
    assert faults == [(fault, f"schedule.{field}")]


@pytest.mark.parametrize(
    ("cron", "zone", "gap_s"),
    [
        ("0 2 * * *", "UTC", 86_400),
        # The night on which the clocks go forward is an hour shorter.
        ("0 2 * * *", "Europe/Berlin", 82_800),
        ("0 2,3 * * *", "Europe/Berlin", 3_600),
        # The hour ends with a gap of four minutes.
        ("*/7 * * * *", "UTC", 240),
        ("0 0 29 2 *", "UTC", None),
    ],
)
def test_the_shortest_gap_between_two_runs(cron: str, zone: str, gap_s: int | None) -> None:
    assert shortest_gap_s(cron, zone) == gap_s


def test_a_jitter_may_be_a_second_shorter_than_the_shortest_gap() -> None:
    assert read(cron="*/7 * * * *", jitter_s=239)[1] == []
