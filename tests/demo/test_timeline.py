"""The demo's timeline: every phase with its start, its duration and a bar, and the hold marked."""

from typing import Any

from demo.timeline import ASCII, HELD, Row, draw, rows

AT = "2026-01-31T22:00:{:06.3f}Z"


def phase(name: str, at_s: float, duration_ms: float, outcome: str = "ok") -> dict[str, Any]:
    return {"name": name, "started_at": AT.format(at_s), "duration_ms": duration_ms, "outcome": outcome}


def job(*phases: dict[str, Any], timing: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"created_at": AT.format(0), "phases": list(phases), "timing": timing}


def test_starts_count_from_the_creation_of_the_job_and_the_wait_in_the_queue_comes_first() -> None:
    assert rows(job(phase("preflight", 0.030, 12.0), phase("prepare", 0.050, 5.0))) == [
        Row("queued", 0.0, 30.0),
        Row("preflight", 30.0, 12.0),
        Row("prepare", 50.0, 5.0),
    ]


def test_the_hold_ends_where_the_thaw_starts() -> None:
    found = rows(
        job(phase("freeze", 0.100, 40.0), phase("point_in_time", 0.140, 10.0), phase("thaw", 0.152, 8.0), timing={"hold_ms": 12.0})
    )

    assert found[-2:] == [Row("thaw", 152.0, 8.0), Row(HELD, 140.0, 12.0)]


def test_a_job_that_held_nothing_has_no_hold_in_its_timeline() -> None:
    assert [row.name for row in rows(job(phase("thaw", 0.1, 1.0), timing={"hold_ms": None}))] == ["queued", "thaw"]
    assert rows(job()) == []


def test_bars_share_one_scale_and_the_hold_has_a_glyph_of_its_own() -> None:
    timeline = [Row("freeze", 0.0, 50.0), Row("thaw", 50.0, 50.0), Row(HELD, 25.0, 25.0)]

    bars = [text[42:] for _, text in draw(timeline, 82, ASCII)]

    assert bars == ["#" * 20, " " * 20 + "#" * 20, " " * 10 + "=" * 10]


def test_a_phase_too_short_for_a_bar_is_still_to_be_seen_and_no_line_is_too_long() -> None:
    lines = [text for _, text in draw([Row("prepare", 0.0, 1000.0), Row("evaluate", 1000.0, 0.2)], 82, ASCII)]

    assert lines[1].endswith(" " + ASCII.speck)
    assert max(map(len, lines)) <= 82


def test_an_outcome_other_than_ok_is_named() -> None:
    (_, text), *_ = draw(rows(job(phase("freeze", 0.0, 10.0, "failed")))[1:], 82, ASCII)

    assert text.endswith("# failed")
