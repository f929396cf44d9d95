"""`stillpoint copy …`: what it asks, and what it shows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.schemas.examples_copies import COPIED_POINT, COPY, COPY_ID, COPY_PROOF
from tests.scripted_service import ScriptedService, Stillpoint, scripted

COPIES = "/api/v1/repositories/nas/copies"
JOB = {"id": "8d0e4c1a-1f8b-4f2d-9a53-0c6f6e8a2b11", "kind": "copy", "state": "queued"}


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    with scripted() as running:
        running.says(f"POST {COPIES}", COPY)
        running.says(f"GET {COPIES}", {"items": [COPY], "next_cursor": None})
        running.says(f"DELETE {COPIES}/offsite", {"id": COPY_ID, "name": "offsite"})
        running.says(f"GET {COPIES}/offsite/points", {"items": [COPIED_POINT], "next_cursor": None})
        running.says(f"GET {COPIES}/offsite/proofs", {"items": [COPY_PROOF]})
        running.says(f"PATCH {COPIES}/offsite", COPY)
        running.says("POST /api/v1/jobs", JOB)
        yield running


@pytest.fixture
def stillpoint(tmp_path: Path, service: ScriptedService) -> Stillpoint:
    return Stillpoint(tmp_path, service)


def test_a_bucket_is_registered_with_its_lock(stillpoint: Stillpoint, service: ScriptedService) -> None:
    options = ["--bucket", "one", "--prefix", "nas", "--endpoint", "https://s3.example.com", "--key", "file:/k", "--retain-days", "30"]
    done = stillpoint("copy", "add", "nas", "offsite", *options)
    target = {"kind": "s3", "bucket": "one", "prefix": "nas", "endpoint": "https://s3.example.com"}
    asked = {"name": "offsite", "target": target, "key": "file:/k", "retain_days": 30}
    assert (done.returncode, service.bodies_of(f"POST {COPIES}")) == (0, [asked])
    assert COPY_ID in done.stdout


@pytest.mark.parametrize(
    ("options", "target"),
    [
        (["--folder", "/srv/copy"], {"kind": "folder", "path": "/srv/copy"}),
        (["--remote", "box:backups"], {"kind": "rclone", "remote": "box:backups"}),
    ],
)
def test_a_folder_and_a_remote_are_registered(
    stillpoint: Stillpoint, service: ScriptedService, options: list[str], target: dict[str, str]
) -> None:
    assert stillpoint("copy", "add", "nas", "offsite", *options).returncode == 0
    assert service.bodies_of(f"POST {COPIES}") == [{"name": "offsite", "target": target}]


@pytest.mark.parametrize("options", [[], ["--folder", "/srv", "--bucket", "one"]])
def test_a_copy_is_at_one_place(stillpoint: Stillpoint, service: ScriptedService, options: list[str]) -> None:
    assert stillpoint("copy", "add", "nas", "offsite", *options).returncode == 2
    assert service.bodies_of(f"POST {COPIES}") == []


def test_the_list_says_what_each_store_was_proven_to_be(stillpoint: Stillpoint) -> None:
    (line,) = stillpoint("copy", "list", "nas").stdout.splitlines()
    assert line.split()[:2] == [COPY_ID, "offsite"]
    assert COPY["immutability"] in line


@pytest.mark.parametrize("action", ["send", "check", "prove"])
def test_a_job_is_asked_for(stillpoint: Stillpoint, service: ScriptedService, action: str) -> None:
    done = stillpoint("copy", action, "nas", "offsite", "--no-wait")
    asked = {"kind": "copy", "repository": "nas", "copy": "offsite", "action": action}
    assert (done.returncode, service.bodies_of("POST /api/v1/jobs")) == (0, [asked])
    assert JOB["id"] in done.stdout


def test_a_fetch_names_points(stillpoint: Stillpoint, service: ScriptedService) -> None:
    assert stillpoint("copy", "fetch", "nas", "offsite").returncode == 2
    done = stillpoint("copy", "fetch", "nas", "offsite", "one", "two", "--no-wait")
    asked = {"kind": "copy", "repository": "nas", "copy": "offsite", "action": "fetch", "recovery_points": ["one", "two"]}
    assert (done.returncode, service.bodies_of("POST /api/v1/jobs")) == (0, [asked])


def test_each_point_there_is_a_line(stillpoint: Stillpoint) -> None:
    (line,) = stillpoint("copy", "points", "nas", "offsite").stdout.splitlines()
    assert line.split()[0] == COPIED_POINT["recovery_point"]
    assert COPIED_POINT["retained_until"] in line


def test_each_proof_shows_every_answer(stillpoint: Stillpoint) -> None:
    first, *answers = stillpoint("copy", "proofs", "nas", "offsite").stdout.splitlines()
    assert COPY_PROOF["immutability"] in first
    assert [line.split()[0] for line in answers] == [answer["attack"] for answer in COPY_PROOF["answers"]]


def test_a_copy_is_forgotten(stillpoint: Stillpoint) -> None:
    assert stillpoint("copy", "forget", "nas", "offsite").stdout.split() == [COPY_ID, "offsite"]


def test_rules_are_set_and_taken_away(stillpoint: Stillpoint, service: ScriptedService) -> None:
    assert stillpoint("copy", "keep", "nas", "offsite", "--daily", "30", "--monthly", "12").returncode == 0
    assert stillpoint("copy", "keep", "nas", "offsite", "--everything").returncode == 0
    numbers = {"keep_last": 0, "keep_daily": 30, "keep_weekly": 0, "keep_monthly": 12, "keep_yearly": 0}
    assert service.bodies_of(f"PATCH {COPIES}/offsite") == [{"retention": numbers}, {"retention": None}]


@pytest.mark.parametrize("options", [[], ["--everything", "--last", "1"]])
def test_rules_that_say_nothing_or_two_things_are_refused(stillpoint: Stillpoint, service: ScriptedService, options: list[str]) -> None:
    assert stillpoint("copy", "keep", "nas", "offsite", *options).returncode == 2
    assert service.bodies_of(f"PATCH {COPIES}/offsite") == []


def test_named_points_are_removed(stillpoint: Stillpoint, service: ScriptedService) -> None:
    assert stillpoint("copy", "remove", "nas", "offsite", "p1", "--no-wait").returncode == 0
    (asked,) = service.bodies_of("POST /api/v1/jobs")
    assert asked is not None
    assert (asked["action"], asked["recovery_points"]) == ("remove", ["p1"])
