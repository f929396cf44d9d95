"""`stillpoint retention preview`: what it asks, and what it shows."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.schemas.examples_retention import PREVIEW
from tests.scripted_service import ScriptedService, Stillpoint, scripted

PREVIEWED = "POST /api/v1/retention/preview"
STAYING, GOING = PREVIEW["points"]


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with scripted() as running:
        running.says(PREVIEWED, PREVIEW)
        yield running


@pytest.fixture
def stillpoint(tmp_path: Path, service: ScriptedService) -> Stillpoint:
    return Stillpoint(tmp_path, service)


def test_it_asks_for_what_goes_by_the_rules_on_record(stillpoint: Stillpoint, service: ScriptedService) -> None:
    done = stillpoint("retention", "preview", "--policy", "production", "--track", "nightly", "-r", "nas", "--domain", "db1")
    asked = {"policy": "production", "track": "nightly", "repository": "nas", "domain": "db1", "show": "goes"}
    assert (done.returncode, service.bodies_of(PREVIEWED)) == (0, [asked])


def test_rules_are_tried_as_they_are_given(stillpoint: Stillpoint, service: ScriptedService) -> None:
    stillpoint("retention", "preview", "--keep-last", "2", "--keep-daily", "0", "--minimum-age-s", "60", "--all")
    assert service.bodies_of(PREVIEWED) == [{"rules": {"keep_last": 2, "keep_daily": 0, "minimum_age_s": 60}, "show": "all"}]


def test_each_point_is_a_line_with_its_reasons_and_the_counts_are_beside_them(stillpoint: Stillpoint) -> None:
    done = stillpoint("retention", "preview", "--all")
    first, second = done.stdout.splitlines()
    assert first.split()[0] == STAYING["id"]
    assert all(reason["text"] in first for reason in STAYING["reasons"])
    assert second.split()[0] == GOING["id"]
    assert all(count["code"] in done.stderr for count in PREVIEW["counts"])


def test_programs_get_the_whole_answer(stillpoint: Stillpoint) -> None:
    done = stillpoint("retention", "preview", "--json")
    assert json.loads(done.stdout) == PREVIEW
